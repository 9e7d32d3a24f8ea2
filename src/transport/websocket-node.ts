/** WebSockets in Node, by the package `ws`: what a coordinator serves browsers with, and a peer behind an HTTP proxy dials. */
import { createServer, type IncomingMessage, type Server } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { WebSocket, WebSocketServer } from 'ws';
import { ConnectError } from '../errors.ts';
import { systemClock } from './clock.ts';
import type { Address, Connection, Listener, Transport } from './transport.ts';
import { acceptWebSocket, dialWebSocket, MAX_WEBSOCKET_MESSAGE_BYTES } from './websocket.ts';

function wsOnly(address: Address): Extract<Address, { kind: 'ws' }> {
  if (address.kind !== 'ws') throw new ConnectError(`A WebSocket can't use an address of kind ${address.kind}.`);
  return address;
}

/**
 * Takes the WebSockets that come to an HTTP server.
 *
 * @param allows whether a page of this origin may connect; a program that is no browser tells none
 */
export function acceptWebSockets(
  server: Server,
  allows: (origin: string | undefined) => boolean,
  onConnection: (connection: Connection) => void,
): void {
  const upgrades = new WebSocketServer({
    noServer: true,
    clientTracking: false,
    perMessageDeflate: false,
    maxPayload: MAX_WEBSOCKET_MESSAGE_BYTES,
  });
  server.on('upgrade', (request: IncomingMessage, socket: Duplex, head: Buffer) => {
    socket.on('error', () => socket.destroy());
    if (!allows(request.headers.origin)) {
      socket.end('HTTP/1.1 403 Forbidden\r\nConnection: close\r\n\r\n');
      return;
    }
    upgrades.handleUpgrade(request, socket, head, (webSocket) => {
      const { remoteAddress, remotePort } = socket as Socket; // what a server without TLS of its own hands over
      onConnection(acceptWebSocket(webSocket, `ws ${remoteAddress}:${remotePort}`, systemClock));
    });
  });
}

/** Starts an HTTP server. @throws ConnectError when the port is taken */
export function listenHttp(
  server: Server,
  host: string,
  port: number,
): Promise<{ readonly host: string; readonly port: number }> {
  return new Promise((resolve, reject) => {
    server.once('error', (cause) =>
      reject(new ConnectError(`Can't listen on http ${host}:${port}: ${cause.message}.`, { cause, phase: 'listen' })),
    );
    server.listen({ host, port, backlog: 1024 }, () => {
      server.removeAllListeners('error');
      resolve({ host, port: (server.address() as AddressInfo).port }); // it listens on a port
    });
  });
}

/** Stops accepting; resolves when nothing of it is left. */
export function closeHttp(server: Server): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => resolve());
    // Those that have become WebSockets are not among them.
    server.closeAllConnections();
  });
}

export function formatUrl(scheme: 'http' | 'ws', host: string, port: number): string {
  return `${scheme}://${host.includes(':') ? `[${host}]` : host}:${port}`;
}

export const webSocketTransport: Transport = {
  kind: 'ws',

  async listen(address, onConnection): Promise<Listener> {
    const url = new URL(wsOnly(address).url);
    const server = createServer((_, response) => response.writeHead(426).end());
    acceptWebSockets(server, () => true, onConnection);
    const { host, port } = await listenHttp(server, url.hostname.replace(/^\[|\]$/g, ''), Number(url.port));
    return { address: { kind: 'ws', url: formatUrl('ws', host, port) }, close: () => closeHttp(server) };
  },

  async dial(address, options): Promise<Connection> {
    try {
      const open = (url: string) =>
        new WebSocket(url, { perMessageDeflate: false, maxPayload: MAX_WEBSOCKET_MESSAGE_BYTES });
      return await dialWebSocket(open, wsOnly(address).url, options, systemClock);
    } finally {
      // What arrives lands in memory of its own.
      options.onReadBufferFree?.();
    }
  },
};
