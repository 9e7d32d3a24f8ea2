/**
 * Peers that come in and die again and again are let in ever later, so that they can't hold up the others. A peer is known
 * again by its machine and its name, which it keeps over restarts.
 *
 *     dead within `STEADY_MS` of its admission: one flap more;  lived longer: all is forgotten
 *     from the second flap on it waits 1 s, 2 s, 4 s … 60 s
 */

/** Whoever has been a member for so long is steady (ms). */
const STEADY_MS = 30_000;

/** Flaps that cost nothing. */
const FREE_FLAPS = 1;

const FIRST_WAIT_MS = 1_000;
const LONGEST_WAIT_MS = 60_000;

/** Names that are remembered. */
const MAX_NAMES = 4_096;

export class Flapping {
  /** How often, and until when it must wait. */
  readonly #flaps: Map<string, { readonly count: number; readonly until: number }> = new Map();

  /** A member is gone, and did not leave in good order. */
  onLost(name: string, admittedAt: number, now: number): void {
    const before = this.#flaps.get(name)?.count ?? 0;
    this.#flaps.delete(name);
    if (now - admittedAt >= STEADY_MS) return;
    const wait = before < FREE_FLAPS ? 0 : Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** (before - FREE_FLAPS));
    this.#flaps.set(name, { count: before + 1, until: now + wait });
    if (this.#flaps.size > MAX_NAMES)
      for (const oldest of this.#flaps.keys()) {
        this.#flaps.delete(oldest);
        break;
      }
  }

  /** Milliseconds that a newcomer of this name must wait before it may come in. */
  waitOf(name: string, now: number): number {
    return Math.max(0, (this.#flaps.get(name)?.until ?? now) - now);
  }
}
