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
import { halvingAllReduce, halvingReduceScatter } from './halving.ts';
import { hierarchicalAllReduce, hierarchicalReduceScatter } from './hierarchical.ts';
import { shareOf } from './partition.ts';
import {
  ALGORITHMS,
  type Algorithm,
  type ChunkProgram,
  type CollectiveKind,
  type Plan,
  type PlanRequest,
  type Rank,
  type Sites,
  type Task,
} from './program.ts';
import { ringAllGather, ringAllReduce, ringBroadcast, ringReduce, ringReduceScatter } from './ring.ts';
import { treeAllReduce, treeBroadcast, treeReduce } from './tree.ts';

/** Those that have no root, or know no sites, ignore them. */
type Builder = (worldSize: number, rank: Rank, count: number, root: Rank, sites: Sites) => readonly ChunkProgram[];

const BUILDERS: Readonly<Record<CollectiveKind, Readonly<Partial<Record<Algorithm, Builder>>>>> = {
  allReduce: {
    ring: ringAllReduce,
    tree: treeAllReduce,
    doubling: doublingAllReduce,
    halving: halvingAllReduce,
    direct: directAllReduce,
    hierarchical: hierarchicalAllReduce,
  },
  broadcast: { ring: ringBroadcast, tree: treeBroadcast },
  reduce: { ring: ringReduce, tree: treeReduce },
  reduceScatter: {
    ring: ringReduceScatter,
    halving: halvingReduceScatter,
    direct: directReduceScatter,
    hierarchical: hierarchicalReduceScatter,
  },
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
export function checkTask(task: Task): void {
  const { worldSize, count, root } = task;
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

/** The number of each rank's site, from its name. */
export function sitesOf(names: readonly string[]): Sites {
  const numbers = new Map<string, number>();
  return names.map((name) => {
    const site = numbers.get(name) ?? numbers.size;
    numbers.set(name, site);
    return site;
  });
}

function checkSites(sites: Sites, worldSize: number): void {
  let next = 0;
  for (const site of sites) {
    if (site === next) next += 1;
    else if (!(Number.isSafeInteger(site) && site >= 0 && site < next)) next = Number.NaN;
  }
  if (sites.length !== worldSize || Number.isNaN(next)) {
    throw new ArgumentError(
      `Sites ${sites.join(', ')} do not fit ${worldSize} ranks: each has one, numbered from 0 as ranks name them first.`,
    );
  }
}

/**
 * What `rank` does in a collective. It lists only the chunks that the rank has steps in or copies from its input to its
 * output, in the order in which they are best begun.
 *
 * @throws ArgumentError when the kind has no such algorithm, or a number is out of range
 */
export function makePlan(request: PlanRequest, rank: Rank): Plan {
  checkTask(request);
  const { kind, algorithm, worldSize, count, root } = request;
  const sites = request.sites ?? new Array<number>(worldSize).fill(0);
  checkSites(sites, worldSize);
  if (!Number.isSafeInteger(rank) || rank < 0 || rank >= worldSize) {
    throw new ArgumentError(`Rank ${rank} is not in the view: ranks go from 0 to ${worldSize - 1}.`);
  }
  const offered = algorithmsOf(kind);
  const build = BUILDERS[kind][algorithm];
  if (build === undefined) {
    throw new ArgumentError(`${kind} has no algorithm ${JSON.stringify(algorithm)}: use ${offered.join(' or ')}.`);
  }
  return { algorithm, chunks: build(worldSize, rank, count, root, sites) };
}

/** Elements of a rank's tensors in a collective; 0 where it needs none. */
export function tensorSizes(request: Task, rank: Rank): { readonly input: number; readonly output: number } {
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
