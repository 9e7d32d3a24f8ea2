/** WebSockets in Node, by the package `ws`: what a coordinator serves browsers with, and a peer behind an HTTP proxy dials. */
import { createServer, type IncomingMessage, type Server } from 'node:http';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { TLSSocket } from 'node:tls';
import { WebSocket, WebSocketServer } from 'ws';
import { ConnectError } from '../errors.ts';
import { MAX_HANDSHAKE_BYTES } from '../wire/limits.ts';
import { originOf } from './address.ts';
import { systemClock } from './clock.ts';
import type { HttpEntrance } from './http-entrance.ts';
import { bindingOf } from './socket-connection.ts';
import { listenTcp, nameOfTcp } from './tcp.ts';
import { type Certificates, explainDial, webSettings } from './tls.ts';
import {
  type Address,
  type Connection,
  type DialOptions,
  type Listener,
  NO_BINDING,
  type Transport,
  type Visit,
} from './transport.ts';
import { acceptWebSocket, dialWebSocket, MAX_WEBSOCKET_MESSAGE_BYTES } from './websocket.ts';

function wsOnly(address: Address): Extract<Address, { kind: 'ws' }> {
  if (address.kind !== 'ws') throw new ConnectError(`A WebSocket can't use an address of kind ${address.kind}.`);
  return address;
}

/** Two messages of a handshake, in frames of WebSocket: more nobody sends before it has shown who it is. */
const MAX_STRANGER_BYTES: number = 2 * MAX_HANDSHAKE_BYTES;

/** Closes a socket by which too much comes before it is trusted. */
function watchStranger(socket: Socket, head: Buffer): Visit {
  let seen = head.length;
  let isTrusted = false;
  const onData = (bytes: Buffer) => {
    seen += bytes.length;
    if (seen <= MAX_STRANGER_BYTES) return;
    // Its proof may be among these bytes: then it is trusted when they have been read.
    setImmediate(() => {
      if (!isTrusted) socket.destroy(new Error('it sent too much before it had shown who it is'));
    });
  };
  socket.on('data', onData);
  const trust = () => {
    isTrusted = true;
    socket.removeListener('data', onData);
  };
  return { origin: originOf(socket.remoteAddress ?? ''), trust };
}

/**
 * Takes the WebSockets that come to an HTTP server, which is handed its connections.
 *
 * @param allows whether a page of this origin may connect; a program that is no browser tells none
 * @param entrance by which they come; null: they are not limited as strangers are
 */
export function acceptWebSockets(
  server: Server,
  allows: (origin: string | undefined) => boolean,
  onConnection: (connection: Connection) => void,
  entrance: HttpEntrance | null = null,
): void {
  const upgrades = new WebSocketServer({
    noServer: true,
    clientTracking: false,
    perMessageDeflate: false,
    maxPayload: MAX_WEBSOCKET_MESSAGE_BYTES,
  });
  const refuse = (socket: Socket, status: string, reason: string) => {
    entrance?.tell(socket, reason);
    socket.end(`HTTP/1.1 ${status}\r\nConnection: close\r\n\r\n`, () => socket.destroy());
  };
  upgrades.on('wsClientError', ({ message }, socket) => {
    refuse(socket as Socket, '400 Bad Request', `it does not speak WebSocket (${message})`); // as below
  });
  server.on('upgrade', (request: IncomingMessage, duplex: Duplex, head: Buffer) => {
    const socket = duplex as Socket; // what the server was handed: a TLS socket is one, too
    socket.on('error', () => socket.destroy());
    const { origin } = request.headers;
    if (!allows(origin)) {
      refuse(socket, '403 Forbidden', `where there is no token, pages of ${origin} may not come here`);
      return;
    }
    upgrades.handleUpgrade(request, socket, head, (webSocket) => {
      entrance?.release(socket);
      const remote = nameOfTcp(socket instanceof TLSSocket ? 'wss' : 'ws', socket.remoteAddress, socket.remotePort);
      const visit = entrance === null ? {} : { visit: watchStranger(socket, head) };
      onConnection(acceptWebSocket(webSocket, { remote, binding: bindingOf(socket), ...visit }, systemClock));
    });
  });
}

/**
 * @param certificates where they are given, a server at `wss://` must have one of their authority, and the connection has a binding:
 *   TLS must not end before the server then
 * @throws ConnectError when nobody answers, on time-out, or when the signal aborts; UnauthorizedError when its certificate is not trusted
 */
export async function dialWebSocketFromNode(
  address: Address,
  options: DialOptions,
  certificates: Certificates | null,
): Promise<Connection> {
  const { url } = wsOnly(address);
  const trusted = url.startsWith('wss:') ? certificates : null;
  let binding = NO_BINDING;
  const seen: { failure?: Error } = {};
  const open = () => {
    const settings = { perMessageDeflate: false, maxPayload: MAX_WEBSOCKET_MESSAGE_BYTES };
    const socket = new WebSocket(url, trusted === null ? settings : { ...settings, ...webSettings(trusted) });
    socket.once('error', (error) => {
      seen.failure = error;
    });
    socket.once('upgrade', (response) => {
      if (trusted !== null) binding = bindingOf(response.socket);
    });
    return socket;
  };
  try {
    return await dialWebSocket(open, url, options, systemClock, () => binding);
  } catch (error) {
    const { failure } = seen;
    throw failure !== undefined && isOfTls(failure) ? explainDial(false, url, failure) : error;
  } finally {
    // What arrives lands in memory of its own.
    options.onReadBufferFree?.();
  }
}

/** Not of the system's sockets, nor of HTTP: these say no more than that nobody was reached. */
function isOfTls(error: Error): boolean {
  const { code } = error as NodeJS.ErrnoException;
  return code !== undefined && !/^E[A-Z]+$|^WS_/.test(code);
}

/** In the clear, as before a proxy. A coordinator's port is an `HttpEntrance`. */
export const webSocketTransport: Transport = {
  kind: 'ws',

  async listen(address, onConnection): Promise<Listener> {
    const { hostname, port } = new URL(wsOnly(address).url);
    const host = hostname.replace(/^\[|\]$/g, '');
    const http = createServer((_, response) => response.writeHead(426).end());
    acceptWebSockets(http, () => true, onConnection);
    const tcp = { kind: 'tcp', host, port: Number(port) } as const;
    const server = await listenTcp(tcp, (socket) => http.emit('connection', socket));
    const url = formatUrl('ws', host, server.port);
    return { address: { kind: 'ws', url }, close: () => server.close() };
  },

  dial: (address, options) => dialWebSocketFromNode(address, options, null),
};

export function formatUrl(scheme: 'http' | 'https' | 'ws', host: string, port: number): string {
  return `${scheme}://${host.includes(':') ? `[${host}]` : host}:${port}`;
}
