/** A tab of a browser is a peer like any other. */

import { existsSync, readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join as joinPath } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { type Tab, TestBrowser } from '../harness/chromium.ts';
import { Cluster } from '../harness/cluster.ts';
import type { PeerScope } from '../harness/peer-process.ts';
import { CHROMIUM, requireChromium } from '../harness/requirements.ts';

const FOLDER = fileURLToPath(new URL('../../dist/browser/', import.meta.url));
const HTTP = { http: { port: 0, folder: FOLDER } };
/** The detector's bound (ms). */
const LOST_AFTER_MS = 2_000;
const TRANSPORTS = ['unix', 'tcp', 'webrtc'] as const;

/** A start takes a second or two: all tests share one browser, and each has its own tabs. */
let browser: TestBrowser | null = null;

beforeAll(async () => {
  if (existsSync(CHROMIUM)) browser = await TestBrowser.launch();
});

afterAll(() => browser?.[Symbol.asyncDispose]());

beforeEach((context) => requireChromium(context));

async function openTab(cluster: Cluster) {
  return browser!.open(cluster.coordinator.httpAddress!); // both are there: the tests are skipped otherwise
}

function webSocketOf(cluster: Cluster): string {
  return cluster.coordinator.httpAddress!.replace(/^http/, 'ws');
}

/** A server that knows nothing of cross-origin isolation. */
async function servePlainly() {
  const server = createServer((request, response) => {
    const name = request.url === '/' ? 'index.html' : request.url!.slice(1);
    if (!/^[\w-]+\.\w+$/.test(name) || !existsSync(joinPath(FOLDER, name))) {
      response.writeHead(404).end();
      return;
    }
    response.setHeader('Content-Type', name.endsWith('.js') ? 'text/javascript' : 'text/html');
    response.end(readFileSync(joinPath(FOLDER, name)));
  });
  await new Promise<void>((resolve) => void server.listen(0, '127.0.0.1', resolve));
  return {
    address: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

interface Joining {
  readonly address: string;
  readonly options: object;
}

async function join({ skein, state }: PeerScope, { address, options }: Joining): Promise<string> {
  state.group = await skein.join(address, { timeout: 30_000, ...options });
  return state.group.peerId;
}

/** All-reduces a tensor that depends on the rank; returns a hash of the result, and where it is wrong. */
async function reduceOnce({ state }: PeerScope, count: number) {
  const group = state.group!;
  const tensor = new Float32Array(count);
  // Sums of such values are rounded: only the same order of additions gives the same bits.
  for (let index = 0; index < count; index++)
    tensor[index] = Math.sin(index + 1) * 10 ** (group.rank % 2 === 0 ? 3 : -2);
  const started = performance.now();
  const report = await group.allReduce(tensor, { algorithm: 'ring' });
  const elapsed = performance.now() - started;
  let hash = 0x811c9dc5;
  for (const word of new Uint32Array(tensor.buffer)) hash = Math.imul(hash ^ word, 0x01000193) >>> 0;
  let wrong = -1;
  for (let index = 0; index < count && wrong < 0; index++) {
    const exact = Math.sin(index + 1) * (10 ** 3 + 10 ** -2);
    if (!(Math.abs(tensor[index]! - exact) <= 1e-6 * Math.abs(exact) + 1e-9)) wrong = index;
  }
  const { id, epoch, contributors, retries } = report;
  return { hash, wrong, id, epoch, contributors, retries, elapsed, paths: group.members.map((member) => member.path) };
}

/** All-reduces step by step until the others have gone on without the tab for so long. */
async function train({ state, tell }: PeerScope, stepsAfter: number) {
  const group = state.group!;
  const size = group.worldSize;
  const tensor = new Float32Array(20_000);
  let after = 0;
  let steps = 0;
  let longestMs = 0;
  let previous = performance.now();
  for await (const { index } of group.steps()) {
    tensor.fill(1);
    const { contributors } = await group.allReduce(tensor);
    if (tensor.some((element) => element !== contributors.length)) throw new Error(`the sum of step ${index} is wrong`);
    const now = performance.now();
    longestMs = Math.max(longestMs, now - previous);
    previous = now;
    steps += 1;
    if (steps === 10) tell('trains');
    if (contributors.length < size) after += 1;
    if (after === stepsAfter) break;
  }
  await group.leave();
  return { steps, longestMs, worldSize: tensor[0] };
}

describe('a tab and a process', () => {
  test.each([
    [16, 'inline'],
    [4, 'worker'],
  ] as const)('all-reduce %i MiB over WebRTC, and have the same bits (engine: %s)', async (mebibytes, engine) => {
    await using cluster = await Cluster.start(HTTP);
    const peer = cluster.spawn();
    const tab = await openTab(cluster);
    const options = { startWorldSize: 2, transports: TRANSPORTS };
    await Promise.all([
      peer.run(join, { address: cluster.coordinator.address, options }),
      tab.run(join, { address: webSocketOf(cluster), options: { ...options, engine } }),
    ]);
    const count = (mebibytes * 1024 * 1024) / 4;
    const [here, there] = await Promise.all([peer.run(reduceOnce, count), tab.run(reduceOnce, count)]);
    console.info(`${mebibytes} MiB in ${Math.round(there.elapsed)} ms (engine: ${engine})`);
    expect(there).toMatchObject({ hash: here.hash, id: here.id, epoch: here.epoch, contributors: here.contributors });
    expect([here.wrong, there.wrong]).toEqual([-1, -1]);
    expect(here.contributors).toHaveLength(2);
    for (const { paths } of [here, there]) expect([...paths].sort()).toEqual([null, 'webrtc'].sort());
    await Promise.all([peer, tab].map((one) => one.run(({ state }) => state.group!.leave())));
    await tab.close();
  });

  test('share what DiLoCo keeps', async () => {
    await using cluster = await Cluster.start(HTTP);
    const peer = cluster.spawn();
    const tab = await openTab(cluster);
    const options = { startWorldSize: 2, transports: TRANSPORTS };
    await Promise.all([
      peer.run(join, { address: cluster.coordinator.address, options }),
      tab.run(join, { address: webSocketOf(cluster), options }),
    ]);
    const trains = async ({ diloco, state }: PeerScope) => {
      const weights = new Float32Array(1_000);
      const shared = await diloco.createDiloco(state.group!, { weights }, { every: 2, wire: { codec: 'int8' } });
      while (shared.round < 3) {
        for (let index = 0; index < weights.length; index++) weights[index]! += Math.sin(index) + state.group!.rank;
        await shared.step();
      }
      const { hash } = shared;
      await state.group!.leave();
      return { hash, moved: weights[1] };
    };
    const [here, there] = await Promise.all([peer.run(trains), tab.run(trains)]);
    expect(there.hash).toEqual(here.hash);
    expect(here.moved).not.toBe(0);
    await tab.close();
  });

  test('do so as well when the page is not cross-origin isolated', async () => {
    await using cluster = await Cluster.start(HTTP);
    await using plain = await servePlainly();
    const peer = cluster.spawn();
    const tab = await browser!.open(plain.address);
    const options = { startWorldSize: 2, transports: TRANSPORTS };
    const refused = tab.run(
      ({ skein }, address) =>
        skein.join(address, { engine: 'worker' }).catch((error) => `${error.code}: ${error.message}`),
      webSocketOf(cluster),
    );
    expect(await refused).toMatch(/^SKEIN_ARGUMENT: .*the page is not cross-origin isolated/);
    const encrypted = tab.run(
      ({ skein }, address) => skein.join(address, { encryption: 'always' }).catch((error) => error.message),
      webSocketOf(cluster),
    );
    expect(await encrypted).toMatch(/wss:/);
    await Promise.all([
      peer.run(join, { address: cluster.coordinator.address, options }),
      tab.run(join, { address: webSocketOf(cluster), options }),
    ]);
    const sums = async ({ skein, state }: PeerScope) => {
      const tensor = skein.sharedTensor('f32', 1_000).fill(1 + state.group!.rank);
      await state.group!.allReduce(tensor);
      await state.group!.leave();
      return { sum: tensor[999], memory: tensor.buffer.constructor.name };
    };
    const [here, there] = await Promise.all([peer.run(sums), tab.run(sums)]);
    expect(here).toEqual({ sum: 3, memory: 'SharedArrayBuffer' });
    expect(there).toEqual({ sum: 3, memory: 'ArrayBuffer' });
    await tab.close();
  });

  test('who does not know the token is refused', async () => {
    await using cluster = await Cluster.start({ ...HTTP, token: 'a-secret-of-this-test' });
    const tab = await openTab(cluster);
    const codeOf = (token: string) =>
      tab.run(
        ({ skein }, { address, token }) =>
          skein.join(address, { token, timeout: 10_000 }).then(
            (group) => group.leave().then(() => 'joined'),
            (error) => `${error.name} ${error.code}`,
          ),
        { address: webSocketOf(cluster), token },
      );
    expect(await codeOf('another')).toBe('UnauthorizedError SKEIN_UNAUTHORIZED');
    expect(await codeOf('a-secret-of-this-test')).toBe('joined');
    await tab.close();
  });
});

test('a page may be busy for longer than the detector bears silence when its engine is a worker', async () => {
  await using cluster = await Cluster.start({ ...HTTP, lostAfterMs: LOST_AFTER_MS });
  const peer = cluster.spawn();
  const tab = await openTab(cluster);
  const options = { startWorldSize: 2, transports: TRANSPORTS };
  await Promise.all([
    peer.run(join, { address: cluster.coordinator.address, options }),
    tab.run(join, { address: webSocketOf(cluster), options }),
  ]);
  // All connections are made, which takes the page's thread.
  const together = () => Promise.all([peer, tab].map((one) => one.run(({ state }) => state.group!.barrier())));
  await together();
  const { epoch } = cluster.coordinator.status()['default']!;
  const inTab = tab.run(
    async ({ state }, busyMs) => {
      const end = performance.now() + busyMs;
      while (performance.now() < end);
      const { contributors } = await state.group!.allReduce(new Float32Array(1_000));
      return contributors;
    },
    2 * LOST_AFTER_MS + 500,
  );
  const inProcess = peer.run(({ state }) => state.group!.allReduce(new Float32Array(1_000)));
  const report = await inProcess;
  expect(await inTab).toEqual(report.contributors);
  expect(report.contributors).toHaveLength(2);
  expect({ epoch: report.epoch, retries: report.retries }).toEqual({ epoch, retries: 0 });
  await Promise.all([peer, tab].map((one) => one.run(({ state }) => state.group!.leave())));
  await tab.close();
});

test.each([
  // A page that is closed leaves; a crash is noticed.
  { end: 'closed', engine: 'inline', boundMs: LOST_AFTER_MS, how: (tab: Tab) => tab.close() },
  { end: 'closed', engine: 'worker', boundMs: LOST_AFTER_MS, how: (tab: Tab) => tab.close() },
  { end: 'crashed', engine: 'worker', boundMs: LOST_AFTER_MS + 2_000, how: (tab: Tab) => tab.crash() },
])(
  'three processes go on when the tab that trains with them is $end (engine: $engine)',
  async ({ end, engine, boundMs, how }) => {
    await using cluster = await Cluster.start({ ...HTTP, lostAfterMs: LOST_AFTER_MS });
    const tab = await openTab(cluster);
    const options = { startWorldSize: 4, transports: TRANSPORTS };
    const peers = [1, 2, 3].map(() => cluster.spawn());
    await Promise.all([
      ...peers.map((peer) => peer.run(join, { address: cluster.coordinator.address, options })),
      tab.run(join, { address: webSocketOf(cluster), options: { ...options, engine } }),
    ]);
    const inTab = tab.run(train, 20).then(
      () => 'done',
      () => 'gone',
    );
    const others = peers.map((peer) => peer.run(train, 20));
    await tab.told('trains');
    await how(tab);
    const ends = await Promise.all(others);
    expect(await inTab).toBe('gone');
    console.info(
      `${end}, ${engine}: steps ${ends.map((end) => end.steps)}, longest ${ends.map((end) => Math.round(end.longestMs))} ms`,
    );
    for (const { steps, longestMs, worldSize } of ends) {
      expect(worldSize).toBe(3);
      expect(steps).toBe(ends[0]!.steps);
      expect(longestMs).toBeLessThan(boundMs);
    }
  },
);
