/**
 * `npm run bench`: all-reduce beside the libraries people know and beside the raw ceiling of the sockets. All sides take turns within
 * one run; figures are medians over all rounds. Writes a record to bench/results/, of which bench/charts.ts makes charts.
 */
import { execFileSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { loadavg } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import Table from 'cli-table3';
import { Command } from 'commander';
import { algbw, busbw, formatBytes, formatRate, formatSeconds, median } from '../src/benchmark/statistics.ts';
import { find, judge, type MemoryRow, type Row } from './harness/bars.ts';
import { describeMachine } from './harness/machine.ts';
import { SIDES, type Side, type SideMeasurement } from './harness/sides.ts';

const KIB = 1024;
const MIB = 1024 * KIB;
const SIZES = [4 * KIB, 16 * KIB, 64 * KIB, 256 * KIB, MIB, 4 * MIB, 16 * MIB, 64 * MIB, 256 * MIB];
const QUICK_SIZES = [4 * KIB, 64 * KIB, MIB, 16 * MIB, 64 * MIB];

/** How the time grows with the number of processes. */
const SCALING_WORLDS = [2, 3, 4, 6, 8];
const SCALING_SIZES = [64 * KIB, MIB, 16 * MIB];
const SCALING_SIDES = 'skein,skein-inline,gloo,openmpi,raw,raw-unix';

const RESULTS = fileURLToPath(new URL('../../bench/results/', import.meta.url));

interface Options {
  readonly sizes?: string;
  readonly worlds?: string;
  readonly sides?: string;
  readonly rounds: string;
  readonly iterations: string;
  readonly quick?: true;
  readonly scaling?: true;
}

/** What is measured where no other is asked for. */
function defaults({ quick, scaling }: Options): {
  worlds: readonly number[];
  sizes: readonly number[];
  sides?: string;
} {
  if (scaling === true) return { worlds: SCALING_WORLDS, sizes: SCALING_SIZES, sides: SCALING_SIDES };
  if (quick === true) return { worlds: [2, 4], sizes: QUICK_SIZES };
  return { worlds: [2, 4, 8], sizes: SIZES };
}

function numberList(text: string | undefined, fallback: readonly number[]): readonly number[] {
  return text === undefined ? fallback : text.split(',').map(Number);
}

async function measureWorld(
  sides: readonly Side[],
  worldSize: number,
  sizes: readonly number[],
  options: Options,
): Promise<Row[]> {
  const samples = new Map<string, { seconds: number[]; cpuSeconds: number[]; maxRssKiB: number }>();
  for (let round = 0; round < Number(options.rounds); round++) {
    for (const side of sides) {
      const usable = sizes.filter((bytes) => bytes <= (side.largest ?? Number.POSITIVE_INFINITY));
      if (usable.length === 0) continue;
      process.stderr.write(`N=${worldSize} round ${round + 1}/${options.rounds} ${side.label}\n`);
      const task = { worldSize, sizes: usable, iterations: Number(options.iterations), warmups: 2 };
      for (const one of await side.measure(task)) {
        const key = `${side.name} ${one.bytes}`;
        const kept = samples.get(key) ?? { seconds: [], cpuSeconds: [], maxRssKiB: 0 };
        // Each round counts as much as any other.
        kept.seconds.push(median(one.seconds));
        kept.cpuSeconds.push(one.cpuSeconds / one.seconds.length);
        kept.maxRssKiB = Math.max(kept.maxRssKiB, one.maxRssKiB);
        samples.set(key, kept);
      }
    }
  }
  return sizes.flatMap((bytes) =>
    sides.flatMap((side) => {
      const kept = samples.get(`${side.name} ${bytes}`);
      if (kept === undefined) return [];
      const seconds = median(kept.seconds);
      return [
        {
          side: side.name,
          worldSize,
          bytes,
          seconds,
          busbw: busbw(bytes, seconds, worldSize),
          cpuSecondsPerGB: (median(kept.cpuSeconds) / bytes) * 1e9,
          maxRssKiB: kept.maxRssKiB,
        },
      ];
    }),
  );
}

/** Peak of a Node process that does nothing. */
function bareNodeKiB(): number {
  const script = 'process.stdout.write(String(process.resourceUsage().maxRSS))';
  return Number(execFileSync(process.execPath, ['-e', script], { encoding: 'utf8' }));
}

async function measureMemory(worldSize: number): Promise<MemoryRow[]> {
  const bytes = 256 * MIB;
  const task = { worldSize, sizes: [bytes], iterations: 2, warmups: 1, compileFirst: false };
  const bareKiB = bareNodeKiB();
  const rows: MemoryRow[] = [];
  for (const side of SIDES.filter((one) => one.name === 'skein' || one.name === 'skein-inline')) {
    process.stderr.write(`N=${worldSize} memory, ${side.label}\n`);
    const [one]: SideMeasurement[] = await side.measure(task);
    if (one === undefined) continue;
    const aboveTensorsKiB = one.maxRssKiB - (2 * bytes) / KIB;
    const aboveNodeKiB = aboveTensorsKiB - bareKiB;
    const growthKiB = one.growthKiB ?? Number.NaN;
    rows.push({ side: side.name, worldSize, bytes, aboveTensorsKiB, aboveNodeKiB, growthKiB });
  }
  return rows;
}

function printWorld(rows: readonly Row[], worldSize: number): void {
  const head = ['size', 'side', 'time', 'algbw GB/s', 'busbw GB/s', '× Gloo', '× raw TCP', 'CPU s/GB', 'peak RSS'];
  const table = new Table({ head, style: { head: [], border: [] } });
  for (const row of rows.filter((one) => one.worldSize === worldSize)) {
    const ratio = (name: string) => {
      const other = find(rows, name, worldSize, row.bytes);
      return other === undefined ? '–' : (other.seconds / row.seconds).toFixed(2);
    };
    table.push([
      formatBytes(row.bytes),
      SIDES.find((side) => side.name === row.side)?.label ?? row.side,
      formatSeconds(row.seconds),
      formatRate(algbw(row.bytes, row.seconds)),
      formatRate(row.busbw),
      ratio('gloo'),
      ratio('raw'),
      row.cpuSecondsPerGB.toFixed(2),
      `${Math.round(row.maxRssKiB / KIB)} MiB`,
    ]);
  }
  console.log(`\nN = ${worldSize}\n${table.toString()}`);
}

async function main(options: Options): Promise<void> {
  const usual = defaults(options);
  const load = loadavg()[0]!; // of the last minute
  const wanted = (options.sides ?? usual.sides)?.split(',');
  const sides: Side[] = [];
  for (const side of SIDES.filter((one) => wanted?.includes(one.name) ?? true)) {
    const reason = side.missing();
    if (reason === null) sides.push(side);
    else console.log(`${side.label} is missing: ${reason}`);
  }
  const sizes = numberList(options.sizes, usual.sizes);
  const worlds = numberList(options.worlds, usual.worlds);
  const rows: Row[] = [];
  for (const worldSize of worlds) {
    rows.push(...(await measureWorld(sides, worldSize, sizes, options)));
    printWorld(rows, worldSize);
  }
  const memory = sizes.includes(256 * MIB) ? await measureMemory(2) : [];
  const bars = judge(rows, memory);
  const summary = new Table({ head: ['bar', 'wanted', 'measured', ''], style: { head: [], border: [] } });
  for (const bar of bars) summary.push([bar.what, bar.wanted, bar.measured, bar.met ? 'met' : 'NOT MET']);
  console.log(
    `\nRatios of medians. Where it says whose time, it is theirs over ours; else ours over theirs.\n${summary.toString()}`,
  );
  mkdirSync(RESULTS, { recursive: true });
  const record = {
    machine: describeMachine(),
    date: new Date().toISOString(),
    command: process.argv.slice(2),
    load,
    rows,
    memory,
    bars,
  };
  const name = options.scaling === true ? 'scaling' : 'allreduce';
  writeFileSync(join(RESULTS, `${name}.json`), `${JSON.stringify(record, null, 1)}\n`);
  console.log(`\nWritten to ${join(RESULTS, `${name}.json`)}; \`npm run charts\` draws what the README shows.`);
}

await new Command('bench')
  .description('Measures all-reduce beside Gloo, Open MPI and the raw ceiling of TCP.')
  .option('--sizes <bytes,…>', 'tensor sizes')
  .option('--worlds <n,…>', 'numbers of processes')
  .option('--sides <name,…>', `some of ${SIDES.map((side) => side.name).join(', ')}`)
  .option('--rounds <n>', 'turns that each side gets', '3')
  .option('--iterations <n>', 'iterations per turn at large sizes; small ones get more', '5')
  .option('--quick', 'fewer sizes, N = 2 and 4')
  .option('--scaling', 'three sizes, N = 2, 3, 4, 6, 8; a record of its own')
  .action(main)
  .parseAsync();
