/** What stores and snapshots need of a file system; tests have one that loses what was not synced. */
import { mkdir, open, readdir, readFile, rename, rm } from 'node:fs/promises';
import { type FileLock, lockSystemFile } from './lock.ts';

export interface OpenFile {
  /** Appends. */
  write(bytes: Uint8Array): Promise<void>;
  truncate(length: number): Promise<void>;
  /** What was written is on the disk. */
  sync(): Promise<void>;
  close(): Promise<void>;
}

export interface ReadableFile {
  /** Bytes. */
  readonly length: number;
  /** Fills this memory with what is there from `position` on; false where the file ends before. */
  read(into: Uint8Array, position: number): Promise<boolean>;
  close(): Promise<void>;
}

export interface Files {
  /** Null: there is none. */
  read(path: string): Promise<Uint8Array | null>;
  /** To be read in pieces. Null: there is none. */
  open(path: string): Promise<ReadableFile | null>;
  append(path: string): Promise<OpenFile>;
  /** In place of one that is there. */
  create(path: string): Promise<OpenFile>;
  rename(from: string, to: string): Promise<void>;
  remove(path: string): Promise<void>;
  /** Names of what is in a folder; none where there is no folder. */
  list(folder: string): Promise<readonly string[]>;
  makeFolder(path: string): Promise<void>;
  /** Which files there are, and under which names, is on the disk. */
  syncFolder(path: string): Promise<void>;
  /** For this process alone, as long as it lives. @throws HeldError when another one, or this one, has it */
  lock(path: string): Promise<FileLock>;
}

async function openFile(path: string, flags: 'a' | 'w'): Promise<OpenFile> {
  const handle = await open(path, flags, 0o600);
  return {
    async write(bytes) {
      for (let at = 0; at < bytes.length; ) at += (await handle.write(bytes, at)).bytesWritten;
    },
    truncate: (length) => handle.truncate(length),
    sync: () => handle.sync(),
    close: () => handle.close(),
  };
}

/** Null where there is nothing of that name. */
async function unlessMissing<T>(attempt: Promise<T>): Promise<T | null> {
  try {
    return await attempt;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null; // thrown by node:fs
    throw error;
  }
}

export const systemFiles: Files = {
  read: (path) => unlessMissing(readFile(path)),
  async open(path) {
    const handle = await unlessMissing(open(path, 'r'));
    if (handle === null) return null;
    return {
      length: (await handle.stat()).size,
      async read(into, position) {
        for (let at = 0; at < into.length; ) {
          const { bytesRead } = await handle.read(into, at, into.length - at, position + at);
          if (bytesRead === 0) return false;
          at += bytesRead;
        }
        return true;
      },
      close: () => handle.close(),
    };
  },
  append: (path) => openFile(path, 'a'),
  create: (path) => openFile(path, 'w'),
  rename: (from, to) => rename(from, to),
  remove: (path) => rm(path, { force: true }),
  list: async (folder) => (await unlessMissing(readdir(folder))) ?? [],
  async makeFolder(path) {
    await mkdir(path, { recursive: true });
  },
  async syncFolder(path) {
    if (process.platform === 'win32') return; // folders can't be opened there
    const folder = await open(path, 'r');
    try {
      await folder.sync();
    } finally {
      await folder.close();
    }
  },
  lock: lockSystemFile,
};
