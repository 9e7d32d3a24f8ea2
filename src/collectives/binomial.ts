/**
 * Binomial trees, and the two things that a chunk does along any tree: it is reduced up to the root, and handed down again.
 *
 * In a tree over places 0, 1, …, N−1 with the root at 0, a place's parent has the place's lowest set bit cleared:
 *
 *     0 ─┬─ 1
 *        ├─ 2 ── 3
 *        └─ 4 ─┬─ 5
 *              └─ 6 ── 7
 */
import { reduce, replace, send } from './instructions.ts';
import type { Instruction, Rank } from './program.ts';

/** A rank's neighbours in a tree. Children: the one with the smallest subtree first. */
export interface Branches {
  readonly parent: Rank | null;
  readonly children: readonly Rank[];
}

export function lowestBit(value: number): number {
  return value & -value;
}

/** How ranks and places in a tree belong together. */
type RankAt = (place: number) => Rank;

function branchesAt(worldSize: number, place: number, rankAt: RankAt): Branches {
  const limit = place === 0 ? worldSize : lowestBit(place);
  const children: Rank[] = [];
  for (let bit = 1; bit < limit && place + bit < worldSize; bit *= 2) children.push(rankAt(place + bit));
  return { parent: place === 0 ? null : rankAt(place - lowestBit(place)), children };
}

/** Places are counted from the root, up and round. */
export function rotatedBranches(worldSize: number, rank: Rank, root: Rank): Branches {
  return branchesAt(worldSize, (rank - root + worldSize) % worldSize, (place) => (root + place) % worldSize);
}

/**
 * Of N trees, one rooted at each rank, that together are recursive halving: where N is a power of two, place = rank XOR root, so
 * that in all trees the same ranks are neighbours. Otherwise places are counted from the root.
 */
export function halvingBranches(worldSize: number, rank: Rank, root: Rank): Branches {
  if (lowestBit(worldSize) !== worldSize) return rotatedBranches(worldSize, rank, root);
  return branchesAt(worldSize, rank ^ root, (place) => root ^ place);
}

/** The smallest subtree is ready first. */
export function reduceUp({ parent, children }: Branches): Instruction[] {
  return [...children.map(reduce), ...(parent === null ? [] : [send(parent)])];
}

/** The largest subtree has the longest way to go. */
export function handDown({ parent, children }: Branches): Instruction[] {
  return [...(parent === null ? [] : [replace(parent)]), ...children.map(send).reverse()];
}
