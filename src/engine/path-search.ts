/** When to look for a better path to a peer: soon at first, then ever more seldom, and never for many peers at once. */
import type { Clock } from '../transport/clock.ts';
import type { TaskQueue } from './platform.ts';

/** Before the first look, unless a test wants it sooner, and the longest wait between two (ms): doubled from one to the other. */
const FIRST_MS = 5_000;
const LAST_MS = 300_000;

/** Looks under way at once: each may open several connections. */
export const SEARCHES_AT_ONCE = 2;

interface SearchWorld {
  readonly clock: Clock;
  /** Uniform bytes. */
  random(length: number): Uint8Array;
}

export class PathSearch {
  readonly #world: SearchWorld;
  readonly #queue: TaskQueue;
  readonly #probe: () => Promise<void>;
  readonly #firstMs: number;
  #delayMs: number;
  #cancel: (() => void) | null = null;
  /** It looks, or is about to. */
  #isBusy = false;
  /** To be planned again then. */
  #isWanted = false;
  #isStopped = false;

  /**
   * @param queue of all who look
   * @param probe looks once, and calls `plan` when it is to be done again
   * @param firstMs before the first look
   */
  constructor(world: SearchWorld, queue: TaskQueue, probe: () => Promise<void>, firstMs: number = FIRST_MS) {
    this.#world = world;
    this.#queue = queue;
    this.#probe = probe;
    this.#firstMs = firstMs;
    this.#delayMs = firstMs;
  }

  /** Looks after a while, unless that is planned. The wait is up to a quarter shorter or longer, so that peers don't look in step. */
  plan(): void {
    if (this.#isBusy) this.#isWanted = true;
    else if (this.#cancel === null && !this.#isStopped) {
      const share = 0.75 + this.#world.random(1)[0]! / 512;
      this.#cancel = this.#world.clock.schedule(share * this.#delayMs, () => void this.#look());
      this.#delayMs = Math.min(LAST_MS, 2 * this.#delayMs);
    }
  }

  async #look(): Promise<void> {
    this.#cancel = null;
    this.#isBusy = true;
    await this.#queue.add(async () => {
      if (!this.#isStopped) await this.#probe();
    });
    this.#isBusy = false;
    if (!this.#isWanted) return;
    this.#isWanted = false;
    this.plan();
  }

  /** The peer is reached by another path than before: as at first. */
  restart(): void {
    this.#unplan();
    this.#delayMs = this.#firstMs;
    this.plan();
  }

  stop(): void {
    this.#isStopped = true;
    this.#unplan();
  }

  #unplan(): void {
    this.#cancel?.();
    this.#cancel = null;
  }
}
