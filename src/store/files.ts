/** What a store needs of a file system; tests have one that loses what was not synced. */
import { open, readFile, rename } from 'node:fs/promises';

export interface OpenFile {
  /** Appends. */
  write(bytes: Uint8Array): Promise<void>;
  truncate(length: number): Promise<void>;
  /** What was written is on the disk. */
  sync(): Promise<void>;
  close(): Promise<void>;
}

export interface Files {
  /** Null: there is none. */
  read(path: string): Promise<Uint8Array | null>;
  append(path: string): Promise<OpenFile>;
  /** In place of one that is there. */
  create(path: string): Promise<OpenFile>;
  rename(from: string, to: string): Promise<void>;
  /** Which files there are, and under which names, is on the disk. */
  syncFolder(path: string): Promise<void>;
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

export const systemFiles: Files = {
  async read(path) {
    try {
      return await readFile(path);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null; // thrown by readFile
      throw error;
    }
  },
  append: (path) => openFile(path, 'a'),
  create: (path) => openFile(path, 'w'),
  rename: (from, to) => rename(from, to),
  async syncFolder(path) {
    if (process.platform === 'win32') return; // folders can't be opened there
    const folder = await open(path, 'r');
    try {
      await folder.sync();
    } finally {
      await folder.close();
    }
  },
};
