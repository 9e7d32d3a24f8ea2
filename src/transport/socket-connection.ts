/**
 * Adapts a Node socket (TCP or Unix-domain) to `Connection`. The hot path of bulk data: a dialled socket reads into one
 * reused buffer, and a write hands header and payload to the kernel in one system call.
 */
import { connect, createServer, type NetConnectOpts, type Socket } from 'node:net';
import { ConnectError } from '../errors.ts';
import type { Connection, ConnectionHandler, DialOptions } from './transport.ts';

const IDLE: ConnectionHandler = { onData: () => {}, onEnd: () => {}, onClose: () => {} };

class SocketConnection implements Connection {
  readonly remote: string;
  handler: ConnectionHandler = IDLE;
  queuedBytes = 0;
  readonly #socket: Socket;
  #error: Error | undefined;
  #closed = false;

  constructor(socket: Socket, remote: string, readsByCallback: boolean) {
    this.remote = remote;
    this.#socket = socket;
    if (!readsByCallback) socket.on('data', (bytes: Buffer) => this.handler.onData(bytes));
    socket.on('end', () => this.handler.onEnd());
    socket.on('error', (error) => {
      this.#error ??= error;
    });
    socket.on('close', () => {
      this.#closed = true;
      this.handler.onClose(this.#error);
    });
  }

  get closed(): boolean {
    return this.#closed || this.#socket.destroyed;
  }

  write(head: Uint8Array, body: Uint8Array | null, onFlushed: (() => void) | null): void {
    const socket = this.#socket;
    if (this.#closed || !socket.writable) {
      if (onFlushed !== null) queueMicrotask(onFlushed);
      return;
    }
    const bytes = head.length + (body?.length ?? 0);
    this.queuedBytes += bytes;
    const flushed = () => {
      this.queuedBytes -= bytes;
      onFlushed?.();
      this.handler.onFlushed?.();
    };
    if (body === null) {
      socket.write(head, flushed);
    } else {
      socket.cork();
      socket.write(head);
      socket.write(body, flushed);
      socket.uncork();
    }
  }

  cork(): void {
    this.#socket.cork();
  }

  uncork(): void {
    this.#socket.uncork();
  }

  pause(): void {
    this.#socket.pause();
  }

  resume(): void {
    this.#socket.resume();
  }

  end(): void {
    if (!this.#closed) this.#socket.end();
  }

  destroy(reason?: Error): void {
    if (this.#closed) return;
    this.#error ??= reason;
    // Not `resetAndDestroy`: it waits until everything queued was sent, which a reader that has stopped can put off for ever.
    this.#socket.destroy();
  }
}

/** Opens a socket; reads go into `options.readBuffer` if there is one. */
export function dialSocket(target: NetConnectOpts, remote: string, options: DialOptions): Promise<Connection> {
  return new Promise((resolve, reject) => {
    let connection: SocketConnection | null = null;
    const { readBuffer, signal, timeoutMs } = options;
    const settings: NetConnectOpts = { ...target, allowHalfOpen: true, noDelay: true };
    if (readBuffer !== undefined) {
      settings.onread = {
        buffer: readBuffer,
        callback: (length, buffer) => {
          connection?.handler.onData(length === buffer.length ? buffer : buffer.subarray(0, length));
          return true;
        },
      };
    }
    const socket = connect(settings);
    if (options.onReadBufferFree !== undefined) socket.once('close', options.onReadBufferFree);
    const fail = (message: string, cause?: unknown) => {
      settle();
      socket.on('error', () => {});
      socket.destroy();
      reject(new ConnectError(message, { cause, phase: 'dial' }));
    };
    const onError = (error: Error) => fail(`Nobody could be reached at ${remote}: ${error.message}.`, error);
    const onAbort = () => fail(`Dialling ${remote} was cancelled.`, signal?.reason);
    const timer = setTimeout(() => fail(`${remote} did not answer within ${timeoutMs} ms.`), timeoutMs);
    const settle = () => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', onAbort);
      socket.removeListener('error', onError);
    };
    socket.once('error', onError);
    if (signal?.aborted === true) {
      onAbort();
      return;
    }
    signal?.addEventListener('abort', onAbort, { once: true });
    socket.once('connect', () => {
      settle();
      connection = new SocketConnection(socket, remote, readBuffer !== undefined);
      resolve(connection);
    });
  });
}

export interface SocketServer {
  /** The port that was given, for TCP. */
  readonly port: number;
  close(): Promise<void>;
}

/** Listens; each connection is handed over as it comes. */
export function listenSocket(
  target: { readonly host?: string; readonly port?: number; readonly path?: string },
  nameOf: (socket: Socket) => string,
  onConnection: (connection: Connection) => void,
): Promise<SocketServer> {
  return new Promise((resolve, reject) => {
    const server = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
      onConnection(new SocketConnection(socket, nameOf(socket), false));
    });
    server.once('error', reject);
    server.listen({ ...target, backlog: 1024 }, () => {
      server.removeListener('error', reject);
      const bound = server.address();
      resolve({
        port: typeof bound === 'object' && bound !== null ? bound.port : 0,
        close: () => new Promise((done) => void server.close(() => done())),
      });
    });
  });
}
