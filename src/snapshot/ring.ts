/**
 * What is a peer's own, in the memory of its neighbour: each member fetches what the one before it (by rank, round the ring) has
 * frozen, piece by piece and only what differs from what it has, by the way that shared state is fetched. Nobody's copy changes before
 * all of the new one is there, so whoever dies on the way leaves the old one behind.
 *
 * A peer is known by its name: it has it again after a restart, and asks the members who keeps something of that name.
 */
import * as v from 'valibot';
import { MismatchError } from '../errors.ts';
import type { Finding, StateAnswers, StateAsk } from '../state/asks.ts';
import { sameHash, toHex } from '../state/digest.ts';
import type { EntryShape } from '../state/layout.ts';
import { sharedMemory } from '../tensor.ts';
import type { Frozen } from './contents.ts';

/** How the engine and the other members are reached. */
export interface RingPort {
  readonly self: string;
  /** What this peer is called, also after a restart. */
  readonly name: string;
  engine<T extends StateAsk['type']>(ask: Extract<StateAsk, { type: T }>): Promise<StateAnswers[T]>;
  /** Everybody's bytes, as many from each, by rank. */
  gather(bytes: Uint8Array, timeoutMs: number): Promise<ReadonlyMap<string, Uint8Array>>;
}

/** Copies that are kept of peers that are gone: of those who have been gone for longest none. */
const MAX_ABSENT = 4;

const types = [
  'f32',
  'f64',
  'f16',
  'bf16',
  'i8',
  'i16',
  'i32',
  'i64',
  'u8',
  'u16',
  'u32',
  'u64',
  'number',
  'bigint',
  'boolean',
] as const;
const size = v.pipe(v.number(), v.integer(), v.minValue(0));
const shapeSchema = v.strictObject({ name: v.string(), type: v.picklist(types), bytes: size });
const offerSchema = v.strictObject({
  name: v.string(),
  revision: size,
  hash: v.pipe(v.string(), v.regex(/^[0-9a-f]{32}$/)),
  shapes: v.array(shapeSchema),
});
type Offer = v.InferOutput<typeof offerSchema>;

/** What this peer keeps of another one. */
interface Kept {
  readonly shapes: string;
  /** 0: nothing yet. */
  revision: number;
}

function tagOf(name: string): string {
  return `skein.own:${name}`;
}

export class Ring {
  readonly #port: RingPort;
  /** By the name of their owner, those that were renewed last at the end. */
  readonly #kept: Map<string, Kept> = new Map();
  /** Shapes of what this peer offers, whose memory the engine has; null: it has none. */
  #offered: string | null = null;

  constructor(port: RingPort) {
    this.#port = port;
  }

  /**
   * What this peer offers from now on.
   *
   * @param own of the same shapes as before it is in the same memory
   * @returns what the others need to know of it, as JSON; empty for nothing
   */
  async offer(own: Frozen | null): Promise<Uint8Array> {
    if (own === null) return new Uint8Array(0);
    const { name, engine } = this.#port;
    const shapes = own.layout.entries.map(({ name, type, bytes }) => ({ name, type, bytes }));
    const tag = tagOf(name);
    const key = JSON.stringify(shapes);
    if (this.#offered !== key)
      await engine({ type: 'attach', spec: { tag, shapes, memory: own.memory, revision: own.revision } });
    this.#offered = key;
    const { hash } = await engine({ type: 'begin', tag, revision: own.revision, changed: null });
    const offer: Offer = { name, revision: own.revision, hash: toHex(hash), shapes };
    return new TextEncoder().encode(JSON.stringify(offer));
  }

  /**
   * Takes the copy of the member before this one.
   *
   * @param told what each offers, by rank
   * @returns the peer that keeps what this one offered; null: nobody
   * @throws MismatchError where two have one name
   */
  async exchange(told: ReadonlyMap<string, Uint8Array>, timeoutMs: number): Promise<string | null> {
    const { self, name, engine, gather } = this.#port;
    const offers = new Map([...told].flatMap(([peerId, bytes]) => readOffer(peerId, bytes)));
    checkNames(offers);
    const peers = [...told.keys()];
    const rank = peers.indexOf(self);
    const before = peers.at(rank - 1)!;
    const after = peers[(rank + 1) % peers.length]!;
    const offer = before === self ? undefined : offers.get(before);
    const hasIt = offer !== undefined && (await this.#take(before, offer, timeoutMs));
    const done = await gather(Uint8Array.of(hasIt ? 1 : 0), timeoutMs);
    if (offers.has(self)) await engine({ type: 'abandon', tag: tagOf(name) }); // all that wanted it have asked
    await this.#forget(peers, offers, done);
    const isKept = offers.has(self) && after !== self && done.get(after)?.[0] === 1;
    return isKept ? after : null;
  }

  async #take(from: string, { name, revision, hash: text, shapes }: Offer, timeoutMs: number): Promise<boolean> {
    const { engine } = this.#port;
    const tag = tagOf(name);
    const key = JSON.stringify(shapes);
    let kept = this.#kept.get(name);
    if (kept?.shapes !== key) {
      // Until the new one has come there is none: what it takes the place of has other shapes.
      if (kept !== undefined) await engine({ type: 'detach', tag });
      const memory = shapes.map(({ bytes }) => new Uint8Array(sharedMemory(bytes)));
      await engine({ type: 'attach', spec: { tag, shapes, memory, revision: 0 } });
      kept = { shapes: key, revision: 0 };
    }
    this.#kept.delete(name);
    this.#kept.set(name, kept);
    const target = { revision, hash: fromHex(text), holders: [from] };
    const hasCome = await fetchFrom(engine, tag, kept.revision, target, timeoutMs);
    if (hasCome) kept.revision = revision;
    return hasCome;
  }

  /**
   * What others keep now is not kept here as well; nor what is of peers that have long been gone.
   *
   * @param done who has what it was to take
   */
  async #forget(
    told: readonly string[],
    offers: ReadonlyMap<string, Offer>,
    done: ReadonlyMap<string, Uint8Array>,
  ): Promise<void> {
    const elsewhere = new Set<string>();
    let mine: string | undefined;
    for (const [index, owner] of told.entries()) {
      const keeper = told[(index + 1) % told.length]!;
      const name = offers.get(owner)?.name;
      if (name === undefined) continue;
      if (keeper === this.#port.self) mine = name;
      else if (done.get(keeper)?.[0] === 1) elsewhere.add(name);
    }
    const others = [...this.#kept.keys()].filter((name) => name !== mine && !elsewhere.has(name));
    for (const name of [...elsewhere, ...others.slice(0, -MAX_ABSENT)])
      if (this.#kept.delete(name)) await this.#port.engine({ type: 'detach', tag: tagOf(name) });
  }

  /**
   * What members keep under this peer's name, put into this memory.
   *
   * @returns its revision and who gave it; null where nobody keeps anything of this shape
   */
  async recall(
    shapes: readonly EntryShape[],
    memory: readonly Uint8Array[],
    peers: readonly string[],
    timeoutMs: number,
  ): Promise<{ readonly revision: number; readonly from: string } | null> {
    const { engine, name } = this.#port;
    const tag = tagOf(name);
    this.#offered = null; // its place in the engine is taken
    await engine({ type: 'attach', spec: { tag, shapes, memory, revision: 0 } });
    try {
      const found = await engine({ type: 'find', tag, peers });
      if (found === null || !(await fetchFrom(engine, tag, 0, found, timeoutMs))) return null;
      return { revision: found.revision, from: found.holders[0]! }; // there is one at least
    } finally {
      await engine({ type: 'detach', tag });
    }
  }
}

/** @param before revision of what is here @returns whether all of the new one is here */
async function fetchFrom(
  engine: RingPort['engine'],
  tag: string,
  before: number,
  { revision, hash, holders }: Finding,
  timeoutMs: number,
): Promise<boolean> {
  let holding = await engine({ type: 'begin', tag, revision: before, changed: null });
  const isHere = () => sameHash(holding.hash, hash) || (holding.ready !== null && sameHash(holding.ready, hash));
  if (!isHere()) holding = await engine({ type: 'fetch', tag, revision, hash, holders, timeoutMs });
  if (isHere()) await engine({ type: 'settle', tag, revision, hash, diverged: 0 });
  else await engine({ type: 'abandon', tag });
  return isHere();
}

function readOffer(peerId: string, bytes: Uint8Array): [string, Offer][] {
  const end = bytes.indexOf(0);
  const text = new TextDecoder().decode(bytes.slice(0, end < 0 ? bytes.length : end));
  return text === '' ? [] : [[peerId, v.parse(offerSchema, JSON.parse(text))]];
}

function checkNames(offers: ReadonlyMap<string, Offer>): void {
  const owners = new Map<string, string>();
  for (const [peerId, { name }] of offers) {
    const other = owners.get(name);
    if (other !== undefined)
      throw new MismatchError(
        `${other} and ${peerId} are both called ${JSON.stringify(name)}: give each a \`name\` of its own, or what is its own can't be told apart.`,
      );
    owners.set(name, peerId);
  }
}

function fromHex(text: string): Uint8Array {
  return Uint8Array.from({ length: text.length / 2 }, (_, index) =>
    Number.parseInt(text.slice(2 * index, 2 * index + 2), 16),
  );
}
