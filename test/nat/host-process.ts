/** A process in a host of the internet of tests. It has a deadline, what it writes is kept, and it tells how it ended. */
import { type ChildProcess, type Serializable, spawn } from 'node:child_process';
import { exitText } from '../../src/launch/exit.ts';

/** No process in a host lives longer than this (ms), unless its test says so. */
const PROCESS_DEADLINE_MS = 60_000;
/** Nor is anything that it shall do awaited longer than this (ms). */
const PATIENCE_MS = 20_000;

export class HostProcess {
  readonly child: ChildProcess;
  /** All that it wrote, to either of its outputs. */
  output = '';
  /** Its exit code or signal, once it has ended and all its output is here. */
  readonly ended: Promise<string>;
  readonly #listeners: Set<() => void> = new Set();
  readonly #messages: unknown[] = [];
  #end: string | null = null;

  constructor(
    command: readonly [string, ...string[]],
    environment: NodeJS.ProcessEnv,
    deadlineMs: number = PROCESS_DEADLINE_MS,
  ) {
    const [program, ...args] = command;
    // Of a group of its own, so that what it starts ends with it. The channel for messages is for Node's processes.
    this.child = spawn(program, args, { env: environment, stdio: ['ignore', 'pipe', 'pipe', 'ipc'], detached: true });
    const deadline = setTimeout(() => this.#killGroup(), deadlineMs);
    for (const stream of [this.child.stdout, this.child.stderr]) {
      stream?.setEncoding('utf8').on('data', (text: string) => {
        this.output += text;
        this.#notify();
      });
    }
    this.child.on('message', (message) => {
      this.#messages.push(message);
      this.#notify();
    });
    this.child.once('exit', () => this.#killGroup());
    this.ended = new Promise((resolve) => {
      const onEnd = (how: string): void => {
        clearTimeout(deadline);
        this.#end = how;
        this.#notify();
        resolve(how);
      };
      this.child.once('error', (error) => onEnd(error.message)); // it could not be started
      this.child.once('close', (code, signal) => onEnd(`${exitText({ code, signal })}`));
    });
  }

  #notify(): void {
    for (const listener of [...this.#listeners]) listener();
  }

  /** Resolves with what `look` finds, as soon as it finds something; rejects when the process ends before, or time is up. */
  #awaited<T>(look: () => T | null | undefined, what: string): Promise<T> {
    return new Promise((resolve, reject) => {
      const fail = (how: string): void => {
        forget();
        reject(new Error(`The process ${how} before ${what}. It wrote:\n${this.output}`));
      };
      const check = (): void => {
        const found = look();
        if (found !== null && found !== undefined) {
          forget();
          resolve(found);
        } else if (this.#end !== null) fail(`ended (${this.#end})`);
      };
      const timer = setTimeout(() => fail(`was given up after ${PATIENCE_MS} ms`), PATIENCE_MS);
      const forget = (): void => {
        clearTimeout(timer);
        this.#listeners.delete(check);
      };
      this.#listeners.add(check);
      check();
    });
  }

  /** Resolves when this has been written. */
  wrote(pattern: RegExp): Promise<RegExpExecArray> {
    return this.#awaited(() => pattern.exec(this.output), `it wrote ${pattern}`);
  }

  /** The next message that it sends; each is given to one caller. `T` is what the test's own script sends. */
  async message<T>(): Promise<T> {
    return (await this.#awaited(() => this.#messages.shift(), 'it sent a message')) as T;
  }

  send(message: Serializable): void {
    if (this.child.connected) this.child.send(message);
  }

  #killGroup(): void {
    if (this.child.pid === undefined) return;
    try {
      process.kill(-this.child.pid, 'SIGKILL');
    } catch {
      // Gone already.
    }
  }

  async kill(): Promise<void> {
    this.#killGroup();
    await this.ended;
  }
}
