/**
 * The coordinator of one run, as a machine: events in, effects out; no socket, no clock, no randomness of its own.
 *
 * A peer is *warming* (welcomed; dials its future neighbours), *ready* (waits for a boundary), then a *member*.
 *
 *     joined ──▶ warming ──ready──▶ ready ──boundary──▶ member ──loss or leave──▶ gone
 *
 * - Boundary b is decided by the first member that reaches it: all ready peers come in, or nothing changes. The others get
 *   the same answer when they arrive.
 * - `done` from all members of a collective's view → `commit` to all of them.
 * - A member is lost when its connection broke *and* a neighbour saw its link close; or it did not come back in time; or
 *   its signs of life are late. Then: next epoch, `loss` to all; each answers with `progress` (what it holds); what all
 *   survivors hold is committed, everything else is redone (`decide`).
 * - A link that closed between two live members is repaired the same way, with nobody lost. If two members can't reach one
 *   another (*cut*), all attempts of the new epoch go round them; a way that is open again is used from the next epoch or view on.
 * - A peer whose connection broke comes back with a report (`resume`); a coordinator that was restarted waits for its members'
 *   reports, and makes its state from them. Messages may have been lost either way, so everything open is decided anew.
 * - A member for whom others wait may be left out of a collective that allows it (`exclude`), and stays a member.
 * - The ring's order is a fact of a generation. One that is predicted to be worth it makes a new one at a boundary (`rings.ts`).
 * - So are the figures by which the members choose algorithms (`calibration.ts`).
 *
 * Invariants: epochs only grow. A generation's members only shrink. `commit` is sent only when all members of the view hold
 * the result, so any later decision by "do all survivors hold it" agrees with it.
 */
import { UNMEASURED, type WayCosts } from '../costs.ts';
import { Lifecycle } from '../lifecycle.ts';
import { Recent } from '../recent.ts';
import type { CoordinatorMessage, IceServers, Introduction, PeerDescription } from '../wire/coordinator-messages.ts';
import {
  MAX_CUTS,
  MAX_OPEN_COLLECTIVES,
  MAX_REPORTED_FAILURES,
  MAX_REPORTED_VIEWS,
  MAX_TEXT_LENGTH,
  MAX_WORLD_SIZE,
} from '../wire/limits.ts';
import type { Exclusion, WireMember, WireView } from '../wire/parts.ts';
import type { Excludable, PeerMessage, RunReport } from '../wire/peer-messages.ts';
import { intersectRanges, type KeptRange } from '../wire/ranges.ts';
import { Calibration, type CostPeer, measuredCosts, settled } from './calibration.ts';
import { Detector, type DetectorBounds } from './detector.ts';
import { Exclusions } from './exclusions.ts';
import { Flapping } from './flapping.ts';
import { newestMembers, rebuild } from './recovery.ts';
import { type KnownLink, placeNewcomers, presentRing, Rings, type RingView } from './rings.ts';
import { Stragglers } from './stragglers.ts';
import { goesRound, hasCut, type Pair, pairOf } from './ways.ts';

export type PeerId = string;

export interface CoordinatorOptions {
  readonly heartbeatMs: number;
  readonly bounds: DetectorBounds;
  /** Cryptographically strong random bytes. */
  random(length: number): Uint8Array;
  /** STUN and TURN servers, with credentials for a peer. */
  iceServers(peerId: PeerId): IceServers;
  /** What an earlier coordinator of the run stored; null when there was none, or its store is gone. */
  readonly stored: StoredRun | null;
  /** Milliseconds in which members of a run that an earlier coordinator led may come back before a new one begins. */
  readonly graceMs: number;
  /** Whether ways between members may be measured that carry nothing. */
  readonly probes: boolean;
}

/** What must outlive a coordinator: its successor speaks with a higher term, and never gives an epoch twice. */
export interface StoredRun {
  readonly term: number;
  readonly epoch: number;
  readonly members: readonly PeerId[];
}

export type CoordinatorEvent =
  | {
      readonly type: 'joined';
      readonly connection: number;
      readonly description: PeerDescription;
      readonly startWorldSize: number;
      readonly name: string;
    }
  | {
      readonly type: 'resumed';
      readonly connection: number;
      readonly description: PeerDescription;
      readonly startWorldSize: number;
      readonly name: string;
      readonly report: RunReport;
    }
  | { readonly type: 'message'; readonly peerId: PeerId; readonly message: PeerMessage }
  | { readonly type: 'closed'; readonly peerId: PeerId }
  /** By an administrator. */
  | { readonly type: 'dismissed'; readonly peerId: PeerId }
  | { readonly type: 'tick' };

export type CoordinatorEffect =
  /** To be stored before anything that follows is carried out. */
  | { readonly type: 'store'; readonly run: StoredRun }
  /** The connection on which a peer joined now belongs to `peerId`. */
  | { readonly type: 'assign'; readonly connection: number; readonly peerId: PeerId }
  | { readonly type: 'send'; readonly peerId: PeerId; readonly message: CoordinatorMessage }
  /** After everything sent so far has left. */
  | { readonly type: 'close'; readonly peerId: PeerId; readonly reason: string }
  | { readonly type: 'note'; readonly text: string };

/** What a run looks like: plain data. */
export interface CoordinatorSnapshot {
  readonly term: number;
  readonly epoch: number;
  readonly generation: number;
  readonly members: readonly PeerId[];
  /** Still connecting to the members. */
  readonly warming: readonly PeerId[];
  /** Come in at the next boundary. */
  readonly ready: readonly PeerId[];
  /** Everybody who is here. */
  readonly peers: readonly { readonly peerId: PeerId; readonly site: string; readonly state: PeerState }[];
  /** Held by some members, and not yet by all. */
  readonly openCollectives: number;
  /** The oldest of these: how many hold it, and who does not, as far as they are told. */
  readonly collectives: readonly { readonly id: string; readonly held: number; readonly awaited: readonly PeerId[] }[];
  /** Restarted, and waiting for the members' reports. */
  readonly recovering: boolean;
  /** The members in the order of the ring. */
  readonly ring: readonly PeerId[];
  /** Members that can't reach one another. */
  readonly cuts: readonly Pair[];
  /** What the ways between them were measured to be worth. */
  readonly links: readonly KnownLink[];
  /** By which figures they choose algorithms; null: there is no view. */
  readonly costs: WayCosts | null;
}

type PeerState = 'warming' | 'ready' | 'member';

const PEER = new Lifecycle<PeerState | 'gone'>('peer', {
  warming: ['ready', 'member', 'gone'],
  ready: ['member', 'gone'],
  member: ['gone'],
  gone: [],
});

/** `vacant`: all members are gone. */
type RunState = 'blank' | 'recovering' | 'steady' | 'deciding' | 'vacant';

const RUN = new Lifecycle<RunState>('run', {
  blank: ['recovering', 'steady', 'deciding'],
  recovering: ['blank', 'steady', 'deciding', 'vacant'],
  steady: ['deciding', 'vacant'],
  deciding: ['steady', 'vacant'],
  vacant: ['steady'],
});

interface PeerRecord {
  readonly peerId: PeerId;
  readonly description: PeerDescription;
  readonly startWorldSize: number;
  /** By which it is known again after a restart; null when it has no name. */
  readonly name: string | null;
  /** When it may come in. */
  readonly notBefore: number;
  admittedAt: number;
  readonly detector: Detector;
  state: PeerState;
  /** When its connection broke; null while it is connected. */
  disconnectedAt: number | null;
  /** When a neighbour last saw its link to this peer close. */
  linkClosedAt: number;
  /** Last boundary that it has passed for sure. */
  boundary: number;
  /** Last boundary whose decision it was sent. */
  answered: number;
  oldest: number;
  /** Peers that it was introduced to, and by which introduction. */
  readonly knows: Map<PeerId, number>;
  /** Losses that it may not have heard of. */
  missed: Lost[];
}

interface Generation {
  readonly generation: number;
  /** Where it was made: peers that have not passed this boundary do not know it yet. */
  readonly boundary: number;
  epoch: number;
  members: PeerId[];
  readonly joined: readonly PeerId[];
  /** In the order of the ring; also members that are lost since. */
  readonly ring: readonly PeerId[];
  /** Pairs that could not reach one another when the epoch began. */
  cuts: readonly Pair[];
  /** By which its members choose. */
  readonly costs: WayCosts;
}

/** What its members are told of a generation. */
interface Told {
  readonly of: Generation;
  /** Of which members and cuts: they are replaced when they change. */
  readonly members: readonly PeerId[];
  readonly cuts: readonly Pair[];
  readonly view: WireView;
  /** Who came in with it, and is there still. */
  readonly joined: PeerId[];
}

/** A collective that some members hold. */
interface Done {
  readonly generation: number;
  readonly by: Set<PeerId>;
  /** So many members it could do without. */
  spare: number;
  /** When the last of them said so. */
  at: number;
}

/** A restarted coordinator waits for these, at most until its patience ends. */
interface Recovery {
  readonly reports: Map<PeerId, RunReport>;
  awaited: ReadonlySet<PeerId>;
  readonly until: number;
}

interface Decision {
  readonly epoch: number;
  /** Messages may have been lost before it. */
  readonly resumed: boolean;
  readonly awaited: Set<PeerId>;
  /** By member: ids, and the epoch of the attempt that each result is of. */
  readonly held: Map<PeerId, ReadonlyMap<string, number>>;
  /** Eager calls, and the members where they have returned. */
  readonly returned: Map<string, Set<PeerId>>;
  /** By member: what is finished of calls that salvage what they can. */
  readonly finished: Map<PeerId, ReadonlyMap<string, readonly KeptRange[]>>;
}

interface PendingBoundary {
  readonly peerId: PeerId;
  readonly index: number;
  readonly minWorldSize: number;
}

type FailCode = Extract<CoordinatorMessage, { type: 'fail' }>['code'];

interface FailedCollective {
  readonly generation: number;
  readonly message: Extract<CoordinatorMessage, { type: 'fail' }>;
}

interface Lost {
  readonly peerId: PeerId;
  readonly reason: string;
}

/** Why a connection is closed whose peer has another one. */
export const BACK = 'it came back by another connection';

/** A link that closed is repaired after this time, unless it turns out that a peer died. */
const REPAIR_DELAY_MS = 200;

/** Evidence that a neighbour's link closed counts for so long. */
const EVIDENCE_MS = 5_000;

/** A tick that comes later than so many heartbeats after the previous one means that the coordinator itself was asleep. */
const ASLEEP_HEARTBEATS = 4;

/** Between looks at who holds the others up (ms). */
const LOOK_MS = 1_000;

/** All but a few hold a collective that could do without those few: they are waited for so long (ms). */
const HELD_PATIENCE_MS = 3_000;

/** Boundaries that a peer may ask for before the first of them is decided. */
const MAX_BOUNDARIES_AHEAD = 64;

/** Failed collectives that are remembered, to answer late messages about them only once, and to tell late members. */
const MAX_FAILED = 4_096;

/** Lost members that are remembered: one of them may not know yet that it was a member. */
const MAX_FALLEN = 4_096;

/** Open collectives that a snapshot tells of, and members that one of them waits for. */
const MAX_SHOWN = 64;

export class CoordinatorMachine {
  readonly #options: CoordinatorOptions;
  readonly #peers: Map<PeerId, PeerRecord> = new Map();
  readonly #generations: Map<number, Generation> = new Map();
  readonly #done: Map<string, Done> = new Map();
  readonly #failed: Map<string, FailedCollective> = new Map();
  readonly #repairs: Map<string, { readonly pair: Pair; readonly at: number }> = new Map();
  /** Peers that can't reach one another, and which of the two say so. */
  readonly #cuts: Map<string, { readonly pair: Pair; readonly by: Set<PeerId> }> = new Map();
  /** Members that were lost: they can't come in under the same name, which others may still know from a view. */
  readonly #fallen: Recent<PeerId> = new Recent(MAX_FALLEN);
  readonly #flapping: Flapping = new Flapping();
  readonly #stragglers: Stragglers = new Stragglers();
  /** Collectives that were committed lately: nothing that is still said of them counts. */
  readonly #committed: Recent<string> = new Recent(2 * MAX_OPEN_COLLECTIVES);
  readonly #exclusions: Exclusions = new Exclusions();
  readonly #rings: Rings;
  readonly #calibration: Calibration = new Calibration();
  #lastLook = 0;
  #pending: PendingBoundary[] = [];
  #decision: Decision | null = null;
  #recovery: Recovery | null = null;
  /** Of the generation that was last told of, and the answers that were made of it: most members are told the same. */
  #told: Told | null = null;
  #answer: Extract<CoordinatorMessage, { type: 'boundary' }> | null = null;
  #term: number;
  #epoch: number;
  /** No view was formed by this coordinator, so what it does not know is what another one decided. */
  #isBlank = true;
  #graceUntil: number;
  /** The last step was within the grace. */
  #inGrace = true;
  #current: Generation | null = null;
  #boundary = 0;
  #joins = 0;
  #lastTick: number | null = null;
  #effects: CoordinatorEffect[] = [];
  /** At the end of the last step. */
  #state: RunState;
  #now = 0;

  constructor(options: CoordinatorOptions, now = 0) {
    this.#options = options;
    const { stored, bounds, graceMs, probes } = options;
    this.#rings = new Rings(probes);
    this.#graceUntil = now + graceMs;
    this.#term = (stored?.term ?? 0) + 1;
    this.#epoch = stored?.epoch ?? 0;
    if (stored !== null && stored.members.length > 0) {
      this.#recovery = { reports: new Map(), awaited: new Set(stored.members), until: now + bounds.minimumMs };
    }
    this.#state = this.#stateNow;
  }

  /** Which coordinator speaks: every message bears it. */
  get term(): number {
    return this.#term;
  }

  /** The epoch that every message bears. */
  get epoch(): number {
    return this.#epoch;
  }

  /** Nobody is here: the run can be forgotten, but for its epoch. */
  get empty(): boolean {
    return this.#peers.size === 0;
  }

  /** Peers that are here, members or not. */
  get size(): number {
    return this.#peers.size;
  }

  /** Members of the present view. */
  get worldSize(): number {
    return this.#memberCount;
  }

  /** For status pages and tests. */
  snapshot(): CoordinatorSnapshot {
    const inState = (state: PeerRecord['state']) =>
      [...this.#peers.values()].filter((peer) => peer.state === state).map((peer) => peer.peerId);
    const collectives = [...this.#done].slice(0, MAX_SHOWN).map(([id, { generation, by }]) => {
      const members = this.#exclusions.left(id, this.#generations.get(generation)?.members ?? []);
      return { id, held: by.size, awaited: members.filter((peerId) => !by.has(peerId)).slice(0, MAX_SHOWN) };
    });
    return {
      term: this.#term,
      epoch: this.#epoch,
      generation: this.#current?.generation ?? 0,
      members: [...(this.#current?.members ?? [])],
      warming: inState('warming'),
      ready: inState('ready'),
      peers: [...this.#peers.values()].map(({ peerId, description, state }) => ({
        peerId,
        site: description.site,
        state,
      })),
      openCollectives: this.#done.size,
      collectives,
      recovering: this.#recovery !== null,
      ring: this.#current === null ? [] : this.#ringView(this.#current).ring.map(({ peerId }) => peerId),
      cuts: this.#cutsAmong(this.#current?.members ?? []),
      links: this.#rings.links,
      costs: this.#current?.costs ?? null,
    };
  }

  step(event: CoordinatorEvent, now: number): CoordinatorEffect[] {
    this.#effects = [];
    this.#now = now;
    const [term, epoch] = [this.#term, this.#epoch];
    switch (event.type) {
      case 'joined':
        this.#join(event);
        break;
      case 'resumed':
        this.#resume(event);
        break;
      case 'message': {
        const peer = this.#peers.get(event.peerId);
        if (peer === undefined) break; // evicted or gone: fenced
        peer.detector.signal(now);
        this.#message(peer, event.message);
        break;
      }
      case 'closed':
        this.#closed(event.peerId);
        break;
      case 'dismissed':
        this.#lose([{ peerId: event.peerId, reason: 'it was dismissed by an administrator' }]);
        break;
      case 'tick':
        this.#tick();
        break;
      default:
        event satisfies never;
    }
    this.#state = RUN.step(this.#state, this.#stateNow);
    if (term !== this.#term || epoch !== this.#epoch) {
      // Before it knows better, the members are those of the coordinator before it.
      const members = this.#current?.members ?? (this.#isBlank ? (this.#options.stored?.members ?? []) : []);
      const run = { term: this.#term, epoch: this.#epoch, members: [...members] };
      this.#effects.unshift({ type: 'store', run });
    }
    return this.#effects;
  }

  get #stateNow(): RunState {
    if (this.#recovery !== null) return 'recovering';
    if (this.#current === null) return this.#isBlank ? 'blank' : 'vacant';
    return this.#decision === null ? 'steady' : 'deciding';
  }

  // --- joining -----------------------------------------------------------------------------------------------------

  #join(event: Extract<CoordinatorEvent, { type: 'joined' }>): void {
    const suffix = [...this.#options.random(4)].map((byte) => byte.toString(16).padStart(2, '0')).join('');
    const peerId = `p${this.#joins++}-${suffix}`;
    const peers: Introduction[] = [];
    for (const other of this.#peers.values()) {
      const key = this.#options.random(32);
      const pair = this.#newPair();
      peers.push({ peerId: other.peerId, pair, key, ...other.description });
      this.#introduce(other, { peerId, pair, key, ...event.description });
    }
    const peer = this.#enroll(peerId, event);
    for (const other of peers) peer.knows.set(other.peerId, other.pair);
    const { heartbeatMs, bounds } = this.#options;
    const ice = this.#options.iceServers(peerId);
    this.#send(peerId, { type: 'welcome', peerId, heartbeatMs, boundMs: bounds.minimumMs, ice, peers });
  }

  #introduce(to: PeerRecord, peer: Introduction): void {
    to.knows.set(peer.peerId, peer.pair);
    this.#send(to.peerId, { type: 'introduce', peer });
  }

  #newPair(): number {
    return this.#options.random(4).reduce((number, byte) => number * 256 + byte, 0);
  }

  #enroll(peerId: PeerId, event: Extract<CoordinatorEvent, { type: 'joined' | 'resumed' }>): PeerRecord {
    const { description, startWorldSize, connection } = event;
    const name = event.name === '' ? null : `${description.hostKey} ${event.name}`;
    const wait = name === null ? 0 : this.#flapping.waitOf(name, this.#now);
    if (wait > 0) this.#note(`${peerId} has died too often: it is let in ${Math.round(wait)} ms later`);
    const peer: PeerRecord = {
      peerId,
      description,
      startWorldSize,
      name,
      notBefore: this.#now + wait,
      admittedAt: this.#now,
      detector: new Detector(this.#now, this.#options.heartbeatMs, this.#options.bounds),
      state: 'warming',
      disconnectedAt: null,
      linkClosedAt: Number.NEGATIVE_INFINITY,
      boundary: 0,
      answered: 0,
      oldest: 0,
      knows: new Map(),
      missed: [],
    };
    this.#peers.set(peerId, peer);
    this.#effects.push({ type: 'assign', connection, peerId });
    return peer;
  }

  #ready(peer: PeerRecord): void {
    if (peer.state !== 'warming') return;
    step(peer, 'ready');
    this.#letIn();
  }

  /** Whoever is ready may now come in, or somebody's quorum be there. */
  #letIn(): void {
    if (this.#recovery !== null || this.#now < this.#graceUntil) return;
    if (this.#memberCount === 0) this.#formFirstView();
    else this.#retryPending();
  }

  get #memberCount(): number {
    return this.#current?.members.length ?? 0;
  }

  #readyPeers(): PeerRecord[] {
    const nobody = this.#memberCount === 0; // who could be held up
    return [...this.#peers.values()].filter(
      (peer) => peer.state === 'ready' && peer.disconnectedAt === null && (nobody || peer.notBefore <= this.#now),
    );
  }

  /** With nobody in the view, the ready peers form one as soon as they are as many as each of them wants. */
  #formFirstView(): void {
    const ready = this.#readyPeers();
    const wanted = Math.max(...ready.map((peer) => peer.startWorldSize));
    if (ready.length > 0 && ready.length >= wanted) this.#decideBoundary(this.#boundary + 1);
  }

  // --- boundaries --------------------------------------------------------------------------------------------------

  #onBoundary(peer: PeerRecord, message: Extract<PeerMessage, { type: 'boundary' }>): void {
    const { index, passed, minWorldSize, oldest } = message;
    if (peer.state !== 'member') return;
    peer.boundary = Math.max(peer.boundary, Math.min(passed, this.#boundary));
    // One that ran out of patience may ask again while the answer is on its way: it must not get a second.
    if (index <= peer.answered) return;
    if (this.#recovery === null && index > this.#boundary + MAX_BOUNDARIES_AHEAD) {
      this.#expel(peer, `it asked for boundary ${index} where ${this.#boundary + 1} is next`);
      return;
    }
    peer.oldest = oldest;
    const asked: PendingBoundary = { peerId: peer.peerId, index, minWorldSize };
    const before = this.#pending.findIndex((one) => one.peerId === peer.peerId && one.index === index);
    if (before >= 0) this.#pending[before] = asked;
    else this.#pending.push(asked);
    this.#letIn();
  }

  /** Decides the next boundaries at which one of those waiting would have its quorum, and answers all that can be answered. */
  #retryPending(): void {
    const reachable = this.#memberCount + this.#readyPeers().length;
    const decidable = (one: PendingBoundary) => one.index === this.#boundary + 1 && one.minWorldSize <= reachable;
    while (this.#pending.some(decidable)) this.#decideBoundary(this.#boundary + 1);
    const waiting: PendingBoundary[] = [];
    for (const one of this.#pending) {
      if (one.index <= this.#boundary) this.#answerBoundary(one);
      else waiting.push(one);
    }
    this.#pending = waiting;
    this.#prune();
  }

  #decideBoundary(index: number): void {
    const joining = this.#readyPeers().slice(0, MAX_WORLD_SIZE - this.#memberCount);
    this.#boundary = index;
    const members = [...(this.#current?.members ?? []), ...joining.map((peer) => peer.peerId)];
    const cuts = this.#cutsAmong(members);
    const isOpenAgain = this.#current?.cuts.some((pair) => !this.#cuts.has(pair.join(' '))) === true;
    const better = joining.length === 0 ? this.#betterRing() : null;
    const isOff = this.#current !== null && this.#calibration.isDue(this.#now);
    // Where a way is open again, the ring has a better order, or figures are off, a view with the same members is made.
    if (joining.length === 0 && !isOpenAgain && better === null && !isOff) return;
    this.#isBlank = false;
    this.#epoch += 1;
    const joined = joining.map((peer) => peer.peerId);
    const siteOf = (peerId: PeerId) => this.#peers.get(peerId)?.description.site ?? '';
    const ring =
      better ?? placeNewcomers(this.#current?.ring.filter((peerId) => members.includes(peerId)) ?? [], joined, siteOf);
    const agreed = this.#current?.costs ?? UNMEASURED;
    const generation: Generation = {
      generation: this.#epoch,
      boundary: index,
      epoch: this.#epoch,
      members,
      joined,
      ring,
      cuts,
      costs: settled(agreed, measuredCosts(this.#ringView({ ring, members }), this.#rings, agreed)),
    };
    this.#calibration.onAgreed(this.#now);
    this.#current = generation;
    this.#generations.set(generation.generation, generation);
    const admitted = this.#admissionTo(generation);
    for (const peer of joining) this.#admit(peer, generation, admitted);
    this.#note(
      `boundary ${index}: epoch ${this.#epoch}, ${generation.members.length} members, joined ${joined.join(', ')}`,
    );
    if (better !== null) this.#note(`the ring has a new order: ${better.join(', ')}`);
    if (generation.costs !== agreed) this.#note(`algorithms are chosen by ${JSON.stringify(generation.costs)}`);
  }

  #betterRing(): readonly PeerId[] | null {
    return this.#current === null ? null : this.#rings.better(this.#ringView(this.#current), this.#now);
  }

  /** A generation's ring as the members go it, if they knew what can't be reached now. */
  #ringView({ ring, members }: Pick<Generation, 'ring' | 'members'>): RingView<CostPeer> {
    const peers = new Map<PeerId, CostPeer>();
    for (const peerId of members) {
      const description = this.#peers.get(peerId)?.description;
      if (description === undefined) continue;
      const { site, hostKey, cores } = description;
      peers.set(peerId, { peerId, site, hostKey, cores });
    }
    const cuts = this.#cutsAmong(members);
    const isCut = (from: PeerId, to: PeerId) => cuts.length > 0 && hasCut(cuts, pairOf(from, to));
    return { ring: presentRing(ring, peers, isCut), isCut };
  }

  #admissionTo(generation: Generation): CoordinatorMessage {
    const { view, joined } = this.#toldOf(generation);
    const [failed, excluded] = [this.#verdictsOf(generation), this.#exclusionsOf(generation)];
    return { type: 'admitted', index: generation.boundary, view, joined, failed, excluded };
  }

  #admit(peer: PeerRecord, generation: Generation, admitted: CoordinatorMessage = this.#admissionTo(generation)): void {
    step(peer, 'member');
    peer.admittedAt = this.#now;
    peer.boundary = generation.boundary;
    peer.answered = generation.boundary;
    peer.oldest = generation.generation;
    this.#send(peer.peerId, admitted);
  }

  #verdictsOf(generation: Generation | undefined): Omit<FailedCollective['message'], 'type'>[] {
    const failed = [...this.#failed.values()].filter((one) => one.generation === generation?.generation);
    return failed.slice(-MAX_REPORTED_FAILURES).map(({ message: { type, ...verdict } }) => verdict);
  }

  #exclusionsOf(generation: Generation | undefined): Exclusion[] {
    const concerned = this.#exclusions.all.filter(({ id }) => generationOf(id) === generation?.generation);
    return concerned.slice(-MAX_REPORTED_FAILURES);
  }

  /** A boundary is decided when its number is passed; the generation that was made there, if one was, says how. */
  #answerBoundary(one: PendingBoundary): void {
    const peer = this.#peers.get(one.peerId);
    if (peer === undefined) return;
    peer.answered = one.index;
    const generation = [...this.#generations.values()].find((made) => made.boundary === one.index);
    const { view, joined } = generation === undefined ? { view: null, joined: [] } : this.#toldOf(generation);
    const failed = this.#verdictsOf(generation);
    const excluded = this.#exclusionsOf(generation);
    const last = this.#answer;
    const isSame =
      last !== null &&
      last.index === one.index &&
      last.view === view &&
      [failed, excluded, last.failed, last.excluded].every(({ length }) => length === 0);
    const answer = isSame ? last : ({ type: 'boundary', index: one.index, view, joined, failed, excluded } as const);
    this.#answer = answer;
    this.#send(one.peerId, answer);
  }

  /** The same object as long as it is the same view: whoever encodes it may do so once for all members. */
  #toldOf(generation: Generation): Told {
    const { epoch, members, cuts } = generation;
    const told = this.#told;
    if (told?.of === generation && told.view.epoch === epoch && told.members === members && told.cuts === cuts)
      return told;
    const present = new Set(members);
    const joined = generation.joined.filter((peerId) => present.has(peerId));
    this.#told = { of: generation, members, cuts, view: this.#wireView(generation), joined };
    return this.#told;
  }

  #wireView(generation: Generation): WireView {
    const places = new Map(generation.ring.map((peerId, place) => [peerId, place]));
    const members: WireMember[] = generation.members.map((peerId) => ({
      peerId,
      site: this.#peers.get(peerId)?.description.site ?? '',
      place: places.get(peerId) ?? 0,
    }));
    const { epoch, generation: number, boundary, cuts, costs } = generation;
    return { epoch, generation: number, boundary, members, cuts: cuts.map(([one, other]) => [one, other]), costs };
  }

  /** Forgets generations that every member has passed, and in which nobody can have anything open. */
  #prune(): void {
    let passed = this.#boundary;
    let oldest = this.#current?.generation ?? 0;
    for (const peer of this.#peers.values()) {
      if (peer.state !== 'member') continue;
      passed = Math.min(passed, peer.boundary);
      oldest = Math.min(oldest, peer.oldest);
    }
    for (const { generation, boundary } of this.#generations.values())
      if (generation < oldest && boundary <= passed) this.#generations.delete(generation);
    this.#exclusions.forget((id) => !this.#generations.has(generationOf(id)));
  }

  // --- messages ----------------------------------------------------------------------------------------------------

  #message(peer: PeerRecord, message: PeerMessage): void {
    switch (message.type) {
      case 'ready':
        this.#ready(peer);
        break;
      case 'beat':
        this.#send(peer.peerId, { type: 'beat' });
        break;
      case 'boundary':
        this.#onBoundary(peer, message);
        break;
      case 'done':
        this.#onDone(peer, message);
        break;
      case 'progress':
        this.#onProgress(peer, message);
        break;
      case 'mismatch':
        this.#onMismatch(peer, message);
        break;
      case 'withdraw':
        this.#failCollective(
          peer.peerId,
          message.id,
          message.generation,
          'withdrawn',
          `${peer.peerId} withdrew: ${message.reason}`,
        );
        break;
      case 'link-closed':
        this.#onLinkClosed(peer, message.peerId);
        break;
      case 'path':
        this.#onPath(peer, message);
        break;
      case 'signal':
      case 'ice':
      case 'notes':
      case 'ask-flights':
      case 'flight':
      case 'figures':
        break; // the server's affair: they change nothing
      case 'waits':
        this.#stragglers.report(peer.peerId, message.waits, this.#now);
        break;
      case 'links':
        this.#rings.report(peer.peerId, message.links, (peerId) => this.#isExpected(peerId), this.#now);
        break;
      case 'leave':
        this.#lose([{ peerId: peer.peerId, reason: 'left' }]);
        break;
      case 'hello':
      case 'prove':
      case 'resume':
        this.#expel(peer, 'it greeted twice');
        break;
      default:
        message satisfies never;
    }
  }

  /** Whether a peer is here, or is to come back. */
  #isExpected(peerId: PeerId): boolean {
    return this.#peers.has(peerId) || this.#recovery?.awaited.has(peerId) === true;
  }

  #onDone(peer: PeerRecord, message: Extract<PeerMessage, { type: 'done' }>): void {
    const generation = this.#generations.get(message.generation);
    // An attempt of an earlier epoch: `progress` tells what is held.
    if (generation === undefined || this.#failed.has(message.id)) return;
    if (this.#exclusions.epochOf(message.id, generation.epoch) !== message.epoch) return;
    const members = this.#exclusions.left(message.id, generation.members);
    if (!members.includes(peer.peerId)) return;
    let done = this.#done.get(message.id);
    if (done === undefined) {
      if (this.#done.size >= MAX_OPEN_COLLECTIVES * 2) {
        // The table is everybody's: who has filled it need not be who finds it full.
        this.#expel(this.#busiest() ?? peer, 'it has too many collectives open');
        return;
      }
      done = { generation: generation.generation, by: new Set(), spare: 0, at: this.#now };
      this.#done.set(message.id, done);
    }
    done.by.add(peer.peerId);
    done.spare = message.spare;
    done.at = this.#now;
    if (done.by.size < members.length) return;
    this.#done.delete(message.id);
    this.#committed.add(message.id);
    const commit = { type: 'commit', id: message.id, epoch: message.epoch } as const;
    for (const member of members) this.#send(member, commit);
  }

  /** Who holds the most collectives that are not committed yet. */
  #busiest(): PeerRecord | undefined {
    const counts = new Map<PeerId, number>();
    for (const { by } of this.#done.values())
      for (const peerId of by) counts.set(peerId, (counts.get(peerId) ?? 0) + 1);
    const [most] = [...counts].sort(([, left], [, right]) => right - left);
    return most === undefined ? undefined : this.#peers.get(most[0]);
  }

  #onMismatch(peer: PeerRecord, message: Extract<PeerMessage, { type: 'mismatch' }>): void {
    const text = `the peers called it differently: ${peer.peerId} called ${message.mine}, ${message.with} called ${message.theirs}. Make the same call on every member.`;
    this.#failCollective(peer.peerId, message.id, message.generation, 'mismatch', text);
  }

  #failCollective(by: PeerId, id: string, number: number, code: FailCode, message: string): void {
    const report = this.#recovery?.reports.get(by);
    if (report !== undefined) {
      // Which views there are is not known yet: it is as if the peer had reported it.
      const failed = [...report.failed, { id, generation: number, code, message: message.slice(0, MAX_TEXT_LENGTH) }];
      this.#recovery?.reports.set(by, { ...report, failed: failed.slice(-MAX_REPORTED_FAILURES) });
      return;
    }
    const generation = this.#generations.get(number);
    if (generation === undefined || this.#failed.has(id) || !generation.members.includes(by)) return;
    if (this.#committed.has(id)) return; // members that don't know yet must not hear otherwise
    if (this.#exclusions.isExcluded(id, by)) return; // the others don't wait for it
    if (this.#failed.size >= MAX_FAILED)
      for (const oldest of this.#failed.keys()) {
        this.#failed.delete(oldest);
        break;
      }
    const fail = { type: 'fail', id, code, message: message.slice(0, MAX_TEXT_LENGTH), peerId: by } as const;
    this.#failed.set(id, { generation: number, message: fail });
    this.#done.delete(id);
    // Who does not know the generation yet is told along with its view.
    for (const member of generation.members)
      if ((this.#peers.get(member)?.answered ?? 0) >= generation.boundary) this.#send(member, fail);
  }

  // --- coming back -------------------------------------------------------------------------------------------------

  #resume(event: Extract<CoordinatorEvent, { type: 'resumed' }>): void {
    const { report, connection } = event;
    const { peerId } = report;
    const known = this.#peers.get(peerId);
    const isForeign = report.state === 'member' && known?.state !== 'member' && !this.#isBlank;
    const newest = report.views.at(-1);
    const isStrange = newest !== undefined && !newest.members.some((member) => member.peerId === peerId);
    if (
      isForeign ||
      isStrange ||
      this.#wasLost(report) ||
      this.#fallen.has(peerId) ||
      (known !== undefined && report.term > this.#term)
    ) {
      this.#effects.push({ type: 'assign', connection, peerId });
      const reason = 'the run went on while it was away';
      this.#send(peerId, { type: 'evicted', reason });
      this.#effects.push({ type: 'close', peerId, reason });
      return;
    }
    if (this.#isBlank) {
      // From the first word on: peers refuse what bears less than they have heard.
      this.#term = Math.max(this.#term, report.term + 1);
      this.#epoch = Math.max(this.#epoch, report.epoch);
    }
    if (known !== undefined && known.disconnectedAt === null)
      this.#effects.push({ type: 'close', peerId, reason: BACK });
    const peer = known ?? this.#enroll(peerId, event);
    if (known !== undefined) this.#effects.push({ type: 'assign', connection, peerId });
    peer.disconnectedAt = null;
    // It tells again what it can't reach.
    this.#forgetCuts((_, by) => by.delete(peerId) && by.size === 0);
    peer.detector.signal(this.#now);
    peer.knows.clear();
    for (const other of report.peers) peer.knows.set(other.peerId, other.pair);
    const knowsAll = !this.#isBlank && this.#recovery === null; // else others may still come back
    if (knowsAll) this.#dismissGone(peer);
    const { heartbeatMs, bounds } = this.#options;
    this.#send(peerId, { type: 'resumed', heartbeatMs, boundMs: bounds.minimumMs });
    this.#acquaint(peer);
    if (report.state === 'member' && peer.state !== 'member') this.#expect(peer, report);
    else if (peer.state === 'member') this.#catchUp(peer, report);
    else if (report.state === 'ready') this.#ready(peer);
  }

  /** As the store tells, the coordinator before this one had lost it: others may have gone on, and been told so, without it. */
  #wasLost({ peerId, state, epoch }: RunReport): boolean {
    const { stored } = this.#options;
    if (stored === null || !this.#isBlank || state !== 'member') return false;
    return epoch <= stored.epoch && !stored.members.includes(peerId);
  }

  /** Introduces a peer to all who missed that, each pair with a fresh key. */
  #acquaint(peer: PeerRecord): void {
    for (const other of this.#peers.values()) {
      const known = peer.knows.get(other.peerId);
      if (other === peer || (known !== undefined && known === other.knows.get(peer.peerId))) continue;
      const key = this.#options.random(32);
      const pair = this.#newPair();
      this.#introduce(peer, { peerId: other.peerId, pair, key, ...other.description });
      this.#introduce(other, { peerId: peer.peerId, pair, key, ...peer.description });
    }
  }

  /** A member of ours is back: tells it what it may have missed. */
  #catchUp(peer: PeerRecord, report: RunReport): void {
    if (this.#recovery !== null) {
      this.#expect(peer, report);
      return;
    }
    peer.boundary = report.boundary;
    peer.answered = report.boundary;
    peer.missed = this.#goneFrom(report);
    for (const failed of report.failed)
      this.#failCollective(peer.peerId, failed.id, failed.generation, failed.code, failed.message);
    for (const failed of this.#failed.values())
      if ((this.#generations.get(failed.generation)?.boundary ?? 0) <= peer.answered)
        this.#send(peer.peerId, failed.message);
    for (const exclusion of this.#exclusions.all) this.#tellExclusion(exclusion, [peer.peerId]);
    this.#newEpoch([], null, true);
    // After the loss, so that it calls nothing before what was open is decided.
    const made = [...this.#generations.values()].find((generation) => generation.joined.includes(peer.peerId));
    if (report.state !== 'member' && made !== undefined) this.#admit(peer, made);
  }

  #goneFrom(report: RunReport): Lost[] {
    const gone = [...namesIn(report)].filter((peerId) => !this.#peers.has(peerId));
    return gone.map((peerId) => ({ peerId, reason: 'it was lost while this peer was away' }));
  }

  #dismissGone(peer: PeerRecord): void {
    for (const peerId of peer.knows.keys()) {
      if (this.#peers.has(peerId)) continue;
      peer.knows.delete(peerId);
      this.#send(peer.peerId, { type: 'dismiss', peerId });
    }
  }

  /** A member of a run that another coordinator led: its report is part of what the run is rebuilt from. */
  #expect(peer: PeerRecord, report: RunReport): void {
    step(peer, 'member');
    const until = this.#now + this.#options.bounds.minimumMs;
    this.#recovery ??= { reports: new Map(), awaited: new Set(), until };
    const recovery = this.#recovery;
    recovery.reports.set(peer.peerId, report);
    const newest = newestMembers(recovery.reports.values());
    recovery.awaited = new Set([...recovery.awaited, ...newest]);
    if ([...recovery.awaited].every((peerId) => this.#peers.get(peerId)?.disconnectedAt === null))
      this.#rebuild(recovery);
  }

  /** Makes the run's state from the reports. Who has not reported is lost. */
  #rebuild({ reports }: Recovery): void {
    const { epoch, boundary, views } = rebuild(reports.values());
    this.#epoch = Math.max(this.#epoch, epoch);
    this.#boundary = Math.max(this.#boundary, boundary);
    const present = new Set(views.at(-1)?.members.map((member) => member.peerId));
    const named = new Set([...reports.values()].flatMap((report) => [...namesIn(report)]));
    const strangers = [...reports.keys(), ...named].filter((peerId) => !present.has(peerId));
    for (const peerId of strangers) this.#fallen.add(peerId);
    this.#lose(strangers.map((peerId) => ({ peerId, reason: 'the run went on while it was away' })));
    this.#recovery = null;
    let before: readonly PeerId[] = [];
    const missing = new Map<PeerId, Lost>();
    for (const view of views) {
      const members = view.members.map((member) => member.peerId);
      const joined = members.filter((peerId) => !before.includes(peerId));
      before = members;
      for (const peerId of members)
        if (!this.#peers.has(peerId))
          missing.set(peerId, { peerId, reason: 'it did not come back to the coordinator' });
      const ring = [...view.members].sort((left, right) => left.place - right.place).map(({ peerId }) => peerId);
      const generation: Generation = { ...view, members, joined, ring };
      this.#generations.set(view.generation, generation);
      this.#current = generation;
    }
    if (this.#current !== null) {
      this.#isBlank = false;
      this.#graceUntil = this.#now; // they are back
    }
    for (const [peerId, report] of reports) {
      const peer = this.#peers.get(peerId);
      if (peer === undefined) continue;
      peer.boundary = report.boundary;
      peer.answered = report.boundary;
      peer.missed = this.#goneFrom(report);
    }
    // Newcomers, too: one that is still to be told of its view drops the lost along with the members.
    for (const peer of this.#peers.values()) this.#dismissGone(peer);
    // First, as who is excluded can't fail it for the others.
    for (const report of reports.values()) for (const exclusion of report.excluded) this.#exclusions.add(exclusion);
    for (const [peerId, report] of reports) {
      for (const failed of report.failed)
        this.#failCollective(peerId, failed.id, failed.generation, failed.code, failed.message);
    }
    for (const exclusion of this.#exclusions.all) this.#tellExclusion(exclusion);
    this.#note(`rebuilt from ${reports.size} reports: epoch ${this.#epoch}, boundary ${this.#boundary}`);
    if (this.#current !== null) this.#newEpoch([...missing.values()], null, true);
    for (const generation of this.#generations.values()) {
      for (const peerId of generation.joined) {
        const peer = this.#peers.get(peerId);
        if (peer !== undefined && peer.state !== 'member') this.#admit(peer, generation);
      }
    }
    this.#lose(this.#laggards(reports));
    this.#letIn();
  }

  /** Members so far behind that nobody remembers what was decided at their next boundaries. */
  #laggards(reports: ReadonlyMap<PeerId, RunReport>): Lost[] {
    let horizon = 0;
    for (const { views } of reports.values())
      if (views.length === MAX_REPORTED_VIEWS) horizon = Math.max(horizon, views[0]!.boundary);
    const behind = [...reports].filter(([, report]) => report.boundary < horizon);
    return behind.map(([peerId]) => ({ peerId, reason: 'it was too far behind when the coordinator was restarted' }));
  }

  // --- losses ------------------------------------------------------------------------------------------------------

  #closed(peerId: PeerId): void {
    const peer = this.#peers.get(peerId);
    if (peer === undefined) return;
    peer.disconnectedAt = this.#now;
    const seen = this.#now - peer.linkClosedAt < EVIDENCE_MS;
    if (peer.state !== 'member' || seen) this.#lose([{ peerId, reason: 'its connections closed' }]);
  }

  #onLinkClosed(reporter: PeerRecord, peerId: PeerId): void {
    const peer = this.#peers.get(peerId);
    if (peer === undefined || peer.state !== 'member' || reporter.state !== 'member') return;
    peer.linkClosedAt = this.#now;
    if (peer.disconnectedAt !== null) {
      this.#lose([{ peerId, reason: 'its connections closed' }]);
      return;
    }
    this.#repairSoon(pairOf(reporter.peerId, peerId));
  }

  #repairSoon(pair: Pair): void {
    // Where nothing that is open uses the link, it may close without harm.
    if ([...this.#generations.values()].every((generation) => goesRound(generation, pair))) return;
    const key = pair.join(' ');
    if (!this.#repairs.has(key)) this.#repairs.set(key, { pair, at: this.#now + REPAIR_DELAY_MS });
  }

  /** A peer can't reach another any more, or can again. Only the former concerns what is open. */
  #onPath(reporter: PeerRecord, { peerId, open }: Extract<PeerMessage, { type: 'path' }>): void {
    if (!this.#peers.has(peerId) || peerId === reporter.peerId) return;
    const pair = pairOf(reporter.peerId, peerId);
    const key = pair.join(' ');
    const cut = this.#cuts.get(key);
    if (open) {
      cut?.by.delete(reporter.peerId);
      if (cut?.by.size === 0) this.#cuts.delete(key);
    } else if (cut !== undefined) {
      cut.by.add(reporter.peerId);
    } else {
      this.#cuts.set(key, { pair, by: new Set([reporter.peerId]) });
      this.#repairSoon(pair);
    }
  }

  #cutsAmong(members: readonly PeerId[]): readonly Pair[] {
    const present = new Set(members);
    const cuts: Pair[] = [];
    for (const { pair } of this.#cuts.values())
      if (cuts.length < MAX_CUTS && pair.every((peerId) => present.has(peerId))) cuts.push([...pair]);
    return cuts;
  }

  /** What a peer said of its ways, or what was said of them, does not count any more. */
  #forgetCuts(concerns: (pair: Pair, by: Set<PeerId>) => boolean): void {
    for (const [key, { pair, by }] of this.#cuts) if (concerns(pair, by)) this.#cuts.delete(key);
  }

  #tick(): void {
    const asleep =
      this.#lastTick !== null && this.#now - this.#lastTick > ASLEEP_HEARTBEATS * this.#options.heartbeatMs;
    const before = this.#lastTick ?? 0;
    this.#lastTick = this.#now;
    const lost: Lost[] = [];
    for (const peer of this.#peers.values()) {
      if (asleep) peer.detector.forgive(this.#now);
      else if (peer.disconnectedAt !== null && this.#now - peer.disconnectedAt > this.#options.bounds.minimumMs) {
        lost.push({ peerId: peer.peerId, reason: 'its connection to the coordinator broke and it did not come back' });
      } else if (peer.detector.isLate(this.#now)) {
        lost.push({ peerId: peer.peerId, reason: `it gave no sign of life for ${Math.round(peer.detector.bound)} ms` });
      }
    }
    if (lost.length > 0) this.#lose(lost);
    if (this.#recovery !== null && this.#now >= this.#recovery.until) this.#rebuild(this.#recovery);
    if (this.#inGrace && this.#now >= this.#graceUntil) {
      this.#inGrace = false;
      // Newcomers may be all that came back.
      if (this.#recovery === null) for (const peer of this.#peers.values()) this.#dismissGone(peer);
      this.#letIn();
    }
    if (this.#now - this.#lastLook >= LOOK_MS) {
      this.#lastLook = this.#now;
      this.#nameSlow();
      if (this.#current !== null && this.#decision === null) {
        const view = this.#ringView(this.#current);
        this.#rings.look(view, this.#now);
        this.#calibration.look(this.#current.costs, measuredCosts(view, this.#rings, this.#current.costs));
      }
    }
    this.#orderRing();
    const mayComeIn = ({ state, notBefore }: PeerRecord) =>
      state === 'ready' && notBefore > before && notBefore <= this.#now;
    if ([...this.#peers.values()].some(mayComeIn)) this.#letIn();
    for (const [key, repair] of this.#repairs) {
      if (this.#now < repair.at) continue;
      this.#repairs.delete(key);
      if (repair.pair.every((peerId) => this.#peers.get(peerId)?.disconnectedAt === null))
        this.#newEpoch([], repair.pair, false);
    }
  }

  /** Goes on with the search for a better ring, and asks for what it lacks. */
  #orderRing(): void {
    this.#rings.work();
    if (this.#decision !== null || this.#recovery !== null) return;
    for (const { from, to } of this.#rings.takeProbes(this.#now)) this.#send(from, { type: 'probe', peerId: to });
  }

  #nameSlow(): void {
    const members = this.#current?.members ?? [];
    for (const { slow, isNews, calls } of this.#stragglers.look(members, this.#now)) {
      const { peerId, waiting, blocked, waitedMs } = slow;
      if (isNews) {
        this.#note(`${peerId} is slow: ${waiting.join(', ')} wait for it`);
        const told = { peerId, waiting: [...waiting], blocked: [...blocked], waitedMs };
        const message: CoordinatorMessage = { type: 'slow', ...told };
        for (const member of members) this.#send(member, message);
      }
      for (const { by, call } of calls) this.#goOnWithout([peerId], by, call);
    }
    for (const [id, { generation, by, spare, at }] of [...this.#done]) {
      const made = this.#generations.get(generation);
      const [holder] = by;
      if (spare === 0 || this.#now - at < HELD_PATIENCE_MS || made === undefined || holder === undefined) continue;
      const missing = this.#exclusions.left(id, made.members).filter((peerId) => !by.has(peerId));
      if (missing.some((peerId) => this.#stragglers.isWaiting(peerId))) continue; // a victim
      this.#goOnWithout(missing, holder, { id, epoch: this.#exclusions.epochOf(id, made.epoch), spare });
    }
  }

  /**
   * Begins a collective anew without those for whom the others wait, if the attempt that `by` spoke of is still under way and
   * would be left with enough members.
   */
  #goOnWithout(slow: readonly PeerId[], by: PeerId, { id, epoch, spare }: Excludable): void {
    const generation = this.#generations.get(generationOf(id));
    if (this.#decision !== null || this.#recovery !== null || generation === undefined || this.#failed.has(id)) return;
    if (this.#committed.has(id)) return; // what `by` spoke of is over, though some may not know yet
    const members = this.#exclusions.left(id, generation.members);
    if (!members.includes(by) || !slow.every((peerId) => members.includes(peerId))) return;
    if (slow.includes(by) || slow.length > spare || epoch !== this.#exclusions.epochOf(id, generation.epoch)) return;
    this.#epoch += 1;
    this.#done.delete(id);
    const exclusion = { id, epoch: this.#epoch, peers: [...this.#exclusions.peersOf(id), ...slow] };
    this.#exclusions.add(exclusion);
    this.#note(`${id} goes on without ${slow.join(', ')}`);
    this.#tellExclusion(exclusion);
  }

  /** Who does not know the generation yet is told along with its view. */
  #tellExclusion(exclusion: Exclusion, to?: readonly PeerId[]): void {
    const generation = this.#generations.get(generationOf(exclusion.id));
    if (generation === undefined) return;
    const message = { type: 'exclude', ...exclusion } as const;
    for (const member of to ?? generation.members)
      if ((this.#peers.get(member)?.answered ?? 0) >= generation.boundary) this.#send(member, message);
  }

  #expel(peer: PeerRecord, reason: string): void {
    this.#lose([{ peerId: peer.peerId, reason: `it broke the protocol: ${reason}` }]);
  }

  #lose(lost: readonly Lost[]): void {
    const members: Lost[] = [];
    for (const { peerId, reason } of lost) {
      const peer = this.#peers.get(peerId);
      if (peer === undefined) continue;
      PEER.step(peer.state, 'gone');
      this.#peers.delete(peerId);
      this.#forgetCuts((pair) => pair.includes(peerId));
      this.#stragglers.forget(peerId);
      this.#rings.forget(peerId);
      if (peer.state === 'member') members.push({ peerId, reason });
      if (peer.state === 'member') this.#fallen.add(peerId);
      if (peer.state === 'member' && peer.name !== null && reason !== 'left')
        this.#flapping.onLost(peer.name, peer.admittedAt, this.#now);
      if (peer.disconnectedAt === null && reason !== 'left') this.#send(peerId, { type: 'evicted', reason });
      this.#effects.push({ type: 'close', peerId, reason });
      this.#note(`${peerId} is gone: ${reason}`);
      // Members learn of a lost member by `loss`; everyone else only has to stop dialling it.
      const dismiss = { type: 'dismiss', peerId } as const;
      for (const other of this.#peers.values()) {
        other.knows.delete(peerId);
        if (peer.state !== 'member' || other.state !== 'member') this.#send(other.peerId, dismiss);
      }
    }
    this.#pending = this.#pending.filter((one) => this.#peers.has(one.peerId));
    if (this.#recovery !== null) return;
    if (members.length > 0) this.#newEpoch(members, null, false);
    this.#letIn();
  }

  /**
   * Shrinks every generation by the lost, and asks the survivors what they hold of it.
   *
   * @param isBack messages may have been lost: everything that is open is concerned
   */
  #newEpoch(lost: readonly Lost[], broken: Pair | null, isBack: boolean): void {
    this.#epoch += 1;
    // A decision that this one overtakes was to make good for lost messages: now this one has to.
    const resumed = isBack || this.#decision?.resumed === true;
    const cuts = this.#cutsAmong(this.#current?.members ?? []);
    const gone = new Set(lost.map((one) => one.peerId));
    for (const generation of this.#generations.values()) {
      const loses = generation.members.some((peerId) => gone.has(peerId));
      const breaks = broken?.every((peerId) => generation.members.includes(peerId)) === true;
      if (!loses && !breaks && !resumed) continue;
      generation.epoch = this.#epoch;
      generation.members = generation.members.filter((peerId) => !gone.has(peerId));
      generation.cuts = cuts;
      for (const [id, done] of this.#done) if (done.generation === generation.generation) this.#done.delete(id);
    }
    const survivors = this.#current?.members ?? [];
    if (survivors.length === 0) {
      this.#current = null;
      this.#decision = null;
      this.#generations.clear();
      this.#done.clear();
      return;
    }
    this.#decision = {
      epoch: this.#epoch,
      resumed,
      awaited: new Set(survivors),
      held: new Map(),
      returned: new Map(),
      finished: new Map(),
    };
    const loss: Extract<CoordinatorMessage, { type: 'loss' }> = {
      type: 'loss',
      epoch: this.#epoch,
      lost: [...lost],
      broken: broken === null ? null : [...broken],
      cuts: cuts.map(([one, other]) => [one, other]),
      resumed,
    };
    for (const peerId of survivors) {
      const missed =
        this.#peers
          .get(peerId)
          ?.missed.splice(0)
          .filter((one) => !gone.has(one.peerId)) ?? [];
      this.#send(peerId, missed.length === 0 ? loss : { ...loss, lost: [...lost, ...missed] });
    }
  }

  #onProgress(peer: PeerRecord, message: Extract<PeerMessage, { type: 'progress' }>): void {
    const decision = this.#decision;
    if (decision === null || message.epoch !== decision.epoch || !decision.awaited.delete(peer.peerId)) return;
    decision.held.set(peer.peerId, new Map(message.held.map(({ id, epoch }) => [id, epoch])));
    decision.finished.set(peer.peerId, new Map(message.finished.map(({ id, ranges }) => [id, ranges])));
    for (const id of message.returned) {
      const by = decision.returned.get(id) ?? new Set();
      decision.returned.set(id, by.add(peer.peerId));
    }
    if (decision.awaited.size > 0) return;
    this.#decision = null;
    this.#failHalfReturned(decision);
    const candidates = new Map<string, number>();
    for (const held of decision.held.values()) for (const [id, epoch] of held) candidates.set(id, epoch);
    // What was committed stays so, though a member that heard of it may have failed on its own, and forgotten it.
    const committed = [...candidates].flatMap(([id, epoch]) =>
      this.#committed.has(id) || this.#heldByAll(id, epoch, decision) ? [{ id, epoch }] : [],
    );
    for (const { id } of committed) this.#committed.add(id);
    const kept = this.#finishedByAll(decision).filter(({ id }) => !committed.some((one) => one.id === id));
    const decide = { type: 'decide', epoch: decision.epoch, committed, kept } as const;
    for (const peerId of decision.held.keys()) this.#send(peerId, decide);
  }

  /** An eager call from which only some members returned can't be redone: it fails for the others, whenever they make it. */
  #failHalfReturned({ returned }: Decision): void {
    for (const [id, by] of returned) {
      const number = generationOf(id);
      const generation = this.#generations.get(number);
      const [first] = by;
      if (first === undefined || generation?.members.every((peerId) => by.has(peerId)) !== false) continue;
      this.#failCollective(first, id, number, 'lost', `${first} returned from it before a peer was lost.`);
    }
  }

  /** What all survivors have finished of a tensor, by the same attempts, need not be done again. */
  #finishedByAll({ finished }: Decision): { id: string; ranges: KeptRange[] }[] {
    const ids = new Set([...finished.values()].flatMap((one) => [...one.keys()]));
    return [...ids].flatMap((id) => {
      const generation = this.#generations.get(generationOf(id));
      if (generation === undefined || this.#failed.has(id)) return [];
      const ranges = this.#exclusions
        .left(id, generation.members)
        .map((peerId) => finished.get(peerId)?.get(id) ?? [])
        .reduce((common, one) => intersectRanges(common, one));
      return ranges.length === 0 ? [] : [{ id, ranges: [...ranges] }];
    });
  }

  #heldByAll(id: string, epoch: number, decision: Decision): boolean {
    const generation = this.#generations.get(generationOf(id));
    if (generation === undefined || this.#failed.has(id)) return false;
    const members = this.#exclusions.left(id, generation.members);
    return members.every((peerId) => decision.held.get(peerId)?.get(id) === epoch);
  }

  #send(peerId: PeerId, message: CoordinatorMessage): void {
    this.#effects.push({ type: 'send', peerId, message });
  }

  #note(text: string): void {
    this.#effects.push({ type: 'note', text });
  }
}

function step(peer: PeerRecord, to: PeerState): void {
  PEER.step(peer.state, to);
  peer.state = to;
}

/** Everybody who is a member of a view that a peer reports. */
function namesIn({ views }: RunReport): ReadonlySet<PeerId> {
  return new Set(views.flatMap((view) => view.members.map((member) => member.peerId)));
}

/** Collectives are named `generation:tag:sequence`. */
function generationOf(id: string): number {
  return Number(id.slice(0, id.indexOf(':')));
}
