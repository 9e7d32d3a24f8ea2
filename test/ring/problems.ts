/** Problems for the solver of rings, and slow ways to solve them. */
import { isBetter, type RingProblem, type RingScore, scoreOf } from '../../src/ring/problem.ts';
import type { Random } from '../sim/random.ts';

interface Hops {
  rate(from: number, to: number): number;
  delay?(from: number, to: number): number;
  closed?(from: number, to: number): boolean;
  site?(member: number): number;
}

export function problemOf(size: number, { rate, delay, closed, site }: Hops): RingProblem {
  const each = <T>(value: (from: number, to: number) => T): T[] =>
    Array.from({ length: size * size }, (_, hop) => value(Math.floor(hop / size), hop % size));
  return {
    size,
    rates: Float64Array.from(each(rate)),
    delays: Float64Array.from(each(delay ?? (() => 1))),
    closed: Uint8Array.from(each((from, to) => (closed?.(from, to) === true ? 1 : 0))),
    sites: Int32Array.from({ length: size }, (_, member) => site?.(member) ?? -1),
  };
}

/** Peers at home and in data centres: each with its own up- and downlink, and ways that are worse than either. */
export function wideArea(size: number, random: Random): RingProblem {
  const link = () => 10 ** (6 + 2.5 * random.next());
  const up = Array.from({ length: size }, link);
  const down = Array.from({ length: size }, link);
  const place = Array.from({ length: size }, () => random.next() * 80);
  const ways = Array.from({ length: size * size }, () => 0.15 + random.next());
  return problemOf(size, {
    rate: (from, to) => Math.round(Math.min(up[from]!, down[to]!) * Math.min(1, ways[from * size + to]!)),
    delay: (from, to) => 1 + Math.abs(place[from]! - place[to]!) + 5 * ways[from * size + to]!,
  });
}

/** All orders, one after the other. */
export function bestOfAll(problem: RingProblem): RingScore {
  let best: RingScore | null = null;
  const order = [0];
  const extend = () => {
    if (order.length === problem.size) {
      const score = scoreOf(problem, order);
      if (best === null || isBetter(score, best)) best = score;
      return;
    }
    for (let member = 1; member < problem.size; member++) {
      if (order.includes(member)) continue;
      order.push(member);
      extend();
      order.pop();
    }
  };
  extend();
  return best!;
}

/** The best rate that all hops of a ring can have: sets of ends that can be reached, for each rate there is. */
export function bestRate({ size, rates }: RingProblem): number {
  const hasRing = (least: number) => {
    const ends = new Int32Array(2 ** size);
    ends[1] = 1;
    for (let set = 1; set < ends.length; set++)
      for (let end = 0; end < size; end++)
        for (let next = 1; ((ends[set]! >> end) & 1) === 1 && next < size; next++)
          if (((set >> next) & 1) === 0 && rates[end * size + next]! >= least) ends[set | (1 << next)]! |= 1 << next;
    const last = ends[ends.length - 1]!;
    return Array.from({ length: size }, (_, end) => end).some(
      (end) => ((last >> end) & 1) === 1 && rates[end * size]! >= least,
    );
  };
  const hops = [...rates].filter((_, hop) => Math.floor(hop / size) !== hop % size);
  hops.sort((left, right) => left - right);
  let [low, high] = [0, hops.length];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (hasRing(hops[middle]!)) low = middle;
    else high = middle;
  }
  return hops[low]!;
}
