/**
 * What things cost in a simulation of scale: time on processors that processes share, and time on the way. Pure but for the clock
 * that is given.
 *
 *     task ──▶ a process's queue ──a core is free──▶ runs now; what it costs is charged while it runs
 *                                                     └─▶ what it sends leaves when its cost so far is over
 */
import type { Clock } from '../../../src/transport/clock.ts';
import type { Random } from '../random.ts';

/** Processor time (seconds), as it is found by measuring on the machine at hand. */
export interface Prices {
  /** A thread that slept is woken: by the kernel, and through a turn of its event loop. */
  readonly wakeSeconds: number;
  /** A thread is given a core that others wait for too, beside that: what it needs is not in the caches any more. */
  readonly switchSeconds: number;
  /** A frame, on each side. */
  readonly frameSeconds: number;
  /** A byte of a frame, on each side: half of what it takes to send, receive and reduce it. */
  readonly byteSeconds: number;
  /** A byte that is received while threads wait for a core, beside that: others have used the caches since it was sent. */
  readonly coldByteSeconds: number;
  /** A call, in the thread that makes it and in the engine, each way. */
  readonly callSeconds: number;
  /** A control message, on each side. */
  readonly controlSeconds: number;
  /** The handshake of a connection, on each side. */
  readonly handshakeSeconds: number;
}

/** A process does not keep a core for longer while others wait for one (ms). */
const SLICE_MS = 1;

/** The processors of one machine. */
export class Cores {
  readonly clock: Clock;
  readonly count: number;
  #free: number;
  readonly #waiting: Thread[] = [];

  constructor(clock: Clock, count: number) {
    this.clock = clock;
    this.count = count;
    this.#free = count;
  }

  /** A thread has something to do. @internal */
  ready(thread: Thread): void {
    this.#waiting.push(thread);
    this.#assign();
  }

  /** @internal */
  leave(): void {
    this.#free += 1;
    this.#assign();
  }

  get contended(): boolean {
    return this.#waiting.length > 0;
  }

  #assign(): void {
    while (this.#free > 0 && this.#waiting.length > 0) {
      this.#free -= 1;
      const thread = this.#waiting.shift()!;
      if (this.contended) thread.chargeSwitch();
      thread.occupy();
    }
  }
}

/** Does one thing after the other, on whichever core is free. */
export class Thread {
  readonly #cores: Cores;
  readonly #wakeMs: number;
  readonly #switchMs: number;
  #tasks: (() => void)[] = [];
  #next = 0;
  #isReady = false;
  #dead = false;
  /** Of the task that runs now (ms). */
  #chargedMs = 0;
  /** Altogether (ms). */
  busyMs = 0;

  constructor(cores: Cores, { wakeSeconds, switchSeconds }: Pick<Prices, 'wakeSeconds' | 'switchSeconds'>) {
    this.#cores = cores;
    this.#wakeMs = 1_000 * wakeSeconds;
    this.#switchMs = 1_000 * switchSeconds;
  }

  get dead(): boolean {
    return this.#dead;
  }

  /** Milliseconds from now until what it has done so far is done. */
  get delayMs(): number {
    return this.#chargedMs;
  }

  /** Other threads wait for its core. */
  get contended(): boolean {
    return this.#cores.contended;
  }

  run(task: () => void): void {
    if (this.#dead) return;
    this.#tasks.push(task);
    if (this.#isReady) return;
    this.#isReady = true;
    this.#chargedMs = this.#wakeMs;
    this.#cores.ready(this);
  }

  /** The task that runs takes so much longer. */
  charge(seconds: number): void {
    this.#chargedMs += 1_000 * seconds;
  }

  kill(): void {
    this.#dead = true;
    this.#tasks = [];
    this.#next = 0;
  }

  /** Others wait for the core that it is given. @internal */
  chargeSwitch(): void {
    this.#chargedMs += this.#switchMs;
  }

  /** It has a core: does the next task. @internal */
  occupy(usedMs = 0): void {
    if (!this.#dead) this.#tasks[this.#next++]?.();
    const took = this.#chargedMs;
    this.busyMs += took;
    this.#cores.clock.schedule(took, () => this.#done(usedMs + took));
  }

  #done(usedMs: number): void {
    this.#chargedMs = 0;
    if (this.#next < this.#tasks.length && (usedMs < SLICE_MS || !this.#cores.contended)) {
      this.occupy(usedMs);
      return;
    }
    if (this.#next === this.#tasks.length) {
      this.#tasks = [];
      this.#next = 0;
      this.#isReady = false;
    } else {
      this.#cores.ready(this);
    }
    this.#cores.leave();
  }
}

/** One end of a network: what leaves shares its uplink, what arrives its downlink (bytes per second). */
export class Access {
  readonly upRate: number;
  readonly downRate: number;
  #upFreeAt = 0;
  #downFreeAt = 0;

  constructor(upRate: number, downRate: number) {
    this.upRate = upRate;
    this.downRate = downRate;
  }

  /** So many bytes are handed to the uplink at `at`: when the last of them has left (ms). */
  leave(at: number, bytes: number): number {
    this.#upFreeAt = Math.max(at, this.#upFreeAt) + (1_000 * bytes) / this.upRate;
    return this.#upFreeAt;
  }

  /** Their last byte would arrive at `at`, if nothing else came: when it does (ms). */
  arrive(at: number, bytes: number): number {
    this.#downFreeAt = Math.max(at, this.#downFreeAt + (1_000 * bytes) / this.downRate);
    return this.#downFreeAt;
  }
}

/** Where peers are, and what their ways carry. */
export interface Topology {
  /** The site of each peer; the same string for peers that are near one another. */
  readonly sites: readonly string[];
  /** Bytes per second, by peer. */
  readonly upRates: readonly number[];
  readonly downRates: readonly number[];
  /** One way, between two peers, or from a peer to the coordinator (`null`) or back (ms). */
  delayMs(from: number | null, to: number | null): number;
  /** Processors that all share; null: each peer has some of its own. */
  readonly sharedCores: number | null;
}

/** All on one machine: what bytes cost is processor time. */
export function oneHost(peers: number, cores: number): Topology {
  const endless = Array.from({ length: peers }, () => Number.POSITIVE_INFINITY);
  return {
    sites: Array.from({ length: peers }, () => ''),
    upRates: endless,
    downRates: endless,
    delayMs: () => 0,
    sharedCores: cores,
  };
}

/** Bytes per second of 100 Mbit/s and of 1 Gbit/s. */
const SLOWEST_UPLINK = 12.5e6;
const FASTEST_UPLINK = 125e6;

/** Within a site, and the least and the most between two (ms). */
const NEAR_MS = 0.25;
const LEAST_FAR_MS = 1;
const MOST_FAR_MS = 100;

const PEERS_OF_A_SITE = 16;

/**
 * Peers in sites that are spread over the world: delays between sites are uniform on a logarithmic scale from 1 to 100 ms,
 * uplinks from 100 Mbit/s to 1 Gbit/s, downlinks twice as fast. The coordinator is in the first site.
 */
export function wideAreaSites(peers: number, random: Random): Topology {
  const count = Math.max(2, Math.round(peers / PEERS_OF_A_SITE));
  const between = (least: number, most: number) => least * (most / least) ** random.next();
  const matrix = Array.from({ length: count }, () => new Float64Array(count).fill(NEAR_MS));
  for (let one = 0; one < count; one++)
    for (let other = 0; other < one; other++)
      matrix[one]![other] = matrix[other]![one] = between(LEAST_FAR_MS, MOST_FAR_MS);
  const siteOf = (peer: number | null) => (peer === null ? 0 : peer % count);
  const upRates = Array.from({ length: peers }, () => between(SLOWEST_UPLINK, FASTEST_UPLINK));
  return {
    sites: upRates.map((_, peer) => `site ${siteOf(peer)}`),
    upRates,
    downRates: upRates.map((rate) => 2 * rate),
    delayMs: (from, to) => matrix[siteOf(from)]![siteOf(to)]!,
    sharedCores: null,
  };
}
