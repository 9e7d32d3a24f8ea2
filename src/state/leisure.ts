/**
 * How fast a holder gives pieces to peers that no sync waits for: as fast as its steps can spare. A step is from one sync to the next; the
 * engine can't see what else it is made of, or who shares its processors, but how long it takes tells of all that.
 *
 *     steps are more than 6 % longer than in peace      less per second
 *     less than 3 %                                     more
 *
 * In peace are steps in which nobody has asked, and a few now and then in which whoever asks is put off. Steps differ by themselves, and it is
 * their sum that counts, so means of several are compared. Where no steps are made, what it began with is what it gives.
 */
import { STATE_PIECE_BYTES } from '../wire/limits.ts';

const MIB = 1024 * 1024;

/** Bytes per second. */
const FIRST_RATE: number = 16 * MIB;
const LEAST_RATE: number = 1 * MIB;
const MOST_RATE: number = 1024 * MIB;

/** What may be given at once (bytes). */
const BURST_BYTES: number = 2 * STATE_PIECE_BYTES;

/** Steps, as a share of those in peace, that are too long, and that leave room for more: members are to keep 90 % of their rate. */
const TOO_LONG = 1.06;
const SHORT = 1.03;
const LESS = 0.7;
const MORE = 1.25;

/**
 * Steps that are compared with those in peace, and the most and the fewest of those. So many that the few that are slow because a newcomer is being
 * started, and has not asked yet, don't count.
 */
const WINDOW = 12;
const MOST_PEACEFUL = 64;
const FEWEST_PEACEFUL = 6;

/** Steps after which others are put off for some, and how long at most (ms), as it may be that no more steps are made. */
const STEPS_BETWEEN_REST = 64;
const REST_MS = 3_000;
const REST_LOOK_MS = 20;

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length; // the callers have some
}

export class Leisure {
  #rate = FIRST_RATE;
  /** Bytes that may be given now, and when that was so. */
  #credit = BURST_BYTES;
  #creditAt = 0;
  #stepAt: number | null = null;
  /** Somebody asks, or is put off because of the rate, until then at least. */
  #askedUntil = Number.NEGATIVE_INFINITY;
  readonly #peaceful: number[] = [];
  #served: number[] = [];
  #sinceRest = 0;
  #restUntil = Number.NEGATIVE_INFINITY;
  #restsLeft = 0;

  /** Bytes per second. */
  get rate(): number {
    return this.#rate;
  }

  /** A sync begins: a step is over (ms). */
  onStep(now: number): void {
    const startedAt = this.#stepAt;
    this.#stepAt = now;
    if (startedAt === null) return;
    if (this.#askedUntil < startedAt) {
      this.#peaceful.push(now - startedAt);
      if (this.#peaceful.length > MOST_PEACEFUL) this.#peaceful.shift();
      if (this.#restsLeft > 0) this.#restsLeft -= 1;
      return;
    }
    this.#served.push(now - startedAt);
    this.#sinceRest += 1;
    if (this.#served.length >= WINDOW) this.#judge(now);
  }

  #judge(now: number): void {
    if (this.#peaceful.length < FEWEST_PEACEFUL || this.#sinceRest >= STEPS_BETWEEN_REST) {
      this.#sinceRest = 0;
      this.#restsLeft = FEWEST_PEACEFUL + 1; // the first is not in peace altogether
      this.#restUntil = now + REST_MS;
      this.#peaceful.length = 0; // what steps took long ago is no measure of them
    } else {
      const share = mean(this.#served) / mean(this.#peaceful);
      if (share > TOO_LONG) this.#rate = Math.max(LEAST_RATE, this.#rate * LESS);
      else if (share < SHORT) this.#rate = Math.min(MOST_RATE, this.#rate * MORE);
    }
    this.#served = [];
  }

  /** Takes so many bytes from what may be given at `now` (ms). @returns how long to wait if that is not so much (ms) */
  spend(bytes: number, now: number): number {
    if (this.#restsLeft > 0 && now < this.#restUntil) return REST_LOOK_MS;
    this.#restsLeft = 0;
    const more = ((now - this.#creditAt) * this.#rate) / 1_000;
    this.#credit = Math.min(BURST_BYTES, this.#credit + more);
    this.#creditAt = now;
    const waitMs = this.#credit < bytes ? Math.ceil(((bytes - this.#credit) * 1_000) / this.#rate) : 0;
    this.#askedUntil = now + waitMs;
    if (waitMs === 0) this.#credit -= bytes;
    return waitMs;
  }
}
