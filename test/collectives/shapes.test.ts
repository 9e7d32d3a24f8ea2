/** What each algorithm costs in hops and elements, and who talks to whom: the formulas in the programs' headers. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { partition, shareOf } from '../../src/collectives/partition.ts';
import { neighbours, peersOf } from '../../src/collectives/peers.ts';
import { algorithmsOf, makePlan } from '../../src/collectives/plan.ts';
import type { Algorithm, CollectiveKind, PlanRequest } from '../../src/collectives/program.ts';
import { inputsFor, plansFor, transcriptOf } from './cases.ts';
import { type Arithmetic, interpret, type Outcome } from './interpreter.ts';

const SUM: Arithmetic<number> = { combine: (left, right) => left + right, finish: (value) => value };

function run(kind: CollectiveKind, algorithm: Algorithm, worldSize: number, count: number, root = 0): Outcome<number> {
  const request: PlanRequest = { kind, algorithm, worldSize, count, root };
  return interpret(
    plansFor(request),
    request,
    inputsFor(request, () => 1),
    SUM,
    worldSize,
  );
}

const sizesFrom = (from: number, to: number): number[] => Array.from({ length: to - from + 1 }, (_, i) => from + i);

describe('partition', () => {
  it('covers the vector in order, with shares that differ by one at most, the longer first', () => {
    fc.assert(
      fc.property(fc.nat({ max: 10_000 }), fc.integer({ min: 1, max: 64 }), (count, parts) => {
        const shares = partition(count, parts);
        let next = 0;
        for (const [index, share] of shares.entries()) {
          expect(share).toEqual({ start: next, count: Math.floor(count / parts) + (index < count % parts ? 1 : 0) });
          expect(share).toEqual(shareOf(count, parts, index));
          next += share.count;
        }
        expect(next).toBe(count);
      }),
    );
  });
});

describe('ring', () => {
  it('reads, for four ranks, as it is drawn', () => {
    const request: PlanRequest = { kind: 'allReduce', algorithm: 'ring', worldSize: 4, count: 8, root: 0 };
    expect(transcriptOf(plansFor(request))).toMatchInlineSnapshot(`
      "rank 0 chunk 0: send→1  replace←3  send→1
      rank 0 chunk 3: reduce←3  send→1  replace←3  send→1
      rank 0 chunk 2: reduce←3  send→1  replace←3
      rank 0 chunk 1: reduce←3  send→1
      rank 1 chunk 1: send→2  replace←0  send→2
      rank 1 chunk 0: reduce←0  send→2  replace←0  send→2
      rank 1 chunk 3: reduce←0  send→2  replace←0
      rank 1 chunk 2: reduce←0  send→2
      rank 2 chunk 2: send→3  replace←1  send→3
      rank 2 chunk 1: reduce←1  send→3  replace←1  send→3
      rank 2 chunk 0: reduce←1  send→3  replace←1
      rank 2 chunk 3: reduce←1  send→3
      rank 3 chunk 3: send→0  replace←2  send→0
      rank 3 chunk 2: reduce←2  send→0  replace←2  send→0
      rank 3 chunk 1: reduce←2  send→0  replace←2
      rank 3 chunk 0: reduce←2  send→0"
    `);
  });

  it.each(sizesFrom(2, 17))('of %i sends 2(N−1)/N of the elements per rank, in 2(N−1) hops', (worldSize) => {
    for (const count of [worldSize, 12 * worldSize, 12 * worldSize + 5]) {
      const { sent, hops } = run('allReduce', 'ring', worldSize, count);
      expect(hops).toBe(2 * (worldSize - 1));
      for (const elements of sent) {
        // Whole shares are sent: two of the N are left out, each long or short by less than one element.
        expect(Math.abs(elements - (2 * (worldSize - 1) * count) / worldSize)).toBeLessThan(2);
        if (count % worldSize === 0) expect(elements).toBe((2 * (worldSize - 1) * count) / worldSize);
      }
    }
  });

  it('names the two neighbours only', () => {
    for (const worldSize of sizesFrom(3, 17)) {
      for (const kind of ['allReduce', 'reduceScatter', 'allGather', 'broadcast', 'reduce'] as const) {
        for (const [rank, plan] of plansFor({ kind, algorithm: 'ring', worldSize, count: 9, root: 0 }).entries()) {
          const beside = [(rank + 1) % worldSize, (rank + worldSize - 1) % worldSize];
          expect(peersOf(plan).filter((peer) => !beside.includes(peer))).toEqual([]);
        }
      }
    }
  });

  it.each(['reduceScatter', 'allGather', 'broadcast', 'reduce'] as const)('%s takes N−1 hops', (kind) => {
    for (const worldSize of sizesFrom(2, 17)) expect(run(kind, 'ring', worldSize, 40).hops).toBe(worldSize - 1);
  });
});

describe('tree', () => {
  const levels = (worldSize: number): number => Math.floor(Math.log2(worldSize));

  it.each(sizesFrom(2, 40))('of %i: hops at most 2⌊log2 N⌋, at most 2n sent', (worldSize) => {
    const count = 40;
    const { sent, hops } = run('allReduce', 'tree', worldSize, count);
    expect(hops).toBeLessThanOrEqual(2 * levels(worldSize));
    expect(Math.max(...sent)).toBeLessThanOrEqual(2 * count);
    expect(sent.reduce((a, b) => a + b)).toBe(2 * (worldSize - 1) * count);
  });

  it('makes every rank a leaf of at least one of the two trees; all but one of exactly one', () => {
    for (const worldSize of sizesFrom(2, 300)) {
      const request: PlanRequest = { kind: 'allReduce', algorithm: 'tree', worldSize, count: 2, root: 0 };
      const leafIn = plansFor(request).map(
        (plan) => plan.chunks.filter((chunk) => chunk.steps.every((step) => step.do !== 'reduce')).length,
      );
      expect(Math.min(...leafIn), `world size ${worldSize}`).toBe(1);
      expect(leafIn.filter((trees) => trees === 2).length).toBe(worldSize % 2);
    }
  });

  it('is binary: two children, one parent, and four peers at most in both trees together', () => {
    for (const worldSize of [...sizesFrom(2, 70), 127, 128, 129]) {
      for (const plan of plansFor({ kind: 'allReduce', algorithm: 'tree', worldSize, count: 2, root: 0 })) {
        for (const { steps } of plan.chunks) {
          expect(steps.filter((step) => step.do === 'reduce').length).toBeLessThanOrEqual(2);
          expect(steps.filter((step) => step.do === 'replace').length).toBeLessThanOrEqual(1);
        }
        expect(peersOf(plan).length).toBeLessThanOrEqual(4);
      }
    }
  });

  it.each(['broadcast', 'reduce'] as const)('%s reaches all within ⌈log2 N⌉ hops of any root', (kind) => {
    for (const worldSize of sizesFrom(2, 17)) {
      for (let root = 0; root < worldSize; root++) {
        expect(run(kind, 'tree', worldSize, 3, root).hops).toBeLessThanOrEqual(Math.ceil(Math.log2(worldSize)));
      }
    }
  });
});

describe('doubling', () => {
  it.each(sizesFrom(2, 40))('of %i: log2 N hops for powers of two, at most two more otherwise', (worldSize) => {
    const { hops } = run('allReduce', 'doubling', worldSize, 1);
    const levels = Math.floor(Math.log2(worldSize));
    const cores = 2 ** levels;
    const rest = worldSize - cores;
    // Both extra hops are on one path only where a core and its complement, the farthest from it, both have an extra rank.
    const extra = rest === 0 ? 0 : rest > cores / 2 ? 2 : 1;
    expect(hops).toBe(levels + extra);
  });

  it('combines the ranks in ascending order, so that the op need not commute', () => {
    const join: Arithmetic<string> = { combine: (left, right) => left + right, finish: (value) => value };
    for (const worldSize of sizesFrom(1, 40)) {
      const request: PlanRequest = { kind: 'allReduce', algorithm: 'doubling', worldSize, count: 1, root: 0 };
      const inputs = inputsFor(request, (rank) => `${rank},`);
      const all = inputs.flat().join('');
      expect(interpret(plansFor(request), request, inputs, join, worldSize).outputs.flat()).toEqual(
        inputs.map(() => all),
      );
    }
  });
});

describe('halving', () => {
  it.each(sizesFrom(2, 40))('of %i: 2⌈log2 N⌉ hops, and 2(N−1)/N of the elements sent by each rank', (worldSize) => {
    const rounds = Math.ceil(Math.log2(worldSize));
    const { sent, hops } = run('allReduce', 'halving', worldSize, 6 * worldSize);
    expect(hops).toBe(2 * longestWay(worldSize));
    expect(hops).toBeLessThanOrEqual(2 * rounds);
    expect(sent).toEqual(sent.map(() => 2 * (worldSize - 1) * 6));
    const half = run('reduceScatter', 'halving', worldSize, 6 * worldSize);
    expect(half.hops).toBe(longestWay(worldSize));
    expect(half.sent).toEqual(sent.map(() => (worldSize - 1) * 6));
  });

  /** The deepest place of a binomial tree: the one with the most bits. */
  function longestWay(worldSize: number): number {
    return Math.max(...sizesFrom(0, worldSize - 1).map((place) => place.toString(2).replaceAll('0', '').length));
  }

  it('exchanges halves at distance 1, 2, 4, … among a power of two', () => {
    for (const worldSize of [2, 4, 8, 16, 32]) {
      const plans = plansFor({ kind: 'allReduce', algorithm: 'halving', worldSize, count: worldSize, root: 0 });
      for (const [rank, plan] of plans.entries()) {
        const partners = sizesFrom(0, Math.log2(worldSize) - 1).map((bit) => rank ^ (2 ** bit));
        expect(peersOf(plan)).toEqual(partners.sort((left, right) => left - right));
        const sentAtFirst = plan.chunks.filter(({ steps }) => steps[0]?.do === 'send');
        expect(sentAtFirst.length).toBe(worldSize / 2);
        for (const { steps } of sentAtFirst) expect(steps[0]).toEqual({ do: 'send', to: rank ^ 1 });
      }
    }
    const transcript = transcriptOf(
      plansFor({ kind: 'allReduce', algorithm: 'halving', worldSize: 4, count: 4, root: 0 }),
    );
    expect(transcript).toContain('rank 0 chunk 0: reduce←1  reduce←2  send→2  send→1');
    expect(transcript).toContain('rank 2 chunk 0: reduce←3  send→0  replace←0  send→3');
  });

  it('has twice as many partners at most where the ranks are no power of two', () => {
    for (const worldSize of [3, 5, 6, 7, 9, 17, 33, 100]) {
      for (const plan of plansFor({ kind: 'allReduce', algorithm: 'halving', worldSize, count: worldSize, root: 0 })) {
        expect(peersOf(plan).length).toBeLessThanOrEqual(2 * Math.ceil(Math.log2(worldSize)));
      }
    }
  });
});

describe('direct', () => {
  it.each(['gather', 'scatter', 'allToAll', 'allGather'] as const)(
    '%s takes one hop, and names each other rank once a chunk',
    (kind) => {
      for (const worldSize of sizesFrom(2, 17)) {
        expect(run(kind, 'direct', worldSize, 2, worldSize - 1).hops).toBe(1);
        for (const plan of plansFor({ kind, algorithm: 'direct', worldSize, count: 2, root: 0 })) {
          for (const { steps } of plan.chunks) {
            const named = steps.map((step) => (step.do === 'send' ? step.to : step.from));
            expect(new Set(named).size).toBe(named.length);
          }
        }
      }
    },
  );

  it('all-reduce takes two hops, sends 2(N−1)/N · n, and has each owner add up in the order of arrival', () => {
    for (const worldSize of sizesFrom(2, 17)) {
      const { sent, hops } = run('allReduce', 'direct', worldSize, 3 * worldSize);
      expect(hops).toBe(2);
      expect(sent).toEqual(sent.map(() => 2 * (worldSize - 1) * 3));
    }
    const transcript = transcriptOf(
      plansFor({ kind: 'allReduce', algorithm: 'direct', worldSize: 4, count: 4, root: 0 }),
    );
    expect(transcript).toContain('rank 1 chunk 1: reduce←0  reduce←3  reduce←2  send→2  send→3  send→0');
    expect(transcript).toContain('rank 1 chunk 0: send→0  replace←0');
  });

  it('all-to-all has each rank begin with another destination', () => {
    for (const worldSize of sizesFrom(2, 17)) {
      const plans = plansFor({ kind: 'allToAll', algorithm: 'direct', worldSize, count: 1, root: 0 });
      const first = plans.map((plan) => plan.chunks.flatMap((chunk) => chunk.steps).find((step) => step.do === 'send'));
      expect(new Set(first.map((step) => step?.to)).size).toBe(worldSize);
    }
  });
});

describe('neighbours', () => {
  it('are everybody else up to 16 ranks, and few beyond', () => {
    for (const worldSize of sizesFrom(1, 16)) {
      for (let rank = 0; rank < worldSize; rank++) {
        const others = sizesFrom(0, worldSize - 1).filter((other) => other !== rank);
        expect(neighbours(worldSize, rank)).toEqual(others);
      }
    }
    for (const worldSize of [17, 64, 200]) {
      // The ring's 2, as many again beyond them, the trees' 4, one per bit with one to fold, and two per bit that halving has.
      const limit = 4 + 4 + Math.floor(Math.log2(worldSize)) + 1 + 2 * Math.ceil(Math.log2(worldSize));
      for (let rank = 0; rank < worldSize; rank++)
        expect(neighbours(worldSize, rank).length).toBeLessThanOrEqual(limit);
    }
  });

  it.each([17, 23, 64, 100])(
    'among %i ranks are mutual, and include all peers of every all-reduce but the direct one',
    (worldSize) => {
      const all = sizesFrom(0, worldSize - 1).map((rank) => neighbours(worldSize, rank));
      for (const [rank, near] of all.entries()) {
        for (const other of near) expect(all[other]).toContain(rank);
        expect(near).toContain((rank + 2) % worldSize);
        for (const algorithm of algorithmsOf('allReduce').filter((name) => name !== 'direct')) {
          const plan = makePlan({ kind: 'allReduce', algorithm, worldSize, count: 5, root: 0 }, rank);
          for (const peer of peersOf(plan)) expect(near).toContain(peer);
        }
      }
    },
  );
});
