/**
 * Programs that travel along trees: O(log N) hops where a ring needs O(N).
 *
 *     all-reduce           at most 2·⌊log2 N⌋ hops, at most 2n elements sent per rank
 *     broadcast, reduce    ⌈log2 N⌉ rounds; the root sends (or takes) up to ⌈log2 N⌉ · n
 *
 * All-reduce uses two binary trees at once (P. Sanders, J. Speck, J. L. Träff: "Two-tree algorithms for full bandwidth
 * broadcast, reduction and scan", Parallel Computing 35, 2009). In a single tree the leaves, half of all ranks, would
 * hardly use their outgoing bandwidth. So each tree carries half of the vector, and who is an inner node in one is a
 * leaf in the other. The paper also colours the edges, to set up lock-step rounds; the executor starts whatever is
 * ready, so no colours are needed here.
 */
import { lowestBit, rotatedBranches } from './binomial.ts';
import { reduce, replace, send } from './instructions.ts';
import { shareOf } from './partition.ts';
import type { ChunkProgram, Instruction, Rank } from './program.ts';

/** Neighbours of a node in the in-order tree. Children: the one with the shallower subtree first. */
interface Links {
  readonly parent: number | null;
  readonly children: readonly number[];
}

/**
 * The binary tree whose in-order walk is 1, 2, …, size. A label's lowest set bit tells its height, so odd labels are the
 * leaves, and every even one has a left child at least. Where a label does not exist
 * (here 14, for size 13), its left child takes the place:
 *
 *                 8
 *             ／     ＼
 *           4           12
 *         ／ ＼       ／  ＼
 *        2     6    10     13
 *       1 3   5 7  9  11
 */
function inOrderLinks(label: number, size: number): Links {
  const half = lowestBit(label) / 2;
  const children: number[] = [];
  if (half >= 1) {
    let right = label + half;
    while (right > size && right % 2 === 0) right -= lowestBit(right) / 2;
    if (right <= size) children.push(right);
    children.push(label - half);
  }
  // The root: the largest power of two that is a label.
  if (label * 2 > size && lowestBit(label) === label) return { parent: null, children };
  let parent = label;
  do {
    const bit = lowestBit(parent);
    parent = (parent & (bit * 2)) === 0 ? parent + bit : parent - bit;
  } while (parent > size);
  return { parent, children };
}

/** Which label a rank bears in a tree, and back. */
interface Labelling {
  labelOf(rank: Rank): number;
  rankOf(label: number): Rank;
}

/**
 * In the second tree the labels change parity: mirrored for even N, shifted by one for odd N (there rank N−1 has label
 * N, odd, and gets 1, odd: it is a leaf in both; a tree of odd size has one leaf more than inner nodes).
 */
function labellings(worldSize: number): readonly [Labelling, Labelling] {
  const plain: Labelling = { labelOf: (rank) => rank + 1, rankOf: (label) => label - 1 };
  if (worldSize % 2 === 0) {
    return [plain, { labelOf: (rank) => worldSize - rank, rankOf: (label) => worldSize - label }];
  }
  return [
    plain,
    {
      labelOf: (rank) => ((rank + 1) % worldSize) + 1,
      rankOf: (label) => (label - 2 + worldSize) % worldSize,
    },
  ];
}

/** A rank's place in one of the two trees of an all-reduce. */
export interface TreePlace {
  readonly rank: Rank;
  readonly parent: Rank | null;
}

/** For whoever draws them: both trees, each in the order of its in-order walk. */
export function allReduceTrees(worldSize: number): readonly (readonly TreePlace[])[] {
  return labellings(worldSize).map((tree) =>
    Array.from({ length: worldSize }, (_, index) => {
      const { parent } = inOrderLinks(index + 1, worldSize);
      return { rank: tree.rankOf(index + 1), parent: parent === null ? null : tree.rankOf(parent) };
    }),
  );
}

/**
 * Chunk t is the half of the vector that tree t carries. Children are reduced in a fixed order, the shallower first: it
 * is ready first. On the way down the deeper comes first: it has the longer way to go.
 */
export function treeAllReduce(worldSize: number, rank: Rank, count: number): readonly ChunkProgram[] {
  const trees = labellings(worldSize);
  return trees.map((tree, id) => {
    const links = inOrderLinks(tree.labelOf(rank), worldSize);
    const children = links.children.map((label) => tree.rankOf(label));
    const steps: Instruction[] = children.map(reduce);
    if (links.parent !== null) {
      const parent = tree.rankOf(links.parent);
      steps.push(send(parent), replace(parent));
    }
    steps.push(...children.map(send).reverse());
    const share = shareOf(count, trees.length, id);
    return { id, count: share.count, input: share.start, output: share.start, steps };
  });
}

export function treeBroadcast(worldSize: number, rank: Rank, count: number, root: Rank): readonly ChunkProgram[] {
  const { parent, children } = rotatedBranches(worldSize, rank, root);
  const steps: Instruction[] = children.map(send).reverse(); // the largest subtree has the longest way to go
  if (parent !== null) steps.unshift(replace(parent));
  return [{ id: 0, count, input: rank === root ? 0 : null, output: 0, steps }];
}

export function treeReduce(worldSize: number, rank: Rank, count: number, root: Rank): readonly ChunkProgram[] {
  const { parent, children } = rotatedBranches(worldSize, rank, root);
  const steps: Instruction[] = children.map(reduce); // the smallest subtree is ready first
  if (parent !== null) steps.push(send(parent));
  return [{ id: 0, count, input: 0, output: rank === root ? 0 : null, steps }];
}
