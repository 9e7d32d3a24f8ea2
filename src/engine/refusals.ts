/**
 * Lines about connections that were refused. Whoever is refused may come back a thousand times a second, so only so many lines are
 * written in a while; the next one tells how many were left out.
 */
import type { Clock } from '../transport/clock.ts';
import { MAX_TEXT_LENGTH } from '../wire/limits.ts';

/** Lines that may be written at once, and how long it takes until one more may (ms). */
const BURST = 16;
const REFILL_MS = 1_000;

/** One line that a terminal can be shown: it may quote what a stranger has sent. */
export function oneLine(text: string): string {
  return text.slice(0, MAX_TEXT_LENGTH).replace(/[\p{Cc}\p{Cf}\u2028\u2029]/gu, '?');
}

export class Refusals {
  readonly #clock: Clock;
  readonly #write: (line: string) => void;
  #left: number = BURST;
  #refilledAt: number;
  #untold = 0;

  constructor(clock: Clock, write: (line: string) => void) {
    this.#clock = clock;
    this.#write = write;
    this.#refilledAt = clock.now();
  }

  tell(reason: string): void {
    const earned = Math.floor((this.#clock.now() - this.#refilledAt) / REFILL_MS);
    this.#refilledAt += earned * REFILL_MS;
    this.#left = Math.min(BURST, this.#left + earned);
    if (this.#left === 0) {
      this.#untold += 1;
      return;
    }
    this.#left -= 1;
    const line = oneLine(reason);
    this.#write(this.#untold === 0 ? line : `${line} (${this.#untold} more were refused before)`);
    this.#untold = 0;
  }
}
