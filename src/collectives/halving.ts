/**
 * All-reduce by recursive halving and doubling: as few bytes as the ring, in as few hops as trees.
 *
 *     all-reduce        2⌈log2 N⌉ hops, 2(N−1)/N · n elements sent per rank (the least possible)
 *     reduce-scatter     ⌈log2 N⌉ hops,  (N−1)/N · n
 *
 * (R. Rabenseifner: "Optimization of Collective Reduction Operations", ICCS 2004.) In his words, ranks exchange halves of what
 * they still have, with a partner at distance 1, 2, 4, …, and collect the results by the same way back. Said chunk by chunk, chunk c
 * is reduced up a binomial tree to rank c and handed down the same tree. N = 4, chunk 0:
 *
 *     3 ──▶ 2 ──▶ 0 ──▶ 2 ──▶ 3
 *           1 ──▶ 0 ──▶ 1
 *
 * Where N is no power of two, Rabenseifner folds the ranks that are too many into others first, which sends their vectors twice
 * more. It is not needed: with every chunk's tree turned so that its root is the chunk's owner, each rank is once at each place, so
 * the load is even for any N (the idea of J. L. Träff, "Optimal, Non-pipelined Reduce-scatter and Allreduce Algorithms", 2024; he
 * halves ⌈N/2⌉, ⌈N/4⌉, … where these trees have powers of two). It has up to 2⌈log2 N⌉ partners then instead of log2 N.
 */
import { halvingBranches, handDown, lowestBit, reduceUp } from './binomial.ts';
import { shareOf } from './partition.ts';
import type { ChunkProgram, Rank } from './program.ts';

/** The owners of all chunks, those first whose root is farthest away; this rank itself comes last. */
function ownersFrom(worldSize: number, rank: Rank): readonly Rank[] {
  const isPowerOfTwo = lowestBit(worldSize) === worldSize;
  return Array.from({ length: worldSize }, (_, index) => {
    const place = worldSize - 1 - index;
    return isPowerOfTwo ? rank ^ place : (rank - place + worldSize) % worldSize;
  });
}

export function halvingAllReduce(worldSize: number, rank: Rank, count: number): readonly ChunkProgram[] {
  return ownersFrom(worldSize, rank).map((owner) => {
    const share = shareOf(count, worldSize, owner);
    const branches = halvingBranches(worldSize, rank, owner);
    const steps = [...reduceUp(branches), ...handDown(branches)];
    return { id: owner, count: share.count, input: share.start, output: share.start, steps };
  });
}

/** The first half: the sum stays with its owner. */
export function halvingReduceScatter(worldSize: number, rank: Rank, count: number): readonly ChunkProgram[] {
  return ownersFrom(worldSize, rank).map((owner) => {
    const share = shareOf(count, worldSize, owner);
    const output = owner === rank ? 0 : null;
    const steps = reduceUp(halvingBranches(worldSize, rank, owner));
    return { id: owner, count: share.count, input: share.start, output, steps };
  });
}
