/** Where members stand: on a circle in the order of the ring, or as one of the two trees of an all-reduce. Pure. */
import { allReduceTrees } from '../collectives/tree.ts';

export interface Point {
  readonly x: number;
  readonly y: number;
}

/** Who is drawn where, and which pairs are joined by what the shape is made of. */
export interface Layout {
  readonly places: ReadonlyMap<string, Point>;
  readonly edges: readonly { readonly from: string; readonly to: string }[];
  /** Of a circle about the middle; null: there is none. */
  readonly radius: number | null;
}

export type Shape = 'ring' | 'tree-0' | 'tree-1';

const RADIUS = 236;

/** Half of the width and of the height of a tree. */
const HALF_WIDTH = 285;
const HALF_HEIGHT = 235;

/** @param ring in its order, from the top on clockwise */
export function ringLayout(ring: readonly string[]): Layout {
  const places = new Map<string, Point>();
  for (const [place, peerId] of ring.entries()) {
    const angle = (2 * Math.PI * place) / ring.length - Math.PI / 2;
    places.set(peerId, { x: RADIUS * Math.cos(angle), y: RADIUS * Math.sin(angle) });
  }
  const edges = ring.length < 2 ? [] : ring.map((from, place) => ({ from, to: ring[(place + 1) % ring.length]! })); // within
  return { places, edges, radius: RADIUS };
}

/**
 * @param members by rank
 * @param tree which of the two
 */
export function treeLayout(members: readonly string[], tree: number): Layout {
  const walk = allReduceTrees(members.length)[tree] ?? [];
  const parents = new Map(walk.map(({ rank, parent }) => [rank, parent]));
  const depthOf = (rank: number): number => {
    const parent = parents.get(rank) ?? null;
    return parent === null ? 0 : 1 + depthOf(parent);
  };
  const depths = walk.map(({ rank }) => depthOf(rank));
  const deepest = Math.max(1, ...depths);
  const places = new Map<string, Point>();
  const edges: { from: string; to: string }[] = [];
  for (const [at, { rank, parent }] of walk.entries()) {
    const peerId = members[rank]!; // ranks are those of the members
    const x = walk.length < 2 ? 0 : HALF_WIDTH * ((2 * at) / (walk.length - 1) - 1);
    places.set(peerId, { x, y: HALF_HEIGHT * ((2 * depths[at]!) / deepest - 1) });
    if (parent !== null) edges.push({ from: peerId, to: members[parent]! });
  }
  return { places, edges, radius: null };
}
