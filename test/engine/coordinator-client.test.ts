/** Greeting the coordinator, without any engine behind it. */
import { createHmac } from 'node:crypto';
import { expect, test } from 'vitest';
import { type ClientEvents, CoordinatorClient } from '../../src/engine/coordinator-client.ts';
import type { Credentials } from '../../src/engine/greeting.ts';
import { systemPlatform } from '../../src/engine/platform.ts';
import { resolveSecurity } from '../../src/engine/resolve-security.ts';
import { ConnectError, UnauthorizedError } from '../../src/errors.ts';
import { Coordinator } from '../../src/index.ts';
import { parseTcpAddress, shortcutOf } from '../../src/transport/address.ts';
import { unixTransport } from '../../src/transport/unix.ts';
import type { CoordinatorMessage } from '../../src/wire/coordinator-messages.ts';

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
      cores: 2,
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
    // These clients give no sign of life.
    await using coordinator = await Coordinator.listen({ port: 0, lostAfterMs: 60_000 });
    const clients: CoordinatorClient[] = [];
    try {
      for (let index = 0; index < 60; index++) {
        const wanted = credentials(`peer-${index}`, { transports });
        const client = await CoordinatorClient.connect(
          systemPlatform,
          [parseTcpAddress(coordinator.address)],
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
      [parseTcpAddress(coordinator.address)],
      credentials('stranger', { token: 'wrong', transports }),
      SILENT,
    );
    await expect(attempt).rejects.toThrow(UnauthorizedError);
  }
});

test('signals reach the peer that they are for, and an offer to nobody is answered', async () => {
  await using coordinator = await Coordinator.listen({ port: 0 });
  const heard: CoordinatorMessage[][] = [[], []];
  const [one, other] = await Promise.all(
    heard.map((messages, index) =>
      CoordinatorClient.connect(systemPlatform, [parseTcpAddress(coordinator.address)], credentials(`peer-${index}`), {
        ...SILENT,
        onMessage: (message) => {
          if (message.type === 'signal') messages.push(message);
        },
      }),
    ),
  );
  try {
    const offer = { kind: 'offer', session: 7, relay: true, sdp: 'v=0' } as const;
    one!.send({ type: 'signal', to: other!.welcome.peerId, signal: offer });
    one!.send({ type: 'signal', to: 'nobody', signal: offer });
    one!.send({ type: 'signal', to: 'nobody', signal: { kind: 'answer', session: 7, sdp: 'v=0' } });
    await expect
      .poll(() => heard)
      .toEqual([
        [
          {
            type: 'signal',
            from: 'nobody',
            signal: { kind: 'end', session: 7, fromDialler: false, reason: 'it is not in this run' },
          },
        ],
        [{ type: 'signal', from: one!.welcome.peerId, signal: offer }],
      ]);
  } finally {
    for (const client of [one!, other!]) client.close();
  }
});

test('a peer is told of TURN servers with credentials of its own, and of new ones when it asks', async () => {
  const iceServers = [{ url: 'stun:192.0.2.1:3478' }, { url: 'turn:192.0.2.1:3478', secret: 'of the server' }];
  await using coordinator = await Coordinator.listen({ port: 0, iceServers });
  const told: CoordinatorMessage[] = [];
  const client = await CoordinatorClient.connect(
    systemPlatform,
    [parseTcpAddress(coordinator.address)],
    credentials('peer'),
    { ...SILENT, onMessage: (message) => void (message.type === 'ice' && told.push(message)) },
  );
  try {
    const { ice, peerId } = client.welcome;
    expect(ice.servers[0]).toEqual({ url: 'stun:192.0.2.1:3478' });
    const { username = '', credential } = ice.servers[1]!;
    // As coturn checks them with `use-auth-secret`.
    expect(credential).toBe(createHmac('sha1', 'of the server').update(username).digest('base64'));
    const [expires, name] = username.split(':');
    expect(name).toBe(peerId);
    expect(Number(expires) * 1_000 - Date.now()).toBeGreaterThan(ice.validMs - 60_000);
    client.send({ type: 'ice' });
    await expect.poll(() => told).toHaveLength(1);
  } finally {
    client.close();
  }
  for (const url of ['http://x', 'turn:', 'stun:host:port', 'turn:user@host']) {
    await expect(Coordinator.listen({ port: 0, iceServers: [{ url }] })).rejects.toThrow(/ICE server/);
  }
});
