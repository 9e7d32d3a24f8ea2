/**
 * Keeps an eye on the ways to the other peers, and tells the coordinator what it sees: whom this one can't reach however alive they are
 * (`membership/paths.ts`), and what each way is worth (`membership/link-rates.ts`, `probing.ts`).
 *
 * Peers in a call with this one must hear of it every heartbeat, and it of them: a sign that is asked for and answered also tells the
 * round trip. So the signs that links ask for and give are its affair. Those who send something are shown that the way is open without
 * asking for it: they may be in a call, and their question would wait behind what they send.
 */
import type { PeerId } from '../collectives/call.ts';
import { type FlowSight, LinkRates } from '../membership/link-rates.ts';
import { type LinkSight, Paths, type PathTrouble } from '../membership/paths.ts';
import type { Clock } from '../transport/clock.ts';
import type { PeerMessage } from '../wire/peer-messages.ts';
import type { Peers } from './peers.ts';
import { Probing } from './probing.ts';

/** The longest time that an answer to a probe can tell (µs). */
const MAX_MICROS = 2 ** 32 - 1;

/** The open calls, as far as they use the ways. */
interface Calls {
  readonly openCount: number;
  /** Peers from which something is due, or to which something is. */
  awaited(): ReadonlySet<PeerId>;
}

interface Surroundings {
  readonly clock: Clock;
  readonly peers: Peers;
  readonly calls: Calls;
  /** The coordinator. */
  readonly coordinator: { readonly connected: boolean; send(message: PeerMessage): void };
  /** Silence that is too long (ms). */
  readonly boundMs: number;
  /** What calls send at once. */
  readonly segmentBytes: number;
}

export class WayWatch {
  readonly #around: Surroundings;
  readonly #paths: Paths;
  readonly #rates: LinkRates = new LinkRates();
  readonly #probing: Probing;
  /** Peers that were shown at the last heartbeat, on every stripe, that the way is open. */
  #signed: ReadonlySet<PeerId> = new Set();
  /** What had come from each peer by the last heartbeat, beside signs (bytes). */
  #news: ReadonlyMap<PeerId, number> = new Map();

  constructor(around: Surroundings) {
    this.#around = around;
    this.#paths = new Paths(around.boundMs);
    this.#probing = new Probing((peerId) => around.peers.get(peerId), around.segmentBytes);
  }

  /** A way is being measured, or is to be. */
  get isProbing(): boolean {
    return this.#probing.isWanted;
  }

  // --- again and again ---------------------------------------------------------------------------------------------

  /** Tells the coordinator which members can't be reached. @param asleep this process was stopped: silence says nothing */
  lookForCuts(members: readonly { readonly peerId: PeerId }[], now: number, asleep: boolean): void {
    const { peers, calls, coordinator } = this.#around;
    const sights: LinkSight[] = [];
    for (const { peerId } of members) {
      const link = peers.get(peerId);
      if (link !== undefined) sights.push({ peerId, up: link.up && link.receives, heard: link.heard });
    }
    const { changed, silent } = this.#paths.look(now, sights, calls.awaited(), asleep);
    for (const { peerId, open } of changed) coordinator.send({ type: 'path', peerId, open });
    for (const peerId of silent) peers.renew(peerId, 'nothing arrived from it for too long');
  }

  /** Watches what leaves by the links to other hosts, and probes those that it is asked to. */
  measure(now: number): void {
    const { peers, calls } = this.#around;
    const sights: FlowSight[] = [];
    for (const peerId of peers.ids()) {
      const link = peers.get(peerId)!; // listed just now
      if (!peers.sharesHost(peerId)) sights.push({ peerId, sent: link.sent, queued: link.queuedBytes });
    }
    this.#rates.look(now, sights);
    peers.widen();
    const probed = this.#probing.tick(now, calls.openCount === 0);
    if (probed !== null) this.#rates.onAsked(probed, now);
  }

  /** Every heartbeat. */
  ping(): void {
    const { clock, peers, calls } = this.#around;
    const signed: Set<PeerId> = new Set();
    for (const peerId of calls.awaited()) {
      const link = peers.get(peerId);
      if (link?.up !== true) continue;
      this.#rates.onAsked(peerId, clock.now());
      link.ask();
      signed.add(peerId);
    }
    for (const peerId of this.#senders()) {
      const link = peers.get(peerId);
      if (link?.up !== true || signed.has(peerId)) continue;
      link.sign();
      signed.add(peerId);
    }
    // Once more: from now on they get signs when they ask for them, which may be a whole heartbeat later.
    for (const peerId of this.#signed) if (!signed.has(peerId)) peers.get(peerId)?.sign();
    this.#signed = signed;
  }

  /** Peers of which something has come since the last heartbeat. On a slow way what they ask waits behind all that they send. */
  #senders(): PeerId[] {
    const { peers } = this.#around;
    const before = this.#news;
    const now = new Map([...peers.ids()].map((peerId) => [peerId, peers.get(peerId)?.receivedNews ?? 0] as const));
    this.#news = now;
    return [...now].filter(([peerId, bytes]) => bytes !== (before.get(peerId) ?? 0)).map(([peerId]) => peerId);
  }

  /** What the ways are worth, where that is news. */
  tell(): void {
    const { clock, coordinator } = this.#around;
    if (!coordinator.connected) return;
    const links = this.#rates.take(clock.now());
    if (links.length > 0) coordinator.send({ type: 'links', links });
  }

  /** All of it, to a coordinator that may not know. */
  tellAgain(): void {
    for (const peerId of this.#paths.cuts) this.#around.coordinator.send({ type: 'path', peerId, open: false });
    this.#rates.tellAgain();
  }

  /** The coordinator wants a way to be measured. */
  probe(peerId: PeerId): void {
    this.#probing.ask(peerId, this.#around.clock.now());
  }

  // --- signs that come by a link -----------------------------------------------------------------------------------

  onSign(from: PeerId): void {
    this.#around.peers.get(from)?.countSign(0);
  }

  onAsked(from: PeerId): void {
    const link = this.#around.peers.get(from);
    link?.countSign(0);
    link?.answer(!this.#signed.has(from));
  }

  onAnswered(from: PeerId): void {
    this.#around.peers.get(from)?.countSign(0);
    this.#rates.onAnswered(from, this.#around.clock.now());
  }

  /** @param elapsed milliseconds in which the probe arrived */
  onProbe(from: PeerId, length: number, bytes: number, elapsed: number): void {
    const link = this.#around.peers.get(from);
    link?.countSign(length);
    link?.answerProbe(bytes, Math.min(MAX_MICROS, Math.round(1_000 * elapsed)));
  }

  /** The answer to one. */
  onProbed(from: PeerId, bytes: number, elapsed: number): void {
    const { peers, clock } = this.#around;
    peers.get(from)?.countSign(0);
    const rate = this.#probing.onAnswer(from, bytes, elapsed, clock.now());
    if (rate === null) return;
    this.#rates.onProbed(from, rate);
    this.tell();
  }

  onClosed(peerId: PeerId): void {
    this.#rates.onClosed(peerId);
  }

  // --- for whoever looks on ----------------------------------------------------------------------------------------

  worthOf(peerId: PeerId): { readonly bytesPerSecond: number | null; readonly delayMs: number | null } {
    return this.#rates.of(peerId) ?? { bytesPerSecond: null, delayMs: null };
  }

  troubleOf(peerId: PeerId, now: number): PathTrouble {
    return this.#paths.of(peerId, now) ?? { silentMs: 0, downMs: 0, cut: false };
  }
}
