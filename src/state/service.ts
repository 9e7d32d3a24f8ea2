/**
 * Shared state in the engine: looks after the replicas, answers other peers, and fetches for its own.
 *
 * What holds whatever happens:
 * - The contents of a whole replica change only in `settle`, all at once, to what its hash says.
 * - Every piece that gets to its place was held against a hash that comes from the hash of the state, which the members have agreed upon.
 * - Bytes on the way are bounded: `MAX_ASKS` at most to each source, two answers at most to whoever asks.
 */
import type { FrameHeader } from '../wire/frame.ts';
import { hashTag } from '../wire/frame.ts';
import { Asker } from './asker.ts';
import type {
  Finding,
  Holding,
  Prefetched,
  Settlement,
  StateAnswers,
  StateAsk,
  StateSpec,
  StateStatus,
} from './asks.ts';
import { sameHash, toHex } from './digest.ts';
import { Fetcher } from './fetcher.ts';
import { Hasher } from './hash.ts';
import { type Held, Holder } from './holder.ts';
import { bytesOfPieces, layOut, wireName } from './layout.ts';
import { Leisure } from './leisure.ts';
import type { StatePort } from './port.ts';
import { Replica, type Target } from './replica.ts';
import { restfulTurns } from './rest.ts';

/** How long a sync whose sources are gone waits before it looks who is left (ms). */
const PAUSE_MS = 50;

/** Between looks at what the members hold by now, while it is fetched before this peer is one (ms). */
const ROUND_MS = 100;
const PASS_MS = 1_000;

/** How long their tables are awaited (ms). */
const TABLE_MS = 10_000;

/** Peers that are asked for a state before this one is a member. */
const MAX_SOURCES = 16;

/** How long a newcomer's first sync waits for what it has begun to fetch already (ms). */
const FOLLOW_MS = 5_000;

/** So much is left to the first sync (bytes). */
const SOON_BYTES: number = 2 * 1024 * 1024;

/** From so much on it is fetched from all that hold it, not only from those who were ready first, and looked at before any of it comes (bytes). */
const MUCH_BYTES: number = 32 * 1024 * 1024;

/** Rounds in which no less is missing than before: the state changes as fast as it comes. */
const MAX_VAIN = 3;

/** Rounds in which the members went on between two answers. */
const MAX_MISSED = 20;

interface Shared extends Held {
  readonly tag: string;
  /** Its name on the wire. */
  readonly name: number;
  /** Bytes by source, since the sync began. */
  readonly received: Map<string, number>;
  /** What was sent before that. */
  sentBefore: number;
  prefetched: number;
  /** Before this peer was a member, those who held the state; the end of what was fetched of them then, and since they took it in. */
  sources: readonly string[];
  fetching: Promise<unknown> | null;
  following: Promise<void> | null;
  /** What is fetched since then is on its way to its place. */
  isComing: boolean;
  /** The end of the look with which a sync begins; null: none is under way. */
  looking: Promise<unknown> | null;
  syncs: number;
  /** Bytes in all. */
  receivedInAll: number;
  diverged: number;
}

/** Of one revision, or of most of it. */
interface Holders {
  readonly revision: number;
  readonly hash: Uint8Array;
  readonly peers: string[];
}

export class StateService {
  readonly #port: StatePort;
  readonly #hasher: Hasher;
  readonly #asker: Asker;
  readonly #holder: Holder;
  readonly #fetcher: Fetcher;
  /** By tag. */
  readonly #states: Map<string, Shared> = new Map();

  static async open(port: StatePort): Promise<StateService> {
    return new StateService(port, await Hasher.load());
  }

  private constructor(port: StatePort, hasher: Hasher) {
    this.#port = port;
    this.#hasher = hasher;
    this.#asker = new Asker(port);
    this.#holder = new Holder(port);
    this.#fetcher = new Fetcher(port, this.#asker, hasher);
  }

  // --- what other peers send ---------------------------------------------------------------------------------------

  onAsk(from: string, header: FrameHeader): string | null {
    return this.#holder.onAsk(from, header);
  }

  openAnswer(from: string, header: FrameHeader): Uint8Array | null | string {
    return this.#asker.open(from, header);
  }

  endAnswer(from: string, header: FrameHeader, buffer: Uint8Array | null): void {
    this.#asker.end(from, header, buffer);
  }

  abandonAnswer(buffer: Uint8Array): void {
    this.#asker.abandon(buffer);
  }

  onLinkLost(peerId: string): void {
    this.#asker.onLinkLost(peerId);
    this.#holder.onLinkLost(peerId);
  }

  status(): StateStatus[] {
    return [...this.#states.values()].map(({ tag, replica, syncs, sent, receivedInAll, diverged }) => {
      const { layout, revision, hash } = replica;
      const { bytes, pieces } = layout;
      const told = syncs > 0 && hash !== null ? toHex(hash) : null;
      return { tag, revision, hash: told, bytes, pieces, syncs, sent, received: receivedInAll, diverged };
    });
  }

  close(): void {
    this.#asker.close();
    this.#holder.close();
  }

  // --- what the training thread asks for ---------------------------------------------------------------------------

  async ask(ask: StateAsk): Promise<StateAnswers[StateAsk['type']]> {
    switch (ask.type) {
      case 'attach':
        this.attach(ask.spec);
        return null;
      case 'begin':
        return this.#begin(ask);
      case 'fetch':
        return this.#fetch(ask);
      case 'settle':
        return this.#settle(ask);
      case 'abandon':
        this.#abandon(this.#shared(ask.tag));
        return null;
      case 'find':
        return this.#find(this.#shared(ask.tag), ask.peers);
      case 'detach':
        this.#holder.drop(this.#shared(ask.tag).name);
        this.#states.delete(ask.tag);
        return null;
      case 'manifest':
        return this.#shared(ask.tag).replica.manifest();
      default:
        return ask satisfies never;
    }
  }

  #shared(tag: string): Shared {
    const shared = this.#states.get(tag);
    if (shared === undefined) throw new Error(`There is no shared state ${JSON.stringify(tag)} in the engine.`);
    return shared;
  }

  attach({ tag, shapes, memory, revision }: StateSpec): void {
    const old = this.#states.get(tag);
    if (old !== undefined) this.#holder.drop(old.name);
    const replica = new Replica(layOut(shapes), memory, revision, this.#hasher);
    const name = hashTag(wireName(tag, replica.shape));
    const counts = { sent: 0, sentBefore: 0, prefetched: 0, syncs: 0, receivedInAll: 0, diverged: 0 };
    const state = {
      isUrgent: false,
      received: new Map(),
      sources: [],
      fetching: null,
      following: null,
      isComing: false,
      looking: null,
    };
    const shared = { tag, name, replica, leisure: new Leisure(), ...state, ...counts };
    this.#states.set(tag, shared);
    this.#holder.hold(name, shared);
  }

  readonly #turn = (): Promise<void> => this.#pause(0);

  #pause(ms: number): Promise<void> {
    return new Promise((resolve) => void this.#port.schedule(ms, resolve));
  }

  /** A turn for others; more than that for those whose processors this one takes. */
  #turnBeside(peers: readonly string[]): () => Promise<void> {
    return peers.some((peerId) => this.#port.sharesHost(peerId)) ? restfulTurns(this.#port) : this.#turn;
  }

  async #begin({ tag, revision, changed }: Extract<StateAsk, { type: 'begin' }>): Promise<Holding> {
    const shared = this.#shared(tag);
    const { replica, leisure } = shared;
    leisure.onStep(this.#port.now());
    shared.sentBefore = shared.sent;
    const { following } = shared;
    shared.following = null;
    if (following === null) shared.received.clear(); // else it has begun to count
    // Looked at while the members look at theirs, unless it is little, which is mostly overwritten, or what they bring comes already.
    const isLittle = !replica.isWhole && replica.bytesToLookAt(changed) <= MUCH_BYTES;
    const isLate = following !== null && (shared.isComing || isLittle);
    if (isLate) {
      replica.letGo();
      await following;
    }
    // Whoever holds parts of two revisions has been given another one by its owner.
    if (revision > 0) replica.isWhole = true;
    shared.looking = replica.look(revision, changed, this.#turn, () => !this.#holder.isAwaited(shared));
    await shared.looking;
    shared.looking = null;
    if (!isLate) await following;
    shared.isUrgent = true;
    this.#holder.hurry();
    return holdingOf(replica);
  }

  async #fetch({ tag, revision, hash, holders, timeoutMs }: Extract<StateAsk, { type: 'fetch' }>): Promise<Holding> {
    const shared = this.#shared(tag);
    const { replica } = shared;
    const until = this.#port.now() + timeoutMs;
    const target = await this.#fetcher.target(replica, tag, { revision, hash }, holders, until);
    const options = { tag, sources: holders, until, isStill: true, isWanted: () => true, onBytes: counter(shared) };
    if (target !== null && (await this.#fetcher.pieces(replica, target, options))) replica.complete(target);
    else await this.#pause(PAUSE_MS);
    return holdingOf(replica);
  }

  #settle({ tag, revision, hash, diverged }: Extract<StateAsk, { type: 'settle' }>): Settlement {
    const shared = this.#shared(tag);
    const { sent, sentBefore, received, prefetched, replica } = shared;
    const isChanged = replica.settle(revision, hash);
    shared.isUrgent = false;
    shared.prefetched = 0;
    shared.syncs += 1;
    shared.diverged += diverged;
    const bytes = [...received.values()].reduce((sum, one) => sum + one, 0);
    // What was written in place was so before, as it came.
    return {
      sent: sent - sentBefore,
      received: bytes,
      from: [...received.keys()],
      prefetched,
      isChanged: isChanged || bytes > 0,
    };
  }

  #abandon(shared: Shared): void {
    shared.isUrgent = false;
    shared.replica.forget();
  }

  async #find({ replica, tag }: Shared, peers: readonly string[]): Promise<Finding | null> {
    const told = await Promise.all(peers.map((peerId) => this.#fetcher.summary(replica, tag, peerId, false)));
    let best: Finding | null = null;
    for (const [index, summary] of told.entries()) {
      if (summary === null || !summary.isSynced || summary.revision < (best?.revision ?? 0)) continue;
      const { revision, hash } = summary;
      const isOfBest: boolean = best?.revision === revision && sameHash(best.hash, hash);
      const others: readonly string[] = isOfBest ? best!.holders : [];
      best = { revision, hash, holders: [...others, peers[index]!] };
    }
    return best;
  }

  // --- before this peer is a member --------------------------------------------------------------------------------

  /**
   * Fetches what the members hold, while they go on: again and again what they have changed meanwhile, as a virtual machine is moved
   * that runs (pre-copy: Clark et al., NSDI 2005). Ends when little is left, or no less than before.
   *
   * @param peers who may be members
   * @param isWanted it is of use still
   */
  prefetch(tag: string, peers: readonly string[], isWanted: () => boolean): Promise<Prefetched> {
    const shared = this.#shared(tag);
    const fetching = this.#prefetch(shared, peers, isWanted);
    shared.fetching = fetching;
    return fetching;
  }

  /**
   * The members have taken this peer in: fetches what they have changed last while its owner wakes up, and they begin the sync. Where that
   * fails, the sync does it.
   */
  follow(tag: string): void {
    const shared = this.#shared(tag);
    shared.following = this.#follow(shared);
  }

  async #follow(shared: Shared): Promise<void> {
    const { replica, tag } = shared;
    await shared.fetching;
    shared.received.clear();
    const until = this.#port.now() + FOLLOW_MS;
    const known = shared.sources.length === 0 ? null : await this.#told(shared, shared.sources, true);
    const newest = known === null ? null : await this.#newest(shared, known);
    if (known === null || newest === null || newest.revision < replica.revision) return;
    // From the last look to the first piece nothing else has a turn: a look that begins between would undo what its table says.
    while (shared.looking !== null) await shared.looking;
    shared.isComing = true;
    await this.#prepare(replica, this.#turn);
    // Those who were at work still will have it before much has come.
    const late = shared.sources.filter((peerId) => !known.peers.includes(peerId));
    const isMuch = this.#missingBytes(replica, newest) > MUCH_BYTES;
    const sources = isMuch ? [...known.peers, ...late] : known.peers;
    const options = { tag, sources, until, isStill: true, isWanted: () => true, onBytes: counter(shared) };
    if (await this.#fetcher.pieces(replica, newest, options)) replica.complete(newest);
  }

  async #prefetch(shared: Shared, peers: readonly string[], isWanted: () => boolean): Promise<Prefetched> {
    const { replica, tag } = shared;
    let fewest = Number.POSITIVE_INFINITY;
    let missed = 0;
    for (let vain = 0; vain < MAX_VAIN && missed < MAX_MISSED && isWanted(); ) {
      const known = await this.#told(shared, peers, false);
      shared.sources = known?.peers ?? [];
      const newest = known === null ? null : await this.#newest(shared, known);
      // The first sync has begun: the replica is its own now.
      if (known === null || !isWanted()) break;
      if (newest === null) {
        missed += 1; // they have gone on between two answers
      } else {
        if (newest.revision <= replica.revision) break; // what is here may be what they will take
        await this.#prepare(replica, this.#turnBeside(known.peers));
        if (!isWanted()) break;
        const missing = this.#missingBytes(replica, newest);
        if (missing === 0) {
          this.#arrive(shared, newest);
          break;
        }
        if (missing <= SOON_BYTES) break;
        vain = missing < fewest ? 0 : vain + 1;
        fewest = Math.min(fewest, missing);
        const until = this.#port.now() + PASS_MS;
        const onBytes = (_: string, bytes: number) => {
          shared.prefetched += bytes;
          shared.receivedInAll += bytes;
        };
        const options = { tag, sources: known.peers, until, isStill: false, isWanted, onBytes };
        if (vain < MAX_VAIN) await this.#fetcher.pieces(replica, newest, options);
      }
      await this.#pause(ROUND_MS);
    }
    const revision = replica.isWhole && shared.prefetched > 0 && replica.ready === null ? replica.revision : null;
    return { bytes: shared.prefetched, revision };
  }

  /**
   * Who holds the state, and what most of them hold, or bring into a sync; null when nobody does. In a sync those who are at work still are
   * not waited for once more than half of all tell the same.
   */
  async #told({ replica, tag }: Shared, peers: readonly string[], inSync: boolean): Promise<Holders | null> {
    const asked = peers.slice(0, MAX_SOURCES);
    const counts = new Map<string, Holders>();
    const all: string[] = [];
    await new Promise<void>((resolve, reject) => {
      const answers = asked.map(async (peerId) => {
        const summary = await this.#fetcher.summary(replica, tag, peerId, inSync);
        if (summary === null || !summary.isSynced) return;
        all.push(peerId);
        const { revision, hash } = summary;
        const key = `${revision} ${toHex(hash)}`;
        const group = counts.get(key) ?? { revision, hash, peers: [] };
        group.peers.push(peerId);
        counts.set(key, group);
        if (inSync && 2 * group.peers.length > asked.length) resolve();
      });
      Promise.all(answers).then(() => resolve(), reject);
    });
    const groups = [...counts.values()].sort((left, right) => right.revision - left.revision);
    const [best] = groups.sort((left, right) => right.peers.length - left.peers.length);
    if (best === undefined) return null;
    const others = all.filter((peerId) => !best.peers.includes(peerId));
    return { peers: [...best.peers, ...others], revision: best.revision, hash: best.hash };
  }

  async #newest(
    { replica, tag }: Shared,
    known: { readonly peers: readonly string[]; readonly revision: number; readonly hash: Uint8Array },
  ): Promise<Target | null> {
    const until = this.#port.now() + TABLE_MS;
    return this.#fetcher.target(replica, tag, known, known.peers, until);
  }

  /** Looks at what is of no value, too: so its pages are there before anybody waits for what is to be written to them. */
  async #prepare(replica: Replica, turn: () => Promise<void>): Promise<void> {
    if (replica.hash === null) await replica.look(replica.revision, null, turn);
    if (replica.revision === 0) replica.isWhole = false;
  }

  #missingBytes(replica: Replica, target: Target): number {
    return replica.lacks(target).reduce((sum, piece) => sum + bytesOfPieces(replica.layout, piece, 1), 0);
  }

  /** All of it is here. What was kept beside a checkpoint stays there until the first sync. */
  #arrive({ replica }: Shared, target: Target): void {
    const isHere = !replica.isWhole;
    replica.complete(target);
    if (!isHere) return;
    replica.isWhole = true;
    replica.revision = target.revision;
    replica.ready = null;
  }
}

function holdingOf({ isWhole, isSynced, shape, hash, ready }: Replica): Holding {
  return { isWhole, isSynced, shape, hash: hash!, ready: ready?.hash ?? null }; // looked at when the sync began
}

function counter(shared: Shared): (source: string, bytes: number) => void {
  const { received } = shared;
  return (source, bytes) => {
    received.set(source, (received.get(source) ?? 0) + bytes);
    shared.receivedInAll += bytes;
  };
}
