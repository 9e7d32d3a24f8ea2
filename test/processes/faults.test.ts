import { mkdtempSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { Coordinator, join } from 'skein';
import { afterAll, afterEach, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { parseTcpAddress, shortcutOf } from '../../src/transport/address.ts';
import { Cluster, type PeerProcess, RemoteError } from '../harness/cluster.ts';
import { requireIPv6 } from '../harness/requirements.ts';

/** Every call in this file ends within this bound (ms); the tests' own time-outs are above it. */
const BOUND_MS = 15_000;

const clusters: Cluster[] = [];

async function cluster(options: Parameters<typeof Cluster.start>[0] = {}): Promise<Cluster> {
  const started = await Cluster.start(options);
  clusters.push(started);
  return started;
}

afterEach(async () => {
  for (const one of clusters.splice(0)) await one[Symbol.asyncDispose]();
});

interface Call {
  readonly count?: number;
  readonly value?: number;
  readonly tag?: string;
  readonly op?: 'sum' | 'max';
  readonly dtype?: 'f32' | 'i32';
  readonly algorithm?: 'auto' | 'ring' | 'tree' | 'doubling';
  readonly timeout?: number;
}

/** One all-reduce of a constant tensor; returns its first and last element and the report. */
function allReduce(peer: PeerProcess, call: Call = {}) {
  return peer.run(
    async ({ state }, { count, value, dtype, ...options }) => {
      const tensor = dtype === 'i32' ? new Int32Array(count).fill(value) : new Float32Array(count).fill(value);
      const report = await state.group!.allReduce(tensor, options);
      return { first: tensor[0], last: tensor[count - 1], report };
    },
    {
      count: 1000,
      value: 1,
      dtype: 'f32' as const,
      op: 'sum' as const,
      algorithm: 'auto' as const,
      tag: '',
      timeout: BOUND_MS,
      ...call,
    },
  );
}

async function failure(promise: Promise<unknown>): Promise<RemoteError> {
  const error = await promise.then(
    () => new Error('it succeeded'),
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(RemoteError);
  return error as RemoteError;
}

describe('a stopped peer', () => {
  test('is evicted after SIGSTOP, learns so after SIGCONT, and can join again', async () => {
    const run = await cluster({ heartbeatMs: 100, lostAfterMs: 1_000 });
    const peers = await run.form(3);
    const [first, second, stopped] = peers as [PeerProcess, PeerProcess, PeerProcess];
    stopped.child.kill('SIGSTOP');
    const results = await Promise.all([allReduce(first, { value: 1 }), allReduce(second, { value: 2 })]);
    for (const result of results) {
      expect(result.first).toBe(3);
      expect(result.report.contributors).toHaveLength(2);
    }
    stopped.child.kill('SIGCONT');
    const error = await failure(allReduce(stopped));
    expect(error.code).toBe('SKEIN_EVICTED');
    await stopped.run(async ({ state }) => {
      await state.group!.leave();
    });
    const rejoined = stopped.join(run.coordinator.address, { timeout: BOUND_MS });
    await expect.poll(() => run.coordinator.status()['default']?.ready.length, { timeout: BOUND_MS }).toBe(1);
    await Promise.all([first, second].map((peer) => peer.run(({ state }) => state.group!.admit())));
    expect((await rejoined).worldSize).toBe(3);
    const after = await Promise.all(peers.map((peer) => allReduce(peer)));
    for (const result of after) expect(result.first).toBe(3);
  });
});

describe('the coordinator is killed', () => {
  /** A coordinator in a process of its own, at a port that it can be started at again. */
  async function startCoordinator(host: PeerProcess, port: number, file: string | null): Promise<string> {
    return host.run(
      async ({ skein, state }, { port, file }) => {
        const coordinator = await skein.Coordinator.listen(file === null ? { port } : { port, store: file });
        state['coordinator'] = coordinator;
        return coordinator.address;
      },
      { port, file },
    );
  }

  test('every call that needs it ends with a named error within its time-out', async () => {
    const run = await cluster();
    const host = run.spawn();
    const address = await startCoordinator(host, 0, null);
    const peers = [run.spawn(), run.spawn()];
    await Promise.all(peers.map((peer) => peer.join(address, { startWorldSize: 2, timeout: 4_000 })));
    // One of two calls, so the collective is open when the coordinator dies.
    const open = failure(allReduce(peers[0]!, { timeout: 2_000 }));
    await peers[0]!.run(({ state }) => state.group!.status());
    await host.kill();
    expect((await open).code).toBe('SKEIN_TIMEOUT');
    for (const peer of peers) {
      expect((await failure(allReduce(peer, { timeout: 1_000 }))).code).toBe('SKEIN_TIMEOUT');
      expect((await failure(peer.run(({ state }) => state.group!.admit({ timeout: 500 })))).code).toBe('SKEIN_TIMEOUT');
    }
  });

  test.each([
    ['without a store', false],
    ['with a file', true],
  ])('and started again %s: the members come back, and what was open is finished', async (_, stores) => {
    const run = await cluster();
    const folder = mkdtempSync(`${tmpdir()}/skein-store-`);
    onTestFinished(() => rmSync(folder, { recursive: true }));
    const file = stores ? `${folder}/runs.json` : null;
    const first = run.spawn();
    const address = await startCoordinator(first, 0, file);
    const peers = [run.spawn(), run.spawn(), run.spawn()];
    await Promise.all(peers.map((peer) => peer.join(address, { startWorldSize: 3, timeout: BOUND_MS })));
    await Promise.all(peers.map((peer) => allReduce(peer)));
    // Two of three calls: open when the coordinator dies, and still when it is back.
    const open = [allReduce(peers[0]!), allReduce(peers[1]!)];
    await peers[0]!.run(({ state }) => state.group!.status());
    await first.kill();
    const second = run.spawn();
    expect(await startCoordinator(second, Number(address.split(':').at(-1)), file)).toBe(address);
    const last = await allReduce(peers[2]!);
    const results = [...(await Promise.all(open)), last];
    for (const { first, report } of results) {
      expect(first).toBe(3);
      expect([report.id, report.epoch]).toEqual([last.report.id, last.report.epoch]);
    }
    // A newcomer is let in by the new coordinator.
    const newcomer = run.spawn();
    const joining = newcomer.join(address, { timeout: BOUND_MS });
    await expect
      .poll(
        async () => {
          const views = await Promise.all(peers.map((peer) => peer.run(({ state }) => state.group!.admit())));
          return views[0]!.worldSize;
        },
        { timeout: BOUND_MS },
      )
      .toBe(4);
    expect((await joining).worldSize).toBe(4);
  });
});

describe('mismatched calls', () => {
  let run: Cluster;
  let peers: PeerProcess[];
  beforeAll(async () => {
    run = await Cluster.start();
    peers = await run.form(3);
  });
  afterAll(() => run[Symbol.asyncDispose]());

  const pairs: [string, Call, Call][] = [
    ['count', { count: 1000 }, { count: 1001 }],
    ['dtype', { dtype: 'f32' }, { dtype: 'i32' }],
    ['op', { op: 'sum' }, { op: 'max' }],
    ['algorithm', { algorithm: 'ring' }, { algorithm: 'tree' }],
    ['count, large', { count: 500_000 }, { count: 500_001 }],
  ];
  test.each(pairs)(
    '%s: a MismatchError on every member, which says who called what; the next call works',
    async (_, usual, odd) => {
      const calls = peers.map((peer, index) => failure(allReduce(peer, index === 1 ? odd : usual)));
      for (const error of await Promise.all(calls)) {
        expect(error.code).toBe('SKEIN_MISMATCH');
        expect(error.message).toMatch(/p\d-\w+ called allReduce\(.*p\d-\w+ called allReduce\(/);
      }
      const results = await Promise.all(peers.map((peer) => allReduce(peer)));
      for (const result of results) expect(result.first).toBe(3);
    },
  );
});

describe('many at once', () => {
  test('8 collectives under different tags, with a kill among them, all end in agreement', async () => {
    const run = await cluster();
    const peers = await run.form(4);
    const body = (peer: PeerProcess, base: number) =>
      peer.run(async ({ state, tell }, base) => {
        const tags = Array.from({ length: 8 }, (_, index) => `tag ${index}`);
        const tensors = tags.map((_, index) => new Float32Array(300_000).fill(base * (index + 1)));
        const calls = tags.map((tag, index) => state.group!.allReduce(tensors[index]!, { tag, timeout: 15_000 }));
        tell('called');
        const reports = await Promise.all(calls);
        return reports.map((report, index) => ({
          id: report.id,
          contributors: report.contributors,
          values: [tensors[index]![0], tensors[index]![299_999]],
        }));
      }, base);
    const survivors = peers.slice(0, 3);
    const ids = await Promise.all(peers.map((peer) => peer.run(({ state }) => state.group!.peerId)));
    const pending = survivors.map((peer, index) => body(peer, index + 1));
    const dying = body(peers[3]!, 100);
    dying.catch(() => {});
    await peers[3]!.told('called');
    await peers[3]!.kill();
    const results = await Promise.all(pending);
    for (let tag = 0; tag < 8; tag++) {
      const outcome = results[0]![tag]!;
      for (const result of results) expect(result[tag]).toEqual(outcome);
      const bases = outcome.contributors.map((peerId) => [1, 2, 3, 100][ids.indexOf(peerId)]!);
      const sum = bases.reduce((total, base) => total + base * (tag + 1), 0);
      expect(outcome.values).toEqual([sum, sum]);
    }
  });

  test('64 tags issued in a different order on each peer, small and large', async () => {
    const run = await cluster();
    const peers = await run.form(3);
    const results = await Promise.all(
      peers.map((peer, rank) =>
        peer.run(async ({ state }, rank) => {
          const order = Array.from({ length: 64 }, (_, index) => (index * (2 * rank + 1) + 7 * rank) % 64);
          const sums: number[] = [];
          await Promise.all(
            order.map(async (number) => {
              const count = number % 2 === 0 ? 10 : 60_000;
              const tensor = new Float32Array(count).fill(number + rank);
              await state.group!.allReduce(tensor, { tag: `tensor ${number}`, timeout: 15_000 });
              sums[number] = tensor[count - 1]!;
            }),
          );
          return sums;
        }, rank),
      ),
    );
    const expected = Array.from({ length: 64 }, (_, number) => 3 * number + 3);
    for (const sums of results) expect(sums).toEqual(expected);
  });

  test('16 peers started at the same instant on one host form one view and reduce', async () => {
    const run = await cluster({ lostAfterMs: 10_000 });
    const peers = await run.form(16, { engine: 'inline' });
    const results = await Promise.all(peers.map((peer) => allReduce(peer, { count: 5_000 })));
    for (const result of results) expect([result.first, result.last]).toEqual([16, 16]);
  });

  test('a join storm: 16 newcomers come in while two members train', async () => {
    const run = await cluster({ lostAfterMs: 10_000 });
    const members = await run.form(2);
    const newcomers = Array.from({ length: 16 }, () => run.spawn());
    const train = (peer: PeerProcess) =>
      peer.run(async ({ state }) => {
        let sum = 0;
        // Until all 18 are in: the world size decides, and it is the same on every member after a boundary.
        for await (const step of state.group!.steps({ until: 10_000 })) {
          const tensor = new Float32Array(100).fill(1);
          const report = await state.group!.allReduce(tensor, { timeout: 15_000 });
          sum = tensor[0]!;
          if (sum !== report.worldSize) throw new Error(`sum ${sum} of ${report.worldSize} members`);
          if (step.worldSize === 18) break;
        }
        return sum;
      });
    const joining = newcomers.map(async (peer) => {
      await peer.join(run.coordinator.address, { timeout: 60_000, engine: 'inline' });
      return train(peer);
    });
    const sums = await Promise.all([...members.map(train), ...joining]);
    for (const sum of sums) expect(sum).toBe(18);
  });
});

describe('world size', () => {
  test('falls to 1 and grows back', async () => {
    const run = await cluster();
    const peers = await run.form(3);
    const last = peers[0]!;
    await Promise.all([peers[1]!.kill(), peers[2]!.kill()]);
    await expect.poll(async () => (await allReduce(last)).report.worldSize, { timeout: BOUND_MS }).toBe(1);
    expect((await allReduce(last, { value: 7 })).first).toBe(7);
    const newcomer = run.spawn();
    const joined = newcomer.join(run.coordinator.address, { timeout: BOUND_MS });
    await expect
      .poll(() => last.run(async ({ state }) => (await state.group!.admit()).worldSize), { timeout: BOUND_MS })
      .toBe(2);
    await joined;
    const results = await Promise.all([last, newcomer].map((peer) => allReduce(peer)));
    for (const result of results) expect(result.first).toBe(2);
  });

  test('below minWorldSize a call waits, and ends with a QuorumError', async () => {
    const run = await cluster();
    const peers = await run.form(2);
    const waiting = peers[0]!.run(async ({ state }) => {
      const tensor = new Float32Array(10).fill(1);
      const error = await state.group!.allReduce(tensor, { minWorldSize: 3, timeout: 1_000 }).catch((reason) => reason);
      return { code: error.code, first: tensor[0] };
    });
    expect(await waiting).toEqual({ code: 'SKEIN_QUORUM', first: 1 });
  });
});

describe('strangers', () => {
  test('a wrong token is refused on both sides of the proof', async () => {
    const run = await cluster({ token: 'right' });
    const peer = run.spawn();
    const error = await failure(peer.join(run.coordinator.address, { token: 'wrong', timeout: BOUND_MS }));
    expect(error.code).toBe('SKEIN_UNAUTHORIZED');
    await expect(join(run.coordinator.address, { engine: 'inline', timeout: BOUND_MS })).rejects.toMatchObject({
      code: 'SKEIN_UNAUTHORIZED',
    });
  });

  test.each(['unix', 'tcp'] as const)(
    'garbage and oversized lengths to every port harm nobody, with data over %s',
    async (transport) => {
      const run = await cluster();
      const peers = await run.form(2, { transports: [transport] });
      const status = await peers[0]!.run(async ({ state }) =>
        (await state.group!.status()).links.map((link) => link.path),
      );
      // Where the other one listens for data.
      const path = status[0]!.slice(transport.length + 1);
      expect(status[0]).toBe(`${transport} ${path}`);
      const data = transport === 'unix' ? { path } : { host: '127.0.0.1', port: Number(path.split(':')[1]) };
      const control = parseTcpAddress(run.coordinator.address);
      const shortcut = shortcutOf(control);
      const near = shortcut?.kind === 'unix' ? [{ path: shortcut.path }] : [];
      const targets = [{ host: control.host, port: control.port }, ...near, data];
      const garbage = [
        Buffer.from('GET / HTTP/1.1\r\nHost: x\r\n\r\n'),
        Buffer.from([0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
        Buffer.concat([Buffer.from([8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), Buffer.alloc(8, 0xc1)]),
        Buffer.alloc(100_000, 0x5e),
      ];
      for (const target of targets) {
        for (const bytes of garbage) {
          await new Promise<void>((resolve) => {
            const socket = connect(target, () => socket.write(bytes));
            socket.on('error', () => {});
            socket.on('data', () => {});
            // The other side closes it: a stranger is not left connected.
            socket.on('close', () => resolve());
            socket.on('end', () => socket.end());
          });
        }
      }
      const results = await Promise.all(peers.map((peer) => allReduce(peer)));
      for (const result of results) expect(result.first).toBe(2);
    },
  );
});

describe('paths', () => {
  test('IPv6 loopback carries control and data', async (context) => {
    requireIPv6(context);
    const run = await cluster({ host: '::1' });
    const peers = await run.form(2, { transports: ['tcp'] });
    const paths = await peers[0]!.run(async ({ state }) =>
      (await state.group!.status()).links.map((link) => link.path),
    );
    expect(paths[0]).toMatch(/^tcp \[::1\]/);
    const results = await Promise.all(peers.map((peer) => allReduce(peer, { count: 500_000 })));
    for (const result of results) expect(result.last).toBe(2);
  });

  test('a coordinator beyond loopback wants a token', async () => {
    await expect(Coordinator.listen({ host: '0.0.0.0', port: 0 })).rejects.toMatchObject({ code: 'SKEIN_ARGUMENT' });
  });
});

describe('a busy training thread', () => {
  test('loses no membership in 10 s, and an all-reduce begun before has finished when the loop ends', async () => {
    const run = await cluster({ heartbeatMs: 100, lostAfterMs: 1_000 });
    const peers = await run.form(2);
    const busy = peers[0]!.run(async ({ state }) => {
      const tensor = new Float32Array(2_000_000).fill(1);
      const pending = state.group!.allReduce(tensor, { timeout: 15_000 });
      const until = performance.now() + 10_000;
      while (performance.now() < until);
      const before = performance.now();
      const report = await pending;
      return { waited: performance.now() - before, seconds: report.seconds, last: tensor[1_999_999] };
    });
    const other = await allReduce(peers[1]!, { count: 2_000_000 });
    const result = await busy;
    expect(result.last).toBe(2);
    expect(other.last).toBe(2);
    // The engine was done long before the loop was.
    expect(result.seconds).toBeLessThan(9);
    expect(run.coordinator.status()['default']?.members).toHaveLength(2);
  });
});
