/** `skein bench`: what a collective takes, in the columns of nccl-tests, and beside the libraries that people know. */
import { type ChildProcess, fork } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import Table from 'cli-table3';
import { Command, InvalidArgumentError, Option } from 'commander';
import { type Chart, chartSvg, type Point } from '../benchmark/chart.ts';
import { type Explained, explain } from '../benchmark/explain.ts';
import { measure } from '../benchmark/measure.ts';
import type { PeerOrder } from '../benchmark/peer.ts';
import { BENCHED, BENCHED_OPS, busFactor, type Plan, type Row, sizesBetween } from '../benchmark/plan.ts';
import { RIVALS, type Rival } from '../benchmark/rivals.ts';
import { formatBytes, formatSeconds, median } from '../benchmark/statistics.ts';
import { ArgumentError, type Group, type JoinOptions, join } from '../index.ts';
import { startCoordinator } from '../launch/coordinator.ts';
import { launchEnvironment } from '../launch/environment.ts';
import { DTYPES } from '../tensor.ts';
import { wholeNumber } from './arguments.ts';

interface BenchOptions {
  readonly processes?: number;
  readonly worldSize?: number;
  readonly collective: Plan['collective'];
  readonly begin: number;
  readonly end: number;
  readonly factor: number;
  readonly dtype: Plan['dtype'];
  readonly op: Plan['op'];
  readonly codec: Plan['codec'];
  readonly algorithm: Plan['algorithm'];
  readonly iterations: number;
  readonly warmups: number;
  readonly eager?: true;
  readonly engine?: 'worker' | 'inline';
  readonly transports?: string;
  readonly vs?: string;
  readonly explain?: true;
  readonly json?: true;
  readonly svg?: string;
}

const HELP = `
Columns, as in nccl-tests: size in bytes and count in elements of the larger of input and output; time in microseconds, the
slowest rank's, median of the iterations; algbw = size / time; busbw = algbw × 2(N−1)/N for all-reduce, × (N−1)/N for parts;
#wrong: elements of the last result that are wrong, on all ranks (for codecs that drop bits, the relative RMS error). Out of
place, and where there is such a form, in place. cpu s/GB: processor time of one rank for 10⁹ bytes of tensor.

Exit code: 0; 1 when an element was wrong.

Examples:
  Four processes on this machine, all-reduce of 4 KiB to 64 MiB, beside Gloo and Open MPI:
    $ skein bench -n 4 --vs gloo,openmpi

  Two machines with two processes each (the coordinator runs on the first):
    $ SKEIN_TOKEN=… skein launch -n 2 --coordinator tcp://first:7400 -- skein bench --world-size 4

  Why \`auto\` chooses what it does:
    $ skein bench -n 4 --explain

  8-bit values, as JSON, with a chart:
    $ skein bench -n 2 --codec int8 --json --svg int8.svg`;

/** Well-optimised code is what is measured. */
const WARM_UP_MS = 2_000;

const SUFFIXES: Readonly<Record<string, number>> = { '': 1, K: 2 ** 10, M: 2 ** 20, G: 2 ** 30 };
const LARGEST_BYTES = 16 * 2 ** 30;

function bytes(text: string): number {
  const match = /^(\d+)([KMG]?)$/i.exec(text);
  const value = Number(match?.[1]) * (SUFFIXES[match?.[2]?.toUpperCase() ?? ''] ?? Number.NaN);
  if (value >= 1 && value <= LARGEST_BYTES) return value;
  throw new InvalidArgumentError('Give a size in bytes, up to 16G, for example 4K, 64M or 1000000.');
}

function factor(text: string): number {
  const value = Number(text);
  if (value > 1 && value <= 1024) return value;
  throw new InvalidArgumentError('Give a number above 1, for example 2 or 4.');
}

function rivalsNamed(names: string | undefined, plan: Plan): readonly Rival[] {
  if (names === undefined) return [];
  const rivals = names.split(',').map((name) => {
    const rival = RIVALS.find((one) => one.name === name);
    if (rival === undefined) {
      throw new ArgumentError(
        `\`--vs\` knows ${RIVALS.map((one) => one.name).join(', ')}, not ${JSON.stringify(name)}.`,
      );
    }
    return rival;
  });
  if (plan.collective !== 'allReduce' || plan.dtype !== 'f32' || plan.op !== 'sum' || plan.codec !== 'f32') {
    throw new ArgumentError('`--vs` compares all-reduces that sum f32: leave the other options out.');
  }
  for (const rival of rivals) {
    const missing = rival.missing();
    if (missing !== null) throw new ArgumentError(missing);
  }
  return rivals;
}

/** Runs the processes of a benchmark on this machine. */
async function runHere<R>(order: PeerOrder, processes: number, onRow: (row: R) => void): Promise<void> {
  const token = randomBytes(32).toString('hex');
  const children: ChildProcess[] = [];
  const killAll = () => {
    for (const child of children) child.kill('SIGKILL');
  };
  let failure: Error | null = null;
  const coordinator = await startCoordinator(token, (error) => {
    failure = error;
    killAll();
  });
  const run = { coordinator: coordinator.address, run: 'bench', token, processes, minWorldSize: processes };
  const script = fileURLToPath(new URL('../benchmark/peer.js', import.meta.url));
  process.once('exit', killAll);
  try {
    for (let index = 0; index < processes; index++) {
      const env = { ...process.env, ...launchEnvironment(run, index, 0) };
      children.push(fork(script, [JSON.stringify(order)], { env }).on('message', (row) => onRow(row as R))); // sent by peer.ts
    }
    const codes = children.map(
      (child) => new Promise<number | null>((resolve) => child.once('exit', (code) => resolve(code))),
    );
    // Nobody waits for those whose peer has failed.
    for (const code of codes) void code.then((value) => value !== 0 && killAll());
    const ended = await Promise.all(codes);
    if (failure !== null) throw failure;
    if (ended.some((code) => code !== 0)) throw new Error('A process of the benchmark has failed: see above.');
  } finally {
    killAll();
    process.off('exit', killAll);
    await coordinator.close();
  }
}

interface Beside {
  readonly rival: Rival;
  /** Seconds by size. */
  readonly seconds: ReadonlyMap<number, number>;
  readonly cpuSecondsPerGb: ReadonlyMap<number, number>;
}

async function measureRival(rival: Rival, plan: Plan, worldSize: number): Promise<Beside> {
  const { sizes, iterations, warmups } = plan;
  const measured = await rival.measure({ worldSize, sizes, iterations, warmups });
  const perGb = (one: (typeof measured)[number]) => one.cpuSeconds / ((one.bytes * one.seconds.length) / 1e9);
  return {
    rival,
    seconds: new Map(measured.map((one) => [one.bytes, median(one.seconds)])),
    cpuSecondsPerGb: new Map(measured.map((one) => [one.bytes, perGb(one)])),
  };
}

function figures({ seconds, wrong }: Row['outOfPlace'], row: Row, bus: number): string[] {
  const algbw = row.bytes / seconds / 1e9;
  const digits = algbw < 0.1 ? 4 : 2;
  const fault = row.error === null ? String(wrong) : row.error.toExponential(1);
  return [(seconds * 1e6).toFixed(1), algbw.toFixed(digits), (algbw * bus).toFixed(digits), fault];
}

function print(rows: readonly Row[], plan: Plan, worldSize: number, beside: readonly Beside[]): void {
  const bus = busFactor(plan.collective, worldSize);
  const hasInPlace = rows.some((row) => row.inPlace !== null);
  const fault = rows.some((row) => row.error !== null) ? 'error' : '#wrong';
  const timed = ['time µs', 'algbw', 'busbw', fault];
  const head = ['size', 'count', 'type', 'redop', 'algorithm', ...timed];
  if (hasInPlace) head.push(...timed.map((name) => `in place: ${name}`));
  head.push('cpu s/GB', ...beside.map(({ rival }) => `× ${rival.name}`));
  const table = new Table({ head, style: { head: [], border: [] } });
  for (const row of rows) {
    table.push([
      ...[row.bytes, row.count, plan.dtype, plan.collective === 'allGather' ? '–' : plan.op, row.algorithm],
      ...figures(row.outOfPlace, row, bus),
      ...(row.inPlace === null ? [] : figures(row.inPlace, row, bus)),
      row.cpuSecondsPerGb.toFixed(2),
      ...beside.map(({ seconds }) => ((seconds.get(row.bytes) ?? Number.NaN) / row.outOfPlace.seconds).toFixed(2)),
    ]);
  }
  const peak = Math.max(...rows.map((row) => row.peakRssBytes));
  console.log(`${plan.collective}, ${worldSize} processes; GB/s; peak RSS ${Math.round(peak / 2 ** 20)} MiB`);
  console.log(table.toString());
  if (beside.length > 0) console.log("× name: that library's time over Skein's.");
}

async function draw(
  path: string,
  rows: readonly Row[],
  plan: Plan,
  worldSize: number,
  beside: readonly Beside[],
): Promise<void> {
  const bus = busFactor(plan.collective, worldSize);
  const busbw = (size: number, seconds: number) => ((size / seconds) * bus) / 1e9;
  const points: Point[] = rows.map((row) => ({
    series: 'Skein',
    x: row.bytes,
    y: busbw(row.bytes, row.outOfPlace.seconds),
  }));
  for (const { rival, seconds } of beside) {
    for (const [size, time] of seconds) points.push({ series: rival.label, x: size, y: busbw(size, time) });
  }
  const chart: Chart = {
    title: `${plan.collective} of ${plan.dtype}, ${worldSize} processes`,
    x: { title: 'size', base: 2, values: rows.map((row) => row.bytes) },
    y: { title: 'bus bandwidth, GB/s', zero: true },
  };
  writeFileSync(path, await chartSvg(chart, points));
}

function printExplained(rows: readonly Explained[], plan: Plan, worldSize: number): void {
  const table = new Table({
    head: ['size', 'algorithm', 'predicted', 'measured', ''],
    style: { head: [], border: [] },
  });
  for (const { bytes, chosen, algorithms } of rows) {
    const fastest = Math.min(...algorithms.map(({ seconds }) => seconds));
    for (const [index, { algorithm, predictedSeconds, seconds }] of algorithms.entries()) {
      const words = [algorithm === chosen ? 'auto' : '', seconds === fastest ? 'fastest' : ''];
      const times = [predictedSeconds, seconds].map(formatSeconds);
      table.push([index === 0 ? formatBytes(bytes) : '', algorithm, ...times, words.filter(Boolean).join(', ')]);
    }
  }
  console.log(
    `${plan.collective}, ${worldSize} processes: what the model predicts, and the median of the slowest rank's times`,
  );
  console.log(table.toString());
}

/** Each algorithm beside what the model says of it. */
async function benchExplained(
  plan: Plan,
  joinOptions: JoinOptions,
  processes: number | null,
  json: boolean,
): Promise<void> {
  const rows: Explained[] = [];
  const onRow = (row: Explained) => {
    rows.push(row);
    process.stderr.write(`${formatBytes(row.bytes)}: ${row.chosen}\n`);
  };
  let worldSize = processes ?? 0;
  if (processes === null) worldSize = await takePart(joinOptions, onRow, (group, tell) => explain(group, plan, tell));
  else await runHere({ plan, join: joinOptions }, processes, onRow);
  if (rows.length === 0) return; // another rank tells
  if (json) console.log(JSON.stringify({ plan, worldSize, explained: rows }));
  else printExplained(rows, plan, worldSize);
}

/** This process is one of the peers of a benchmark: `skein launch … -- skein bench`. @returns the world size on rank 0, else 0 */
async function takePart<R>(
  joinOptions: JoinOptions,
  onRow: (row: R) => void,
  run: (group: Group, onRow: (row: R) => void) => Promise<void>,
): Promise<number> {
  const group = await join(undefined, joinOptions);
  const { worldSize } = group;
  let isFirst = false;
  await run(group, (row) => {
    isFirst = group.rank === 0;
    if (isFirst) onRow(row);
  });
  await group.leave();
  return isFirst ? worldSize : 0;
}

async function bench(options: BenchOptions): Promise<void> {
  const { collective, dtype, op, codec, algorithm, iterations, warmups, begin, end } = options;
  const sizes = sizesBetween(begin, end, options.factor);
  if (sizes.length === 0) throw new ArgumentError('`--begin` is larger than `--end`: there is nothing to measure.');
  const consistency = options.eager === true ? 'eager' : 'commit';
  const plan: Plan = {
    collective,
    dtype,
    op,
    codec,
    algorithm,
    consistency,
    sizes,
    iterations,
    warmups,
    warmUpMs: WARM_UP_MS,
    explains: options.explain === true,
  };
  const isPeer = options.processes === undefined && process.env['SKEIN_COORDINATOR'] !== undefined;
  const processes = options.processes ?? 2;
  const startWorldSize = options.worldSize ?? (isPeer ? undefined : processes);
  const joinOptions: JoinOptions = {
    ...(startWorldSize === undefined ? {} : { startWorldSize }),
    ...(options.engine === undefined ? {} : { engine: options.engine }),
    ...(options.transports === undefined
      ? {}
      : { transports: options.transports.split(',') as JoinOptions['transports'] & {} }), // checked by `join`
  };
  if (isPeer && options.vs !== undefined) {
    throw new ArgumentError('`--vs` measures on one machine: give the number of processes with -n.');
  }
  if (plan.explains) {
    if (options.vs !== undefined || options.svg !== undefined || algorithm !== 'auto')
      throw new ArgumentError(
        '`--explain` tells why `auto` chooses what it does: leave `--vs`, `--svg` and `--algorithm` out.',
      );
    await benchExplained(plan, joinOptions, isPeer ? null : processes, options.json === true);
    return;
  }
  const rivals = rivalsNamed(options.vs, plan);
  const rows: Row[] = [];
  const onRow = (row: Row) => {
    rows.push(row);
    process.stderr.write(`${formatBytes(row.bytes)}: ${(row.outOfPlace.seconds * 1e3).toFixed(2)} ms\n`);
  };
  let worldSize = processes;
  if (isPeer) worldSize = await takePart(joinOptions, onRow, (group, tell) => measure(group, plan, tell));
  else await runHere({ plan, join: joinOptions }, processes, onRow);
  if (rows.length === 0) return; // another rank tells
  const beside: Beside[] = [];
  for (const rival of rivals) beside.push(await measureRival(rival, plan, worldSize));
  if (options.json === true) {
    const others = beside.map(({ rival, seconds, cpuSecondsPerGb }) => ({
      name: rival.name,
      rows: [...seconds].map(([size, time]) => ({
        bytes: size,
        seconds: time,
        cpuSecondsPerGb: cpuSecondsPerGb.get(size),
      })),
    }));
    console.log(JSON.stringify({ plan, worldSize, rows, beside: others }));
  } else print(rows, plan, worldSize, beside);
  if (options.svg !== undefined) await draw(options.svg, rows, plan, worldSize, beside);
  if (rows.some(({ outOfPlace, inPlace }) => outOfPlace.wrong + (inPlace?.wrong ?? 0) > 0)) process.exitCode = 1;
}

export function benchCommand(): Command {
  const count = wholeNumber(1, 1_000_000);
  return new Command('bench')
    .summary('measure a collective, in the columns of nccl-tests')
    .description('Measure a collective over a range of sizes: processes on this machine, or the peers of a launch.')
    .option(
      '-n, --processes <N>',
      'processes on this machine (default: 2, unless SKEIN_COORDINATOR is set)',
      wholeNumber(1, 1024),
    )
    .option(
      '--world-size <N>',
      'peers to wait for, of all machines (default: those of the launch)',
      wholeNumber(1, 1024),
    )
    .addOption(new Option('-c, --collective <name>', 'what is measured').choices(BENCHED).default('allReduce'))
    .option('-b, --begin <size>', 'first size', bytes, 4 * 1024)
    .option('-e, --end <size>', 'last size', bytes, 64 * 2 ** 20)
    .option('-f, --factor <f>', 'from size to size', factor, 4)
    .addOption(new Option('-d, --dtype <dtype>', 'of the elements').default('f32').choices(DTYPES))
    .addOption(new Option('-o, --op <op>', 'reduction').choices(BENCHED_OPS).default('sum'))
    .option('--codec <codec>', 'how f32 values travel', 'f32')
    .option('--algorithm <name>', 'of the collective', 'auto')
    .option('-i, --iterations <n>', 'at sizes above 4 MiB; smaller ones get more', count, 10)
    .option('-w, --warmups <n>', 'iterations before those that count', wholeNumber(0, 1_000), 3)
    .option('--eager', "with `consistency: 'eager'`")
    .addOption(new Option('--engine <engine>', 'where the engine runs').choices(['worker', 'inline']))
    .option('--transports <list>', 'ways between the peers, best first')
    .option('--vs <names>', 'libraries to compare with: gloo, openmpi, raw (a TCP ring without arithmetic), raw-unix')
    .option('--explain', 'instead: each algorithm that `auto` chooses among, measured beside what its model predicts')
    .option('--json', 'print JSON')
    .option('--svg <file>', 'draw bus bandwidth by size (needs the package vega)')
    .addHelpText('after', HELP)
    .action(bench);
}
