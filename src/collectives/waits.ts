/** How long this rank waits for each peer, summed up look by look, and told once a second. */
import type { Excludable } from '../wire/peer-messages.ts';
import type { PeerId } from './call.ts';

export interface Waited {
  readonly peerId: PeerId;
  readonly receiveMs: number;
  readonly sendMs: number;
  /** Calls that wait for it now, and could do without. */
  readonly calls: readonly Excludable[];
}

/** What one look at the open calls shows of a peer. */
export interface Sight {
  /** Something is due from it. */
  readonly due: boolean;
  /** Something waits for its link to take more. */
  readonly blocked: boolean;
  /** Calls that wait for it, and could do without. */
  readonly calls: readonly Excludable[];
  /** Bytes received from it so far. */
  readonly received: number;
}

/** Waits shorter than this are not worth telling (ms). */
const LEAST_MS = 200;

export class Waits {
  readonly #received: Map<PeerId, number> = new Map();
  #sums: Map<PeerId, { receiveMs: number; sendMs: number; calls: readonly Excludable[] }> = new Map();

  /** @param elapsed milliseconds since the last look */
  look(sights: ReadonlyMap<PeerId, Sight>, elapsed: number): void {
    for (const peerId of this.#received.keys()) if (!sights.has(peerId)) this.#received.delete(peerId);
    for (const [peerId, { due, blocked, calls, received }] of sights) {
      // Slow is not silent: while bytes come in, this rank has something to do.
      const isSilent = this.#received.get(peerId) === received;
      this.#received.set(peerId, received);
      const sum = this.#sums.get(peerId) ?? { receiveMs: 0, sendMs: 0, calls };
      sum.calls = calls;
      if (due && isSilent) sum.receiveMs += elapsed;
      if (blocked) sum.sendMs += elapsed;
      this.#sums.set(peerId, sum);
    }
  }

  /** The waits since this was last asked, if they are worth telling. */
  take(): readonly Waited[] {
    const waits = [...this.#sums].map(([peerId, sum]) => ({ peerId, ...sum }));
    this.#sums = new Map();
    return waits.some((wait) => Math.max(wait.receiveMs, wait.sendMs) >= LEAST_MS) ? waits : [];
  }
}
