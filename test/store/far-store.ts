/** A store that several share, as one process of a simulation reaches it: calls take their time, and get lost on either way. */
import type { MemoryStore } from '../../src/store/memory.ts';
import { type Change, type Entry, type Guard, type Lease, type Store, StoreError } from '../../src/store/store.ts';
import type { VirtualClock } from '../../src/transport/clock.ts';
import type { SimProcess } from '../sim/process.ts';
import type { Random } from '../sim/random.ts';

const CALL_MS = 250;

export interface Weather {
  readonly longestMs: number;
  /** Share of calls that are lost on their way, and of answers. */
  readonly lost: number;
}

/** The store as one process reaches it. */
export class FarStore implements Store {
  readonly isShared = true;
  readonly #store: MemoryStore;
  readonly #process: SimProcess;
  readonly #world: VirtualClock;
  readonly #random: Random;
  weather: Weather;
  isCut = false;

  constructor(store: MemoryStore, process: SimProcess, world: VirtualClock, random: Random, weather: Weather) {
    this.#store = store;
    this.#process = process;
    this.#world = world;
    this.#random = random;
    this.weather = weather;
  }

  #call<T>(ask: () => Promise<T>, withinMs = CALL_MS): Promise<T> {
    return new Promise((resolve, reject) => {
      const arrives = (then: () => void) => {
        // What is under way comes even if the way is cut meanwhile, and what is lost is only late for its deadline.
        if (this.isCut || this.#random.chance(this.weather.lost)) return;
        this.#world.schedule(this.#random.next() ** 3 * this.weather.longestMs, then);
      };
      const stopTimer = this.#process.clock.schedule(withinMs, () => reject(new StoreError('no answer')));
      const answer = (settle: () => void) =>
        arrives(() =>
          this.#process.run(() => {
            stopTimer();
            settle();
          }),
        );
      arrives(() => {
        ask().then(
          (value) => answer(() => resolve(value)),
          (error: unknown) => answer(() => reject(error as Error)),
        );
      });
    });
  }

  get(key: string): Promise<Entry | null> {
    return this.#call(() => this.#store.get(key));
  }
  list(prefix: string): Promise<readonly Entry[]> {
    return this.#call(() => this.#store.list(prefix));
  }
  commit(guards: readonly Guard[], changes: readonly Change[]): Promise<number | null> {
    return this.#call(() => this.#store.commit(guards, changes));
  }
  grant(ms: number): Promise<Lease> {
    return this.#call(() => this.#store.grant(ms));
  }
  keepAlive(id: string): Promise<Lease | null> {
    return this.#call(() => this.#store.keepAlive(id));
  }
  revoke(id: string): Promise<void> {
    return this.#call(() => this.#store.revoke(id));
  }
  changed(key: string, after: number, withinMs: number, signal: AbortSignal): Promise<void> {
    return this.#call(() => this.#store.changed(key, after, withinMs, signal), withinMs);
  }
  async close(): Promise<void> {}
}
