/**
 * A command as a user runs it, with all that it starts. Every process bears a mark in its environment, which is how the
 * family is found, whoever its parents are by now; none outlives the test. Used with `await using`. Needs Linux's /proc.
 */
import { type ChildProcessByStdio, spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import type { Readable } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { expect } from 'vitest';

/** No command of a test runs longer than this (ms). */
const DEADLINE_MS = 55_000;
/** Nor is anything awaited longer than this (ms). */
const PATIENCE_MS = 20_000;

const MARK = 'SKEIN_TEST_MARK';
const MAIN = fileURLToPath(new URL('../../dist/src/cli/main.js', import.meta.url));

/** Our own, without what would change the output or the command's defaults. */
function plainEnvironment(): NodeJS.ProcessEnv {
  const kept = Object.entries(process.env).filter(
    ([name]) => !/^(SKEIN_|FORCE_COLOR$|NODE_OPTIONS$|VITEST)/.test(name),
  );
  return { ...Object.fromEntries(kept), NO_COLOR: '1' };
}

function isMarked(pid: string, mark: string): boolean {
  try {
    return readFileSync(`/proc/${pid}/environ`, 'latin1').includes(mark);
  } catch {
    return false; // Gone, or somebody else's.
  }
}

/** Arguments with which Node runs `skein`. */
export function skein(...args: readonly string[]): string[] {
  return [MAIN, ...args];
}

/** Makes a command one that runs somewhere else. */
type Wrap = (command: [string, ...string[]]) => [string, ...string[]];

export class Command {
  readonly child: ChildProcessByStdio<null, Readable, Readable>;
  stdout = '';
  stderr = '';
  /** The exit code, or the signal that killed the command, once it has ended and all its output is here. */
  readonly ended: Promise<number | NodeJS.Signals>;
  readonly #mark: string = randomUUID();
  readonly #deadline: NodeJS.Timeout;

  /** Runs `skein` with these arguments. */
  static skein(args: readonly string[], environment: NodeJS.ProcessEnv = {}, wrap?: Wrap): Command {
    return new Command(skein(...args), environment, wrap);
  }

  /** Runs Node with these arguments. */
  constructor(args: readonly string[], environment: NodeJS.ProcessEnv = {}, wrap: Wrap = (command) => command) {
    const [program, ...rest] = wrap([process.execPath, ...args]);
    this.child = spawn(program, rest, {
      env: { ...plainEnvironment(), ...environment, [MARK]: this.#mark },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    this.#deadline = setTimeout(() => this.#killAll(), DEADLINE_MS);
    this.child.stdout.setEncoding('utf8').on('data', (text: string) => {
      this.stdout += text;
    });
    this.child.stderr.setEncoding('utf8').on('data', (text: string) => {
      this.stderr += text;
    });
    this.ended = once(this.child, 'close').then(() => this.child.signalCode ?? this.child.exitCode!);
  }

  /** Lines on stdout, in the order of their texts: processes write in any order. */
  get lines(): string[] {
    return this.stdout.split('\n').filter(Boolean).sort();
  }

  /** Ids of all living processes that the command started, and that these started, at this moment. */
  family(): number[] {
    return readdirSync('/proc')
      .filter((name) => /^\d+$/.test(name) && Number(name) !== this.child.pid && isMarked(name, this.#mark))
      .map(Number);
  }

  /** Waits until so many lines on stdout match. */
  async says(pattern: RegExp, times = 1): Promise<void> {
    const deadline = AbortSignal.timeout(PATIENCE_MS);
    let hasEnded = false;
    const end = this.ended.then(() => {
      hasEnded = true;
    });
    while (this.lines.filter((line) => pattern.test(line)).length < times) {
      if (hasEnded || deadline.aborted)
        throw new Error(`${pattern} was not said ${times} times:\n${this.stdout}\n${this.stderr}`);
      await Promise.race([end, once(this.child.stdout, 'data', { signal: deadline }).catch(() => {})]);
    }
  }

  /**
   * Waits until precisely these of the family are left, which must not take any help. A command that has ended may have left a
   * watchdog (src/launch/watchdog.ts) that is about to notice.
   */
  async leaves(pids: readonly number[]): Promise<void> {
    const sorted = (list: readonly number[]) => [...list].sort((left, right) => left - right);
    await expect.poll(() => sorted(this.family()), { timeout: PATIENCE_MS }).toEqual(sorted(pids));
  }

  #killAll(): void {
    this.child.kill('SIGKILL');
    for (const pid of this.family()) {
      try {
        process.kill(pid, 'SIGKILL');
      } catch {
        // Gone by itself.
      }
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearTimeout(this.#deadline);
    this.#killAll();
    // Whoever was just being started appears a moment later.
    while (this.family().length > 0) {
      this.#killAll();
      await delay(10);
    }
    await this.ended;
  }
}
