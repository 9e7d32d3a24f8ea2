/**
 * Where a coordinator passes on flight records of a run's peers to one who asks for them. Nothing comes unasked, so nobody can be sent
 * what it did not want, and only so much is on the way at once. It reads no record.
 */
import type { PeerId } from '../membership/events.ts';
import type { Clock } from '../transport/clock.ts';
import type { CoordinatorMessage } from '../wire/coordinator-messages.ts';
import { MAX_FLIGHT_ASKERS, MAX_FLIGHTS_AT_ONCE } from '../wire/limits.ts';
import type { PeerMessage } from '../wire/peer-messages.ts';

/** What it needs of a run. */
interface Around {
  readonly clock: Clock;
  /** All peers of the run. */
  peers(): readonly PeerId[];
  /** Whether it can be told something now. */
  isConnected(peerId: PeerId): boolean;
  send(peerId: PeerId, message: CoordinatorMessage): void;
}

/** How long a peer has to answer before the next one is asked (ms): one whose process is stopped never does. */
export const ANSWER_MS = 2_000;

interface Inquiry {
  readonly calls: number;
  /** Those who were asked: what forgets them. */
  readonly asked: Map<PeerId, () => void>;
  /** Those who are asked later. */
  readonly left: PeerId[];
}

export class FlightDesk {
  readonly #around: Around;
  readonly #inquiries: Map<PeerId, Inquiry> = new Map();

  constructor(around: Around) {
    this.#around = around;
  }

  onMessage(from: PeerId, message: Extract<PeerMessage, { type: 'ask-flights' | 'flight' }>): void {
    if (message.type === 'ask-flights') this.#ask(from, message.calls);
    else this.#answer(from, message.to, message.dump);
  }

  /** A peer is gone, and waits for nothing any more. */
  left(peerId: PeerId): void {
    for (const stop of this.#inquiries.get(peerId)?.asked.values() ?? []) stop();
    this.#inquiries.delete(peerId);
  }

  /** Who has an inquiry under way, or comes when too many others have one, is not answered. */
  #ask(by: PeerId, calls: number): void {
    if (this.#inquiries.has(by) || this.#inquiries.size >= MAX_FLIGHT_ASKERS) return;
    const others = this.#around.peers().filter((peerId) => peerId !== by);
    const peers = others.filter((peerId) => this.#around.isConnected(peerId));
    const absent = others.filter((peerId) => !this.#around.isConnected(peerId));
    const inquiry = { calls, asked: new Map(), left: [...peers].reverse() };
    this.#inquiries.set(by, inquiry);
    this.#around.send(by, { type: 'flights-asked', peers, absent });
    this.#goOn(by, inquiry);
  }

  #goOn(by: PeerId, { calls, asked, left }: Inquiry): void {
    while (asked.size < MAX_FLIGHTS_AT_ONCE) {
      const next = left.pop();
      if (next === undefined) break;
      const stop = this.#around.clock.schedule(ANSWER_MS, () => this.#finish(by, next));
      asked.set(next, stop);
      this.#around.send(next, { type: 'flight-wanted', by, calls });
    }
    if (asked.size === 0) this.#inquiries.delete(by);
  }

  #finish(by: PeerId, peerId: PeerId): void {
    const inquiry = this.#inquiries.get(by);
    if (inquiry?.asked.delete(peerId) === true) this.#goOn(by, inquiry);
  }

  #answer(from: PeerId, to: PeerId, dump: Uint8Array): void {
    const stop = this.#inquiries.get(to)?.asked.get(from);
    if (stop === undefined) return;
    stop();
    this.#around.send(to, { type: 'flight-of', from, dump });
    this.#finish(to, from);
  }
}
