/** The files that the observed peers write (`observe.ts`), read while they grow. */
import { closeSync, openSync, readdirSync, readSync } from 'node:fs';
import { join } from 'node:path';
import type { ObservedLine } from '../observe.ts';

/** One process of one peer, from its start to its end. */
export interface Life {
  readonly index: number;
  readonly restarts: number;
  readonly lines: ObservedLine[];
}

/** A process that ended before the run was stopped. */
export interface Ended {
  readonly index: number;
  readonly restarts: number;
  readonly at: number;
  /** Whether it was killed, or asked to end, by a fault. */
  readonly byFault: boolean;
  /** Exit code, or the name of a signal. */
  readonly how: number | string;
}

export function endOf(life: Life, ended: readonly Ended[]): Ended | undefined {
  return ended.find(({ index, restarts }) => index === life.index && restarts === life.restarts);
}

interface Growing {
  readonly life: Life;
  readonly path: string;
  offset: number;
  /** A line that was cut in two. */
  rest: string;
}

const CHUNK_BYTES = 256 * 1024;

export class Observations {
  readonly #folder: string;
  readonly #files: Map<string, Growing> = new Map();
  readonly #buffer: Buffer = Buffer.alloc(CHUNK_BYTES);

  constructor(folder: string) {
    this.#folder = folder;
  }

  /** Where a process is to write. */
  pathOf(index: number, restarts: number): string {
    return join(this.#folder, `${index}-${restarts}.ndjson`);
  }

  /** All that was written until now. */
  get lives(): readonly Life[] {
    return [...this.#files.values()].map(({ life }) => life);
  }

  /** Reads what is new; returns it, oldest first within each life. */
  poll(): readonly ObservedLine[] {
    const fresh: ObservedLine[] = [];
    for (const name of readdirSync(this.#folder)) {
      const match = /^(\d+)-(\d+)\.ndjson$/.exec(name);
      if (match === null) continue;
      const file = this.#files.get(name) ?? {
        life: { index: Number(match[1]), restarts: Number(match[2]), lines: [] },
        path: join(this.#folder, name),
        offset: 0,
        rest: '',
      };
      this.#files.set(name, file);
      for (const line of this.#read(file)) {
        // Of use only while it is fresh, and a third of all.
        if (line.type !== 'begun') file.life.lines.push(line);
        fresh.push(line);
      }
    }
    return fresh;
  }

  #read(file: Growing): readonly ObservedLine[] {
    const descriptor = openSync(file.path, 'r');
    const lines: ObservedLine[] = [];
    try {
      for (;;) {
        const length = readSync(descriptor, this.#buffer, 0, CHUNK_BYTES, file.offset);
        if (length === 0) return lines;
        file.offset += length;
        // Texts are ASCII but for messages, in which a character that is cut would do no harm.
        const parts = (file.rest + this.#buffer.toString('utf8', 0, length)).split('\n');
        file.rest = parts.pop()!; // split gives at least one part
        for (const part of parts) lines.push(JSON.parse(part) as ObservedLine); // written by observe.ts
      }
    } finally {
      closeSync(descriptor);
    }
  }
}
