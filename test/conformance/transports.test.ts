import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { ConnectError } from '../../src/errors.ts';
import { systemClock } from '../../src/transport/clock.ts';
import { MemoryNetwork, type Weather } from '../../src/transport/memory.ts';
import { nativeRtc, releaseNative } from '../../src/transport/rtc-native.ts';
import { tcpTransport } from '../../src/transport/tcp.ts';
import { dialTls, type TlsAcceptor, type TlsDialer } from '../../src/transport/tls.ts';
import { listenTls } from '../../src/transport/tls-listener.ts';
import type { Address, Connection, Transport } from '../../src/transport/transport.ts';
import { unixTransport } from '../../src/transport/unix.ts';
import { type Signal, WebRtcTransport } from '../../src/transport/webrtc.ts';
import { webSocketTransport } from '../../src/transport/websocket-node.ts';
import { TestAuthority } from '../harness/certificates.ts';
import { requireIPv6, requireOpenssl } from '../harness/requirements.ts';
import { describeTransport, type TransportUnderTest } from './suite.ts';

/** Sockets and servers that this process holds. */
function sockets(): number {
  return process.getActiveResourcesInfo().filter((name) => /TCP|TLS|Pipe/.test(name)).length;
}

function tcp(host: string): TransportUnderTest {
  return {
    transport: tcpTransport,
    address: () => ({ kind: 'tcp', host, port: 0 }),
    // Port 1 is privileged and unassigned in practice.
    nobody: () => ({ kind: 'tcp', host, port: 1 }),
    resources: sockets,
  };
}

function tlsOnly(address: Address): Extract<Address, { kind: 'tls' }> {
  if (address.kind !== 'tls') throw new ConnectError(`TLS can't use an address of kind ${address.kind}.`);
  return address;
}

function tls(acceptor: TlsAcceptor, dialer: TlsDialer): TransportUnderTest {
  const options = { acceptor, servesPlainLoopback: false, rate: null, onRefused: () => {} };
  const transport: Transport = {
    kind: 'tls',
    listen: async (address, onConnection) => listenTls(tlsOnly(address), options, onConnection),
    dial: async (address, options) => dialTls(tlsOnly(address), options, dialer),
  };
  return {
    transport,
    address: () => ({ kind: 'tls', host: '127.0.0.1', port: 0 }),
    nobody: () => ({ kind: 'tls', host: '127.0.0.1', port: 1 }),
    resources: sockets,
  };
}

function unixPath(): string {
  return join(tmpdir(), `skein-conformance-${process.pid}-${randomBytes(6).toString('hex')}.sock`);
}

function memory(weather: Partial<Weather>): () => TransportUnderTest {
  return () => {
    const seed = randomBytes(4).readUInt32LE();
    console.info(`memory network of seed ${seed}`);
    const network = new MemoryNetwork({ clock: systemClock, seed, weather });
    let names = 0;
    return {
      transport: network.transport('dialler'),
      address: () => ({ kind: 'memory', name: `listener-${names++}` }),
      nobody: () => ({ kind: 'memory', name: 'nobody' }),
      resources: () => network.openEnds,
    };
  };
}

/** Both ends are one transport; what it signals comes back to it, in order, as a coordinator would pass it on. */
function webrtc(): TransportUnderTest {
  const self = 'self';
  const deliver = (to: string, signal: Signal) => {
    if (to === self) transport.onSignal(self, signal);
    else if (signal.kind === 'offer') {
      transport.onSignal(to, {
        kind: 'end',
        session: signal.session,
        fromDialler: false,
        reason: 'there is no such peer',
      });
    }
  };
  const transport: WebRtcTransport = new WebRtcTransport({
    driver: nativeRtc,
    clock: systemClock,
    random: (length) => new Uint8Array(randomBytes(length)),
    signal: (to, signal) => void setImmediate(deliver, to, signal),
    iceServers: () => [],
  });
  return {
    transport,
    address: () => ({ kind: 'webrtc', peerId: self }),
    nobody: () => ({ kind: 'webrtc', peerId: 'nobody' }),
    resources: () => nativeRtc.openSessions,
  };
}

afterAll(() => releaseNative());

describeTransport('tcp, IPv4', () => tcp('127.0.0.1'));
describeTransport('tcp, IPv6', () => tcp('::1'), requireIPv6);
describeTransport('tls by a pre-shared key', () => {
  const key = new Uint8Array(randomBytes(32));
  return tls({ keyOf: () => key }, { psk: { identity: 'somebody', key } });
});
describeTransport(
  'tls by certificates',
  () => {
    const authority = new TestAuthority();
    return tls(
      { certificates: authority.issue('127.0.0.1') },
      { certificates: authority.issue('10.9.8.7'), checksHost: true },
    );
  },
  requireOpenssl,
);
describeTransport('unix', () => ({
  transport: unixTransport,
  address: () => ({ kind: 'unix', path: unixPath() }),
  nobody: () => ({ kind: 'unix', path: unixPath() }),
  resources: sockets,
}));
describeTransport('unix, abstract name', () => ({
  transport: unixTransport,
  address: () => ({ kind: 'unix', path: `\0skein-conformance ${randomBytes(8).toString('hex')}` }),
  nobody: () => ({ kind: 'unix', path: '\0skein-conformance nobody' }),
  resources: sockets,
}));
describeTransport('websocket', () => ({
  transport: webSocketTransport,
  address: () => ({ kind: 'ws', url: 'ws://127.0.0.1:0' }),
  nobody: () => ({ kind: 'ws', url: 'ws://127.0.0.1:1' }),
  resources: sockets,
}));
describeTransport('webrtc', webrtc);
describeTransport('memory, fair weather', memory({}));
describeTransport(
  'memory, slow and crumbling',
  memory({ latencyMs: 1, jitterMs: 3, maxPieceBytes: 20_000, windowBytes: 90_000 }),
);

test('tcp: a dial that nobody accepts fails within its time', { timeout: 30_000 }, async () => {
  // A process that listens with the shortest backlog, and then never runs its event loop again.
  const script = `
    const server = require('node:net').createServer().listen({ port: 0, host: '127.0.0.1', backlog: 1 }, () => {
      require('node:fs').writeSync(1, String(server.address().port) + '\\n');
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 20_000);
    });`;
  const child = spawn(process.execPath, ['-e', script], { stdio: ['ignore', 'pipe', 'inherit'] });
  const opened: Connection[] = [];
  try {
    const [line] = (await once(child.stdout, 'data')) as [Buffer];
    const address = { kind: 'tcp', host: '127.0.0.1', port: Number(line.toString()) } as const;
    const errors: unknown[] = [];
    // The kernel completes the first few by itself.
    for (let attempt = 0; attempt < 6 && errors.length === 0; attempt++) {
      await tcpTransport.dial(address, { timeoutMs: 300 }).then(
        (connection) => opened.push(connection),
        (error: unknown) => errors.push(error),
      );
    }
    expect(String(errors[0])).toMatch(/did not answer within 300 ms/);
    expect(errors[0]).toBeInstanceOf(ConnectError);
  } finally {
    child.kill('SIGKILL');
    for (const connection of opened) connection.destroy();
  }
});
