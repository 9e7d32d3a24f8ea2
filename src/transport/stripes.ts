/**
 * How many stripes a lane needs. One connection keeps only so much on the way, whatever the way could hold: the systems bound its
 * buffers, Node can't size them, and a lost packet makes it wait alone. So a long way that is fast as well takes several, each
 * frame on the emptiest: as frames are independent, flows need not be cut in packets (Bonato et al., "Challenging the Need for
 * Packet Spraying in Large-Scale Distributed Training", 2024).
 */
import { MAX_STRIPES } from '../wire/limits.ts';

/**
 * What one connection can be trusted to keep on the way. Linux bounds a sender's buffer to 4 MiB, of which packets' own overhead takes
 * its part; but with one packet in 20,000 lost, Reno keeps 250 KB (Mathis et al., 1997).
 */
export const STRIPE_FLIGHT_BYTES: number = 256 * 1024;

/** What a rate is made of at least (ms): what comes in less may have waited in buffers. */
const SAMPLE_MS = 200;

/** The best rate that was kept up for two samples one after the other: after a pause, buffers give more than the way does. */
export class SustainedRate {
  /** Bytes per second; 0 until something is known. */
  best = 0;
  #last = 0;
  #at: number | null = null;
  #bytes = 0;

  /** @param bytes that have gone by until now; it only grows */
  look(now: number, bytes: number): void {
    if (this.#at === null) {
      this.#at = now;
      this.#bytes = bytes;
    }
    const elapsed = now - this.#at;
    if (elapsed < SAMPLE_MS) return;
    const rate = (1_000 * (bytes - this.#bytes)) / elapsed;
    this.best = Math.max(this.best, Math.min(rate, this.#last));
    this.#last = rate;
    this.#at = now;
    this.#bytes = bytes;
  }
}

/**
 * The stripes that a way needs, by its bandwidth-delay product. Where the connections, and not the way, bound the rate, more of them raise
 * it, and with it what is needed, until that is no longer so.
 *
 * @param present stripes that there are: never fewer are asked for, as one that lies idle costs next to nothing, and taking one away
 *     would need a word with the other peer; nor more than twice as many at once, as each dial measures the round trip anew
 */
export function stripesFor(bytesPerSecond: number, roundTripMs: number, present: number): number {
  const product = (bytesPerSecond * roundTripMs) / 1_000;
  const wanted = Math.ceil(product / STRIPE_FLIGHT_BYTES);
  return Math.max(present, Math.min(wanted, 2 * present, MAX_STRIPES));
}
