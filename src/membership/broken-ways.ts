/**
 * Ways between live peers that are broken, as the coordinator hears of them.
 *
 * - A pair is *cut* as long as one of the two says that it can't reach the other.
 * - A link that closed is repaired a little later, unless it turns out until then that a peer died.
 */
import { MAX_CUTS } from '../wire/limits.ts';
import type { PeerId } from './events.ts';
import { type Pair, pairOf } from './ways.ts';

/** A link that closed is repaired after this time, unless it turns out that a peer died. */
const REPAIR_DELAY_MS = 200;

interface Cut {
  readonly pair: Pair;
  /** Which of the two say so. */
  readonly by: Set<PeerId>;
}

export class BrokenWays {
  readonly #cuts: Map<string, Cut> = new Map();
  readonly #repairs: Map<string, { readonly pair: Pair; readonly at: number }> = new Map();

  /** A peer can't reach another any more, or can again. Whether it is news that the two are cut. */
  onPath(reporter: PeerId, peerId: PeerId, open: boolean): boolean {
    const pair = pairOf(reporter, peerId);
    const key = pair.join(' ');
    const cut = this.#cuts.get(key);
    if (open) {
      cut?.by.delete(reporter);
      if (cut?.by.size === 0) this.#cuts.delete(key);
      return false;
    }
    if (cut === undefined) this.#cuts.set(key, { pair, by: new Set([reporter]) });
    else cut.by.add(reporter);
    return cut === undefined;
  }

  isCut(pair: Pair): boolean {
    return this.#cuts.has(pair.join(' '));
  }

  /** As many as can be told. */
  cutsAmong(members: readonly PeerId[]): readonly Pair[] {
    const present = new Set(members);
    const cuts: Pair[] = [];
    for (const { pair } of this.#cuts.values())
      if (cuts.length < MAX_CUTS && pair.every((peerId) => present.has(peerId))) cuts.push([...pair]);
    return cuts;
  }

  /** A peer is gone. */
  forget(peerId: PeerId): void {
    for (const [key, { pair }] of this.#cuts) if (pair.includes(peerId)) this.#cuts.delete(key);
  }

  /** A peer tells again what it can't reach. */
  forgetWordOf(peerId: PeerId): void {
    for (const [key, { by }] of this.#cuts) if (by.delete(peerId) && by.size === 0) this.#cuts.delete(key);
  }

  repairSoon(pair: Pair, now: number): void {
    const key = pair.join(' ');
    if (!this.#repairs.has(key)) this.#repairs.set(key, { pair, at: now + REPAIR_DELAY_MS });
  }

  /** What is to be repaired now. */
  takeRepairs(now: number): Pair[] {
    const due = [...this.#repairs].filter(([, { at }]) => now >= at);
    for (const [key] of due) this.#repairs.delete(key);
    return due.map(([, { pair }]) => pair);
  }
}
