/**
 * `npm run bench:scale`: what happens with more peers than one machine holds, by simulation. Its prices are found by measuring
 * 2 and 4 processes here; what they promise for 8 is measured as well, in the same run. Then 64, 256 and 1,024 peers, spread over the
 * world. Writes a record to bench/results/.
 */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { join } from 'node:path';
import { performance } from 'node:perf_hooks';
import { fileURLToPath } from 'node:url';
import Table from 'cli-table3';
import { Command } from 'commander';
import { formatBytes, formatSeconds, median } from '../src/benchmark/statistics.ts';
import { Random } from '../test/sim/random.ts';
import { type Prices, wideAreaSites } from '../test/sim/scale/costs.ts';
import { type Admission, type ControlTraffic, type Recovery, Swarm } from '../test/sim/scale/swarm.ts';
import { fitPrices, type Observation, predict } from './harness/calibration.ts';
import { describeMachine } from './harness/machine.ts';
import { skein } from './harness/sides.ts';

const RESULTS = fileURLToPath(new URL('../../bench/results/', import.meta.url));
const KIB = 1024;
const MIB = 1024 * KIB;

/** Found with, and promised for. */
const CALIBRATION_WORLDS = [2, 4];
const PREDICTED_WORLD = 8;
const SIZES = [4 * KIB, 64 * KIB, 256 * KIB, MIB, 4 * MIB, 16 * MIB];

/** The prediction must be within this share of what is measured. */
const TOLERANCE = 0.2;

/** Of the tensors that are all-reduced in the simulated runs. */
const WIDE_SIZES = [4 * KIB, 64 * KIB, MIB, 16 * MIB];
const STEP_BYTES = 4 * KIB;
const STEPS = 5;

/** In larger worlds only smaller tensors, by default: algorithms that cut a tensor in a part for each rank send N² frames. */
const MOST_PEERS_OF_ALL_SIZES = 256;
const MOST_BYTES_OF_MANY = MIB;

/** In the middle of an all-reduce, but before anybody holds the result. */
const KILL_AT = 0.25;

/**
 * A start of many peers takes its time: one after the other, and the more there are, the further apart (ms). Who comes is introduced to all that are
 * here, so a coordinator of a thousand that come within 20 s falls behind, and loses those whose signs of life it does not get to.
 */
const APART_MS = 20;
const APART_PEER_MS = 0.1;

/** The handshake of an encrypted connection, on each side: TLS 1.3 with a key exchange, and the proofs. Not measured here. */
const HANDSHAKE_SECONDS = 1e-3;

interface Options {
  readonly worlds: string;
  readonly rounds: string;
  readonly seed: string;
  readonly sizes?: string;
  readonly observed?: string;
}

interface Comparison {
  readonly bytes: number;
  readonly predicted: number;
  readonly measured: number;
  readonly ratio: number;
  readonly met: boolean;
}

/** Figures of one simulated world; times are virtual, but for `realSeconds`. */
interface WideRun {
  readonly worldSize: number;
  readonly sites: number;
  readonly formMs: number;
  readonly form: ControlTraffic;
  readonly collectives: readonly {
    readonly bytes: number;
    readonly algorithm: string;
    readonly ms: number;
    readonly control: ControlTraffic;
  }[];
  readonly stepMs: number;
  readonly steps: ControlTraffic;
  readonly admission: Admission;
  readonly recovery: Recovery;
  readonly realSeconds: number;
  readonly events: number;
  readonly rssMiB: number;
}

/**
 * Rounds take turns between the worlds, as the machine is not the same from minute to minute. The least of the rounds' medians counts:
 * what else runs on the machine can only make it more.
 */
async function observe(worlds: readonly number[], rounds: number): Promise<readonly Observation[]> {
  const side = skein('skein', 'Skein', { engine: 'worker', transports: ['unix', 'tcp'], consistency: 'commit' });
  const samples = new Map<string, { worldSize: number; bytes: number; seconds: number[] }>();
  for (let round = 0; round < rounds; round++) {
    for (const worldSize of worlds) {
      process.stderr.write(`measuring N=${worldSize}, round ${round + 1}/${rounds}\n`);
      const task = { worldSize, sizes: SIZES, iterations: 3, warmups: 2 };
      for (const { bytes, seconds } of await side.measure(task)) {
        const key = `${worldSize} ${bytes}`;
        const kept = samples.get(key) ?? { worldSize, bytes, seconds: [] };
        kept.seconds.push(median(seconds));
        samples.set(key, kept);
      }
    }
  }
  return [...samples.values()].map(({ seconds, ...what }) => ({ ...what, seconds: Math.min(...seconds) }));
}

async function compare(observed: readonly Observation[], prices: Prices, worldSize: number): Promise<Comparison[]> {
  const measured = observed.filter((one) => one.worldSize === worldSize);
  const sizes = measured.map(({ bytes }) => bytes);
  const predicted = await predict(worldSize, sizes, prices, cpus().length);
  return measured.map(({ bytes, seconds }, at) => {
    const ratio = predicted[at]! / seconds;
    const met = Math.abs(ratio - 1) <= TOLERANCE;
    return { bytes, predicted: predicted[at]!, measured: seconds, ratio, met };
  });
}

function printComparison(worldSize: number, rows: readonly Comparison[], isBar: boolean): void {
  const table = new Table({
    head: ['size', 'predicted', 'measured', 'ratio', ''],
    style: { head: [], border: [] },
  });
  for (const { bytes, predicted, measured, ratio, met } of rows)
    table.push([
      formatBytes(bytes),
      formatSeconds(predicted),
      formatSeconds(measured),
      ratio.toFixed(2),
      isBar ? (met ? 'met' : 'NOT MET') : '',
    ]);
  console.log(`\nN = ${worldSize}${isBar ? ', which nothing was found with' : ''}\n${table.toString()}`);
}

async function simulateWide(
  worldSize: number,
  sizes: readonly number[],
  prices: Prices,
  seed: number,
): Promise<WideRun> {
  process.stderr.write(`simulating N=${worldSize}\n`);
  const startedAt = performance.now();
  const topology = wideAreaSites(worldSize + 1, new Random(seed)); // one more comes later, when one is gone
  const swarm = await Swarm.open({ topology, prices, seed, memory: 'shared' });
  const { ms: formMs, control: form } = swarm.form(worldSize, Math.max(APART_MS, APART_PEER_MS * worldSize));
  const collectives = sizes.map((bytes) => ({ bytes, ...swarm.allReduce(bytes) }));
  const { ms, control: steps } = swarm.steps(STEP_BYTES, STEPS);
  // In this order, as a run of 1,024 members takes nobody in.
  const recovery = swarm.kill(STEP_BYTES, KILL_AT * (ms / STEPS));
  const admission = swarm.admit(STEP_BYTES);
  return {
    worldSize,
    sites: new Set(topology.sites).size,
    formMs,
    form,
    collectives,
    stepMs: ms / STEPS,
    steps,
    admission,
    recovery,
    realSeconds: (performance.now() - startedAt) / 1_000,
    events: swarm.events,
    rssMiB: Math.round(process.memoryUsage.rss() / MIB),
  };
}

function rates({ messages, bytes, virtualMs, busyMs }: ControlTraffic): string {
  const perSecond = (value: number) => (1_000 * value) / virtualMs;
  const busy = Math.round((100 * busyMs) / virtualMs);
  return `${Math.round(perSecond(messages))} messages/s, ${(perSecond(bytes) / 1e3).toFixed(0)} kB/s, ${busy} % of a core`;
}

function printWide(run: WideRun): void {
  const { worldSize, sites, formMs, form, collectives, stepMs, steps, admission, recovery } = run;
  const table = new Table({
    head: ['what', 'virtual time', 'to and from the coordinator'],
    style: { head: [], border: [] },
  });
  const seconds = (ms: number) => formatSeconds(ms / 1_000);
  table.push(['all come and form a view', seconds(formMs), rates(form)]);
  for (const { bytes, algorithm, ms, control } of collectives)
    table.push([`all-reduce of ${formatBytes(bytes)}, ${algorithm}`, seconds(ms), rates(control)]);
  table.push([`step: boundary and ${formatBytes(STEP_BYTES)}`, seconds(stepMs), rates(steps)]);
  table.push(['kill: until that is decided', seconds(recovery.decidedMs), '']);
  const how = recovery.begunAnew ? 'begun anew' : 'all held it';
  table.push([`kill: until all have the result (${how})`, seconds(recovery.recoveredMs), rates(recovery.control)]);
  table.push(['newcomer in its place: until it is ready', seconds(admission.readyMs), '']);
  table.push(['newcomer: until it is in the view', seconds(admission.admittedMs), rates(admission.control)]);
  console.log(
    `\nN = ${worldSize} in ${sites} sites; simulated in ${run.realSeconds.toFixed(0)} s, ${run.events} events, ${run.rssMiB} MiB\n${table.toString()}`,
  );
}

async function observations({ observed: file, rounds }: Options): Promise<readonly Observation[]> {
  if (file !== undefined && existsSync(file)) return JSON.parse(readFileSync(file, 'utf8')) as Observation[]; // written below
  const observed = await observe([...CALIBRATION_WORLDS, PREDICTED_WORLD], Number(rounds));
  if (file !== undefined) writeFileSync(file, JSON.stringify(observed));
  return observed;
}

function sizesFor(worldSize: number, { sizes }: Options): readonly number[] {
  if (sizes !== undefined) return numbers(sizes);
  const most = worldSize <= MOST_PEERS_OF_ALL_SIZES ? Number.POSITIVE_INFINITY : MOST_BYTES_OF_MANY;
  return WIDE_SIZES.filter((bytes) => bytes <= most);
}

function numbers(text: string): readonly number[] {
  return text === '' ? [] : text.split(',').map(Number);
}

async function main(options: Options): Promise<void> {
  const seed = Number(options.seed);
  const observed = await observations(options);
  const known = observed.filter(({ worldSize }) => worldSize !== PREDICTED_WORLD);
  const fitted = await fitPrices(known, cpus().length, HANDSHAKE_SECONDS);
  const { prices } = fitted;
  console.log(
    `prices: ${JSON.stringify(prices)}\nresidual of what they were found with: factor ${Math.exp(fitted.error).toFixed(2)}`,
  );
  for (const worldSize of CALIBRATION_WORLDS)
    printComparison(worldSize, await compare(observed, prices, worldSize), false);
  const predictions = await compare(observed, prices, PREDICTED_WORLD);
  printComparison(PREDICTED_WORLD, predictions, true);
  const runs: WideRun[] = [];
  const file = join(RESULTS, 'scale.json');
  mkdirSync(RESULTS, { recursive: true });
  const write = () => {
    const about = { machine: describeMachine(), date: new Date().toISOString(), command: process.argv.slice(2), seed };
    writeFileSync(file, `${JSON.stringify({ ...about, ...fitted, observed, predictions, runs }, null, 1)}\n`);
  };
  write();
  for (const worldSize of numbers(options.worlds)) {
    const run = await simulateWide(worldSize, sizesFor(worldSize, options), prices, seed);
    printWide(run);
    runs.push(run);
    write(); // the largest worlds take longest
  }
  console.log(`Written to ${file}`);
}

await new Command('bench:scale')
  .description('Predicts and measures 8 processes, and simulates many more peers than one machine holds.')
  .option('--worlds <n,…>', 'simulated numbers of peers', '64,256,1024')
  .option('--sizes <bytes,…>', 'tensors that these all-reduce')
  .option('--rounds <n>', 'turns in which real processes are measured', '3')
  .option('--seed <n>', 'of the simulated runs and of where their peers are', '1')
  .option(
    '--observed <file>',
    'measurements of an earlier run, in place of measuring: if the file is not there, it is written',
  )
  .action(main)
  .parseAsync();
