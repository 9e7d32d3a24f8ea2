/**
 * Frames of collectives that this peer has not called yet, or not begun again yet. Only announcements and small calls come
 * unasked, and each peer has a budget, so what is kept here is bounded whatever the peers do.
 */
import type { FrameHeader } from '../wire/frame.ts';
import { MAX_UNEXPECTED_BYTES, MAX_UNEXPECTED_FRAMES } from '../wire/limits.ts';
import type { PeerId } from './call.ts';
import type { Path } from './relay.ts';

export interface Arrival {
  readonly from: PeerId;
  /** The way that it took, if it was relayed. */
  readonly path: Path | null;
  readonly header: FrameHeader;
  readonly payload: Uint8Array;
}

interface Budget {
  bytes: number;
  frames: number;
}

/** Who pays for what is kept: a peer that relays can't use up what is kept for others. */
function payerOf({ from, path }: Arrival): string {
  return path === null ? from : `${path.at(-2)} ${from}`;
}

function keyOf(generation: number, tag: number, sequence: number): string {
  return `${generation}:${tag}:${sequence}`;
}

export class Arrivals {
  readonly #kept: Map<string, Arrival[]> = new Map();
  readonly #budgets: Map<string, Budget> = new Map();

  /** Stores a frame; what is wrong, or null. */
  keep(arrival: Arrival): string | null {
    const payer = payerOf(arrival);
    const budget = this.#budgets.get(payer) ?? { bytes: 0, frames: 0 };
    const bytes = budget.bytes + arrival.payload.length;
    if (bytes > MAX_UNEXPECTED_BYTES || budget.frames >= MAX_UNEXPECTED_FRAMES) {
      return 'it sent more data for calls not made here than the protocol allows';
    }
    budget.bytes = bytes;
    budget.frames += 1;
    this.#budgets.set(payer, budget);
    const { generation, tag, sequence } = arrival.header;
    const key = keyOf(generation, tag, sequence);
    const list = this.#kept.get(key);
    if (list === undefined) this.#kept.set(key, [arrival]);
    else list.push(arrival);
    return null;
  }

  /** Removes and returns what was kept for a collective, in the order in which it came. */
  take(generation: number, tag: number, sequence: number): readonly Arrival[] {
    const key = keyOf(generation, tag, sequence);
    const list = this.#kept.get(key);
    if (list === undefined) return [];
    this.#kept.delete(key);
    for (const arrival of list) this.#release(arrival);
    return list;
  }

  dropBefore(generation: number): void {
    this.#drop((arrival) => arrival.header.generation < generation);
  }

  dropFrom(peerId: PeerId): void {
    this.#drop((arrival) => arrival.from === peerId || arrival.path?.includes(peerId) === true);
  }

  #release(arrival: Arrival): void {
    const payer = payerOf(arrival);
    const budget = this.#budgets.get(payer);
    if (budget === undefined) return;
    budget.bytes -= arrival.payload.length;
    budget.frames -= 1;
    if (budget.frames === 0) this.#budgets.delete(payer);
  }

  #drop(condition: (arrival: Arrival) => boolean): void {
    for (const [key, list] of this.#kept) {
      const rest = list.filter((arrival) => !condition(arrival));
      if (rest.length === list.length) continue;
      for (const arrival of list) if (condition(arrival)) this.#release(arrival);
      if (rest.length === 0) this.#kept.delete(key);
      else this.#kept.set(key, rest);
    }
  }
}
