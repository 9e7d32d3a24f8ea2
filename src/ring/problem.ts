/**
 * In which order members stand in a ring. Pure arithmetic, for the coordinator, which knows what the ways between members
 * are worth, and for members that have to go round a cut: both ask the same solver.
 *
 * An order is judged by four things, each of which decides only where those before it are equal: the hops for which there
 * is no way at all, how often the ring leaves a site, the slowest hop, and how long the way round takes.
 */

/** Members are numbered from 0; matrices hold the hop from `from` to `to` at `from * size + to`. */
export interface RingProblem {
  readonly size: number;
  /** Bytes per second. */
  readonly rates: Float64Array;
  /** How long a byte is on its way, in any one unit. */
  readonly delays: Float64Array;
  /** 1 where there is no way. */
  readonly closed: Uint8Array;
  /** Number of each member's site; −1 for a member that names none. */
  readonly sites: Int32Array;
}

export interface RingScore {
  readonly closed: number;
  /** How often the ring leaves a site. */
  readonly exits: number;
  /** Of the slowest hop for which there is a way; infinite where there is none. */
  readonly rate: number;
  readonly delay: number;
}

/** Up to this size the best order of all is found: about ten sums over 2^(size−1) sets, each of (size−1)² terms. */
export const EXACT_SIZE = 14;

/** Whether a hop leaves a site that has a name. */
function leavesSite({ sites }: RingProblem, from: number, to: number): boolean {
  return sites[from]! >= 0 && sites[from] !== sites[to];
}

export function scoreOf(problem: RingProblem, order: ArrayLike<number>): RingScore {
  const { size, rates, delays } = problem;
  let [closed, exits, rate, delay] = [0, 0, Number.POSITIVE_INFINITY, 0];
  for (let at = 0; at < size; at++) {
    const from = order[at]!;
    const to = order[at + 1 === size ? 0 : at + 1]!;
    const hop = from * size + to;
    if (leavesSite(problem, from, to)) exits += 1;
    if (problem.closed[hop] === 1) closed += 1;
    else rate = Math.min(rate, rates[hop]!);
    delay += delays[hop]!;
  }
  return { closed, exits, rate, delay };
}

export function isBetter(one: RingScore, other: RingScore): boolean {
  if (one.closed !== other.closed) return one.closed < other.closed;
  if (one.exits !== other.exits) return one.exits < other.exits;
  if (one.rate !== other.rate) return one.rate > other.rate;
  return one.delay < other.delay;
}

/**
 * What hops cost, as one number: a hop without a way more than all exits together, an exit more than all slow hops, and a
 * slow hop (slower than `least`) more than the whole way round is long, where `timed` has that count.
 */
export function hopCosts(problem: RingProblem, least: number, slow: number, timed: boolean): Float64Array {
  const { size, rates, delays, closed } = problem;
  const costs = new Float64Array(size * size);
  const longest = timed ? delays.reduce((most, delay) => Math.max(most, delay), 0) : 0;
  const perDelay = longest > 0 ? 1 / (longest * (size + 1)) : 0;
  for (let from = 0; from < size; from++)
    for (let to = 0; to < size; to++) {
      const hop = from * size + to;
      let cost = delays[hop]! * perDelay;
      if (leavesSite(problem, from, to)) cost += exitCost(size);
      if (closed[hop] === 1) cost += closedCost(size);
      else if (rates[hop]! < least) cost += slow;
      costs[hop] = cost;
    }
  return costs;
}

function exitCost(size: number): number {
  return size + 1;
}

function closedCost(size: number): number {
  return (size + 1) ** 2;
}

/** What an order costs if none of its hops is slow. */
export function costOfConstraints(size: number, { closed, exits }: Pick<RingScore, 'closed' | 'exits'>): number {
  return closed * closedCost(size) + exits * exitCost(size);
}

/** No ring has fewer: it leaves each site that has a name once, unless there is nothing else. */
export function leastExits({ sites }: RingProblem): number {
  const all = new Set(sites);
  return all.size === 1 ? 0 : [...all].filter((site) => site >= 0).length;
}

/** The rates of hops for which there is a way, each once, ascending. */
export function distinctRates({ size, rates, closed }: RingProblem): readonly number[] {
  const found = new Set<number>();
  for (let from = 0; from < size; from++)
    for (let to = 0; to < size; to++)
      if (from !== to && closed[from * size + to] === 0) found.add(rates[from * size + to]!);
  return [...found].sort((left, right) => left - right);
}
