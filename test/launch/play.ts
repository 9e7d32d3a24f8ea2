/** A launch without processes: carries out the supervisor's effects on paper, and keeps what a user would see of them. */
import { expect } from 'vitest';
import type { Exit } from '../../src/launch/exit.ts';
import {
  beginLaunch,
  type LaunchEffect,
  type LaunchEvent,
  type LaunchPolicy,
  type LaunchState,
  stepLaunch,
} from '../../src/launch/supervisor.ts';

export const POLICY: LaunchPolicy = { processes: 3, maxRestarts: 0, graceMs: 5_000 };

export const SUCCESS: Exit = { code: 0, signal: null };

export function failed(code: number): Exit {
  return { code, signal: null };
}

export function killed(signal: string): Exit {
  return { code: null, signal };
}

export class Play {
  readonly #state: LaunchState;
  readonly #policy: LaunchPolicy;
  /** Processes that run now. */
  readonly running: Set<number> = new Set();
  /** Processes whose restart is due at some later time. */
  readonly due: Set<number> = new Set();
  /** How often each process was started, the first time included. */
  readonly starts: number[];
  graces = 0;
  exitCode: number | null = null;

  constructor(policy: Partial<LaunchPolicy> = {}) {
    this.#policy = { ...POLICY, ...policy };
    this.starts = Array.from({ length: this.#policy.processes }, () => 0);
    const { state, effects } = beginLaunch(this.#policy);
    this.#state = state;
    this.#perform(effects);
  }

  /** Feeds one event; returns what the supervisor wants done. */
  step(event: LaunchEvent): readonly LaunchEffect[] {
    if (event.type === 'exited') this.running.delete(event.index);
    if (event.type === 'restart-due') this.due.delete(event.index);
    const hadEnded = this.exitCode !== null;
    const effects = stepLaunch(this.#state, event);
    if (hadEnded) expect(effects, 'a launch that has ended does nothing').toEqual([]);
    this.#perform(effects);
    return effects;
  }

  exited(index: number, exit: Exit, startable = true): readonly LaunchEffect[] {
    return this.step({ type: 'exited', index, exit, startable });
  }

  /** It was asked to end so that it is started again. */
  exitedForRestart(index: number, exit: Exit): readonly LaunchEffect[] {
    return this.step({ type: 'exited', index, exit, startable: true, again: true });
  }

  /** What no effect may ever break, whatever the events were. */
  #perform(effects: readonly LaunchEffect[]): void {
    for (const effect of effects) {
      switch (effect.type) {
        case 'start':
          expect(this.running.has(effect.index), 'a process that runs is not started').toBe(false);
          expect(effect.restarts).toBe(this.starts[effect.index]);
          expect(effect.restarts).toBeLessThanOrEqual(this.#policy.maxRestarts);
          this.starts[effect.index] = effect.restarts + 1;
          this.running.add(effect.index);
          break;
        case 'restart-later':
          expect(this.running.has(effect.index), 'a process that runs needs no restart').toBe(false);
          expect(effect.delayMs).toBeGreaterThan(0);
          this.due.add(effect.index);
          break;
        case 'kill':
          expect(this.running.has(effect.index), 'only what runs is killed').toBe(true);
          break;
        case 'start-grace':
          expect(effect.delayMs).toBe(this.#policy.graceMs);
          expect(++this.graces, 'there is one grace period').toBe(1);
          break;
        case 'say':
          expect(effect.text).not.toBe('');
          break;
        case 'end':
          expect(this.exitCode, 'a launch ends once').toBeNull();
          expect(this.running.size, 'a launch ends after its processes').toBe(0);
          this.exitCode = effect.exitCode;
          break;
        default:
          effect satisfies never;
      }
    }
  }
}

/** The signal that each process is sent, by index. */
export function killsIn(effects: readonly LaunchEffect[]): Record<number, string> {
  return Object.fromEntries(
    effects.flatMap((effect) => (effect.type === 'kill' ? [[effect.index, effect.signal]] : [])),
  );
}

export function textIn(effects: readonly LaunchEffect[]): string {
  return effects.flatMap((effect) => (effect.type === 'say' ? [effect.text] : [])).join('\n');
}
