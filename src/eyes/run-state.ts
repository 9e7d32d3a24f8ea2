/** A run as whoever looks on is shown it: plain data. */
import { Cuts, routeAround } from '../collectives/routes.ts';
import type { CoordinatorSnapshot } from '../membership/events.ts';
import { percentile } from './latency.ts';
import type { LossCause } from './losses.ts';
import type { CallTotals, PeerFigures, RunWatch } from './run-watch.ts';

interface PeerState {
  readonly peerId: string;
  readonly site: string;
  /** How it reaches the coordinator; null: it doesn't at the moment. */
  readonly path: string | null;
}

export interface MemberState extends PeerState {
  readonly rank: number;
  /** By which kinds of ways it reaches the others, as far as it has told. */
  readonly ways: readonly string[];
  /** To the coordinator and back, in its own words (ms). */
  readonly roundTripMs: number | null;
  readonly sentPerSecond: number;
  readonly receivedPerSecond: number;
  readonly sentBytes: number;
  readonly receivedBytes: number;
  readonly queuedBytes: number;
  /** Calls that ended well, failed, were begun anew, and have not ended. */
  readonly calls: number;
  readonly failed: number;
  readonly retries: number;
  readonly open: number;
  /** Boundaries that it has passed. */
  readonly steps: number;
  /** How long others waited for it in the last second (ms). */
  readonly lagMs: number;
  /** It was found to hold the others up. */
  readonly slow: boolean;
}

export interface LinkState {
  readonly from: string;
  readonly to: string;
  /** What it was last measured to carry; null: nothing was measured. */
  readonly bytesPerSecond: number | null;
  readonly delayMs: number | null;
  /** What goes there at the moment; null: it was not told. */
  readonly sentPerSecond: number | null;
  readonly path: string | null;
}

interface CallState {
  readonly kind: string;
  readonly done: number;
  readonly failed: number;
  readonly retries: number;
  /** Of all that ended well, in seconds. */
  readonly p50: number | null;
  readonly p99: number | null;
}

export interface RunState {
  readonly run: string;
  readonly term: number;
  readonly epoch: number;
  readonly generation: number;
  /** Restarted, and waiting for the members' reports. */
  readonly recovering: boolean;
  readonly members: readonly MemberState[];
  /** `warming`: still connects to the members. `ready`: comes in at the next boundary. */
  readonly joining: readonly (PeerState & { readonly state: 'warming' | 'ready' })[];
  /** Held by some members and not yet by all: the first of them, and how many there are. */
  readonly collectives: CoordinatorSnapshot['collectives'];
  readonly openCollectives: number;
  /** The members in the order of the ring. */
  readonly ring: readonly string[];
  /** Members that can't reach one another, and through whom they do. */
  readonly cuts: readonly { readonly between: readonly [string, string]; readonly through: readonly string[] }[];
  /** On the ring, and those that carry most. */
  readonly links: readonly LinkState[];
  readonly totals: {
    readonly joins: number;
    readonly losses: Readonly<Partial<Record<LossCause, number>>>;
    readonly epochs: number;
    readonly committed: number;
    readonly aborted: number;
    readonly boundary: number;
  };
  readonly calls: readonly CallState[];
  /** Of all calls that ended in the last ten seconds, in seconds. */
  readonly recent: { readonly p50: number | null; readonly p99: number | null };
  /** Sent by all members together. */
  readonly sentPerSecond: number;
}

/** Links and cuts that are told of. */
const MAX_LINKS = 512;
const MAX_SHOWN_CUTS = 64;

function sumOf(calls: ReadonlyMap<string, CallTotals>, of: (one: CallTotals) => number): number {
  let sum = 0;
  for (const one of calls.values()) sum += of(one);
  return sum;
}

function memberState(
  peer: PeerState,
  rank: number,
  figures: PeerFigures | null,
  lagMs: number,
  slow: boolean,
): MemberState {
  const calls: ReadonlyMap<string, CallTotals> = figures?.calls ?? new Map();
  return {
    ...peer,
    rank,
    ways: [...new Set(figures?.flows.flatMap(({ path }) => path ?? []))].sort(),
    roundTripMs: figures?.roundTripMs ?? null,
    sentPerSecond: figures?.sentPerSecond ?? 0,
    receivedPerSecond: figures?.receivedPerSecond ?? 0,
    sentBytes: sumOf(calls, ({ sentBytes }) => sentBytes),
    receivedBytes: sumOf(calls, ({ receivedBytes }) => receivedBytes),
    queuedBytes: figures?.queuedBytes ?? 0,
    calls: sumOf(calls, ({ done }) => done),
    failed: sumOf(calls, ({ failed }) => failed),
    retries: sumOf(calls, ({ retries }) => retries),
    open: figures?.open ?? 0,
    steps: figures?.boundary ?? 0,
    lagMs,
    slow,
  };
}

function linksOf({ ring, links }: CoordinatorSnapshot, figures: ReadonlyMap<string, PeerFigures | null>): LinkState[] {
  const found = new Map<string, LinkState>();
  const add = (from: string, to: string, change: Partial<LinkState>) => {
    const before = found.get(`${from} ${to}`);
    const blank = { from, to, bytesPerSecond: null, delayMs: null, sentPerSecond: null, path: null };
    found.set(`${from} ${to}`, { ...(before ?? blank), ...change });
  };
  // In the order of what must not be left out.
  if (ring.length > 1) for (const [place, from] of ring.entries()) add(from, ring[(place + 1) % ring.length]!, {}); // within
  for (const [from, told] of figures)
    for (const { peerId, path, bytesPerSecond } of told?.flows ?? [])
      if (figures.has(peerId)) add(from, peerId, { path, sentPerSecond: bytesPerSecond });
  for (const { from, to, bytesPerSecond, delayMs } of links)
    if (figures.has(from) && figures.has(to)) add(from, to, { bytesPerSecond, delayMs });
  return [...found.values()].slice(0, MAX_LINKS);
}

function cutsOf({ cuts, members }: CoordinatorSnapshot): RunState['cuts'] {
  const known = new Cuts(cuts);
  return cuts.slice(0, MAX_SHOWN_CUTS).map(([one, other]) => ({
    between: [one, other],
    through: routeAround(members, known, one, other)?.slice(1, -1) ?? [],
  }));
}

/**
 * @param pathOf a peer's connection to the coordinator
 * @param now milliseconds, monotonic
 */
export function runState(
  run: string,
  snapshot: CoordinatorSnapshot,
  watch: RunWatch,
  pathOf: (peerId: string) => string | null,
  now: number,
): RunState {
  const { term, epoch, generation, recovering, collectives, openCollectives, ring } = snapshot;
  const peers = new Map(snapshot.peers.map((peer) => [peer.peerId, peer]));
  const joining = snapshot.peers.flatMap(({ peerId, site, state }) =>
    state === 'member' ? [] : [{ peerId, site, path: pathOf(peerId), state }],
  );
  const figures = new Map(snapshot.members.map((peerId) => [peerId, watch.figuresOf(peerId, now)]));
  const members = snapshot.members.map((peerId, rank) => {
    const peer = { peerId, site: peers.get(peerId)?.site ?? '', path: pathOf(peerId) };
    return memberState(peer, rank, figures.get(peerId) ?? null, watch.lagOf(peerId, now), watch.isSlow(peerId, now));
  });
  const { losses, ...totals } = watch.totals;
  const { recentBuckets } = watch;
  return {
    ...{ run, term, epoch, generation, recovering, members, joining, collectives, openCollectives, ring },
    cuts: cutsOf(snapshot),
    links: linksOf(snapshot, figures),
    totals: { ...totals, losses: Object.fromEntries(losses) },
    calls: watch.calls.map(({ kind, done, failed, retries, buckets }) => ({
      ...{ kind, done, failed, retries },
      ...{ p50: percentile(buckets, 0.5), p99: percentile(buckets, 0.99) },
    })),
    recent: { p50: percentile(recentBuckets, 0.5), p99: percentile(recentBuckets, 0.99) },
    sentPerSecond: members.reduce((sum, one) => sum + one.sentPerSecond, 0),
  };
}
