/**
 * Decides from the rhythm of a peer's signs of life when it is late. Mean and deviation of the gaps are tracked as TCP does
 * for its retransmission time-out (V. Jacobson, "Congestion Avoidance and Control", 1988); bounds keep the verdict sane.
 */

export interface DetectorBounds {
  /** Never late before so many milliseconds of silence. */
  readonly minimumMs: number;
  /** Always late after so many. */
  readonly maximumMs: number;
}

const GAIN_MEAN = 1 / 8;
const GAIN_DEVIATION = 1 / 4;
const DEVIATIONS = 8;

export class Detector {
  readonly #bounds: DetectorBounds;
  #last: number;
  #mean: number;
  #deviation: number;

  constructor(now: number, heartbeatMs: number, bounds: DetectorBounds) {
    this.#bounds = bounds;
    this.#last = now;
    this.#mean = heartbeatMs;
    this.#deviation = heartbeatMs / 2;
  }

  /** A sign of life. */
  signal(now: number): void {
    const error = now - this.#last - this.#mean;
    this.#mean += GAIN_MEAN * error;
    this.#deviation += GAIN_DEVIATION * (Math.abs(error) - this.#deviation);
    this.#last = now;
  }

  /** The observer itself was asleep: silence in that time says nothing about the peer. */
  forgive(now: number): void {
    this.#last = now;
  }

  /** Milliseconds of silence after which the peer counts as late. */
  get bound(): number {
    const estimate = this.#mean + DEVIATIONS * this.#deviation;
    return Math.min(this.#bounds.maximumMs, Math.max(this.#bounds.minimumMs, estimate));
  }

  isLate(now: number): boolean {
    return now - this.#last > this.bound;
  }
}
