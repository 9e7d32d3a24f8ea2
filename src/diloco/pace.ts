/**
 * How many inner steps each peer makes in a round, so that unequal machines arrive together (FedCompass, arXiv 2309.14675,
 * section 3). The counts follow from what all peers know of one another, so every peer computes the same ones.
 */

/**
 * @param every steps of a peer of mean speed
 * @param speeds steps per second by rank; 0 where none was measured yet: such a peer counts as one of mean speed
 * @returns steps by rank, each from `fewest` to `most`
 */
export function stepCounts(every: number, speeds: readonly number[], fewest: number, most: number): number[] {
  const known = speeds.filter((speed) => speed > 0);
  const mean = known.reduce((sum, speed) => sum + speed, 0) / Math.max(known.length, 1);
  return speeds.map((speed) => {
    const wanted = speed > 0 ? Math.round((every * speed) / mean) : every;
    return Math.min(Math.max(wanted, fewest), most);
  });
}

/** Measures how fast this peer makes inner steps, without the time in which it waits for others. */
export class Stopwatch {
  readonly #now: () => number;
  #startedAt: number | null = null;
  #steps = 0;
  #milliseconds = 0;

  /** @param now a clock in milliseconds */
  constructor(now: () => number) {
    this.#now = now;
  }

  /** An inner step begins. */
  start(): void {
    this.#startedAt = this.#now();
  }

  /** The inner step is done. */
  stop(): void {
    if (this.#startedAt === null) return;
    this.#milliseconds += this.#now() - this.#startedAt;
    this.#steps += 1;
    this.#startedAt = null;
  }

  /** Steps per second since the last call; 0 when nothing was measured. */
  take(): number {
    const speed = this.#milliseconds > 0 ? (1_000 * this.#steps) / this.#milliseconds : 0;
    this.#steps = 0;
    this.#milliseconds = 0;
    return speed;
  }
}
