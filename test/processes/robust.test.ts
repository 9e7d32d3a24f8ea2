/** A peer that is killed in the middle of a robust average: what the survivors agree on is that of precisely the reported contributors. */
import { expect, test } from 'vitest';
import { Cluster, type PeerProcess } from '../harness/cluster.ts';

/** 8 MiB: each of four peers owns 8 segments of 32, so one that has done a fifth of all owes the others some of its own. */
const COUNT = 1 << 21;

type Bases = Readonly<Record<string, number>>;

/** Element i of a peer's tensor is its base + i % 7; counts the elements that are not the median of those of their contributors. */
function reduceOnce(peer: PeerProcess, bases: Bases, recovery: 'restart' | 'salvage', victim: boolean) {
  return peer.run(
    async ({ state }, { bases, recovery, count, victim }) => {
      const group = state.group!;
      const tensor = Float32Array.from({ length: count }, (_, index) => bases[group.peerId]! + (index % 7));
      const onProgress = (share: number) => {
        if (victim && share >= 0.2) process.kill(process.pid, 'SIGKILL');
      };
      const report = await group.allReduce(tensor, { op: 'median', recovery, timeout: 20_000, onProgress });
      const { contributors, ranges } = report;
      const medianOf = (peerIds: readonly string[]): number => {
        const sorted = peerIds.map((peerId) => bases[peerId]!).sort((left, right) => left - right);
        return (sorted[Math.floor((sorted.length - 1) / 2)]! + sorted[Math.ceil((sorted.length - 1) / 2)]!) / 2;
      };
      let wrong = 0;
      for (const { start, end, contributors: of } of ranges.length > 0
        ? ranges
        : [{ start: 0, end: count, contributors }]) {
        const base = medianOf(of);
        for (let index = start; index < end; index++) if (tensor[index] !== base + (index % 7)) wrong += 1;
      }
      return { wrong, covered: ranges.length === 0 ? count : ranges.at(-1)!.end, ranges, contributors, id: report.id };
    },
    { bases, recovery, count: COUNT, victim },
  );
}

test.each(['restart', 'salvage'] as const)('with `recovery: %s`', async (recovery) => {
  await using cluster = await Cluster.start();
  // The victim's engine is inline, so that it dies at the very instruction.
  const peers = await cluster.form(4, { engine: 'inline' });
  const ids = await Promise.all(peers.map((peer) => peer.run(({ state }) => state.group!.peerId)));
  const bases: Bases = Object.fromEntries(ids.map((id, index) => [id, [10, 200, 3_000, 100_000][index]!]));
  const outcomes = await Promise.allSettled(peers.map((peer, index) => reduceOnce(peer, bases, recovery, index === 2)));
  expect(outcomes[2]).toMatchObject({ status: 'rejected' });
  const survivors = outcomes.filter((_, index) => index !== 2);
  const results = survivors.map((outcome) => (outcome.status === 'fulfilled' ? outcome.value : outcome.reason));
  for (const result of results) {
    expect(result).toEqual(results[0]);
    expect(result).toMatchObject({ wrong: 0, covered: COUNT, contributors: ids.filter((_, index) => index !== 2) });
  }
  const again = await Promise.all([0, 1, 3].map((index) => reduceOnce(peers[index]!, bases, recovery, false)));
  for (const result of again) expect(result).toMatchObject({ wrong: 0, contributors: results[0].contributors });
});
