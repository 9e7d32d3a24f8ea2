/**
 * `npm run bench:recovery`: how long the survivors of four wait for their next result after each kind of fault, and what
 * salvaging saves. Members all-reduce without pause, with the coordinator's detector at one second.
 *
 *     recovery   from the fault (of a coordinator: from when it listens again) to the next result of the slowest survivor
 */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import Table from 'cli-table3';
import { Command } from 'commander';
import { Namespaces, namespacesMissing } from '../src/chaos/namespaces.ts';
import { type StartedCoordinator, startCoordinator } from './harness/coordinator.ts';
import { describeMachine } from './harness/machine.ts';
import { Member, monotonic, type Wrap } from './harness/member.ts';
import { formatBytes, formatSeconds, median } from './harness/statistics.ts';
import type { ChurnTask } from './peers/churn-peer.ts';

const MIB = 1024 * 1024;
const RESULTS = fileURLToPath(new URL('../../bench/results/', import.meta.url));
const WORLD_SIZE = 4;
const LOST_AFTER_MS = 1_000;
const TOKEN = 'of the benchmark';

/** Steps in peace before a fault. */
const SETTLING_STEPS = 6;

/** How long a coordinator is away (s). */
const AWAY_SECONDS = 0.5;

/** The link for which salvaging is measured (Mbit/s), the tensor, and when a peer dies. */
const SHAPED_MEGABITS = 1_000;
const SHAPED_BYTES: number = 256 * MIB;
const DIES_AT = 0.8;

interface Options {
  readonly rounds: string;
  readonly salvageRounds: string;
  readonly size: string;
  readonly only?: string;
}

/** A run of four, in namespaces or not. */
class Swarm {
  readonly members: Member[] = [];
  readonly namespaces: Namespaces | null;
  coordinator!: StartedCoordinator; // set by `start`
  readonly #task: Omit<ChurnTask, 'address' | 'startWorldSize'>;
  readonly #store: string | null;

  static async start(
    task: Omit<ChurnTask, 'address' | 'startWorldSize'>,
    setting: { readonly namespaces: Namespaces | null; readonly store: string | null },
  ): Promise<Swarm> {
    const swarm = new Swarm(task, setting.namespaces, setting.store);
    await swarm.listen(0);
    for (let index = 0; index < WORLD_SIZE; index++) swarm.members.push(swarm.#member(index, WORLD_SIZE));
    await swarm.settle();
    return swarm;
  }

  private constructor(
    task: Omit<ChurnTask, 'address' | 'startWorldSize'>,
    namespaces: Namespaces | null,
    store: string | null,
  ) {
    this.#task = task;
    this.namespaces = namespaces;
    this.#store = store;
  }

  #wrap(where: number | 'coordinator'): Wrap | undefined {
    const { namespaces } = this;
    return namespaces === null ? undefined : (command) => namespaces.wrap(where, command);
  }

  async listen(port: number): Promise<void> {
    const host = this.namespaces?.address('coordinator') ?? '127.0.0.1';
    const store = this.#store === null ? {} : { store: this.#store };
    const options = { host, port, token: TOKEN, lostAfterMs: LOST_AFTER_MS, ...store };
    this.coordinator = await startCoordinator(options, this.#wrap('coordinator'), this.namespaces?.environment);
  }

  #member(index: number, startWorldSize: number): Member {
    const task = { ...this.#task, token: TOKEN, address: this.coordinator.address, startWorldSize };
    return new Member(task, this.#wrap(index), this.namespaces?.environment);
  }

  settle(): Promise<unknown> {
    return Promise.all(this.members.map((member) => member.settled(WORLD_SIZE, SETTLING_STEPS)));
  }

  /** Puts a fresh process where one was lost. */
  async replace(index: number): Promise<void> {
    await this.members[index]!.kill();
    this.namespaces?.heal(index);
    this.members[index] = this.#member(index, 1);
    await this.settle();
  }

  /** Seconds until all but the lost have their next result. */
  async recovered(since: number, lost: number | null): Promise<number> {
    const survivors = this.members.filter((_, index) => index !== lost);
    const steps = await Promise.all(survivors.map((member) => member.nextAfter(since)));
    if (steps.some((step) => step.worldSize !== survivors.length)) throw new Error('recovery: a result of the lost');
    return Math.max(...steps.map((step) => step.end)) - since;
  }

  async close(): Promise<void> {
    await Promise.all(this.members.map((member) => member.kill()));
    this.coordinator.child.kill('SIGKILL');
  }
}

/** One fault and its repair; returns the seconds that it cost. */
type Round = (swarm: Swarm, victim: number) => Promise<number>;

const stop: Round = async (swarm, victim) => {
  const since = monotonic();
  swarm.members[victim]!.child.kill('SIGSTOP');
  const seconds = await swarm.recovered(since, victim);
  await swarm.replace(victim);
  return seconds;
};

const kill: Round = async (swarm, victim) => {
  const since = await swarm.members[victim]!.dieAt(0.5);
  const seconds = await swarm.recovered(since, victim);
  await swarm.replace(victim);
  return seconds;
};

const drop: Round = async (swarm, victim) => {
  const since = monotonic();
  swarm.namespaces!.drop(victim, 'all'); // this round is only run in namespaces
  const seconds = await swarm.recovered(since, victim);
  await swarm.replace(victim);
  return seconds;
};

const restart: Round = async (swarm) => {
  const { child, address } = swarm.coordinator;
  child.kill('SIGKILL');
  await new Promise((resolve) => setTimeout(resolve, AWAY_SECONDS * 1_000));
  await swarm.listen(Number(address.slice(address.lastIndexOf(':') + 1)));
  const seconds = await swarm.recovered(swarm.coordinator.at, null);
  await swarm.settle();
  return seconds;
};

const dieLate: Round = async (swarm, victim) => {
  const since = await swarm.members[victim]!.dieAt(DIES_AT);
  const seconds = await swarm.recovered(since, victim);
  await swarm.replace(victim);
  return seconds;
};

interface Case {
  readonly name: string;
  readonly what: string;
  /** Seconds. */
  readonly bar: number | null;
  readonly round: Round;
  readonly network: 'loopback' | 'namespaces' | 'shaped';
  readonly store: boolean;
  readonly recovery: 'restart' | 'salvage';
}

const PLAIN = { network: 'loopback', store: false, recovery: 'restart' } as const;

const CASES: readonly Case[] = [
  { ...PLAIN, name: 'kill', what: 'SIGKILL', bar: null, round: kill },
  { ...PLAIN, name: 'stop', what: 'SIGSTOP', bar: 1.5, round: stop },
  { ...PLAIN, name: 'drop', what: 'all packets of one peer dropped', bar: 1.5, round: drop, network: 'namespaces' },
  { ...PLAIN, name: 'coordinator', what: 'coordinator SIGKILL, restarted without store', bar: 1, round: restart },
  {
    ...PLAIN,
    name: 'store',
    what: 'coordinator SIGKILL, restarted with its store',
    bar: 1,
    round: restart,
    store: true,
  },
  { ...PLAIN, name: 'late-restart', what: 'SIGKILL at 80 %, restart', bar: null, round: dieLate, network: 'shaped' },
  {
    ...PLAIN,
    name: 'late-salvage',
    what: 'SIGKILL at 80 %, salvage',
    bar: null,
    round: dieLate,
    network: 'shaped',
    recovery: 'salvage',
  },
];

async function measure(one: Case, rounds: number, bytes: number): Promise<readonly number[]> {
  const folder = mkdtempSync(join(tmpdir(), 'skein-recovery-'));
  const namespaces = one.network === 'loopback' ? null : new Namespaces(WORLD_SIZE);
  let swarm: Swarm | null = null;
  const clean = () => namespaces?.remove();
  process.once('exit', clean);
  try {
    if (one.network === 'shaped')
      for (let index = 0; index < WORLD_SIZE; index++) namespaces?.shape(index, SHAPED_MEGABITS);
    const store = one.store ? join(folder, 'store.json') : null;
    const task = { bytes: one.network === 'shaped' ? SHAPED_BYTES : bytes, recovery: one.recovery };
    swarm = await Swarm.start(task, { namespaces, store });
    const seconds: number[] = [];
    for (let index = 0; index < rounds; index++) {
      seconds.push(await one.round(swarm, index % WORLD_SIZE));
      process.stderr.write(`${one.what}, ${index + 1}/${rounds}: ${formatSeconds(seconds.at(-1)!)}\n`);
    }
    return seconds;
  } finally {
    await swarm?.close();
    process.off('exit', clean);
    clean();
    rmSync(folder, { recursive: true, force: true });
  }
}

async function main(options: Options): Promise<void> {
  const bytes = Number(options.size) * MIB;
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(1));
  const missing = namespacesMissing();
  const measured = new Map<string, readonly number[]>();
  const table = new Table({ head: ['fault', 'wanted ≤', 'median', 'worst', ''], style: { head: [], border: [] } });
  for (const one of CASES) {
    if (options.only !== undefined && !options.only.split(',').includes(one.name)) continue;
    if (one.network !== 'loopback' && missing !== null) {
      table.push([one.what, '', '', '', `skipped: ${missing}`]);
      continue;
    }
    const rounds = Number(one.network === 'shaped' ? options.salvageRounds : options.rounds);
    const seconds = await measure(one, rounds, bytes);
    measured.set(one.name, seconds);
    const verdict = one.bar === null ? '' : median(seconds) <= one.bar ? 'met' : 'NOT MET';
    const bar = one.bar === null ? '' : formatSeconds(one.bar);
    table.push([one.what, bar, formatSeconds(median(seconds)), formatSeconds(Math.max(...seconds)), verdict]);
  }
  console.log(`\n${WORLD_SIZE} members, all-reduces of ${formatBytes(bytes)}, the detector at ${LOST_AFTER_MS} ms.`);
  console.log(`At 80 %: ${formatBytes(SHAPED_BYTES)} over links of ${SHAPED_MEGABITS} Mbit/s.`);
  console.log(table.toString());
  const [late, salvaged] = [measured.get('late-restart'), measured.get('late-salvage')];
  if (late !== undefined && salvaged !== undefined) {
    const ratio = median(salvaged) / median(late);
    console.log(
      `Salvage takes ${ratio.toFixed(2)} of what a restart takes (wanted ≤ 0.5): ${ratio <= 0.5 ? 'met' : 'NOT MET'}`,
    );
  }
  mkdirSync(RESULTS, { recursive: true });
  const figures = Object.fromEntries(measured);
  const record = {
    machine: describeMachine(),
    date: new Date().toISOString(),
    bytes,
    lostAfterMs: LOST_AFTER_MS,
    figures,
  };
  if (options.only === undefined) writeFileSync(join(RESULTS, 'recovery.json'), `${JSON.stringify(record, null, 1)}\n`);
}

await new Command('bench:recovery')
  .description(
    'Measures how long survivors wait for their next result after each kind of fault, and what salvaging saves.',
  )
  .option('--rounds <n>', 'faults of each kind', '20')
  .option('--salvage-rounds <n>', 'kills at 80 %, with and without salvage', '5')
  .option('--size <MiB>', 'tensor size', '64')
  .option('--only <names>', `some of ${CASES.map((one) => one.name).join(', ')}; writes no record`)
  .action(main)
  .parseAsync();
