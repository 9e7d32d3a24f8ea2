/**
 * `npm run soak -- --minutes N`: the stress scenarios of PCCL (arXiv 2505.14065), with real processes. Peers are killed and
 * started again at random every 0.5 to 1 s, while all others all-reduce and check every element of every result.
 *
 *     a   one all-reduce at a time
 *     b   many at once under different tags, still open while boundaries are passed
 *
 * On a machine of few cores, most of what a restart costs is not the loss of a peer but the start of its successor, whose
 * code is read and compiled while it already takes part. So churn is compared with three phases:
 *
 *     calm      nobody starts or ends
 *     started   as calm, while processes that have no part in the run start, load Skein and are killed at the same rhythm
 *     planned   as churn, but who is to go is asked to, leaves in good order, and is started again: the calm rate with the
 *               restarts' own time taken off
 */
import { type ChildProcess, fork } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import Table from 'cli-table3';
import { Command } from 'commander';
import { Draw } from '../src/chaos/draw.ts';
import { Agreement } from './harness/agreement.ts';
import { startCoordinator } from './harness/coordinator.ts';
import { describeMachine } from './harness/machine.ts';
import { EVICTED, type SoakMessage, type SoakOrder, type SoakTask } from './harness/soak-messages.ts';

const PEER = fileURLToPath(new URL('./peers/soak-peer.js', import.meta.url));

const RESULTS = fileURLToPath(new URL('../../bench/results/', import.meta.url));

/** Of the rate with planned restarts, churn must reach so much. */
const LEAST_SHARE = 0.9;

/** Nobody passes a boundary for so long: they hang (ms). */
const HANG_MS = 20_000;

/** Members below which nobody is killed. */
const FEWEST = 2;

/** Churn and planned restarts take turns, so that a machine whose speed drifts favours neither (s). */
const CHURN_S = 45;
const PLANNED_S = 15;

/** Waits for peers to start or to end are no longer than this (ms). */
const DEADLINE_MS = 60_000;

/** Boundaries from now at which all end together: none has passed so many by the time it is told. */
const BOUNDARIES_AHEAD = 40;

interface Options {
  readonly minutes: string;
  readonly seed: string;
  readonly peers: string;
  readonly scenario: string;
}

interface Scenario {
  readonly name: string;
  readonly tags: number;
  readonly count: number;
  readonly ahead: number;
}

const SCENARIOS: readonly Scenario[] = [
  { name: 'a', tags: 1, count: 256 * 1024, ahead: 0 },
  { name: 'b', tags: 8, count: 64 * 1024, ahead: 3 },
];

interface Peer {
  readonly child: ChildProcess;
  peerId: string;
  /** In the run. */
  member: boolean;
  /** We have killed it, or asked it to leave. */
  dismissed: boolean;
}

interface Tally {
  kills: number;
  evicted: number;
  results: number;
  /** Calls that failed because the kills had left too few members. */
  lost: number;
  readonly wrong: string[];
}

const sleep = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

class Soak {
  readonly tally: Tally = { kills: 0, evicted: 0, results: 0, lost: 0, wrong: [] };
  /** Highest that anybody has passed. */
  boundary = 0;
  readonly #peers: Set<Peer> = new Set();
  readonly #agreement: Agreement = new Agreement();
  readonly #task: Omit<SoakTask, 'startWorldSize'>;
  readonly #draw: Draw;
  #lastStep: number = Date.now();
  #ending = false;

  constructor(task: Omit<SoakTask, 'startWorldSize'>, draw: Draw) {
    this.#task = task;
    this.#draw = draw;
  }

  /** @throws Error when they do not all come in */
  async start(count: number): Promise<void> {
    for (let index = 0; index < count; index++) this.#add(count);
    const deadline = Date.now() + DEADLINE_MS;
    while ([...this.#peers].some((peer) => !peer.member)) {
      if (Date.now() > deadline) throw new Error(`not all peers came in within ${DEADLINE_MS} ms`);
      await sleep(50);
    }
    this.#lastStep = Date.now();
  }

  #add(startWorldSize: number): void {
    const child = fork(PEER, [JSON.stringify({ ...this.#task, startWorldSize })]);
    const peer: Peer = { child, peerId: '', member: false, dismissed: false };
    this.#peers.add(peer);
    child.on('message', (message: SoakMessage) => this.#onMessage(peer, message));
    child.on('exit', (code, signal) => {
      this.#peers.delete(peer);
      // A machine that is too busy may keep a peer from its heartbeats: that is no defect, but is told.
      if (!peer.dismissed && code === EVICTED) this.tally.evicted += 1;
      else if (!peer.dismissed && !(this.#ending && code === 0))
        this.#note(`${peer.peerId === '' ? 'a newcomer' : peer.peerId} ended by itself with ${signal ?? code}`);
      if (!this.#ending) this.#add(1);
    });
  }

  #onMessage(peer: Peer, message: SoakMessage): void {
    switch (message.type) {
      case 'joined':
        peer.peerId = message.peerId;
        peer.member = true;
        break;
      case 'step':
        this.#lastStep = Date.now();
        this.boundary = Math.max(this.boundary, message.boundary);
        this.tally.results += message.results.length;
        this.tally.lost += message.lost;
        for (const result of message.results) this.#note(this.#agreement.add(peer.peerId, result));
        break;
      case 'wrong':
        this.#note(`${peer.peerId}: ${message.text}`);
        break;
      case 'status':
        process.stderr.write(`${peer.peerId}: ${JSON.stringify(message.status)}\n`);
        break;
      default:
        message satisfies never;
    }
  }

  #note(wrong: string | null): void {
    if (wrong === null) return;
    this.tally.wrong.push(wrong);
    process.stderr.write(`WRONG ${wrong}\n`);
  }

  /** Boundaries per second during `seconds`. `disturb` is called every 0.5 to 1 s. */
  async rate(seconds: number, disturb: () => void): Promise<number> {
    const [from, startedAt] = [this.boundary, performance.now()];
    const end = startedAt + seconds * 1_000;
    while (performance.now() < end && this.tally.wrong.length === 0) {
      await sleep(Math.min(500 + this.#draw.next() * 500, Math.max(0, end - performance.now())));
      if (performance.now() < end) disturb();
      if (Date.now() - this.#lastStep > HANG_MS) await this.#hang();
    }
    return (this.boundary - from) / ((performance.now() - startedAt) / 1_000);
  }

  async #hang(): Promise<void> {
    for (const { child } of this.#peers) child.send('status' satisfies SoakOrder);
    await sleep(2_000);
    throw new Error(`nobody has passed a boundary for ${HANG_MS} ms: they hang`);
  }

  /** One of the members is killed; it is started again. */
  killOne(): void {
    if (this.#dismissOne()?.kill('SIGKILL') === true) this.tally.kills += 1;
  }

  /** One of the members leaves in good order; it is started again. */
  leaveOne(): void {
    this.#dismissOne()?.send('leave' satisfies SoakOrder);
  }

  /** Null when there are too few. */
  #dismissOne(): ChildProcess | null {
    const members = [...this.#peers].filter((peer) => peer.member);
    if (members.length <= FEWEST) return null;
    const victim = this.#draw.pick(members);
    victim.dismissed = true;
    victim.member = false;
    return victim.child;
  }

  /** Ends in good order, within a bound. */
  async end(): Promise<void> {
    this.#ending = true;
    const order: SoakOrder = { end: this.boundary + BOUNDARIES_AHEAD };
    for (const { child } of this.#peers) child.send(order);
    const deadline = Date.now() + DEADLINE_MS;
    while (this.#peers.size > 0 && Date.now() < deadline) await sleep(50);
    if (this.#peers.size > 0) this.#note(`${this.#peers.size} peers did not end when they were asked to`);
    this.kill();
  }

  kill(): void {
    this.#ending = true;
    for (const peer of this.#peers) {
      peer.dismissed = true;
      peer.child.kill('SIGKILL');
    }
  }
}

/** A process as costly to start as a peer, which has no part in the run, and dies as a killed peer does. */
function startBystander(bystanders: Set<ChildProcess>): void {
  for (const old of bystanders) {
    old.kill('SIGKILL');
    bystanders.delete(old);
  }
  const alone: SoakTask = { address: 'tcp://127.0.0.1:9', startWorldSize: 1, tags: 1, count: 1, ahead: 0 };
  bystanders.add(fork(PEER, [JSON.stringify(alone)], { stdio: 'ignore' }));
}

/** A rate over times that do not follow one another. */
class Pace {
  #seconds = 0;
  #steps = 0;

  add(seconds: number, rate: number): void {
    this.#seconds += seconds;
    this.#steps += seconds * rate;
  }

  get rate(): number {
    return this.#steps / this.#seconds;
  }
}

interface Result {
  readonly scenario: string;
  /** Boundaries per second. */
  readonly rates: { readonly calm: number; readonly churn: number; readonly started: number; readonly planned: number };
  readonly tally: Tally;
}

async function run(scenario: Scenario, minutes: number, peers: number, draw: Draw): Promise<Result> {
  const { child: coordinator, address } = await startCoordinator({});
  const { tags, count, ahead } = scenario;
  const soak = new Soak({ address, tags, count, ahead }, draw);
  const bystanders = new Set<ChildProcess>();
  const still = Math.min(20, Math.max(3, minutes * 12));
  try {
    await soak.start(peers);
    await soak.rate(still / 2, () => {}); // until the compilers are done
    const calm = await soak.rate(still, () => {});
    const [killed, left] = [new Pace(), new Pace()];
    for (let seconds = minutes * 60; seconds > 0; seconds -= CHURN_S) {
      const share = Math.min(CHURN_S, seconds);
      killed.add(share, await soak.rate(share, () => soak.killOne()));
      left.add(PLANNED_S, await soak.rate(PLANNED_S, () => soak.leaveOne()));
    }
    const [churn, planned] = [killed.rate, left.rate];
    await soak.rate(still / 2, () => {}); // until the last ones are back
    const started = await soak.rate(still, () => startBystander(bystanders));
    await soak.end();
    return { scenario: scenario.name, rates: { calm, churn, started, planned }, tally: soak.tally };
  } finally {
    soak.kill();
    for (const bystander of bystanders) bystander.kill('SIGKILL');
    coordinator.kill('SIGKILL');
  }
}

async function main(options: Options): Promise<void> {
  const seed = Number(options.seed);
  const draw = new Draw(seed);
  const [minutes, peers] = [Number(options.minutes), Number(options.peers)];
  console.log(`seed ${seed}, ${peers} peers, ${minutes} minutes of churn in each scenario`);
  const results: Result[] = [];
  for (const scenario of SCENARIOS) {
    if (options.scenario !== 'both' && options.scenario !== scenario.name) continue;
    results.push(await run(scenario, minutes, peers, draw));
  }
  show(results);
  mkdirSync(RESULTS, { recursive: true });
  const setting = { seed, peers, minutes, leastShare: LEAST_SHARE };
  const record = { machine: describeMachine(), date: new Date().toISOString(), ...setting, scenarios: results };
  writeFileSync(join(RESULTS, 'soak.json'), `${JSON.stringify(record, null, 1)}\n`);
  if (results.some(({ tally }) => tally.wrong.length > 0)) process.exitCode = 1;
}

function percent(share: number): string {
  return `${(share * 100).toFixed(0)} %`;
}

function show(results: readonly Result[]): void {
  const table = new Table({
    head: [
      '',
      'kills',
      'evicted',
      'results',
      'lost',
      'wrong',
      'steps/s calm',
      'started',
      'planned',
      'churn',
      'churn / planned',
      '',
    ],
    style: { head: [], border: [] },
  });
  for (const { scenario, rates, tally } of results) {
    const { calm, churn, started, planned } = rates;
    const { kills, evicted, results: checked, lost, wrong } = tally;
    // Without any step there is nothing to compare with.
    const isMet = planned > 0 && churn / planned >= LEAST_SHARE;
    const shown = [calm, started, planned, churn].map((rate) => rate.toFixed(1));
    table.push([
      scenario,
      kills,
      evicted,
      checked,
      lost,
      wrong.length,
      ...shown,
      percent(churn / planned),
      isMet ? 'met' : 'NOT MET',
    ]);
    process.stderr.write(
      `${scenario}: churn at ${percent(churn / calm)} of the calm rate, and at ${percent(churn / started)} of started\n`,
    );
  }
  console.log(table.toString());
  console.log(
    'started: as calm, while processes without a part in the run start and are killed at the rhythm of the churn.',
  );
  console.log('planned: as churn, but who goes leaves in good order, and is started again.');
  console.log('lost: calls that failed because the kills had left too few of the members that began them.');
  console.log(`met: churn at ${percent(LEAST_SHARE)} of planned or more.`);
  const wrong = results.reduce((sum, { tally }) => sum + tally.wrong.length, 0);
  console.log(wrong === 0 ? 'no wrong result, nothing hung' : `${wrong} wrong`);
}

await new Command('soak')
  .description(
    'Kills and restarts peers at random while the others all-reduce, and checks every element of every result.',
  )
  .option('--minutes <n>', 'of churn, in each scenario', '10')
  .option('--seed <n>', 'who is killed, and when', String(Date.now() % 1_000_000))
  .option('--peers <n>', 'how many', '4')
  .option('--scenario <name>', 'a: one all-reduce at a time; b: many at once, across boundaries; both', 'both')
  .action(main)
  .parseAsync();
