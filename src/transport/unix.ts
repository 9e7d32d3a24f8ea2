/** Unix-domain sockets, for peers on one host: about a third less CPU per byte than TCP over loopback. */
import { chmod, unlink } from 'node:fs/promises';
import { ConnectError } from '../errors.ts';
import { dialSocket, listenSocket, SocketConnection } from './socket-connection.ts';
import type { Address, Connection, Listener, Transport } from './transport.ts';

/** What the kernel's `sockaddr_un` holds. */
const MAX_PATH_BYTES = 107;

/** How long a socket file's owner may take to answer before the file counts as left over. */
const STALE_PROBE_MS = 1_000;

function unixPath(address: Address): string {
  if (address.kind !== 'unix')
    throw new ConnectError(`A Unix-domain socket can't use an address of kind ${address.kind}.`);
  if (Buffer.byteLength(address.path) > MAX_PATH_BYTES) {
    throw new ConnectError(
      `The socket path ${address.path} is longer than ${MAX_PATH_BYTES} bytes: use a shorter directory.`,
    );
  }
  return address.path;
}

/** Linux keeps names that begin with NUL in a table of the network namespace: no file, nothing to clean up. */
function isAbstract(path: string): boolean {
  return path.startsWith('\0');
}

function nameOf(path: string): string {
  return `unix ${isAbstract(path) ? `@${path.slice(1)}` : path}`;
}

function listenError(path: string, cause: unknown): ConnectError {
  const text = cause instanceof Error ? cause.message : String(cause);
  return new ConnectError(`Can't listen on ${nameOf(path)}: ${text}.`, { cause, phase: 'listen' });
}

export const unixTransport: Transport = {
  kind: 'unix',

  async listen(address, onConnection): Promise<Listener> {
    const path = unixPath(address);
    const name = nameOf(path);
    const open = () => listenSocket({ path }, (socket) => onConnection(new SocketConnection(socket, name, false)));
    if (isAbstract(path)) {
      const server = await open().catch((cause: unknown) => {
        throw listenError(path, cause);
      });
      return { address: { kind: 'unix', path }, close: () => server.close() };
    }
    const server = await open().catch(async (cause: NodeJS.ErrnoException) => {
      if (cause.code !== 'EADDRINUSE') throw listenError(path, cause);
      const owner = await dialSocket({ path }, name, { timeoutMs: STALE_PROBE_MS }).catch(() => null);
      owner?.destroy();
      if (owner !== null) throw listenError(path, cause);
      // Left over from a process that was killed: nobody answers on it.
      await unlink(path);
      return open().catch((again: unknown) => {
        throw listenError(path, again);
      });
    });
    await chmod(path, 0o600);
    return { address: { kind: 'unix', path }, close: () => server.close() };
  },

  async dial(address, options): Promise<Connection> {
    let path: string;
    try {
      path = unixPath(address);
    } catch (error) {
      options.onReadBufferFree?.();
      throw error;
    }
    return dialSocket({ path }, nameOf(path), options);
  },
};
