/**
 * The order of the ring, as the coordinator finds it: a machine that is told what the ways between members are worth, looks for
 * a better order a little at a time, and says which one is worth a new view. It asks for ways to be measured where nothing goes
 * by which they could be.
 *
 * Invariant: an order is only ever proposed if everything that it promises, and all that the present one does, was measured.
 */
import type { RingProblem } from '../ring/problem.ts';
import { ringOf, sitesOf } from '../ring/ring.ts';
import { RingSearch } from '../ring/search.ts';
import type { MeasuredLink } from '../wire/peer-messages.ts';

type PeerId = string;

/** A member, as far as the order of the ring depends on it. */
export interface RingPeer {
  readonly peerId: PeerId;
  readonly site: string;
  readonly hostKey: string;
}

export interface RingView<Peer extends RingPeer = RingPeer> {
  /** In the present order of the ring. */
  readonly ring: readonly Peer[];
  /** Whether two of them can't reach one another. */
  isCut(from: PeerId, to: PeerId): boolean;
}

export interface Probe {
  readonly from: PeerId;
  readonly to: PeerId;
}

export interface KnownLink {
  readonly from: PeerId;
  readonly to: PeerId;
  readonly bytesPerSecond: number | null;
  readonly delayMs: number | null;
}

interface Way {
  rate: number | null;
  delay: number | null;
  ratedAt: number;
}

/** A new order must promise that a collective takes so much less time. */
const WORTH = 1.1;

/** Looks at which it must do so, one after the other: one figure that is out of line is no reason. */
const LOOKS = 2;

/** What a new figure counts beside those before it. */
const WEIGHT = 0.4;

/** A change of a way by this share is a reason to look for another order. */
const CHANGE = 0.05;

/** Collectives that go round the ring are about so large. */
const REFERENCE_BYTES = 16 * 1024 * 1024;

/** Between peers on one host: far more than between others, and not worth measuring (bytes per second, ms). */
const LOCAL_RATE = 4e9;
const LOCAL_DELAY_MS = 0.05;

/** Worlds that are searched, and such as are probed: what that takes grows with the square. */
const LEAST_MEMBERS = 3;
const MOST_SEARCHED = 256;
const MOST_PROBED = 64;

/** Operations of a search at each tick: less than a millisecond. */
const SLICE_OPERATIONS = 60_000;

/** A view must be so old before ways are probed (ms): most of what begins then ends soon. */
const SETTLED_MS = 2_000;

/** A rate is good for so long (ms): less on the present ring, where traffic that is not enough to wait anywhere shows no change. */
const STALE_MS = 10 * 60_000;
const RING_STALE_MS = 60_000;

/** A peer that took part in a probe rests for so long before the next (ms). */
const REST_MS = 250;

/** How long an answer is awaited, and how long a way is left alone of which none came (ms). */
const PATIENCE_MS = 10_000;
const GIVEN_UP_MS = 60_000;

export class Rings {
  readonly #probes: boolean;
  readonly #ways: Map<string, Way> = new Map();
  /** Until when a peer takes part in no other probe. */
  readonly #busyUntil: Map<PeerId, number> = new Map();
  /** Ways that are being probed, or were in vain: not again before. */
  readonly #notBefore: Map<string, number> = new Map();
  #wanted: Probe[] = [];
  /** Which members, in which order, with which cuts. */
  #key = '';
  #since = 0;
  #changed = false;
  #search: { readonly peers: readonly PeerId[]; readonly search: RingSearch } | null = null;
  #candidate: { readonly order: readonly PeerId[]; looks: number } | null = null;

  /** @param probes whether ways may be measured that carry nothing */
  constructor(probes: boolean) {
    this.#probes = probes;
  }

  /** What a peer has measured. Whom it names must be known: what is kept is bounded by that. */
  report(from: PeerId, links: readonly MeasuredLink[], isKnown: (peerId: PeerId) => boolean, now: number): void {
    for (const { peerId: to, bytesPerSecond, delayMs } of links) {
      if (to === from || !isKnown(to)) continue;
      const key = keyOf(from, to);
      const way = this.#ways.get(key) ?? { rate: null, delay: null, ratedAt: Number.NEGATIVE_INFINITY };
      this.#ways.set(key, way);
      if (bytesPerSecond !== null) {
        const rate = mean(way.rate, bytesPerSecond);
        this.#changed ||= way.rate === null || Math.abs(rate - way.rate) > CHANGE * way.rate;
        way.rate = rate;
        way.ratedAt = now;
        if (this.#notBefore.delete(key)) for (const peerId of [from, to]) this.#busyUntil.set(peerId, now + REST_MS);
      }
      if (delayMs === null) continue;
      this.#changed ||= way.delay === null;
      way.delay = mean(way.delay, delayMs);
    }
  }

  forget(peerId: PeerId): void {
    this.#busyUntil.delete(peerId);
    for (const map of [this.#ways, this.#notBefore])
      for (const key of map.keys()) if (key.startsWith(`${peerId} `) || key.endsWith(` ${peerId}`)) map.delete(key);
  }

  /** What is known, for status pages. */
  get links(): readonly KnownLink[] {
    return [...this.#ways].map(([key, { rate, delay }]) => {
      const at = key.indexOf(' ');
      return { from: key.slice(0, at), to: key.slice(at + 1), bytesPerSecond: rate, delayMs: delay };
    });
  }

  /** What is known of the way from one peer to another; null: nothing was told of it. */
  way(from: PeerId, to: PeerId): Omit<MeasuredLink, 'peerId'> | null {
    const way = this.#ways.get(keyOf(from, to));
    return way === undefined ? null : { bytesPerSecond: way.rate, delayMs: way.delay };
  }

  /** To be called once a second, when there is a view and nothing is to be decided. */
  look(view: RingView, now: number): void {
    this.#notice(view, now);
    if (this.#candidate !== null) {
      if (this.#isWorth(view, this.#candidate.order)) this.#candidate.looks += 1;
      else this.#candidate = null;
    }
    if (this.#changed && this.#search === null && this.#seconds(view, view.ring) !== null) this.#begin(view);
    this.#wanted = now - this.#since < SETTLED_MS ? [] : this.#unknown(view, now);
  }

  /** To be called at each tick: goes on with the search. */
  work(): void {
    const running = this.#search;
    if (running === null || !running.search.run(SLICE_OPERATIONS)) return;
    this.#search = null;
    this.#candidate = { order: running.search.best.map((member) => running.peers[member]!), looks: 0 };
  }

  /** Ways to be measured now: no peer takes part in two at once. */
  takeProbes(now: number): readonly Probe[] {
    const taken: Probe[] = [];
    this.#wanted = this.#wanted.filter((probe) => {
      const { from, to } = probe;
      if ([from, to].some((peerId) => (this.#busyUntil.get(peerId) ?? now) > now)) return true;
      for (const peerId of [from, to]) this.#busyUntil.set(peerId, now + PATIENCE_MS);
      this.#notBefore.set(keyOf(from, to), now + GIVEN_UP_MS);
      taken.push(probe);
      return false;
    });
    return taken;
  }

  /** An order that is worth a new view; null when there is none. */
  better(view: RingView, now: number): readonly PeerId[] | null {
    this.#notice(view, now);
    const candidate = this.#candidate;
    if (candidate === null || candidate.looks < LOOKS || !this.#isWorth(view, candidate.order)) return null;
    return candidate.order;
  }

  /** Members or cuts have changed: what was found for those before is not for these. */
  #notice(view: RingView, now: number): void {
    const { ring, isCut } = view;
    const next = (at: number) => ring[(at + 1) % ring.length]!.peerId;
    const key = ring.map(({ peerId }, at) => (isCut(peerId, next(at)) ? `${peerId}!` : peerId)).join(' ');
    if (key === this.#key) return;
    this.#key = key;
    this.#since = now;
    this.#changed = true;
    this.#search = null;
    this.#candidate = null;
    this.#wanted = [];
  }

  #begin(view: RingView): void {
    this.#changed = false;
    const { ring } = view;
    if (ring.length < LEAST_MEMBERS || ring.length > MOST_SEARCHED) return;
    const search = new RingSearch(
      this.#problem(view),
      ring.map((_, member) => member),
    );
    this.#search = { peers: ring.map(({ peerId }) => peerId), search };
  }

  /** What was not measured counts as no better than the worst that was: no order gains by it. */
  #problem({ ring, isCut }: RingView): RingProblem {
    const ways = ring.flatMap((from) => ring.map((to) => (from === to ? null : this.#way(from, to))));
    const rates = ways.flatMap((way) => (way === null ? [] : [way.rate]));
    const delays = ways.flatMap((way) => (way === null ? [] : [way.delay]));
    const slowest = rates.reduce((least, rate) => Math.min(least, rate), LOCAL_RATE);
    const longest = delays.reduce((most, delay) => Math.max(most, delay), LOCAL_DELAY_MS);
    return {
      size: ring.length,
      rates: Float64Array.from(ways, (way) => way?.rate ?? slowest),
      delays: Float64Array.from(ways, (way) => way?.delay ?? longest),
      closed: Uint8Array.from(
        ring.flatMap((from) => ring.map((to) => (from !== to && isCut(from.peerId, to.peerId) ? 1 : 0))),
      ),
      sites: sitesOf(ring),
    };
  }

  /** Null where its rate was not measured. */
  #way(from: RingPeer, to: RingPeer): { readonly rate: number; readonly delay: number } | null {
    if (from.hostKey === to.hostKey) return { rate: LOCAL_RATE, delay: LOCAL_DELAY_MS };
    const way = this.#ways.get(keyOf(from.peerId, to.peerId));
    return way === undefined || way.rate === null ? null : { rate: way.rate, delay: way.delay ?? 0 };
  }

  /**
   * How long an all-reduce would take, 2(N−1)/N · (n / slowest rate + sum of delays) (see collectives/select.ts); null when that
   * can't be told.
   */
  #seconds({ isCut }: RingView, ring: readonly RingPeer[]): number | null {
    const { length: size } = ring;
    let [rate, delay] = [Number.POSITIVE_INFINITY, 0];
    for (const [at, from] of ring.entries()) {
      const to = ring[(at + 1) % size]!;
      const way = isCut(from.peerId, to.peerId) ? null : this.#way(from, to);
      if (way === null) return null;
      rate = Math.min(rate, way.rate);
      delay += way.delay;
    }
    return ((2 * (size - 1)) / size) * (REFERENCE_BYTES / rate + delay / 1_000);
  }

  #isWorth(view: RingView, order: readonly PeerId[]): boolean {
    const peers = new Map(view.ring.map((peer) => [peer.peerId, peer]));
    const present = this.#seconds(view, view.ring);
    const promised = this.#seconds(
      view,
      order.flatMap((peerId) => peers.get(peerId) ?? []),
    );
    return present !== null && promised !== null && present >= WORTH * promised;
  }

  /** Ways that nobody has measured lately, those of the present ring first. */
  #unknown(view: RingView, now: number): Probe[] {
    const { ring, isCut } = view;
    if (!this.#probes || ring.length < LEAST_MEMBERS || ring.length > MOST_PROBED) return [];
    for (const [key, until] of this.#notBefore) if (until <= now) this.#notBefore.delete(key);
    const wanted: Probe[] = [];
    for (let distance = 1; distance < ring.length; distance++)
      for (const [at, { peerId: from, hostKey }] of ring.entries()) {
        const { peerId: to, hostKey: other } = ring[(at + distance) % ring.length]!;
        const key = keyOf(from, to);
        const ratedAt = this.#ways.get(key)?.ratedAt ?? Number.NEGATIVE_INFINITY;
        const staleMs = distance === 1 ? RING_STALE_MS : STALE_MS;
        if (hostKey === other || now - ratedAt < staleMs || this.#notBefore.has(key) || isCut(from, to)) continue;
        wanted.push({ from, to });
      }
    return wanted;
  }
}

/**
 * Where newcomers stand: after the last of their site, or at the end.
 *
 * @param ring in its order
 */
export function placeNewcomers(
  ring: readonly PeerId[],
  joining: readonly PeerId[],
  siteOf: (peerId: PeerId) => string,
): readonly PeerId[] {
  const placed = [...ring];
  for (const peerId of joining) {
    const site = siteOf(peerId);
    const last = site === '' ? -1 : placed.map(siteOf).lastIndexOf(site);
    placed.splice(last < 0 ? placed.length : last + 1, 0, peerId);
  }
  return placed;
}

/** The ring that the members go, round what is cut. */
export function presentRing<Peer extends RingPeer>(
  ring: readonly PeerId[],
  members: ReadonlyMap<PeerId, Peer>,
  isCut: (from: PeerId, to: PeerId) => boolean,
): readonly Peer[] {
  const present = ring.flatMap((peerId) => members.get(peerId) ?? []);
  return ringOf(
    present.map((peer, place) => ({ ...peer, place })),
    isCut,
  );
}

function keyOf(from: PeerId, to: PeerId): string {
  return `${from} ${to}`;
}

function mean(before: number | null, now: number): number {
  return before === null ? now : before + WEIGHT * (now - before);
}
