/**
 * The ring of a view. A member's place on it is a fact of the view, as its rank is; where two that follow one another can't
 * reach each other, the ring goes round that with as few changes as possible. A pure function of the view and its cuts, so all
 * members that know the same have the same ring.
 */
import type { RingProblem } from './problem.ts';
import { RingSearch } from './search.ts';

export interface RingMember {
  readonly peerId: string;
  /** Empty for a member that names none. */
  readonly site: string;
  /** Members stand in the order of their places, and where these are equal in that of the view. */
  readonly place: number;
}

/** More than any search of that size needs, and no more than a few dozen milliseconds. */
const MAX_OPERATIONS = 4_000_000;

export function ringOf<M extends RingMember>(
  members: readonly M[],
  isCut: (from: string, to: string) => boolean,
): readonly M[] {
  const placed = [...members].sort((left, right) => left.place - right.place);
  // A ring of three passes all there is.
  if (placed.length < 4 || !passesCut(placed, isCut)) return placed;
  const { length: size } = placed;
  const problem: RingProblem = {
    size,
    rates: new Float64Array(size * size).fill(1),
    // Whoever follows somebody else than before counts as a detour.
    delays: Float64Array.from({ length: size * size }, (_, hop) =>
      hop % size === (Math.floor(hop / size) + 1) % size ? 0 : 1,
    ),
    closed: Uint8Array.from({ length: size * size }, (_, hop) =>
      isCut(placed[Math.floor(hop / size)]!.peerId, placed[hop % size]!.peerId) ? 1 : 0,
    ),
    sites: sitesOf(placed),
  };
  const search = new RingSearch(
    problem,
    placed.map((_, member) => member),
  );
  search.run(MAX_OPERATIONS);
  return search.best.map((member) => placed[member]!);
}

function passesCut(ring: readonly RingMember[], isCut: (from: string, to: string) => boolean): boolean {
  return ring.some(({ peerId }, at) => isCut(peerId, ring[(at + 1) % ring.length]!.peerId));
}

/** Sites by number; −1 for a member that names none. */
export function sitesOf(members: readonly Pick<RingMember, 'site'>[]): Int32Array {
  const names = [...new Set(members.map((member) => member.site))];
  return Int32Array.from(members, ({ site }) => (site === '' ? -1 : names.indexOf(site)));
}
