/**
 * Programs that know of sites: near ranks first, so that as little as possible goes the long way.
 *
 *     all-reduce        2(⌈log2 m⌉ + ⌈log2 k⌉) hops, 2⌈log2 k⌉ of them between sites
 *     reduce-scatter     ⌈log2 m⌉ + ⌈log2 k⌉
 *
 * for k sites of m ranks. All ranks of a site together send the vector 2(k−1)/k times to other sites, as if the site were one rank of
 * an all-reduce, where a ring through all of them sends it 2(N−1)/N times over each of its long links, and a tree from anywhere to
 * anywhere. It is what training at Frontier's scale does (low-bandwidth partitioning): a reduce-scatter within each site, an all-reduce
 * of each shard between the ranks that own it, an all-gather within each site.
 *
 * Said chunk by chunk, for sites of any sizes: chunk c belongs to rank c. Each other site has a gate for it, one of its ranks. Ranks
 * reduce up a binomial tree to their site's gate, gates up one to the owner, and the result goes down the same way. Two sites of
 * three, chunk 0 (the gate of the ranks 3, 4, 5 is 3):
 *
 *     4, 5 ──▶ 3 ══▶ 0 ══▶ 3 ──▶ 4, 5
 *           1, 2 ──▶ 0 ──▶ 1, 2
 *
 * A site's ranks take turns as the gate, so sites of equal size have each rank be the gate for the ranks of its own place elsewhere,
 * and in a small site beside a large one all ranks share the long way evenly.
 */
import { type Branches, halvingBranches, handDown, reduceUp } from './binomial.ts';
import { shareOf } from './partition.ts';
import type { ChunkProgram, Rank, Sites } from './program.ts';

/** The ranks of each site, ascending. */
function ranksOf(sites: Sites): readonly (readonly Rank[])[] {
  const ranks: Rank[][] = [];
  for (const [rank, site] of sites.entries()) {
    ranks[site] ??= [];
    ranks[site].push(rank);
  }
  return ranks;
}

/** For each chunk, the rank of a site that stands for it there: in turns for the chunks of those elsewhere, site by site. */
function gatesOf(site: readonly Rank[], ranks: readonly (readonly Rank[])[]): readonly Rank[] {
  const gates: Rank[] = [];
  const elsewhere = ranks.filter((other) => other !== site).flat();
  for (const owner of site) gates[owner] = owner;
  for (const [turn, owner] of elsewhere.entries()) gates[owner] = site[turn % site.length]!;
  return gates;
}

/** A rank's neighbours in the tree of the chunk of `owner`. */
function branchesTo(
  owner: Rank,
  rank: Rank,
  sites: Sites,
  ranks: readonly (readonly Rank[])[],
  gates: readonly (readonly Rank[])[],
): Branches {
  const gate = (site: number): Rank => gates[site]![owner]!;
  const here = sites[rank]!;
  const site = ranks[here]!;
  const within = halvingBranches(site.length, site.indexOf(rank), site.indexOf(gate(here)));
  const near = within.children.map((index) => site[index]!);
  if (within.parent !== null) return { parent: site[within.parent]!, children: near };
  const between = halvingBranches(ranks.length, here, sites[owner]!);
  // What comes from afar comes last, and what goes there goes first.
  const children = [...near, ...between.children.map(gate)];
  return { parent: between.parent === null ? null : gate(between.parent), children };
}

/** For each chunk its owner and this rank's neighbours; the rank's own chunk comes last. */
function treesOf(worldSize: number, rank: Rank, sites: Sites): readonly { owner: Rank; branches: Branches }[] {
  const ranks = ranksOf(sites);
  const gates = ranks.map((site) => gatesOf(site, ranks));
  return Array.from({ length: worldSize }, (_, index) => {
    const owner = (rank + 1 + index) % worldSize;
    return { owner, branches: branchesTo(owner, rank, sites, ranks, gates) };
  });
}

export function hierarchicalAllReduce(
  worldSize: number,
  rank: Rank,
  count: number,
  _root: Rank,
  sites: Sites,
): readonly ChunkProgram[] {
  return treesOf(worldSize, rank, sites).map(({ owner, branches }) => {
    const share = shareOf(count, worldSize, owner);
    const steps = [...reduceUp(branches), ...handDown(branches)];
    return { id: owner, count: share.count, input: share.start, output: share.start, steps };
  });
}

/** The first half: the sum stays with its owner. */
export function hierarchicalReduceScatter(
  worldSize: number,
  rank: Rank,
  count: number,
  _root: Rank,
  sites: Sites,
): readonly ChunkProgram[] {
  return treesOf(worldSize, rank, sites).map(({ owner, branches }) => {
    const share = shareOf(count, worldSize, owner);
    const output = owner === rank ? 0 : null;
    return { id: owner, count: share.count, input: share.start, output, steps: reduceUp(branches) };
  });
}
