/**
 * `npm run bench:algorithms`: all-reduce by every algorithm and by `auto`, between processes of this host. All take turns within one
 * run, and begin each round in another order; `auto` is judged by the median, over the rounds, of its time over that of the best fixed
 * algorithm. Writes bench/results/algorithms.json.
 */
import { fork } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import Table from 'cli-table3';
import { Command } from 'commander';
import { formatBytes, formatSeconds, median } from '../src/benchmark/statistics.ts';
import { algorithmsOf } from '../src/collectives/plan.ts';
import { predictSeconds } from '../src/collectives/select.ts';
import { PROCESSOR, type ProcessorFigures, type WayCosts } from '../src/costs.ts';
import type { Algorithm } from '../src/index.ts';
import { startCoordinator } from './harness/coordinator.ts';
import { fitFigures } from './harness/fit.ts';
import { describeMachine } from './harness/machine.ts';
import type { AlgorithmsTask, AlgorithmTimes } from './peers/algorithms-peer.ts';

const KIB = 1024;
const MIB = 1024 * KIB;
const SIZES = [4 * KIB, 16 * KIB, 64 * KIB, 256 * KIB, MIB, 4 * MIB, 16 * MIB, 64 * MIB];
const WORLDS = [2, 4, 8];
const RESULTS = fileURLToPath(new URL('../../bench/results/', import.meta.url));
const PEER = fileURLToPath(new URL('./peers/algorithms-peer.js', import.meta.url));
const TOKEN = 'of the benchmark';
const DEADLINE_MS = 30 * 60_000;

/** What `auto` may take more than the best fixed algorithm. */
const BAR = 1.1;

/** Without sites it is `halving`. */
const FIXED = algorithmsOf('allReduce').filter((algorithm) => algorithm !== 'hierarchical');

interface Options {
  readonly sizes?: string;
  readonly worlds?: string;
  readonly rounds: string;
  readonly seconds: string;
  readonly warmup: string;
  readonly explain?: true;
  readonly fit?: true;
}

interface Measured {
  readonly algorithm: Algorithm | 'auto';
  /** The median turn. */
  readonly seconds: number;
  /** What few calls were faster than: others of them met something else that the machine did. */
  readonly undisturbed: number;
  /** Of all ranks, with a barrier. */
  readonly cpuSeconds: number;
  readonly predicted: number | null;
}

/** One world and size. */
interface Row {
  readonly worldSize: number;
  readonly bytes: number;
  readonly rounds: number;
  readonly algorithms: readonly Measured[];
  readonly chosen: string;
  readonly best: Algorithm;
  /** `auto`'s time over that of the best. */
  readonly ratio: number;
  /** By which `auto` chose. */
  readonly costs: WayCosts;
}

function numbersFrom(text: string | undefined, fallback: readonly number[]): readonly number[] {
  return text === undefined ? fallback : text.split(',').map(Number);
}

/** The share of calls that were faster than those that count as undisturbed. */
const UNDISTURBED = 0.15;

function quantile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((left, right) => left - right);
  return sorted[Math.floor(share * sorted.length)] ?? Number.NaN;
}

/** Runs the members to their end. */
async function measure(task: Omit<AlgorithmsTask, 'address' | 'token'>): Promise<AlgorithmTimes[]> {
  const { child: coordinator, address } = await startCoordinator({ lostAfterMs: 20_000, token: TOKEN });
  const argument = JSON.stringify({ ...task, address, token: TOKEN } satisfies AlgorithmsTask);
  const members = Array.from({ length: task.worldSize }, () => fork(PEER, [argument]));
  const stop = () => {
    for (const child of [...members, coordinator]) child.kill('SIGKILL');
  };
  const timer = setTimeout(stop, DEADLINE_MS);
  const times: AlgorithmTimes[] = [];
  try {
    await Promise.all(
      members.map((member) => {
        member.on('message', (message) => {
          const one = message as AlgorithmTimes; // rank 0 sends no others
          times.push(one);
          if (one.algorithm === 'auto')
            process.stderr.write(`${formatBytes(one.bytes)}: ${one.seconds.length} turns of each\n`);
        });
        return new Promise<void>((resolve, reject) => {
          member.on('error', reject);
          member.on('exit', (code, signal) => {
            if (code === 0) resolve();
            else reject(new Error(`a member ended with ${signal ?? code}`));
          });
        });
      }),
    );
    return times;
  } finally {
    clearTimeout(timer);
    stop();
  }
}

function predict(
  worldSize: number,
  bytes: number,
  algorithm: Algorithm,
  costs: WayCosts,
  processor = PROCESSOR,
): number {
  const choice = { kind: 'allReduce', worldSize, bytes, codec: 'f32', op: 'sum' } as const;
  return predictSeconds(choice, algorithm, costs, processor);
}

/** The fixed algorithm with the least median time in some rounds. */
function bestOf(times: readonly AlgorithmTimes[], isCounted: (round: number) => boolean): AlgorithmTimes {
  const fixed = times.filter(({ algorithm }) => algorithm !== 'auto');
  const timeOf = ({ seconds }: AlgorithmTimes) => median(seconds.filter((_, round) => isCounted(round)));
  return fixed.reduce((left, right) => (timeOf(right) < timeOf(left) ? right : left));
}

/**
 * Median of `auto`'s time over that of the best fixed algorithm in the same round. Which one is the best is told by the other half of
 * the rounds: in those that tell it, it was lucky as well.
 */
function ratioOf(times: readonly AlgorithmTimes[]): number {
  const auto = times.find(({ algorithm }) => algorithm === 'auto')!; // it is always measured
  const ratios = auto.seconds.map((seconds, round) => {
    const best = bestOf(times, (other) => other % 2 !== round % 2);
    return seconds / best.seconds[round]!;
  });
  return median(ratios);
}

function rowOf(worldSize: number, bytes: number, times: readonly AlgorithmTimes[]): Row {
  const algorithms = times.map(({ algorithm, seconds, calls, cpuSeconds, costs }) => ({
    algorithm,
    seconds: median(seconds),
    undisturbed: quantile(calls, UNDISTURBED),
    cpuSeconds,
    predicted: algorithm === 'auto' ? null : predict(worldSize, bytes, algorithm, costs),
  }));
  const { travelled: chosen, costs } = times.find(({ algorithm }) => algorithm === 'auto')!; // it is always measured
  const best = bestOf(times, () => true).algorithm as Algorithm; // only fixed ones are among them
  return { worldSize, bytes, rounds: times[0]!.seconds.length, algorithms, chosen, best, ratio: ratioOf(times), costs };
}

function print(rows: readonly Row[], worldSize: number, explain: boolean): void {
  const head = ['size', ...FIXED, 'auto', 'chosen', 'best', 'auto / best', ''];
  const table = new Table({ head, style: { head: [], border: [] } });
  for (const { bytes, algorithms, chosen, best, ratio } of rows) {
    const cells = [...FIXED, 'auto'].map((name) => {
      const { seconds, predicted } = algorithms.find(({ algorithm }) => algorithm === name)!; // all are measured
      return explain && predicted !== null
        ? `${formatSeconds(seconds)}\n(${formatSeconds(predicted)})`
        : formatSeconds(seconds);
    });
    table.push([formatBytes(bytes), ...cells, chosen, best, ratio.toFixed(2), ratio <= BAR ? 'met' : 'NOT MET']);
  }
  console.log(`\nN = ${worldSize}${explain ? ', measured (predicted)' : ''}\n${table.toString()}`);
}

/** Figures by which the model is least wrong, every point alike. */
function fitTo(rows: readonly Row[]): ProcessorFigures {
  return fitFigures(PROCESSOR, (figures) =>
    rows.reduce(
      (sum, { worldSize, bytes, algorithms, costs }) =>
        algorithms.reduce((part, { algorithm, seconds, undisturbed }) => {
          if (algorithm === 'auto') return part;
          const measured = Math.sqrt(seconds * undisturbed);
          return part + Math.log(predict(worldSize, bytes, algorithm, costs, figures) / measured) ** 2;
        }, sum),
      0,
    ),
  );
}

function write(rows: readonly Row[], fitted: ProcessorFigures | null): void {
  mkdirSync(RESULTS, { recursive: true });
  const record = {
    machine: describeMachine(),
    date: new Date().toISOString(),
    command: process.argv.slice(2),
    processor: PROCESSOR,
    fitted,
    rows,
  };
  writeFileSync(join(RESULTS, 'algorithms.json'), `${JSON.stringify(record, null, 1)}\n`);
}

async function main(options: Options): Promise<void> {
  const sizes = numbersFrom(options.sizes, SIZES);
  const worlds = numbersFrom(options.worlds, WORLDS);
  const rows: Row[] = [];
  for (const worldSize of worlds) {
    process.stderr.write(`N=${worldSize}\n`);
    const times = await measure({
      worldSize,
      sizes,
      rounds: Number(options.rounds),
      sizeMs: Number(options.seconds) * 1_000,
      warmUpMs: Number(options.warmup) * 1_000,
      algorithms: [...FIXED, 'auto'],
    });
    const mine = sizes.map((bytes) =>
      rowOf(
        worldSize,
        bytes,
        times.filter((one) => one.bytes === bytes),
      ),
    );
    print(mine, worldSize, options.explain === true);
    rows.push(...mine);
    write(rows, null); // a run takes minutes: what is measured stays
  }
  const met = rows.filter(({ ratio }) => ratio <= BAR).length;
  console.log(`\nauto is within ${Math.round((BAR - 1) * 100)} % of the best in ${met} of ${rows.length} cases.`);
  const fitted = options.fit === true ? fitTo(rows) : null;
  if (fitted !== null) console.log('The figures that explain these times best:', fitted);
  write(rows, fitted);
  console.log(`Written to ${RESULTS}algorithms.json`);
}

await new Command('algorithms')
  .description('Measures all-reduce by every algorithm, and whether `auto` chooses well.')
  .option('--sizes <bytes,…>', 'tensor sizes')
  .option('--worlds <n,…>', 'numbers of processes')
  .option('--rounds <n>', 'turns that each algorithm gets at each size, at least', '9')
  .option('--seconds <n>', 'time for each size, unless those turns take longer', '6')
  .option('--warmup <seconds>', 'time to warm up', '6')
  .option('--explain', 'what the model predicts, beside what was measured')
  .option('--fit', 'which figures would explain the times best')
  .action(main)
  .parseAsync();
