/** Whole runs over TLS, which loopback is made to use: peers in processes of their own, and strangers at every port. */
import { once } from 'node:events';
import { type AddressInfo, connect, createServer } from 'node:net';
import { afterEach, describe, expect, test } from 'vitest';
import { resolveSecurity } from '../../src/engine/resolve-security.ts';
import { ArgumentError } from '../../src/errors.ts';
import { Coordinator, type CoordinatorListenOptions, type JoinOptions, join } from '../../src/index.ts';
import { formatTcpAddress, parseTcpAddress } from '../../src/transport/address.ts';
import { dialTls } from '../../src/transport/tls.ts';
import { listenTls } from '../../src/transport/tls-listener.ts';
import { HostilePeer } from '../fuzz/hostile.ts';
import { TestAuthority } from '../harness/certificates.ts';
import { Cluster, type PeerProcess } from '../harness/cluster.ts';
import { requireOpenssl, requireOutwardAddress } from '../harness/requirements.ts';
import { splice, standBefore } from './middle.ts';

const TOKEN = 'a token of this test';
const ALWAYS = { token: TOKEN, encryption: 'always' } as const;
const OVER_TLS: JoinOptions = { ...ALWAYS, transports: ['tcp'] };

/** Each call ends within this (ms). */
const BOUND_MS = 20_000;

const COUNT = 1 << 20;

const clusters: Cluster[] = [];

afterEach(async () => {
  for (const cluster of clusters.splice(0)) await cluster[Symbol.asyncDispose]();
});

async function cluster(options: CoordinatorListenOptions): Promise<Cluster> {
  const started = await Cluster.start(options);
  clusters.push(started);
  return started;
}

/** All-reduces a tensor of which element i is `base + i % 7`, and checks each element of the result. */
function reduce(peer: PeerProcess, base: number, bases: Readonly<Record<string, number>>) {
  return peer.run(
    async ({ state }, { base, bases, count, timeout }) => {
      const tensor = Float32Array.from({ length: count }, (_, index) => base + (index % 7));
      const { contributors } = await state.group!.allReduce(tensor, { algorithm: 'ring', timeout });
      const sum = contributors.reduce((total, peerId) => total + bases[peerId]!, 0);
      const wrong = tensor.findIndex((value, index) => value !== sum + contributors.length * (index % 7));
      return { wrong, contributors };
    },
    { base, bases, count: COUNT, timeout: BOUND_MS },
  );
}

async function basesOf(peers: readonly PeerProcess[]): Promise<Record<string, number>> {
  const ids = await Promise.all(peers.map((peer) => peer.run(({ state }) => state.group!.peerId)));
  return Object.fromEntries(ids.map((peerId, index) => [peerId, 10 ** index]));
}

function pathsOf(peer: PeerProcess): Promise<(string | null)[]> {
  return peer.run(async ({ state }) => (await state.group!.status()).links.map(({ path }) => path));
}

async function failure(attempt: Promise<unknown>): Promise<{ code?: string; message: string }> {
  return attempt.then(
    () => Promise.reject(new Error('it did not fail')),
    (error: Error & { code?: string }) => error,
  );
}

/** Says something at a port, and resolves when the other side has closed the connection. */
function strange(target: { host: string; port: number }, bytes: Uint8Array): Promise<void> {
  return new Promise((resolve) => {
    const socket = connect({ ...target, allowHalfOpen: true }, () => socket.write(bytes));
    socket.on('error', () => {});
    socket.on('data', () => {});
    socket.on('end', () => socket.end());
    socket.on('close', () => resolve());
  });
}

describe.each(['worker', 'inline'] as const)('three processes over TLS, engine %s', (engine) => {
  test('reduce exactly, lose one in the middle of it, and let another in', async () => {
    const run = await cluster({ ...ALWAYS, heartbeatMs: 100, lostAfterMs: 2_000 });
    const peers = await run.form(3, { ...OVER_TLS, engine });
    for (const peer of peers) {
      const paths = await pathsOf(peer);
      expect(paths).toHaveLength(2);
      for (const path of paths) expect(path).toMatch(/^tls 127\.0\.0\.1:\d+$/);
    }
    const bases = await basesOf(peers);
    const values = Object.values(bases);
    const first = await Promise.all(peers.map((peer, index) => reduce(peer, values[index]!, bases)));
    for (const { wrong, contributors } of first) expect([wrong, contributors.length]).toEqual([-1, 3]);

    const [victim, ...survivors] = [peers[1]!, peers[0]!, peers[2]!];
    const others = survivors.map((peer) => reduce(peer, values[peers.indexOf(peer)]!, bases));
    const dying = victim.run(async ({ state }, count) => {
      const onProgress = (share: number) => {
        if (share >= 0.4) process.kill(process.pid, 'SIGKILL');
      };
      await state.group!.allReduce(new Float32Array(count).fill(1), { algorithm: 'ring', onProgress });
    }, COUNT);
    await expect(dying).rejects.toThrow(/ended/);
    for (const { wrong, contributors } of await Promise.all(others)) {
      expect([wrong, contributors.length]).toEqual([-1, 2]);
    }

    const { joined } = await run.add({ ...OVER_TLS, engine });
    const until = (peer: PeerProcess) =>
      peer.run(async ({ state }) => {
        while (state.group!.worldSize < 3) await state.group!.admit();
      });
    await Promise.all([joined, ...survivors.map(until)]);
    const all = [...survivors, run.peers.at(-1)!];
    const next = await basesOf(all);
    const last = await Promise.all(all.map((peer, index) => reduce(peer, Object.values(next)[index]!, next)));
    for (const { wrong, contributors } of last) expect([wrong, contributors.length]).toEqual([-1, 3]);
  });
});

describe('strangers at the ports of a run over TLS', () => {
  test('are refused with a line that says why, and the members are unaffected', async () => {
    const notes: string[] = [];
    const run = await cluster({ ...ALWAYS, onNote: (line) => notes.push(line) });
    const peers = await run.form(2, OVER_TLS);
    const bases = await basesOf(peers);
    await peers[1]!.run(({ state, tell }) => {
      state.group!.on('refused', ({ reason }) => tell(reason.replace(/:\d+/, '')));
    });
    const { host, port } = parseTcpAddress(run.coordinator.address);
    const control = { host, port };
    const data = Number(/:(\d+)$/.exec((await pathsOf(peers[0]!))[0]!)![1]);
    const greeting = Buffer.from([80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    for (const target of [control, { host, port: data }]) {
      await strange(target, greeting);
      await strange(target, Buffer.from('GET / HTTP/1.1\r\nHost: x\r\n\r\n'));
    }
    const why = 'was refused: it does not speak TLS, and nothing else is served here.';
    await peers[1]!.told(`tls 127.0.0.1 ${why}`);
    expect(notes.filter((line) => line.endsWith(why))).toHaveLength(2);
    const values = Object.values(bases);
    const results = await Promise.all(peers.map((peer, index) => reduce(peer, values[index]!, bases)));
    for (const { wrong, contributors } of results) expect([wrong, contributors.length]).toEqual([-1, 2]);
  });

  test('a peer that joins in the clear is refused, and told what may be the reason', async () => {
    const run = await cluster(ALWAYS);
    const options: JoinOptions = { token: TOKEN, transports: ['tcp'], engine: 'inline', timeout: BOUND_MS };
    const error = await failure(join(run.coordinator.address, options));
    expect(error.code).toBe('SKEIN_CONNECT');
    expect(error.message).toContain('encryption');
  });

  test('a peer with a wrong token is refused', async () => {
    const notes: string[] = [];
    const run = await cluster({ ...ALWAYS, onNote: (line) => notes.push(line) });
    const options: JoinOptions = { ...OVER_TLS, token: 'wrong', engine: 'inline', timeout: BOUND_MS };
    const error = await failure(join(run.coordinator.address, options));
    expect(error.code).toBe('SKEIN_UNAUTHORIZED');
    expect(error.message).toContain('check `token`');
    expect(notes.join()).toContain('does not know the key');
  });

  test('a peer that asks for encryption gets it from a coordinator on loopback that does not', async () => {
    const run = await cluster({ token: TOKEN });
    const peers = await run.form(2, OVER_TLS);
    for (const peer of peers) expect((await pathsOf(peer))[0]).toMatch(/^tls /);
  });
});

test('a peer that dials one who has not been told of it yet is refused, and dials again', async () => {
  const coordinator = await Coordinator.listen({ port: 0, ...ALWAYS });
  // What the coordinator tells the member comes late, so that the newcomer knows it first.
  const middle = await standBefore(parseTcpAddress(coordinator.address).port, { delayMs: 100 });
  try {
    const transports = ['tcp', 'webrtc'] as const;
    const options: JoinOptions = { ...ALWAYS, transports, engine: 'inline', timeout: BOUND_MS };
    const member = await join(`tcp://127.0.0.1:${middle.port}`, options);
    const refused: string[] = [];
    member.on('refused', ({ reason }) => refused.push(reason));
    const coming = join(coordinator.address, options);
    while (member.worldSize < 2) await member.admit();
    const newcomer = await coming;
    const tensors = [member, newcomer].map(async (group) => {
      const tensor = Float32Array.of(group.rank + 1);
      await group.allReduce(tensor);
      const { links } = await group.status();
      return { sum: tensor[0], path: links[0]?.path, up: links[0]?.up };
    });
    for (const { sum, path, up } of await Promise.all(tensors)) {
      expect([sum, up]).toEqual([3, true]);
      // It was no reason to take a worse path.
      expect(path).toMatch(/^tls /);
    }
    expect(refused.join()).toContain('does not know the key');
    await Promise.all([member.leave(), newcomer.leave()]);
  } finally {
    await middle.close();
    await coordinator.close();
  }
});

describe('certificates', () => {
  test('of one authority carry a run; those of another are refused on either side', async (context) => {
    requireOpenssl(context);
    const [authority, other] = [new TestAuthority(), new TestAuthority()];
    const notes: string[] = [];
    const run = await cluster({ ...ALWAYS, ...authority.issue('127.0.0.1'), onNote: (line) => notes.push(line) });
    const peers = await run.form(2, { ...OVER_TLS, ...authority.issue('10.9.8.7') });
    for (const peer of peers) expect((await pathsOf(peer))[0]).toMatch(/^tls /);
    const bases = await basesOf(peers);
    const values = Object.values(bases);
    const results = await Promise.all(peers.map((peer, index) => reduce(peer, values[index]!, bases)));
    for (const { wrong, contributors } of results) expect([wrong, contributors.length]).toEqual([-1, 2]);

    const stranger: JoinOptions = { ...OVER_TLS, engine: 'inline', timeout: BOUND_MS };
    const address = run.coordinator.address;
    const unproved = await failure(join(address, { ...stranger, ...other.issue('127.0.0.1'), ca: authority.ca }));
    expect(unproved.code).toBe('SKEIN_CONNECT');
    expect(unproved.message).toContain('certificates');
    expect(notes.join()).toContain('it has no certificate of the given authority');
    const unbelieved = await failure(join(address, { ...stranger, ...other.issue('127.0.0.1') }));
    expect(unbelieved.code).toBe('SKEIN_UNAUTHORIZED');
    const without = await failure(join(address, stranger));
    expect(without.code).toBe('SKEIN_UNAUTHORIZED');
    expect(without.message).toContain('`cert`, `key` and `ca`');
  });
});

test('who has a good certificate, and stands between a peer and the coordinator, passes on proofs in vain', async (context) => {
  requireOpenssl(context);
  const authority = new TestAuthority();
  const certificates = authority.issue('127.0.0.1');
  const run = await cluster({ ...ALWAYS, ...authority.issue('127.0.0.1') });
  const { host, port } = parseTcpAddress(run.coordinator.address);
  const options = { acceptor: { certificates }, servesPlainLoopback: false, rate: null, onRefused: () => {} };
  const middle = await listenTls({ kind: 'tls', host, port: 0 }, options, (near) => {
    near.pause();
    const dialled = dialTls({ kind: 'tls', host, port }, { timeoutMs: BOUND_MS }, { certificates, checksHost: true });
    void dialled.then((far) => splice(near, far));
  });
  try {
    const victim: JoinOptions = { ...OVER_TLS, ...authority.issue('127.0.0.1'), engine: 'inline', timeout: BOUND_MS };
    const error = await failure(join(formatTcpAddress(middle.address), victim));
    expect(error.code).toBe('SKEIN_UNAUTHORIZED');
    expect(error.message).toContain('somebody stands in the middle');
    const group = await join(run.coordinator.address, victim);
    await group.leave();
  } finally {
    await middle.close();
  }
});

test('nothing is sent in the clear to another machine, whoever tells such an address', async (context) => {
  const outward = requireOutwardAddress(context);
  const run = await cluster({ token: TOKEN });
  const dials = new Map<string, number>();
  const servers = await Promise.all(
    [outward, '127.0.0.1'].map(async (host) => {
      const server = createServer((socket) => {
        dials.set(host, (dials.get(host) ?? 0) + 1);
        socket.destroy();
      });
      server.listen(0, host);
      await once(server, 'listening');
      return { server, address: { kind: 'tcp', host, port: (server.address() as AddressInfo).port } as const };
    }),
  );
  const told = servers.map(({ address }) => address);
  const hostile = await HostilePeer.join(run.coordinator.address, 'default', TOKEN, told);
  try {
    const options: JoinOptions = { token: TOKEN, transports: ['tcp'], engine: 'inline', timeout: BOUND_MS };
    const group = await join(run.coordinator.address, options);
    await group.leave();
    expect(dials.get('127.0.0.1')).toBeGreaterThan(0);
    expect(dials.get(outward)).toBeUndefined();
  } finally {
    await hostile.vanish();
    for (const { server } of servers) server.close();
  }
});

test('a refusal of TLS, which anybody in between can forge, costs no member its place', async () => {
  const first = await Coordinator.listen({ port: 0, ...ALWAYS });
  const { host, port } = parseTcpAddress(first.address);
  const member = await join(first.address, { ...OVER_TLS, engine: 'inline', timeout: BOUND_MS });
  const { peerId } = member;
  const back = new Promise((resolve) => member.on('coordinator-back', resolve));
  await first.close();
  let refusals = 0;
  const refusedTwice = new Promise<void>((resolve) => {
    const onRefused = () => {
      refusals += 1;
      if (refusals === 2) resolve();
    };
    const options = { acceptor: { keyOf: () => null }, servesPlainLoopback: false, rate: null, onRefused };
    void listenTls({ kind: 'tls', host, port }, options, () => {}).then((forger) => {
      void refusedTwice.then(() => forger.close());
    });
  });
  await refusedTwice;
  const second = await listenAgain(port);
  try {
    await back;
    expect((await member.admit()).worldSize).toBe(1);
    expect(member.peerId).toBe(peerId);
    await member.leave();
  } finally {
    await second.close();
  }
});

/** A port is free again when the last of its connections is gone. */
async function listenAgain(port: number): Promise<Coordinator> {
  for (let attempt = 0; ; attempt++) {
    try {
      return await Coordinator.listen({ port, ...ALWAYS });
    } catch (error) {
      if (attempt === 100) throw error;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
}

describe('options', () => {
  const pem = { cert: 'c', key: 'k', ca: 'a' };

  test.each([
    ['an encryption that there is not', { encryption: 'never' as never }, 'off-loopback, always'],
    ['encryption without anything to take keys from', { encryption: 'always' as const }, 'give a `token`'],
    ['a certificate without its key', { cert: 'c', ca: 'a' }, 'go together'],
    ['an authority alone', { ca: 'a' }, 'go together'],
    ['certificates that are none', pem, "can't be used for TLS"],
  ])('%s is refused before anything is dialled or opened', async (_, options, text) => {
    expect(() => resolveSecurity(options, '')).toThrow(ArgumentError);
    await expect(join('tcp://127.0.0.1:1', options)).rejects.toThrow(text);
    await expect(Coordinator.listen({ port: 0, ...options })).rejects.toThrow(text);
  });

  test('a key that belongs to another certificate is refused', (context) => {
    requireOpenssl(context);
    const authority = new TestAuthority();
    const [one, two] = [authority.issue('127.0.0.1'), authority.issue('127.0.0.1')];
    expect(() => resolveSecurity({ ...one, key: two.key }, '')).toThrow(ArgumentError);
    expect(resolveSecurity({ ...one }, '')).toEqual({ encryption: 'off-loopback', certificates: one });
  });
});
