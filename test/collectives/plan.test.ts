/** The door to the programs, and the choice among them. */
import { describe, expect, it } from 'vitest';
import type { Codec } from '../../src/collectives/codec.ts';
import { algorithmsOf, makePlan, tensorSizes } from '../../src/collectives/plan.ts';
import {
  ALGORITHMS,
  type Algorithm,
  COLLECTIVE_KINDS,
  type CollectiveKind,
  type PlanRequest,
} from '../../src/collectives/program.ts';
import { type Choice, chooseAlgorithm, explainChoice, predictSeconds } from '../../src/collectives/select.ts';
import { NO_WAY, UNMEASURED, type WayCosts, type WayFigures } from '../../src/costs.ts';
import { ArgumentError } from '../../src/errors.ts';

const REQUEST: PlanRequest = { kind: 'allReduce', algorithm: 'ring', worldSize: 4, count: 10, root: 0 };

describe('makePlan', () => {
  it('refuses an algorithm that the kind does not have, and names those it has', () => {
    for (const kind of COLLECTIVE_KINDS) {
      for (const algorithm of ALGORITHMS) {
        const make = () => makePlan({ ...REQUEST, kind, algorithm }, 0);
        if (algorithmsOf(kind).includes(algorithm)) expect(make().algorithm).toBe(algorithm);
        else expect(make).toThrow(ArgumentError);
      }
    }
    expect(() => makePlan({ ...REQUEST, kind: 'allGather', algorithm: 'tree' }, 0)).toThrow(/use ring or direct/);
  });

  it.each<[string, Partial<PlanRequest>, number]>([
    ['rank beyond the view', {}, 4],
    ['negative rank', {}, -1],
    ['fractional rank', {}, 0.5],
    ['root beyond the view', { kind: 'broadcast', root: 4 }, 0],
    ['no ranks', { worldSize: 0 }, 0],
    ['negative count', { count: -1 }, 0],
    ['fractional count', { count: 1.5 }, 0],
    ['offsets beyond exact integers', { count: 2 ** 52 }, 0],
    ['unknown kind', { kind: 'everyReduce' as CollectiveKind }, 0], // what a caller without types could pass
  ])('refuses: %s', (_, change, rank) => {
    expect(() => makePlan({ ...REQUEST, ...change }, rank)).toThrow(ArgumentError);
  });

  it('in a world of one copies, and talks to nobody', () => {
    for (const kind of COLLECTIVE_KINDS) {
      for (const algorithm of algorithmsOf(kind)) {
        const { chunks } = makePlan({ ...REQUEST, kind, algorithm, worldSize: 1 }, 0);
        expect(chunks.every((chunk) => chunk.steps.length === 0 && chunk.input === chunk.output)).toBe(true);
        expect(chunks.reduce((sum, chunk) => sum + chunk.count, 0)).toBe(REQUEST.count);
      }
    }
  });
});

describe('tensorSizes', () => {
  it('says what each rank brings and gets', () => {
    const sizes = (kind: CollectiveKind, rank: number) => tensorSizes({ ...REQUEST, kind, root: 1 }, rank);
    expect(sizes('allReduce', 0)).toEqual({ input: 10, output: 10 });
    expect([0, 1].map((rank) => sizes('broadcast', rank))).toEqual([
      { input: 0, output: 10 },
      { input: 10, output: 10 },
    ]);
    expect([0, 1].map((rank) => sizes('reduce', rank).output)).toEqual([0, 10]);
    expect([0, 1, 2, 3].map((rank) => sizes('reduceScatter', rank).output)).toEqual([3, 3, 2, 2]);
    expect(sizes('allGather', 0)).toEqual({ input: 10, output: 40 });
    expect([0, 1].map((rank) => sizes('gather', rank).output)).toEqual([0, 40]);
    expect([0, 1].map((rank) => sizes('scatter', rank).input)).toEqual([0, 40]);
    expect(sizes('allToAll', 3)).toEqual({ input: 40, output: 40 });
  });
});

describe('chooseAlgorithm', () => {
  const allReduce = (worldSize: number, bytes: number, codec: Codec = 'f32'): Choice => {
    return { kind: 'allReduce', worldSize, bytes, codec, op: 'sum' };
  };

  it('goes from doubling to the ring as the vector grows', () => {
    for (const worldSize of [4, 8, 16, 64]) {
      expect(chooseAlgorithm(allReduce(worldSize, 4))).toBe('doubling');
      expect(chooseAlgorithm(allReduce(worldSize, 2 ** 30))).toBe('ring');
      const order = Array.from({ length: 29 }, (_, log) => chooseAlgorithm(allReduce(worldSize, 2 ** (log + 2))));
      const changes = order.filter((algorithm, index) => algorithm !== order[index - 1]);
      expect(changes.length).toBe(new Set(changes).size); // never back to one that was left
    }
  });

  it('never takes doubling with a codec that drops bits', () => {
    for (const worldSize of [1, 2, 3, 8, 33]) {
      for (const bytes of [0, 4, 4096, 2 ** 24]) {
        expect(chooseAlgorithm(allReduce(worldSize, bytes, 'bf16'))).not.toBe('doubling');
      }
    }
  });

  it('goes straight with a codec whose errors would add up on the way', () => {
    for (const codec of ['int8', 'int4', 'e3m0', 'topk'] as const) {
      for (const worldSize of [2, 3, 16, 100]) {
        for (const bytes of [4, 2 ** 20, 2 ** 30]) {
          expect(chooseAlgorithm(allReduce(worldSize, bytes, codec))).toBe('direct');
        }
      }
    }
    expect(chooseAlgorithm(allReduce(4, 2 ** 26, 'bf16'))).toBe('ring');
  });

  it('takes something that the kind has, the cheapest by the model', () => {
    for (const kind of COLLECTIVE_KINDS) {
      for (const worldSize of [1, 2, 3, 5, 8, 16, 100]) {
        for (const bytes of [0, 1, 1000, 10 ** 6, 10 ** 9]) {
          const choice: Choice = { kind, worldSize, bytes, codec: 'f32', op: 'sum' };
          const chosen = predictSeconds(choice, chooseAlgorithm(choice));
          expect(Number.isFinite(chosen)).toBe(true);
          for (const algorithm of algorithmsOf(kind)) {
            // Not measured to be better anywhere without a codec.
            if ((kind === 'allReduce' || kind === 'reduceScatter') && algorithm === 'direct') continue;
            expect(chosen).toBeLessThanOrEqual(predictSeconds(choice, algorithm));
          }
        }
      }
    }
  });

  describe('with several sites', () => {
    const between = (bytes: number, sites: readonly number[], costs?: WayCosts) =>
      chooseAlgorithm({ kind: 'allReduce', worldSize: sites.length, sites, bytes, codec: 'f32', op: 'sum' }, costs);

    it('stays within each as long as it can, if there is something to send', () => {
      expect(between(4, [0, 0, 1, 1])).toBe('doubling'); // crosses between them once, not twice
      for (const bytes of [2 ** 24, 2 ** 28]) {
        for (const sites of [
          [0, 1, 0, 1],
          [0, 1, 0, 1, 0, 1],
          [0, 0, 0, 0, 1],
          [0, 1, 2, 3, 0, 1, 2, 3],
        ]) {
          expect(between(bytes, sites), `${bytes} ${sites.join()}`).toBe('hierarchical');
        }
        // Here halving goes the same ways.
        for (const sites of [
          [0, 0, 1, 1],
          [0, 0, 1, 1, 2, 2, 3, 3],
        ]) {
          expect(between(bytes, sites), `${bytes} ${sites.join()}`).toBe('halving');
        }
      }
    });

    it('has nothing to gain where each rank is one, or all are in one', () => {
      for (const bytes of [4, 2 ** 16, 2 ** 28]) {
        expect(between(bytes, [0, 1, 2, 3])).not.toBe('hierarchical');
        expect(between(bytes, [0, 0, 0, 0])).toBe(chooseAlgorithm(allReduce(4, bytes)));
      }
    });

    it('is what the figures make of it: with long ways that cost nothing more, it is not worth it', () => {
      expect(between(2 ** 28, [0, 0, 1, 1], { ...UNMEASURED, far: NO_WAY })).not.toBe('hierarchical');
    });
  });

  it('is what measured ways make of it: few hops where they are long, few bytes where they are slow, the ring where it goes round them', () => {
    const choose = (bytes: number, near: WayFigures, ring: WayFigures | null = null) =>
      chooseAlgorithm(allReduce(8, bytes), { ...UNMEASURED, near, ring });
    const [long, slow] = [
      { hopSeconds: 0.05, byteSeconds: 1e-9 },
      { hopSeconds: 0.000_1, byteSeconds: 1e-6 },
    ];
    expect(choose(2 ** 20, long)).toBe('doubling');
    expect(choose(2 ** 30, long)).not.toBe('doubling');
    expect(['ring', 'halving']).toContain(choose(2 ** 18, slow));
    expect(choose(2 ** 20, slow, { hopSeconds: 0.000_1, byteSeconds: 1e-8 })).toBe('ring');
    expect(choose(2 ** 10, slow, { hopSeconds: 0.5, byteSeconds: 1e-8 })).not.toBe('ring');
  });

  it('spares messages where many members share a processor', () => {
    const shared = (worldSize: number, sharing: number, algorithm: Algorithm) =>
      predictSeconds(allReduce(worldSize, 4_096), algorithm, { ...UNMEASURED, sharing });
    const gain = (sharing: number) => shared(8, sharing, 'ring') - shared(8, sharing, 'doubling');
    expect(gain(4)).toBeGreaterThan(2 * gain(1));
    expect(gain(0.25)).toBe(gain(1)); // idle processors help nobody
  });

  it('explains itself: all candidates, the best first', () => {
    const explained = explainChoice(allReduce(8, 2 ** 20));
    expect(explained[0]?.algorithm).toBe(chooseAlgorithm(allReduce(8, 2 ** 20)));
    expect(explained.map(({ algorithm }) => algorithm).sort()).toEqual(['doubling', 'halving', 'ring', 'tree']);
    for (const { algorithm, seconds } of explained) {
      expect(seconds).toBe(predictSeconds(allReduce(8, 2 ** 20), algorithm));
      expect(seconds).toBeGreaterThanOrEqual(explained[0]!.seconds);
    }
  });

  it('sends small broadcasts down a tree and large ones along the chain', () => {
    const chosen = (kind: CollectiveKind, bytes: number) =>
      chooseAlgorithm({ kind, worldSize: 8, bytes, codec: 'f32', op: null });
    expect(chosen('broadcast', 100)).toBe('tree');
    expect(chosen('broadcast', 2 ** 26)).toBe('ring');
    expect(chosen('allGather', 100)).toBe('direct');
    expect(chosen('allGather', 2 ** 26)).toBe('ring');
  });

  it('sends what a robust average is made of straight to one rank', () => {
    for (const op of ['median', 'trimmed-mean', 'centered-clip'] as const) {
      for (const kind of ['allReduce', 'reduceScatter'] as const) {
        for (const bytes of [4, 2 ** 26]) {
          expect(chooseAlgorithm({ kind, worldSize: 8, bytes, codec: 'f32', op })).toBe('direct');
        }
      }
    }
  });
});
