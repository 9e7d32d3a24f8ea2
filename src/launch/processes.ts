/**
 * Carries out what the supervisor decides: starts processes, shows their output, passes signals on, and leaves none behind.
 * No decision is made here.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import type { Readable, Writable } from 'node:stream';
import { type Exit, exitCodeOfSignal } from './exit.ts';
import { PrefixStream } from './lines.ts';
import {
  beginLaunch,
  type LaunchEffect,
  type LaunchEvent,
  type LaunchPolicy,
  type LaunchState,
  type StopSignal,
  stepLaunch,
} from './supervisor.ts';
import { startWatchdog } from './watchdog.ts';

export interface LaunchOptions {
  /** Program and arguments; no shell is involved. */
  readonly command: readonly [string, ...string[]];
  readonly policy: LaunchPolicy;
  /** Environment of process `index`; `restarts` says how often it was started before. */
  readonly environment: (index: number, restarts: number) => NodeJS.ProcessEnv;
  /** What stands before each of its lines. */
  readonly prefix: (index: number) => string;
  readonly stdout: Writable;
  readonly stderr: Writable;
  /** Tells the user what the launcher does. */
  readonly say: (text: string) => void;
  /** What is run for the command of process `index`, for example inside something. */
  readonly wrap?: (index: number, command: readonly [string, ...string[]]) => readonly [string, ...string[]];
  /** Ends the launch as SIGTERM would; nothing is started when it has done so before. */
  readonly stop?: AbortSignal;
  /** A process was started; it leads a group of its own. */
  readonly onStarted?: (index: number, pid: number) => void;
  /** @returns true when it is to be started again even if it did not fail */
  readonly onEnded?: (index: number, exit: Exit) => boolean;
}

const FORWARDED: readonly StopSignal[] = ['SIGINT', 'SIGTERM', 'SIGHUP'];
const HAS_GROUPS = process.platform !== 'win32';
/** How often a process that has ended, and whose pipe somebody still holds, is looked at. */
const PIPE_CHECK_MS = 250;

/** To the process and all its descendants that did not leave its group. Does nothing when they are gone. */
function killGroup(child: ChildProcess, signal: NodeJS.Signals): void {
  if (child.pid === undefined) return;
  try {
    if (HAS_GROUPS) process.kill(-child.pid, signal);
    else child.kill(signal);
  } catch {
    // Gone already.
  }
}

/** One of a process's two outputs on its way to ours. */
interface Output {
  readonly source: Readable;
  readonly prefixed: PrefixStream;
  readonly sink: Writable;
}

function showOutput(source: Readable, sink: Writable, prefix: string): Output {
  const prefixed = new PrefixStream(prefix);
  source.setEncoding('utf8').pipe(prefixed).pipe(sink, { end: false });
  // A source that is destroyed never ends; its last line must come out all the same.
  source.once('close', () => prefixed.end());
  // Once nobody reads our output, the rest is thrown away, or the process would stand still on a full pipe.
  const discard = (): void => void prefixed.resume();
  sink.on('error', discard);
  prefixed.once('close', () => sink.off('error', discard));
  return { source, prefixed, sink };
}

/** Calls back once all that the process wrote has been shown, or nothing more comes although there is room for it. */
function whenShown(outputs: readonly Output[], done: () => void): void {
  let received = 0;
  let seen = -1;
  let open = outputs.length;
  const timer = setInterval(() => {
    const isBlocked = outputs.some((output) => output.sink.writableNeedDrain);
    if (!isBlocked && received === seen) for (const output of outputs) output.source.destroy();
    seen = received;
  }, PIPE_CHECK_MS);
  const onClose = (): void => {
    if (--open > 0) return;
    clearInterval(timer);
    done();
  };
  for (const { source, prefixed } of outputs) {
    source.on('data', () => received++);
    if (prefixed.closed) onClose();
    else prefixed.once('close', onClose);
  }
}

/** Runs a launch to its end; resolves with the exit code for the launcher. */
export function runProcesses(options: LaunchOptions): Promise<number> {
  return new Promise((resolve) => new Launch(options, resolve).begin());
}

class Launch {
  readonly #options: LaunchOptions;
  readonly #onEnd: (exitCode: number) => void;
  readonly #running = new Map<number, ChildProcess>();
  readonly #timers = new Set<NodeJS.Timeout>();
  readonly #watchdog = startWatchdog();
  readonly #state: LaunchState;
  readonly #firstEffects: readonly LaunchEffect[];

  constructor(options: LaunchOptions, onEnd: (exitCode: number) => void) {
    this.#options = options;
    this.#onEnd = onEnd;
    const { state, effects } = beginLaunch(options.policy);
    this.#state = state;
    this.#firstEffects = effects;
  }

  begin(): void {
    if (this.#options.stop?.aborted === true) {
      this.#end(exitCodeOfSignal('SIGTERM'));
      return;
    }
    for (const signal of FORWARDED) process.on(signal, this.#onSignal);
    for (const sink of [this.#options.stdout, this.#options.stderr]) {
      sink.setMaxListeners(0); // one pipe per process
      sink.on('error', () => this.#dispatch({ type: 'signal', signal: 'SIGPIPE' }));
    }
    this.#options.stop?.addEventListener('abort', this.#onStop, { once: true });
    this.#perform(this.#firstEffects);
  }

  readonly #onStop = (): void => this.#dispatch({ type: 'signal', signal: 'SIGTERM' });

  readonly #onSignal = (signal: NodeJS.Signals): void => {
    const known = FORWARDED.find((name) => name === signal);
    if (known !== undefined) this.#dispatch({ type: 'signal', signal: known });
  };

  #dispatch(event: LaunchEvent): void {
    this.#perform(stepLaunch(this.#state, event));
  }

  #perform(effects: readonly LaunchEffect[]): void {
    for (const effect of effects) {
      switch (effect.type) {
        case 'start':
          this.#start(effect.index, effect.restarts);
          break;
        case 'restart-later':
          this.#later(effect.delayMs, { type: 'restart-due', index: effect.index });
          break;
        case 'start-grace':
          this.#later(effect.delayMs, { type: 'grace-over' });
          break;
        case 'kill': {
          const child = this.#running.get(effect.index);
          // SIGPIPE means that our own reader has gone, which is no business of the processes: they are asked to end.
          if (child !== undefined) killGroup(child, effect.signal === 'SIGPIPE' ? 'SIGTERM' : effect.signal);
          break;
        }
        case 'say':
          this.#options.say(effect.text);
          break;
        case 'end':
          this.#end(effect.exitCode);
          break;
        default:
          effect satisfies never;
      }
    }
  }

  #start(index: number, restarts: number): void {
    const { command, environment, prefix, stdout, stderr } = this.#options;
    const [program, ...args] = this.#options.wrap?.(index, command) ?? command;
    const child = spawn(program, args, {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: environment(index, restarts),
      detached: HAS_GROUPS,
    });
    this.#running.set(index, child);
    if (child.pid !== undefined) this.#options.onStarted?.(index, child.pid);
    this.#watch();
    const outputs = [showOutput(child.stdout, stdout, prefix(index)), showOutput(child.stderr, stderr, prefix(index))];
    const onGone = (exit: Exit, startable: boolean): void => {
      this.#running.delete(index);
      const again = this.#options.onEnded?.(index, exit) ?? false;
      this.#watch();
      this.#dispatch({ type: 'exited', index, exit, startable, again });
    };
    child.once('exit', (code, signal) => {
      killGroup(child, 'SIGKILL');
      whenShown(outputs, () => onGone({ code, signal }, true));
    });
    child.once('error', (error: NodeJS.ErrnoException) => {
      if (child.pid !== undefined) return;
      const isMissing = error.code === 'ENOENT';
      this.#options.say(isMissing ? `there is no command ${JSON.stringify(program)}` : error.message);
      // What shells say: 127 is "not found", 126 is "found, but can't be run".
      onGone({ code: isMissing ? 127 : 126, signal: null }, false);
    });
  }

  #watch(): void {
    this.#watchdog.watch([...this.#running.values()].flatMap((child) => child.pid ?? []));
  }

  #later(delayMs: number, event: LaunchEvent): void {
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      this.#dispatch(event);
    }, delayMs);
    this.#timers.add(timer);
  }

  #end(exitCode: number): void {
    for (const timer of this.#timers) clearTimeout(timer);
    for (const signal of FORWARDED) process.off(signal, this.#onSignal);
    this.#options.stop?.removeEventListener('abort', this.#onStop);
    this.#watchdog.close();
    this.#onEnd(exitCode);
  }
}
