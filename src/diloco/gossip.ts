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
 */
import { ArgumentError, type Codec, type Group, MismatchError, sharedTensor, TimeoutError } from '../index.ts';
import { isPassing } from './failures.ts';
import { cutIntoFragments, gather, type Parameters, spread } from './layout.ts';
import type { WireOptions } from './options.ts';
import { pairing } from './pairing.ts';

export interface GossipOptions {
  /** Inner steps of a round. @default 100 */
  readonly every?: number;
  /** β, what the pair's mean change weighs. @default 0.7 */
  readonly learningRate?: number;
  /** α @default 0.5 */
  readonly momentum?: number;
  /** γ, what draws the pair together: more than α, or the peers drift apart. @default 0.7 */
  readonly attraction?: number;
  readonly wire?: Pick<WireOptions, 'tag' | 'timeout' | 'minWorldSize'> & { readonly codec?: Codec };
}

export interface GossipReport {
  /** Rounds done. */
  readonly round: number;
  /** Of a round that ended with this step: with whom this peer averaged. Itself, where it was the odd one out. */
  readonly partner: string | null;
  /** The exchange failed: the steps of the round are part of the next. */
  readonly isLost: boolean;
}

/**
 * Prepares gossip training. To be called right after `join()`, on every member; a newcomer takes the slow parameters of a
 * member that is there already.
 *
 * @param parameters as for `createDiloco`; all peers begin with the same values
 * @throws ArgumentError, and what `group.admit` and `group.broadcast` throw
 */
export async function createGossip(group: Group, parameters: Parameters, options: GossipOptions = {}): Promise<Gossip> {
  const gossip = new Gossip(group, parameters, options);
  await gossip.pass();
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
  #round = 0;
  #stepsDone = 0;
  #isFirstBoundary = true;

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
    this.#layout = cutIntoFragments(parameters, 1, 'sequential')[0]!; // one was asked for
    this.#slow = new Float32Array(this.#layout.count);
    this.#local = new Float32Array(this.#layout.count);
    this.#momentum = new Float32Array(this.#layout.count);
    gather(parameters, this.#layout, this.#slow);
  }

  get round(): number {
    return this.#round;
  }

  /** To be awaited after every inner step. @throws EvictedError, ClosedError, …; and QuorumError from the boundary */
  async step(): Promise<GossipReport> {
    this.#stepsDone += 1;
    if (this.#stepsDone < this.#every) return { round: this.#round, partner: null, isLost: false };
    const partner = await this.#exchange();
    this.#stepsDone = 0;
    this.#round += 1;
    await this.pass();
    return { round: this.#round, partner, isLost: partner === null };
  }

  /** @internal A boundary: newcomers are let in, and take slow parameters and the number of the round. */
  async pass(): Promise<void> {
    const { joined } = this.#isFirstBoundary
      ? (await this.#group.steps().next()).value! // it has no end
      : await this.#group.admit();
    this.#isFirstBoundary = false;
    const old = this.#group.members.find(({ peerId }) => !joined.includes(peerId));
    if (joined.length === 0 || old === undefined) return;
    const given = new Float32Array(1 + this.#slow.length);
    given[0] = this.#round;
    given.set(this.#slow, 1);
    await this.#group.broadcast(given, { root: old.peerId, tag: `${this.#tag}/state`, ...this.#call, codec: 'f32' });
    if (!joined.includes(this.#group.peerId)) return;
    this.#round = given[0]!;
    this.#slow.set(given.subarray(1));
    spread(this.#slow, this.#layout, this.#parameters);
  }

  /** At the end: all parameters become the mean of the peers' slow ones. */
  async finalMerge(): Promise<void> {
    await this.#group.allReduce(this.#slow, { op: 'avg', tag: `${this.#tag}/merge`, ...this.#call, codec: 'f32' });
    spread(this.#slow, this.#layout, this.#parameters);
  }

  /** @returns the partner, or null when the exchange failed */
  async #exchange(): Promise<string | null> {
    const { members, rank } = this.#group;
    const partners = pairing(members.length, this.#round);
    gather(this.#parameters, this.#layout, this.#local);
    const { count } = this.#layout;
    const part = Math.ceil((2 * count) / members.length);
    const mine = sharedTensor('f32', part * members.length);
    for (let at = 0; at < count; at++) mine[at] = this.#local[at]! - this.#slow[at]!;
    mine.set(this.#slow, count);
    const theirs = await this.#swap(mine, part, partners);
    if (theirs === null) return null;
    const partner = partners[rank]!;
    this.#update(mine, partner === rank ? mine : theirs);
    return members[partner]!.peerId;
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

  #update(mine: Float32Array, theirs: Float32Array): void {
    const { count } = this.#layout;
    for (let at = 0; at < count; at++) {
      const change = (mine[at]! + theirs[at]!) / 2;
      const slow = (mine[count + at]! + theirs[count + at]!) / 2;
      const pull = this.#slow[at]! - slow;
      this.#momentum[at] = this.#alpha * this.#momentum[at]! + this.#beta * change - this.#gamma * pull;
      this.#slow[at] = this.#slow[at]! + this.#momentum[at]!;
    }
    spread(this.#slow, this.#layout, this.#parameters);
  }
}
