/**
 * A ring across a real network: peers in namespaces of their own, where what goes from one of them to another takes a wire that
 * `tc tbf` makes slow. The group notices, and goes another way.
 */
import { afterAll, expect, test } from 'vitest';
import { runTool } from '../../src/chaos/namespace-set.ts';
import { Namespaces } from '../../src/chaos/namespaces.ts';
import { built } from '../harness/built.ts';
import { PeerProcess } from '../harness/cluster.ts';
import { requireNamespaces } from '../harness/requirements.ts';
import { HostProcess } from '../nat/host-process.ts';

const PEERS = 4;
const TOKEN = 'a token of this test, long enough to be one';
const MEGABITS = 40;

/** Steps after which the ring must have left the slow way. */
const MAX_STEPS = 60;

let network: Namespaces | null = null;
afterAll(() => network?.remove());

/** Gives what one peer sends to another a slow wire of its own; what comes back goes the usual way. */
function slowWire(namespaces: Namespaces, from: number, to: number): void {
  const [sender, receiver] = [from, to].map((index) => namespaces.wrap(index, ['true'])[3]!) as [string, string];
  runTool('ip', ['-n', sender, 'link', 'add', 'wire', 'type', 'veth', 'peer', 'name', 'wire-in', 'netns', receiver]);
  for (const [name, device] of [
    [sender, 'wire'],
    [receiver, 'wire-in'],
  ] as const) {
    runTool('ip', ['-n', name, 'link', 'set', device, 'up']);
    const loosen = 'for file in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 0 > $file; done';
    runTool('ip', ['netns', 'exec', name, 'sh', '-c', loosen]);
  }
  const shape = ['rate', `${MEGABITS}mbit`, 'burst', '64kb', 'latency', '100ms'];
  runTool('tc', ['-n', sender, 'qdisc', 'add', 'dev', 'wire', 'root', 'tbf', ...shape]);
  runTool('ip', ['-n', sender, 'route', 'add', `${namespaces.address(to)}/32`, 'dev', 'wire']);
}

interface Step {
  readonly ring: readonly string[];
  readonly peerId: string;
  readonly sum: number;
  readonly tookMs: number;
}

/** One boundary and one all-reduce of 2 MiB on every peer, and a pause. */
function step(peers: readonly PeerProcess[]): Promise<Step[]> {
  return Promise.all(
    peers.map((peer, rank) =>
      peer.run(async ({ state }, value) => {
        const group = state.group!;
        const tensor = new Float32Array(2 ** 19).fill(value);
        await group.admit();
        const startedAt = performance.now();
        await group.allReduce(tensor, { algorithm: 'ring', timeout: 30_000 });
        const tookMs = performance.now() - startedAt;
        await new Promise((resolve) => setTimeout(resolve, 60));
        const { ring } = await group.status();
        const sum = tensor.every((element) => element === tensor[0]) ? tensor[0]! : Number.NaN;
        return { ring, peerId: group.peerId, sum, tookMs };
      }, 10 ** rank),
    ),
  );
}

function hasHop(ring: readonly string[], from: string, to: string): boolean {
  return ring[(ring.indexOf(from) + 1) % ring.length] === to;
}

test('leaves a way that is slow, and is faster then', async (context) => {
  requireNamespaces(context);
  const namespaces = new Namespaces(PEERS);
  network = namespaces;
  const address = namespaces.address('coordinator');
  const command = [process.execPath, built('src/cli/main.ts'), 'coordinator', '--host', address] as const;
  const coordinator = new HostProcess(
    namespaces.wrap('coordinator', [...command]),
    {
      ...namespaces.environment,
      SKEIN_TOKEN: TOKEN,
    },
    90_000,
  );
  const [url] = await coordinator.wrote(/tcp:\/\/\S+:\d+/);
  const started = Array.from(
    { length: PEERS },
    (_, index) =>
      new PeerProcess(undefined, {
        wrap: (line) => namespaces.wrap(index, line),
        environment: namespaces.environment,
      }),
  );
  const joined = await Promise.all(
    started.map((peer) => peer.join(url, { token: TOKEN, startWorldSize: PEERS, timeout: 30_000 })),
  );
  const places = joined.map((_, rank) => joined.findIndex((one) => one.rank === rank));
  const peers = places.map((index) => started[index]!);
  slowWire(namespaces, places[0]!, places[1]!);

  const slow: number[] = [];
  const startedAt = performance.now();
  let steps = await step(peers);
  const [from, to] = [steps[0]!.peerId, steps[1]!.peerId];
  expect(hasHop(steps[0]!.ring, from, to)).toBe(true);
  for (let made = 0; steps.some(({ ring }) => hasHop(ring, from, to)); made++) {
    expect(made, `the ring is still ${steps[0]!.ring.join(', ')}`).toBeLessThan(MAX_STEPS);
    expect(steps.map(({ sum }) => sum)).toEqual([1111, 1111, 1111, 1111]);
    slow.push(Math.max(...steps.map(({ tookMs }) => tookMs)));
    steps = await step(peers);
  }
  const changedMs = performance.now() - startedAt;
  const fast: number[] = [];
  for (let made = 0; made < 5; made++) {
    steps = await step(peers);
    expect(steps.map(({ sum }) => sum)).toEqual([1111, 1111, 1111, 1111]);
    expect(new Set(steps.map(({ ring }) => ring.join(' '))).size).toBe(1);
    fast.push(Math.max(...steps.map(({ tookMs }) => tookMs)));
  }
  // The slow wire alone takes 0.6 s for what goes over it.
  const [before, after] = [median(slow).toFixed(0), median(fast).toFixed(0)];
  console.log(`2 MiB: ${before} ms over the slow way, ${after} ms round it, after ${(changedMs / 1_000).toFixed(1)} s`);
  expect(median(slow)).toBeGreaterThan(1.5 * median(fast));
  await Promise.all(started.map((peer) => peer.kill()));
  await coordinator.kill();
});

function median(values: readonly number[]): number {
  return [...values].sort((left, right) => left - right)[values.length >> 1]!;
}
