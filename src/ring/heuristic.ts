/**
 * A good ring of many members: iterated local search (H. Lourenço, O. Martin, T. Stützle, "Iterated Local Search", 2003) for an
 * order without hops that are slower than a bound; the bound is found by halving the range of the rates that there are.
 *
 * Moves begin at a hop that costs something, so there are about size² of them. Ways are not the same in both directions; most
 * moves leave the direction of all hops as it is:
 *
 *     exchange   … a │ b…c │ d…e │ f …   →   … a │ d…e │ b…c │ f …      (Or-3opt, of which Or-opt is a case)
 *     reverse    … a │ b…c │ d …         →   … a │ c…b │ d …            (2-opt)
 */
import {
  costOfConstraints,
  distinctRates,
  hopCosts,
  isBetter,
  leastExits,
  type RingProblem,
  scoreOf,
} from './problem.ts';

/** Operations for each bound that is tried. Beyond what the square of the size needs, to look further from a dead end. */
const PHASE_OPERATIONS = 1_500_000;
const PHASE_OPERATIONS_PER_HOP = 20;

/** What is less than this is due to rounding. */
const EPSILON = 1e-9;

/**
 * Yields how many operations it has done since it last did. `take` is given each order that is better than all before it, the
 * first one being `start`.
 */
export function* searchNearby(
  problem: RingProblem,
  start: readonly number[],
  take: (order: readonly number[]) => void,
): Generator<number, void> {
  const { size } = problem;
  let best: readonly number[] = start;
  let score = scoreOf(problem, start);
  const offer = (order: readonly number[]) => {
    const offered = scoreOf(problem, order);
    if (!isBetter(offered, score)) return;
    best = [...order];
    score = offered;
    take(best);
  };
  const budget = PHASE_OPERATIONS + PHASE_OPERATIONS_PER_HOP * size * size;
  const random = randomOf(problem);
  // What can't be avoided: hops without a way, and exits.
  const least = costOfConstraints(size, { closed: 0, exits: leastExits(problem) });
  offer(yield* descend(size, hopCosts(problem, Number.NEGATIVE_INFINITY, 0, false), best, 1, least, budget, random));
  const rates = distinctRates(problem).filter((rate) => rate <= highest(problem));
  let [low, high] = [rates.indexOf(score.rate), rates.length];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    const costs = hopCosts(problem, rates[middle]!, 1, false);
    offer(yield* descend(size, costs, best, 1, costOfConstraints(size, score), budget, random));
    const reached = rates.indexOf(score.rate);
    if (reached >= middle) low = reached;
    else high = middle;
  }
  const costs = hopCosts(problem, score.rate, 1, true);
  offer(yield* descend(size, costs, best, EPSILON, Number.NEGATIVE_INFINITY, budget, random));
}

/** No ring is faster than the best way out of, or into, any one member. */
function highest({ size, rates, closed }: RingProblem): number {
  let bound = Number.POSITIVE_INFINITY;
  for (let member = 0; member < size; member++) {
    let [out, into] = [0, 0];
    for (let other = 0; other < size; other++) {
      if (other === member) continue;
      if (closed[member * size + other] === 0) out = Math.max(out, rates[member * size + other]!);
      if (closed[other * size + member] === 0) into = Math.max(into, rates[other * size + member]!);
    }
    for (const rate of [out, into]) if (rate > 0) bound = Math.min(bound, rate);
  }
  return bound;
}

/**
 * The cheapest order that is found near `start`.
 *
 * @param worth hops that cost less than this are not worth a move of their own
 * @param enough an order that costs no more is good enough
 */
function* descend(
  size: number,
  costs: Float64Array,
  start: readonly number[],
  worth: number,
  enough: number,
  budget: number,
  random: () => number,
): Generator<number, readonly number[]> {
  let order = [...start];
  let cost = costOf(size, costs, order);
  let [best, bestCost] = [order, cost];
  for (let left = budget; left > 0 && bestCost > enough + EPSILON; ) {
    let isStuck = true;
    for (let at = 0; at < size && left > 0; at++) {
      const hop = costs[order[at]! * size + order[(at + 1) % size]!]!;
      if (hop < worth) continue;
      const rotated = [...order.slice(at + 1), ...order.slice(0, at + 1)];
      const move = bestMove(size, costs, rotated);
      const operations = (size * size) / 2;
      left -= operations;
      yield operations;
      if (move.gain <= EPSILON) continue;
      order = apply(rotated, move);
      cost -= move.gain;
      isStuck = false;
      break;
    }
    if (cost < bestCost - EPSILON) [best, bestCost] = [order, cost];
    if (!isStuck) continue;
    order = kick(best, random);
    cost = costOf(size, costs, order);
    left -= size;
    yield size;
  }
  return best;
}

function costOf(size: number, costs: Float64Array, order: readonly number[]): number {
  let cost = 0;
  for (let at = 0; at < size; at++) cost += costs[order[at]! * size + order[(at + 1) % size]!]!;
  return cost;
}

/** `first`, `second`: last places of the two parts that are exchanged; of the part that is reversed, where they are equal. */
interface Move {
  readonly gain: number;
  readonly first: number;
  readonly second: number;
}

/** The best move that does away with the hop from the last of `order` to the first. */
function bestMove(size: number, costs: Float64Array, order: readonly number[]): Move {
  const last = order[size - 1]! * size;
  const head = order[0]!;
  const gone = costs[last + head]!;
  let [gain, first, second] = [0, 0, 0];
  let [forwards, backwards] = [0, 0];
  for (let one = 0; one < size - 1; one++) {
    const [end, after] = [order[one]!, order[one + 1]!];
    if (one > 0) {
      const before = order[one - 1]!;
      forwards += costs[before * size + end]!;
      backwards += costs[end * size + before]!;
      const cost = costs[last + end]! + backwards + costs[head * size + after]!;
      const saved = gone + forwards + costs[end * size + after]! - cost;
      if (saved > gain + EPSILON) [gain, first, second] = [saved, one, one];
    }
    const cut = gone + costs[end * size + after]! - costs[last + after]!;
    for (let other = one + 1; other < size - 1; other++) {
      const [stop, next] = [order[other]!, order[other + 1]!];
      const saved = cut + costs[stop * size + next]! - costs[stop * size + head]! - costs[end * size + next]!;
      if (saved > gain + EPSILON) [gain, first, second] = [saved, one, other];
    }
  }
  return { gain, first, second };
}

function apply(order: readonly number[], { first, second }: Move): number[] {
  if (first === second) return [...order.slice(0, first + 1).reverse(), ...order.slice(first + 1)];
  return [...order.slice(first + 1, second + 1), ...order.slice(0, first + 1), ...order.slice(second + 1)];
}

/** Exchanges two parts that lie at random (a double bridge): local moves don't undo that. */
function kick(order: readonly number[], random: () => number): number[] {
  const size = order.length;
  const turn = Math.floor(random() * size);
  const turned = [...order.slice(turn), ...order.slice(0, turn)];
  const reach = Math.min(size - 1, 50);
  const second = 1 + Math.floor(random() * (reach - 1));
  return apply(turned, { gain: 0, first: Math.floor(random() * second), second });
}

/** The same for the same problem: mulberry32, seeded by the rates. */
function randomOf({ size, rates }: RingProblem): () => number {
  let state = size;
  for (const rate of rates) state = (Math.imul(state, 31) + Math.round(Math.log2(rate + 1) * 1_000)) | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
