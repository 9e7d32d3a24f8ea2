/** Ways from a tab to peers that end while calls are under way: the calls go on, with all members. */
import type { CoordinatorListenOptions } from 'skein';
import { expect, test } from 'vitest';
import { built } from '../harness/built.ts';
import { type Tab, TestBrowser } from '../harness/chromium.ts';
import { Cluster, PeerProcess } from '../harness/cluster.ts';
import type { PeerScope } from '../harness/peer-process.ts';
import { requireChromium, requireNamespaces } from '../harness/requirements.ts';
import { Internet } from '../nat/internet.ts';

const COORDINATOR = built('test/nat/mixed-coordinator.ts');
const PAGE = { http: { port: 0, folder: built('browser/') } };
const TOKEN = 'a token of tests, long enough to be one';
const PATIENCE = { timeout: 30_000 };

interface Joining {
  readonly address: string;
  readonly options: object;
}

/** Joins; in a tab, from now on `state.connections` are those of WebRTC. */
async function join({ skein, state }: PeerScope, { address, options }: Joining): Promise<string> {
  const scope = globalThis as unknown as { RTCPeerConnection?: new (...args: unknown[]) => { close(): void } };
  const Connection = scope.RTCPeerConnection;
  if (Connection !== undefined) {
    const connections: { close(): void }[] = [];
    state['connections'] = connections;
    scope.RTCPeerConnection = class extends Connection {
      constructor(...args: unknown[]) {
        super(...args);
        connections.push(this);
      }
    };
  }
  state.group = await skein.join(address, { timeout: 30_000, transports: ['webrtc'], ...options });
  return state.group.peerId;
}

/** All-reduces until one of the members has been told to stop, which all learn in the same call. */
async function train({ state, tell }: PeerScope) {
  const group = state.group!;
  const tensor = new Float32Array(5_000);
  const contributors = new Set<number>();
  let calls = 0;
  let retries = 0;
  let longestMs = 0;
  let before = performance.now();
  for (let stops = 0; stops === 0; calls++) {
    tensor.fill(group.rank + 1);
    tensor[0] = state['stop'] === true ? 1 : 0;
    const report = await group.allReduce(tensor, { timeout: 60_000 });
    stops = tensor[0];
    contributors.add(report.contributors.length);
    retries += report.retries;
    const now = performance.now();
    longestMs = Math.max(longestMs, now - before);
    before = now;
    const sum = (group.worldSize * (group.worldSize + 1)) / 2;
    if (tensor.some((element, at) => at > 0 && element !== sum)) throw new Error(`the sum of call ${calls} is wrong`);
    if (calls === 20) tell('trains');
    state['calls'] = calls;
  }
  return { calls, contributors: [...contributors], retries, longestMs };
}

const madeBy = (peer: PeerProcess | Tab) => peer.run(({ state }) => state['calls'] as number);

const longestOf = (ends: readonly { readonly longestMs: number }[]): number =>
  Math.round(Math.max(...ends.map(({ longestMs }) => longestMs)));

/** Ends the training, after so many more calls of this peer. */
async function stop(peer: PeerProcess | Tab, moreCalls: number): Promise<void> {
  const before = await madeBy(peer);
  await expect.poll(() => madeBy(peer), PATIENCE).toBeGreaterThan(before + moreCalls);
  await peer.run(({ state }) => {
    state['stop'] = true;
  });
}

test.for(['worker', 'inline'] as const)(
  'connections of a tab that close without a word are made anew, and all calls have all members (engine: %s)',
  { timeout: 120_000 },
  async (engine, context) => {
    requireChromium(context);
    await using browser = await TestBrowser.launch();
    await using cluster = await Cluster.start({ ...PAGE, lostAfterMs: 3_000 });
    const tab = await browser.open(cluster.coordinator.httpAddress!); // it has one
    const peers = [cluster.spawn(), cluster.spawn()];
    const options = { startWorldSize: 3 };
    await Promise.all([
      ...peers.map((peer) => peer.run(join, { address: cluster.coordinator.address, options })),
      tab.run(join, {
        address: cluster.coordinator.httpAddress!.replace(/^http/, 'ws'),
        options: { ...options, engine },
      }),
    ]);
    const everybody = [...peers, tab];
    const trainings = everybody.map((one) => one.run(train));
    await Promise.all(everybody.map((one) => one.told('trains')));
    const closed = await tab.run(({ state }) => {
      const connections = (state['connections'] as { connectionState: string; close(): void }[]).filter(
        ({ connectionState }) => connectionState === 'connected',
      );
      for (const connection of connections) connection.close();
      return connections.length;
    });
    expect(closed).toBeGreaterThan(0);
    const before = await madeBy(tab);
    await expect.poll(() => madeBy(tab), PATIENCE).toBeGreaterThan(before + 20);
    const links = async ({ state }: PeerScope) => (await state.group!.status()).links.map(({ up }) => up);
    await expect.poll(() => tab.run(links), PATIENCE).toEqual([true, true]);
    await stop(tab, 20);
    const ends = await Promise.all(trainings);
    console.info(`${closed} connections closed; the longest call took ${longestOf(ends)} ms`);
    for (const { calls, contributors } of ends) {
      expect(calls).toBe(ends[0]!.calls);
      expect(contributors).toEqual([3]);
    }
    await Promise.all(everybody.map((one) => one.run(({ state }) => state.group!.leave())));
  },
);

test('a tab and a peer between which every packet is lost go on through a third, until packets come through again', {
  timeout: 120_000,
}, async (context) => {
  requireNamespaces(context);
  requireChromium(context);
  await using internet = new Internet();
  const home = internet.host();
  const options: CoordinatorListenOptions = { host: home.address, token: TOKEN, lostAfterMs: 3_000 };
  const coordinator = home.node(COORDINATOR, [JSON.stringify(options)], { deadlineMs: 120_000 });
  const [, address, page] = (await coordinator.wrote(/(\S+:\d+) (http:\S+:\d+)\n/)) as unknown as string[];
  const hosts = { tab: internet.host(), cut: internet.host(), between: internet.host() };
  await using browser = await TestBrowser.launch({ place: hosts.tab, trustedOrigin: page! });
  const tab = await browser.open(page!);
  const [cut, between] = [new PeerProcess(120_000, hosts.cut), new PeerProcess(120_000, hosts.between)];
  const everybody = [cut, between, tab];
  try {
    const [, throughId] = await Promise.all(
      everybody.map((one) =>
        one.run(join, {
          address: one === tab ? page!.replace(/^http/, 'ws') : address!,
          options: { token: TOKEN, startWorldSize: 3 },
        }),
      ),
    );
    const trainings = everybody.map((one) => one.run(train));
    await Promise.all(everybody.map((one) => one.told('trains')));

    hosts.tab.dropFrom(hosts.cut.address, 'udp');
    hosts.cut.dropFrom(hosts.tab.address, 'udp');
    const begun = performance.now();
    /** The ways round that the coordinator tells of. */
    const ways = () =>
      tab.run(async (_, token) => {
        const response = await fetch('/api/state', { headers: { Authorization: `Bearer ${token}` } });
        const { runs } = (await response.json()) as { runs: { cuts: { through: string[] }[] }[] };
        return runs.flatMap(({ cuts }) => cuts.map(({ through }) => through));
      }, TOKEN);
    await expect.poll(ways, PATIENCE).toEqual([[throughId]]);
    console.info(`the cut is known after ${Math.round(performance.now() - begun)} ms`);
    const before = await madeBy(tab);
    await expect.poll(() => madeBy(tab), PATIENCE).toBeGreaterThan(before + 20);

    hosts.tab.dropNothing();
    hosts.cut.dropNothing();
    await expect.poll(ways, PATIENCE).toEqual([]);
    await stop(tab, 20);
    const ends = await Promise.all(trainings);
    console.info(`the longest call took ${longestOf(ends)} ms`);
    for (const { calls, contributors } of ends) {
      expect(calls).toBe(ends[0]!.calls);
      expect(contributors).toEqual([3]);
    }
    expect(Math.max(...ends.map(({ retries }) => retries))).toBeGreaterThan(0);
    await Promise.all(everybody.map((one) => one.run(({ state }) => state.group!.leave())));
  } finally {
    await Promise.all([cut.kill(), between.kill()]);
  }
});
