/**
 * Adapts a Node socket (TCP, plain or under TLS, or Unix-domain) to `Connection`. The hot path of bulk data: a dialled socket
 * reads into one reused buffer, and a write hands header and payload to the kernel in one system call.
 */
import { connect, createServer, type NetConnectOpts, type Socket } from 'node:net';
import { type ConnectionOptions, connect as connectTls, TLSSocket } from 'node:tls';
import { ConnectError, type SkeinError } from '../errors.ts';
import { type Connection, type ConnectionHandler, type DialOptions, NO_BINDING } from './transport.ts';

const IDLE: ConnectionHandler = { onData: () => {}, onEnd: () => {}, onClose: () => {} };

/** The `tls-exporter` channel binding of RFC 9266. */
const BINDING_LABEL = 'EXPORTER-Channel-Binding';
const BINDING_BYTES = 32;

/** Of a socket that is open, and under TLS past its handshake. Older TLS than 1.3 has none that could be relied upon. */
export function bindingOf(socket: Socket): Uint8Array {
  if (!(socket instanceof TLSSocket) || socket.getProtocol() !== 'TLSv1.3') return NO_BINDING;
  return new Uint8Array(socket.exportKeyingMaterial(BINDING_BYTES, BINDING_LABEL, Buffer.alloc(0)));
}

export class SocketConnection implements Connection {
  readonly remote: string;
  readonly binding: Uint8Array;
  readonly roundTripMs?: number;
  handler: ConnectionHandler = IDLE;
  queuedBytes = 0;
  readonly #socket: Socket;
  #error: Error | undefined;
  #closed = false;
  #gathers = false;

  /** @param socket open, and under TLS past its handshake */
  constructor(socket: Socket, remote: string, readsByCallback: boolean, roundTripMs?: number) {
    this.remote = remote;
    if (roundTripMs !== undefined) this.roundTripMs = roundTripMs;
    this.binding = bindingOf(socket);
    this.#socket = socket;
    if (!readsByCallback) socket.on('data', (bytes: Buffer) => this.handler.onData(bytes));
    socket.on('end', () => this.handler.onEnd());
    socket.on('error', (error) => {
      this.#error ??= error;
      // A TLS socket that gets a wrong record tells of it, and stays open.
      socket.destroy();
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

  writeSoon(bytes: Uint8Array): void {
    if (!this.#gathers && !this.#closed) {
      this.#gathers = true;
      this.#socket.cork();
      setImmediate(() => {
        this.#gathers = false;
        this.#socket.uncork();
      });
    }
    this.write(bytes, null, null);
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

/** How to dial with TLS, and what its errors mean. */
export interface SecureDial {
  readonly settings: ConnectionOptions;
  explain(error: Error): SkeinError;
}

/** Opens a socket; reads go into `options.readBuffer` if there is one. */
export function dialSocket(
  target: NetConnectOpts,
  remote: string,
  options: DialOptions,
  secure: SecureDial | null = null,
): Promise<Connection> {
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
    const socket = secure === null ? connect(settings) : connectTls({ ...settings, ...secure.settings });
    if (secure !== null) socket.setNoDelay(true); // its settings don't tell a TLS socket
    if (options.onReadBufferFree !== undefined) socket.once('close', options.onReadBufferFree);
    const dialledAt = performance.now();
    let answeredMs: number | null = null;
    socket.once('connect', () => {
      answeredMs = performance.now() - dialledAt;
    });
    const fail = (error: SkeinError) => {
      settle();
      socket.on('error', () => {});
      socket.destroy();
      reject(error);
    };
    const failed = (message: string, cause?: unknown) => fail(new ConnectError(message, { cause, phase: 'dial' }));
    const onError = (error: Error) => {
      if (answeredMs !== null && secure !== null) fail(secure.explain(error));
      else failed(`Nobody could be reached at ${remote}: ${error.message}.`, error);
    };
    const onAbort = () => failed(`Dialling ${remote} was cancelled.`, signal?.reason);
    const timer = setTimeout(() => failed(`${remote} did not answer within ${timeoutMs} ms.`), timeoutMs);
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
    socket.once(secure === null ? 'connect' : 'secureConnect', () => {
      settle();
      connection = new SocketConnection(socket, remote, readBuffer !== undefined, answeredMs ?? undefined);
      resolve(connection);
    });
  });
}

export interface SocketServer {
  /** The port that was given, for TCP. */
  readonly port: number;
  close(): Promise<void>;
}

/** Listens; each socket is handed over as it comes. */
export function listenSocket(
  target: { readonly host?: string; readonly port?: number; readonly path?: string },
  onSocket: (socket: Socket) => void,
): Promise<SocketServer> {
  return new Promise((resolve, reject) => {
    const server = createServer({ allowHalfOpen: true, noDelay: true }, onSocket);
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
