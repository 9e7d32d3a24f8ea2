/** A simulated process: its timers and everything that reaches it pass through here, so it can be stopped, or die. */
import type { Clock, VirtualClock } from '../../src/transport/clock.ts';
import type { Host } from '../../src/transport/memory.ts';

export class SimProcess implements Host {
  readonly name: string;
  readonly clock: Clock;
  readonly #world: VirtualClock;
  readonly #backlog: (() => void)[] = [];
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
    if (this.#state === 'running') task();
    else if (this.#state === 'stopped') this.#backlog.push(task);
  }

  stop(): void {
    if (this.#state === 'running') this.#state = 'stopped';
  }

  /** Goes on: what was due meanwhile happens first, in its order. */
  goOn(): void {
    if (this.#state !== 'stopped') return;
    this.#state = 'running';
    for (const task of this.#backlog.splice(0)) this.#world.schedule(0, () => this.run(task));
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
