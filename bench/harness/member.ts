/** One process that all-reduces without pause, as its benchmark sees it. */
import { type ChildProcess, spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import type { ChurnMessage, ChurnOrder, ChurnTask, NoticeReport, StepReport } from '../peers/churn-peer.ts';

const PEER = fileURLToPath(new URL('../peers/churn-peer.js', import.meta.url));

/** No wait in here takes longer, or the benchmark has failed (ms). */
const DEADLINE_MS = 120_000;

/** Where a process runs: what stands before its command. */
export type Wrap = (command: readonly [string, ...string[]]) => [string, ...string[]];

export function deadline<T>(what: string, promise: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: not within ${DEADLINE_MS} ms`)), DEADLINE_MS);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** Seconds on the machine's monotonic clock, the same in all processes. */
export function monotonic(): number {
  return Number(process.hrtime.bigint()) / 1e9;
}

export class Member {
  readonly child: ChildProcess;
  readonly steps: StepReport[] = [];
  readonly notices: NoticeReport[] = [];
  /** When it killed itself, in seconds. */
  #diedAt: number | null = null;
  /** When it last began to be late, in seconds. */
  #lateSince: number | null = null;
  #wake: () => void = () => {};

  constructor(task: ChurnTask, wrap: Wrap = (command) => [...command], environment: NodeJS.ProcessEnv = {}) {
    const [program, ...args] = wrap([process.execPath, PEER, JSON.stringify(task)]);
    this.child = spawn(program, args, {
      stdio: ['ignore', 'pipe', 'inherit', 'ipc'],
      env: { ...process.env, ...environment },
    });
    this.child.on('message', (message: ChurnMessage) => {
      if (message.type === 'step') this.steps.push(message);
      else if (message.type === 'notice') this.notices.push(message);
      else this.#lateSince = message.at;
      this.#wake();
    });
    this.child.stdout?.on('data', (bytes: Buffer) => {
      this.#diedAt = Number(bytes.toString());
    });
    this.child.on('exit', () => this.#wake());
  }

  get gone(): boolean {
    return this.child.exitCode !== null || this.child.signalCode !== null;
  }

  /** Resolves when the condition holds; looked at after every step and when the process ends. */
  until(what: string, condition: () => boolean): Promise<void> {
    const holds = new Promise<void>((resolve, reject) => {
      this.#wake = () => {
        if (condition()) resolve();
        else if (this.gone)
          reject(new Error(`${what}: the process ended (${this.child.signalCode ?? this.child.exitCode})`));
      };
      this.#wake();
    });
    return deadline(what, holds);
  }

  /** Waits for so many steps one after the other with `worldSize` members. */
  settled(worldSize: number, steps: number): Promise<void> {
    return this.until('undisturbed steps', () => {
      const peaceful = this.steps.slice(-steps);
      return peaceful.length === steps && peaceful.every((step) => step.worldSize === worldSize);
    });
  }

  /** The first step that ended after `seconds`, and was one of so many members. */
  async nextAfter(seconds: number, worldSize: number): Promise<StepReport> {
    const next = () => this.steps.find((step) => step.end > seconds && step.worldSize === worldSize);
    await this.until('a result', () => next() !== undefined);
    return next()!;
  }

  /** Kills itself when this share of its next all-reduce is done; resolves with the time of that, in seconds. */
  async dieAt(share: number): Promise<number> {
    this.child.send({ dieAt: share } satisfies ChurnOrder);
    await deadline('the victim dies', new Promise<void>((resolve) => void this.child.once('close', () => resolve())));
    return this.#diedAt ?? Number.NaN;
  }

  /** Comes so late to its next all-reduce; resolves with the time from which on it is awaited, in seconds. */
  async lateBy(ms: number): Promise<number> {
    this.#lateSince = null;
    this.child.send({ lateMs: ms } satisfies ChurnOrder);
    await this.until('it is late', () => this.#lateSince !== null);
    return this.#lateSince ?? Number.NaN;
  }

  /** Ends it at once. */
  async kill(): Promise<void> {
    if (this.gone) return;
    const closed = new Promise<void>((resolve) => void this.child.once('close', () => resolve()));
    this.child.kill('SIGKILL');
    await deadline('a killed process ends', closed);
  }
}
