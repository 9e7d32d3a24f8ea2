/**
 * All-reduce by recursive doubling: fewest hops, for vectors so small that nothing but hops counts.
 *
 *     N a power of two    log2 N hops, n · log2 N elements sent per rank
 *     otherwise           up to 2 more hops: some ranks hand their vector to a partner first and get the result back
 *
 * (R. Thakur, R. Rabenseifner, W. Gropp: "Optimization of Collective Communication Operations in MPICH", 2005, §4.)
 *
 * Here nobody hands round finished bytes: every core rank computes the result itself, and they must agree in every bit,
 * although floating-point addition depends on the order. Why they do:
 *
 *   1. With rest = N − 2^k, the ranks 2i and 2i+1 (i < rest) are one core, held by rank 2i; every later rank is a core
 *      by itself. So core v stands for a run of consecutive ranks, and cores are numbered in the order of their ranks.
 *   2. Before round j, core v holds the value of its block, the 2^j cores that agree with v in all bits from j upward.
 *      Suppose that all cores of a block hold the same expression E(block). In round 0 that is plain.
 *   3. In round j, v exchanges with v XOR 2^j. The block with bit j clear has the lower core numbers, hence by (1) the
 *      lower ranks, in *every* such pair of the two blocks. The operand of the lower rank stands on the left, so every
 *      core of both blocks computes E(lower block) ⊕ E(upper block): again one expression for the joint block.
 *
 * The expression also lists the ranks in ascending order, so ⊕ need not even commute.
 */
import { reduce, replace, send } from './instructions.ts';
import type { ChunkProgram, Instruction, Rank } from './program.ts';

export function doublingAllReduce(worldSize: number, rank: Rank, count: number): readonly ChunkProgram[] {
  return [{ id: 0, count, input: 0, output: 0, steps: doublingSteps(worldSize, rank) }];
}

function doublingSteps(worldSize: number, rank: Rank): readonly Instruction[] {
  const cores = 2 ** Math.floor(Math.log2(worldSize));
  const rest = worldSize - cores;
  const isPaired = rank < 2 * rest;
  if (isPaired && rank % 2 === 1) return [send(rank - 1), replace(rank - 1)];

  const rankOfCore = (core: number): Rank => (core < rest ? core * 2 : core + rest);
  const core = isPaired ? rank / 2 : rank - rest;
  const steps: Instruction[] = [];
  if (isPaired) steps.push(reduce(rank + 1));
  for (let bit = 1; bit < cores; bit *= 2) {
    const partner = rankOfCore(core ^ bit);
    steps.push(send(partner), reduce(partner));
  }
  if (isPaired) steps.push(send(rank + 1));
  return steps;
}
