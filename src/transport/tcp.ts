/** TCP, IPv4 and IPv6, in the clear, without Nagle's delay. */
import type { Socket } from 'node:net';
import { ConnectError } from '../errors.ts';
import { dialSocket, listenSocket, SocketConnection, type SocketServer } from './socket-connection.ts';
import type { Address, Connection, Listener, Transport } from './transport.ts';

/** @throws ConnectError when it is of another kind */
export function tcpOnly(address: Address): Extract<Address, { kind: 'tcp' }> {
  if (address.kind !== 'tcp') throw new ConnectError(`TCP can't use an address of kind ${address.kind}.`);
  return address;
}

/** For messages and logs. */
export function nameOfTcp(
  kind: 'tcp' | 'tls' | 'http' | 'ws' | 'wss',
  host: string | undefined,
  port: number | undefined,
): string {
  return `${kind} ${host?.includes(':') === true ? `[${host}]` : host}:${port}`;
}

/** @throws ConnectError when the port is taken, or the address is not of this machine */
export async function listenTcp(
  { kind, host, port }: Extract<Address, { kind: 'tcp' | 'tls' }>,
  onSocket: (socket: Socket) => void,
): Promise<SocketServer> {
  return listenSocket({ host, port }, onSocket).catch((cause: unknown) => {
    throw new ConnectError(
      `Can't listen on ${nameOfTcp(kind, host, port)}: ${cause instanceof Error ? cause.message : cause}.`,
      { cause, phase: 'listen' },
    );
  });
}

export const tcpTransport: Transport = {
  kind: 'tcp',

  async listen(address, onConnection): Promise<Listener> {
    const tcp = tcpOnly(address);
    const server = await listenTcp(tcp, (socket) => {
      onConnection(new SocketConnection(socket, nameOfTcp('tcp', socket.remoteAddress, socket.remotePort), false));
    });
    return { address: { ...tcp, port: server.port }, close: () => server.close() };
  },

  async dial(address, options): Promise<Connection> {
    const { host, port } = tcpOnly(address);
    return dialSocket({ host, port }, nameOfTcp('tcp', host, port), options);
  },
};
