/** Greeting the coordinator, without any engine behind it. */
import { expect, test } from 'vitest';
import { type ClientEvents, CoordinatorClient } from '../../src/engine/coordinator-client.ts';
import type { Credentials } from '../../src/engine/greeting.ts';
import { systemPlatform } from '../../src/engine/platform.ts';
import { resolveSecurity } from '../../src/engine/security.ts';
import { ConnectError, UnauthorizedError } from '../../src/errors.ts';
import { Coordinator } from '../../src/index.ts';
import { parseTcpAddress, shortcutOf } from '../../src/transport/address.ts';
import { unixTransport } from '../../src/transport/unix.ts';

const SILENT: ClientEvents = {
  onMessage: () => {},
  onLost: () => {},
  onBack: () => {},
  onRefused: () => {},
  report: () => ({ peerId: 'nobody', state: 'warming', boundary: 0, views: [], peers: [], failed: [], excluded: [] }),
};

function credentials(name: string, changes: Partial<Credentials> = {}): Credentials {
  return {
    run: 'run',
    token: '',
    security: resolveSecurity({}, ''),
    startWorldSize: 1,
    name: '',
    transports: ['unix', 'tcp'],
    description: {
      hostKey: 'a-boot-id-of-thirty-six-characters-1 mnt:[4026531841]',
      site: 'eu',
      addresses: [
        { kind: 'unix', path: `/tmp/skein-12345-${name}.sock` },
        { kind: 'tcp', host: '127.0.0.1', port: 40_000 },
      ],
    },
    ...changes,
  };
}

test.each([[['unix', 'tcp'] as const], [['tcp'] as const]])(
  'the sixtieth peer is welcomed as the first was, by %j',
  async (transports) => {
    await using coordinator = await Coordinator.listen({ port: 0 });
    const clients: CoordinatorClient[] = [];
    try {
      for (let index = 0; index < 60; index++) {
        const wanted = credentials(`peer-${index}`, { transports });
        const client = await CoordinatorClient.connect(
          systemPlatform,
          parseTcpAddress(coordinator.address),
          wanted,
          SILENT,
        );
        clients.push(client);
        expect(client.welcome.peers).toHaveLength(index);
      }
      const keys = clients.at(-1)!.welcome.peers.map((peer) => Buffer.from(peer.key).toString('hex'));
      expect(new Set(keys).size).toBe(keys.length);
    } finally {
      for (const client of clients) client.close();
    }
  },
);

test('does not start where its shortcut belongs to somebody else, and keeps no port then', async () => {
  const first = await Coordinator.listen({ port: 0 });
  const address = parseTcpAddress(first.address);
  await first.close();
  const squatter = await unixTransport.listen(shortcutOf(address)!, (connection) => connection.destroy());
  await expect(Coordinator.listen({ port: address.port })).rejects.toThrow(ConnectError);
  await squatter.close();
  await using second = await Coordinator.listen({ port: address.port });
  expect(second.address).toBe(first.address);
});

test('a wrong token is refused on both ways in', async () => {
  await using coordinator = await Coordinator.listen({ port: 0, token: 'right' });
  for (const transports of [['unix', 'tcp'], ['tcp']] as const) {
    const attempt = CoordinatorClient.connect(
      systemPlatform,
      parseTcpAddress(coordinator.address),
      credentials('stranger', { token: 'wrong', transports }),
      SILENT,
    );
    await expect(attempt).rejects.toThrow(UnauthorizedError);
  }
});
