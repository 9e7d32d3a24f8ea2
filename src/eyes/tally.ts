/**
 * What one peer tells a coordinator that watches: what its calls came to, and what its links carry. Nothing is told to a coordinator
 * that does not watch, and nothing by a peer where nothing has happened.
 */
import type { Report } from '../collectives/call.ts';
import type { CollectiveKind } from '../collectives/program.ts';
import { MAX_TOLD_FLOWS } from '../wire/limits.ts';
import type { Figures } from '../wire/peer-messages.ts';
import { bucketOf, emptyBuckets } from './latency.ts';

type PathName = Figures['flows'][number]['path'];

/** A link, as it is now. */
export interface LinkFigures {
  readonly peerId: string;
  /** Bytes given to it, and received by it, since it was made. */
  readonly sent: number;
  readonly received: number;
  readonly queuedBytes: number;
}

/** What else is told. */
export interface Circumstances {
  readonly open: number;
  readonly boundary: number;
  readonly roundTripMs: number | null;
}

interface Kind {
  failed: number;
  retries: number;
  sentBytes: number;
  receivedBytes: number;
  seconds: number;
  readonly buckets: number[];
  isNews: boolean;
}

interface Carried {
  readonly sent: number;
  readonly received: number;
}

/** Less than this on all links together is signs of life, and nothing worth telling (bytes per second). */
const QUIET = 2_048;

export class Tally {
  readonly #kinds: Map<CollectiveKind, Kind> = new Map();
  readonly #paths: Map<string, PathName> = new Map();
  #carried: Map<string, Carried> = new Map();
  #lookedAt: number | null = null;
  #isWatched = false;
  /** What of the present is news only where it differs; null: nothing was told yet. */
  #told: string | null = null;

  get isWatched(): boolean {
    return this.#isWatched;
  }

  /** The coordinator wants to know: all that there is, as it may know nothing. */
  watch(): void {
    this.#isWatched = true;
    this.#told = null;
    for (const kind of this.#kinds.values()) kind.isNews = true;
  }

  /** A call has ended. */
  onSettled(kind: CollectiveKind, report: Report | null): void {
    const known = this.#kinds.get(kind);
    const counts = known ?? {
      ...{ failed: 0, retries: 0, sentBytes: 0, receivedBytes: 0, seconds: 0 },
      buckets: emptyBuckets(),
      isNews: true,
    };
    if (known === undefined) this.#kinds.set(kind, counts);
    counts.isNews = true;
    if (report === null) {
      counts.failed += 1;
      return;
    }
    counts.retries += report.retries;
    counts.sentBytes += report.bytesSent;
    counts.receivedBytes += report.bytesReceived;
    counts.seconds += report.seconds;
    counts.buckets[bucketOf(report.seconds)]! += 1; // of its bounds
  }

  /** By which path a peer is reached; null: by none any more. */
  onPath(peerId: string, path: PathName): void {
    if (path === null) this.#paths.delete(peerId);
    else this.#paths.set(peerId, path);
  }

  /**
   * What is to be told now to a coordinator that watches; null: nothing. To be called about once a second.
   *
   * @param now milliseconds, monotonic
   */
  take(now: number, links: readonly LinkFigures[], { open, boundary, roundTripMs }: Circumstances): Figures | null {
    const seconds = this.#lookedAt === null ? 0 : (now - this.#lookedAt) / 1_000;
    this.#lookedAt = now;
    const rateOf = (bytes: number) => (seconds > 0 ? Math.round(Math.max(0, bytes) / seconds) : 0);
    const carried = this.#carried;
    this.#carried = new Map(links.map(({ peerId, sent, received }) => [peerId, { sent, received }]));
    const flows: Figures['flows'] = [];
    let [sentPerSecond, receivedPerSecond, queuedBytes] = [0, 0, 0];
    for (const link of links) {
      // One that was made anew began to count anew.
      const before = carried.get(link.peerId) ?? { sent: link.sent, received: link.received };
      const bytesPerSecond = rateOf(link.sent - before.sent);
      sentPerSecond += bytesPerSecond;
      receivedPerSecond += rateOf(link.received - before.received);
      queuedBytes += link.queuedBytes;
      const path = this.#paths.get(link.peerId) ?? null;
      if (path !== null) flows.push({ peerId: link.peerId, path, bytesPerSecond, queuedBytes: link.queuedBytes });
    }
    flows.sort((left, right) => right.bytesPerSecond - left.bytesPerSecond);
    flows.splice(MAX_TOLD_FLOWS);
    const isQuiet = sentPerSecond + receivedPerSecond < QUIET;
    const present = JSON.stringify([open, boundary, isQuiet, flows.map(({ peerId, path }) => [peerId, path]).sort()]);
    const news = [...this.#kinds].filter(([, { isNews }]) => isNews);
    if (present === this.#told && isQuiet && news.length === 0) return null;
    this.#told = present;
    const calls = news.map(([kind, counts]) => {
      counts.isNews = false;
      const { isNews, buckets, ...numbers } = counts;
      return { kind, ...numbers, buckets: [...buckets] };
    });
    return { calls, flows, sentPerSecond, receivedPerSecond, queuedBytes, open, boundary, roundTripMs };
  }
}
