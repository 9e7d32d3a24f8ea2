/** What strangers can't take from a run: its ports, its time, and the attention of whoever reads its notes. */
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { afterEach, describe, expect, test } from 'vitest';
import { Coordinator, type CoordinatorListenOptions, type JoinOptions, join } from '../../src/index.ts';
import { formatTcpAddress, parseTcpAddress } from '../../src/transport/address.ts';
import { OriginRate } from '../../src/transport/rate.ts';
import { listenTls } from '../../src/transport/tls-listener.ts';
import { MAX_UNAUTHENTICATED, MAX_UNAUTHENTICATED_PER_ORIGIN } from '../../src/wire/limits.ts';
import { requireOutwardAddress } from '../harness/requirements.ts';
import { standBefore } from './middle.ts';

const TOKEN = 'a token of this test';

/** More than may be on their way in at once. */
const SILENT: number = MAX_UNAUTHENTICATED + 100;

/** So long may a join take, whoever else is at the door (ms). */
const JOIN_MS = 1_000;

const closing: (() => unknown)[] = [];

afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
});

async function listen(options: CoordinatorListenOptions) {
  const notes: string[] = [];
  const coordinator = await Coordinator.listen({ port: 0, ...options, onNote: (line) => notes.push(line) });
  closing.push(() => coordinator.close());
  return { address: coordinator.address, notes };
}

/** Opens connections and says nothing, or something that is not the end of it. */
async function hold(address: string, count: number, says: Uint8Array | null = null): Promise<Socket[]> {
  const { host, port } = parseTcpAddress(address);
  const sockets = Array.from({ length: count }, () =>
    connect({ host, port })
      .on('error', () => {})
      .resume(),
  );
  closing.push(() => {
    for (const socket of sockets) socket.destroy();
  });
  await Promise.all(sockets.map((socket) => once(socket, 'connect')));
  if (says !== null) for (const socket of sockets) socket.write(says);
  return sockets;
}

/** Resolves when the other side has closed it. */
function gone(socket: Socket): Promise<void> {
  return new Promise((resolve) => {
    if (socket.destroyed) resolve();
    else socket.once('close', () => resolve());
  });
}

/** Joins alone, and tells how long that took (ms). */
async function joinAlone(address: string, options: JoinOptions): Promise<number> {
  const startedAt = performance.now();
  const group = await join(address, { engine: 'inline', transports: ['tcp'], timeout: 20_000, ...options });
  const took = performance.now() - startedAt;
  await group.leave();
  return took;
}

describe('a newcomer comes in at once', () => {
  const always = { token: TOKEN, encryption: 'always' } as const;

  test.each<[string, CoordinatorListenOptions & JoinOptions, Uint8Array | null]>([
    ['silent connections in the clear', {}, null],
    ['silent connections in the clear, with a token', { token: TOKEN }, null],
    ['silent connections to a port of TLS', always, null],
    ['TLS handshakes that do not go on', always, Uint8Array.of(0x16, 3, 1, 2, 0, 1)],
    ['greetings that do not go on', { token: TOKEN }, Uint8Array.of(200, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)],
  ])('beside more %s than may wait', async (_, options, says) => {
    const { address } = await listen(options);
    await joinAlone(address, options); // its code is loaded and compiled
    const sockets = await hold(address, SILENT, says);
    expect(await joinAlone(address, options)).toBeLessThan(JOIN_MS);
    // They are still there, or there was nothing to come past.
    expect(sockets.filter((socket) => !socket.destroyed).length).toBeGreaterThan(MAX_UNAUTHENTICATED / 2);
  });

  test('from an address all of whose places are taken, and others of it lose theirs', async (context) => {
    const host = requireOutwardAddress(context);
    const options = { token: TOKEN };
    const { address, notes } = await listen({ ...options, host });
    await joinAlone(address, options);
    const sockets = await hold(address, MAX_UNAUTHENTICATED_PER_ORIGIN + 50);
    await Promise.all(sockets.slice(0, 50).map(gone));
    expect(sockets.slice(50).every((socket) => !socket.destroyed)).toBe(true);
    expect(await joinAlone(address, options)).toBeLessThan(JOIN_MS);
    // Fifty were refused, and the reader of the notes can see that without being buried in lines.
    const lines = notes.filter((line) => line.includes('when too many others came'));
    expect(lines.length).toBeGreaterThan(0);
    expect(lines.length).toBeLessThan(30);
  });
});

test('a newcomer that is turned away unheard tries again', async () => {
  const options = { token: TOKEN, encryption: 'always' } as const;
  const { address } = await listen(options);
  const middle = await standBefore(parseTcpAddress(address).port, { closesFirst: 3 });
  closing.push(() => middle.close());
  await joinAlone(`tcp://127.0.0.1:${middle.port}`, options);
  const never = await standBefore(parseTcpAddress(address).port, { closesFirst: 1_000 });
  closing.push(() => never.close());
  await expect(joinAlone(`tcp://127.0.0.1:${never.port}`, options)).rejects.toMatchObject({ code: 'SKEIN_CONNECT' });
});

test('a coordinator that closes does not wait for those who have not come in yet', async () => {
  const coordinator = await Coordinator.listen({ port: 0, token: TOKEN, encryption: 'always' });
  const sockets = await hold(coordinator.address, 10);
  const allGone = Promise.all(sockets.map(gone));
  const startedAt = performance.now();
  await coordinator.close();
  expect(performance.now() - startedAt).toBeLessThan(JOIN_MS);
  await allGone;
});

test('whoever comes too often from one address is refused with a line that says so', async (context) => {
  const host = requireOutwardAddress(context);
  const refused: string[] = [];
  const options = {
    acceptor: { keyOf: () => null },
    servesPlainLoopback: false,
    rate: { burst: 3, perSecond: 0.001 },
    onRefused: (reason: string) => refused.push(reason),
  };
  const listener = await listenTls({ kind: 'tls', host, port: 0 }, options, () => {});
  closing.push(() => listener.close());
  const sockets = await hold(formatTcpAddress(listener.address), 5);
  await Promise.all(sockets.slice(3).map(gone));
  expect(sockets.filter((socket) => !socket.destroyed)).toHaveLength(3);
  expect(refused).toHaveLength(2);
  for (const line of refused) expect(line).toMatch(`tls ${host}:`);
  for (const line of refused) expect(line).toContain('its address came too often');
});

test('off loopback, a run goes over TLS without being asked to', async (context) => {
  const host = requireOutwardAddress(context);
  const { address } = await listen({ token: TOKEN, host });
  const options = { token: TOKEN, engine: 'inline', transports: ['tcp'], timeout: 20_000, startWorldSize: 2 } as const;
  const groups = await Promise.all([join(address, options), join(address, options)]);
  for (const group of groups) {
    const { links } = await group.status();
    expect(links.map(({ path }) => path)).toEqual([expect.stringMatching(`^tls ${host}:`)]);
  }
  const tensors = await Promise.all(
    groups.map(async (group) => {
      const tensor = new Float32Array(100_000).fill(group.rank + 1);
      await group.allReduce(tensor);
      return tensor;
    }),
  );
  for (const tensor of tensors) expect(tensor.every((value) => value === 3)).toBe(true);
  await Promise.all(groups.map((group) => group.leave()));
});

describe('the rate of one origin', () => {
  test('is as many as the burst, and then as many as the time allows', () => {
    let now = 0;
    const rate = new OriginRate({ burst: 3, perSecond: 2 }, () => now);
    const take = (origin: string) => rate.take(origin);
    expect([take('a'), take('a'), take('a'), take('a')]).toEqual([true, true, true, false]);
    expect(take('b')).toBe(true);
    now += 499;
    expect(take('a')).toBe(false);
    now += 1;
    expect([take('a'), take('a')]).toEqual([true, false]);
    now += 60_000;
    expect([take('a'), take('a'), take('a'), take('a')]).toEqual([true, true, true, false]);
  });

  test('is forgotten for those who came longest ago when there are too many', () => {
    const rate = new OriginRate({ burst: 1, perSecond: 0.001 }, () => 0);
    expect([rate.take('first'), rate.take('first')]).toEqual([true, false]);
    for (let other = 0; other < 4_095; other++) rate.take(`other ${other}`);
    expect(rate.take('first')).toBe(false);
    for (let other = 0; other < 4_096; other++) rate.take(`another ${other}`);
    expect(rate.take('first')).toBe(true);
  });
});
