/**
 * `npm run bench:overlap`: what of an all-reduce hides behind the backward pass that makes its gradient. Members train a perceptron
 * with two hidden layers on real digits; their steps take turns:
 *
 *     alone    forward and backward pass and update, nothing is communicated
 *     after    the gradient is all-reduced when it is complete
 *     during   it is all-reduced while it is computed, layer by layer from the last to the first (`allReduceStream`)
 *
 * A step is as long as that of the slowest member. Ratios are medians over the rounds; *hidden* is the share of what communication adds that
 * streaming takes away again, of the median times: (after − during) / (after − alone). Over a link of limited rate the processors wait for it and can compute meanwhile. On one host
 * communicating *is* computing, so where members × (training + engine thread) exceed the cores there is little to hide behind.
 * Writes a record to bench/results/.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import Table from 'cli-table3';
import { Command } from 'commander';
import { formatBytes, formatSeconds, median } from '../src/benchmark/statistics.ts';
import { namespacesMissing } from '../src/chaos/namespace-set.ts';
import { describeMachine } from './harness/machine.ts';
import { OrderedSwarm } from './harness/ordered-swarm.ts';
import type { OverlapMode, OverlapOrder, OverlapReport } from './peers/overlap-peer.ts';

const RESULTS = fileURLToPath(new URL('../../bench/results/', import.meta.url));
const MODES: readonly OverlapMode[] = ['alone', 'after', 'during'];
const WARM_UPS = 2;

/** Of a step alone: what communication must add at least before a share of it means anything. */
const LEAST_ADDED = 0.03;

interface Options {
  readonly rounds: string;
  readonly members: string;
  readonly hidden: string;
  readonly batch: string;
  readonly megabits: string;
}

/** One step of each mode, of the slowest member. */
type Round = Readonly<Record<OverlapMode, Omit<OverlapReport, 'hash'>>>;

interface Measured {
  readonly rounds: readonly Round[];
  readonly firstLoss: number;
  readonly lastLoss: number;
}

function slowest(reports: readonly OverlapReport[]): Omit<OverlapReport, 'hash'> {
  if (new Set(reports.map(({ hash }) => hash)).size !== 1) throw new Error('members have different parameters');
  const most = (key: 'seconds' | 'backwardSeconds' | 'waitSeconds') => Math.max(...reports.map((one) => one[key]));
  return {
    seconds: most('seconds'),
    backwardSeconds: most('backwardSeconds'),
    waitSeconds: most('waitSeconds'),
    loss: reports.reduce((sum, { loss }) => sum + loss, 0) / reports.length,
    parameters: reports[0]?.parameters ?? 0,
  };
}

async function measure(options: Options, megabits: number | null): Promise<Measured> {
  const task = { hidden: Number(options.hidden), batch: Number(options.batch) };
  const place = { namespaced: megabits !== null, megabits };
  const swarm = await OrderedSwarm.start<OverlapOrder, OverlapReport>(
    'overlap-peer',
    Number(options.members),
    task,
    place,
  );
  try {
    const rounds: Round[] = [];
    let step = 0;
    for (let index = -WARM_UPS; index < Number(options.rounds); index++) {
      const round: Partial<Record<OverlapMode, Round[OverlapMode]>> = {};
      // Nobody always comes after the same one.
      for (let turn = 0; turn < MODES.length; turn++) {
        const mode = MODES[(turn + index + WARM_UPS) % MODES.length]!; // the rest is an index
        round[mode] = slowest(await swarm.order({ mode, step }));
        step += 1;
      }
      rounds.push(round as Round); // all modes had their turn
    }
    const losses = rounds.map(({ after, during }) => (after.loss + during.loss) / 2);
    return { rounds: rounds.slice(WARM_UPS), firstLoss: losses[0]!, lastLoss: losses.at(-1)! };
  } finally {
    swarm.close();
  }
}

function summaryOf({ rounds, firstLoss, lastLoss }: Measured) {
  const of = (value: (round: Round) => number) => median(rounds.map(value));
  const seconds = (mode: OverlapMode) => of((round) => round[mode].seconds);
  const added = seconds('after') - seconds('alone');
  return {
    seconds: { alone: seconds('alone'), after: seconds('after'), during: seconds('during') },
    backwardSeconds: of(({ alone }) => alone.backwardSeconds),
    waitSeconds: { after: of(({ after }) => after.waitSeconds), during: of(({ during }) => during.waitSeconds) },
    afterToAlone: of(({ after, alone }) => after.seconds / alone.seconds),
    duringToAlone: of(({ during, alone }) => during.seconds / alone.seconds),
    duringToAfter: of(({ during, after }) => during.seconds / after.seconds),
    /** null where communication adds so little that there is nothing to tell. */
    hidden: added < LEAST_ADDED * seconds('alone') ? null : (seconds('after') - seconds('during')) / added,
    firstLoss,
    lastLoss,
  };
}

async function main(options: Options): Promise<void> {
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(1));
  const missing = namespacesMissing();
  if (missing !== null) console.log(`Only on one host, as ${missing}.`);
  const megabits = Number(options.megabits);
  const places = [
    ...(missing === null ? [{ name: 'link', label: `${megabits} Mbit/s, TLS`, megabits }] : []),
    { name: 'host', label: 'one host', megabits: null },
  ];
  const head = ['', 'alone', 'after', 'during', 'after / alone', 'during / alone', 'during / after', 'hidden'];
  const table = new Table({ head, style: { head: [], border: [] } });
  const figures: Record<string, ReturnType<typeof summaryOf>> = {};
  let parameters = 0;
  for (const place of places) {
    process.stderr.write(`${place.label}\n`);
    const measured = await measure(options, place.megabits);
    const summary = summaryOf(measured);
    parameters = measured.rounds[0]?.alone.parameters ?? 0;
    figures[place.name] = summary;
    const { seconds, afterToAlone, duringToAlone, duringToAfter, hidden } = summary;
    const times = MODES.map((mode) => formatSeconds(seconds[mode]));
    const ratios = [afterToAlone, duringToAlone, duringToAfter].map((ratio) => ratio.toFixed(2));
    table.push([place.label, ...times, ...ratios, hidden === null ? '–' : `${Math.round(hidden * 100)} %`]);
    console.log(
      `${place.label}: the backward pass takes ${formatSeconds(summary.backwardSeconds)}; then the sum is awaited for ${formatSeconds(summary.waitSeconds.after)} (after), ` +
        `${formatSeconds(summary.waitSeconds.during)} (during); loss ${summary.firstLoss.toFixed(2)} → ${summary.lastLoss.toFixed(2)}`,
    );
  }
  const { members, rounds, hidden, batch } = options;
  console.log(
    `\nSteps of ${members} members with ${batch} images each, 784-${hidden}-${hidden}-10, a gradient of ${formatBytes(Math.round((parameters * 4) / 1024) * 1024)}; medians of ${rounds} rounds.`,
  );
  console.log(table.toString());
  mkdirSync(RESULTS, { recursive: true });
  const record = {
    machine: describeMachine(),
    date: new Date().toISOString(),
    command: process.argv.slice(2),
    settings: { members, rounds, hidden, batch, megabits },
    figures,
  };
  writeFileSync(join(RESULTS, 'overlap.json'), `${JSON.stringify(record, null, 1)}\n`);
}

await new Command('bench:overlap')
  .description('Measures what of an all-reduce hides behind the backward pass of a real training step.')
  .option('--rounds <n>', 'steps of each kind', '10')
  .option('--members <n>', 'processes', '2')
  .option('--hidden <n>', 'units of each hidden layer', '1024')
  .option('--batch <n>', 'images per member and step', '48')
  .option('--megabits <n>', 'rate of the link of each, per second and direction', '500')
  .action(main)
  .parseAsync();
