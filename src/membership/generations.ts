/**
 * The generations of a run, as its coordinator keeps them: the present one, and those before it in which somebody may still have
 * something open. A *generation* is a view as it was made at a boundary; each loss since then makes it smaller, under a higher epoch.
 *
 * Invariants: a generation's members only shrink, and its epoch only grows. `members` and `cuts` are replaced when they change,
 * never changed in place, so whoever remembers them can tell whether they are still the same.
 */
import type { WayCosts } from '../costs.ts';
import type { PeerId } from './events.ts';
import type { Pair } from './ways.ts';

export interface Generation {
  readonly generation: number;
  /** Where it was made: peers that have not passed this boundary do not know it yet. */
  readonly boundary: number;
  epoch: number;
  members: readonly PeerId[];
  readonly joined: readonly PeerId[];
  /** In the order of the ring; also members that are lost since. */
  readonly ring: readonly PeerId[];
  /** Pairs that could not reach one another when the epoch began. */
  cuts: readonly Pair[];
  /** By which its members choose. */
  readonly costs: WayCosts;
}

/** A loss, or something like it. */
export interface Change {
  readonly epoch: number;
  readonly gone: ReadonlySet<PeerId>;
  /** Two members whose link closed. */
  readonly broken: Pair | null;
  /** Everything that is open is concerned. */
  readonly isForAll: boolean;
  readonly cuts: readonly Pair[];
}

export class Generations {
  readonly #byNumber: Map<number, Generation> = new Map();
  #current: Generation | null = null;

  /** Null where nobody is a member. */
  get current(): Generation | null {
    return this.#current;
  }

  /** Of the present view. */
  get members(): readonly PeerId[] {
    return this.#current?.members ?? [];
  }

  /** Oldest first. */
  get all(): Iterable<Generation> {
    return this.#byNumber.values();
  }

  get(number: number): Generation | undefined {
    return this.#byNumber.get(number);
  }

  /** That to which a collective belongs. */
  of(id: string): Generation | undefined {
    return this.#byNumber.get(generationOf(id));
  }

  madeAt(boundary: number): Generation | undefined {
    return [...this.#byNumber.values()].find((generation) => generation.boundary === boundary);
  }

  /** With which a peer came in. */
  withNewcomer(peerId: PeerId): Generation | undefined {
    return [...this.#byNumber.values()].find((generation) => generation.joined.includes(peerId));
  }

  /** It is the present one from now on. */
  add(generation: Generation): void {
    this.#byNumber.set(generation.generation, generation);
    this.#current = generation;
  }

  /** Takes the lost out of those that a change concerns, which go on under its epoch; the numbers of these. */
  change({ epoch, gone, broken, isForAll, cuts }: Change): readonly number[] {
    const concerned: number[] = [];
    for (const generation of this.#byNumber.values()) {
      const loses = generation.members.some((peerId) => gone.has(peerId));
      const breaks = broken?.every((peerId) => generation.members.includes(peerId)) === true;
      if (!loses && !breaks && !isForAll) continue;
      generation.epoch = epoch;
      generation.members = generation.members.filter((peerId) => !gone.has(peerId));
      generation.cuts = cuts;
      concerned.push(generation.generation);
    }
    return concerned;
  }

  /** Forgets those before `oldest`, in which nobody can have anything open, if all members have passed where they were made. */
  prune(oldest: number, passed: number): void {
    for (const { generation, boundary } of this.#byNumber.values())
      if (generation < oldest && boundary <= passed) this.#byNumber.delete(generation);
  }

  /** Nobody is left. */
  clear(): void {
    this.#byNumber.clear();
    this.#current = null;
  }
}

/** Collectives are named `generation:tag:sequence`. */
export function generationOf(id: string): number {
  return Number(id.slice(0, id.indexOf(':')));
}
