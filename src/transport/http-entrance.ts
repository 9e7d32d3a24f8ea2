/**
 * The way in to an HTTP port, with TLS or in the clear. As on a coordinator's other ports, whoever has not shown who it is waits
 * in a lobby, may not come too often, has so long to say what it wants, and has no TLS set up for it before it has begun with that.
 *
 *     accepted ──(first record ──▶ TLS handshake)──▶ request ──▶ answer, and the end
 *                                                       └──upgrade──▶ WebSocket: its own handshake goes on
 */
import type { Server as HttpServer } from 'node:http';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { createServer, type Server, type TLSSocket } from 'node:tls';
import { HANDSHAKE_TIMEOUT_MS } from '../wire/limits.ts';
import { originOf } from './address.ts';
import type { Lobby, Visitor } from './lobby.ts';
import { sniff } from './opening.ts';
import { OriginRate, type RateLimits } from './rate.ts';
import { listenTcp, nameOfTcp } from './tcp.ts';
import { type ServerCertificate, serverSettings } from './tls.ts';

export interface HttpDoor {
  /** null: in the clear. */
  readonly certificate: ServerCertificate | null;
  /** Where those wait who have not shown who they are. */
  readonly lobby: Lobby;
  readonly rate: RateLimits;
  /** Somebody was turned away; the reason names the remote end. */
  readonly onRefused: (reason: string) => void;
}

/** A socket that moves no byte for so long while it is answered is closed (ms). */
const IDLE_MS = 15_000;

const NOT_ENCRYPTED =
  'HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Type: text/plain\r\n\r\nThis port speaks HTTPS: use https:// or wss://.\n';

/**
 * A connection that has not become a WebSocket. It may not become one at all, so a request does not count as a word in the lobby:
 * otherwise those who ask for a page, and read it slowly, would be there when newcomers have to go.
 */
interface Guest extends Visitor {
  readonly name: string;
  readonly socket: Socket;
  readonly stopTimer: () => void;
}

export class HttpEntrance {
  readonly #http: HttpServer;
  readonly #door: HttpDoor;
  readonly #rate: OriginRate;
  /** By their names, which a socket and the TLS socket on top of it have in common. */
  readonly #guests: Map<string, Guest> = new Map();
  /** Makes TLS of the sockets that are handed to it, and listens nowhere. */
  readonly #secured: Server | null;

  /** @param http is handed its connections, and listens nowhere itself */
  constructor(http: HttpServer, door: HttpDoor) {
    this.#http = http;
    this.#door = door;
    this.#rate = new OriginRate(door.rate, () => performance.now());
    this.#secured = door.certificate === null ? null : createServer(serverSettings(door.certificate));
    this.#secured?.on('secureConnection', (socket) => this.#onSecured(socket));
    this.#secured?.on('tlsClientError', ({ message }, socket) => {
      if (socket.remoteAddress !== undefined) this.#refuse(socket, `the TLS handshake with it failed (${message})`);
    });
    http.maxRequestsPerSocket = 1;
    http.timeout = IDLE_MS;
    http.prependListener('request', ({ socket }) => this.#onAsked(socket));
    http.prependListener('upgrade', ({ socket }) => this.#onAsked(socket));
    http.on('clientError', (error: Error, socket: Duplex) => {
      const { code = '' } = error as NodeJS.ErrnoException;
      if (!code.startsWith('HPE_') || !socket.writable) {
        socket.destroy();
        return;
      }
      this.tell(socket as Socket, `its request can't be read (${code})`); // it was handed over here
      const status = code === 'HPE_HEADER_OVERFLOW' ? '431 Request Header Fields Too Large' : '400 Bad Request';
      socket.end(`HTTP/1.1 ${status}\r\nConnection: close\r\n\r\n`, () => socket.destroy());
    });
  }

  /** @throws ConnectError when the port is taken */
  async listen(host: string, port: number): Promise<{ readonly port: number; close(): Promise<void> }> {
    const server = await listenTcp({ kind: 'tcp', host, port }, (socket) => this.#enter(socket));
    return {
      port: server.port,
      close: () => {
        for (const guest of this.#guests.values()) {
          this.#leave(guest);
          guest.socket.destroy();
        }
        return server.close();
      },
    };
  }

  /** It has become a WebSocket: who speaks by it is for others to find out. */
  release(socket: Socket): void {
    const guest = this.#guests.get(nameOf(socket));
    if (guest !== undefined) this.#leave(guest);
  }

  /** It is turned away: the reason is noted, and its socket closed. */
  #refuse(socket: Socket, reason: string): void {
    this.tell(socket, reason);
    this.release(socket);
    socket.destroy();
  }

  /** Notes that somebody is turned away. */
  tell(socket: Socket, reason: string): void {
    this.#door.onRefused(`${nameOf(socket)} was refused: ${reason}.`);
  }

  #enter(socket: Socket): void {
    socket.on('error', () => {}); // whoever it is handed to hears of it, too
    const origin = originOf(socket.remoteAddress ?? '');
    if (origin !== null && !this.#rate.take(origin)) {
      this.#refuse(socket, 'its address came too often');
      return;
    }
    const timer = setTimeout(() => this.#refuse(socket, 'it did not ask for anything in time'), HANDSHAKE_TIMEOUT_MS);
    const guest: Guest = {
      name: nameOf(socket),
      origin,
      socket,
      stopTimer: () => clearTimeout(timer),
      onEvicted: () => this.#refuse(socket, 'it had not shown who it is when too many others came'),
    };
    this.#door.lobby.enter(guest);
    this.#guests.set(guest.name, guest);
    socket.once('close', () => this.#leave(guest));
    const secured = this.#secured;
    if (secured === null) this.#http.emit('connection', socket);
    else this.#sniff(guest, secured);
  }

  #sniff(guest: Guest, secured: Server): void {
    const { socket } = guest;
    // Who ends its side before it is through is gone.
    socket.allowHalfOpen = false;
    sniff(socket, (opening) => {
      if (opening === 'tls') secured.emit('connection', socket);
      else if (opening === 'oversized') this.#refuse(socket, 'its TLS handshake begins with too much');
      else {
        this.tell(socket, 'it does not speak TLS, and nothing else is served here');
        socket.end(NOT_ENCRYPTED, () => socket.destroy());
      }
    });
  }

  #onSecured(socket: TLSSocket): void {
    socket.allowHalfOpen = true;
    this.#http.emit('connection', socket);
  }

  #onAsked(socket: Socket): void {
    this.#guests.get(nameOf(socket))?.stopTimer();
  }

  #leave(guest: Guest): void {
    guest.stopTimer();
    this.#door.lobby.leave(guest);
    if (this.#guests.get(guest.name) === guest) this.#guests.delete(guest.name);
  }
}

/** The same for a socket and for the TLS socket on top of it, as long as they are open. */
function nameOf({ remoteAddress, remotePort }: Socket): string {
  return nameOfTcp('http', remoteAddress, remotePort);
}
