/** Why `auto` chooses what it does: every algorithm that it chooses among, what the model says of it, and what it takes, in turns. */
import { performance } from 'node:perf_hooks';
import { wireLength } from '../collectives/codec.ts';
import { sitesOf } from '../collectives/plan.ts';
import { type Choice, explainChoice } from '../collectives/select.ts';
import type { Algorithm, AlgorithmLabel, Group } from '../index.ts';
import { warmUp } from './measure.ts';
import { type Plan, repetitions } from './plan.ts';
import { median } from './statistics.ts';
import { type Benchable, Work } from './work.ts';

interface ExplainedAlgorithm {
  readonly algorithm: Algorithm;
  /** What the model says. */
  readonly predictedSeconds: number;
  /** Median of the slowest rank's times. */
  readonly seconds: number;
}

/** One size. */
export interface Explained {
  readonly bytes: number;
  readonly chosen: AlgorithmLabel;
  /** By what the model says, the best first. */
  readonly algorithms: readonly ExplainedAlgorithm[];
}

/** Takes turns, so that what disturbs the machine meets all alike. @param onRow called on every rank, size by size */
export async function explain(
  group: Benchable & Pick<Group, 'status' | 'members'>,
  plan: Plan,
  onRow: (row: Explained) => void,
): Promise<void> {
  await warmUp(group, plan);
  const { costs } = await group.status();
  const { collective: kind, codec } = plan;
  const op = kind === 'allReduce' || kind === 'reduceScatter' || kind === 'reduce' ? plan.op : null;
  const sites = sitesOf(group.members.map(({ site }) => site));
  for (const size of plan.sizes) {
    const auto = new Work(group, plan, size);
    // A call tells its count in terms of one part, where there are parts.
    const parts = kind === 'allGather' || kind === 'allToAll' ? group.worldSize : 1;
    const bytes = wireLength(plan.dtype, codec, auto.count / parts);
    const choice: Choice = { kind, worldSize: group.worldSize, sites, bytes, codec, op };
    const sides = explainChoice(choice, costs).map(({ algorithm, seconds: predictedSeconds }) => ({
      algorithm,
      predictedSeconds,
      work: new Work(group, { ...plan, algorithm }, size),
      times: [] as number[],
    }));
    for (let round = -plan.warmups; round < repetitions(plan.iterations, size); round++)
      for (const { work, times } of sides) {
        await group.barrier();
        const start = performance.now();
        await work.run(false, false);
        const slowest = Float64Array.of((performance.now() - start) / 1_000);
        await group.allReduce(slowest, { op: 'max', tag: 'benchmark' });
        if (round >= 0) times.push(slowest[0]!);
      }
    const { algorithm: chosen } = await auto.run(false, false);
    const algorithms = sides.map(({ algorithm, predictedSeconds, times }) => {
      return { algorithm, predictedSeconds, seconds: median(times) };
    });
    onRow({ bytes: auto.bytes, chosen, algorithms });
  }
}
