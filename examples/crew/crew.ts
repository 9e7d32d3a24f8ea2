/**
 * Processes that do tasks for a comparison, and the coordinator between them. None outlives the crew, and each task has a
 * deadline. `serve` is the other end, in the process.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { Coordinator } from '../../src/index.ts';

/** No task takes longer (ms). */
const DEADLINE_MS = 400_000;

/** How far a task is. */
export interface Progress {
  readonly round: number;
  readonly worldSize: number;
}

type Answer<R> =
  | { readonly type: 'result'; readonly result: R }
  | { readonly type: 'failed'; readonly message: string }
  | ({ readonly type: 'progress' } & Progress);

class Worker<T, R> {
  readonly #child: ChildProcess;

  constructor(script: string) {
    this.#child = fork(script, { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
  }

  /** @throws Error when the task fails, or the process ends before it has answered */
  run(task: T, onProgress: (progress: Progress) => void): Promise<R> {
    const deadline = setTimeout(() => this.#child.kill('SIGKILL'), DEADLINE_MS);
    return new Promise<R>((resolve, reject) => {
      this.#child.on('message', (answer: Answer<R>) => {
        if (answer.type === 'progress') onProgress(answer);
        else if (answer.type === 'result') resolve(answer.result);
        else reject(new Error(answer.message));
      });
      this.#child.once('exit', (code, signal) => reject(new Error(`a peer ended (${signal ?? code})`)));
      this.#child.send(task as object);
    }).finally(() => {
      clearTimeout(deadline);
      this.#child.removeAllListeners();
    });
  }

  async end(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const gone = new Promise<void>((resolve) => void this.#child.once('exit', () => resolve()));
    this.#child.kill('SIGKILL');
    await gone;
  }
}

export class Crew<T, R> {
  readonly #script: string;
  readonly #coordinator: Coordinator;
  readonly #workers: Worker<T, R>[];
  readonly #spares: Worker<T, R>[] = [];

  /** @param script the workers' program, from the root of the package; what was built of it is run */
  static async start<T, R>(script: string, size: number): Promise<Crew<T, R>> {
    // This file may run from source, or from what was built from it.
    const root = new URL(import.meta.url.includes('/dist/') ? '../../../' : '../../', import.meta.url);
    return new Crew(fileURLToPath(new URL(`dist/${script}`, root)), size, await Coordinator.listen({ port: 0 }));
  }

  private constructor(script: string, size: number, coordinator: Coordinator) {
    this.#script = script;
    this.#coordinator = coordinator;
    this.#workers = Array.from({ length: size }, () => new Worker<T, R>(script));
  }

  get address(): string {
    return this.#coordinator.address;
  }

  run(worker: number, task: T, onProgress: (progress: Progress) => void = () => {}): Promise<R> {
    return this.#workers[worker]!.run(task, onProgress);
  }

  /** Starts workers that will take the place of others: a task may be over before a process has come up. */
  addSpares(count: number): void {
    for (let added = 0; added < count; added++) this.#spares.push(new Worker<T, R>(this.#script));
  }

  /** Kills a worker with SIGKILL, and puts a spare in its place. */
  replace(worker: number): void {
    const spare = this.#spares.shift();
    if (spare === undefined) throw new Error('no worker is spare: add some before the task begins');
    void this.#workers[worker]!.end();
    this.#workers[worker] = spare;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all([...this.#workers, ...this.#spares].map((worker) => worker.end()));
    await this.#coordinator.close();
  }
}

/** In a worker's process: does the tasks that it is sent, one after the other. */
export function serve<T, R>(work: (task: T, onProgress: (progress: Progress) => void) => Promise<R>): void {
  const answer = (message: Answer<R>) => void process.send?.(message);
  process.on('message', (task: T) => {
    work(task, (progress) => answer({ type: 'progress', ...progress })).then(
      (result) => answer({ type: 'result', result }),
      (error: Error) => answer({ type: 'failed', message: error.stack ?? error.message }),
    );
  });
  process.on('disconnect', () => process.exit(0));
}
