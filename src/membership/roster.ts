/**
 * Everybody who has come to a run, as its coordinator knows them, and which of them know one another.
 *
 * Each pair is introduced with a key of its own and a number: the newcomer by its welcome, the others by a message. When a
 * connection broke one end may have missed that, so peers that come back tell their numbers, and pairs that differ are
 * introduced anew.
 *
 * Invariant: no member that was lost comes in again under the same name, which others may still know from a view.
 */
import { Lifecycle } from '../lifecycle.ts';
import { Recent } from '../recent.ts';
import type { Introduction, PeerDescription } from '../wire/coordinator-messages.ts';
import type { RunReport } from '../wire/peer-messages.ts';
import { Detector, type DetectorBounds } from './detector.ts';
import type { Effects } from './effects.ts';
import type { PeerId, PeerState } from './events.ts';
import { Flapping } from './flapping.ts';

const PEER = new Lifecycle<PeerState | 'gone'>('peer', {
  warming: ['ready', 'member', 'gone'],
  ready: ['member', 'gone'],
  member: ['gone'],
  gone: [],
});

export interface PeerRecord {
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

export interface Lost {
  readonly peerId: PeerId;
  readonly reason: string;
}

/** Why a peer goes that leaves in good order. */
export const LEFT = 'left';

interface RosterOptions {
  readonly heartbeatMs: number;
  readonly bounds: DetectorBounds;
  /** Cryptographically strong random bytes. */
  random(length: number): Uint8Array;
}

/** Who comes, as it describes itself. */
interface Arrival {
  readonly connection: number;
  readonly description: PeerDescription;
  readonly startWorldSize: number;
  readonly name: string;
}

/** Evidence that a neighbour's link closed counts for so long (ms). */
const EVIDENCE_MS = 5_000;

/** Lost members that are remembered: one of them may not know yet that it was a member. */
const MAX_FALLEN = 4_096;

export class Roster {
  readonly #options: RosterOptions;
  readonly #effects: Effects;
  readonly #peers: Map<PeerId, PeerRecord> = new Map();
  readonly #fallen: Recent<PeerId> = new Recent(MAX_FALLEN);
  readonly #flapping: Flapping = new Flapping();
  #joins = 0;

  constructor(options: RosterOptions, effects: Effects) {
    this.#options = options;
    this.#effects = effects;
  }

  // --- who is here -------------------------------------------------------------------------------------------------

  get size(): number {
    return this.#peers.size;
  }

  /** In the order in which they came. */
  get all(): Iterable<PeerRecord> {
    return this.#peers.values();
  }

  get(peerId: PeerId): PeerRecord | undefined {
    return this.#peers.get(peerId);
  }

  has(peerId: PeerId): boolean {
    return this.#peers.has(peerId);
  }

  isConnected(peerId: PeerId): boolean {
    return this.#peers.get(peerId)?.disconnectedAt === null;
  }

  siteOf(peerId: PeerId): string {
    return this.#peers.get(peerId)?.description.site ?? '';
  }

  /** Whether it has been sent what was decided at a boundary. */
  wasAnswered(peerId: PeerId, boundary: number): boolean {
    return (this.#peers.get(peerId)?.answered ?? 0) >= boundary;
  }

  inState(state: PeerState): PeerId[] {
    return [...this.#peers.values()].filter((peer) => peer.state === state).map((peer) => peer.peerId);
  }

  /** Who may come in. @param isEmpty there is no member whom one that flaps could hold up */
  readyPeers(isEmpty: boolean, now: number): PeerRecord[] {
    return [...this.#peers.values()].filter(
      (peer) => peer.state === 'ready' && peer.disconnectedAt === null && (isEmpty || peer.notBefore <= now),
    );
  }

  /** Whether somebody's time of waiting has ended since `before`. */
  hasWaited(before: number, now: number): boolean {
    return [...this.#peers.values()].some(
      ({ state, notBefore }) => state === 'ready' && notBefore > before && notBefore <= now,
    );
  }

  // --- coming and going --------------------------------------------------------------------------------------------

  newPeerId(): PeerId {
    const suffix = [...this.#options.random(4)].map((byte) => byte.toString(16).padStart(2, '0')).join('');
    return `p${this.#joins++}-${suffix}`;
  }

  enroll(peerId: PeerId, { connection, description, startWorldSize, name: called }: Arrival, now: number): PeerRecord {
    const name = called === '' ? null : `${description.hostKey} ${called}`;
    const wait = name === null ? 0 : this.#flapping.waitOf(name, now);
    if (wait > 0) this.#effects.note(`${peerId} has died too often: it is let in ${Math.round(wait)} ms later`);
    const peer: PeerRecord = {
      peerId,
      description,
      startWorldSize,
      name,
      notBefore: now + wait,
      admittedAt: now,
      detector: new Detector(now, this.#options.heartbeatMs, this.#options.bounds),
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
    this.#effects.assign(connection, peerId);
    return peer;
  }

  become(peer: PeerRecord, state: PeerState): void {
    PEER.step(peer.state, state);
    peer.state = state;
  }

  /** A peer is back by another connection. */
  reconnect(peer: PeerRecord, { peers }: RunReport, now: number): void {
    peer.disconnectedAt = null;
    peer.detector.signal(now);
    peer.knows.clear();
    for (const other of peers) peer.knows.set(other.peerId, other.pair);
  }

  /** A member that is back goes on from where it was. */
  restore(peer: PeerRecord, report: RunReport): void {
    peer.boundary = report.boundary;
    peer.answered = report.boundary;
    const gone = [...namesIn(report)].filter((peerId) => !this.#peers.has(peerId));
    peer.missed = gone.map((peerId) => ({ peerId, reason: 'it was lost while this peer was away' }));
  }

  /** Losses that a member may not have heard of, to be told now. */
  takeMissed(peerId: PeerId): Lost[] {
    return this.#peers.get(peerId)?.missed.splice(0) ?? [];
  }

  /** A peer is gone, whom the others are not to dial any more. */
  remove(peer: PeerRecord, reason: string, now: number): void {
    const { peerId, name, state } = peer;
    PEER.step(state, 'gone');
    this.#peers.delete(peerId);
    if (state === 'member') this.#fallen.add(peerId);
    if (state === 'member' && name !== null && reason !== LEFT) this.#flapping.onLost(name, peer.admittedAt, now);
    if (peer.disconnectedAt === null && reason !== LEFT) this.#effects.send(peerId, { type: 'evicted', reason });
    this.#effects.close(peerId, reason);
    this.#effects.note(`${peerId} is gone: ${reason}`);
    // Members learn of a lost member by `loss`; everyone else only has to stop dialling it.
    const dismiss = { type: 'dismiss', peerId } as const;
    for (const other of this.#peers.values()) {
      other.knows.delete(peerId);
      if (state !== 'member' || other.state !== 'member') this.#effects.send(other.peerId, dismiss);
    }
  }

  /** A member of another coordinator's view that is not one of ours. */
  bury(peerId: PeerId): void {
    this.#fallen.add(peerId);
  }

  isFallen(peerId: PeerId): boolean {
    return this.#fallen.has(peerId);
  }

  /** A peer's connection broke. Whether it is gone: a member is only if a neighbour saw its link close, too. */
  onDisconnected(peer: PeerRecord, now: number): boolean {
    peer.disconnectedAt = now;
    return peer.state !== 'member' || now - peer.linkClosedAt < EVIDENCE_MS;
  }

  /** A neighbour saw its link to a member close. Whether that one is gone. */
  onLinkClosed(peer: PeerRecord, now: number): boolean {
    peer.linkClosedAt = now;
    return peer.disconnectedAt !== null;
  }

  /** Who gives no sign of life, or did not come back in time. */
  findLost(now: number): Lost[] {
    const lost: Lost[] = [];
    for (const { peerId, disconnectedAt, detector } of this.#peers.values()) {
      if (disconnectedAt !== null && now - disconnectedAt > this.#options.bounds.minimumMs)
        lost.push({ peerId, reason: 'its connection to the coordinator broke and it did not come back' });
      else if (detector.isLate(now))
        lost.push({ peerId, reason: `it gave no sign of life for ${Math.round(detector.bound)} ms` });
    }
    return lost;
  }

  /** The coordinator itself was asleep: nobody's silence says anything. */
  forgive(now: number): void {
    for (const peer of this.#peers.values()) peer.detector.forgive(now);
  }

  // --- introductions -----------------------------------------------------------------------------------------------

  /** Introduces a newcomer to everybody; the others, as its welcome is to introduce them. */
  present(newcomer: PeerRecord): Introduction[] {
    const others: Introduction[] = [];
    for (const other of this.#peers.values()) {
      if (other === newcomer) continue;
      const [key, pair] = this.#newPair();
      newcomer.knows.set(other.peerId, pair);
      others.push({ peerId: other.peerId, pair, key, ...other.description });
      this.#introduce(other, newcomer, key, pair);
    }
    return others;
  }

  /** Introduces a peer to all who missed that. */
  acquaint(peer: PeerRecord): void {
    for (const other of this.#peers.values()) {
      const known = peer.knows.get(other.peerId);
      if (other === peer || (known !== undefined && known === other.knows.get(peer.peerId))) continue;
      const [key, pair] = this.#newPair();
      this.#introduce(peer, other, key, pair);
      this.#introduce(other, peer, key, pair);
    }
  }

  /** Tells a peer which of those that it knows are not here any more. */
  dismissGone(peer: PeerRecord): void {
    for (const peerId of peer.knows.keys()) {
      if (this.#peers.has(peerId)) continue;
      peer.knows.delete(peerId);
      this.#effects.send(peer.peerId, { type: 'dismiss', peerId });
    }
  }

  #introduce(to: PeerRecord, { peerId, description }: PeerRecord, key: Uint8Array, pair: number): void {
    to.knows.set(peerId, pair);
    this.#effects.send(to.peerId, { type: 'introduce', peer: { peerId, pair, key, ...description } });
  }

  /** Key and number. */
  #newPair(): [Uint8Array, number] {
    const key = this.#options.random(32);
    return [key, this.#options.random(4).reduce((number, byte) => number * 256 + byte, 0)];
  }
}

/** Everybody who is a member of a view that a peer reports. */
export function namesIn({ views }: RunReport): ReadonlySet<PeerId> {
  return new Set(views.flatMap((view) => view.members.map((member) => member.peerId)));
}
