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
import { sniff } from './opening.ts';
import { OriginRate, type RateLimits } from './rate.ts';
import { SocketConnection } from './socket-connection.ts';
import { listenTcp, nameOfTcp } from './tcp.ts';
import { acceptSettings, explainAccept, type TlsAcceptor, type TlsAddress } from './tls.ts';
import type { Connection, Listener } from './transport.ts';

export interface TlsListenOptions {
  readonly acceptor: TlsAcceptor;
  /** Connections over loopback may do without TLS. */
  readonly servesPlainLoopback: boolean;
  /** How often one origin may come; null: as often as it likes. */
  readonly rate: RateLimits | null;
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
  return {
    address: { ...address, port: server.port },
    close() {
      entrance.close();
      return server.close();
    },
  };
}

function isLocal({ remoteAddress = '', localAddress = '' }: Socket): boolean {
  return isLoopback(remoteAddress) && isLoopback(localAddress);
}

/** The same for a socket and for the TLS socket on top of it, as long as they are open. */
function nameOf({ remoteAddress, remotePort }: Socket): string {
  return nameOfTcp('tls', remoteAddress, remotePort);
}

/** A socket that has not become a connection yet. */
interface Entrant extends Visitor {
  readonly socket: Socket;
  readonly stopTimer: () => void;
}

class Entrance {
  readonly #options: TlsListenOptions;
  readonly #onConnection: (connection: Connection) => void;
  readonly #lobby: Lobby = new Lobby({ total: MAX_UNAUTHENTICATED, perOrigin: MAX_UNAUTHENTICATED_PER_ORIGIN });
  readonly #rate: OriginRate | null;
  /** By their names. */
  readonly #entrants: Map<string, Entrant> = new Map();
  /** Makes TLS of the sockets that are handed to it, and listens nowhere. */
  readonly #secured: Server;

  constructor(options: TlsListenOptions, onConnection: (connection: Connection) => void) {
    this.#options = options;
    this.#onConnection = onConnection;
    this.#rate = options.rate === null ? null : new OriginRate(options.rate, () => performance.now());
    this.#secured = createServer(acceptSettings(options.acceptor), (socket) => this.#onSecured(socket));
    this.#secured.on('tlsClientError', (error, socket) => {
      // Of one that is gone already, its socket tells.
      if (socket.remoteAddress !== undefined) this.#refuse(socket, explainAccept(options.acceptor, error));
    });
  }

  enter(socket: Socket): void {
    socket.on('error', () => {}); // whoever it is handed to hears of it, too
    const origin = originOf(socket.remoteAddress ?? '');
    if (origin !== null && this.#rate?.take(origin) === false) {
      this.#refuse(socket, 'its address came too often');
      return;
    }
    let inHandshake = false;
    const timer = setTimeout(() => {
      this.#refuse(socket, inHandshake ? 'its TLS handshake took too long' : 'it did not say in time what it wants');
    }, HANDSHAKE_TIMEOUT_MS);
    const entrant: Entrant = {
      origin,
      socket,
      stopTimer: () => clearTimeout(timer),
      onEvicted: () => this.#refuse(socket, 'it had not shown who it is when too many others came'),
    };
    const name = nameOf(socket);
    this.#lobby.enter(entrant);
    this.#entrants.set(name, entrant);
    const onEnd = () => socket.destroy();
    socket.once('end', onEnd);
    socket.once('close', () => {
      const isGone = this.#leave(name);
      if (isGone && inHandshake) this.#tell(name, 'it closed the connection during the TLS handshake');
    });
    sniff(socket, (opening) => {
      socket.removeListener('end', onEnd);
      this.#lobby.hear(entrant);
      inHandshake = opening === 'tls';
      if (opening === 'tls') this.#secure(socket);
      else if (opening === 'oversized') this.#refuse(socket, 'its TLS handshake begins with too much');
      else if (this.#options.servesPlainLoopback && isLocal(socket)) this.#takePlain(socket);
      else this.#refuse(socket, 'it does not speak TLS, and nothing else is served here');
    });
  }

  /** Nobody who is still on the way in becomes a connection. */
  close(): void {
    for (const [name, { socket }] of this.#entrants) {
      this.#leave(name);
      socket.destroy();
    }
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

  /** Returns whether it was still on its way in. */
  #leave(name: string): boolean {
    const entrant = this.#entrants.get(name);
    if (entrant === undefined) return false;
    this.#entrants.delete(name);
    entrant.stopTimer();
    this.#lobby.leave(entrant);
    return true;
  }

  #refuse(socket: Socket, reason: string): void {
    const name = nameOf(socket);
    this.#leave(name);
    this.#tell(name, reason);
    socket.destroy();
  }

  #tell(name: string, reason: string): void {
    this.#options.onRefused(`${name} was refused: ${reason}.`);
  }
}
