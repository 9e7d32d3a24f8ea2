/**
 * `npm run bench:coordinator`: what a coordinator costs with many members. It is a process of its own; its members are real control
 * connections over loopback, all in this process, without engines. Writes a record to bench/results/.
 */
import { spawnSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { performance } from 'node:perf_hooks';
import { fileURLToPath } from 'node:url';
import Table from 'cli-table3';
import { Command } from 'commander';
import PQueue from 'p-queue';
import { parseTcpAddress } from '../src/transport/address.ts';
import { ControlMember, Traffic } from './harness/control-member.ts';
import { type StartedCoordinator, startCoordinator } from './harness/coordinator.ts';
import { describeMachine } from './harness/machine.ts';
import { deadline } from './harness/member.ts';
import type { Usage } from './peers/skein-coordinator.ts';

const RESULTS = fileURLToPath(new URL('../../bench/results/', import.meta.url));
const MIB = 1024 * 1024;

/** Each of the two processes holds a socket for each member, and some files of its own. */
const SPARE_FILES = 64;

/**
 * All members are one process here, which has to read half a million introductions: more of them at once would run out of time
 * with one another, and not with the coordinator.
 */
const JOINS_AT_ONCE = 8;

/** Set in the process that was started again with a higher limit of open files. */
const RAISED = 'SKEIN_BENCH_RAISED';

interface Options {
  readonly members: string;
  readonly commits: string;
  readonly open: string;
  readonly steps: string;
  readonly profile?: string;
}

/** What a phase took, of both processes. */
interface Phase {
  readonly name: string;
  /** Joins, commits or steps. */
  readonly count: number;
  readonly seconds: number;
  readonly messages: number;
  readonly bytes: number;
  /** Of the coordinator. */
  readonly cpuSeconds: number;
  /** Of the coordinator, at its end. */
  readonly rssBytes: number;
}

class Measurement {
  readonly phases: Phase[] = [];
  readonly traffic: Traffic = new Traffic();
  readonly #coordinator: StartedCoordinator;

  constructor(coordinator: StartedCoordinator) {
    this.#coordinator = coordinator;
  }

  async phase(name: string, count: number, run: () => Promise<unknown>): Promise<void> {
    process.stderr.write(`${name}\n`);
    const before = await this.#usage();
    const { messages, bytes } = this.#total();
    const start = performance.now();
    await run();
    const seconds = (performance.now() - start) / 1_000;
    const after = await this.#usage();
    const total = this.#total();
    this.phases.push({
      name,
      count,
      seconds,
      messages: total.messages - messages,
      bytes: total.bytes - bytes,
      cpuSeconds: after.cpuSeconds - before.cpuSeconds,
      rssBytes: after.rssBytes,
    });
  }

  #total(): { messages: number; bytes: number } {
    const { sentMessages, receivedMessages, sentBytes, receivedBytes } = this.traffic;
    return { messages: sentMessages + receivedMessages, bytes: sentBytes + receivedBytes };
  }

  #usage(): Promise<Usage> {
    const { child } = this.#coordinator;
    const answer = new Promise<Usage>((resolve) => void child.once('message', (usage: Usage) => resolve(usage)));
    child.send('usage');
    return deadline('the coordinator tells what it has used', answer);
  }
}

/** Starts this benchmark again with more open files, where the system allows that; returns if there is no need, or no way. */
function raiseLimit(members: number): void {
  const wanted = members + SPARE_FILES;
  const limits = process.report.getReport() as { userLimits?: { open_files?: { soft: unknown; hard: unknown } } };
  const { soft, hard } = limits.userLimits?.open_files ?? { soft: 'unlimited', hard: 'unlimited' };
  if (typeof soft !== 'number' || soft >= wanted) return;
  if (process.env[RAISED] !== undefined || (typeof hard === 'number' && hard < wanted)) {
    console.log(
      `A process may open ${soft} files here (at most ${String(hard)}), and ${wanted} are needed: some members will fail to connect.`,
    );
    return;
  }
  const again = [process.execPath, ...process.execArgv, ...process.argv.slice(1)];
  const { status } = spawnSync('sh', ['-c', `ulimit -n ${wanted} && exec "$@"`, 'sh', ...again], {
    stdio: 'inherit',
    env: { ...process.env, [RAISED]: '1' },
  });
  process.exit(status ?? 1);
}

/** All members hold so many collectives, of which `open` are under way at once. */
async function commits(members: readonly ControlMember[], first: number, count: number, open: number): Promise<void> {
  for (let from = 0; from < count; from += open) {
    const turn = Array.from({ length: Math.min(open, count - from) }, (_, index) => first + from + index);
    await Promise.all(members.flatMap((member) => turn.map((sequence) => member.hold(sequence))));
  }
}

async function measure(options: Options): Promise<readonly Phase[]> {
  const [size, count, open, steps] = [options.members, options.commits, options.open, options.steps].map(Number) as [
    number,
    number,
    number,
    number,
  ];
  const { profile } = options;
  const coordinator = await startCoordinator({ lostAfterMs: 20_000 }, ([program, ...args]) => [
    program!,
    ...(profile === undefined ? [] : ['--cpu-prof', `--cpu-prof-dir=${profile}`]),
    ...args,
  ]);
  const measurement = new Measurement(coordinator);
  const { traffic } = measurement;
  const address = parseTcpAddress(coordinator.address);
  const enter = (startWorldSize: number) => ControlMember.join({ address, startWorldSize, traffic });
  const members: ControlMember[] = [];
  try {
    await measurement.phase('join', size, async () => {
      const queue = new PQueue({ concurrency: JOINS_AT_ONCE });
      const joining = Array.from({ length: size }, () => queue.add(async () => void members.push(await enter(size))));
      await Promise.all(joining);
      await Promise.all(members.map((member) => member.admitted()));
    });
    await commits(members, 0, open, open); // both compilers see it
    await measurement.phase('commits, one after the other', count, () => commits(members, open, count, 1));
    await measurement.phase(`commits, ${open} at once`, count, () => commits(members, open + count, count, open));
    let sequence = open + 2 * count;
    await measurement.phase('steps: a boundary and a commit', steps, async () => {
      for (let step = 0; step < steps; step++) {
        await Promise.all(members.map((member) => member.admit()));
        await commits(members, sequence++, 1, 1);
      }
    });
    await measurement.phase('a newcomer: join and boundary', 1, async () => {
      const newcomer = await enter(1);
      // That it is ready may come to the coordinator after the first of them.
      while (newcomer.view === null) await Promise.all(members.map((member) => member.admit()));
      members.push(newcomer);
    });
    await measurement.phase('a kill, until all have the decision', 1, async () => {
      const victim = members.pop()!;
      const decided = members.map((member) => member.decided());
      victim.kill();
      for (const member of members) member.sawClose(victim.peerId);
      await Promise.all(decided);
    });
    await measurement.phase('beats, 5 s', 5, () => new Promise((resolve) => void setTimeout(resolve, 5_000)));
  } finally {
    for (const member of members) member.kill();
    coordinator.child.disconnect();
  }
  return measurement.phases;
}

function print(phases: readonly Phase[]): void {
  const head = ['phase', 'count', 'seconds', 'per second', 'messages/s', 'MB', 'coordinator CPU s', 'RSS MiB'];
  const table = new Table({ head, style: { head: [], border: [] } });
  for (const { name, count, seconds, messages, bytes, cpuSeconds, rssBytes } of phases)
    table.push([
      name,
      count,
      seconds.toFixed(3),
      (count / seconds).toFixed(1),
      Math.round(messages / seconds),
      (bytes / 1e6).toFixed(1),
      cpuSeconds.toFixed(2),
      Math.round(rssBytes / MIB),
    ]);
  console.log(table.toString());
}

async function main(options: Options): Promise<void> {
  raiseLimit(Number(options.members));
  const phases = await measure(options);
  print(phases);
  mkdirSync(RESULTS, { recursive: true });
  const record = {
    machine: describeMachine(),
    date: new Date().toISOString(),
    command: process.argv.slice(2),
    members: Number(options.members),
    phases,
  };
  const file = join(RESULTS, 'coordinator.json');
  writeFileSync(file, `${JSON.stringify(record, null, 1)}\n`);
  console.log(`Written to ${file}`);
  process.exit(0);
}

await new Command('bench:coordinator')
  .description('Measures a coordinator with many members over loopback.')
  .option('--members <n>', 'members', '1000')
  .option('--commits <n>', 'collectives that all members hold', '200')
  .option('--open <n>', 'collectives under way at once', '16')
  .option('--steps <n>', 'steps with a boundary each', '20')
  .option('--profile <dir>', 'profiles the coordinator, to this directory')
  .action(main)
  .parseAsync();
