/**
 * A store in a file of this machine, for one coordinator at a time: a journal, to which each transaction is added and synced before
 * it counts. So whatever ends the process or the machine, what was acknowledged is there when the file is opened again.
 *
 *     <checksum> {"format":"skein store 1","entries":[…]}      all that there was when the file was begun
 *     <checksum> {"revision":7,"changes":[…]}                  one line for each transaction since
 *
 * Only the last line can be half-written, and was not acknowledged then. When the journal has become long it is begun anew, beside
 * the old one, which it replaces when it is whole. Leases, and what is bound to them, end with the process. A lock beside it keeps
 * a second process out.
 */
import { createHash } from 'node:crypto';
import { dirname, resolve } from 'node:path';
import * as v from 'valibot';
import { ArgumentError } from '../errors.ts';
import { systemClock } from '../transport/clock.ts';
import { type Files, type OpenFile, systemFiles } from './files.ts';
import { type FileLock, HeldError } from './lock.ts';
import { MemoryStore } from './memory.ts';
import { type Change, type Entry, type Guard, type Lease, type Store, StoreError } from './store.ts';

const FORMAT = 'skein store 1';

/** A journal is begun anew when it is longer than this, and four times as long as what it says. */
const SHORT_BYTES = 64 * 1024;
const LENGTH_RATIO = 4;

const count = v.pipe(v.number(), v.integer(), v.minValue(0));
const entrySchema = v.strictObject({ key: v.string(), value: v.string(), created: count, modified: count });
const headSchema = v.strictObject({ format: v.literal(FORMAT), entries: v.array(entrySchema) });
const changeSchema = v.union([
  v.strictObject({ put: v.string(), value: v.string() }),
  v.strictObject({ delete: v.string() }),
]);
const recordSchema = v.strictObject({ revision: count, changes: v.array(changeSchema) });
type JournalRecord = v.InferOutput<typeof recordSchema>;

/** What an earlier release kept: a JSON file of runs, perhaps with passes beside them. */
const runsSchema = v.record(v.string(), v.strictObject({ term: count, epoch: count, members: v.array(v.string()) }));
const passesSchema = v.array(v.strictObject({ id: v.string(), by: v.string(), expires: count }));
const earlierSchema = v.union([v.strictObject({ runs: runsSchema, usedPasses: passesSchema }), runsSchema]);

function lineOf(value: object): Uint8Array {
  const text = JSON.stringify(value);
  return Buffer.from(`${checksumOf(text)} ${text}\n`);
}

function checksumOf(text: string): string {
  return createHash('sha256').update(text).digest('hex').slice(0, 16);
}

/** What a line says, or null when it is not whole. */
function contentOf(line: string): unknown {
  const text = line.slice(17);
  return line.slice(0, 17) === `${checksumOf(text)} ` ? JSON.parse(text) : null;
}

interface Journal {
  readonly entries: readonly Entry[];
  /** So much of the file is whole. */
  readonly length: number;
  readonly isWhole: boolean;
}

function damaged(path: string, reason: string): ArgumentError {
  return new ArgumentError(
    `${path} is no coordinator's store, or damaged (${reason}): name another file, or remove it to begin anew.`,
  );
}

function parseJournal(path: string, text: string): Journal {
  const lines = text.split('\n');
  const tail = lines.pop()!; // empty where the last line is whole
  const entries = new Map<string, Entry>();
  let length = 0;
  for (const [index, line] of lines.entries()) {
    const value = contentOf(line);
    const isFirst = index === 0;
    if (value === null) {
      if (isFirst || index < lines.length - 1 || tail !== '') throw damaged(path, `line ${index + 1} is not whole`);
      return { entries: [...entries.values()], length, isWhole: false };
    }
    const parsed = v.safeParse(isFirst ? headSchema : recordSchema, value);
    if (!parsed.success) throw damaged(path, `line ${index + 1}: ${parsed.issues[0].message}`);
    if ('format' in parsed.output) for (const entry of parsed.output.entries) entries.set(entry.key, entry);
    else replay(entries, parsed.output);
    length += Buffer.byteLength(line) + 1;
  }
  if (lines.length === 0) throw damaged(path, 'its first line is not whole');
  return { entries: [...entries.values()], length, isWhole: tail === '' };
}

function replay(entries: Map<string, Entry>, { revision, changes }: JournalRecord): void {
  for (const change of changes) {
    if ('put' in change) {
      const { put: key, value } = change;
      entries.set(key, { key, value, created: entries.get(key)?.created ?? revision, modified: revision });
    } else {
      entries.delete(change.delete);
    }
  }
}

function parseEarlier(path: string, text: string): readonly Entry[] {
  let stored: v.InferOutput<typeof earlierSchema>;
  try {
    stored = v.parse(earlierSchema, JSON.parse(text));
  } catch (error) {
    throw damaged(path, String(error));
  }
  const both = v.safeParse(v.strictObject({ runs: runsSchema, usedPasses: passesSchema }), stored);
  const { runs, usedPasses } = both.success ? both.output : { runs: v.parse(runsSchema, stored), usedPasses: [] };
  const entry = (key: string, value: object) => ({ key, value: JSON.stringify(value), created: 1, modified: 1 });
  return [
    ...Object.entries(runs).map(([name, run]) => entry(`runs/${encodeURIComponent(name)}`, run)),
    ...usedPasses.map(({ id, by, expires }) => entry(`passes/${id}`, { by, expires })),
  ];
}

/**
 * Opens a file, or begins one. It is this store's alone until that is closed, or the process ends.
 *
 * @throws ArgumentError when another coordinator has it, or it holds something else, or is damaged anywhere but at its end
 */
export async function fileStore(path: string, files: Files = systemFiles): Promise<Store> {
  const lock = await files.lock(`${path}.lock`).catch((error: unknown) => {
    throw error instanceof HeldError ? inUse(path) : error;
  });
  try {
    return await openLocked(path, files, lock);
  } catch (error) {
    await lock.release();
    throw error;
  }
}

function inUse(path: string): ArgumentError {
  return new ArgumentError(
    `${path} is the store of a coordinator that runs: end that one first, or name another file. Several coordinators can share an etcd.`,
  );
}

async function openLocked(path: string, files: Files, lock: FileLock): Promise<Store> {
  const bytes = await files.read(path);
  const text = bytes === null ? '' : Buffer.from(bytes).toString();
  if (text === '' || text.startsWith('{')) {
    const memory = new MemoryStore(systemClock, false, text === '' ? [] : parseEarlier(path, text));
    const { file, length } = await begin(path, files, memory);
    return new FileStore(path, files, lock, memory, file, length);
  }
  const journal = parseJournal(path, text);
  const file = await files.append(path);
  if (!journal.isWhole) {
    await file.truncate(journal.length);
    await file.sync();
  }
  const memory = new MemoryStore(systemClock, false, journal.entries);
  return new FileStore(path, files, lock, memory, file, journal.length);
}

/** Begins a journal with all that the store holds, in place of the one that is there. */
async function begin(path: string, files: Files, memory: MemoryStore): Promise<{ file: OpenFile; length: number }> {
  const head = lineOf({ format: FORMAT, entries: memory.entries((_key, hasLease) => !hasLease) });
  const file = await files.create(`${path}.new`);
  await file.write(head);
  await file.sync();
  await files.rename(`${path}.new`, path);
  await files.syncFolder(dirname(resolve(path)));
  return { file, length: head.length };
}

class FileStore implements Store {
  readonly isShared = false;
  readonly #path: string;
  readonly #files: Files;
  readonly #lock: FileLock;
  readonly #memory: MemoryStore;
  #file: OpenFile;
  #length: number;
  /** From this length on the journal is begun anew. */
  #longest: number;
  /** The last transaction: they are made one after the other. */
  #last: Promise<unknown> = Promise.resolve();
  /** What is on the disk is not known any more: nothing can be acknowledged. */
  #broken: unknown = null;

  constructor(path: string, files: Files, lock: FileLock, memory: MemoryStore, file: OpenFile, length: number) {
    this.#path = path;
    this.#files = files;
    this.#lock = lock;
    this.#memory = memory;
    this.#file = file;
    this.#length = length;
    this.#longest = Math.max(SHORT_BYTES, LENGTH_RATIO * length);
  }

  get(key: string): Promise<Entry | null> {
    return this.#memory.get(key);
  }

  list(prefix: string): Promise<readonly Entry[]> {
    return this.#memory.list(prefix);
  }

  commit(guards: readonly Guard[], changes: readonly Change[]): Promise<number | null> {
    const committed = this.#last.then(() => this.#commit(guards, changes));
    this.#last = committed.catch(() => {});
    return committed;
  }

  grant(ms: number): Promise<Lease> {
    return this.#memory.grant(ms);
  }

  keepAlive(id: string): Promise<Lease | null> {
    return this.#memory.keepAlive(id);
  }

  revoke(id: string): Promise<void> {
    return this.#memory.revoke(id);
  }

  changed(key: string, after: number, withinMs: number, signal: AbortSignal): Promise<void> {
    return this.#memory.changed(key, after, withinMs, signal);
  }

  async close(): Promise<void> {
    await this.#last;
    await this.#file.close();
    await this.#lock.release();
  }

  async #commit(guards: readonly Guard[], changes: readonly Change[]): Promise<number | null> {
    if (this.#broken !== null) throw this.#failure(this.#broken);
    if (!this.#memory.admits(guards, changes)) return null;
    try {
      const lasting = changes.filter((change) => !('put' in change) || change.lease === undefined);
      if (lasting.length > 0) await this.#append({ revision: this.#memory.revision + 1, changes: lasting });
    } catch (error) {
      this.#broken = error;
      throw this.#failure(error);
    }
    return this.#memory.commit([], changes);
  }

  async #append(record: { revision: number; changes: readonly Change[] }): Promise<void> {
    if (this.#length >= this.#longest) {
      const before = this.#file;
      const { file, length } = await begin(this.#path, this.#files, this.#memory);
      this.#file = file;
      this.#length = length;
      this.#longest = Math.max(SHORT_BYTES, LENGTH_RATIO * length);
      await before.close();
    }
    const line = lineOf(record);
    await this.#file.write(line);
    await this.#file.sync();
    this.#length += line.length;
  }

  #failure(cause: unknown): StoreError {
    const text = `The coordinator's store ${this.#path} could not be written (${(cause as Error).message}): see to the disk, and start the coordinator again.`;
    return new StoreError(text, cause);
  }
}
