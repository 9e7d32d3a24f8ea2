/** Latencies as a histogram: few numbers that can be added up over peers, and of which percentiles can be told. */
import { LATENCY_BUCKETS } from '../wire/limits.ts';

/** Upper bounds of the buckets (s), five to each factor of ten from 0.1 ms to 100 s; what is above them all has a bucket of its own. */
export const LATENCY_BOUNDS: readonly number[] = [-4, -3, -2, -1, 0, 1]
  .flatMap((exponent) => [1, 1.6, 2.5, 4, 6.3].map((step) => Number(`${step}e${exponent}`)))
  .concat(100);

export function emptyBuckets(): number[] {
  return new Array<number>(LATENCY_BUCKETS).fill(0);
}

/** Which bucket a time belongs to. */
export function bucketOf(seconds: number): number {
  const bucket = LATENCY_BOUNDS.findIndex((bound) => seconds <= bound);
  return bucket < 0 ? LATENCY_BOUNDS.length : bucket;
}

export function countOf(buckets: readonly number[]): number {
  return buckets.reduce((sum, count) => sum + count, 0);
}

/**
 * The time (s) below which a share of all calls ended, as if those of a bucket were spread evenly over its orders of magnitude: at most
 * 60 % off, mostly much less. Null where nothing was counted. What took longer than the last bound counts as that bound.
 */
export function percentile(buckets: readonly number[], share: number): number | null {
  const total = countOf(buckets);
  if (total === 0) return null;
  let left = share * total;
  for (const [bucket, count] of buckets.entries()) {
    if (count === 0 || left > count) {
      left -= count;
      continue;
    }
    const upper = LATENCY_BOUNDS[Math.min(bucket, LATENCY_BOUNDS.length - 1)]!; // within
    const lower = bucket === 0 ? upper / 1.6 : LATENCY_BOUNDS[Math.min(bucket, LATENCY_BOUNDS.length) - 1]!; // within
    return lower * (upper / lower) ** Math.max(0, left / count);
  }
  return LATENCY_BOUNDS.at(-1) ?? null;
}
