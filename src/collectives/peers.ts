/** Who talks to whom: what links a collective needs, and which are worth having before the first one. */
import { algorithmsOf, makePlan } from './plan.ts';
import type { Plan, Rank } from './program.ts';

/** Up to this world size everybody is everybody's neighbour: 15 links cost less than a dial in the middle of a step. */
const FULL_MESH_LIMIT = 16;

/** How far up and down the ring links are kept: when the next rank is lost, the one after it becomes the next. */
const RING_REACH = 2;

function sorted(ranks: ReadonlySet<Rank>): readonly Rank[] {
  return [...ranks].sort((a, b) => a - b);
}

/** All ranks that a plan sends to or receives from, ascending. */
export function peersOf(plan: Plan): readonly Rank[] {
  const peers = new Set<Rank>();
  for (const chunk of plan.chunks) {
    for (const step of chunk.steps) peers.add(step.do === 'send' ? step.to : step.from);
  }
  return sorted(peers);
}

/**
 * The ranks that `rank` should have links to before it takes part, ascending: whoever an all-reduce that is not direct
 * makes it talk to, and the ring beyond its next neighbours. Mutual: if a is b's neighbour, b is a's.
 */
export function neighbours(worldSize: number, rank: Rank): readonly Rank[] {
  const near = new Set<Rank>();
  if (worldSize <= FULL_MESH_LIMIT) {
    for (let other = 0; other < worldSize; other++) near.add(other);
  } else {
    for (let distance = 1; distance <= RING_REACH; distance++) {
      near.add((rank + distance) % worldSize);
      near.add((rank - distance + worldSize) % worldSize);
    }
    for (const algorithm of algorithmsOf('allReduce')) {
      if (algorithm === 'direct') continue; // names all others: links to most are made when it is first used
      const plan = makePlan({ kind: 'allReduce', algorithm, worldSize, count: 0, root: 0 }, rank);
      for (const peer of peersOf(plan)) near.add(peer);
    }
  }
  near.delete(rank);
  return sorted(near);
}
