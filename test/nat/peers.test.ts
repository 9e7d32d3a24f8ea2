/** Skein's own peers in the internet of tests: those behind boxes go on through one who can be dialled. */
import { expect, test } from 'vitest';
import { built } from '../harness/built.ts';
import { PeerProcess } from '../harness/cluster.ts';
import { requireInternet } from '../harness/requirements.ts';
import { Internet, type NatKind } from './internet.ts';

const MAIN = built('src/cli/main.ts');
const TOKEN = 'a token of tests, long enough to be one';

test('peers behind boxes, one of which lets no UDP out, reduce over TCP through a public peer', async (context) => {
  requireInternet(context);
  await using internet = new Internet();
  const lobby = internet.host();
  const coordinator = lobby.node(MAIN, ['coordinator', '--host', lobby.address], {
    environment: { SKEIN_TOKEN: TOKEN },
  });
  const [address] = await coordinator.wrote(/tcp:\/\/\S+:\d+/);
  const kinds: readonly NatKind[] = ['open', 'cone', 'symmetric', 'tcp-only'];
  const peers = kinds.map((kind) => new PeerProcess(undefined, internet.nat(kind).host()));
  const joined = await Promise.all(
    peers.map((peer) => peer.join(address, { token: TOKEN, startWorldSize: peers.length, timeout: 30_000 })),
  );
  expect(joined.map(({ worldSize }) => worldSize)).toEqual(kinds.map(() => kinds.length));
  const sums = await Promise.all(
    peers.map((peer, index) =>
      peer.run(async ({ state }, value) => {
        const tensor = new Float32Array(100_000).fill(value);
        await state.group!.allReduce(tensor, { timeout: 30_000 });
        return [tensor[0], tensor[99_999]];
      }, 10 ** index),
    ),
  );
  expect(sums).toEqual(kinds.map(() => [1111, 1111]));
});
