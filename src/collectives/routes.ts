/**
 * Ways round pairs of members that can't reach one another (*cuts*). Pure functions of a view, so that all members that
 * know the same view go the same ways.
 */

import { type RingMember, ringOf } from '../ring/ring.ts';
import type { PeerId } from './call.ts';

export type Cut = readonly [PeerId, PeerId];

/** A set of cuts that can be asked quickly. */
export class Cuts {
  readonly #pairs: Set<string> = new Set();

  constructor(cuts: readonly Cut[]) {
    for (const [one, other] of cuts) this.#pairs.add(`${one} ${other}`).add(`${other} ${one}`);
  }

  get empty(): boolean {
    return this.#pairs.size === 0;
  }

  has(one: PeerId, other: PeerId): boolean {
    return this.#pairs.has(`${one} ${other}`);
  }
}

/**
 * The shortest way from one member to another over pairs that can reach one another, both ends included; null when there
 * is none. Of several, the one through the members that stand first after `from`, so that relaying is spread.
 */
export function routeAround(
  members: readonly PeerId[],
  cuts: Cuts,
  from: PeerId,
  to: PeerId,
): readonly PeerId[] | null {
  const start = members.indexOf(from);
  const order = [...members.slice(start), ...members.slice(0, start)];
  const cameFrom = new Map<PeerId, PeerId | null>([[from, null]]);
  const queue = [from];
  for (const at of queue) {
    if (at === to) return walkBack(cameFrom, to);
    for (const next of order) {
      if (cameFrom.has(next) || cuts.has(at, next)) continue;
      cameFrom.set(next, at);
      queue.push(next);
    }
  }
  return null;
}

function walkBack(cameFrom: ReadonlyMap<PeerId, PeerId | null>, to: PeerId): readonly PeerId[] {
  const route: PeerId[] = [];
  for (let at: PeerId | null = to; at !== null; at = cameFrom.get(at) ?? null) route.unshift(at);
  return route;
}

/**
 * The ring of a view: its members by their places, and round the cuts where there is a way round. With cuts that no order
 * avoids, one that passes as few as possible.
 */
export function ringAround<M extends RingMember>(members: readonly M[], cuts: Cuts): readonly M[] {
  return ringOf(members, (from, to) => cuts.has(from, to));
}
