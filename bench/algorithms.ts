/**
 * `npm run bench:algorithms`: all-reduce by every algorithm and by `auto`, between processes of this host. All take turns within one
 * run, and begin each round in another order; `auto` is judged by the median, over the rounds, of its time over that of the fixed
 * algorithm with the least median time. Writes bench/results/algorithms.json.
 */
import { fork } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import Table from 'cli-table3';
import { Command } from 'commander';
import { formatBytes, formatSeconds, median } from '../src/benchmark/statistics.ts';
import { type CostFigures, DEFAULT_COSTS } from '../src/collectives/costs.ts';
import { algorithmsOf } from '../src/collectives/plan.ts';
import { predictSeconds } from '../src/collectives/select.ts';
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
  readonly warmup: string;
  readonly explain?: true;
  readonly fit?: true;
}

/** One world and size. */
interface Row {
  readonly worldSize: number;
  readonly bytes: number;
  /** Median seconds of each algorithm, and what the model says of it. */
  readonly algorithms: readonly { algorithm: Algorithm | 'auto'; seconds: number; predicted: number | null }[];
  readonly chosen: string;
  readonly best: Algorithm;
  /** Median over the rounds of `auto`'s time over that of the best. */
  readonly ratio: number;
}

function numbersFrom(text: string | undefined, fallback: readonly number[]): readonly number[] {
  return text === undefined ? fallback : text.split(',').map(Number);
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
        member.on('message', (message) => times.push(message as AlgorithmTimes)); // rank 0 sends no others
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

function predict(worldSize: number, bytes: number, algorithm: Algorithm, near = DEFAULT_COSTS.near): number {
  const choice = { kind: 'allReduce', worldSize, bytes, codec: 'f32', op: 'sum' } as const;
  return predictSeconds(choice, algorithm, { ...DEFAULT_COSTS, near });
}

function rowOf(worldSize: number, bytes: number, times: readonly AlgorithmTimes[]): Row {
  const algorithms = times.map(({ algorithm, seconds }) => ({
    algorithm,
    seconds: median(seconds),
    predicted: algorithm === 'auto' ? null : predict(worldSize, bytes, algorithm),
  }));
  const auto = times.find(({ algorithm }) => algorithm === 'auto')!; // it is always measured
  const fixed = algorithms.filter(({ algorithm }) => algorithm !== 'auto');
  const { algorithm: best } = fixed.reduce((left, right) => (right.seconds < left.seconds ? right : left));
  const beside = times.find(({ algorithm }) => algorithm === best)!; // it is one of them
  const ratio = median(auto.seconds.map((seconds, round) => seconds / beside.seconds[round]!));
  return { worldSize, bytes, algorithms, chosen: auto.travelled, best: best as Algorithm, ratio };
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
function fitTo(rows: readonly Row[]): CostFigures {
  const points = rows.flatMap(({ worldSize, bytes, algorithms }) =>
    algorithms.flatMap(({ algorithm, seconds }) =>
      algorithm === 'auto' ? [] : [{ worldSize, bytes, algorithm, seconds }],
    ),
  );
  return fitFigures(DEFAULT_COSTS.near, (figures) =>
    points.reduce(
      (sum, { worldSize, bytes, algorithm, seconds }) =>
        sum + Math.log(predict(worldSize, bytes, algorithm, figures) / seconds) ** 2,
      0,
    ),
  );
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
  }
  const met = rows.filter(({ ratio }) => ratio <= BAR).length;
  console.log(`\nauto is within ${Math.round((BAR - 1) * 100)} % of the best in ${met} of ${rows.length} cases.`);
  const fitted = options.fit === true ? fitTo(rows) : null;
  if (fitted !== null) console.log('The figures that explain these times best:', fitted);
  mkdirSync(RESULTS, { recursive: true });
  const record = {
    machine: describeMachine(),
    date: new Date().toISOString(),
    command: process.argv.slice(2),
    costs: DEFAULT_COSTS.near,
    fitted,
    rows,
  };
  writeFileSync(join(RESULTS, 'algorithms.json'), `${JSON.stringify(record, null, 1)}\n`);
  console.log(`Written to ${RESULTS}algorithms.json`);
}

await new Command('algorithms')
  .description('Measures all-reduce by every algorithm, and whether `auto` chooses well.')
  .option('--sizes <bytes,…>', 'tensor sizes')
  .option('--worlds <n,…>', 'numbers of processes')
  .option('--rounds <n>', 'turns that each algorithm gets at each size', '9')
  .option('--warmup <seconds>', 'time to warm up', '6')
  .option('--explain', 'what the model predicts, beside what was measured')
  .option('--fit', 'which figures would explain the times best')
  .action(main)
  .parseAsync();
