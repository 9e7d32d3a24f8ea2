/**
 * `npm run bench:pipes`: how much of a long fat pipe a link fills. Two members stand in network namespaces with 1 Gbit/s and a round trip
 * of 50 ms between them (`test/harness/long-pipe.ts`); then with less, as two cores may not carry that both ways. Plain Node sockets, by 1
 * to 16 connections, and the members take turns within one run; the pipe itself counts what goes by. Needs root. Writes a record
 * to bench/results/.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import Table from 'cli-table3';
import { Command } from 'commander';
import { median } from '../src/benchmark/statistics.ts';
import { namespacesMissing } from '../src/chaos/namespace-set.ts';
import { LongPipe, longPipeMissing, type PipeEnd } from '../test/harness/long-pipe.ts';
import { startCoordinator } from './harness/coordinator.ts';
import { describeMachine } from './harness/machine.ts';
import { deadline } from './harness/member.ts';
import type { PipeCall, PipeOrder, PipeReport, PipeTask } from './peers/pipe-peer.ts';
import type { PlainCount, PlainTask } from './peers/pipe-plain.ts';

const MIB = 1024 * 1024;
const RESULTS = fileURLToPath(new URL('../../bench/results/', import.meta.url));
const PEERS = new URL('./peers/', import.meta.url);

/** What the kernel of most machines allows, whatever this one does; as congestion control, what this one has. */
const KERNEL = { tcp_rmem: '4096 131072 6291456', tcp_wmem: '4096 16384 4194304' };
const CONNECTIONS: readonly number[] = [1, 2, 4, 8, 16];
const CALLS: readonly PipeCall[] = ['broadcast', 'allReduce'];
const TOKEN = 'of a benchmark of long pipes';
const PLAIN_PORT = 5_001;
/** Until connections have found out how fast the way is (ms), and how long they are measured then. */
const RAMP_MS = 1_500;
const PLAIN_MS = 2_500;
/** Calls before those that count: links grow in them. */
const WARMUPS = 2;

interface Options {
  readonly rounds: string;
  readonly calls: string;
  readonly megabits: string;
  readonly rtt: string;
  readonly mtu: string;
  readonly size: string;
}

/** One figure of one side, in Mbit/s: what arrived for the user, and what was on the wire in the direction that carried less. */
interface Sample {
  readonly side: string;
  readonly goodput: number;
  readonly wire: number;
  /** Connections in each direction, or in the one that is used. */
  readonly stripes: number;
}

const sleep = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

function start(pipe: LongPipe, end: PipeEnd, script: string, task: PipeTask | PlainTask): ChildProcess {
  const path = fileURLToPath(new URL(`${script}.js`, PEERS));
  const [program, ...args] = pipe.wrap(end, [process.execPath, path, JSON.stringify(task)]);
  const stdio = ['ignore', 'inherit', 'inherit', 'ipc'] as const;
  return spawn(program, args, { stdio: [...stdio], env: { ...process.env, ...pipe.environment } });
}

/** Ends a process; resolves when it is gone, with its ports. */
function stop(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return Promise.resolve();
  return new Promise((resolve) => {
    child.removeAllListeners('exit').once('exit', () => resolve());
    child.kill('SIGKILL');
  });
}

/** The next message of a process; `T` is what its script sends. */
function message<T>(child: ChildProcess): Promise<T> {
  const told = new Promise<T>((resolve, reject) => {
    const onExit = (code: number | null, signal: string | null): void =>
      reject(new Error(`a process of the benchmark ended (${signal ?? code})`));
    child.once('exit', onExit);
    child.once('message', (value) => {
      child.removeListener('exit', onExit);
      resolve(value as T);
    });
  });
  return deadline('a process of the benchmark answers', told);
}

function ask<T>(child: ChildProcess, order: PipeOrder | 'count'): Promise<T> {
  const answer = message<T>(child);
  child.send(order);
  return answer;
}

/** Runs `during`, and counts what is on the wire meanwhile: of the directions that are used, the one that carries less (Mbit/s). */
async function onWire<T>(pipe: LongPipe, both: boolean, during: () => Promise<T>): Promise<{ value: T; wire: number }> {
  const before = await pipe.counts();
  const value = await during();
  const after = await pipe.counts();
  const rates = after.counts.map(
    ({ passed }, index) => (8e-3 * (passed - before.counts[index]!.passed)) / (after.at - before.at),
  );
  return { value, wire: both ? Math.min(...rates) : Math.max(...rates) };
}

/** Plain sockets from the left to the right, or both ways. */
async function measurePlain(pipe: LongPipe, connections: number, both: boolean): Promise<Sample> {
  const task = { host: pipe.address('right'), port: PLAIN_PORT };
  const right = start(pipe, 'right', 'pipe-plain', { ...task, connections: null, sends: both });
  const children = [right];
  try {
    await message(right);
    const left = start(pipe, 'left', 'pipe-plain', { ...task, connections, sends: true });
    children.push(left);
    await sleep(RAMP_MS);
    const ends = both ? children : [right];
    const count = () => Promise.all(ends.map((end) => ask<PlainCount>(end, 'count')));
    const { value, wire } = await onWire(pipe, both, async () => {
      const before = await count();
      await sleep(PLAIN_MS);
      return { before, after: await count() };
    });
    const rates = value.after.map(({ at, bytes }, index) => {
      const { at: since, bytes: had } = value.before[index]!;
      return (8e-6 * (bytes - had)) / (at - since);
    });
    const side = `plain ${both ? 'both ways' : 'one way'}, ${connections}`;
    return { side, goodput: Math.min(...rates), wire, stripes: connections };
  } finally {
    await Promise.all(children.map(stop));
  }
}

/** What members get, in calls of `bytes`. */
async function measureMembers(pipe: LongPipe, calls: number, bytes: number): Promise<Sample[]> {
  const where = pipe.address('left');
  const { child: coordinator, address } = await startCoordinator(
    { host: where, token: TOKEN, lostAfterMs: 20_000 },
    (command) => pipe.wrap('left', command),
    pipe.environment,
  );
  const children = [coordinator];
  try {
    const task: PipeTask = { address, token: TOKEN, encryption: 'off-loopback', bytes };
    const members = (['left', 'right'] as const).map((end) => start(pipe, end, 'pipe-peer', task));
    children.push(...members);
    await Promise.all(members.map((member) => message(member)));
    const samples: Sample[] = [];
    for (let index = -WARMUPS; index < calls; index++) {
      for (const call of CALLS) {
        const { value, wire } = await onWire(pipe, call === 'allReduce', () =>
          Promise.all(members.map((member) => ask<PipeReport>(member, { call, bytes }))),
        );
        const seconds = Math.max(...value.map(({ end }) => end)) - Math.max(...value.map((report) => report.start));
        const stripes = Math.max(...value.map((report) => report.stripes));
        const sample = { side: call, goodput: (8e-6 * bytes) / seconds, wire, stripes };
        process.stderr.write(`${call} ${sample.goodput.toFixed(0)} Mbit/s by ${stripes} connections\n`);
        if (index >= 0) samples.push(sample);
      }
    }
    return samples;
  } finally {
    await Promise.all(children.map(stop));
  }
}

async function main(options: Options): Promise<void> {
  const missing = namespacesMissing() ?? longPipeMissing();
  if (missing !== null) throw new Error(`This benchmark can't be run here: ${missing}.`);
  const summaries: Summary[] = [];
  for (const megabits of options.megabits.split(',').map(Number)) {
    // A call takes as long on each.
    const bytes = Math.round((Number(options.size) * megabits) / 1_000) * MIB;
    const setting = { megabits, roundTripMs: Number(options.rtt), mtu: Number(options.mtu), bytes };
    summaries.push(summarize(await measure(setting, Number(options.rounds), Number(options.calls)), setting));
  }
  mkdirSync(RESULTS, { recursive: true });
  const record = { machine: describeMachine(), date: new Date().toISOString(), kernel: KERNEL, settings: summaries };
  writeFileSync(join(RESULTS, 'pipes.json'), `${JSON.stringify(record, null, 1)}\n`);
}

async function measure(setting: Setting, rounds: number, calls: number): Promise<Sample[]> {
  const { megabits, roundTripMs, mtu, bytes } = setting;
  const bytesPerSecond = (megabits * 1e6) / 8;
  const queueBytes = (bytesPerSecond * roundTripMs) / 1_000;
  const samples: Sample[] = [];
  const pipe = await LongPipe.open({ bytesPerSecond, delayMs: roundTripMs / 2, queueBytes }, mtu);
  try {
    pipe.configure(KERNEL);
    for (let round = 0; round < rounds; round++) {
      for (const both of [false, true]) {
        for (const connections of CONNECTIONS) samples.push(await measurePlain(pipe, connections, both));
      }
      process.stderr.write(`${megabits} Mbit/s, round ${round + 1}/${rounds}: plain sockets done\n`);
      samples.push(...(await measureMembers(pipe, calls, bytes)));
    }
  } finally {
    pipe.close();
  }
  return samples;
}

interface Setting {
  readonly megabits: number;
  readonly roundTripMs: number;
  readonly mtu: number;
  readonly bytes: number;
}

interface Summary {
  readonly setting: Setting;
  readonly rows: readonly (Sample & { readonly best: number })[];
}

/** Medians and the best of each side, which it prints. */
function summarize(samples: readonly Sample[], setting: Setting): Summary {
  const rows = [...new Set(samples.map(({ side }) => side))].map((side) => {
    const own = samples.filter((sample) => sample.side === side);
    const of = (figure: (sample: Sample) => number) => own.map(figure);
    const [goodput, wire] = [median(of((sample) => sample.goodput)), median(of((sample) => sample.wire))];
    return {
      side,
      goodput,
      best: Math.max(...of((sample) => sample.goodput)),
      wire,
      stripes: Math.max(...of(({ stripes }) => stripes)),
    };
  });
  const { megabits, roundTripMs, mtu, bytes } = setting;
  const head = ['side', 'Mbit/s', 'best', 'on the wire', 'of the link', 'connections'];
  const table = new Table({ head, style: { head: [], border: [] } });
  for (const { side, goodput, best, wire, stripes } of rows) {
    const share = `${((100 * goodput) / megabits).toFixed(0)} %`;
    table.push([side, goodput.toFixed(0), best.toFixed(0), wire.toFixed(0), share, String(stripes)]);
  }
  const title = `${megabits} Mbit/s, ${roundTripMs} ms there and back, MTU ${mtu}, calls of ${bytes / MIB} MiB over TLS 1.3: medians`;
  console.log(`${title}\n${table.toString()}`);
  return { setting, rows };
}

await new Command('bench:pipes')
  .description('Measures how much of a long fat pipe a link fills, beside plain sockets.')
  .option('--rounds <n>', 'turns that each side gets', '1')
  .option('--calls <n>', 'calls of each kind per turn that count', '3')
  .option('--megabits <list>', 'rates of the pipe, each way', '1000,600')
  .option('--rtt <ms>', 'round trip', '50')
  .option('--mtu <bytes>', 'of the devices at both ends', '9000')
  .option('--size <MiB>', 'of a call at 1 Gbit/s', '512')
  .action(main)
  .parseAsync();
