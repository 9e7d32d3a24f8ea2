/** TCP, IPv4 and IPv6, without Nagle's delay. */
import { ConnectError } from '../errors.ts';
import { dialSocket, listenSocket } from './socket-connection.ts';
import type { Address, Connection, Listener, Transport } from './transport.ts';

function tcpOnly(address: Address): Extract<Address, { kind: 'tcp' }> {
  if (address.kind !== 'tcp') throw new ConnectError(`TCP can't use an address of kind ${address.kind}.`);
  return address;
}

function nameOf(host: string | undefined, port: number | undefined): string {
  return `tcp ${host?.includes(':') === true ? `[${host}]` : host}:${port}`;
}

export const tcpTransport: Transport = {
  kind: 'tcp',

  async listen(address, onConnection): Promise<Listener> {
    const { host, port } = tcpOnly(address);
    const name = (socket: { remoteAddress?: string | undefined; remotePort?: number | undefined }) =>
      nameOf(socket.remoteAddress, socket.remotePort);
    const server = await listenSocket({ host, port }, name, onConnection).catch((cause: unknown) => {
      throw new ConnectError(
        `Can't listen on ${nameOf(host, port)}: ${cause instanceof Error ? cause.message : cause}.`,
        {
          cause,
          phase: 'listen',
        },
      );
    });
    return { address: { kind: 'tcp', host, port: server.port }, close: () => server.close() };
  },

  async dial(address, options): Promise<Connection> {
    const { host, port } = tcpOnly(address);
    return dialSocket({ host, port }, nameOf(host, port), options);
  },
};
