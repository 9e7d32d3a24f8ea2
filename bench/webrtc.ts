/**
 * `npm run bench:webrtc`: what a WebRTC link of Skein's carries, beside a bare node-datachannel program with the same settings
 * in the same run. Two processes on one host, which is bound by what SCTP and DTLS cost.
 *
 *     one way      a broadcast between two peers, over one connection
 *     all-reduce   bus bandwidth at N = 2: both send as many bytes as that, at once
 *     set-up       how long it takes until a channel is open
 *
 * On two cores a bare transfer one way takes nearly all of both, so the same both ways is what an all-reduce is measured by.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import Table from 'cli-table3';
import { Command } from 'commander';
import { busbw, formatBytes, median } from '../src/benchmark/statistics.ts';
import { startCoordinator } from './harness/coordinator.ts';
import { describeMachine } from './harness/machine.ts';
import { deadline } from './harness/member.ts';
import { measureSetups } from './harness/rtc-setups.ts';
import type { BareOrder, BareReport } from './peers/rtc-bare.ts';
import type { RtcOrder, RtcReport, RtcTask } from './peers/rtc-peer.ts';

const MIB = 1024 * 1024;
const RESULTS = fileURLToPath(new URL('../../bench/results/', import.meta.url));

/** Shares of the bare program's rate: one way, and when both of its ends send. */
const BARS = { oneWay: 0.9, allReduce: 0.8 };

const ONE_WAY_BYTES: number = 64 * MIB;
const ALL_REDUCE_BYTES: number = 16 * MIB;
const WORLD_SIZE = 2;
const SETUPS = 60;

function script(name: string): string {
  return fileURLToPath(new URL(`./peers/${name}.js`, import.meta.url));
}

async function said<R extends { readonly type: string }>(child: ChildProcess, type: string): Promise<R> {
  for (;;) {
    const [report] = (await once(child, 'message')) as [R];
    if (report.type === type) return report;
  }
}

/** Two ends that do nothing but send and receive. */
class Bare {
  readonly #ends: readonly [ChildProcess, ChildProcess];

  static async start(): Promise<Bare> {
    const ends = [fork(script('rtc-bare'), ['dialler']), fork(script('rtc-bare'), ['dialled'])] as const;
    const signals = (from: ChildProcess, to: ChildProcess) =>
      from.on('message', (report: BareReport) => {
        if (report.type === 'description' || report.type === 'candidate') to.send(report);
      });
    signals(ends[0], ends[1]);
    signals(ends[1], ends[0]);
    await deadline('the bare program connects', Promise.all(ends.map((end) => said<BareReport>(end, 'ready'))));
    return new Bare(ends);
  }

  private constructor(ends: readonly [ChildProcess, ChildProcess]) {
    this.#ends = ends;
  }

  /** `bytes` from the first of the ends, or from each. */
  async transfer(bytes: number, both: boolean): Promise<{ seconds: number; cores: number }> {
    const senders = both ? this.#ends : this.#ends.slice(0, 1);
    const done = senders.map((end) => said<Extract<BareReport, { type: 'done' }>>(end, 'done'));
    for (const end of senders) end.send({ type: 'send', bytes } satisfies BareOrder);
    const reports = await deadline('a bare transfer', Promise.all(done));
    const seconds = Math.max(...reports.map((report) => report.seconds));
    // Sending and receiving cost about the same, so who only sends takes half of all.
    const cpuSeconds = reports.reduce((sum, report) => sum + report.cpuSeconds, 0) * (both ? 1 : 2);
    return { seconds, cores: cpuSeconds / seconds };
  }

  close(): void {
    for (const end of this.#ends) end.kill('SIGKILL');
  }
}

/** Two peers. */
class Pair {
  readonly #peers: readonly ChildProcess[];

  static async start(address: string, stripes: number): Promise<Pair> {
    const task: RtcTask = { address, stripes };
    const peers = Array.from({ length: WORLD_SIZE }, () => fork(script('rtc-peer'), [JSON.stringify(task)]));
    await deadline('the peers join', Promise.all(peers.map((peer) => said<RtcReport>(peer, 'ready'))));
    return new Pair(peers);
  }

  private constructor(peers: readonly ChildProcess[]) {
    this.#peers = peers;
  }

  /** Seconds, on the slower of the two. */
  async run(work: RtcOrder['work'], bytes: number): Promise<number> {
    const done = this.#peers.map((peer) => said<Extract<RtcReport, { type: 'done' }>>(peer, 'done'));
    for (const peer of this.#peers) peer.send({ work, bytes } satisfies RtcOrder);
    const reports = await deadline(work, Promise.all(done));
    return Math.max(...reports.map(({ seconds }) => seconds));
  }

  close(): void {
    for (const peer of this.#peers) peer.kill('SIGKILL');
  }
}

type Side = 'bareOneWay' | 'bareBothWays' | 'oneWay' | 'allReduce';

interface Measured {
  /** Bytes a second and direction, by round. */
  readonly rates: Readonly<Record<Side, number[]>>;
  /** That both ends of the bare program keep busy. */
  readonly cores: { readonly bareOneWay: number[]; readonly bareBothWays: number[] };
}

async function measure(rounds: number, stripes: number): Promise<Measured> {
  const { child: coordinator, address } = await startCoordinator({ lostAfterMs: 20_000 });
  const bare = await Bare.start();
  const one = await Pair.start(address, 1);
  const { child: other, address: elsewhere } = await startCoordinator({ lostAfterMs: 20_000 });
  const pair = await Pair.start(elsewhere, stripes);
  const rates: Measured['rates'] = { bareOneWay: [], bareBothWays: [], oneWay: [], allReduce: [] };
  const cores: Measured['cores'] = { bareOneWay: [], bareBothWays: [] };
  try {
    // The first of each is thrown away: buffers grow, and code is compiled.
    for (let round = -1; round < rounds; round++) {
      const there = await bare.transfer(ONE_WAY_BYTES, false);
      const both = await bare.transfer(ONE_WAY_BYTES / 2, true);
      const oneWay = ONE_WAY_BYTES / (await one.run('broadcast', ONE_WAY_BYTES));
      const allReduce = busbw(ALL_REDUCE_BYTES, await pair.run('allReduce', ALL_REDUCE_BYTES), WORLD_SIZE);
      if (round < 0) continue;
      rates.bareOneWay.push(ONE_WAY_BYTES / there.seconds);
      rates.bareBothWays.push(ONE_WAY_BYTES / 2 / both.seconds);
      rates.oneWay.push(oneWay);
      rates.allReduce.push(allReduce);
      cores.bareOneWay.push(there.cores);
      cores.bareBothWays.push(both.cores);
    }
  } finally {
    for (const side of [bare, one, pair]) side.close();
    for (const child of [coordinator, other]) child.kill('SIGKILL');
  }
  return { rates, cores };
}

function verdict(ratio: number, bar: number): string {
  return ratio >= bar ? `≥ ${bar}: met` : `≥ ${bar}: NOT MET`;
}

async function main(options: { readonly rounds: string; readonly stripes: string }): Promise<void> {
  const { rates, cores } = await measure(Number(options.rounds), Number(options.stripes));
  const setups = await measureSetups(SETUPS);
  const ratio = (of: Side, to: Side) => median(rates[of].map((rate, round) => rate / rates[to][round]!));
  const ratios = {
    oneWay: ratio('oneWay', 'bareOneWay'),
    allReduce: ratio('allReduce', 'bareBothWays'),
    allReduceToOneWay: ratio('allReduce', 'bareOneWay'),
    bareBothWays: ratio('bareBothWays', 'bareOneWay'),
  };
  const shown = (side: Side) => (median(rates[side]) / 1e6).toFixed(1);
  const table = new Table({
    head: ['', 'MB/s and direction', '× bare one way', '× bare both ways', 'cores', ''],
    style: { head: [], border: [] },
  });
  const inCores = (of: readonly number[]) => median(of).toFixed(2);
  table.push(['bare, one way', shown('bareOneWay'), '1.00', '', inCores(cores.bareOneWay), '']);
  table.push([
    'bare, both ways',
    ...[shown('bareBothWays'), ratios.bareBothWays.toFixed(2), '1.00', inCores(cores.bareBothWays), ''],
  ]);
  table.push([
    `Skein, one way, ${formatBytes(ONE_WAY_BYTES)}`,
    ...[shown('oneWay'), ratios.oneWay.toFixed(2), '', '', verdict(ratios.oneWay, BARS.oneWay)],
  ]);
  table.push([
    `Skein, all-reduce of ${formatBytes(ALL_REDUCE_BYTES)}, N = ${WORLD_SIZE}, busbw`,
    ...[shown('allReduce'), ratios.allReduceToOneWay.toFixed(2), ratios.allReduce.toFixed(2), ''],
    verdict(ratios.allReduce, BARS.allReduce),
  ]);
  console.log(table.toString());
  const inMs = new Table({
    head: [`set-up (ms), of ${SETUPS}`, 'median', 'nine of ten', 'longest'],
    style: { head: [], border: [] },
  });
  for (const side of ['bare', 'skein'] as const) {
    const taken = setups[side];
    const sorted = taken.toSorted((a, b) => a - b);
    inMs.push([side, ...[median(taken), sorted[Math.floor(SETUPS * 0.9)]!, sorted.at(-1)!].map((ms) => ms.toFixed(1))]);
  }
  console.log(inMs.toString());
  mkdirSync(RESULTS, { recursive: true });
  const record = {
    machine: describeMachine(),
    date: new Date().toISOString(),
    bars: BARS,
    ratios,
    rates,
    cores,
    setups,
  };
  writeFileSync(join(RESULTS, 'webrtc.json'), `${JSON.stringify(record, null, 1)}\n`);
}

await new Command('bench:webrtc')
  .description('What a WebRTC link carries, beside a bare node-datachannel program in the same run.')
  .option('--rounds <n>', 'of which the medians are told', '7')
  .option('--stripes <n>', 'of the link that is all-reduced over', '2')
  .action(main)
  .parseAsync();
