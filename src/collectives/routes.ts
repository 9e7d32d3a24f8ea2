/**
 * Ways round pairs of members that can't reach one another (*cuts*). Pure functions of a view, so that all members that
 * know the same view go the same ways.
 */
import type { PeerId } from './call.ts';

export type Cut = readonly [PeerId, PeerId];

/** Members that a search may try before it gives up: with few cuts the first order that it comes to is good. */
const MAX_TRIES = 20_000;

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
 * An order of the members in which each can reach the next, and the last the first; the members as they are when there is
 * no cut, when there is no such order, or when none was found in time. Depth first, in the order of the view.
 */
export function ringAround<M extends { readonly peerId: PeerId }>(members: readonly M[], cuts: Cuts): readonly M[] {
  const [first, ...others] = members;
  if (cuts.empty || first === undefined || members.length < 4) return members;
  const ring: M[] = [first];
  const left = new Set(others);
  let tries = 0;
  const extend = (): boolean => {
    const last = ring.at(-1)!; // never empty
    if (left.size === 0) return !cuts.has(last.peerId, first.peerId);
    for (const next of others) {
      if (!left.has(next) || cuts.has(last.peerId, next.peerId)) continue;
      tries += 1;
      if (tries > MAX_TRIES) return false;
      left.delete(next);
      ring.push(next);
      if (extend()) return true;
      ring.pop();
      left.add(next);
    }
    return false;
  };
  return extend() ? ring : members;
}
