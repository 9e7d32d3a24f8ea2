/** DiLoCo between real processes that are killed. */
import { expect, test } from 'vitest';
import { Cluster, type PeerProcess } from '../harness/cluster.ts';

const ROUNDS = 100;

/** Adds 1 to every parameter in each inner step; one step is a round. */
function train(peer: PeerProcess, rounds: number) {
  return peer.run(async ({ diloco: { createDiloco }, state, tell }, rounds) => {
    const x = new Float32Array(100_000);
    const diloco = await createDiloco(state.group!, { x }, { every: 1, outer: { learningRate: 1, momentum: 0 } });
    while (diloco.round < rounds) {
      for (let at = 0; at < x.length; at++) x[at]! += 1;
      await diloco.step();
      if (diloco.round % 10 === 0) tell(`round ${diloco.round}`);
    }
    const isExact = x.every((value) => value === rounds);
    return { hash: diloco.hash, isExact, worldSize: state.group!.worldSize, lost: diloco.totals.lost };
  }, rounds);
}

test('two of four peers are killed while they communicate: the others go on, exact and with equal bits', async () => {
  await using cluster = await Cluster.start();
  const peers = await cluster.form(4);
  const results = peers.map((peer) => train(peer, ROUNDS));
  for (const [victim, round] of [
    [1, 20],
    [2, 50],
  ] as const) {
    results[victim]!.catch(() => {}); // it is about to die
    await peers[0]!.told(`round ${round}`);
    await peers[victim]!.kill();
  }
  const [first, last] = await Promise.all([results[0]!, results[3]!]);
  expect(first).toEqual({ hash: last.hash, isExact: true, worldSize: 2, lost: 0 });
  expect(last.isExact).toBe(true);
});
