/** Skein's peers behind NATs: which way each pair finds, and that sums are right by it. The table in docs/guide/webrtc-and-nat.md is from here. */
import type { GroupMember } from 'skein';
import { afterAll, expect, test } from 'vitest';
import { built } from '../harness/built.ts';
import { PeerProcess } from '../harness/cluster.ts';
import { requireInternet } from '../harness/requirements.ts';
import { Internet, type NatKind } from './internet.ts';

const MAIN = built('src/cli/main.ts');
const TOKEN = 'a token of tests, long enough to be one';
/** 1 MiB. */
const COUNT = 262_144;

interface Lobby {
  readonly internet: Internet;
  readonly address: string;
}

let shared: Promise<Lobby> | null = null;
const rows: string[] = [];

async function open(): Promise<Lobby> {
  const internet = new Internet();
  const coturn = await internet.coturn();
  const host = internet.host();
  const { stun, turn } = coturn.urls;
  const coordinator = host.node(MAIN, ['coordinator', '--host', host.address, '--ice', stun, turn], {
    environment: { SKEIN_TOKEN: TOKEN, SKEIN_TURN_SECRET: coturn.secret },
    deadlineMs: 300_000,
  });
  const [address] = await coordinator.wrote(/tcp:\/\/\S+:\d+/);
  return { internet, address };
}

afterAll(async () => {
  console.info(
    `\nby which ways they reach one another (from the start of the processes to the sum)\n${rows.join('\n')}`,
  );
  await (await shared)?.internet[Symbol.asyncDispose]();
});

/** Peers of these kinds join a run of their own and add up. @param allowed ways of which each must be one, sooner or later; null: any */
async function meet(
  kinds: readonly NatKind[],
  allowed: readonly GroupMember['path'][] | null,
): Promise<{ paths: GroupMember['path'][]; seconds: number }> {
  shared ??= open();
  const { internet, address } = await shared;
  const peers = kinds.map((kind) => new PeerProcess(undefined, internet.nat(kind).host()));
  try {
    const startedAt = performance.now();
    const options = { token: TOKEN, run: `${kinds.join(' ')} ${startedAt}`, transports: ['tcp', 'webrtc'] as const };
    await Promise.all(
      peers.map((peer) => peer.join(address, { ...options, startWorldSize: kinds.length, timeout: 40_000 })),
    );
    const sums = await Promise.all(
      peers.map((peer, index) =>
        peer.run(
          async ({ state }, { value, count }) => {
            const tensor = new Float32Array(count).fill(value);
            await state.group!.allReduce(tensor, { timeout: 40_000 });
            return [tensor[0], tensor[count - 1], tensor.every((element) => element === tensor[0])];
          },
          { value: 10 ** index, count: COUNT },
        ),
      ),
    );
    const seconds = (performance.now() - startedAt) / 1_000;
    const sum = Number('1'.repeat(kinds.length));
    expect(sums).toEqual(kinds.map(() => [sum, sum, true]));
    const paths = async () => {
      const all = peers.map((peer) => peer.run(({ state }) => state.group!.members.map(({ path }) => path)));
      return (await Promise.all(all)).flat().filter((path) => path !== null);
    };
    // A session may begin by a relay before it has found the direct path.
    if (allowed !== null) {
      await expect
        .poll(async () => (await paths()).filter((path) => !allowed.includes(path)), { timeout: 10_000 })
        .toEqual([]);
    }
    return { paths: await paths(), seconds };
  } finally {
    await Promise.all(peers.map((peer) => peer.kill()));
  }
}

function note(kinds: readonly NatKind[], paths: readonly GroupMember['path'][], seconds: number): void {
  rows.push(`${kinds.join(', ')}: ${[...new Set(paths)].sort().join(', ')} (${seconds.toFixed(1)} s)`);
}

/** Vitest gives the context to tests of no table only. */
for (const { kinds, allowed } of [
  { kinds: ['open', 'open'], allowed: ['tls'] },
  { kinds: ['open', 'cone'], allowed: ['tls', 'webrtc'] },
  { kinds: ['open', 'symmetric'], allowed: ['tls', 'webrtc', 'turn'] },
  { kinds: ['open', 'tcp-only'], allowed: ['tls'] },
  { kinds: ['cone', 'cone'], allowed: ['webrtc'] },
  { kinds: ['cone', 'symmetric'], allowed: ['turn'] },
  { kinds: ['symmetric', 'symmetric'], allowed: ['turn'] },
] as const) {
  test(`${kinds.join(' and ')} add up`, async (context) => {
    requireInternet(context);
    const { paths, seconds } = await meet(kinds, allowed);
    note(kinds, paths, seconds);
    // One that can't dial the other, and was dialled for both directions, has no way of its own.
    expect(paths.length).toBeGreaterThan(0);
  });
}

test('one whose firewall lets no UDP out goes on with those behind NATs through a public one', async (context) => {
  requireInternet(context);
  const kinds = ['open', 'tcp-only', 'cone', 'symmetric'] as const;
  const { paths, seconds } = await meet(kinds, null);
  note(kinds, paths, seconds);
});
