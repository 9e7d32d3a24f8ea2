/**
 * `npm run bench:webrtc`: what a WebRTC link of Skein's carries, beside a bare node-datachannel program with the same settings
 * in the same run. Two processes on one host, which is bound by what SCTP and DTLS cost.
 *
 *     one way      a broadcast between two peers, over one connection
 *     all-reduce   bus bandwidth at N = 2
 */
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import Table from 'cli-table3';
import { Command } from 'commander';
import { startCoordinator } from './harness/coordinator.ts';
import { describeMachine } from './harness/machine.ts';
import { deadline } from './harness/member.ts';
import { busbw, formatBytes, median } from './harness/statistics.ts';
import type { BareOrder, BareReport } from './peers/rtc-bare.ts';
import type { RtcOrder, RtcReport, RtcTask } from './peers/rtc-peer.ts';

const MIB = 1024 * 1024;
const RESULTS = fileURLToPath(new URL('../../bench/results/', import.meta.url));

/** Shares of the bare program's rate. */
const BARS = { oneWay: 0.9, allReduce: 0.8 };

const ONE_WAY_BYTES: number = 64 * MIB;
const ALL_REDUCE_BYTES: number = 16 * MIB;
const WORLD_SIZE = 2;

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
    const ends = [fork(script('rtc-bare'), ['sender']), fork(script('rtc-bare'), ['receiver'])] as const;
    const signals = (from: ChildProcess, to: ChildProcess) =>
      from.on('message', (report: BareReport) => {
        if (report.type === 'description' || report.type === 'candidate') to.send(report);
      });
    signals(ends[0], ends[1]);
    signals(ends[1], ends[0]);
    await deadline('the bare program connects', said<BareReport>(ends[0], 'ready'));
    return new Bare(ends);
  }

  private constructor(ends: readonly [ChildProcess, ChildProcess]) {
    this.#ends = ends;
  }

  /** Seconds. */
  async transfer(bytes: number): Promise<number> {
    const done = said<Extract<BareReport, { type: 'done' }>>(this.#ends[0], 'done');
    this.#ends[0].send({ type: 'send', bytes } satisfies BareOrder);
    return (await deadline('a bare transfer', done)).seconds;
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

interface Rates {
  readonly bare: number[];
  readonly oneWay: number[];
  readonly allReduce: number[];
}

async function measure(rounds: number, stripes: number): Promise<Rates> {
  const { child: coordinator, address } = await startCoordinator({ lostAfterMs: 20_000 });
  const bare = await Bare.start();
  const one = await Pair.start(address, 1);
  const { child: other, address: elsewhere } = await startCoordinator({ lostAfterMs: 20_000 });
  const pair = await Pair.start(elsewhere, stripes);
  const rates: Rates = { bare: [], oneWay: [], allReduce: [] };
  try {
    // The first of each is thrown away: buffers grow, and code is compiled.
    for (let round = -1; round < rounds; round++) {
      const bareRate = ONE_WAY_BYTES / (await bare.transfer(ONE_WAY_BYTES));
      const oneWay = ONE_WAY_BYTES / (await one.run('broadcast', ONE_WAY_BYTES));
      const allReduce = busbw(ALL_REDUCE_BYTES, await pair.run('allReduce', ALL_REDUCE_BYTES), WORLD_SIZE);
      if (round < 0) continue;
      rates.bare.push(bareRate);
      rates.oneWay.push(oneWay);
      rates.allReduce.push(allReduce);
    }
  } finally {
    for (const side of [bare, one, pair]) side.close();
    for (const child of [coordinator, other]) child.kill('SIGKILL');
  }
  return rates;
}

function verdict(ratio: number, bar: number): string {
  return ratio >= bar ? `≥ ${bar}: met` : `≥ ${bar}: NOT MET`;
}

async function main(options: { readonly rounds: string; readonly stripes: string }): Promise<void> {
  const rates = await measure(Number(options.rounds), Number(options.stripes));
  const ratio = (name: 'oneWay' | 'allReduce') => median(rates[name].map((rate, round) => rate / rates.bare[round]!));
  const ratios = { oneWay: ratio('oneWay'), allReduce: ratio('allReduce') };
  const shown = (of: readonly number[]) => (median(of) / 1e6).toFixed(1);
  const table = new Table({ head: ['', 'MB/s', '× bare', ''], style: { head: [], border: [] } });
  table.push(['bare, one way', shown(rates.bare), '1.00', '']);
  for (const [name, label] of [
    ['oneWay', `Skein, one way, ${formatBytes(ONE_WAY_BYTES)}`],
    ['allReduce', `Skein, all-reduce of ${formatBytes(ALL_REDUCE_BYTES)}, N = ${WORLD_SIZE}, busbw`],
  ] as const) {
    table.push([label, shown(rates[name]), ratios[name].toFixed(2), verdict(ratios[name], BARS[name])]);
  }
  console.log(table.toString());
  mkdirSync(RESULTS, { recursive: true });
  const record = { machine: describeMachine(), date: new Date().toISOString(), bars: BARS, ratios, rates };
  writeFileSync(join(RESULTS, 'webrtc.json'), `${JSON.stringify(record, null, 1)}\n`);
}

await new Command('bench:webrtc')
  .description('What a WebRTC link carries, beside a bare node-datachannel program in the same run.')
  .option('--rounds <n>', 'of which the medians are told', '7')
  .option('--stripes <n>', 'of the link that is all-reduced over', '2')
  .action(main)
  .parseAsync();
