/** Looks again and again, and less often while there is hardly anything to look at. */
import type { Clock } from '../transport/clock.ts';

/** Between looks (ms), and where there is hardly anything to look at. */
export const TICK_MS = 25;
const IDLE_TICK_MS = 100;

export class Ticking {
  readonly #clock: Clock;
  readonly #isIdle: () => boolean;
  readonly #look: () => void;
  #stop: () => void;
  #isSlow = false;

  constructor(clock: Clock, isIdle: () => boolean, look: () => void) {
    this.#clock = clock;
    this.#isIdle = isIdle;
    this.#look = look;
    this.#stop = clock.schedule(TICK_MS, this.#onTick);
  }

  /** There is something to look at again. */
  hurry(): void {
    if (!this.#isSlow) return;
    this.#isSlow = false;
    this.#stop();
    this.#stop = this.#clock.schedule(TICK_MS, this.#onTick);
  }

  stop(): void {
    this.#stop();
  }

  readonly #onTick = (): void => {
    this.#isSlow = this.#isIdle();
    this.#stop = this.#clock.schedule(this.#isSlow ? IDLE_TICK_MS : TICK_MS, this.#onTick);
    this.#look();
  };
}
