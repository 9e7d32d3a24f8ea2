/**
 * Locks on files, for one process at a time: a Unix-domain socket beside the file on which the holder listens. The kernel closes it
 * with the process, however that ends, so a lock that nobody answers is nobody's; unlike a number of a process in a file, that is
 * true across containers that share a folder. Between machines that share one over a network nothing is locked.
 */
import { createHash, randomBytes } from 'node:crypto';
import { open, readdir, rename, rm } from 'node:fs/promises';
import { createConnection, createServer, type Server } from 'node:net';
import { basename, dirname, join, resolve } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';

/** Is held until it is released, or the process ends. */
export interface FileLock {
  release(): Promise<void>;
}

/** Somebody has the lock. */
export class HeldError extends Error {}

/** A name of a socket has at most 107 bytes; by way of an open folder it is short, wherever the folder is. */
async function withShortName<T>(path: string, body: (name: string) => Promise<T>): Promise<T> {
  if (process.platform !== 'linux') return body(path);
  const folder = await open(dirname(path), 'r');
  try {
    return await body(`/proc/self/fd/${folder.fd}/${basename(path)}`);
  } finally {
    await folder.close();
  }
}

function listen(name: string): Promise<Server> {
  return new Promise((done, fail) => {
    const server = createServer((socket) => socket.destroy());
    server.once('error', fail);
    server.listen(name, () => {
      server.unref();
      done(server);
    });
  });
}

function close(server: Server): Promise<void> {
  return new Promise((done) => server.close(() => done()));
}

/** Whether its holder lives. */
function isAnswered(path: string): Promise<boolean> {
  return withShortName(
    path,
    (name) =>
      new Promise((done) => {
        const socket = createConnection(name, () => {
          socket.destroy();
          done(true);
        });
        socket.once('error', () => done(false));
      }),
  );
}

/** Of several that come at once the one whose name is least waits for the others to go (ms). */
const PAUSE_MS = 5;

/**
 * Each that comes listens under a name of its own before it looks for others, so of two at least one sees the other. Whoever sees
 * the holder, or one with a lesser name, goes; whoever is alone is the holder, and takes the holder's name from one that is dead.
 */
async function take(path: string, own: string): Promise<void> {
  const contenders = `${basename(path)}.`;
  for (;;) {
    const names = (await readdir(dirname(path))).filter(
      (name) => name.startsWith(contenders) && name !== basename(own),
    );
    const answered = await Promise.all(names.map((name) => isAnswered(join(dirname(path), name))));
    const others = names.filter((_, index) => answered[index]);
    // After the list: one that was missed there because it got its new name meanwhile is found here.
    if (await isAnswered(path)) throw new HeldError();
    if (others.length === 0) break;
    if (others.some((name) => name < basename(own))) throw new HeldError();
    await delay(PAUSE_MS);
  }
  await rename(own, path);
}

/** @throws HeldError; Error where the file system has no sockets */
export async function lockSystemFile(path: string): Promise<FileLock> {
  const whole = resolve(path);
  if (process.platform === 'win32') {
    const pipe = `\\\\.\\pipe\\skein-${createHash('sha256').update(whole.toLowerCase()).digest('hex').slice(0, 32)}`;
    const held = await listen(pipe).catch((error: NodeJS.ErrnoException) => {
      throw error.code === 'EADDRINUSE' ? new HeldError() : error;
    });
    return { release: () => close(held) };
  }
  const own = `${whole}.${randomBytes(6).toString('hex')}`;
  const server = await withShortName(own, listen);
  try {
    await take(whole, own);
  } catch (error) {
    await rm(own, { force: true });
    await close(server);
    throw error;
  }
  return {
    async release() {
      await rm(whole, { force: true });
      await close(server);
    },
  };
}
