/**
 * What to do about all that was open when members were lost, a link closed, or messages may have been: each survivor tells what it
 * holds (`progress`), and when all have, this is decided.
 *
 * - What all survivors hold of the same attempt is committed; everything else is redone.
 * - What all have finished of a call that salvages what it can is kept, by the same attempts, and need not be redone.
 * - An eager call from which only some have returned can't be redone: it fails for the others.
 *
 * Another loss before that makes a new decision, and this one is forgotten.
 */
import type { PeerMessage } from '../wire/peer-messages.ts';
import { intersectRanges, type KeptRange } from '../wire/ranges.ts';
import type { PeerId } from './events.ts';

/** What the coordinator knows of the collectives without asking (`Agreement`). */
interface Known {
  /** null: it can't be committed. */
  awaitedFor(id: string): readonly PeerId[] | null;
  isCommitted(id: string): boolean;
}

interface Verdict {
  readonly committed: { id: string; epoch: number }[];
  readonly kept: { id: string; ranges: KeptRange[] }[];
}

export class Decision {
  readonly epoch: number;
  /** Messages may have been lost before it. */
  readonly resumed: boolean;
  readonly #awaited: Set<PeerId>;
  /** By member: ids, and the epoch of the attempt that each result is of. */
  readonly #held: Map<PeerId, ReadonlyMap<string, number>> = new Map();
  /** Eager calls, and the members where they have returned. */
  readonly #returned: Map<string, Set<PeerId>> = new Map();
  /** By member: what is finished of calls that salvage what they can. */
  readonly #finished: Map<PeerId, ReadonlyMap<string, readonly KeptRange[]>> = new Map();

  constructor(epoch: number, resumed: boolean, survivors: readonly PeerId[]) {
    this.epoch = epoch;
    this.resumed = resumed;
    this.#awaited = new Set(survivors);
  }

  /** Whether it was the last one that is waited for. */
  onProgress(peerId: PeerId, message: Extract<PeerMessage, { type: 'progress' }>): boolean {
    if (message.epoch !== this.epoch || !this.#awaited.delete(peerId)) return false;
    this.#held.set(peerId, new Map(message.held.map(({ id, epoch }) => [id, epoch])));
    this.#finished.set(peerId, new Map(message.finished.map(({ id, ranges }) => [id, ranges])));
    for (const id of message.returned) {
      const by = this.#returned.get(id) ?? new Set();
      this.#returned.set(id, by.add(peerId));
    }
    return this.#awaited.size === 0;
  }

  /** Who has told what it holds. */
  get survivors(): Iterable<PeerId> {
    return this.#held.keys();
  }

  /** Eager calls, and one who has returned from each, although not all of these have. */
  halfReturned(membersOf: (id: string) => readonly PeerId[] | undefined): { id: string; by: PeerId }[] {
    return [...this.#returned].flatMap(([id, by]) => {
      const [first] = by;
      const isHalf = membersOf(id)?.every((peerId) => by.has(peerId)) === false;
      return isHalf && first !== undefined ? [{ id, by: first }] : [];
    });
  }

  conclude(known: Known): Verdict {
    const candidates = new Map<string, number>();
    for (const held of this.#held.values()) for (const [id, epoch] of held) candidates.set(id, epoch);
    // What was committed stays so, though a member that heard of it may have failed on its own, and forgotten it.
    const committed = [...candidates].flatMap(([id, epoch]) =>
      known.isCommitted(id) || this.#isHeldByAll(id, epoch, known) ? [{ id, epoch }] : [],
    );
    const kept = this.#finishedByAll(known).filter(({ id }) => !committed.some((one) => one.id === id));
    return { committed, kept };
  }

  #isHeldByAll(id: string, epoch: number, known: Known): boolean {
    const members = known.awaitedFor(id);
    return members?.every((peerId) => this.#held.get(peerId)?.get(id) === epoch) === true;
  }

  #finishedByAll(known: Known): { id: string; ranges: KeptRange[] }[] {
    const ids = new Set([...this.#finished.values()].flatMap((one) => [...one.keys()]));
    return [...ids].flatMap((id) => {
      const finished = (known.awaitedFor(id) ?? []).map((peerId) => this.#finished.get(peerId)?.get(id) ?? []);
      const [first = [], ...others] = finished;
      const ranges = others.reduce((common, one) => intersectRanges(common, one), first);
      return ranges.length === 0 ? [] : [{ id, ranges: [...ranges] }];
    });
  }
}
