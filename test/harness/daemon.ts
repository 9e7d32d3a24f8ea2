/** A program that serves until it is stopped: it has a deadline, ends with the process that started it, and its output is kept. */
import { spawn } from 'node:child_process';
import { startWatchdog } from '../../src/launch/watchdog.ts';

const watchdog = startWatchdog();
const running: Set<number> = new Set();

interface Waiting {
  readonly pattern: RegExp;
  readonly resolve: (match: RegExpExecArray) => void;
  readonly reject: (error: Error) => void;
}

export class Daemon {
  readonly pid: number;
  /** What it has written, both ways. */
  output = '';
  readonly ended: Promise<void>;
  #isRunning = true;
  readonly #waiting: Set<Waiting> = new Set();

  /** @param deadlineMs when it is killed, at the latest */
  constructor(command: readonly [string, ...string[]], environment: NodeJS.ProcessEnv, deadlineMs: number) {
    const [program, ...args] = command;
    // A process group of its own: what is watched is a group.
    const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'], env: environment, detached: true });
    this.pid = child.pid ?? 0;
    running.add(this.pid);
    watchdog.watch([...running]);
    const deadline = setTimeout(() => this.signal('SIGKILL'), deadlineMs);
    for (const stream of [child.stdout, child.stderr])
      stream.on('data', (bytes: Buffer) => {
        this.output += bytes.toString();
        this.#look();
      });
    this.ended = new Promise((resolve) => {
      child.once('error', (error) => this.#end(deadline, error.message, resolve));
      child.once('close', (code, signal) => this.#end(deadline, `${signal ?? code}`, resolve));
    });
  }

  #end(deadline: NodeJS.Timeout, how: string, resolve: () => void): void {
    clearTimeout(deadline);
    this.#isRunning = false;
    running.delete(this.pid);
    watchdog.watch([...running]);
    for (const { reject, pattern } of this.#waiting)
      reject(new Error(`it ended (${how}) and did not write ${pattern}: ${this.output}`));
    this.#waiting.clear();
    resolve();
  }

  #look(): void {
    for (const waiting of this.#waiting) {
      const match = waiting.pattern.exec(this.output);
      if (match === null) continue;
      this.#waiting.delete(waiting);
      waiting.resolve(match);
    }
  }

  /** Resolves when it has written this. */
  wrote(pattern: RegExp): Promise<RegExpExecArray> {
    return new Promise((resolve, reject) => {
      this.#waiting.add({ pattern, resolve, reject });
      this.#look();
    });
  }

  signal(signal: NodeJS.Signals): void {
    if (this.#isRunning && this.pid > 0) process.kill(this.pid, signal);
  }

  async kill(): Promise<void> {
    this.signal('SIGKILL');
    await this.ended;
  }
}
