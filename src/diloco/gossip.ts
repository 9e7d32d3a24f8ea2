/**
 * NoLoCo (arXiv 2506.10911): instead of averaging over all, each peer averages with one other in a round, drawn anew every time.
 * Parameters are never equal; a term of the outer optimiser draws the two of a pair together (section 3):
 *
 *     momentum ← α · momentum + β · mean of (local − slow) − γ · (slow − mean of slow)      means over the pair
 *     slow     ← slow + momentum,  local ← slow
 *
 * A `Group` has no call between two peers, so the exchange goes by way of all: each cuts what it has for its partner into
 * one part per member, and an all-to-all hands these to the members, who pass them on by a second one. Every peer sends its
 * two vectors twice, however many peers there are, and no link carries more than its share.
 *
 * Before each round a census of 16 bytes tells who has slow parameters, and whose steps count: a newcomer's first ones don't.
 */
import {
  ArgumentError,
  type Codec,
  type Group,
  MismatchError,
  type PeerId,
  sharedTensor,
  TimeoutError,
} from '../index.ts';
import { Boundary } from './boundary.ts';
import { insist, isPassing } from './failures.ts';
import { cutIntoFragments, gather, type Parameters, spread } from './layout.ts';
import type { WireOptions } from './options.ts';
import { pairing } from './pairing.ts';

/** In a census, the round of a peer that has no slow parameters yet. */
const NEWCOMER = -1;

/** Options of `createGossip`. */
export interface GossipOptions {
  /** Inner steps of a round. @default 100 */
  readonly every?: number;
  /** β, what the pair's mean change weighs. @default 0.7 */
  readonly learningRate?: number;
  /** α @default 0.5 */
  readonly momentum?: number;
  /** γ, what draws the pair together: more than α, or the peers drift apart. @default 0.7 */
  readonly attraction?: number;
  /** `codec`: of what the pairs exchange. @default 'f32' */
  readonly wire?: Pick<WireOptions, 'tag' | 'timeout' | 'minWorldSize'> & { readonly codec?: Codec };
}

/** What one call of `step()` did. */
export interface GossipReport {
  /** Rounds done. */
  readonly round: number;
  /** Of a round that ended with this step: with whom this peer averaged. Itself, where it was the odd one out. */
  readonly partner: string | null;
  /** The exchange failed: the steps of the round are part of the next, or of the final merge. */
  readonly isLost: boolean;
}

/**
 * Prepares gossip training. To be called right after `join()`, on every member; a newcomer takes the slow parameters of a
 * member that is there already, and its change weighs nothing in its first round, as its inner optimiser is cold.
 *
 * @param parameters as for `createDiloco`; all peers begin with the same values
 * @throws ArgumentError, and what `group.admit`, `group.allGather` and `group.broadcast` throw
 */
export async function createGossip(group: Group, parameters: Parameters, options: GossipOptions = {}): Promise<Gossip> {
  const gossip = new Gossip(group, parameters, options);
  await gossip.open();
  return gossip;
}

export class Gossip {
  readonly #group: Group;
  readonly #parameters: Parameters;
  readonly #layout;
  readonly #every: number;
  readonly #alpha: number;
  readonly #beta: number;
  readonly #gamma: number;
  readonly #tag: string;
  readonly #call: { readonly codec?: Codec; readonly timeout?: number; readonly minWorldSize?: number };
  readonly #slow: Float32Array;
  readonly #local: Float32Array;
  readonly #momentum: Float32Array;
  readonly #boundary: Boundary;
  #round = 0;
  #stepsDone = 0;
  #isNewcomer = true;
  /** Whose changes count in the present round; null before it is opened. */
  #counting: ReadonlySet<PeerId> | null = null;
  /** A round that ended, until a `step()` that returns has told of it. */
  #ended: { readonly partner: PeerId | null } | null = null;

  /** @internal use `createGossip()` */
  constructor(group: Group, parameters: Parameters, options: GossipOptions) {
    const { every = 100, momentum = 0.5, learningRate = 0.7, attraction = 0.7, wire = {} } = options;
    if (!(Number.isInteger(every) && every > 0))
      throw new ArgumentError(`\`every\` must be a whole number, not ${every}.`);
    if (!(attraction > momentum)) throw new ArgumentError('`attraction` must be more than `momentum`.');
    const { tag = 'gossip', ...call } = wire;
    this.#group = group;
    this.#parameters = parameters;
    this.#every = every;
    this.#alpha = momentum;
    this.#beta = learningRate;
    this.#gamma = attraction;
    this.#tag = tag;
    this.#call = call;
    this.#boundary = new Boundary(group, call);
    this.#layout = cutIntoFragments(parameters, 1, 'sequential')[0]!; // one was asked for
    this.#slow = new Float32Array(this.#layout.count);
    this.#local = new Float32Array(this.#layout.count);
    this.#momentum = new Float32Array(this.#layout.count);
    gather(parameters, this.#layout, this.#slow);
  }

  /** Rounds done. */
  get round(): number {
    return this.#round;
  }

  /**
   * To be awaited after every inner step.
   *
   * @throws EvictedError, ClosedError, …: the training is over for this peer. TimeoutError, QuorumError, … when the next
   * round could not be opened: nothing is lost, and the next call tries again, and tells what this one would have told.
   */
  async step(): Promise<GossipReport> {
    if (this.#counting !== null) await this.#advance(this.#counting);
    if (this.#counting === null) await this.open();
    const ended = this.#ended;
    this.#ended = null;
    return { round: this.#round, partner: ended?.partner ?? null, isLost: ended !== null && ended.partner === null };
  }

  async #advance(counting: ReadonlySet<PeerId>): Promise<void> {
    this.#stepsDone += 1;
    if (this.#stepsDone < this.#every) return;
    const partner = await this.#exchange(counting);
    // A newcomer's first steps never count, not even merged into a later round.
    if (partner === null && !counting.has(this.#group.peerId)) spread(this.#slow, this.#layout, this.#parameters);
    this.#ended = { partner };
    this.#stepsDone = 0;
    this.#round += 1;
    this.#isNewcomer = false;
    this.#counting = null;
    this.#boundary.approach();
  }

  /** @internal Opens the next round. When it fails it may be called again. */
  async open(): Promise<void> {
    await this.#boundary.pass();
    this.#counting = await insist(() => this.#agree());
  }

  /** Censuses, and slow parameters for whoever has none, until one shows that all have them. @returns whose changes count */
  async #agree(): Promise<ReadonlySet<PeerId>> {
    for (let hasState = !this.#isNewcomer; ; hasState = true) {
      const own = Float64Array.of(hasState ? this.#round : NEWCOMER, this.#isNewcomer ? 0 : 1);
      const all = new Float64Array(own.length * this.#group.worldSize);
      const call = { ...this.#call, tag: `${this.#tag}/census`, codec: 'f32' } as const;
      const { contributors } = await this.#group.allGather(own, all, call);
      const rounds = contributors.map((_, rank) => all[rank * own.length]!);
      const newest = Math.max(...rounds);
      if (newest === NEWCOMER) {
        this.#isNewcomer = false; // all are: the run begins, and all count
        return new Set(contributors);
      }
      // One who missed the last census has missed the number of a round as well.
      if (hasState) this.#round = newest;
      if (!rounds.includes(NEWCOMER))
        return new Set(contributors.filter((_, rank) => all[rank * own.length + 1] === 1));
      const given = new Float32Array(1 + this.#slow.length);
      given[0] = newest;
      given.set(this.#slow, 1);
      await this.#group.broadcast(given, { ...call, root: contributors[rounds.indexOf(newest)]! }); // it is one of them
      if (hasState) continue;
      this.#round = given[0]!;
      this.#slow.set(given.subarray(1));
      spread(this.#slow, this.#layout, this.#parameters);
    }
  }

  /**
   * At the end, on every member: all parameters become the mean of the peers', steps since the last exchange, and of a lost
   * one, included.
   *
   * @throws what `group.allReduce` throws; parameters stay as they are then
   */
  async finalMerge(): Promise<void> {
    const counts = this.#counting?.has(this.#group.peerId) ?? true;
    if (counts) gather(this.#parameters, this.#layout, this.#local);
    else this.#local.set(this.#slow);
    const call = { ...this.#call, tag: `${this.#tag}/merge`, codec: 'f32' } as const;
    await this.#group.allReduce(this.#local, { ...call, op: 'avg' });
    this.#slow.set(this.#local);
    spread(this.#slow, this.#layout, this.#parameters);
  }

  /** @returns the partner, or null when the exchange failed */
  async #exchange(counting: ReadonlySet<PeerId>): Promise<string | null> {
    const { members, rank } = this.#group;
    const partners = pairing(members.length, this.#round);
    gather(this.#parameters, this.#layout, this.#local);
    const { count } = this.#layout;
    const part = Math.ceil((2 * count) / members.length);
    const mine = sharedTensor('f32', part * members.length);
    if (counting.has(this.#group.peerId))
      for (let at = 0; at < count; at++) mine[at] = this.#local[at]! - this.#slow[at]!;
    mine.set(this.#slow, count);
    const theirs = await this.#swap(mine, part, partners);
    if (theirs === null) return null;
    const partner = partners[rank]!;
    const { peerId } = members[partner]!;
    const weight = [this.#group.peerId, peerId].filter((one) => counting.has(one)).length;
    this.#update(mine, partner === rank ? mine : theirs, Math.max(weight, 1)); // where none counts, both sent zeros
    return peerId;
  }

  /** @returns what the partner had for this peer */
  async #swap(mine: Float32Array, part: number, partners: readonly number[]): Promise<Float32Array | null> {
    const hops = [`${this.#tag}/there`, `${this.#tag}/on`] as const;
    let made = 0;
    try {
      const passing = sharedTensor('f32', mine.length);
      made = 1;
      await this.#group.allToAll(mine, passing, { ...this.#call, tag: hops[0] });
      if (this.#group.worldSize !== partners.length) throw new TimeoutError('a member was lost between the two hops');
      const onward = sharedTensor('f32', mine.length);
      for (const [source, partner] of partners.entries())
        onward.set(passing.subarray(source * part, (source + 1) * part), partner * part);
      made = 2;
      await this.#group.allToAll(onward, passing, { ...this.#call, tag: hops[1] });
      return passing;
    } catch (error) {
      if (!isPassing(error) && !(error instanceof MismatchError)) throw error;
      // Calls are matched by their number: the one that is not made is withdrawn, so that nobody waits for it.
      const signal = AbortSignal.abort(error);
      if (made < 2) await this.#group.barrier({ tag: hops[1], signal }).catch(() => {});
      return null;
    }
  }

  #update(mine: Float32Array, theirs: Float32Array, weight: number): void {
    const { count } = this.#layout;
    for (let at = 0; at < count; at++) {
      const change = (mine[at]! + theirs[at]!) / weight;
      const slow = (mine[count + at]! + theirs[count + at]!) / 2;
      const pull = this.#slow[at]! - slow;
      this.#momentum[at] = this.#alpha * this.#momentum[at]! + this.#beta * change - this.#gamma * pull;
      this.#slow[at] = this.#slow[at]! + this.#momentum[at]!;
    }
    spread(this.#slow, this.#layout, this.#parameters);
  }
}
