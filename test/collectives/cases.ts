/** What the tests of programs share: every request worth making, the plans for it, and the results by definition. */
import { shareOf } from '../../src/collectives/partition.ts';
import { algorithmsOf, makePlan, tensorSizes } from '../../src/collectives/plan.ts';
import { COLLECTIVE_KINDS, type CollectiveKind, type Plan, type PlanRequest } from '../../src/collectives/program.ts';

export const LARGEST_WORLD = 17;

export const ROOTED: ReadonlySet<CollectiveKind> = new Set(['broadcast', 'reduce', 'gather', 'scatter']);

export function plansFor(request: PlanRequest): Plan[] {
  return Array.from({ length: request.worldSize }, (_, rank) => makePlan(request, rank));
}

/** All kinds, their algorithms and roots, and the counts at which something could go wrong, for one world size. */
export function requestsFor(worldSize: number): PlanRequest[] {
  const counts = [...new Set([0, 1, worldSize - 1, worldSize, worldSize + 1, 3 * worldSize + 2])];
  return COLLECTIVE_KINDS.flatMap((kind) =>
    algorithmsOf(kind).flatMap((algorithm) =>
      Array.from({ length: ROOTED.has(kind) ? worldSize : 1 }, (_, root) => root).flatMap((root) =>
        counts.map((count) => ({ kind, algorithm, worldSize, count, root })),
      ),
    ),
  );
}

export function inputsFor<T>(request: PlanRequest, element: (rank: number, index: number) => T): T[][] {
  return Array.from({ length: request.worldSize }, (_, rank) =>
    Array.from({ length: tensorSizes(request, rank).input }, (_, index) => element(rank, index)),
  );
}

/** Every rank's output by definition, with no thought of how the elements get there. */
export function resultsByDefinition<T>(
  request: PlanRequest,
  inputs: readonly (readonly T[])[],
  reduceAll: (terms: readonly T[]) => T,
): T[][] {
  const { kind, worldSize, count, root } = request;
  const reduced = (): T[] => Array.from({ length: count }, (_, i) => reduceAll(inputs.map((input) => input[i]!)));
  const perRank = (result: (rank: number) => readonly T[]): T[][] =>
    Array.from({ length: worldSize }, (_, rank) => [...result(rank)]);
  switch (kind) {
    case 'allReduce':
    case 'barrier':
      return perRank(reduced);
    case 'reduce':
      return perRank((rank) => (rank === root ? reduced() : []));
    case 'reduceScatter':
      return perRank((rank) => {
        const { start, count: elements } = shareOf(count, worldSize, rank);
        return reduced().slice(start, start + elements);
      });
    case 'broadcast':
      return perRank(() => inputs[root]!);
    case 'allGather':
      return perRank(() => inputs.flat());
    case 'gather':
      return perRank((rank) => (rank === root ? inputs.flat() : []));
    case 'scatter':
      return perRank((rank) => inputs[root]!.slice(rank * count, (rank + 1) * count));
    case 'allToAll':
      return perRank((rank) => inputs.flatMap((input) => input.slice(rank * count, (rank + 1) * count)));
  }
}

/** `rank 0 | 2: reduce 1, send 3 → …`, one line a rank and chunk: programs for people to read. */
export function transcriptOf(plans: readonly Plan[]): string {
  const lines = plans.flatMap((plan, rank) =>
    plan.chunks.map((chunk) => {
      const steps = chunk.steps.map((step) => (step.do === 'send' ? `send→${step.to}` : `${step.do}←${step.from}`));
      return `rank ${rank} chunk ${chunk.id}: ${steps.join('  ') || 'copy'}`;
    }),
  );
  return lines.join('\n');
}
