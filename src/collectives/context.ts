/**
 * One view as the collectives see it. A *generation* is made at a boundary; losses only shrink it and raise its epoch.
 * Collectives are numbered per tag within a generation, so members that call in the same order agree on every number,
 * whenever each of them learns of a loss.
 */
import { UNMEASURED, type WayCosts } from '../costs.ts';
import { hashTag } from '../wire/frame.ts';
import { MAX_FLIGHT_CALLS, MAX_OPEN_COLLECTIVES, MAX_TAGS } from '../wire/limits.ts';
import type { Exclusion } from '../wire/parts.ts';
import type { Description, PeerId } from './call.ts';
import type { Operation } from './operation.ts';
import type { Rank } from './program.ts';
import { type Cut, Cuts, ringAround } from './routes.ts';

export interface Member {
  readonly peerId: PeerId;
  readonly site: string;
  /** On the ring: a fact of the view, as the rank is. */
  readonly place: number;
}

export interface ViewOf {
  readonly epoch: number;
  readonly generation: number;
  /** Where the generation was made. */
  readonly boundary: number;
  readonly members: readonly Member[];
  /** Pairs of them that can't reach one another. */
  readonly cuts: readonly Cut[];
  /** What ways between its members cost, as the coordinator has said to all of them; else nothing is known. */
  readonly costs?: WayCosts;
}

/**
 * Why the coordinator fails a collective for all. `lost`: some members returned from an eager call before a loss, and some did
 * not. `excluded`: it fails for this peer alone, and goes on for the others.
 */
type FailureCode = 'mismatch' | 'withdrawn' | 'lost' | 'excluded';

/** Verdict on a collective that this peer has not called yet. */
export interface Verdict {
  readonly code: FailureCode;
  readonly message: string;
  readonly peerId: PeerId;
}

export interface TagState {
  readonly tag: string;
  nextSequence: number;
  /** Open collectives, oldest first: few. */
  readonly open: Operation[];
  readonly verdicts: Map<number, Verdict>;
  /** Calls not made here yet that go on without others. */
  readonly exclusions: Map<number, Exclusion>;
  /** What was announced last under this tag: training loops make the same call again and again. */
  announced: { readonly description: Description; readonly body: Uint8Array } | null;
}

/** The open call with a number under its tag. */
export function findOpen(state: TagState, sequence: number): Operation | undefined {
  for (const operation of state.open) if (operation.sequence === sequence) return operation;
  return undefined;
}

export class Context {
  readonly generation: number;
  /** By which all members choose algorithms. */
  readonly costs: WayCosts;
  epoch: number;
  members: readonly Member[];
  /** What attempts of this epoch go round. */
  cuts: Cuts;
  /** A member was lost, and the coordinator has not decided yet what becomes of what was open. */
  undecided = false;
  readonly #tags: Map<number, TagState> = new Map();
  #openCount = 0;
  /** Verdicts and exclusions of calls that were not made here yet, all tags together. */
  #decisions = 0;
  /** The ring of these members round these cuts. */
  #ring: { readonly members: readonly Member[]; readonly cuts: Cuts; readonly order: readonly Member[] } | null = null;

  constructor(view: ViewOf) {
    this.generation = view.generation;
    this.costs = view.costs ?? UNMEASURED;
    this.epoch = view.epoch;
    this.members = view.members;
    this.cuts = new Cuts(view.cuts);
  }

  /** The ring of those members that a collective counts on. All of them find the same. */
  ringOf(members: readonly Member[]): readonly Member[] {
    const { cuts } = this;
    if (this.#ring?.members !== members || this.#ring.cuts !== cuts)
      this.#ring = { members, cuts, order: ringAround(members, cuts) };
    return this.#ring.order;
  }

  rankOf(peerId: PeerId): Rank {
    return this.members.findIndex((member) => member.peerId === peerId);
  }

  has(peerId: PeerId): boolean {
    return this.rankOf(peerId) >= 0;
  }

  find(hash: number): TagState | undefined {
    return this.#tags.get(hash);
  }

  /** The state of a tag; undefined when there are too many tags, or two tags that hash alike. */
  tag(tag: string): TagState | undefined {
    const hash = hashTag(tag);
    let state = this.#tags.get(hash);
    if (state === undefined) {
      if (this.#tags.size >= MAX_TAGS) return undefined;
      state = { tag, nextSequence: 0, open: [], verdicts: new Map(), exclusions: new Map(), announced: null };
      this.#tags.set(hash, state);
    }
    return state.tag === tag ? state : undefined;
  }

  /**
   * Gives a call the next number under its tag, and what was decided on that number before: an exclusion to go on with, or the
   * verdict that it has failed.
   */
  enter(operation: Operation, state: TagState): Verdict | null {
    operation.context = this;
    operation.tagState = state;
    operation.sequence = state.nextSequence++;
    state.open.push(operation);
    this.#openCount += 1;
    operation.exclusion = state.exclusions.get(operation.sequence) ?? null;
    if (state.exclusions.delete(operation.sequence)) this.#decisions -= 1;
    const verdict = state.verdicts.get(operation.sequence) ?? null;
    if (state.verdicts.delete(operation.sequence)) this.#decisions -= 1;
    return verdict;
  }

  /** A call has ended; false if it had before. */
  leave(operation: Operation): boolean {
    const open = operation.tagState?.open ?? [];
    const index = open.indexOf(operation);
    if (index < 0) return false;
    open.splice(index, 1);
    this.#openCount -= 1;
    return true;
  }

  get openCount(): number {
    return this.#openCount;
  }

  /** Remembers that a call which was not made here yet will fail. */
  foretellVerdict(tag: string, sequence: number, verdict: Verdict): void {
    const state = this.#foreseen(tag, sequence);
    if (state === null) return;
    state.verdicts.set(sequence, verdict);
    this.#decisions += 1;
  }

  /** Remembers that a call which was not made here yet goes on without others. */
  foretellExclusion(tag: string, sequence: number, exclusion: Exclusion): void {
    const state = this.#foreseen(tag, sequence);
    if (state === null) return;
    if (!state.exclusions.has(sequence)) this.#decisions += 1;
    state.exclusions.set(sequence, exclusion);
  }

  /**
   * Where to remember a decision on a call that was not made here yet; null if it is too late for that, or there is no room. A
   * decision costs memory, and a tag that was not used here yet does: both are bounded for all tags together.
   */
  #foreseen(tag: string, sequence: number): TagState | null {
    if (this.#decisions >= MAX_OPEN_COLLECTIVES) return null;
    const state = this.tag(tag);
    if (state === undefined || !(sequence >= state.nextSequence) || state.verdicts.has(sequence)) return null;
    return state;
  }

  /** The number that the next call under each tag will have; of so many tags as a flight record tells of. */
  get next(): { readonly tag: string; readonly sequence: number }[] {
    const some = [...this.#tags.values()].slice(0, MAX_FLIGHT_CALLS);
    return some.map(({ tag, nextSequence }) => ({ tag, sequence: nextSequence }));
  }

  *operations(): Generator<Operation> {
    for (const state of this.#tags.values()) yield* state.open;
  }
}
