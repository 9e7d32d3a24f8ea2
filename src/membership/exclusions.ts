/**
 * Collectives that go on without some members of their view (`stragglers: 'exclude'`), as the coordinator knows them.
 *
 * An exclusion concerns one collective alone, and who is excluded stays a member. It needs no question to the members: only
 * the coordinator commits, and it does so when all members hold the result. So before that it may decide that some of them
 * don't count; the others then begin anew under an epoch of that collective's own, and what the excluded still send is stale.
 *
 * Invariants: the excluded of a collective only grow, and so does its epoch. Who was excluded is told so whatever it does
 * later, and never has a part in the result.
 */
import type { Exclusion } from '../wire/parts.ts';

/** Exclusions that are remembered, for members that missed them. */
const MAX_EXCLUSIONS = 4_096;

export class Exclusions {
  readonly #byId: Map<string, Exclusion> = new Map();

  add(exclusion: Exclusion): void {
    const known = this.#byId.get(exclusion.id);
    if (known !== undefined && known.epoch >= exclusion.epoch) return;
    this.#byId.delete(exclusion.id);
    this.#byId.set(exclusion.id, exclusion);
    if (this.#byId.size <= MAX_EXCLUSIONS) return;
    for (const oldest of this.#byId.keys()) {
      this.#byId.delete(oldest);
      return;
    }
  }

  isExcluded(id: string, peerId: string): boolean {
    return this.#byId.get(id)?.peers.includes(peerId) === true;
  }

  peersOf(id: string): readonly string[] {
    return this.#byId.get(id)?.peers ?? [];
  }

  /** Members of its view that a collective counts on. */
  left(id: string, members: readonly string[]): readonly string[] {
    const exclusion = this.#byId.get(id);
    return exclusion === undefined ? members : members.filter((peerId) => !exclusion.peers.includes(peerId));
  }

  /** The epoch of a collective's attempts: that of its generation, unless it was begun anew since without somebody. */
  epochOf(id: string, generationEpoch: number): number {
    return Math.max(generationEpoch, this.#byId.get(id)?.epoch ?? 0);
  }

  /** Oldest first. */
  get all(): readonly Exclusion[] {
    return [...this.#byId.values()];
  }

  forget(concerns: (id: string) => boolean): void {
    for (const id of this.#byId.keys()) if (concerns(id)) this.#byId.delete(id);
  }
}
