import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { searchNearby } from '../../src/ring/heuristic.ts';
import { EXACT_SIZE, type RingProblem, scoreOf } from '../../src/ring/problem.ts';
import { RingSearch } from '../../src/ring/search.ts';
import { Random } from '../sim/random.ts';
import { bestOfAll, bestRate, problemOf, wideArea } from './problems.ts';

const inTurn = (size: number) => Array.from({ length: size }, (_, member) => member);

function solve(problem: RingProblem, start = inTurn(problem.size)): RingSearch {
  const search = new RingSearch(problem, start);
  search.run(Number.POSITIVE_INFINITY);
  expect([...search.best].sort((left, right) => left - right)).toEqual(inTurn(problem.size));
  return search;
}

/** As members that are too many for the best order are ordered. */
function solveNearby(problem: RingProblem): readonly number[] {
  let best: readonly number[] = inTurn(problem.size);
  for (const _ of searchNearby(problem, best, (order) => {
    best = order;
  }));
  return best;
}

/** With few different values, so that orders are often equal in some of what counts. */
const smallProblems = fc.integer({ min: 1, max: 7 }).chain((size) => {
  const each = (value: fc.Arbitrary<number>) => fc.array(value, { minLength: size * size, maxLength: size * size });
  return fc
    .record({
      rates: each(fc.integer({ min: 1, max: 6 })),
      delays: each(fc.integer({ min: 0, max: 4 })),
      closed: each(fc.integer({ min: 0, max: 7 })),
      sites: fc.array(fc.integer({ min: -1, max: 2 }), { minLength: size, maxLength: size }),
    })
    .map(({ rates, delays, closed, sites }) =>
      problemOf(size, {
        rate: (from, to) => rates[from * size + to]!,
        delay: (from, to) => delays[from * size + to]!,
        closed: (from, to) => closed[from * size + to] === 0,
        site: (member) => sites[member]!,
      }),
    );
});

describe('the ring of a few members', () => {
  test('is the best of all orders: ways, then sites, then the slowest hop, then the way round', () => {
    fc.assert(
      fc.property(smallProblems, (problem) => {
        const { best } = solve(problem);
        expect(scoreOf(problem, best)).toEqual(bestOfAll(problem));
      }),
      { numRuns: 300 },
    );
  });

  test('is the best of all orders of eight', () => {
    for (let seed = 1; seed <= 3; seed++) {
      const problem = wideArea(8, new Random(seed));
      const [found, best] = [scoreOf(problem, solve(problem).best), bestOfAll(problem)];
      expect({ seed, rate: found.rate }).toEqual({ seed, rate: best.rate });
      expect(found.delay).toBeCloseTo(best.delay, 6);
    }
  });

  test('of twelve across a wide area has the best slowest hop there is, within bounds on the work', () => {
    let operations = 0;
    for (let seed = 1; seed <= 20; seed++) {
      const problem = wideArea(12, new Random(seed));
      const search = solve(problem);
      expect({ seed, rate: scoreOf(problem, search.best).rate }).toEqual({ seed, rate: bestRate(problem) });
      operations = Math.max(operations, search.operations);
    }
    // Ten tables of 2^11 sets and 11² sums each.
    expect(operations).toBeLessThan(10 * 2 ** 11 * 11 ** 2);
  });

  test('has a known order where only one is fast', () => {
    for (const [size, stride] of [
      [3, 2],
      [5, 2],
      [9, 4],
      [13, 5],
      [EXACT_SIZE, 3],
    ] as const) {
      const problem = problemOf(size, { rate: (from, to) => ((from + stride) % size === to ? 100 : 1) });
      expect(solve(problem).best).toEqual(inTurn(size).map((at) => (stride * at) % size));
    }
  });

  test('stays as it is where no other is better', () => {
    const problem = problemOf(6, { rate: () => 5 });
    const start = [0, 3, 1, 5, 2, 4];
    expect(solve(problem, start).best).toEqual(start);
  });

  test('enters and leaves each site once, even where a faster one would not', () => {
    const site = (member: number) => member % 3;
    const problem = problemOf(9, { rate: (from, to) => (site(from) === site(to) ? 10 : 20), site });
    const { best } = solve(problem);
    expect(scoreOf(problem, best).exits).toBe(3);
  });
});

describe('the ring of many members', () => {
  test('comes within 5 % of the best slowest hop where that is known', () => {
    for (let seed = 1; seed <= 12; seed++) {
      const problem = wideArea(12, new Random(seed));
      const share = scoreOf(problem, solveNearby(problem)).rate / bestRate(problem);
      expect({ seed, isGood: share >= 0.95 }).toEqual({ seed, isGood: true });
    }
  });

  test('is found where it is hidden among slow hops, goes round cuts, and leaves each site once', () => {
    for (const size of [20, 60]) {
      const random = new Random(size);
      const hidden = inTurn(size).sort(() => random.next() - 0.5);
      const after = new Map(hidden.map((member, at) => [member, hidden[(at + 1) % size]!]));
      const noise = Array.from({ length: size * size }, () => random.next());
      const problem = problemOf(size, {
        // One hop in three is as fast as those of the hidden ring.
        rate: (from, to) =>
          after.get(from) === to || noise[from * size + to]! < 0.33 ? 100 : 1 + noise[from * size + to]!,
        closed: (from, to) => after.get(from) !== to && noise[from * size + to]! > 0.9,
        site: (member) => Math.floor((4 * hidden.indexOf(member)) / size),
      });
      const score = scoreOf(problem, solve(problem).best);
      expect({ size, ...score, delay: 0 }).toEqual({ size, closed: 0, exits: 4, rate: 100, delay: 0 });
    }
  });

  test('is never worse than the one before, and the same whether it is searched for at once or bit by bit', () => {
    const problem = wideArea(30, new Random(1));
    const start = inTurn(30);
    const bitByBit = new RingSearch(problem, start);
    let runs = 0;
    while (!bitByBit.run(50_000)) runs += 1;
    expect(runs).toBeGreaterThan(10);
    expect(bitByBit.best).toEqual(solve(problem).best);
    expect(scoreOf(problem, bitByBit.best).rate).toBeGreaterThan(2 * scoreOf(problem, start).rate);
  });
});
