/**
 * A barrier: nobody leaves before everybody has come. An all-reduce has that property, since the result depends on every
 * rank's contribution; so a barrier is one over a vector of a single byte, by the program with the fewest hops.
 * The caller brings that byte (`count: 1`): chunks of no elements send nothing, and would hold up nobody.
 */
import { doublingAllReduce } from './doubling.ts';
import type { ChunkProgram, Rank } from './program.ts';

export function doublingBarrier(worldSize: number, rank: Rank, count: number): readonly ChunkProgram[] {
  return doublingAllReduce(worldSize, rank, count);
}
