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
 * - A link that closed between two live members is repaired the same way, with nobody lost.
 *
 * Invariants: epochs only grow. A generation's members only shrink. `commit` is sent only when all members of the view hold
 * the result, so any later decision by "do all survivors hold it" agrees with it.
 */
import { MAX_OPEN_COLLECTIVES, MAX_TEXT_LENGTH, MAX_WORLD_SIZE } from '../wire/limits.ts';
import type {
  CoordinatorMessage,
  Introduction,
  PeerDescription,
  PeerMessage,
  WireMember,
  WireView,
} from '../wire/messages.ts';
import { Detector, type DetectorBounds } from './detector.ts';

export type PeerId = string;

export interface CoordinatorOptions {
  readonly heartbeatMs: number;
  readonly bounds: DetectorBounds;
  /** Cryptographically strong random bytes. */
  random(length: number): Uint8Array;
}

export type CoordinatorEvent =
  | {
      readonly type: 'joined';
      readonly connection: number;
      readonly description: PeerDescription;
      readonly startWorldSize: number;
    }
  | { readonly type: 'message'; readonly peerId: PeerId; readonly message: PeerMessage }
  | { readonly type: 'closed'; readonly peerId: PeerId }
  | { readonly type: 'tick' };

export type CoordinatorEffect =
  /** The connection on which a peer joined now belongs to `peerId`. */
  | { readonly type: 'assign'; readonly connection: number; readonly peerId: PeerId }
  | { readonly type: 'send'; readonly peerId: PeerId; readonly message: CoordinatorMessage }
  /** After everything sent so far has left. */
  | { readonly type: 'close'; readonly peerId: PeerId }
  | { readonly type: 'note'; readonly text: string };

/** What a run looks like: plain data. */
export interface CoordinatorSnapshot {
  readonly epoch: number;
  readonly generation: number;
  readonly members: readonly PeerId[];
  /** Still connecting to the members. */
  readonly warming: readonly PeerId[];
  /** Come in at the next boundary. */
  readonly ready: readonly PeerId[];
  /** Held by some members, and not yet by all. */
  readonly openCollectives: number;
}

interface PeerRecord {
  readonly peerId: PeerId;
  readonly description: PeerDescription;
  readonly startWorldSize: number;
  readonly detector: Detector;
  state: 'warming' | 'ready' | 'member';
  /** When its connection broke; null while it is connected. */
  disconnectedAt: number | null;
  /** When a neighbour last saw its link to this peer close. */
  linkClosedAt: number;
  boundary: number;
  oldest: number;
}

interface Generation {
  readonly generation: number;
  /** Where it was made: peers that have not passed this boundary do not know it yet. */
  readonly boundary: number;
  epoch: number;
  members: PeerId[];
}

interface Decision {
  readonly epoch: number;
  readonly awaited: Set<PeerId>;
  readonly held: Map<PeerId, Set<string>>;
  /** Eager calls, and the members where they have returned. */
  readonly returned: Map<string, Set<PeerId>>;
}

interface Boundary {
  /** null: nothing changed. */
  readonly generation: number | null;
  readonly joined: readonly PeerId[];
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

/** A link that closed is repaired after this time, unless it turns out that a peer died. */
const REPAIR_DELAY_MS = 200;

/** Evidence that a neighbour's link closed counts for so long. */
const EVIDENCE_MS = 5_000;

/** A tick that comes later than so many heartbeats after the previous one means that the coordinator itself was asleep. */
const ASLEEP_HEARTBEATS = 4;

/** Boundaries that a peer may ask for before the first of them is decided. */
const MAX_BOUNDARIES_AHEAD = 64;

/** Failed collectives that are remembered, to answer late messages about them only once, and to tell late members. */
const MAX_FAILED = 4_096;

export class CoordinatorMachine {
  readonly #options: CoordinatorOptions;
  readonly #peers: Map<PeerId, PeerRecord> = new Map();
  readonly #generations: Map<number, Generation> = new Map();
  readonly #boundaries: Map<number, Boundary> = new Map();
  readonly #done: Map<string, { readonly generation: number; readonly by: Set<PeerId> }> = new Map();
  readonly #failed: Map<string, FailedCollective> = new Map();
  readonly #repairs: Map<string, { readonly pair: readonly [PeerId, PeerId]; readonly at: number }> = new Map();
  #pending: PendingBoundary[] = [];
  #decision: Decision | null = null;
  #epoch = 0;
  #current: Generation | null = null;
  #boundary = 0;
  #joins = 0;
  #lastTick: number | null = null;
  #effects: CoordinatorEffect[] = [];
  #now = 0;

  constructor(options: CoordinatorOptions) {
    this.#options = options;
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

  /** For status pages and tests. */
  snapshot(): CoordinatorSnapshot {
    const inState = (state: PeerRecord['state']) =>
      [...this.#peers.values()].filter((peer) => peer.state === state).map((peer) => peer.peerId);
    return {
      epoch: this.#epoch,
      generation: this.#current?.generation ?? 0,
      members: [...(this.#current?.members ?? [])],
      warming: inState('warming'),
      ready: inState('ready'),
      openCollectives: this.#done.size,
    };
  }

  step(event: CoordinatorEvent, now: number): CoordinatorEffect[] {
    this.#effects = [];
    this.#now = now;
    switch (event.type) {
      case 'joined':
        this.#join(event);
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
      case 'tick':
        this.#tick();
        break;
      default:
        event satisfies never;
    }
    return this.#effects;
  }

  // --- joining -----------------------------------------------------------------------------------------------------

  #join(event: Extract<CoordinatorEvent, { type: 'joined' }>): void {
    const suffix = [...this.#options.random(4)].map((byte) => byte.toString(16).padStart(2, '0')).join('');
    const peerId = `p${this.#joins++}-${suffix}`;
    const peers: Introduction[] = [];
    for (const other of this.#peers.values()) {
      const key = this.#options.random(32);
      peers.push({ peerId: other.peerId, key, ...other.description });
      this.#send(other.peerId, { type: 'introduce', peer: { peerId, key, ...event.description } });
    }
    this.#peers.set(peerId, {
      peerId,
      description: event.description,
      startWorldSize: event.startWorldSize,
      detector: new Detector(this.#now, this.#options.heartbeatMs, this.#options.bounds),
      state: 'warming',
      disconnectedAt: null,
      linkClosedAt: Number.NEGATIVE_INFINITY,
      boundary: 0,
      oldest: 0,
    });
    this.#effects.push({ type: 'assign', connection: event.connection, peerId });
    const { heartbeatMs, bounds } = this.#options;
    this.#send(peerId, { type: 'welcome', peerId, heartbeatMs, boundMs: bounds.minimumMs, peers });
  }

  #ready(peer: PeerRecord): void {
    if (peer.state !== 'warming') return;
    peer.state = 'ready';
    if (this.#memberCount === 0) this.#formFirstView();
    else this.#retryPending();
  }

  get #memberCount(): number {
    return this.#current?.members.length ?? 0;
  }

  #readyPeers(): PeerRecord[] {
    return [...this.#peers.values()].filter((peer) => peer.state === 'ready' && peer.disconnectedAt === null);
  }

  /** With nobody in the view, the ready peers form one as soon as they are as many as each of them wants. */
  #formFirstView(): void {
    const ready = this.#readyPeers();
    const wanted = Math.max(...ready.map((peer) => peer.startWorldSize));
    if (ready.length > 0 && ready.length >= wanted) this.#decideBoundary(this.#boundary + 1);
  }

  // --- boundaries --------------------------------------------------------------------------------------------------

  #onBoundary(peer: PeerRecord, message: Extract<PeerMessage, { type: 'boundary' }>): void {
    const { index, minWorldSize, oldest } = message;
    // One that ran out of patience may ask again while the answer is on its way: it must not get a second.
    if (peer.state !== 'member' || index <= peer.boundary) return;
    if (index > this.#boundary + MAX_BOUNDARIES_AHEAD) {
      this.#expel(peer, `it asked for boundary ${index} where ${this.#boundary + 1} is next`);
      return;
    }
    peer.oldest = oldest;
    const asked: PendingBoundary = { peerId: peer.peerId, index, minWorldSize };
    const before = this.#pending.findIndex((one) => one.peerId === peer.peerId && one.index === index);
    if (before >= 0) this.#pending[before] = asked;
    else this.#pending.push(asked);
    this.#retryPending();
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
    if (joining.length === 0) {
      this.#boundaries.set(index, { generation: null, joined: [] });
      return;
    }
    this.#epoch += 1;
    const joined = joining.map((peer) => peer.peerId);
    const generation: Generation = {
      generation: this.#epoch,
      boundary: index,
      epoch: this.#epoch,
      members: [...(this.#current?.members ?? []), ...joined],
    };
    this.#current = generation;
    this.#generations.set(generation.generation, generation);
    this.#boundaries.set(index, { generation: generation.generation, joined });
    const view = this.#wireView(generation);
    for (const peer of joining) {
      peer.state = 'member';
      peer.boundary = index;
      peer.oldest = generation.generation;
      this.#send(peer.peerId, { type: 'admitted', index, view, joined });
    }
    this.#note(
      `boundary ${index}: epoch ${this.#epoch}, ${generation.members.length} members, joined ${joined.join(', ')}`,
    );
  }

  #answerBoundary(one: PendingBoundary): void {
    const peer = this.#peers.get(one.peerId);
    const boundary = this.#boundaries.get(one.index);
    if (peer === undefined || boundary === undefined) return;
    peer.boundary = one.index;
    const generation = boundary.generation === null ? undefined : this.#generations.get(boundary.generation);
    const view = generation === undefined ? null : this.#wireView(generation);
    const joined = boundary.joined.filter((peerId) => generation?.members.includes(peerId));
    this.#send(one.peerId, { type: 'boundary', index: one.index, view, joined });
    for (const failed of this.#failed.values())
      if (failed.generation === generation?.generation) this.#send(one.peerId, failed.message);
  }

  #wireView(generation: Generation): WireView {
    const members: WireMember[] = generation.members.map((peerId) => ({
      peerId,
      site: this.#peers.get(peerId)?.description.site ?? '',
    }));
    return { epoch: generation.epoch, generation: generation.generation, members };
  }

  /** Forgets decisions that every member has passed, and generations in which nobody can have anything open. */
  #prune(): void {
    let passed = this.#boundary;
    let oldest = this.#current?.generation ?? 0;
    for (const peer of this.#peers.values()) {
      if (peer.state !== 'member') continue;
      passed = Math.min(passed, peer.boundary);
      oldest = Math.min(oldest, peer.oldest);
    }
    for (const index of this.#boundaries.keys()) if (index < passed) this.#boundaries.delete(index);
    for (const number of this.#generations.keys()) if (number < oldest) this.#generations.delete(number);
  }

  // --- messages ----------------------------------------------------------------------------------------------------

  #message(peer: PeerRecord, message: PeerMessage): void {
    switch (message.type) {
      case 'ready':
        this.#ready(peer);
        break;
      case 'beat':
        this.#send(peer.peerId, { type: 'beat', sent: message.sent });
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
      case 'leave':
        this.#lose([{ peerId: peer.peerId, reason: 'left' }]);
        break;
      case 'hello':
      case 'prove':
        this.#expel(peer, 'it greeted twice');
        break;
      default:
        message satisfies never;
    }
  }

  #onDone(peer: PeerRecord, message: Extract<PeerMessage, { type: 'done' }>): void {
    const generation = this.#generations.get(message.generation);
    // An attempt of an earlier epoch: `progress` tells what is held.
    if (generation === undefined || generation.epoch !== message.epoch || this.#failed.has(message.id)) return;
    if (!generation.members.includes(peer.peerId)) return;
    let done = this.#done.get(message.id);
    if (done === undefined) {
      if (this.#done.size >= MAX_OPEN_COLLECTIVES * 2) {
        // The table is everybody's: who has filled it need not be who finds it full.
        this.#expel(this.#busiest() ?? peer, 'it has too many collectives open');
        return;
      }
      done = { generation: generation.generation, by: new Set() };
      this.#done.set(message.id, done);
    }
    done.by.add(peer.peerId);
    if (done.by.size < generation.members.length) return;
    this.#done.delete(message.id);
    for (const member of generation.members)
      this.#send(member, { type: 'commit', id: message.id, epoch: message.epoch });
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
    const generation = this.#generations.get(number);
    if (generation === undefined || this.#failed.has(id) || !generation.members.includes(by)) return;
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
      if ((this.#peers.get(member)?.boundary ?? 0) >= generation.boundary) this.#send(member, fail);
  }

  // --- losses ------------------------------------------------------------------------------------------------------

  #closed(peerId: PeerId): void {
    const peer = this.#peers.get(peerId);
    if (peer === undefined) return;
    peer.disconnectedAt = this.#now;
    const alone = peer.state !== 'member' || this.#memberCount === 1;
    const seen = this.#now - peer.linkClosedAt < EVIDENCE_MS;
    if (alone || seen) this.#lose([{ peerId, reason: 'its connections closed' }]);
  }

  #onLinkClosed(reporter: PeerRecord, peerId: PeerId): void {
    const peer = this.#peers.get(peerId);
    if (peer === undefined || peer.state !== 'member' || reporter.state !== 'member') return;
    peer.linkClosedAt = this.#now;
    if (peer.disconnectedAt !== null) {
      this.#lose([{ peerId, reason: 'its connections closed' }]);
      return;
    }
    const pair: readonly [PeerId, PeerId] =
      reporter.peerId < peerId ? [reporter.peerId, peerId] : [peerId, reporter.peerId];
    const key = pair.join(' ');
    if (!this.#repairs.has(key)) this.#repairs.set(key, { pair, at: this.#now + REPAIR_DELAY_MS });
  }

  #tick(): void {
    const asleep =
      this.#lastTick !== null && this.#now - this.#lastTick > ASLEEP_HEARTBEATS * this.#options.heartbeatMs;
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
    for (const [key, repair] of this.#repairs) {
      if (this.#now < repair.at) continue;
      this.#repairs.delete(key);
      if (repair.pair.every((peerId) => this.#peers.get(peerId)?.disconnectedAt === null))
        this.#newEpoch([], repair.pair);
    }
  }

  #expel(peer: PeerRecord, reason: string): void {
    this.#lose([{ peerId: peer.peerId, reason: `it broke the protocol: ${reason}` }]);
  }

  #lose(lost: readonly Lost[]): void {
    const members: Lost[] = [];
    for (const { peerId, reason } of lost) {
      const peer = this.#peers.get(peerId);
      if (peer === undefined) continue;
      this.#peers.delete(peerId);
      if (peer.state === 'member') members.push({ peerId, reason });
      if (peer.disconnectedAt === null && reason !== 'left') this.#send(peerId, { type: 'evicted', reason });
      this.#effects.push({ type: 'close', peerId });
      this.#note(`${peerId} is gone: ${reason}`);
      // Members learn of a lost member by `loss`; everyone else only has to stop dialling it.
      for (const other of this.#peers.values()) {
        if (peer.state !== 'member' || other.state !== 'member') this.#send(other.peerId, { type: 'dismiss', peerId });
      }
    }
    this.#pending = this.#pending.filter((one) => this.#peers.has(one.peerId));
    if (members.length > 0) this.#newEpoch(members, null);
    if (this.#memberCount === 0) this.#formFirstView();
    else this.#retryPending();
  }

  /** Shrinks every generation by the lost, and asks the survivors what they hold of it. */
  #newEpoch(lost: readonly Lost[], broken: readonly [PeerId, PeerId] | null): void {
    this.#epoch += 1;
    const gone = new Set(lost.map((one) => one.peerId));
    for (const generation of this.#generations.values()) {
      const loses = generation.members.some((peerId) => gone.has(peerId));
      const breaks = broken?.every((peerId) => generation.members.includes(peerId)) === true;
      if (!loses && !breaks) continue;
      generation.epoch = this.#epoch;
      generation.members = generation.members.filter((peerId) => !gone.has(peerId));
      for (const [id, done] of this.#done) if (done.generation === generation.generation) this.#done.delete(id);
    }
    const survivors = this.#current?.members ?? [];
    if (survivors.length === 0) {
      this.#current = null;
      this.#decision = null;
      this.#generations.clear();
      this.#boundaries.clear();
      this.#done.clear();
      return;
    }
    this.#decision = { epoch: this.#epoch, awaited: new Set(survivors), held: new Map(), returned: new Map() };
    const message: CoordinatorMessage = {
      type: 'loss',
      epoch: this.#epoch,
      lost: [...lost],
      broken: broken === null ? null : [...broken],
    };
    for (const peerId of survivors) this.#send(peerId, message);
  }

  #onProgress(peer: PeerRecord, message: Extract<PeerMessage, { type: 'progress' }>): void {
    const decision = this.#decision;
    if (decision === null || message.epoch !== decision.epoch || !decision.awaited.delete(peer.peerId)) return;
    decision.held.set(peer.peerId, new Set(message.held));
    for (const id of message.returned) {
      const by = decision.returned.get(id) ?? new Set();
      decision.returned.set(id, by.add(peer.peerId));
    }
    if (decision.awaited.size > 0) return;
    this.#decision = null;
    this.#failHalfReturned(decision);
    const candidates = new Set<string>();
    for (const held of decision.held.values()) for (const id of held) candidates.add(id);
    const committed = [...candidates].filter((id) => this.#heldByAll(id, decision));
    for (const peerId of decision.held.keys()) this.#send(peerId, { type: 'decide', epoch: decision.epoch, committed });
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

  #heldByAll(id: string, decision: Decision): boolean {
    const generation = this.#generations.get(generationOf(id));
    if (generation === undefined || this.#failed.has(id)) return false;
    return generation.members.every((peerId) => decision.held.get(peerId)?.has(id) === true);
  }

  #send(peerId: PeerId, message: CoordinatorMessage): void {
    this.#effects.push({ type: 'send', peerId, message });
  }

  #note(text: string): void {
    this.#effects.push({ type: 'note', text });
  }
}

/** Collectives are named `generation:tag:sequence`. */
function generationOf(id: string): number {
  return Number(id.slice(0, id.indexOf(':')));
}
