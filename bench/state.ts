/**
 * `npm run bench:state`: what it costs four training members that a newcomer fetches their state, and comes in. One after the other comes,
 * trains with them for a while, and leaves; figures are medians of all that came.
 *
 *     rate        steps per second while it fetches, as a share of those before
 *     admission   how much longer boundary and sync take with which it comes in, on the slowest member
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import Table from 'cli-table3';
import { Command } from 'commander';
import { formatBytes, formatSeconds, median } from '../src/benchmark/statistics.ts';
import { startCoordinator } from './harness/coordinator.ts';
import { describeMachine } from './harness/machine.ts';
import type { StateMessage, StateTask } from './peers/state-peer.ts';

const MIB = 1024 * 1024;
const RESULTS = fileURLToPath(new URL('../../bench/results/', import.meta.url));
const PEER = fileURLToPath(new URL('./peers/state-peer.js', import.meta.url));

/** No wait in here takes longer (ms). To touch the pages of five such states takes most of it. */
const DEADLINE_MS = 400_000;

/** Steps that count as undisturbed, before the newcomer starts and after it came in. */
const PEACEFUL_STEPS = 25;

type StepMessage = Extract<StateMessage, { type: 'step' }>;

class Trainer {
  readonly child: ChildProcess;
  readonly steps: StepMessage[] = [];
  joiningAt = Number.NaN;
  #wake: () => void = () => {};

  constructor(task: StateTask) {
    this.child = spawn(process.execPath, [PEER, JSON.stringify(task)], {
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    });
    this.child.on('message', (message: StateMessage) => {
      if (message.type === 'step') this.steps.push(message);
      else this.joiningAt = message.at;
      this.#wake();
    });
  }

  until(what: string, condition: () => boolean): Promise<void> {
    return new Promise<void>((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`${what}: not within ${DEADLINE_MS} ms`)), DEADLINE_MS);
      this.#wake = () => {
        if (!condition()) return;
        clearTimeout(timer);
        resolve();
      };
      this.child.once('exit', () => reject(new Error(`${what}: the process ended`)));
      this.#wake();
    });
  }
}

interface Scenario {
  readonly name: string;
  readonly bytes: number;
  readonly changedBytes: number;
  readonly tells: boolean;
  /** Members that are killed while the newcomer fetches. */
  readonly kills: number;
}

interface Figures {
  /** Seconds from the newcomer's call of `join` to its first step. */
  readonly joined: number;
  readonly stepBefore: number;
  readonly stepDuring: number;
  /** Steps per second while it fetches, as a share of those before. */
  readonly rate: number;
  /** Of the boundary and sync before, and of the one by which it came in, on the slowest member (seconds). */
  readonly syncBefore: number;
  readonly admission: number;
  readonly pause: number;
  readonly prefetched: number;
  readonly received: number;
  readonly sources: number;
}

async function run(scenario: Scenario, world: number, computeMs: number, newcomers: number): Promise<Figures[]> {
  const { bytes, changedBytes, tells, kills } = scenario;
  const figures: Figures[] = [];
  const { child: coordinator, address } = await startCoordinator({ lostAfterMs: 20_000 });
  const members: Trainer[] = [];
  try {
    const task = { address, startWorldSize: world, bytes, changedBytes, computeMs, tells };
    for (let index = 0; index < world; index++) members.push(new Trainer(task));
    await Promise.all(members.map((one) => one.until('steps in peace', () => one.steps.length >= 2 * PEACEFUL_STEPS)));
    while (figures.length < newcomers) {
      const newcomer = new Trainer({ ...task, startWorldSize: 1 });
      await newcomer.until('it starts', () => !Number.isNaN(newcomer.joiningAt));
      for (let killed = 0; killed < kills; killed++) {
        await new Promise((resolve) => setTimeout(resolve, 1_000));
        members.pop()!.child.kill('SIGKILL');
      }
      members.push(newcomer);
      await newcomer.until('it trains', () => newcomer.steps.length >= PEACEFUL_STEPS);
      figures.push(figuresOf(members, newcomer));
      if (figures.length === newcomers) break;
      members.pop();
      const hasEnded = once(newcomer.child, 'exit');
      newcomer.child.send('leave');
      await hasEnded;
      const [any] = members;
      const stepsSoFar = any!.steps.length;
      await any!.until('steps in peace again', () => any!.steps.length >= stepsSoFar + PEACEFUL_STEPS + 2);
    }
    return figures;
  } finally {
    for (const one of members) one.child.kill('SIGKILL');
    coordinator.kill();
  }
}

function figuresOf(members: readonly Trainer[], newcomer: Trainer): Figures {
  const { joiningAt } = newcomer;
  const first = newcomer.steps[0]!;
  const old = members.filter((one) => one !== newcomer);
  const [any] = old;
  const before = any!.steps.filter((step) => step.end < joiningAt).slice(-PEACEFUL_STEPS);
  const during = any!.steps.filter((step) => step.start > joiningAt && step.index < first.index);
  const perStep = (steps: readonly StepMessage[]) => (steps.at(-1)!.end - steps[0]!.start) / steps.length;
  const entrances = old.map((one) => one.steps.find((step) => step.index === first.index)!);
  for (const step of entrances) if (step.hash !== first.hash) throw new Error('the newcomer holds something else');
  const syncBefore = median(before.map((step) => step.synced - step.start));
  const admission = Math.max(...entrances.map((step) => step.synced - step.start));
  const [stepBefore, stepDuring] = [perStep(before), perStep(during)];
  return {
    joined: first.synced - joiningAt,
    stepBefore,
    stepDuring,
    rate: stepBefore / stepDuring,
    syncBefore,
    admission,
    pause: admission - syncBefore,
    prefetched: first.prefetched,
    received: first.received,
    sources: first.sources,
  };
}

function medians(figures: readonly Figures[]): Figures {
  const keys = Object.keys(figures[0]!) as (keyof Figures)[]; // its own keys
  const entries = keys.map((key) => [key, median(figures.map((one) => one[key]))]);
  return Object.fromEntries(entries) as unknown as Figures; // one for each
}

interface Options {
  readonly world: string;
  readonly size: string;
  readonly changed: string;
  readonly compute: string;
  readonly newcomers: string;
  readonly only?: string;
  readonly record?: boolean;
}

async function main(options: Options): Promise<void> {
  const bytes = Number(options.size) * MIB;
  const changedBytes = Number(options.changed) * MIB;
  const scenarios: Scenario[] = [
    { name: 'little changes', bytes, changedBytes, tells: true, kills: 0 },
    { name: 'two sources killed', bytes, changedBytes, tells: true, kills: 2 },
    { name: 'all is hashed', bytes, changedBytes, tells: false, kills: 0 },
    { name: 'all changes', bytes, changedBytes: bytes - 4 * MIB, tells: false, kills: 0 },
  ];
  const table = new Table({
    head: ['', 'step', 'while it fetches', 'rate', 'sync', 'admission', 'pause', 'in after', 'before', 'in the sync'],
    style: { head: [], border: [] },
  });
  const records: (Scenario & { readonly newcomers: number; readonly medians: Figures; readonly figures: Figures[] })[] =
    [];
  for (const scenario of scenarios) {
    if (options.only !== undefined && !scenario.name.includes(options.only)) continue;
    // Where members are killed, there are too few for another; where all is hashed, steps take their time.
    const newcomers = scenario.kills === 0 && scenario.tells ? Number(options.newcomers) : 1;
    const figures = await run(scenario, Number(options.world), Number(options.compute), newcomers);
    const one = medians(figures);
    records.push({ ...scenario, newcomers, medians: one, figures });
    table.push([
      `${scenario.name} (${newcomers})`,
      formatSeconds(one.stepBefore),
      formatSeconds(one.stepDuring),
      `${Math.round(100 * one.rate)} %`,
      formatSeconds(one.syncBefore),
      formatSeconds(one.admission),
      formatSeconds(one.pause),
      formatSeconds(one.joined),
      formatBytes(one.prefetched),
      formatBytes(one.received),
    ]);
    process.stderr.write(`${scenario.name}: ${JSON.stringify(figures)}\n`);
  }
  console.log(
    `${options.world} members, a state of ${formatBytes(bytes)}, of which ${formatBytes(changedBytes)} change in a step.`,
  );
  console.log(table.toString());
  if (options.record !== true) return;
  mkdirSync(RESULTS, { recursive: true });
  const record = {
    machine: describeMachine(),
    date: new Date().toISOString(),
    worldSize: Number(options.world),
    figures: records,
  };
  writeFileSync(join(RESULTS, 'state.json'), `${JSON.stringify(record, null, 1)}\n`);
}

await new Command('bench:state')
  .description('Measures what it costs training members that a newcomer fetches their state and comes in.')
  .option('--world <n>', 'members', '4')
  .option('--size <MiB>', 'of the state', '1024')
  .option('--changed <MiB>', 'of it that each step changes', '8')
  .option('--compute <ms>', 'of each step', '50')
  .option('--newcomers <n>', 'that come one after the other', '5')
  .option('--only <name>', 'only scenarios with this in their names')
  .option('--record', 'writes bench/results/state.json')
  .action(main)
  .parseAsync();
