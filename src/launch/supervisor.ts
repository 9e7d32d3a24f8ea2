/**
 * What a launch does when processes end and signals come: a state machine. It starts no process, sets no timer and reads no
 * clock; processes.ts carries out the effects.
 *
 *     process:  running ──(failed, may restart)──▶ waiting ──▶ running …          launch:  running ──▶ stopping ──▶ ended
 *                  └──────(ended, or may not)────▶ ended                           the first failure, or a signal, stops it
 */
import { describeExit, type Exit, exitCode, exitCodeOfSignal } from './exit.ts';

export interface LaunchPolicy {
  readonly processes: number;
  /** Restarts that each process may have, perhaps `Infinity`. With 0 the first failure stops the launch. */
  readonly maxRestarts: number;
  /** Milliseconds between asking processes to end and killing them. */
  readonly graceMs: number;
  /** Milliseconds before a restart, at most. @default 10000 */
  readonly longestDelayMs?: number;
}

/** Signals that a launch forwards and then obeys. SIGPIPE stands for "nobody reads our output any more". */
export type StopSignal = 'SIGINT' | 'SIGTERM' | 'SIGHUP' | 'SIGPIPE';

export type LaunchEvent =
  /**
   * `startable` is false when the command could not be run at all: doing it again would not help. `again`: it was only asked to
   * end so that it is started again, however it ended.
   */
  | {
      readonly type: 'exited';
      readonly index: number;
      readonly exit: Exit;
      readonly startable: boolean;
      readonly again?: boolean;
    }
  | { readonly type: 'restart-due'; readonly index: number }
  | { readonly type: 'signal'; readonly signal: StopSignal }
  | { readonly type: 'grace-over' };

type Exited = Extract<LaunchEvent, { type: 'exited' }>;

export type LaunchEffect =
  | { readonly type: 'start'; readonly index: number; readonly restarts: number }
  | { readonly type: 'restart-later'; readonly index: number; readonly delayMs: number }
  | { readonly type: 'kill'; readonly index: number; readonly signal: StopSignal | 'SIGKILL' }
  | { readonly type: 'start-grace'; readonly delayMs: number }
  | { readonly type: 'say'; readonly text: string }
  | { readonly type: 'end'; readonly exitCode: number };

interface ProcessState {
  status: 'running' | 'waiting' | 'ended';
  restarts: number;
}

export interface LaunchState {
  readonly policy: LaunchPolicy;
  readonly processes: readonly ProcessState[];
  phase: 'running' | 'stopping' | 'ended';
  /** Decided by what stopped the launch; 0 until then. */
  exitCode: number;
}

const FIRST_DELAY_MS = 100;
const LONGEST_DELAY_MS = 10_000;

/** Milliseconds before a process is started for the `restarts`-th time again: doubling, so that a crash loop stays cheap. */
export function restartDelay(restarts: number): number {
  return Math.min(LONGEST_DELAY_MS, FIRST_DELAY_MS * 2 ** (restarts - 1));
}

export function beginLaunch(policy: LaunchPolicy): { state: LaunchState; effects: readonly LaunchEffect[] } {
  const indices = Array.from({ length: policy.processes }, (_, index) => index);
  return {
    state: {
      policy,
      processes: indices.map(() => ({ status: 'running', restarts: 0 })),
      phase: 'running',
      exitCode: 0,
    },
    effects: indices.map((index) => ({ type: 'start', index, restarts: 0 })),
  };
}

function killRunning(state: LaunchState, signal: StopSignal | 'SIGKILL'): LaunchEffect[] {
  const effects: LaunchEffect[] = [];
  state.processes.forEach((process, index) => {
    if (process.status === 'running') effects.push({ type: 'kill', index, signal });
  });
  return effects;
}

function endWhenAllHave(state: LaunchState): LaunchEffect[] {
  if (state.processes.some((process) => process.status !== 'ended')) return [];
  state.phase = 'ended';
  return [{ type: 'end', exitCode: state.exitCode }];
}

function stop(state: LaunchState, code: number, signal: StopSignal): LaunchEffect[] {
  state.phase = 'stopping';
  state.exitCode = code;
  for (const process of state.processes) if (process.status === 'waiting') process.status = 'ended';
  const kills = killRunning(state, signal);
  if (kills.length === 0) return endWhenAllHave(state);
  return [...kills, { type: 'start-grace', delayMs: state.policy.graceMs }];
}

function onExit(state: LaunchState, { index, exit, startable, again }: Exited): LaunchEffect[] {
  const process = state.processes[index];
  if (process === undefined || process.status !== 'running') return [];
  process.status = 'ended';
  const code = exitCode(exit);
  if (state.phase === 'stopping' || (code === 0 && again !== true)) return endWhenAllHave(state);

  const name = `peer ${index}`;
  const { maxRestarts } = state.policy;
  if (startable && process.restarts < maxRestarts) {
    process.status = 'waiting';
    process.restarts++;
    const delayMs = Math.min(state.policy.longestDelayMs ?? LONGEST_DELAY_MS, restartDelay(process.restarts));
    const of = Number.isFinite(maxRestarts) ? ` of ${maxRestarts}` : '';
    const text = `${name} ${describeExit(exit)}: restart ${process.restarts}${of} in ${delayMs} ms`;
    return [
      { type: 'say', text },
      { type: 'restart-later', index, delayMs },
    ];
  }
  const after = startable && process.restarts > 0 ? ` after ${process.restarts} restarts` : '';
  const others = state.processes.some((other) => other.status === 'running') ? ': stopping the others' : '';
  return [{ type: 'say', text: `${name} ${describeExit(exit)}${after}${others}` }, ...stop(state, code, 'SIGTERM')];
}

/** Takes one event, changes the state, and says what is to be done, in order. */
export function stepLaunch(state: LaunchState, event: LaunchEvent): LaunchEffect[] {
  if (state.phase === 'ended') return [];
  switch (event.type) {
    case 'exited':
      return onExit(state, event);
    case 'restart-due': {
      const process = state.processes[event.index];
      if (process?.status !== 'waiting') return [];
      process.status = 'running';
      return [{ type: 'start', index: event.index, restarts: process.restarts }];
    }
    case 'signal':
      // Forwarded again, but no reason to kill at once: under `npm run` a single Ctrl-C arrives twice.
      if (state.phase === 'stopping') return killRunning(state, event.signal);
      return stop(state, exitCodeOfSignal(event.signal), event.signal);
    case 'grace-over': {
      const kills = killRunning(state, 'SIGKILL');
      if (kills.length === 0) return [];
      return [{ type: 'say', text: `${kills.length} still running after the grace period: killed` }, ...kills];
    }
    default: {
      const never: never = event;
      return never;
    }
  }
}
