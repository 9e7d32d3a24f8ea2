/** A file system in memory whose process, or whose machine, ends in the middle of any one of its operations. */
import type { Files, OpenFile, ReadableFile } from '../../src/store/files.ts';
import type { Random } from '../sim/random.ts';

export class Crash extends Error {}

interface Inode {
  /** What a process reads. */
  data: Buffer;
  /** What is on the disk for sure. */
  synced: Buffer;
}

export class CrashFiles implements Files {
  readonly #inodes: Map<string, Inode>;
  /** Names as they are on the disk for sure. */
  #synced: Map<string, Inode>;
  readonly #random: Random;
  /** So many operations are carried out; the next one only in part, and none after it. */
  #left: number;
  operations = 0;

  constructor(random: Random, crashAfter: number, inodes: Map<string, Inode> = new Map()) {
    this.#random = random;
    this.#left = crashAfter;
    this.#inodes = inodes;
    this.#synced = new Map(inodes);
  }

  /** What is found after the crash. @param power also what was not synced is lost, or part of it, or none */
  after(power: boolean, crashAfter = Number.POSITIVE_INFINITY): CrashFiles {
    const found = new Map<string, Inode>();
    for (const path of new Set([...this.#inodes.keys(), ...this.#synced.keys()])) {
      // What happened to names since they were synced may have reached the disk in any order.
      const inode = (power && this.#random.chance(0.5) ? this.#synced : this.#inodes).get(path);
      if (inode === undefined) continue;
      const data = power ? this.#torn(inode) : inode.data;
      found.set(path, { data, synced: data });
    }
    return new CrashFiles(this.#random, crashAfter, found);
  }

  /** Of what was added and not synced some is there, and a block of it may never have been written. */
  #torn({ data, synced }: Inode): Buffer {
    if (data.length <= synced.length) return this.#random.chance(0.5) ? data : synced;
    const kept = Buffer.from(data.subarray(0, this.#random.integer(synced.length, data.length)));
    if (kept.length > synced.length && this.#random.chance(0.3)) {
      const from = this.#random.integer(synced.length, kept.length - 1);
      kept.fill(0, from, this.#random.integer(from + 1, kept.length));
    }
    return kept;
  }

  /** Whether the operation is the one in which all ends. */
  #count(): boolean {
    if (this.#left < 0) throw new Crash();
    this.operations += 1;
    this.#left -= 1;
    return this.#left < 0;
  }

  #end(isLast: boolean): void {
    if (isLast) throw new Crash();
  }

  async read(path: string): Promise<Uint8Array | null> {
    return this.#inodes.get(path)?.data ?? null;
  }

  async open(path: string): Promise<ReadableFile | null> {
    const data = this.#inodes.get(path)?.data;
    if (data === undefined) return null;
    return {
      length: data.length,
      read: async (into, position) => {
        if (position + into.length > data.length) return false;
        into.set(data.subarray(position, position + into.length));
        return true;
      },
      close: async () => {},
    };
  }

  async list(folder: string): Promise<readonly string[]> {
    const paths = [...this.#inodes.keys()].filter((path) => path.startsWith(`${folder}/`));
    return paths.map((path) => path.slice(folder.length + 1));
  }

  async makeFolder(): Promise<void> {}

  /** Ends with the process. */
  async lock(): Promise<{ release(): Promise<void> }> {
    return { release: async () => {} };
  }

  async append(path: string): Promise<OpenFile> {
    return this.#open(this.#inodes.get(path)!);
  }

  async create(path: string): Promise<OpenFile> {
    const isLast = this.#count();
    const inode = { data: Buffer.alloc(0), synced: Buffer.alloc(0) };
    this.#inodes.set(path, inode);
    this.#end(isLast);
    return this.#open(inode);
  }

  async rename(from: string, to: string): Promise<void> {
    const isLast = this.#count();
    if (!isLast || this.#random.chance(0.5)) {
      this.#inodes.set(to, this.#inodes.get(from)!);
      this.#inodes.delete(from);
    }
    this.#end(isLast);
  }

  async remove(path: string): Promise<void> {
    const isLast = this.#count();
    if (!isLast || this.#random.chance(0.5)) this.#inodes.delete(path);
    this.#end(isLast);
  }

  async syncFolder(): Promise<void> {
    const isLast = this.#count();
    if (!isLast || this.#random.chance(0.5)) this.#synced = new Map(this.#inodes);
    this.#end(isLast);
  }

  #open(inode: Inode): OpenFile {
    return {
      write: async (bytes) => {
        const isLast = this.#count();
        const written = isLast ? bytes.subarray(0, this.#random.integer(0, bytes.length)) : bytes;
        inode.data = Buffer.concat([inode.data, written]);
        this.#end(isLast);
      },
      truncate: async (length) => {
        const isLast = this.#count();
        if (!isLast || this.#random.chance(0.5)) inode.data = inode.data.subarray(0, length);
        this.#end(isLast);
      },
      sync: async () => {
        const isLast = this.#count();
        if (!isLast || this.#random.chance(0.5)) inode.synced = inode.data;
        this.#end(isLast);
      },
      close: async () => {},
    };
  }
}
