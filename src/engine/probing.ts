/**
 * Measures ways that carry nothing, as the coordinator asks for it: one at a time, and if possible while nothing is open. What is
 * sent grows as long as it arrives quickly, so that calls that begin meanwhile don't wait long behind it, however slow the way.
 */
import type { Link } from '../transport/link.ts';
import { PROBE_BYTES } from '../wire/limits.ts';

/** What is sent, one after the other, as shares of a segment: what a call has under way at once is a few of these. */
const SHARES: readonly number[] = [1 / 16, 1 / 2, 2];

/** Half of it taking so long is enough to know the rate by (ms). */
const ENOUGH_MS = 25;

/** Ways that wait to be measured: the coordinator asks for one at a time. */
const MAX_WAITING = 8;

/** How long a moment is awaited in which nothing is open (ms). */
const IDLE_PATIENCE_MS = 2_000;

/** How long the answer is awaited (ms). */
const ANSWER_MS = 8_000;

/** The least time that a clock is trusted with (ms): a browser's has steps of up to 0.1. */
const LEAST_MS = 0.1;

interface Probe {
  readonly peerId: string;
  readonly askedAt: number;
  sentAt: number | null;
  /** Index of what is sent. */
  size: number;
}

export class Probing {
  readonly #link: (peerId: string) => Link | undefined;
  /** Bytes. */
  readonly #sizes: readonly number[];
  #probes: Probe[] = [];

  /** @param segmentBytes what calls send at once */
  constructor(link: (peerId: string) => Link | undefined, segmentBytes: number) {
    this.#link = link;
    this.#sizes = SHARES.map((share) => Math.min(PROBE_BYTES, Math.ceil(share * segmentBytes)));
  }

  /** Something is to be measured, or is being. */
  get isWanted(): boolean {
    return this.#probes.length > 0;
  }

  ask(peerId: string, now: number): void {
    if (this.#probes.length < MAX_WAITING) this.#probes.push({ peerId, askedAt: now, sentAt: null, size: 0 });
  }

  /**
   * Sends the next probe, if it is time.
   *
   * @param isIdle nothing is open here
   * @returns to whom one was sent; null for none
   */
  tick(now: number, isIdle: boolean): string | null {
    const [first] = this.#probes;
    if (first === undefined) return null;
    const { peerId, askedAt, sentAt } = first;
    const link = this.#link(peerId);
    if (link?.up !== true || (sentAt !== null && now - sentAt > ANSWER_MS)) this.#probes.shift();
    else if (sentAt === null && (isIdle || now - askedAt > IDLE_PATIENCE_MS)) {
      first.sentAt = now;
      // First, so that the round trip is not one behind the probe.
      link.ask();
      link.probe(this.#sizes[0]!);
      return peerId;
    }
    return null;
  }

  /** The rate that an answer tells (bytes per second); null when nobody was asked, or more has to be sent to know. */
  onAnswer(peerId: string, bytes: number, elapsed: number, now: number): number | null {
    const [first] = this.#probes;
    if (first?.peerId !== peerId || first.sentAt === null || bytes === 0) return null;
    first.size += 1;
    const next = this.#sizes[first.size];
    const link = this.#link(peerId);
    if (elapsed < ENOUGH_MS && next !== undefined && link?.up === true) {
      first.sentAt = now;
      link.probe(next);
      return null;
    }
    this.#probes.shift();
    return (1_000 * bytes) / Math.max(LEAST_MS, elapsed);
  }
}
