/**
 * The accepting end of TLS. It starts no TLS before it has seen that the other end wants it: so it can say what is wrong with
 * one that does not, and serve loopback in the clear on the same port where that is allowed. Until somebody has got through the
 * handshake, it is kept in a lobby.
 *
 *     accepted ──first bytes──▶ TLS handshake ──▶ connection
 *                     └──────── plain, over loopback ──┘
 */
import type { Socket } from 'node:net';
import { createServer, type Server, type TLSSocket } from 'node:tls';
import { HANDSHAKE_TIMEOUT_MS, MAX_UNAUTHENTICATED, MAX_UNAUTHENTICATED_PER_ORIGIN } from '../wire/limits.ts';
import { isLoopback, originOf } from './address.ts';
import { Lobby, type Visitor } from './lobby.ts';
import { SocketConnection } from './socket-connection.ts';
import { listenTcp, nameOfTcp } from './tcp.ts';
import { acceptSettings, explainAccept, type TlsAcceptor, type TlsAddress } from './tls.ts';
import type { Connection, Listener } from './transport.ts';

export interface TlsListenOptions {
  readonly acceptor: TlsAcceptor;
  /** Connections over loopback may do without TLS. */
  readonly servesPlainLoopback: boolean;
  /** Somebody was turned away; the reason names the remote end. */
  readonly onRefused: (reason: string) => void;
}

/** @throws ConnectError when the port is taken, or the address is not of this machine */
export async function listenTls(
  address: TlsAddress,
  options: TlsListenOptions,
  onConnection: (connection: Connection) => void,
): Promise<Listener> {
  const entrance = new Entrance(options, onConnection);
  const server = await listenTcp(address, (socket) => entrance.enter(socket));
  return { address: { ...address, port: server.port }, close: () => server.close() };
}

/** Begins every TLS connection: a handshake record. A control message is shorter than 64 KiB, so its third byte is zero. */
const TLS_RECORD = [0x16, 0x03] as const;
const LEAST_BYTES = 3;

/** Whether these first bytes ask for TLS; null when it is too early to tell. */
function asksForTls(head: Uint8Array): boolean | null {
  for (const [index, byte] of TLS_RECORD.entries()) {
    if (index >= head.length) return null;
    if (head[index] !== byte) return false;
  }
  return head.length < LEAST_BYTES ? null : head[LEAST_BYTES - 1] !== 0;
}

/** Reads as much as tells whether the other end wants TLS; it is there to be read again, and the socket is paused. */
function sniff(socket: Socket, onKnown: (wantsTls: boolean) => void): void {
  let head = Buffer.alloc(0);
  const onData = (bytes: Buffer) => {
    head = Buffer.concat([head, bytes]);
    const wantsTls = asksForTls(head);
    if (wantsTls === null) return;
    socket.removeListener('data', onData);
    socket.pause();
    socket.unshift(head);
    onKnown(wantsTls);
  };
  socket.on('data', onData);
}

function isLocal({ remoteAddress = '', localAddress = '' }: Socket): boolean {
  return isLoopback(remoteAddress) && isLoopback(localAddress);
}

/** The same for a socket and for the TLS socket on top of it, as long as they are open. */
function nameOf({ remoteAddress, remotePort }: Socket): string {
  return nameOfTcp('tls', remoteAddress, remotePort);
}

class Entrance {
  readonly #options: TlsListenOptions;
  readonly #onConnection: (connection: Connection) => void;
  readonly #lobby: Lobby = new Lobby({ total: MAX_UNAUTHENTICATED, perOrigin: MAX_UNAUTHENTICATED_PER_ORIGIN });
  readonly #visitors: Map<string, Visitor> = new Map();
  /** Makes TLS of the sockets that are handed to it, and listens nowhere. */
  readonly #secured: Server;

  constructor(options: TlsListenOptions, onConnection: (connection: Connection) => void) {
    this.#options = options;
    this.#onConnection = onConnection;
    this.#secured = createServer(acceptSettings(options.acceptor), (socket) => this.#onSecured(socket));
    this.#secured.on('tlsClientError', (error, socket) => this.#refuse(socket, explainAccept(options.acceptor, error)));
  }

  enter(socket: Socket): void {
    const name = nameOf(socket);
    socket.on('error', () => {}); // whoever it is handed to hears of it, too
    const visitor: Visitor = {
      origin: originOf(socket.remoteAddress ?? ''),
      onEvicted: () => this.#refuse(socket, 'it had not shown who it is when others came'),
    };
    if (!this.#lobby.enter(visitor)) {
      this.#refuse(socket, 'too many connections of its address have not shown who they are');
      return;
    }
    this.#visitors.set(name, visitor);
    const timer = setTimeout(() => this.#refuse(socket, 'it said nothing'), HANDSHAKE_TIMEOUT_MS);
    const onEnd = () => socket.destroy();
    socket.once('end', onEnd);
    socket.once('close', () => {
      clearTimeout(timer);
      this.#leave(name);
    });
    sniff(socket, (wantsTls) => {
      clearTimeout(timer);
      socket.removeListener('end', onEnd);
      this.#lobby.hear(visitor);
      if (wantsTls) this.#secure(socket);
      else if (this.#options.servesPlainLoopback && isLocal(socket)) this.#takePlain(socket);
      else this.#refuse(socket, 'it does not speak TLS, and nothing else is served here');
    });
  }

  #secure(socket: Socket): void {
    // Who ends its side in the middle of the handshake is gone: half a connection would be kept until the time-out.
    socket.allowHalfOpen = false;
    this.#secured.emit('connection', socket);
  }

  #takePlain(socket: Socket): void {
    this.#leave(nameOf(socket));
    const name = nameOfTcp('tcp', socket.remoteAddress, socket.remotePort);
    const connection = new SocketConnection(socket, name, false);
    socket.resume(); // it was paused for what was read to be read again
    this.#onConnection(connection);
  }

  #onSecured(socket: TLSSocket): void {
    this.#leave(nameOf(socket));
    socket.allowHalfOpen = true;
    if ('certificates' in this.#options.acceptor && !socket.authorized) {
      this.#refuse(socket, `it has no certificate of the given authority (${socket.authorizationError})`);
    } else {
      this.#onConnection(new SocketConnection(socket, nameOf(socket), false));
    }
  }

  #leave(name: string): void {
    const visitor = this.#visitors.get(name);
    if (visitor === undefined) return;
    this.#visitors.delete(name);
    this.#lobby.leave(visitor);
  }

  #refuse(socket: Socket, reason: string): void {
    const name = socket.remoteAddress === undefined ? 'Somebody who is gone' : nameOf(socket);
    this.#options.onRefused(`${name} was refused: ${reason}.`);
    socket.destroy();
  }
}
