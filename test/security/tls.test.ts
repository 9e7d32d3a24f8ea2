/** What TLS keeps out: strangers, other keys, certificates of other authorities, and whoever stands in the middle. */
import { randomBytes } from 'node:crypto';
import { connect, type Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { ConnectError, UnauthorizedError } from '../../src/errors.ts';
import { systemClock } from '../../src/transport/clock.ts';
import { acceptHandshake, dialHandshake } from '../../src/transport/handshake.ts';
import { controlPsk, type Psk, pairPsk } from '../../src/transport/psk.ts';
import { tcpTransport } from '../../src/transport/tcp.ts';
import { dialTls, type TlsAcceptor, type TlsDialer } from '../../src/transport/tls.ts';
import { listenTls } from '../../src/transport/tls-listener.ts';
import type { Connection, Listener } from '../../src/transport/transport.ts';
import { HANDSHAKE_TIMEOUT_MS } from '../../src/wire/limits.ts';
import { TestAuthority } from '../harness/certificates.ts';
import { requireOpenssl } from '../harness/requirements.ts';
import { type Speaker, splice, standBefore } from './middle.ts';

const HOST = '127.0.0.1';
const WORLD = { clock: systemClock, random: (length: number) => new Uint8Array(randomBytes(length)) };

const closing: (() => unknown)[] = [];

afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
});

function psk(identity: string): Psk {
  return { identity, key: new Uint8Array(randomBytes(32)) };
}

interface Port {
  readonly port: number;
  readonly accepted: readonly Connection[];
  readonly refused: readonly string[];
  /** Resolves with the next connection that is let in. */
  next(): Promise<Connection>;
  /** Resolves when so many were turned away. */
  refusals(count: number): Promise<readonly string[]>;
}

async function listen(acceptor: TlsAcceptor, servesPlainLoopback = false): Promise<Port> {
  const accepted: Connection[] = [];
  const refused: string[] = [];
  const wakers = new Set<() => void>();
  const wake = () => {
    for (const waker of [...wakers]) waker();
  };
  const until = async (holds: () => boolean) => {
    while (!holds()) await new Promise<void>((resolve) => wakers.add(resolve));
  };
  const onRefused = (reason: string) => {
    refused.push(reason);
    wake();
  };
  const options = { acceptor, servesPlainLoopback, rate: null, onRefused };
  const listener: Listener = await listenTls({ kind: 'tls', host: HOST, port: 0 }, options, (connection) => {
    connection.pause();
    accepted.push(connection);
    wake();
  });
  closing.push(() => {
    for (const connection of accepted) connection.destroy();
    return listener.close();
  });
  const { address } = listener;
  if (address.kind !== 'tls') throw new Error('it listens for TLS');
  return {
    port: address.port,
    accepted,
    refused,
    async next() {
      const before = accepted.length;
      await until(() => accepted.length > before);
      return accepted[before]!;
    },
    async refusals(count) {
      await until(() => refused.length >= count);
      return refused;
    },
  };
}

async function dial(port: number, dialer: TlsDialer): Promise<Connection> {
  const connection = await dialTls({ kind: 'tls', host: HOST, port }, { timeoutMs: 5_000 }, dialer);
  closing.push(() => connection.destroy());
  return connection;
}

/** What arrives at one end, as text, and how it closed. */
function listenTo(connection: Connection) {
  const heard = { text: '', closed: false, error: undefined as Error | undefined };
  let wake = () => {};
  connection.handler = {
    onData: (bytes) => {
      heard.text += Buffer.from(bytes).toString('latin1');
      wake();
    },
    onEnd: () => {
      connection.end();
      wake();
    },
    onClose: (error) => {
      heard.closed = true;
      heard.error = error;
      wake();
    },
  };
  connection.resume();
  const until = async (holds: () => boolean) => {
    while (!holds()) {
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
    }
  };
  return Object.assign(heard, { until });
}

function say(connection: Connection, text: string): void {
  connection.write(new Uint8Array(Buffer.from(text)), null, null);
}

describe('a pre-shared key', () => {
  test('that both ends have lets bytes through, and gives both the same binding, another one on each connection', async () => {
    const shared = psk('one');
    const port = await listen({ keyOf: (identity) => (identity === 'one' ? shared.key : null) });
    const bindings: string[] = [];
    for (let count = 0; count < 2; count++) {
      const arrival = port.next();
      const near = await dial(port.port, { psk: shared });
      const far = await arrival;
      expect(near.binding).toHaveLength(32);
      expect(far.binding).toEqual(near.binding);
      expect(near.remote).toBe(`tls ${HOST}:${port.port}`);
      expect(far.remote).toMatch(/^tls 127\.0\.0\.1:\d+$/);
      bindings.push(Buffer.from(near.binding).toString('hex'));
      const heard = listenTo(far);
      say(near, 'hello');
      await heard.until(() => heard.text === 'hello');
    }
    expect(bindings[0]).not.toBe(bindings[1]);
    expect(port.refused).toEqual([]);
  });

  test.each([
    ['another key for the same identity', { identity: 'one', key: new Uint8Array(32).fill(1) }],
    ['an identity that nobody has', { identity: 'two', key: new Uint8Array(32).fill(1) }],
    ['the longest identity', { identity: 'x'.repeat(128), key: new Uint8Array(32).fill(1) }],
  ])('%s is refused, and both sides are told', async (_, wrong) => {
    const shared = psk('one');
    const port = await listen({ keyOf: (identity) => (identity === 'one' ? shared.key : null) });
    const attempt = dial(port.port, { psk: wrong });
    await expect(attempt).rejects.toThrow(UnauthorizedError);
    await expect(attempt).rejects.toThrow('the keys differ');
    const [line] = await port.refusals(1);
    expect(line).toMatch(/^tls 127\.0\.0\.1:\d+ was refused: it does not know the key/);
    expect(port.accepted).toEqual([]);
    await dial(port.port, { psk: shared });
  });

  test('is not given up for a certificate', async (context) => {
    requireOpenssl(context);
    const port = await listen({ certificates: new TestAuthority().issue(HOST) });
    const attempt = dial(port.port, { psk: psk('one') });
    await expect(attempt).rejects.toThrow(UnauthorizedError);
    await expect(attempt).rejects.toThrow('it shows a certificate');
  });

  test('is not given up for an earlier session: none is kept', async () => {
    const shared = psk('one');
    const keys = new Map([['one', shared.key]]);
    const port = await listen({ keyOf: (identity) => keys.get(identity) ?? null });
    const settings = { host: HOST, port: port.port, ca: [], checkServerIdentity: () => undefined };
    const first = connectTls({ ...settings, pskCallback: () => ({ identity: 'one', psk: shared.key }) });
    closing.push(() => first.destroy());
    first.resume();
    const session = await new Promise<Buffer>((resolve) => first.once('session', resolve));
    keys.clear();
    const again = connectTls({ ...settings, session });
    const outcome = await new Promise((resolve) => {
      again.once('error', () => resolve('refused'));
      again.once('secureConnect', () => resolve('let in'));
    });
    again.destroy();
    expect(outcome).toBe('refused');
    expect(port.accepted).toHaveLength(1);
  });

  test('is used with TLS 1.3 only', async () => {
    const shared = psk('one');
    const port = await listen({ keyOf: () => shared.key });
    const socket = connectTls({
      host: HOST,
      port: port.port,
      maxVersion: 'TLSv1.2',
      ciphers: 'PSK-AES128-GCM-SHA256:ECDHE-PSK-CHACHA20-POLY1305',
      pskCallback: () => ({ identity: 'one', psk: shared.key }),
    });
    const error = await new Promise<Error>((resolve) => socket.once('error', resolve));
    expect(error.message).toMatch(/version/);
    expect(port.accepted).toEqual([]);
    expect(await port.refusals(1)).toHaveLength(1);
  });

  test('of a pair differs from that of the other direction, of any other pair, and of the token', () => {
    const [ab, other] = [new Uint8Array(32).fill(1), new Uint8Array(32).fill(2)];
    const all = [
      pairPsk(ab, 'a', 'b'),
      pairPsk(ab, 'b', 'a'),
      pairPsk(other, 'a', 'b'),
      pairPsk(ab, 'a', 'b'.repeat(256)),
      controlPsk('', 'token'),
    ];
    expect(new Set(all.map(({ key }) => Buffer.from(key).toString('hex'))).size).toBe(all.length);
    expect(new Set(all.map(({ identity }) => identity)).size).toBe(all.length);
    expect(controlPsk('', 'token')).toEqual(controlPsk('', 'token'));
    expect(controlPsk('', 'token2').key).not.toEqual(controlPsk('', 'token').key);
    for (const { key, identity } of all) {
      expect(key).toHaveLength(32);
      expect(Buffer.byteLength(identity)).toBeLessThanOrEqual(128);
      expect(identity).not.toContain(Buffer.from(key).toString('hex').slice(0, 8));
    }
  });
});

describe('certificates', () => {
  let authority: TestAuthority;
  let other: TestAuthority;

  beforeEach((context) => {
    requireOpenssl(context);
    authority ??= new TestAuthority();
    other ??= new TestAuthority();
  });

  test('of one authority let bytes through, whatever address the dialling end’s is made out for', async () => {
    const port = await listen({ certificates: authority.issue(HOST) });
    const arrival = port.next();
    const near = await dial(port.port, { certificates: authority.issue('10.9.8.7'), checksHost: true });
    const far = await arrival;
    expect(far.binding).toEqual(near.binding);
    const heard = listenTo(near);
    say(far, 'hello');
    await heard.until(() => heard.text === 'hello');
  });

  test('the dialling end’s must be of the authority that the accepting end was given', async () => {
    const port = await listen({ certificates: authority.issue(HOST) });
    const mine = other.issue(HOST);
    // It believes the accepting end, and can prove nothing to it.
    const near = await dial(port.port, { certificates: { ...mine, ca: authority.ca }, checksHost: true });
    const heard = listenTo(near);
    await heard.until(() => heard.closed);
    const [line] = await port.refusals(1);
    expect(line).toMatch(/was refused: it has no certificate of the given authority/);
    expect(port.accepted).toEqual([]);
  });

  test('the accepting end’s must be of the authority that the dialling end was given', async () => {
    const port = await listen({ certificates: { ...other.issue(HOST), ca: authority.ca } });
    const attempt = dial(port.port, { certificates: authority.issue(HOST), checksHost: false });
    await expect(attempt).rejects.toThrow(UnauthorizedError);
    await expect(attempt).rejects.toThrow('check `ca`');
    expect(port.accepted).toEqual([]);
  });

  test('the accepting end’s must be made out for the host, where that is asked', async () => {
    const port = await listen({ certificates: authority.issue('10.9.8.7') });
    const certificates = authority.issue(HOST);
    await expect(dial(port.port, { certificates, checksHost: true })).rejects.toThrow(UnauthorizedError);
    await dial(port.port, { certificates, checksHost: false });
  });

  test('nobody comes in without one', async () => {
    const port = await listen({ certificates: authority.issue(HOST) });
    const socket = connectTls({ host: HOST, port: port.port, ca: authority.ca });
    socket.on('error', () => {});
    await new Promise((resolve) => socket.once('close', resolve));
    const [line] = await port.refusals(1);
    expect(line).toMatch(/was refused/);
    expect(port.accepted).toEqual([]);
  });

  test('are not given up for a pre-shared key', async () => {
    const port = await listen({ keyOf: () => new Uint8Array(32) });
    const attempt = dial(port.port, { certificates: authority.issue(HOST), checksHost: true });
    await expect(attempt).rejects.toThrow(UnauthorizedError);
    expect(port.accepted).toEqual([]);
  });
});

describe('a stranger at the port', () => {
  async function speak(port: number, bytes: Uint8Array): Promise<void> {
    await new Promise<void>((resolve) => {
      const socket: Socket = connect({ host: HOST, port, allowHalfOpen: true }, () => socket.write(bytes));
      socket.on('error', () => {});
      socket.on('data', () => {});
      socket.on('close', () => resolve());
      socket.on('end', () => socket.end());
    });
  }

  test.each([
    ['a browser', Buffer.from('GET / HTTP/1.1\r\nHost: x\r\n\r\n'), /does not speak TLS/],
    ['a peer that speaks in the clear', Buffer.from([80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]), /does not speak TLS/],
    ['a message as long as a TLS record begins', Buffer.from([0x16, 3, 0, 0, 0, 0, 0, 0]), /does not speak TLS/],
    ['a single wrong byte', Buffer.from([0]), /does not speak TLS/],
    ['a record that is too long for a greeting', Buffer.from([0x16, 3, 1, 0x10, 1, 1]), /begins with too much/],
    ['garbage that begins like TLS', Buffer.concat([Buffer.from([0x16, 3, 1, 2, 0, 1]), randomBytes(600)]), /refused/],
  ])('%s is refused with a line that says why, and others come in', async (_, bytes, reason) => {
    const shared = psk('one');
    const port = await listen({ keyOf: () => shared.key });
    await speak(port.port, bytes);
    const [line] = await port.refusals(1);
    expect(line).toMatch(/^tls 127\.0\.0\.1:\d+ was refused: /);
    expect(line).toMatch(reason);
    expect(port.accepted).toEqual([]);
    await dial(port.port, { psk: shared });
    expect(port.refused).toHaveLength(1);
  });

  test('is refused in the clear over loopback, too, unless that is served', async () => {
    const shared = psk('one');
    const acceptor = { keyOf: () => shared.key };
    const mixed = await listen(acceptor, true);
    const arrival = mixed.next();
    const plain = await tcpTransport.dial({ kind: 'tcp', host: HOST, port: mixed.port }, { timeoutMs: 5_000 });
    closing.push(() => plain.destroy());
    // Not even a message that is sent byte by byte is taken for something else.
    for (const byte of [0x16, 3, 0, 7]) {
      plain.write(Uint8Array.of(byte), null, null);
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    const far = await arrival;
    expect(far.binding).toHaveLength(0);
    expect(far.remote).toMatch(/^tcp /);
    const heard = listenTo(far);
    await heard.until(() => heard.text === '\x16\x03\x00\x07');
    const encrypted = await dial(mixed.port, { psk: shared });
    expect(encrypted.binding).toHaveLength(32);
  });

  test('that goes away in the middle of the handshake is told of', async () => {
    const shared = psk('one');
    const port = await listen({ keyOf: () => shared.key });
    const middle = await relay(port.port, (bytes, from) => (from === 'listener' ? Buffer.alloc(0) : bytes));
    const attempt = dialTls({ kind: 'tls', host: HOST, port: middle }, { timeoutMs: 200 }, { psk: shared });
    await expect(attempt).rejects.toThrow(ConnectError);
    const lines = await port.refusals(1);
    expect(lines).toEqual([expect.stringMatching(/^tls 127.*: it closed the connection during the TLS handshake\.$/)]);
  });

  test('who says nothing is refused in the end', { timeout: 3 * HANDSHAKE_TIMEOUT_MS }, async () => {
    const shared = psk('one');
    const port = await listen({ keyOf: () => shared.key });
    const silent = connect({ host: HOST, port: port.port });
    const half = connect({ host: HOST, port: port.port }, () => half.write(Buffer.from([0x16, 3, 1, 2, 0, 1])));
    const gone = [silent, half].map((socket) => new Promise((resolve) => socket.once('close', resolve)));
    for (const socket of [silent, half]) socket.on('error', () => {}).resume();
    // Of one that knows the key, only the first word arrives.
    let words = 0;
    const middle = await relay(port.port, (bytes, from) => {
      if (from === 'listener') return bytes;
      words += 1;
      return words === 1 ? bytes : Buffer.alloc(0);
    });
    await dial(middle, { psk: shared });
    await Promise.all(gone);
    const lines = await port.refusals(3);
    expect(lines).toHaveLength(3);
    expect(lines.filter((line) => line.includes('it did not say in time what it wants'))).toHaveLength(2);
    expect(lines.filter((line) => line.includes('its TLS handshake took too long'))).toHaveLength(1);
    expect(port.accepted).toEqual([]);
  });
});

/** Its port, in front of another one. */
async function relay(target: number, change: (bytes: Buffer, from: Speaker) => Buffer): Promise<number> {
  const middle = await standBefore(target, { change });
  closing.push(() => middle.close());
  return middle.port;
}

describe('who stands in the middle', () => {
  const SECRET = 'a tensor that nobody else may read';

  test('reads nothing of what it passes on', async () => {
    const shared = psk('one');
    const port = await listen({ keyOf: () => shared.key });
    const seen: Buffer[] = [];
    const middle = await relay(port.port, (bytes) => {
      seen.push(Buffer.from(bytes));
      return bytes;
    });
    const arrival = port.next();
    const near = await dial(middle, { psk: shared });
    const far = await arrival;
    expect(far.binding).toEqual(near.binding);
    const heard = listenTo(far);
    for (let count = 0; count < 20; count++) say(near, SECRET);
    await heard.until(() => heard.text === SECRET.repeat(20));
    const all = Buffer.concat(seen);
    expect(all.length).toBeGreaterThan(20 * SECRET.length);
    for (let at = 0; at + 6 <= SECRET.length; at++) expect(all.includes(SECRET.slice(at, at + 6))).toBe(false);
    expect(all.includes(Buffer.from(shared.key))).toBe(false);
  });

  test.each([
    ['dialler', 0],
    ['dialler', 40],
    ['listener', 40],
  ] as const)(
    'ends the connection by changing one byte of what the %s says (%i bytes from the end)',
    async (victim, fromEnd) => {
      const shared = psk('one');
      const port = await listen({ keyOf: () => shared.key });
      let armed = false;
      const middle = await relay(port.port, (bytes, from) => {
        if (!armed || from !== victim) return bytes;
        armed = false;
        const changed = Buffer.from(bytes);
        changed[changed.length - 1 - Math.min(fromEnd, changed.length - 6)]! ^= 1;
        return changed;
      });
      const arrival = port.next();
      const near = await dial(middle, { psk: shared });
      const far = await arrival;
      const [speaker, listener] = victim === 'dialler' ? [near, far] : [far, near];
      const heard = listenTo(listener);
      const other = listenTo(speaker);
      say(speaker, SECRET);
      await heard.until(() => heard.text === SECRET);
      armed = true;
      say(speaker, SECRET);
      await Promise.all([heard.until(() => heard.closed), other.until(() => other.closed)]);
      expect(heard.text).toBe(SECRET);
      expect(heard.error).toBeInstanceOf(Error);
    },
  );

  /** The handshake of a data connection from a to b, whose bytes somebody passes on between two connections. */
  async function handshakes(key: Uint8Array, dialler: Connection, acceptor: Connection) {
    const identity = { run: 'run', from: 'a', to: 'b', session: 1, lane: 'inbound', key } as const;
    return Promise.allSettled([
      dialHandshake(dialler, identity, WORLD),
      acceptHandshake(acceptor, { run: 'run', peerId: 'b' }, async () => key, WORLD),
    ]);
  }

  test('and has keys for both sides, passes on a handshake in vain: proofs are bound to the connection', async () => {
    const [withA, withB] = [psk('a dials'), psk('dials b')];
    const own = await listen({ keyOf: () => withA.key });
    const b = await listen({ keyOf: () => withB.key });
    const toMiddle = own.next();
    const toB = b.next();
    const dialler = await dial(own.port, { psk: withA });
    const onward = await dial(b.port, { psk: withB });
    splice(await toMiddle, onward);
    const acceptor = await toB;
    acceptor.resume();
    const key = new Uint8Array(randomBytes(32));
    const [dialled, accepted] = await handshakes(key, dialler, acceptor);
    expect(dialled.status === 'rejected' && dialled.reason).toBeInstanceOf(UnauthorizedError);
    expect(accepted.status === 'rejected' && accepted.reason).toBeInstanceOf(ConnectError);
  });

  test('would succeed with the same on unprotected connections, which is why these stay on the machine', async () => {
    const [own, b] = [await plainPort(), await plainPort()];
    const dialler = await dialPlain(own.port);
    splice(await own.next, await dialPlain(b.port));
    const acceptor = await b.next;
    acceptor.resume();
    const outcomes = await handshakes(new Uint8Array(randomBytes(32)), dialler, acceptor);
    expect(outcomes.map(({ status }) => status)).toEqual(['fulfilled', 'fulfilled']);
  });

  async function plainPort() {
    let arrived: (connection: Connection) => void = () => {};
    const next = new Promise<Connection>((resolve) => {
      arrived = resolve;
    });
    const listener = await tcpTransport.listen({ kind: 'tcp', host: HOST, port: 0 }, (connection) => {
      connection.pause();
      closing.push(() => connection.destroy());
      arrived(connection);
    });
    closing.push(() => void listener.close());
    if (listener.address.kind !== 'tcp') throw new Error('it listens for TCP');
    return { port: listener.address.port, next };
  }

  async function dialPlain(port: number): Promise<Connection> {
    const connection = await tcpTransport.dial({ kind: 'tcp', host: HOST, port }, { timeoutMs: 5_000 });
    closing.push(() => connection.destroy());
    return connection;
  }
});
