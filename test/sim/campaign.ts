/** Many seeds, on all cores. */
import { availableParallelism } from 'node:os';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import type { StepCount } from '../../src/lifecycle.ts';
import type { FaultKind, Scenario } from './scenario.ts';

/** What a worker is to do. */
export interface CampaignTask {
  /** Seeds `first`, `first + stride`, … below `end`. */
  readonly first: number;
  readonly stride: number;
  readonly end: number;
  readonly faults: readonly FaultKind[] | null;
  /** One failure is enough, and it need not be shrunk. */
  readonly onlyFirst: boolean;
}

export interface SeedFailure {
  readonly seed: number;
  readonly failure: string;
  readonly smallest: Scenario;
  readonly trace: readonly string[];
}

export interface Totals {
  runs: number;
  events: number;
  virtualMs: number;
  succeeded: number;
  failed: number;
  retried: number;
  salvaged: number;
  excluded: number;
  synced: number;
  healed: number;
}

export type CampaignMessage =
  | { readonly type: 'progress'; readonly totals: Totals; readonly steps: readonly StepCount[] }
  | { readonly type: 'failure'; readonly failure: SeedFailure };

export interface CampaignResult extends Totals {
  readonly failures: readonly SeedFailure[];
  /** How often each step of each machine was taken. */
  readonly steps: readonly StepCount[];
}

// The tests run from source, the workers from what was built from it.
const WORKER = fileURLToPath(new URL('../../dist/test/sim/campaign-worker.js', import.meta.url)).replace(
  '/dist/dist/',
  '/dist/',
);

/** Nearly all that a run makes is garbage when it ends: what is collected seldom is dead by then. */
const YOUNG_MB = 96;

/** Runs seeds `first` to `first + count − 1`. */
export async function runCampaign(
  options: {
    readonly first: number;
    readonly count: number;
    readonly faults: readonly FaultKind[] | null;
    readonly onlyFirst?: boolean;
  },
  onProgress: (runs: number) => void = () => {},
): Promise<CampaignResult> {
  const { first, count, faults, onlyFirst = false } = options;
  const workers: Worker[] = [];
  const stride = Math.min(count, availableParallelism());
  const totals: Totals[] = [];
  const steps: (readonly StepCount[])[] = [];
  const failures: SeedFailure[] = [];
  await Promise.all(
    Array.from({ length: stride }, async (_, index) => {
      const task: CampaignTask = { first: first + index, stride, end: first + count, faults, onlyFirst };
      const worker = new Worker(WORKER, { workerData: task, resourceLimits: { maxYoungGenerationSizeMb: YOUNG_MB } });
      workers.push(worker);
      worker.on('message', (message: CampaignMessage) => {
        if (message.type === 'failure') {
          failures.push(message.failure);
          if (onlyFirst) for (const one of workers) void one.terminate();
        } else {
          totals[index] = message.totals;
          steps[index] = message.steps;
          onProgress(totals.reduce((sum, one) => sum + (one?.runs ?? 0), 0));
        }
      });
      await new Promise<void>((resolve, reject) => {
        worker.once('error', reject);
        worker.once('exit', (code) =>
          code === 0 || failures.length > 0 ? resolve() : reject(new Error(`a worker ended with ${code}`)),
        );
      });
    }),
  );
  const sum = (key: keyof Totals) => totals.reduce((all, one) => all + (one?.[key] ?? 0), 0);
  return {
    runs: sum('runs'),
    events: sum('events'),
    virtualMs: sum('virtualMs'),
    succeeded: sum('succeeded'),
    failed: sum('failed'),
    retried: sum('retried'),
    salvaged: sum('salvaged'),
    excluded: sum('excluded'),
    synced: sum('synced'),
    healed: sum('healed'),
    steps: addUp(steps),
    failures: failures.sort((left, right) => left.seed - right.seed),
  };
}

function addUp(workers: readonly (readonly StepCount[])[]): readonly StepCount[] {
  const sums = new Map<string, number>();
  for (const { step, count } of workers.flat()) sums.set(step, (sums.get(step) ?? 0) + count);
  return [...sums].map(([step, count]) => ({ step, count }));
}
