/**
 * The state that simulated users share: what it holds at each revision, what each of them brought to a sync, and what must
 * come of that.
 */
import { createHash } from 'node:crypto';
import type { Report, SharedState, SyncReport } from '../../src/index.ts';
import { InvariantError } from './oracle.ts';
import { mix, Random } from './random.ts';

/** How a scenario's users share a state. */
export interface StatePlan {
  /** Elements of each of its tensors. */
  readonly counts: readonly number[];
  /** In a loop of `steps({ state })`; else `syncState` is called in the midst of steps. */
  readonly loops: boolean;
  /** A sync in one of so many steps. */
  readonly every: number;
  readonly strategy: 'majority' | 'highest-revision';
  /** Newcomers join with it, so it is fetched before they are members. */
  readonly joins: boolean;
  /** Whoever joins again brings what it had; else it begins afresh, as after a crash. */
  readonly keeps: boolean;
  /** Now and then something changes on one of them alone. */
  readonly flips: boolean;
}

/** Of scenarios: a state in one of so many. */
const SHARED_BY = 16;

const COUNTS = [1, 10, 1_000, 3_000];

/** So many elements are fetched before their newcomer is a member; one in so many states has them. */
const VAST_COUNT = 600_000;
const VAST_BY = 30;

/** An update writes no more elements of a tensor: the rest is as it was. */
const MOST_WRITTEN = 200_000;

/** Vast states are for lines that move so much: on slower ones a fetch takes longer than anybody is patient (bytes per ms). */
const VAST_BYTES_PER_MS = 900;

/**
 * From a seed of its own, so that all else in the scenario is what it would be without.
 *
 * @param bytesPerMs what a connection moves
 */
export function drawState(seed: number, bytesPerMs: number): StatePlan | null {
  const random = new Random(mix(seed, 0x57a7e));
  if (!random.chance(1 / SHARED_BY)) return null;
  const counts = Array.from({ length: random.integer(1, 5) }, () => random.pick(COUNTS));
  return {
    counts: random.chance(1 / VAST_BY) && bytesPerMs >= VAST_BYTES_PER_MS ? [VAST_COUNT, ...counts] : counts,
    loops: random.chance(0.5),
    every: random.pick([1, 1, 2, 3]),
    strategy: random.pick(['majority', 'majority', 'highest-revision']),
    joins: random.chance(0.5),
    keeps: random.chance(0.5),
    flips: random.chance(0.3),
  };
}

/** Elements after which the contents of a tensor repeat. */
const PERIOD = 13;

/** One user's copy. */
export class UserState {
  readonly shared: SharedState;
  readonly #seed: number;
  readonly #tensors: readonly Float32Array[];

  constructor(seed: number, { counts }: StatePlan) {
    this.#seed = seed;
    this.#tensors = counts.map((count) => new Float32Array(count));
    const tensors = Object.fromEntries(this.#tensors.map((tensor, index) => [`t${index}`, tensor]));
    this.shared = { revision: 0, entries: { ...tensors, rate: 0, step: 0n, isWarm: false } };
  }

  /** Of the contents, without their revision. */
  get key(): string {
    const { rate, step, isWarm } = this.shared.entries;
    const hash = createHash('sha1').update(`${rate} ${step} ${isWarm}`);
    for (const tensor of this.#tensors) hash.update(tensor);
    return hash.digest('base64');
  }

  /** An update, the same for all that are at this revision: now and then it leaves a tensor as it is. */
  update(revision: number): void {
    for (const [index, tensor] of this.#tensors.entries())
      if (mix(this.#seed, index, revision) % 3 > 0) fill(tensor, mix(this.#seed, index, revision, 1));
    const rate = mix(this.#seed, revision, 2) / 1_000;
    Object.assign(this.shared.entries, { rate, step: BigInt(revision), isWarm: revision % 2 === 1 });
  }

  /** Something changes here and nowhere else. */
  flip(chance: number): void {
    const tensor = this.#tensors[chance % this.#tensors.length]!; // there is one at least
    tensor[chance % tensor.length] = chance;
  }

  /** As from a checkpoint. */
  load(): void {
    this.update(1);
    this.shared.revision = 1;
  }
}

function fill(tensor: Float32Array, key: number): void {
  const start = tensor.length > MOST_WRITTEN ? key % (tensor.length - MOST_WRITTEN) : 0;
  const written = tensor.subarray(start, start + MOST_WRITTEN);
  const first = Math.min(PERIOD, written.length);
  for (let at = 0; at < first; at++) written[at] = mix(key, at);
  for (let filled = first; filled < written.length; filled *= 2) written.copyWithin(filled, 0, filled);
}

/** What a user holds when it calls for a sync. */
interface Offer {
  readonly revision: number;
  readonly key: string;
  /** It has been through a sync with its run. */
  readonly isSynced: boolean;
  /** It may hold parts of several revisions, as it came with nothing and began to fetch. */
  readonly isHollow: boolean;
  /** It comes after a sync that failed here, and perhaps not on others: whose census it was part of is not known. */
  readonly followsFailure: boolean;
}

interface Agreed {
  readonly peerId: string;
  readonly revision: number;
  readonly key: string;
}

/** Whom all follow; null: that depends on what only the peers know. */
function followed(offers: readonly Offer[], strategy: StatePlan['strategy']): Offer | null {
  if (offers.some(({ followsFailure }) => followsFailure)) return null;
  const synced = offers.filter(({ isSynced }) => isSynced);
  const highest = Math.max(...offers.map(({ revision }) => revision));
  const inStep = synced.length > 0 ? synced : offers;
  const heard = strategy === 'majority' ? inStep : offers.filter(({ revision }) => revision === highest);
  if (heard.some(({ isHollow }) => isHollow)) return null;
  const votes = (offer: Offer) =>
    heard.filter(({ revision, key }) => revision === offer.revision && key === offer.key).length;
  return heard.reduce((best, offer) => {
    const more = votes(offer) - votes(best);
    return more > 0 || (more === 0 && offer.revision > best.revision) ? offer : best;
  });
}

export class StateOracle {
  readonly #plan: StatePlan;
  /** What each peer brought to its last sync. */
  readonly #offers: Map<string, Offer> = new Map();
  readonly #synced: Set<string> = new Set();
  readonly #failed: Set<string> = new Set();
  /** All that anybody ever brought. */
  readonly #known: Set<string> = new Set();
  /** By census. */
  readonly #agreed: Map<string, Agreed> = new Map();
  synced = 0;
  /** Syncs in which something came from others. */
  healed = 0;

  constructor(plan: StatePlan) {
    this.#plan = plan;
  }

  /** Whether a peer may hold parts of several revisions. */
  isHollow(peerId: string, revision: number): boolean {
    return this.#plan.joins && revision === 0 && !this.#synced.has(peerId);
  }

  /** @param revision of what it brings */
  onBegin(peerId: string, revision: number, key: string): void {
    const isSynced = this.#synced.has(peerId);
    const followsFailure = this.#failed.delete(peerId);
    this.#offers.set(peerId, { revision, key, isSynced, isHollow: this.isHollow(peerId, revision), followsFailure });
    this.#known.add(`${revision} ${key}`);
  }

  /** @param census the last one, of which all that took part return with the same */
  onSuccess(peerId: string, census: Report, { shared, key }: UserState, report: SyncReport): void {
    const { revision } = shared;
    const { id, epoch, contributors } = census;
    const title = `the sync on ${peerId} that ended with ${id}`;
    this.#synced.add(peerId);
    this.synced += 1;
    if (report.received > 0) this.healed += 1;
    if (report.revision !== revision)
      throw new InvariantError(`agreement: ${title} reports revision ${report.revision}, and left ${revision}`);
    const name = `${id} ${epoch} ${contributors}`;
    const before = this.#agreed.get(name);
    if (before !== undefined) {
      if (before.revision === revision && before.key === key) return;
      throw new InvariantError(
        `agreement: ${title} left revision ${revision}, ${key}, but on ${before.peerId} ${before.revision}, ${before.key}`,
      );
    }
    this.#agreed.set(name, { peerId, revision, key });
    if (!this.#known.has(`${revision} ${key}`))
      throw new InvariantError(`exactness: ${title} left contents of revision ${revision} that nobody had`);
    const offers = contributors.map((one) => this.#offers.get(one)!); // it has begun, as it was counted
    const wanted = followed(offers, this.#plan.strategy);
    if (wanted === null) return;
    if (wanted.revision !== revision || wanted.key !== key)
      throw new InvariantError(
        `exactness: ${title} left revision ${revision}, ${key}, where ${wanted.revision}, ${wanted.key}, is to be followed`,
      );
    const untold = contributors.find((one, index) => {
      const offer = offers[index]!;
      const isDiverged = offer.isSynced && offer.revision === revision && offer.key !== key;
      return isDiverged && !report.diverged.includes(one);
    });
    if (untold !== undefined) throw new InvariantError(`agreement: ${title} does not tell that ${untold} had diverged`);
  }

  onFailure(peerId: string, { shared, key }: UserState): void {
    this.#failed.add(peerId);
    const offer = this.#offers.get(peerId);
    if (offer === undefined || offer.isHollow) return;
    if (offer.revision === shared.revision && offer.key === key) return;
    throw new InvariantError(`atomicity: the state on ${peerId} was changed by a sync that failed`);
  }
}
