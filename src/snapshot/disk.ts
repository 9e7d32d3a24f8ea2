/** Writes snapshots in a thread of its own: neither hashing nor a slow disk is felt by the training. */
import { resolve } from 'node:path';
import { Worker } from 'node:worker_threads';
import type { FolderOptions } from './folder.ts';
import type { Disk } from './keeper.ts';
import { type Snapshot, SnapshotError } from './snapshot.ts';

export interface WriteRequest {
  readonly id: number;
  readonly directory: string;
  readonly options: FolderOptions;
  readonly keep: number;
  readonly snapshot: Snapshot;
}

export type WriteReply =
  | { readonly id: number; readonly path: string }
  | { readonly id: number; readonly message: string };

interface Waiting {
  resolve(path: string): void;
  reject(error: Error): void;
}

export class ThreadDisk implements Disk {
  readonly #resumedFrom: string | null;
  readonly #waiting: Map<number, Waiting> = new Map();
  #worker: Worker | null = null;
  #next = 1;

  /** @param resumedFrom folder from which the run goes on */
  constructor(resumedFrom: string | null) {
    this.#resumedFrom = resumedFrom === null ? null : resolve(resumedFrom);
  }

  write(directory: string, snapshot: Snapshot, keep: number): Promise<string> {
    const whole = resolve(directory);
    const options = { goesOn: whole === this.#resumedFrom };
    const id = this.#next++;
    return new Promise((resolve, reject) => {
      this.#worker ??= this.#start();
      this.#waiting.set(id, { resolve, reject });
      this.#worker.ref();
      this.#worker.postMessage({ id, directory: whole, options, keep, snapshot } satisfies WriteRequest);
    });
  }

  async close(): Promise<void> {
    await this.#worker?.terminate();
    this.#worker = null;
  }

  #start(): Worker {
    const worker = new Worker(new URL('./disk-worker.js', import.meta.url), { name: 'skein-snapshots' });
    worker.on('message', (reply: WriteReply) => {
      const waiting = this.#waiting.get(reply.id);
      this.#waiting.delete(reply.id);
      if (this.#waiting.size === 0) worker.unref(); // what is idle keeps no process alive
      if ('path' in reply) waiting?.resolve(reply.path);
      else waiting?.reject(new SnapshotError(reply.message));
    });
    worker.on('error', (error) =>
      this.#fail(`The thread that writes snapshots failed: ${error.stack ?? error.message}`),
    );
    worker.on('exit', () => this.#fail('The snapshot was not finished: this peer left the group meanwhile.'));
    return worker;
  }

  #fail(message: string): void {
    for (const { reject } of this.#waiting.values()) reject(new SnapshotError(message));
    this.#waiting.clear();
    this.#worker = null;
  }
}
