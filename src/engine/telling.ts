/**
 * What this peer tells the coordinator of itself, again and again: that it lives, for whom its calls wait, and, where somebody looks on,
 * what it has counted.
 */
import type { PeerId, Report } from '../collectives/call.ts';
import type { CollectiveKind } from '../collectives/program.ts';
import { type Sight, Waits } from '../collectives/waits.ts';
import { Tally } from '../eyes/tally.ts';
import type { Clock } from '../transport/clock.ts';
import { MAX_TOLD_WAITING } from '../wire/limits.ts';
import type { PeerMessage } from '../wire/peer-messages.ts';
import type { PathKind } from './path-race.ts';
import type { Peers } from './peers.ts';

interface Calls {
  readonly openCount: number;
  /** For whom they wait. */
  waitsOn(): ReadonlyMap<PeerId, Omit<Sight, 'received'>>;
}

interface Surroundings {
  readonly clock: Clock;
  readonly peers: Peers;
  readonly calls: Calls;
  readonly coordinator: { readonly connected: boolean; send(message: PeerMessage): void };
}

export class Telling {
  readonly #around: Surroundings;
  readonly #waits: Waits = new Waits();
  readonly #tally: Tally = new Tally();
  /** When the coordinator was last given a sign of life that it has not answered; null: it has. */
  #beatAt: number | null = null;
  #roundTripMs: number | null = null;

  constructor(around: Surroundings) {
    this.#around = around;
  }

  // --- signs of life -----------------------------------------------------------------------------------------------

  beat(): void {
    const { clock, coordinator } = this.#around;
    this.#beatAt ??= clock.now();
    coordinator.send({ type: 'beat' });
  }

  onBeat(): void {
    if (this.#beatAt !== null) this.#roundTripMs = this.#around.clock.now() - this.#beatAt;
    this.#beatAt = null;
  }

  /** What was not answered never will be. */
  onCoordinatorBack(): void {
    this.#beatAt = null;
  }

  // --- waits -------------------------------------------------------------------------------------------------------

  /** @param elapsed milliseconds since the last look */
  lookAtWaits(elapsed: number): void {
    const { calls, peers } = this.#around;
    const sights = [...calls.waitsOn()].map(([peerId, wait]) => {
      const received = peers.get(peerId)?.receivedNews ?? 0;
      return [peerId, { ...wait, received }] as const;
    });
    this.#waits.look(new Map(sights), elapsed);
  }

  tellWaits(): void {
    let room = MAX_TOLD_WAITING;
    const waits = this.#waits.take().map((wait) => {
      const calls = wait.calls.slice(0, room);
      room -= calls.length;
      return { ...wait, calls };
    });
    if (waits.length > 0) this.#around.coordinator.send({ type: 'waits', waits });
  }

  // --- figures -----------------------------------------------------------------------------------------------------

  /** The coordinator wants to know what is counted. */
  watch(): void {
    this.#tally.watch();
  }

  /** @param report null: the call failed */
  onSettled(kind: CollectiveKind, report: Report | null): void {
    this.#tally.onSettled(kind, report);
  }

  onPath(peerId: PeerId, path: PathKind | null): void {
    this.#tally.onPath(peerId, path);
  }

  /** Only to a coordinator that watches, and only what is news. */
  tellFigures(boundary: number): void {
    const { clock, calls, peers, coordinator } = this.#around;
    if (!coordinator.connected || !this.#tally.isWatched) return;
    const links = [...peers.ids()].map((peerId) => {
      const { sent, received, queuedBytes } = peers.get(peerId)!; // listed just now
      return { peerId, sent, received, queuedBytes };
    });
    const circumstances = { open: calls.openCount, boundary, roundTripMs: this.#roundTripMs };
    const figures = this.#tally.take(clock.now(), links, circumstances);
    if (figures !== null) coordinator.send({ type: 'figures', ...figures });
  }
}
