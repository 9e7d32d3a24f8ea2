/**
 * What a coordinator with an HTTP port knows of a run beyond what it needs to lead it: what was counted, what the peers tell of
 * themselves, and the last minutes. It looks on: it is shown what comes and what the machine does, and changes neither.
 *
 * Figures are believed as far as they are possible: what a peer has counted only grows. What it says of itself makes no other peer's
 * figures wrong, but for the sums.
 */
import type { CollectiveKind } from '../collectives/program.ts';
import { BACK, type CoordinatorEffect, type PeerId } from '../membership/events.ts';
import { Recent } from '../recent.ts';
import type { CoordinatorMessage } from '../wire/coordinator-messages.ts';
import { MAX_OPEN_COLLECTIVES } from '../wire/limits.ts';
import type { WireView } from '../wire/parts.ts';
import type { Figures, PeerMessage } from '../wire/peer-messages.ts';
import { countOf, emptyBuckets, percentile } from './latency.ts';
import { causeOf, type LossCause } from './losses.ts';
import { type HappeningKind, Timeline } from './timeline.ts';

type Calls = Figures['calls'][number];

/** Calls of one kind, by all peers together. */
export interface CallTotals {
  readonly kind: CollectiveKind;
  readonly done: number;
  readonly failed: number;
  readonly retries: number;
  readonly sentBytes: number;
  readonly receivedBytes: number;
  readonly seconds: number;
  readonly buckets: readonly number[];
}

/** What a peer has told. Rates are 0 where it has been silent for a while. */
export interface PeerFigures {
  readonly calls: ReadonlyMap<CollectiveKind, CallTotals>;
  readonly flows: Figures['flows'];
  readonly sentPerSecond: number;
  readonly receivedPerSecond: number;
  readonly queuedBytes: number;
  readonly open: number;
  readonly boundary: number;
  readonly roundTripMs: number | null;
}

export interface RunTotals {
  readonly joins: number;
  readonly losses: ReadonlyMap<LossCause, number>;
  readonly epochs: number;
  readonly committed: number;
  readonly aborted: number;
  readonly boundary: number;
}

interface Told {
  calls: Map<CollectiveKind, CallTotals>;
  present: Omit<Figures, 'calls'>;
  at: number;
}

interface Lag {
  readonly ms: number;
  readonly at: number;
}

/** Figures of the present count for so long: who still sends tells so every second (ms). */
const PRESENT_MS = 2_500;

/** What others said of waiting for a peer counts for so long (ms), as in `membership/stragglers.ts`. */
const LAG_MS = 1_600;

/** A verdict stands as long as others wait, and is given anew after ten seconds if it is still right (ms). */
const SLOW_MS = 12_000;

/** Seconds over which recent percentiles are told. */
const RECENT_SECONDS = 10;

/** Names in one line of the timeline, and its longest text. */
const MAX_LISTED = 6;
const MAX_LINE = 300;

const NOTHING: Omit<Figures, 'calls'> = {
  flows: [],
  ...{ sentPerSecond: 0, receivedPerSecond: 0, queuedBytes: 0, open: 0, boundary: 0, roundTripMs: null },
};

function doneOf({ kind, buckets, ...numbers }: Calls): CallTotals {
  return { kind, ...numbers, buckets, done: countOf(buckets) };
}

function emptyTotals(kind: CollectiveKind): CallTotals {
  const numbers = { done: 0, failed: 0, retries: 0, sentBytes: 0, receivedBytes: 0, seconds: 0 };
  return { kind, ...numbers, buckets: emptyBuckets() };
}

/** `sum` and what `now` is above `before`. */
function grown(sum: CallTotals, now: CallTotals, before: CallTotals): CallTotals {
  return {
    kind: sum.kind,
    done: sum.done + now.done - before.done,
    failed: sum.failed + now.failed - before.failed,
    retries: sum.retries + now.retries - before.retries,
    sentBytes: sum.sentBytes + now.sentBytes - before.sentBytes,
    receivedBytes: sum.receivedBytes + now.receivedBytes - before.receivedBytes,
    seconds: sum.seconds + now.seconds - before.seconds,
    buckets: sum.buckets.map((count, bucket) => count + (now.buckets[bucket] ?? 0) - (before.buckets[bucket] ?? 0)),
  };
}

function hasShrunk(now: CallTotals, before: CallTotals): boolean {
  const { kind, buckets, ...numbers } = before;
  const counts = Object.keys(numbers) as (keyof typeof numbers)[]; // its own
  return counts.some((name) => now[name] < before[name]) || buckets.some((count, at) => (now.buckets[at] ?? 0) < count);
}

export class RunWatch {
  readonly timeline: Timeline = new Timeline();
  readonly #wall: () => number;
  /** Who is here: of nobody else is anything kept. */
  readonly #here: Set<PeerId> = new Set();
  readonly #peers: Map<PeerId, Told> = new Map();
  readonly #lags: Map<PeerId, Lag> = new Map();
  readonly #slow: Map<PeerId, number> = new Map();
  /** What all peers' calls came to, also of those that are gone. */
  readonly #calls: Map<CollectiveKind, CallTotals> = new Map();
  /** Of the last seconds, and of the one that has begun. */
  readonly #recent: number[][] = [];
  #second: number[] = emptyBuckets();
  #committedBefore = 0;
  readonly #decided: Recent<string> = new Recent(2 * MAX_OPEN_COLLECTIVES);
  #lastMessage: CoordinatorMessage | null = null;
  readonly #losses: Map<LossCause, number> = new Map();
  #joins = 0;
  #epochs = 0;
  #epoch = 0;
  #lossEpoch = 0;
  #committed = 0;
  #aborted = 0;
  #boundary = 0;

  /** @param wall milliseconds since 1970 */
  constructor(wall: () => number) {
    this.#wall = wall;
  }

  get totals(): RunTotals {
    const [joins, epochs, boundary] = [this.#joins, this.#epochs, this.#boundary];
    return { joins, losses: this.#losses, epochs, committed: this.#committed, aborted: this.#aborted, boundary };
  }

  get calls(): readonly CallTotals[] {
    return [...this.#calls.values()];
  }

  /** Of all kinds of calls, over the last seconds. */
  get recentBuckets(): readonly number[] {
    return this.#recent.reduce((sum, one) => sum.map((count, at) => count + (one[at] ?? 0)), this.#second);
  }

  /** What a peer has told; null: nothing yet. */
  figuresOf(peerId: PeerId, now: number): PeerFigures | null {
    const told = this.#peers.get(peerId);
    if (told === undefined) return null;
    const { calls, present, at } = told;
    if (now - at <= PRESENT_MS) return { calls, ...present };
    return { calls, ...present, sentPerSecond: 0, receivedPerSecond: 0, queuedBytes: 0, flows: stillOf(present.flows) };
  }

  /** How long others waited for it in the last second (ms). */
  lagOf(peerId: PeerId, now: number): number {
    const lag = this.#lags.get(peerId);
    return lag === undefined || now - lag.at > LAG_MS ? 0 : lag.ms;
  }

  /** Whether it was found to hold the others up, and does. */
  isSlow(peerId: PeerId, now: number): boolean {
    return now - (this.#slow.get(peerId) ?? Number.NEGATIVE_INFINITY) < SLOW_MS && this.lagOf(peerId, now) > 0;
  }

  /**
   * What a peer says.
   *
   * @returns what is wrong with it; null: nothing
   */
  onMessage(peerId: PeerId, message: PeerMessage, now: number): string | null {
    switch (message.type) {
      case 'figures':
        return this.#onFigures(peerId, message, now);
      case 'waits':
        for (const wait of message.waits)
          if (wait.peerId !== peerId && wait.receiveMs > 0) this.#onWait(wait.peerId, wait.receiveMs, now);
        return null;
      case 'path':
        if (!this.#here.has(message.peerId)) return null;
        this.#add(
          message.open ? 'healed' : 'cut',
          peerId,
          `${message.open ? 'reaches' : "can't reach"} ${message.peerId}`,
        );
        return null;
      default:
        return null;
    }
  }

  /** The longest of the last second. */
  #onWait(peerId: PeerId, ms: number, now: number): void {
    if (!this.#here.has(peerId)) return;
    const before = this.#lags.get(peerId);
    if (before === undefined || ms >= before.ms || now - before.at > LAG_MS / 2)
      this.#lags.set(peerId, { ms, at: now });
  }

  #onFigures(
    peerId: PeerId,
    { type, calls, ...present }: Extract<PeerMessage, { type: 'figures' }>,
    now: number,
  ): string | null {
    const told: Told = this.#peers.get(peerId) ?? { calls: new Map(), present: NOTHING, at: now };
    const totals = calls.map(doneOf);
    const before = (kind: CollectiveKind) => told.calls.get(kind) ?? emptyTotals(kind);
    if (new Set(totals.map(({ kind }) => kind)).size < totals.length) return 'its figures name a kind of call twice';
    for (const one of totals) {
      if (!Number.isSafeInteger(one.done)) return 'its figures are too large to be true';
      if (hasShrunk(one, before(one.kind))) return `its figures of ${one.kind} are smaller than before`;
    }
    for (const one of totals) {
      const last = before(one.kind);
      const { buckets } = grown({ ...last, buckets: this.#second }, one, last);
      this.#second = [...buckets];
      this.#calls.set(one.kind, grown(this.#calls.get(one.kind) ?? emptyTotals(one.kind), one, last));
      told.calls.set(one.kind, one);
    }
    told.present = present;
    told.at = now;
    this.#peers.set(peerId, told);
    return null;
  }

  /** What the machine wants after an event. */
  onEffects(effects: readonly CoordinatorEffect[], epoch: number, now: number): void {
    if (epoch !== this.#epoch) {
      this.#epoch = epoch;
      this.#epochs += 1;
    }
    for (const effect of effects) {
      if (effect.type === 'assign') this.#here.add(effect.peerId);
      if (effect.type === 'close' && effect.reason !== BACK) this.#onGone(effect.peerId, effect.reason);
      // Many are sent the same: it is looked at once.
      if (effect.type !== 'send' || effect.message === this.#lastMessage) continue;
      this.#lastMessage = effect.message;
      this.#onSend(effect.peerId, effect.message, now);
    }
  }

  #onGone(peerId: PeerId, reason: string): void {
    if (!this.#here.delete(peerId)) return;
    const cause = causeOf(reason);
    this.#losses.set(cause, (this.#losses.get(cause) ?? 0) + 1);
    for (const map of [this.#peers, this.#lags, this.#slow]) map.delete(peerId);
    this.#add('loss', peerId, reason);
  }

  #onSend(to: PeerId, message: CoordinatorMessage, now: number): void {
    switch (message.type) {
      case 'welcome':
        this.#joins += 1;
        this.#add('join', to, 'connects to the members');
        break;
      case 'resumed':
        this.#add('recovering', to, 'is back at the coordinator');
        break;
      case 'admitted':
      case 'boundary':
        if (message.index <= this.#boundary) break;
        this.#boundary = message.index;
        if (message.view !== null) this.#add('view', null, viewText(message.view, message.joined));
        break;
      case 'commit':
        if (!this.#decided.has(message.id)) this.#committed += 1;
        this.#decided.add(message.id);
        break;
      case 'decide':
        for (const { id } of message.committed) {
          if (!this.#decided.has(id)) this.#committed += 1;
          this.#decided.add(id);
        }
        break;
      case 'loss':
        if (message.epoch <= this.#lossEpoch) break;
        this.#lossEpoch = message.epoch;
        this.#add('epoch', null, lossText(message));
        break;
      case 'fail':
        if (this.#decided.has(message.id)) break;
        this.#decided.add(message.id);
        this.#aborted += 1;
        this.#add('abort', message.peerId, `${message.id} failed: ${message.message}`);
        break;
      case 'slow':
        this.#slow.set(message.peerId, now);
        this.#add(
          'slow',
          message.peerId,
          `${listOf(message.waiting)} wait for it, ${Math.round(message.waitedMs)} ms of the last second`,
        );
        break;
      case 'exclude':
        this.#add('excluded', message.peers.at(-1) ?? null, `${message.id} goes on without ${listOf(message.peers)}`);
        break;
      default: // nothing that is worth a line
    }
  }

  #add(kind: HappeningKind, peerId: PeerId | null, text: string): void {
    const line = text.length > MAX_LINE ? `${text.slice(0, MAX_LINE)}…` : text;
    this.timeline.add({ at: this.#wall(), kind, peerId, text: line, epoch: this.#epoch });
  }

  /** To be called once a second. */
  tick(members: number, now: number): void {
    let bytesPerSecond = 0;
    for (const { present, at } of this.#peers.values())
      if (now - at <= PRESENT_MS) bytesPerSecond += present.sentPerSecond;
    const committed = this.#committed - this.#committedBefore;
    this.#committedBefore = this.#committed;
    const [p50, p99] = [percentile(this.#second, 0.5), percentile(this.#second, 0.99)];
    this.timeline.addSecond({ at: this.#wall(), members, bytesPerSecond, committed, p50, p99 });
    this.#recent.push(this.#second);
    if (this.#recent.length > RECENT_SECONDS) this.#recent.shift();
    this.#second = emptyBuckets();
  }
}

/** By which ways, without what they no longer carry. */
function stillOf(flows: Figures['flows']): Figures['flows'] {
  return flows.map((flow) => ({ ...flow, bytesPerSecond: 0, queuedBytes: 0 }));
}

/** The first few names. */
function listOf(peerIds: readonly PeerId[]): string {
  const more = peerIds.length - MAX_LISTED;
  return more > 0 ? `${peerIds.slice(0, MAX_LISTED).join(', ')} and ${more} others` : peerIds.join(', ');
}

function viewText({ members }: WireView, joined: readonly PeerId[]): string {
  const who = joined.length === 0 ? 'another order or other figures' : `joined ${listOf(joined)}`;
  return `${members.length} members, ${who}`;
}

function lossText({ lost, broken, resumed }: Extract<CoordinatorMessage, { type: 'loss' }>): string {
  if (lost.length > 0) return `goes on without ${listOf(lost.map(({ peerId }) => peerId))}`;
  if (broken !== null) return `the link between ${broken.join(' and ')} is made anew`;
  return resumed ? 'somebody came back: what was open is decided anew' : 'what was open is decided anew';
}
