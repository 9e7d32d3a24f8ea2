/**
 * Which programs there are, and the one door to them: a request and a rank go in, a plan comes out. Also what each kind
 * of collective means in terms of tensors (`tensorSizes`), for the callers who allocate and the validator who checks.
 */
import { ArgumentError } from '../errors.ts';
import { doublingBarrier } from './barrier.ts';
import {
  directAllGather,
  directAllReduce,
  directAllToAll,
  directGather,
  directReduceScatter,
  directScatter,
} from './direct.ts';
import { doublingAllReduce } from './doubling.ts';
import { shareOf } from './partition.ts';
import {
  ALGORITHMS,
  type Algorithm,
  type ChunkProgram,
  type CollectiveKind,
  type Plan,
  type PlanRequest,
  type Rank,
} from './program.ts';
import { ringAllGather, ringAllReduce, ringBroadcast, ringReduce, ringReduceScatter } from './ring.ts';
import { treeAllReduce, treeBroadcast, treeReduce } from './tree.ts';

/** Those that have no root ignore it. */
type Builder = (worldSize: number, rank: Rank, count: number, root: Rank) => readonly ChunkProgram[];

const BUILDERS: Readonly<Record<CollectiveKind, Readonly<Partial<Record<Algorithm, Builder>>>>> = {
  allReduce: { ring: ringAllReduce, tree: treeAllReduce, doubling: doublingAllReduce, direct: directAllReduce },
  broadcast: { ring: ringBroadcast, tree: treeBroadcast },
  reduce: { ring: ringReduce, tree: treeReduce },
  reduceScatter: { ring: ringReduceScatter, direct: directReduceScatter },
  allGather: { ring: ringAllGather, direct: directAllGather },
  gather: { direct: directGather },
  scatter: { direct: directScatter },
  allToAll: { direct: directAllToAll },
  barrier: { doubling: doublingBarrier },
};

/** The algorithms that a kind of collective can travel by; never empty. */
export function algorithmsOf(kind: CollectiveKind): readonly Algorithm[] {
  const builders = BUILDERS[kind];
  if (builders === undefined) throw new ArgumentError(`There is no collective called ${JSON.stringify(kind)}.`);
  return ALGORITHMS.filter((algorithm) => builders[algorithm] !== undefined);
}

/** @throws ArgumentError when the request makes no sense, whatever the rank */
export function checkRequest(request: PlanRequest): void {
  const { worldSize, count, root } = request;
  if (!Number.isSafeInteger(worldSize) || worldSize < 1) {
    throw new ArgumentError(
      `A world of ${worldSize} ranks cannot do a collective: the world size is an integer from 1.`,
    );
  }
  // Offsets of gathered tensors reach worldSize · count, and must stay exact.
  if (!Number.isSafeInteger(count) || count < 0 || !Number.isSafeInteger(count * worldSize)) {
    throw new ArgumentError(`A collective of ${worldSize} ranks cannot have ${count} elements.`);
  }
  if (!Number.isSafeInteger(root) || root < 0 || root >= worldSize) {
    throw new ArgumentError(`Root ${root} is no rank: ranks go from 0 to ${worldSize - 1}.`);
  }
}

/**
 * What `rank` does in a collective. It lists only the chunks that the rank has steps in or copies from its input to its
 * output, in the order in which they are best begun.
 *
 * @throws ArgumentError when the kind has no such algorithm, or a number is out of range
 */
export function makePlan(request: PlanRequest, rank: Rank): Plan {
  checkRequest(request);
  const { kind, algorithm, worldSize, count, root } = request;
  if (!Number.isSafeInteger(rank) || rank < 0 || rank >= worldSize) {
    throw new ArgumentError(`Rank ${rank} is not in the view: ranks go from 0 to ${worldSize - 1}.`);
  }
  const offered = algorithmsOf(kind);
  const build = BUILDERS[kind][algorithm];
  if (build === undefined) {
    throw new ArgumentError(`${kind} has no algorithm ${JSON.stringify(algorithm)}: use ${offered.join(' or ')}.`);
  }
  return { algorithm, chunks: build(worldSize, rank, count, root) };
}

/** Elements of a rank's tensors in a collective; 0 where it needs none. */
export function tensorSizes(request: PlanRequest, rank: Rank): { readonly input: number; readonly output: number } {
  const { kind, worldSize, count, root } = request;
  const atRoot = rank === root ? 1 : 0;
  switch (kind) {
    case 'allReduce':
    case 'barrier':
      return { input: count, output: count };
    case 'broadcast':
      return { input: count * atRoot, output: count };
    case 'reduce':
      return { input: count, output: count * atRoot };
    case 'reduceScatter':
      return { input: count, output: shareOf(count, worldSize, rank).count };
    case 'allGather':
      return { input: count, output: count * worldSize };
    case 'gather':
      return { input: count, output: count * worldSize * atRoot };
    case 'scatter':
      return { input: count * worldSize * atRoot, output: count };
    case 'allToAll':
      return { input: count * worldSize, output: count * worldSize };
  }
}
