/**
 * Snapshots in a folder, one after the other; the last few are kept.
 *
 *     000017.safetensors        the shared state
 *     000017.own.safetensors    what is this peer's own, if anything
 *     000017.json               the manifest: hashes of all that the two contain, and of itself
 *
 * **A snapshot is there when its manifest is.** Each file is written beside its name, synced, and renamed; the manifest is
 * begun when the others are there for sure, and older snapshots go when it is. So whatever ends the process or the machine, reading finds
 * the new snapshot or the one before, whole. What is read is checked piece by piece; a snapshot that is damaged is passed over
 * for the one before it, and the caller is told.
 */
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import * as v from 'valibot';
import { type Files, type OpenFile, type ReadableFile, systemFiles } from '../store/files.ts';
import { type FileLock, HeldError } from '../store/lock.ts';
import { DTYPE_BYTES, DTYPES, sharedMemory } from '../tensor.ts';
import {
  FormatError,
  headerLength,
  type Layout,
  LENGTH_BYTES,
  layOut,
  type PlacedTensor,
  parseHeader,
  type TensorShape,
} from './safetensors.ts';
import { type Snapshot, type SnapshotEntry, SnapshotError } from './snapshot.ts';

const FORMAT = 'skein snapshot 1';

/** Length of what is hashed by itself, but for the end of an entry (bytes). */
const PIECE_BYTES = 4 * 1024 * 1024;

const LOCK = 'lock';
const TEMPORARY = '.new';
/** What a snapshot's files are called, while they are written and then. */
const NAME = /^(\d{6,})(\.safetensors|\.own\.safetensors|\.json)(\.new)?$/;

const size = v.pipe(v.number(), v.integer(), v.minValue(0));
const hash = v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/));
const entrySchema = v.strictObject({
  name: v.string(),
  type: v.picklist([...DTYPES, 'number', 'bigint', 'boolean']),
  revision: size,
  bytes: size,
  /** SHA-256 of each piece. */
  pieces: v.array(hash),
});
const fileSchema = v.strictObject({ bytes: size, header: hash, entries: v.array(entrySchema) });
const manifestSchema = v.strictObject({
  format: v.literal(FORMAT),
  run: v.string(),
  epoch: size,
  revision: size,
  hash: v.string(),
  writtenAt: v.string(),
  pieceBytes: v.pipe(v.number(), v.integer(), v.minValue(1)),
  shared: fileSchema,
  own: v.nullable(fileSchema),
});
type Manifest = v.InferOutput<typeof manifestSchema>;
type ManifestFile = v.InferOutput<typeof fileSchema>;
type ManifestEntry = v.InferOutput<typeof entrySchema>;
const wholeSchema = v.strictObject({ manifest: v.unknown(), sha256: hash });

function sha256(...parts: readonly Uint8Array[]): string {
  const sum = createHash('sha256');
  for (const part of parts) sum.update(part);
  return sum.digest('hex');
}

/** Lets others use the thread. */
function breathe(): Promise<void> {
  return new Promise((done) => setImmediate(done));
}

/** Numbers of the snapshots of which there is any file, ascending. */
function numbersIn(names: readonly string[]): number[] {
  const numbers = names.flatMap((name) => NAME.exec(name)?.[1] ?? []).map(Number);
  return [...new Set(numbers)].sort((left, right) => left - right);
}

function fileNames(number: number): { shared: string; own: string; manifest: string } {
  const stem = `${number}`.padStart(6, '0');
  return { shared: `${stem}.safetensors`, own: `${stem}.own.safetensors`, manifest: `${stem}.json` };
}

function shapeOf({ name, type, bytes }: SnapshotEntry): TensorShape {
  if (type === 'number') return { name, dtype: 'f64', shape: [] };
  if (type === 'bigint') return { name, dtype: 'i64', shape: [] };
  if (type === 'boolean') return { name, dtype: 'bool', shape: [] };
  return { name, dtype: type, shape: [bytes.length / DTYPE_BYTES[type]] };
}

function* cut(bytes: Uint8Array, pieceBytes: number): Generator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += pieceBytes) yield bytes.subarray(at, at + pieceBytes);
}

async function hashEntry({ name, type, revision, bytes }: SnapshotEntry): Promise<ManifestEntry> {
  const pieces: string[] = [];
  for (const piece of cut(bytes, PIECE_BYTES)) {
    pieces.push(sha256(piece));
    await breathe();
  }
  return { name, type, revision, bytes: bytes.length, pieces };
}

export interface FolderOptions {
  /** The run goes on from what this folder holds: what is later there was damaged, and is passed over. */
  readonly goesOn: boolean;
}

/** A folder that this process alone writes to. */
export class SnapshotFolder {
  readonly #path: string;
  readonly #options: FolderOptions;
  readonly #files: Files;
  readonly #lock: FileLock;
  #next: number;

  /**
   * Makes the folder where there is none.
   *
   * @throws SnapshotError when another process writes to it
   */
  static async open(path: string, options: FolderOptions, files: Files = systemFiles): Promise<SnapshotFolder> {
    await files.makeFolder(path);
    const lock = await files.lock(join(path, LOCK)).catch((error: unknown) => {
      if (!(error instanceof HeldError)) throw error;
      throw new SnapshotError(`Another process writes its snapshots to ${path}: give each peer a folder of its own.`);
    });
    const next = 1 + (numbersIn(await files.list(path)).at(-1) ?? 0);
    return new SnapshotFolder(path, options, files, lock, next);
  }

  private constructor(path: string, options: FolderOptions, files: Files, lock: FileLock, next: number) {
    this.#path = path;
    this.#options = options;
    this.#files = files;
    this.#lock = lock;
    this.#next = next;
  }

  /**
   * @param snapshot must not change meanwhile
   * @param keep so many snapshots are kept
   * @returns path of the manifest: when it is told, the snapshot outlives the machine's end
   * @throws SnapshotError when it can't be written, or what is there is later; what was there stays
   */
  async write(snapshot: Snapshot, keep: number): Promise<string> {
    try {
      await this.#checkAge(snapshot);
      const number = this.#next;
      this.#next += 1;
      const names = fileNames(number);
      const { run, epoch, revision, hash } = snapshot;
      const marks = { format: FORMAT, run, epoch: `${epoch}`, revision: `${revision}`, hash };
      const shared = await this.#writeTensors(names.shared, snapshot.shared, marks);
      const own = snapshot.own.length === 0 ? null : await this.#writeTensors(names.own, snapshot.own, marks);
      // The manifest must not be there before what it tells of.
      await this.#files.syncFolder(this.#path);
      const writtenAt = new Date().toISOString();
      const places = { pieceBytes: PIECE_BYTES, shared, own };
      const manifest: Manifest = { format: FORMAT, run, epoch, revision, hash, writtenAt, ...places };
      await this.#writeFile(names.manifest, (file) => file.write(encodeManifest(manifest)));
      await this.#files.syncFolder(this.#path);
      await this.#forget(number, keep);
      return join(this.#path, names.manifest);
    } catch (error) {
      if (error instanceof SnapshotError) throw error;
      const text = `The snapshot of revision ${snapshot.revision} could not be written to ${this.#path} (${(error as Error).message}): see to the disk. What was there before stays.`;
      throw new SnapshotError(text, error);
    }
  }

  close(): Promise<void> {
    return this.#lock.release();
  }

  /** Whoever forgot to go on from a folder must not lose what it holds. */
  async #checkAge({ revision }: Snapshot): Promise<void> {
    if (this.#options.goesOn) return;
    const [latest] = await completeIn(this.#path, this.#files);
    if (latest === undefined || latest.manifest.revision <= revision) return;
    const { manifest } = latest;
    throw new SnapshotError(
      `${this.#path} holds revision ${manifest.revision} of run ${JSON.stringify(manifest.run)}, which is later than this one's ${revision}: go on from it by join(…, { resumeFrom }), or name another folder.`,
    );
  }

  async #writeTensors(
    name: string,
    entries: readonly SnapshotEntry[],
    marks: Record<string, string>,
  ): Promise<ManifestFile> {
    const hashed: ManifestEntry[] = [];
    for (const entry of entries) hashed.push(await hashEntry(entry));
    const all = sha256(Buffer.from(hashed.flatMap(({ pieces }) => pieces).join('')));
    const layout = layOut(entries.map(shapeOf), { ...marks, sha256: all });
    const bytesOf = new Map(entries.map((entry) => [entry.name, entry.bytes]));
    await this.#writeFile(name, async (file) => {
      await file.write(layout.header);
      for (const tensor of layout.tensors)
        for (const piece of cut(bytesOf.get(tensor.name)!, PIECE_BYTES)) await file.write(piece);
    });
    return { bytes: layout.length, header: sha256(layout.header), entries: hashed };
  }

  async #writeFile(name: string, write: (file: OpenFile) => Promise<void>): Promise<void> {
    const path = join(this.#path, name);
    const file = await this.#files.create(`${path}${TEMPORARY}`);
    try {
      await write(file);
      await file.sync();
    } finally {
      await file.close();
    }
    await this.#files.rename(`${path}${TEMPORARY}`, path);
  }

  /** Removes what is older than the last few, and what was never finished. @param number of the one that was just written */
  async #forget(number: number, keep: number): Promise<void> {
    const complete = await completeIn(this.#path, this.#files);
    const kept = new Set(complete.slice(0, keep).map((one) => one.number)).add(number);
    const names = (await this.#files.list(this.#path)).filter((name) => {
      const match = NAME.exec(name);
      return match !== null && (match[3] === TEMPORARY || !kept.has(Number(match[1])));
    });
    // Manifests first: then what is left of a snapshot counts for nothing.
    const isManifest = (name: string) => name.endsWith('.json');
    const ordered = [...names.filter(isManifest), ...names.filter((name) => !isManifest(name))];
    for (const name of ordered) await this.#files.remove(join(this.#path, name));
  }
}

function encodeManifest(manifest: Manifest): Uint8Array {
  const sum = sha256(Buffer.from(JSON.stringify(manifest)));
  return Buffer.from(`${JSON.stringify({ manifest, sha256: sum })}\n`);
}

/** @throws FormatError */
function decodeManifest(bytes: Uint8Array): Manifest {
  const whole = v.safeParse(wholeSchema, parseJson(Buffer.from(bytes).toString()));
  if (!whole.success || sha256(Buffer.from(JSON.stringify(whole.output.manifest))) !== whole.output.sha256)
    throw new FormatError('its manifest is damaged');
  const manifest = v.safeParse(manifestSchema, whole.output.manifest);
  if (!manifest.success) throw new FormatError(`its manifest is of another release (${manifest.issues[0].message})`);
  return manifest.output;
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

interface Found {
  readonly number: number;
  readonly manifest: Manifest;
}

/** Those whose manifest is whole and whose files have their lengths, the latest first. */
async function completeIn(path: string, files: Files): Promise<readonly Found[]> {
  const found: Found[] = [];
  for (const number of numbersIn(await files.list(path)).reverse()) {
    try {
      const manifest = await readManifest(path, number, files);
      if (manifest === null) continue;
      const names = fileNames(number);
      const { shared, own } = manifest;
      const isWhole = async (name: string, { bytes }: ManifestFile) => {
        const file = await files.open(join(path, name));
        await file?.close();
        return file?.length === bytes;
      };
      if ((await isWhole(names.shared, shared)) && (own === null || (await isWhole(names.own, own))))
        found.push({ number, manifest });
    } catch (error) {
      if (!(error instanceof FormatError)) throw error;
    }
  }
  return found;
}

/** Null: it was not finished. @throws FormatError */
async function readManifest(path: string, number: number, files: Files): Promise<Manifest | null> {
  const bytes = await files.read(join(path, fileNames(number).manifest));
  return bytes === null ? null : decodeManifest(bytes);
}

/**
 * The latest snapshot that is whole; each byte of it has been checked.
 *
 * @param onDamaged is told, in one line, of each later one that is damaged
 * @returns null where there is none, and never was one
 * @throws SnapshotError where all are damaged
 */
export async function readSnapshot(
  path: string,
  onDamaged: (text: string) => void,
  files: Files = systemFiles,
): Promise<Snapshot | null> {
  let damaged = 0;
  for (const number of numbersIn(await files.list(path)).reverse()) {
    try {
      const manifest = await readManifest(path, number, files);
      if (manifest === null) continue;
      const { run, epoch, revision, hash, shared, own } = manifest;
      const names = fileNames(number);
      return {
        ...{ run, epoch, revision, hash },
        shared: await readTensors(join(path, names.shared), shared, manifest.pieceBytes, files),
        own: own === null ? [] : await readTensors(join(path, names.own), own, manifest.pieceBytes, files),
      };
    } catch (error) {
      if (!(error instanceof FormatError)) throw error;
      damaged += 1;
      onDamaged(`Snapshot ${number} in ${path} is damaged and is passed over: ${error.message}.`);
    }
  }
  if (damaged === 0) return null;
  throw new SnapshotError(
    `All ${damaged} snapshots in ${path} are damaged: bring back a copy of them, or join without \`resumeFrom\` to begin anew, or to take the state of the peers that are there.`,
  );
}

async function readTensors(
  path: string,
  told: ManifestFile,
  pieceBytes: number,
  files: Files,
): Promise<SnapshotEntry[]> {
  const file = await files.open(path);
  if (file === null) throw new FormatError(`${path} is missing`);
  try {
    const layout = await readLayout(file, told, path);
    const places = new Map(layout.tensors.map((tensor) => [tensor.name, tensor]));
    const entries: SnapshotEntry[] = [];
    for (const entry of told.entries) entries.push(await readEntry(file, entry, places.get(entry.name), pieceBytes));
    return entries;
  } finally {
    await file.close();
  }
}

async function readLayout(
  file: ReadableFile,
  { bytes, header: expected }: ManifestFile,
  path: string,
): Promise<Layout> {
  if (file.length !== bytes) throw new FormatError(`${path} has ${file.length} bytes instead of ${bytes}`);
  const first = new Uint8Array(LENGTH_BYTES);
  if (!(await file.read(first, 0))) throw new FormatError(`${path} is cut short`);
  const header = new Uint8Array(headerLength(first));
  if (!(await file.read(header, 0)) || sha256(header) !== expected)
    throw new FormatError(`the header of ${path} is not what was written`);
  return parseHeader(header, file.length);
}

async function readEntry(
  file: ReadableFile,
  { name, type, revision, bytes: length, pieces }: ManifestEntry,
  place: PlacedTensor | undefined,
  pieceBytes: number,
): Promise<SnapshotEntry> {
  if (place === undefined || place.end - place.begin !== length)
    throw new FormatError(`${JSON.stringify(name)} is missing, or has another length`);
  const bytes = new Uint8Array(sharedMemory(length));
  let at = 0;
  for (const expected of pieces) {
    const piece = bytes.subarray(at, at + pieceBytes);
    if (!(await file.read(piece, place.begin + at)) || sha256(piece) !== expected)
      throw new FormatError(`${JSON.stringify(name)} is not what was written, from byte ${at} on`);
    at += piece.length;
  }
  if (at !== length) throw new FormatError(`the manifest does not tell of all of ${JSON.stringify(name)}`);
  return { name, type, revision, bytes };
}
