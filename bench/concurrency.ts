/**
 * `npm run bench:concurrency`: what goes on at the same time. Eight all-reduces of 16 MiB at once beside one of 128 MiB; and the
 * training steps of a thread that has a core to itself, alone and while its engine all-reduces 256 MiB on the other cores. All
 * kinds take turns within one run; ratios are medians over the rounds. Writes bench/results/concurrency.json.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import Table from 'cli-table3';
import { Command } from 'commander';
import { formatSeconds, median } from '../src/benchmark/statistics.ts';
import { type Bar, bar } from './harness/bars.ts';
import { describeMachine } from './harness/machine.ts';
import { OrderedSwarm } from './harness/ordered-swarm.ts';
import type { ConcurrencyOrder, ConcurrencyReport } from './peers/concurrency-peer.ts';

const RESULTS = fileURLToPath(new URL('../../bench/results/', import.meta.url));
const MIB = 2 ** 20;
const ONE_HOST = { namespaced: false, megabits: null };
/** Calls until the compiler of the JavaScript engine knows the paths that both kinds take. */
const WARM_UPS = 40;

interface Options {
  readonly rounds: string;
}

/** Each kind takes its turn in each round, and none always comes after the same one. */
async function takeTurns<Kind extends ConcurrencyOrder['do']>(
  worldSize: number,
  spare: boolean,
  rounds: number,
  orders: Readonly<Record<Kind, ConcurrencyOrder>>,
): Promise<Record<Kind, ConcurrencyReport[]>> {
  const kinds = Object.keys(orders) as Kind[]; // its own keys
  const reports = Object.fromEntries(kinds.map((kind) => [kind, []])) as unknown as Record<Kind, ConcurrencyReport[]>; // one for each
  const swarm = await OrderedSwarm.start<ConcurrencyOrder, ConcurrencyReport>(
    'concurrency-peer',
    worldSize,
    { spare },
    ONE_HOST,
  );
  try {
    for (let round = -WARM_UPS; round < rounds; round++) {
      for (let turn = 0; turn < kinds.length; turn++) {
        const kind = kinds[(turn + round + WARM_UPS) % kinds.length]!; // the rest is an index
        const answers = await swarm.order(orders[kind]);
        const most = (key: keyof ConcurrencyReport) => Math.max(...answers.map((answer) => answer[key]));
        if (round >= 0) reports[kind].push({ seconds: most('seconds'), afterSeconds: most('afterSeconds') });
      }
    }
    return reports;
  } finally {
    swarm.close();
  }
}

function seconds(reports: readonly ConcurrencyReport[]): number {
  return median(reports.map((report) => report.seconds));
}

async function main(options: Options): Promise<void> {
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(1));
  const rounds = Number(options.rounds);
  const table = new Table({ head: ['', 'first', 'second'], style: { head: [], border: [] } });
  const bars: Bar[] = [];
  for (const worldSize of [2, 4]) {
    process.stderr.write(`eight at once, N=${worldSize}\n`);
    const { one, many } = await takeTurns(worldSize, false, rounds, {
      one: { do: 'one', bytes: 16 * MIB, parts: 8 },
      many: { do: 'many', bytes: 16 * MIB, parts: 8 },
    });
    const what = `8 × 16 MiB at once beside 128 MiB, N=${worldSize}`;
    table.push([`${what} (many, one)`, formatSeconds(seconds(many)), formatSeconds(seconds(one))]);
    bars.push(bar(`rate of ${what}`, median(one.map((report, at) => report.seconds / many[at]!.seconds)), '≥', 0.95));
  }
  if (availableParallelism() > 1) {
    process.stderr.write('training beside an all-reduce\n');
    const order = { bytes: 256 * MIB, parts: 1 };
    const turns = await takeTurns(2, true, rounds, {
      train: { do: 'train', ...order },
      'train-beside': { do: 'train-beside', ...order },
    });
    const beside = turns['train-beside'];
    if (median(beside.map(({ afterSeconds }) => afterSeconds)) < 0.001)
      throw new Error('The all-reduce was over before the training steps were: they were not made beside it.');
    const what = 'training steps beside an all-reduce of 256 MiB, N=2, a core to spare';
    table.push([`${what} (beside, alone)`, formatSeconds(seconds(beside)), formatSeconds(seconds(turns.train))]);
    const ratio = median(turns.train.map((report, at) => report.seconds / beside[at]!.seconds));
    bars.push(bar(`rate of ${what}`, ratio, '≥', 0.95));
  }
  console.log(table.toString());
  const summary = new Table({ head: ['bar', 'wanted', 'measured', ''], style: { head: [], border: [] } });
  for (const one of bars) summary.push([one.what, one.wanted, one.measured, one.met ? 'met' : 'NOT MET']);
  console.log(summary.toString());
  mkdirSync(RESULTS, { recursive: true });
  const date = new Date().toISOString();
  const record = { machine: describeMachine(), date, command: process.argv.slice(2), bars };
  writeFileSync(join(RESULTS, 'concurrency.json'), `${JSON.stringify(record, null, 1)}\n`);
}

await new Command('bench:concurrency')
  .description('Measures all-reduces that run at the same time, and training steps beside one.')
  .option('--rounds <n>', 'turns of each kind', '20')
  .action(main)
  .parseAsync();
