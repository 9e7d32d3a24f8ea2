/**
 * The best ring of a few members: dynamic programming over sets (R. Bellman, "Dynamic Programming Treatment of the Travelling
 * Salesman Problem", 1962; M. Held, R. Karp, 1962). Which rate all hops can have at once is found by halving the range of the
 * rates that there are.
 *
 *     cost[S, e]: the cheapest way from member 0 through all of S, ending in e ∈ S
 */
import { distinctRates, hopCosts, type RingProblem } from './problem.ts';

/** After so many operations the search may pause. */
const PAUSE_OPERATIONS = 4_096;

/** Yields how many operations it has done since it last did; in the end it has the best order of all. */
export function* searchExactly(problem: RingProblem): Generator<number, readonly number[]> {
  const { size } = problem;
  if (size < 3) return Array.from({ length: size }, (_, member) => member);
  const table = new Float64Array(2 ** (size - 1) * (size - 1));
  const least = yield* fill(problem, hopCosts(problem, Number.NEGATIVE_INFINITY, 0, false), table);
  const rates = distinctRates(problem);
  // rates[low] is good enough for the cheapest ring, rates[high] is not.
  let [low, high] = [0, rates.length];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    const costs = hopCosts(problem, rates[middle]!, Number.POSITIVE_INFINITY, false);
    if ((yield* fill(problem, costs, table)) === least) low = middle;
    else high = middle;
  }
  const costs = hopCosts(problem, rates[low] ?? 0, Number.POSITIVE_INFINITY, true);
  yield* fill(problem, costs, table);
  return walkBack(size, costs, table);
}

/** Fills the table; returns what the cheapest ring costs. */
function* fill({ size }: RingProblem, costs: Float64Array, table: Float64Array): Generator<number, number> {
  const others = size - 1;
  table.fill(Number.POSITIVE_INFINITY);
  // Member m + 1 is bit m.
  for (let end = 0; end < others; end++) table[2 ** end * others + end] = costs[end + 1]!;
  let operations = 0;
  const all = 2 ** others - 1;
  for (let set = 1; set < all; set++) {
    for (let end = 0; end < others; end++) {
      const cost = table[set * others + end]!;
      if (cost === Number.POSITIVE_INFINITY) continue;
      const row = (end + 1) * size + 1;
      for (let next = 0; next < others; next++) {
        if ((set >> next) & 1) continue;
        const at = (set | (1 << next)) * others + next;
        const sum = cost + costs[row + next]!;
        if (sum < table[at]!) table[at] = sum;
      }
      operations += others;
    }
    if (operations >= PAUSE_OPERATIONS) {
      yield operations;
      operations = 0;
    }
  }
  yield operations;
  return cheapestEnd(size, costs, table).cost;
}

function cheapestEnd(size: number, costs: Float64Array, table: Float64Array): { end: number; cost: number } {
  const others = size - 1;
  let best = { end: 0, cost: Number.POSITIVE_INFINITY };
  for (let end = 0; end < others; end++) {
    const cost = table[(2 ** others - 1) * others + end]! + costs[(end + 1) * size]!;
    if (cost < best.cost) best = { end, cost };
  }
  return best;
}

/** The order whose cost the table has: each step back is one whose sum is the very number that is there. */
function walkBack(size: number, costs: Float64Array, table: Float64Array): readonly number[] {
  const others = size - 1;
  const order: number[] = [];
  let { end } = cheapestEnd(size, costs, table);
  for (let set = 2 ** others - 1; ; ) {
    order.unshift(end + 1);
    const rest = set & ~(1 << end);
    if (rest === 0) return [0, ...order];
    const cost = table[set * others + end]!;
    let before = 0;
    while (
      ((rest >> before) & 1) === 0 ||
      table[rest * others + before]! + costs[(before + 1) * size + end + 1]! !== cost
    )
      before += 1;
    end = before;
    set = rest;
  }
}
