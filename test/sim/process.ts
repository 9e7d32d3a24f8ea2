/**
 * A simulated process: its timers and everything that reaches it pass through here, so it can be stopped, be slow at
 * everything that it does, or die.
 */
import type { Clock, VirtualClock } from '../../src/transport/clock.ts';
import type { Host } from '../../src/transport/memory.ts';

export class SimProcess implements Host {
  readonly name: string;
  readonly clock: Clock;
  readonly #world: VirtualClock;
  /** What is due and was not done yet, in its order. */
  readonly #backlog: (() => void)[] = [];
  #isWorking = false;
  /** What each task takes (ms). */
  #costMs = 0;
  #state: 'running' | 'stopped' | 'dead' = 'running';
  #offsetMs = 0;

  constructor(name: string, world: VirtualClock) {
    this.name = name;
    this.#world = world;
    this.clock = {
      now: () => world.now() + this.#offsetMs,
      schedule: (delayMs, task) => {
        let cancelled = false;
        const cancel = world.schedule(delayMs, () =>
          this.run(() => {
            if (!cancelled) task();
          }),
        );
        return () => {
          cancelled = true;
          cancel();
        };
      },
    };
  }

  get dead(): boolean {
    return this.#state === 'dead';
  }

  get stopped(): boolean {
    return this.#state === 'stopped';
  }

  run(task: () => void): void {
    if (this.#state === 'dead') return;
    if (this.#state === 'running' && this.#costMs === 0 && this.#backlog.length === 0) {
      task();
      return;
    }
    this.#backlog.push(task);
    this.#work();
  }

  stop(): void {
    if (this.#state === 'running') this.#state = 'stopped';
  }

  /** Goes on: what was due meanwhile happens first. */
  goOn(): void {
    if (this.#state !== 'stopped') return;
    this.#state = 'running';
    this.#work();
  }

  /** From now on each task takes so long; 0 for no time at all. */
  takeTime(costMs: number): void {
    this.#costMs = costMs;
  }

  /** Does what is due, one task after the other. */
  #work(): void {
    if (this.#isWorking || this.#state !== 'running' || this.#backlog.length === 0) return;
    this.#isWorking = true;
    this.#world.schedule(this.#costMs, () => {
      this.#isWorking = false;
      if (this.#state !== 'running') return;
      this.#backlog.shift()?.();
      this.#work();
    });
  }

  kill(): void {
    this.#state = 'dead';
    this.#backlog.length = 0;
  }

  /** Its clock jumps ahead, as after a suspended machine. */
  jump(byMs: number): void {
    this.#offsetMs += byMs;
  }

  sleep(ms: number): Promise<void> {
    return new Promise((resolve) => void this.clock.schedule(ms, resolve));
  }
}
