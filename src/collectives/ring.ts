/**
 * Programs that travel round the ring 0 → 1 → … → N−1 → 0. Every rank talks to two neighbours only.
 *
 *     all-reduce         2(N−1) hops, 2(N−1)/N · n elements sent per rank (the least possible)
 *     reduce-scatter       N−1 hops,   (N−1)/N · n
 *     all-gather           N−1 hops,   (N−1) · n      (n: one rank's part)
 *     broadcast, reduce    N−1 hops,             n    (one chain; segments follow one another along it)
 *
 * Everything here is built of *laps*: a value starts at one rank, is taken over by each rank in turn, and stays with
 * the last of them. Chunks are listed in the order in which a rank gets to see them.
 */
import { reduce, replace, send } from './instructions.ts';
import { shareOf } from './partition.ts';
import type { ChunkProgram, CollectiveKind, Instruction, Rank } from './program.ts';

/** Collectives whose result does not depend on who has which rank: their ring may take any order, and takes that of the view. */
export const ORDERLESS: ReadonlySet<CollectiveKind> = new Set(['allReduce', 'broadcast', 'reduce']);

/** `value` modulo `size`, never negative. */
function wrap(value: number, size: number): number {
  return ((value % size) + size) % size;
}

/** What the rank at `position` of a lap does: the first only sends, the last only takes. */
function lap(worldSize: number, rank: Rank, position: number, take: (from: Rank) => Instruction): Instruction[] {
  const steps: Instruction[] = [];
  if (position > 0) steps.push(take(wrap(rank - 1, worldSize)));
  if (position < worldSize - 1) steps.push(send(wrap(rank + 1, worldSize)));
  return steps;
}

/**
 * Chunk c starts at rank c and is reduced round the ring. Its last holder, rank c−1, has the whole sum, and starts a
 * second lap that hands the finished value to the others. N = 4, chunk 0:
 *
 *     rank   0 ──▶ 1 ──▶ 2 ──▶ 3 ──▶ 0 ──▶ 1 ──▶ 2
 *            a    ab   abc  abcd   (copied from here on)
 */
export function ringAllReduce(worldSize: number, rank: Rank, count: number): readonly ChunkProgram[] {
  return Array.from({ length: worldSize }, (_, position) => {
    const id = wrap(rank - position, worldSize);
    const share = shareOf(count, worldSize, id);
    const steps = [
      ...lap(worldSize, rank, position, reduce),
      ...lap(worldSize, rank, wrap(position + 1, worldSize), replace),
    ];
    return { id, count: share.count, input: share.start, output: share.start, steps };
  });
}

/** Chunk c starts at rank c+1, so that its lap ends at rank c, which owns it. */
export function ringReduceScatter(worldSize: number, rank: Rank, count: number): readonly ChunkProgram[] {
  return Array.from({ length: worldSize }, (_, position) => {
    const id = wrap(rank - 1 - position, worldSize);
    const share = shareOf(count, worldSize, id);
    const output = id === rank ? 0 : null;
    return { id, count: share.count, input: share.start, output, steps: lap(worldSize, rank, position, reduce) };
  });
}

/** Chunk c is rank c's part, and makes one lap from there. */
export function ringAllGather(worldSize: number, rank: Rank, count: number): readonly ChunkProgram[] {
  return Array.from({ length: worldSize }, (_, position) => {
    const id = wrap(rank - position, worldSize);
    const input = id === rank ? 0 : null;
    return { id, count, input, output: id * count, steps: lap(worldSize, rank, position, replace) };
  });
}

/** The whole vector makes one lap that starts at the root. */
export function ringBroadcast(worldSize: number, rank: Rank, count: number, root: Rank): readonly ChunkProgram[] {
  const steps = lap(worldSize, rank, wrap(rank - root, worldSize), replace);
  return [{ id: 0, count, input: rank === root ? 0 : null, output: 0, steps }];
}

/** The whole vector makes one lap that ends at the root. */
export function ringReduce(worldSize: number, rank: Rank, count: number, root: Rank): readonly ChunkProgram[] {
  const steps = lap(worldSize, rank, wrap(rank - root - 1, worldSize), reduce);
  return [{ id: 0, count, input: 0, output: rank === root ? 0 : null, steps }];
}
