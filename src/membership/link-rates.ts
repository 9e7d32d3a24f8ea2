/**
 * What the ways from this peer to others are worth, told by what goes there anyway: a machine that is shown the links every
 * few dozen milliseconds.
 *
 * - Rate: while bytes wait for a link all the time, and for no other, what leaves is all that the way takes. Where bytes wait for
 *   several links at once, they may share what slows them down, and nothing is learnt of each of them.
 * - Delay: half of a round trip, the shortest of the last few: others have waited behind data.
 */
import { MAX_TOLD_LINKS } from '../wire/limits.ts';
import type { MeasuredLink } from '../wire/peer-messages.ts';

export interface FlowSight {
  readonly peerId: string;
  /** Bytes given to the link since it was made. */
  readonly sent: number;
  /** Of these, bytes that have not left. */
  readonly queued: number;
}

/** Bytes that wait when a link is looked at: with less, it may have stood idle in between. */
const BUSY_BYTES = 64 * 1024;

/** What a rate is made of at least: shorter bursts end in buffers. */
const SAMPLE_MS = 200;
const SAMPLE_BYTES = 256 * 1024;

/** Looks that are further apart than this say nothing (ms): a link may have been idle. */
const LOOK_MS = 100;

/** Round trips of which the shortest counts, and such as are awaited at once. */
const ROUND_TRIPS = 8;

/** Changes smaller than these shares are not told, unless what was told is older than this (ms). */
const RATE_CHANGE = 0.05;
const DELAY_CHANGE = 0.25;
const TELL_AGAIN_MS = 10_000;

/** Delays that differ by less than this are alike (ms). */
const DELAY_NOISE_MS = 0.5;

interface LinkState {
  sent: number;
  queued: number;
  /** What has left while the link was busy, and in which time. */
  busyBytes: number;
  busyMs: number;
  rate: number | null;
  /** A rate that was not told. */
  isNew: boolean;
  readonly askedAt: number[];
  readonly roundTrips: number[];
  told: { readonly rate: number | null; readonly delay: number | null; readonly at: number } | null;
}

export class LinkRates {
  readonly #links: Map<string, LinkState> = new Map();
  #lastLook = Number.NEGATIVE_INFINITY;

  /** @param links all whose ways are to be measured; what is not among them is forgotten */
  look(now: number, links: readonly FlowSight[]): void {
    const elapsed = now - this.#lastLook;
    this.#lastLook = now;
    const busy: { readonly state: LinkState; readonly left: number }[] = [];
    for (const { peerId, sent, queued } of links) {
      const state = this.#state(peerId);
      const left = sent - queued - (state.sent - state.queued);
      if (state.queued >= BUSY_BYTES && queued >= BUSY_BYTES && left >= 0) busy.push({ state, left });
      state.sent = sent;
      state.queued = queued;
    }
    const [only] = busy;
    if (elapsed <= LOOK_MS && only !== undefined && busy.length === 1) count(only.state, only.left, elapsed);
    if (this.#links.size <= links.length) return;
    const known = new Set(links.map((link) => link.peerId));
    for (const peerId of this.#links.keys()) if (!known.has(peerId)) this.#links.delete(peerId);
  }

  /** A peer was asked for a sign. */
  onAsked(peerId: string, now: number): void {
    const asked = this.#links.get(peerId)?.askedAt;
    if (asked !== undefined && asked.length < ROUND_TRIPS) asked.push(now);
  }

  /** Its answer, in the order of the questions. */
  onAnswered(peerId: string, now: number): void {
    const state = this.#links.get(peerId);
    const asked = state?.askedAt.shift();
    if (state === undefined || asked === undefined) return;
    state.roundTrips.push(now - asked);
    if (state.roundTrips.length > ROUND_TRIPS) state.roundTrips.shift();
  }

  /** What was on its way to or from a peer is lost. */
  onClosed(peerId: string): void {
    const state = this.#links.get(peerId);
    if (state !== undefined) state.askedAt.length = 0;
  }

  /** A way was measured on purpose. */
  onProbed(peerId: string, bytesPerSecond: number): void {
    const state = this.#links.get(peerId);
    if (state === undefined) return;
    state.rate = bytesPerSecond;
    state.isNew = true;
    state.told = null; // whoever asked waits for it, whether it is news or not
  }

  /** What is known of the way to a peer; null: nothing. */
  of(peerId: string): Omit<MeasuredLink, 'peerId'> | null {
    const state = this.#links.get(peerId);
    return state === undefined ? null : { bytesPerSecond: state.rate, delayMs: delayOf(state) };
  }

  /** What is worth telling now. */
  take(now: number): MeasuredLink[] {
    const news: MeasuredLink[] = [];
    for (const [peerId, state] of this.#links) {
      if (news.length === MAX_TOLD_LINKS) break;
      const delay = delayOf(state);
      if (!isNews(state, delay, now)) continue;
      state.isNew = false;
      state.told = { rate: state.rate, delay, at: now };
      news.push({ peerId, bytesPerSecond: state.rate, delayMs: delay });
    }
    return news;
  }

  /** Whoever was told may have forgotten. */
  tellAgain(): void {
    for (const state of this.#links.values()) state.told = null;
  }

  #state(peerId: string): LinkState {
    let state = this.#links.get(peerId);
    if (state === undefined) {
      const numbers = { sent: 0, queued: 0, busyBytes: 0, busyMs: 0 };
      state = { ...numbers, rate: null, isNew: false, askedAt: [], roundTrips: [], told: null };
      this.#links.set(peerId, state);
    }
    return state;
  }
}

function count(state: LinkState, left: number, elapsed: number): void {
  state.busyBytes += left;
  state.busyMs += elapsed;
  if (state.busyMs < SAMPLE_MS || state.busyBytes < SAMPLE_BYTES) return;
  state.rate = (1_000 * state.busyBytes) / state.busyMs;
  state.isNew = true;
  state.busyBytes = 0;
  state.busyMs = 0;
}

function delayOf({ roundTrips }: LinkState): number | null {
  return roundTrips.length === 0 ? null : Math.min(...roundTrips) / 2;
}

function isNews({ rate, isNew, told }: LinkState, delay: number | null, now: number): boolean {
  if (told === null) return rate !== null || delay !== null;
  if (delay !== null && (told.delay === null || differs(delay, told.delay, DELAY_CHANGE, DELAY_NOISE_MS))) return true;
  if (!isNew || rate === null) return false;
  return told.rate === null || now - told.at >= TELL_AGAIN_MS || differs(rate, told.rate, RATE_CHANGE, 0);
}

function differs(one: number, other: number, share: number, noise: number): boolean {
  return Math.abs(one - other) > Math.max(noise, share * other);
}
