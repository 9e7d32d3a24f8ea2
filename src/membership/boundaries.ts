/**
 * The boundaries of a run, one after the other, and who waits at those that are not decided yet. Members may run ahead: they ask
 * for boundaries far beyond the next one. Each boundary is decided once, and whoever comes to it later gets the same answer.
 */
import type { PeerId } from './events.ts';

/** Boundaries that a peer may ask for before the first of them is decided. */
const MAX_BOUNDARIES_AHEAD = 64;

export interface AskedBoundary {
  readonly peerId: PeerId;
  readonly index: number;
  readonly minWorldSize: number;
}

export class Boundaries {
  #decided = 0;
  #waiting: AskedBoundary[] = [];

  /** The last one. */
  get decided(): number {
    return this.#decided;
  }

  isTooFar(index: number): boolean {
    return index > this.#decided + MAX_BOUNDARIES_AHEAD;
  }

  /** Takes the place of what the same peer asked there before. */
  ask(asked: AskedBoundary): void {
    const before = this.#waiting.findIndex((one) => one.peerId === asked.peerId && one.index === asked.index);
    if (before >= 0) this.#waiting[before] = asked;
    else this.#waiting.push(asked);
  }

  /** Whether somebody at the next one would have its quorum with so many members. */
  isWanted(reachable: number): boolean {
    return this.#waiting.some((one) => one.index === this.#decided + 1 && one.minWorldSize <= reachable);
  }

  /** The next one is decided. */
  decide(): number {
    this.#decided += 1;
    return this.#decided;
  }

  /** Another coordinator has decided up to this one. */
  catchUp(boundary: number): void {
    this.#decided = Math.max(this.#decided, boundary);
  }

  /** Who waits at boundaries that are decided, and does so no longer. */
  takeDecided(): AskedBoundary[] {
    const [decided, waiting]: [AskedBoundary[], AskedBoundary[]] = [[], []];
    for (const one of this.#waiting) (one.index <= this.#decided ? decided : waiting).push(one);
    this.#waiting = waiting;
    return decided;
  }

  /** Nobody waits but those who are here. */
  keep(isHere: (peerId: PeerId) => boolean): void {
    this.#waiting = this.#waiting.filter((one) => isHere(one.peerId));
  }
}
