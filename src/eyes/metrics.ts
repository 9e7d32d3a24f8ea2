/**
 * A coordinator's figures, and those of its peers, as Prometheus reads them. Each answer is made anew from what is known then, in a
 * registry of its own, so that nothing is kept and no other user of prom-client in the process is disturbed.
 *
 * The number of series is bounded: each run has some dozens, and only so many runs are told of one by one; of peers so many of each run
 * as `peerSeries` says, while sums over sites and runs count them all.
 */
import { Counter, Gauge, Histogram, Registry } from 'prom-client';
import type { CoordinatorState } from './coordinator-state.ts';
import { LATENCY_BOUNDS } from './latency.ts';
import { LOSS_CAUSES } from './losses.ts';
import type { MemberState, RunState } from './run-state.ts';
import type { CallTotals } from './run-watch.ts';

interface RunFigures {
  readonly state: RunState;
  readonly calls: readonly CallTotals[];
}

/** The process: seconds and bytes. */
interface ProcessFigures {
  readonly heapBytes: number;
  readonly residentBytes: number;
  readonly loopLag: { readonly p50: number; readonly p99: number; readonly max: number };
  /** Who listens to the live feed. */
  readonly listeners: number;
}

export interface MetricsInput {
  readonly coordinator: CoordinatorState;
  readonly process: ProcessFigures;
  /** All that there are, also those that are not told of one by one. */
  readonly runCount: number;
  readonly runs: readonly RunFigures[];
  /** So many members of each run have series of their own. */
  readonly peerSeries: number;
}

/** Runs that are told of one by one, and sites of a run. */
export const MAX_METRIC_RUNS = 64;
const MAX_SITES = 64;

/** What sites beyond those are called. */
const OTHER_SITES = '(other sites)';

type Labels = Readonly<Record<string, string | number>>;

/** Families of series, made when the first of them is set. */
class Families {
  readonly registry: Registry = new Registry();
  readonly #gauges: Map<string, Gauge> = new Map();
  readonly #counters: Map<string, Counter> = new Map();

  gauge(name: string, help: string, labels: Labels, value: number | null): void {
    if (value === null) return;
    let gauge = this.#gauges.get(name);
    if (gauge === undefined) {
      gauge = new Gauge({ name, help, labelNames: Object.keys(labels), registers: [this.registry] });
      this.#gauges.set(name, gauge);
    }
    gauge.set(labels, value);
  }

  counter(name: string, help: string, labels: Labels, value: number): void {
    let counter = this.#counters.get(name);
    if (counter === undefined) {
      counter = new Counter({ name, help, labelNames: Object.keys(labels), registers: [this.registry] });
      this.#counters.set(name, counter);
    }
    counter.inc(labels, value);
  }
}

interface CallSeconds {
  readonly labels: { readonly run: string; readonly kind: string };
  readonly calls: CallTotals;
}

interface Sample {
  readonly metricName: string;
  readonly labels: Readonly<Record<string, string | number>>;
  readonly value: number;
}

/** A histogram that was counted elsewhere: prom-client's own counts one observation at a time. */
class CountedHistogram extends Histogram<'run' | 'kind'> {
  readonly #name: string;
  readonly #help: string;
  readonly #all: readonly CallSeconds[];

  constructor(name: string, help: string, all: readonly CallSeconds[], registry: Registry) {
    super({ name, help, labelNames: ['run', 'kind'], registers: [registry] });
    this.#name = name;
    this.#help = help;
    this.#all = all;
  }

  /** By this a registry, and `get`, ask a metric for what it has. */
  async getForPromString(): Promise<object> {
    const values = this.#all.flatMap((one) => this.#valuesOf(one));
    return { name: this.#name, help: this.#help, type: 'histogram', aggregator: 'sum', values };
  }

  #valuesOf({ labels, calls }: CallSeconds): Sample[] {
    let count = 0;
    const buckets = LATENCY_BOUNDS.map((bound, bucket) => {
      count += calls.buckets[bucket] ?? 0;
      return { metricName: `${this.#name}_bucket`, labels: { ...labels, le: bound }, value: count };
    });
    return [
      ...buckets,
      { metricName: `${this.#name}_bucket`, labels: { ...labels, le: '+Inf' }, value: calls.done },
      { metricName: `${this.#name}_sum`, labels, value: calls.seconds },
      { metricName: `${this.#name}_count`, labels, value: calls.done },
    ];
  }
}

function addCoordinator(families: Families, { coordinator, process, runCount, runs }: MetricsInput): void {
  const gauge = (name: string, help: string, value: number) =>
    families.gauge(`skein_coordinator_${name}`, help, {}, value);
  gauge('leads', 'Whether peers may join this coordinator.', Number(coordinator.leads));
  gauge('term', 'Term in which it leads, or led last.', coordinator.term);
  gauge('start_time_seconds', 'When it was started, in seconds since 1970.', coordinator.startedAt / 1_000);
  gauge(
    'connections',
    'Control connections, also of those that have not proved who they are.',
    coordinator.connections,
  );
  gauge('runs', 'Runs that it knows, also those that have no series here.', runCount);
  gauge('runs_with_series', 'Runs that have series here.', runs.length);
  gauge('heap_bytes', 'Memory in use by JavaScript.', process.heapBytes);
  gauge('resident_bytes', 'Memory of the whole process.', process.residentBytes);
  gauge('listeners', 'Who listens to the live feed.', process.listeners);
  for (const [quantile, seconds] of Object.entries({
    0.5: process.loopLag.p50,
    0.99: process.loopLag.p99,
    1: process.loopLag.max,
  }))
    families.gauge('skein_coordinator_event_loop_lag_seconds', 'How late its timers are.', { quantile }, seconds);
  for (const [direction, count] of Object.entries({
    received: coordinator.receivedMessages,
    sent: coordinator.sentMessages,
  }))
    families.counter('skein_coordinator_messages_total', 'Control messages.', { direction }, count);
}

function addRun(families: Families, { state, calls }: RunFigures): void {
  const { run, totals } = state;
  const gauge = (name: string, help: string, value: number) =>
    families.gauge(`skein_run_${name}`, help, { run }, value);
  const counter = (name: string, help: string, value: number) =>
    families.counter(`skein_run_${name}_total`, help, { run }, value);
  gauge('members', 'Members of the present view.', state.members.length);
  gauge('joining', 'Peers that are not members yet.', state.joining.length);
  gauge('term', 'Term of the coordinator that leads the run.', state.term);
  gauge('epoch', 'Present epoch.', state.epoch);
  gauge('generation', 'Epoch in which the present view was made.', state.generation);
  gauge('recovering', 'Whether the coordinator waits for the reports of members.', Number(state.recovering));
  gauge('open_collectives', 'Collectives that some members hold, and not yet all.', state.openCollectives);
  gauge('cuts', 'Pairs of members that can not reach one another.', state.cuts.length);
  gauge('slow_members', 'Members that hold the others up.', state.members.filter(({ slow }) => slow).length);
  counter('joins', 'Peers that came.', totals.joins);
  counter('epochs', 'Epochs that were begun.', totals.epochs);
  counter('boundaries', 'Boundaries that were decided.', totals.boundary);
  counter('collectives_committed', 'Collectives of which all members hold the result.', totals.committed);
  counter('collectives_aborted', 'Collectives that failed for all members.', totals.aborted);
  for (const cause of LOSS_CAUSES)
    families.counter('skein_run_losses_total', 'Peers that went, by cause.', { run, cause }, totals.losses[cause] ?? 0);
  for (const { kind, failed, done, retries, sentBytes, receivedBytes } of calls) {
    for (const [outcome, count] of Object.entries({ done, failed }))
      families.counter('skein_calls_total', 'Calls that ended, on all peers.', { run, kind, outcome }, count);
    families.counter('skein_call_retries_total', 'Attempts that were begun anew.', { run, kind }, retries);
    for (const [direction, bytes] of Object.entries({ sent: sentBytes, received: receivedBytes }))
      families.counter(
        'skein_call_bytes_total',
        'Data with headers, of calls that ended well.',
        { run, kind, direction },
        bytes,
      );
  }
}

/** What is told of one peer, or of all of a site together. */
const PRESENT: readonly (readonly [string, string, (member: MemberState) => number])[] = [
  ['sent_bytes_per_second', 'Sent to other peers lately.', ({ sentPerSecond }) => sentPerSecond],
  ['received_bytes_per_second', 'Received from other peers lately.', ({ receivedPerSecond }) => receivedPerSecond],
  ['queued_bytes', 'Queued for other peers.', ({ queuedBytes }) => queuedBytes],
  ['open_calls', 'Calls that have not ended.', ({ open }) => open],
];

function addSites(families: Families, { run, members }: RunState): void {
  const sites = new Map<string, MemberState[]>();
  for (const member of members) {
    const site = sites.has(member.site) || sites.size < MAX_SITES ? member.site : OTHER_SITES;
    const there = sites.get(site);
    if (there === undefined) sites.set(site, [member]);
    else there.push(member);
  }
  for (const [site, there] of sites) {
    families.gauge('skein_site_members', 'Members of a site.', { run, site }, there.length);
    for (const [name, help, of] of PRESENT)
      families.gauge(
        `skein_site_${name}`,
        help,
        { run, site },
        there.reduce((sum, member) => sum + of(member), 0),
      );
  }
}

function addPeers(families: Families, { run, members, links }: RunState, peerSeries: number): void {
  const shown = members.slice(0, peerSeries);
  families.gauge(
    'skein_run_members_without_series',
    'Members beyond those that have series here.',
    { run },
    members.length - shown.length,
  );
  for (const member of shown) {
    const labels = { run, peer: member.peerId, site: member.site, rank: member.rank };
    const gauge = (name: string, help: string, value: number | null) =>
      families.gauge(`skein_peer_${name}`, help, labels, value);
    for (const [name, help, of] of PRESENT) gauge(name, help, of(member));
    gauge('lag_seconds', 'How long others waited for it in the last second.', member.lagMs / 1_000);
    gauge('slow', 'Whether it was found to hold the others up.', Number(member.slow));
    gauge('steps', 'Boundaries that it has passed.', member.steps);
    const roundTrip = member.roundTripMs === null ? null : member.roundTripMs / 1_000;
    gauge('round_trip_seconds', 'To the coordinator and back, as it says.', roundTrip);
    for (const [outcome, count] of Object.entries({ done: member.calls, failed: member.failed }))
      families.counter('skein_peer_calls_total', 'Calls that ended.', { ...labels, outcome }, count);
    for (const [direction, bytes] of Object.entries({ sent: member.sentBytes, received: member.receivedBytes }))
      families.counter(
        'skein_peer_call_bytes_total',
        'Data with headers, of calls that ended well.',
        { ...labels, direction },
        bytes,
      );
  }
  const isShown = new Set(shown.map(({ peerId }) => peerId));
  // Each peer is on two links of the ring; the others that are told of carry something.
  const told = links.filter(({ from, to }) => isShown.has(from) && isShown.has(to)).slice(0, 4 * peerSeries);
  for (const { from, to, path, sentPerSecond, bytesPerSecond, delayMs } of told) {
    const labels = { run, from, to, path: path ?? '' };
    const gauge = (name: string, help: string, value: number | null) =>
      families.gauge(`skein_link_${name}`, help, labels, value);
    gauge('sent_bytes_per_second', 'What goes there at the moment.', sentPerSecond);
    gauge('capacity_bytes_per_second', 'What it was last measured to carry.', bytesPerSecond);
    gauge('delay_seconds', 'Half of a round trip.', delayMs === null ? null : delayMs / 1_000);
  }
}

/** The text that Prometheus reads, in its format 0.0.4. */
export function metricsText(input: MetricsInput): Promise<string> {
  const families = new Families();
  addCoordinator(families, input);
  for (const figures of input.runs) {
    addRun(families, figures);
    addSites(families, figures.state);
    addPeers(families, figures.state, input.peerSeries);
  }
  const seconds = input.runs.flatMap(({ state: { run }, calls }) =>
    calls.map((one) => ({ labels: { run, kind: one.kind }, calls: one })),
  );
  const help = 'How long calls took that ended well, on all peers.';
  new CountedHistogram('skein_call_seconds', help, seconds, families.registry);
  return families.registry.metrics();
}

/** @see metricsText */
export const METRICS_TYPE: string = Registry.PROMETHEUS_CONTENT_TYPE;
