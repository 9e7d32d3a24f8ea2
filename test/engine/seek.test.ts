/** Peers among several coordinators, of which one leads, some stand by, some are silent and some are gone. */
import { type AddressInfo, createServer, type Socket } from 'node:net';
import { expect, onTestFinished, test } from 'vitest';
import { CoordinatorServer } from '../../src/engine/coordinator-server.ts';
import { LEADER_KEY, writeLeader } from '../../src/engine/ledger.ts';
import { systemPlatform } from '../../src/engine/platform.ts';
import { resolveSecurity } from '../../src/engine/resolve-security.ts';
import { seek } from '../../src/engine/seek.ts';
import { ConnectError, UnauthorizedError } from '../../src/errors.ts';
import { MemoryStore } from '../../src/store/memory.ts';
import { parseTcpAddress } from '../../src/transport/address.ts';
import { systemClock } from '../../src/transport/clock.ts';
import type { Address } from '../../src/transport/transport.ts';
import { HANDSHAKE_TIMEOUT_MS } from '../../src/wire/limits.ts';

const TOKEN = 'of these tests';
const PATIENCE_MS = 20_000;

async function listen(store: MemoryStore, token: string = TOKEN): Promise<CoordinatorServer> {
  const server = await CoordinatorServer.listen({ port: 0, token, store, leaseMs: 400 });
  onTestFinished(() => server.close());
  return server;
}

/** One that leads and one that stands by. */
async function pair(): Promise<{ leader: CoordinatorServer; standby: CoordinatorServer; store: MemoryStore }> {
  const store = new MemoryStore(systemClock, true);
  const leader = await listen(store);
  await expect.poll(() => leader.isLeading, { timeout: PATIENCE_MS }).toBe(true);
  return { leader, standby: await listen(store), store };
}

/** Takes connections, and says nothing, as a process that is stopped. */
async function silent(onClosed: () => void = () => {}): Promise<Address> {
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(
      socket
        .on('error', () => {})
        .on('close', onClosed)
        .resume(),
    );
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return { kind: 'tcp', host: '127.0.0.1', port: (server.address() as AddressInfo).port }; // it listens on TCP
}

function find(addresses: readonly Address[], { token = TOKEN, leastTerm = 0 } = {}) {
  const { signal } = new AbortController();
  const description = { hostKey: 'here', site: '', addresses: [], cores: 1 };
  const common = { run: 'lm', startWorldSize: 1, name: '', description, transports: ['tcp'] as const };
  const credentials = { ...common, token, security: resolveSecurity({}, token) };
  const found = seek(systemPlatform, { addresses, credentials, report: null, leastTerm, signal });
  void found.then(
    ({ greeted }) => onTestFinished(() => greeted.connection.fail('the test is over')),
    () => {},
  );
  return found;
}

const at = (server: CoordinatorServer): Address => parseTcpAddress(server.address);
const GONE: Address = { kind: 'tcp', host: '127.0.0.1', port: 9 };

test('the one that leads is found behind one that is gone, one that is silent, and one that stands by', async () => {
  const { leader, standby } = await pair();
  const { address, greeted } = await find([GONE, await silent(), at(standby), at(leader)]);
  expect(address).toEqual(at(leader));
  expect(greeted.answer.message.type).toBe('welcome');
});

test('who stands by names the one that leads, who need not be among the addresses', async () => {
  const { leader, standby } = await pair();
  await expect.poll(async () => (await find([at(standby)])).address, { timeout: PATIENCE_MS }).toEqual(at(leader));
  expect(Object.keys(standby.status())).toEqual([]);
});

test('one that is silent is not asked any more when another has answered: it would let in a ghost as it goes on', async () => {
  const { leader } = await pair();
  let onClosed = () => {};
  const closed = new Promise<void>((resolve) => {
    onClosed = resolve;
  });
  await find([await silent(onClosed), at(leader)]);
  const foundAt = performance.now();
  await closed;
  expect(performance.now() - foundAt).toBeLessThan(HANDSHAKE_TIMEOUT_MS / 2);
});

test('one that takes over is found though another one stays silent', async () => {
  const { leader, standby } = await pair();
  const quiet = await silent();
  const closed = leader.close();
  const { address } = await find([quiet, at(standby)]);
  expect(address).toEqual(at(standby));
  await closed;
});

test('one that can not serve yet is asked again while another one stays silent, whoever was asked first', async () => {
  const store = new MemoryStore(systemClock, true);
  const { id: lease } = await store.grant(1_000);
  const gone = { put: LEADER_KEY, value: writeLeader('gone', 'tcp://127.0.0.1:9'), lease };
  await store.commit([{ key: LEADER_KEY, created: 0 }], [gone]);
  const heir = await listen(store);
  const [first, second] = await Promise.all([find([at(heir), await silent()]), find([await silent(), GONE, at(heir)])]);
  expect([first.address, second.address]).toEqual([at(heir), at(heir)]);
});

test('with nobody there, or a wrong token, a newcomer learns so; and what was replaced is not obeyed', async () => {
  const { leader, standby } = await pair();
  await expect(find([GONE, GONE])).rejects.toThrow(ConnectError);
  await expect(find([at(standby), GONE], { token: 'wrong' })).rejects.toThrow(UnauthorizedError);
  await expect(find([at(leader), GONE], { leastTerm: 7 })).rejects.toThrow(
    /term 1, and 7 has been heard: it was replaced/,
  );
});
