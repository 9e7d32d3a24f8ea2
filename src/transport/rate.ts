/** How often somebody may come: a bucket of tokens for each origin, which fills by itself (token bucket). */

export interface RateLimits {
  /** Visits of one origin that may come at once. */
  readonly burst: number;
  /** How many more may come in a second when these are used up. */
  readonly perSecond: number;
}

/** Origins that are remembered; the one that came longest ago is forgotten. */
const MAX_ORIGINS = 4_096;

export class OriginRate {
  readonly #limits: RateLimits;
  readonly #now: () => number;
  /** In the order of the last visit. */
  readonly #buckets: Map<string, { left: number; at: number }> = new Map();

  /** @param now milliseconds that only grow */
  constructor(limits: RateLimits, now: () => number) {
    this.#limits = limits;
    this.#now = now;
  }

  /** Whether one more may come in from this origin now; if so it counts. */
  take(origin: string): boolean {
    const { burst, perSecond } = this.#limits;
    const at = this.#now();
    const bucket = this.#buckets.get(origin) ?? { left: burst, at };
    const left = Math.min(burst, bucket.left + ((at - bucket.at) * perSecond) / 1_000);
    const allowed = left >= 1;
    this.#buckets.delete(origin);
    this.#buckets.set(origin, { left: allowed ? left - 1 : left, at });
    if (this.#buckets.size > MAX_ORIGINS) {
      const [oldest] = this.#buckets.keys();
      this.#buckets.delete(oldest!); // there are many
    }
    return allowed;
  }
}
