/** What strangers can't take from a coordinator's HTTP port: the same limits hold there as on its other ports. */
import { once } from 'node:events';
import { createServer } from 'node:http';
import { connect, type Socket } from 'node:net';
import { afterEach, describe, expect, test } from 'vitest';
import { Coordinator, type CoordinatorListenOptions, join } from '../../src/index.ts';
import { HttpEntrance } from '../../src/transport/http-entrance.ts';
import { Lobby } from '../../src/transport/lobby.ts';
import {
  HANDSHAKE_TIMEOUT_MS,
  MAX_HANDSHAKE_BYTES,
  MAX_UNAUTHENTICATED,
  MAX_UNAUTHENTICATED_PER_ORIGIN,
} from '../../src/wire/limits.ts';
import { TestAuthority } from '../harness/certificates.ts';
import { requireOpenssl, requireOutwardAddress } from '../harness/requirements.ts';

const TOKEN = 'a token of this test';

/** More than may be on their way in at once. */
const MANY: number = MAX_UNAUTHENTICATED + 100;

/** So long may a join take, whoever else is at the door (ms). */
const JOIN_MS = 1_000;

const closing: (() => unknown)[] = [];

afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
});

async function listen(options: CoordinatorListenOptions = {}) {
  const notes: string[] = [];
  const coordinator = await Coordinator.listen({
    port: 0,
    http: { port: 0 },
    token: TOKEN,
    ...options,
    onNote: (line) => notes.push(line),
  });
  closing.push(() => coordinator.close());
  const { hostname, port } = new URL(coordinator.httpAddress!); // it has one
  return { notes, host: hostname, port: Number(port), web: coordinator.httpAddress!.replace(/^http/, 'ws') };
}

const UPGRADE = [
  'GET / HTTP/1.1',
  'Host: x',
  'Connection: Upgrade',
  'Upgrade: websocket',
  'Sec-WebSocket-Version: 13',
  'Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==',
];

function lines(...text: readonly string[]): string {
  return `${text.join('\r\n')}\r\n\r\n`;
}

type Behaviour = 'silent' | 'half a request' | 'websocket';

/** Opens connections that then say no more. */
async function hold(host: string, port: number, count: number, behaviour: Behaviour): Promise<Socket[]> {
  const sockets: Socket[] = [];
  closing.push(() => {
    for (const socket of sockets) socket.destroy();
  });
  const opened = Array.from({ length: count }, () => connect({ host, port }).on('error', () => {}));
  sockets.push(...opened);
  await Promise.all(
    opened.map(async (socket) => {
      await once(socket, 'connect');
      if (behaviour === 'half a request') socket.write('GET / HTTP/1.1\r\nHost: x\r\n');
      if (behaviour === 'websocket') {
        const answer = once(socket, 'data');
        socket.write(lines(...UPGRADE));
        expect(String((await answer)[0])).toMatch(/^HTTP\/1\.1 101/);
      }
      socket.resume();
    }),
  );
  return sockets;
}

function open(sockets: readonly Socket[]): number {
  return sockets.filter((socket) => !socket.destroyed).length;
}

/** Joins alone, three times, and tells how long the fastest took (ms): one who had to wait for others would each time wait for seconds. */
async function joinAlone(web: string): Promise<number> {
  let best = Number.POSITIVE_INFINITY;
  for (let time = 0; time < 3; time++) {
    const startedAt = performance.now();
    const group = await join(web, { token: TOKEN, engine: 'inline', transports: ['tcp'], timeout: 20_000 });
    best = Math.min(best, performance.now() - startedAt);
    await group.leave();
  }
  return best;
}

describe('a newcomer comes in at once by WebSocket', () => {
  test.each<Behaviour>(['silent', 'half a request', 'websocket'])(
    'beside more who are %s than may wait',
    async (how) => {
      const { host, port, web } = await listen();
      await joinAlone(web); // its code is loaded and compiled
      const sockets = await hold(host, port, MANY, how);
      expect(await joinAlone(web)).toBeLessThan(JOIN_MS);
      // They are still there, or there was nothing to come past.
      expect(open(sockets)).toBeGreaterThan(MAX_UNAUTHENTICATED / 2);
      expect(open(sockets)).toBeLessThanOrEqual(MAX_UNAUTHENTICATED);
    },
  );

  test('from an address all of whose places are taken, whatever those who have them do', async (context) => {
    const host = requireOutwardAddress(context);
    const { port, web, notes } = await listen({ host });
    await joinAlone(web);
    const silent = await hold(host, port, MAX_UNAUTHENTICATED_PER_ORIGIN - 20, 'silent');
    const upgraded = await hold(host, port, 70, 'websocket');
    await expect.poll(() => open(silent) + open(upgraded)).toBe(MAX_UNAUTHENTICATED_PER_ORIGIN);
    expect(open(upgraded)).toBe(70);
    expect(await joinAlone(web)).toBeLessThan(JOIN_MS);
    const told = notes.filter((line) => line.includes('when too many others came'));
    expect(told.length).toBeGreaterThan(0);
    expect(told.length).toBeLessThan(30);
  });
});

test('an address that comes too often is refused, with a line that says so', async (context) => {
  const host = requireOutwardAddress(context);
  const refused: string[] = [];
  const lobby = new Lobby({ total: 100, perOrigin: 100 });
  const rate = { burst: 3, perSecond: 0.001 };
  const http = createServer();
  const entrance = new HttpEntrance(http, { certificate: null, lobby, rate, onRefused: (line) => refused.push(line) });
  const listener = await entrance.listen(host, 0);
  closing.push(() => listener.close());
  const sockets = await hold(host, listener.port, 5, 'silent');
  await expect.poll(() => open(sockets)).toBe(3);
  expect(refused).toHaveLength(2);
  for (const line of refused) expect(line).toMatch(/^http .* was refused: its address came too often\.$/);
});

test('whoever does not go on is closed when its time is over', { timeout: 20_000 }, async (context) => {
  requireOpenssl(context);
  const plain = await listen();
  const secure = await listen(new TestAuthority().issue('127.0.0.1'));
  const startedAt = performance.now();
  const sockets = [
    ...(await hold(plain.host, plain.port, 1, 'silent')),
    ...(await hold(plain.host, plain.port, 1, 'half a request')),
    ...(await hold(plain.host, plain.port, 1, 'websocket')),
    ...(await hold(secure.host, secure.port, 1, 'silent')),
  ];
  await Promise.all(sockets.map((socket) => once(socket, 'close')));
  expect(performance.now() - startedAt).toBeGreaterThan(HANDSHAKE_TIMEOUT_MS - 500);
  expect(plain.notes.filter((line) => line.includes('did not ask for anything in time'))).toHaveLength(2);
  expect(plain.notes.filter((line) => /^ws .* did not get in: the handshake took too long/.test(line))).toHaveLength(1);
  expect(secure.notes.filter((line) => line.includes('did not ask for anything in time'))).toHaveLength(1);
});

describe('a stranger may not say much', () => {
  test('in the head of a request', async () => {
    const { host, port, notes } = await listen();
    const [socket] = await hold(host, port, 1, 'silent');
    const answer = once(socket!, 'data');
    socket!.write(lines('GET / HTTP/1.1', `X: ${'x'.repeat(MAX_HANDSHAKE_BYTES)}`));
    expect(String((await answer)[0])).toMatch(/^HTTP\/1\.1 431/);
    await once(socket!, 'close');
    expect(notes).toEqual([expect.stringContaining("its request can't be read (HPE_HEADER_OVERFLOW)")]);
  });

  test('by WebSocket, in messages that do not end', async () => {
    const { host, port, notes } = await listen();
    const [socket] = await hold(host, port, 1, 'websocket');
    // A binary message of 60,000 bytes, masked with zeros, of which a third comes.
    socket!.write(Uint8Array.of(0x82, 0xfe, 0xea, 0x60, 0, 0, 0, 0));
    socket!.write(new Uint8Array(20_000));
    await once(socket!, 'close');
    await expect.poll(() => notes).toEqual([expect.stringMatching(/^ws .* did not get in/)]);
  });

  test('in a message of the handshake', async () => {
    const { host, port, notes } = await listen();
    const [socket] = await hold(host, port, 1, 'websocket');
    const length = Uint8Array.of(0xff, 0xff, 0, 0);
    socket!.write(Buffer.concat([Uint8Array.of(0x82, 0x80 | 12, 0, 0, 0, 0), length, new Uint8Array(8)]));
    await once(socket!, 'close');
    await expect.poll(() => notes).toEqual([expect.stringContaining('longer than the limit of 4096')]);
  });
});

test('a refused page or request is noted in one line', async () => {
  const { host, port, notes } = await listen({ token: '' });
  const ask = async (text: string) => {
    const [socket] = await hold(host, port, 1, 'silent');
    const answer = once(socket!, 'data');
    socket!.write(text);
    return String((await answer)[0]).split('\r\n')[0];
  };
  expect(await ask(lines(...UPGRADE, 'Origin: https://evil.example'))).toBe('HTTP/1.1 403 Forbidden');
  expect(await ask(lines(...UPGRADE.slice(0, 4)))).toBe('HTTP/1.1 400 Bad Request');
  expect(await ask('nonsense\r\n\r\n')).toBe('HTTP/1.1 400 Bad Request');
  expect(notes).toEqual([
    expect.stringContaining('pages of https://evil.example may not come here'),
    expect.stringContaining('it does not speak WebSocket'),
    expect.stringContaining("its request can't be read"),
  ]);
});
