/**
 * `npm run bench:recovery`: how long the survivors of four wait after each kind of fault, and what salvaging saves. Members
 * all-reduce without pause, with the coordinator's detector at one second.
 *
 *     noticed     from the fault until the first survivor is told by an event that something is not as it was
 *     recovered   from the fault (of a coordinator: from when it listens again) to the next result of the slowest survivor
 */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import Table from 'cli-table3';
import { Command } from 'commander';
import { formatBytes, formatSeconds, median } from '../src/benchmark/statistics.ts';
import { namespacesMissing } from '../src/chaos/namespace-set.ts';
import { Namespaces } from '../src/chaos/namespaces.ts';
import { FAULT_CASES, type FaultCase, SHAPED_BYTES, SHAPED_MEGABITS } from './harness/faults.ts';
import { describeMachine } from './harness/machine.ts';
import { type Cost, Swarm } from './harness/swarm.ts';

const MIB = 1024 * 1024;
const RESULTS = fileURLToPath(new URL('../../bench/results/', import.meta.url));
const WORLD_SIZE = 4;
const LOST_AFTER_MS = 1_000;

interface Options {
  readonly rounds: string;
  readonly fewRounds: string;
  readonly size: string;
  readonly only?: string;
}

async function measure(one: FaultCase, rounds: number, bytes: number): Promise<readonly Cost[]> {
  const folder = mkdtempSync(join(tmpdir(), 'skein-recovery-'));
  const namespaces = one.network === 'loopback' ? null : new Namespaces(WORLD_SIZE);
  let swarm: Swarm | null = null;
  const clean = () => namespaces?.remove();
  process.once('exit', clean);
  try {
    if (one.network === 'shaped')
      for (let index = 0; index < WORLD_SIZE; index++) namespaces?.shape(index, SHAPED_MEGABITS);
    const store = one.store ? join(folder, 'store.json') : null;
    const { recovery, stragglers } = one;
    const task = { bytes: one.network === 'shaped' ? SHAPED_BYTES : bytes, recovery, stragglers };
    swarm = await Swarm.start(task, { worldSize: WORLD_SIZE, lostAfterMs: LOST_AFTER_MS, namespaces, store });
    const costs: Cost[] = [];
    for (let index = 0; index < rounds; index++) {
      const cost = await one.round(swarm, index % WORLD_SIZE);
      costs.push(cost);
      const noticed = Number.isNaN(cost.noticed) ? '' : `noticed ${formatSeconds(cost.noticed)}, `;
      process.stderr.write(
        `${one.what}, ${index + 1}/${rounds}: ${noticed}recovered ${formatSeconds(cost.recovered)}\n`,
      );
    }
    return costs;
  } finally {
    await swarm?.close();
    process.off('exit', clean);
    clean();
    rmSync(folder, { recursive: true, force: true });
  }
}

function medianOf(costs: readonly Cost[], key: keyof Cost): number {
  return median(costs.map((cost) => cost[key]).filter((seconds) => !Number.isNaN(seconds)));
}

function row({ what, bar }: FaultCase, costs: readonly Cost[]): string[] {
  const recovered = medianOf(costs, 'recovered');
  const worst = Math.max(...costs.map((cost) => cost.recovered));
  const verdict = bar === null ? '' : recovered <= bar ? 'met' : 'NOT MET';
  const wanted = bar === null ? '' : formatSeconds(bar);
  return [
    what,
    formatSeconds(medianOf(costs, 'noticed')),
    formatSeconds(recovered),
    formatSeconds(worst),
    wanted,
    verdict,
  ];
}

async function main(options: Options): Promise<void> {
  const bytes = Number(options.size) * MIB;
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(1));
  const missing = namespacesMissing();
  const measured = new Map<string, readonly Cost[]>();
  const head = ['fault', 'noticed', 'recovered', 'worst', 'wanted ≤', ''];
  const table = new Table({ head, style: { head: [], border: [] } });
  for (const one of FAULT_CASES) {
    if (options.only !== undefined && !options.only.split(',').includes(one.name)) continue;
    if (one.network !== 'loopback' && missing !== null) {
      table.push([one.what, '', '', '', '', `skipped: ${missing}`]);
      continue;
    }
    const rounds = Number(one.few ? options.fewRounds : options.rounds);
    const costs = await measure(one, rounds, bytes);
    measured.set(one.name, costs);
    table.push(row(one, costs));
  }
  console.log(
    `\n${WORLD_SIZE} members, all-reduces of ${formatBytes(bytes)}, the detector at ${LOST_AFTER_MS} ms; medians.`,
  );
  console.log(`At 80 %: ${formatBytes(SHAPED_BYTES)} over links of ${SHAPED_MEGABITS} Mbit/s.`);
  console.log(table.toString());
  const [late, salvaged] = [measured.get('late-restart'), measured.get('late-salvage')];
  if (late !== undefined && salvaged !== undefined) {
    const ratio = medianOf(salvaged, 'recovered') / medianOf(late, 'recovered');
    console.log(
      `Salvage takes ${ratio.toFixed(2)} of what a restart takes (wanted ≤ 0.5): ${ratio <= 0.5 ? 'met' : 'NOT MET'}`,
    );
  }
  if (options.only !== undefined) return;
  mkdirSync(RESULTS, { recursive: true });
  const record = {
    machine: describeMachine(),
    date: new Date().toISOString(),
    bytes,
    lostAfterMs: LOST_AFTER_MS,
    figures: Object.fromEntries(measured),
  };
  writeFileSync(join(RESULTS, 'recovery.json'), `${JSON.stringify(record, null, 1)}\n`);
}

await new Command('bench:recovery')
  .description('Measures how long survivors wait after each kind of fault, and what salvaging saves.')
  .option('--rounds <n>', 'faults of each kind', '20')
  .option('--few-rounds <n>', 'of what takes long, or has no bar to meet', '5')
  .option('--size <MiB>', 'tensor size', '64')
  .option('--only <names>', `some of ${FAULT_CASES.map((one) => one.name).join(', ')}; writes no record`)
  .action(main)
  .parseAsync();
