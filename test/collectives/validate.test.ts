/** The validator refuses what would hang, miss, double or disagree, and says where. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { reduce, replace, send } from '../../src/collectives/instructions.ts';
import { algorithmsOf } from '../../src/collectives/plan.ts';
import {
  type ChunkProgram,
  COLLECTIVE_KINDS,
  type Instruction,
  type Plan,
  type PlanRequest,
} from '../../src/collectives/program.ts';
import { validatePlans } from '../../src/collectives/validate.ts';
import { ArgumentError } from '../../src/errors.ts';
import { inputsFor, plansFor, ROOTED, resultsByDefinition } from './cases.ts';
import { type Arithmetic, interpret, randomFrom } from './interpreter.ts';

/** One chunk, all-reduced in place, by the steps of each rank. */
function programsOf(...steps: Instruction[][]): { plans: Plan[]; request: PlanRequest } {
  const plans = steps.map((list): Plan => {
    return { algorithm: 'direct', chunks: [{ id: 0, count: 6, input: 0, output: 0, steps: list }] };
  });
  return { plans, request: { kind: 'allReduce', algorithm: 'direct', worldSize: steps.length, count: 6, root: 0 } };
}

/** The plans of a request, with one chunk of one rank changed. */
function changed(
  request: PlanRequest,
  rank: number,
  id: number,
  change: (chunk: ChunkProgram) => ChunkProgram | null,
): Plan[] {
  return plansFor(request).map((plan, index) => {
    if (index !== rank) return plan;
    return { ...plan, chunks: plan.chunks.flatMap((chunk) => (chunk.id === id ? (change(chunk) ?? []) : chunk)) };
  });
}

const RING: PlanRequest = { kind: 'allReduce', algorithm: 'ring', worldSize: 4, count: 10, root: 0 };

describe('a program of the user', () => {
  it('is accepted when it is right: star-shaped all-reduce', () => {
    const { plans, request } = programsOf(
      [reduce(1), reduce(2), send(1), send(2)],
      [send(0), replace(0)],
      [send(0), replace(0)],
    );
    expect(() => validatePlans(plans, request)).not.toThrow();
  });

  it('may be finished by several ranks that compute the same expression', () => {
    const { plans, request } = programsOf([send(1), reduce(1)], [send(0), reduce(0)]);
    expect(() => validatePlans(plans, request)).not.toThrow();
  });

  it('is refused when ranks add up in different orders', () => {
    const all = (rank: number, order: number[]): Instruction[] => {
      const others = [0, 1, 2].filter((other) => other !== rank);
      return [...others.map(send), ...order.map(reduce)];
    };
    // Rank 0: (0+1)+2; rank 1: (0+1)+2; rank 2: (1+(0+2)), which rounds differently.
    const { plans, request } = programsOf(all(0, [1, 2]), all(1, [0, 2]), all(2, [0, 1]));
    expect(() => validatePlans(plans, request)).toThrow(/ranks 0 and 2 add up chunk 0 in different orders/);
  });

  it('is refused when ranks wait in a circle', () => {
    const { plans, request } = programsOf([reduce(1), send(1)], [reduce(0), send(0)]);
    expect(() => validatePlans(plans, request)).toThrow(/wait for one another in a circle: rank 0 .*rank 1/);
  });

  it('is refused when a contribution would count twice', () => {
    const { plans, request } = programsOf([send(1), reduce(1)], [reduce(0), send(0)]);
    expect(() => validatePlans(plans, request)).toThrow(/rank 0 reduces a contribution from rank 1 .* already/);
  });

  it('is refused when a second value may come before the first is taken', () => {
    const { plans, request } = programsOf([send(1), send(1), replace(1)], [reduce(0), reduce(0), send(0)]);
    expect(() => validatePlans(plans, request)).toThrow(/rank 1 may not have taken yet what rank 0 sent it before/);
  });

  it('is refused when nobody finishes a value, so that avg would not be scaled', () => {
    // Rank 1 adds up but keeps nothing, rank 0 keeps what it did not add up: neither is a finisher.
    const { plans, request } = programsOf([send(1), replace(1)], [reduce(0), send(0)]);
    const keepsNothing = plans[1]!.chunks.map((chunk) => ({ ...chunk, output: null }));
    expect(() =>
      validatePlans([plans[0]!, { ...plans[1]!, chunks: keepsNothing }], { ...request, kind: 'reduce' }),
    ).toThrow(/keeps a value of chunk 0 that no rank has finished/);
  });

  it('is refused when it reduces a finished value', () => {
    const { plans, request } = programsOf(
      [reduce(1), send(2), replace(2)],
      [send(0), replace(2)],
      [reduce(0), send(0), send(1)],
    );
    // Rank 0 has a replace, so it is no finisher and this is right; without it the value is finished too early.
    expect(() => validatePlans(plans, request)).not.toThrow();
    const early = programsOf([reduce(1), send(2)], [send(0), replace(2)], [reduce(0), send(1)]);
    expect(() => validatePlans(early.plans, early.request)).toThrow(/rank 2 reduces a finished value/);
  });

  it('is refused when ranks cut a shared result in different places', () => {
    const { plans, request } = programsOf([send(1), reduce(1)], [send(0), reduce(0)]);
    const only = plans.map((plan, rank): Plan => {
      const chunk = plan.chunks[0]!;
      return {
        ...plan,
        chunks: [0, 1].map((id) => ({ ...chunk, id, output: id === rank ? 0 : null })),
      };
    });
    expect(() => validatePlans(only, request)).toThrow(/only 1 of 2 keep chunk/);
  });
});

describe('a generated plan with one fault', () => {
  const dropFirst =
    (what: Instruction['do']) =>
    (chunk: ChunkProgram): ChunkProgram => {
      const at = chunk.steps.findIndex((step) => step.do === what);
      return { ...chunk, steps: chunk.steps.filter((_, index) => index !== at) };
    };

  it.each<[string, (chunk: ChunkProgram) => ChunkProgram | null, RegExp]>([
    ['a send dropped', dropFirst('send'), /rank 1 sends to rank 2 1 times, but rank 2 receives 2 times/],
    ['a replace dropped', dropFirst('replace'), /rank 0 sends to rank 1 2 times, but rank 1 receives 1 times/],
    [
      'a step repeated',
      (c) => ({ ...c, steps: [c.steps[0]!, ...c.steps] }),
      /rank 0 sends to rank 1 2 times, but .* 3/,
    ],
    ['a reduce for a replace', (c) => ({ ...c, steps: [reduce(0), send(2), reduce(0), send(2)] }), /contains already/],
    [
      'a replace for a reduce',
      (c) => ({ ...c, steps: [replace(0), send(2), replace(0), send(2)] }),
      /instead of ranks 0, 1, 2, 3/,
    ],
    ['the input moved', (c) => ({ ...c, input: 1 }), /takes rank 1's elements from 1, but .* needs 0/],
    ['the output moved', (c) => ({ ...c, output: 1 }), /gets no result for its elements 0 to 0/],
    ['the output beyond the end', (c) => ({ ...c, output: 8 }), /do not fit/],
    ['no output', (c) => ({ ...c, output: null }), /rank 1 gets no result for its elements 0 to 2/],
    ['no input', (c) => ({ ...c, input: null }), /a value that it does not have/],
    ['another count', (c) => ({ ...c, count: 2 }), /has 3 elements on rank 0, and 2 on rank 1/],
    ['a broken count', (c) => ({ ...c, count: 1.5 }), /1.5 elements/],
    ['a rank that is not there', (c) => ({ ...c, steps: [send(4), ...c.steps] }), /names rank 4/],
    ['itself as a partner', (c) => ({ ...c, steps: [send(1), ...c.steps] }), /rank 1 names rank 1/],
    ['the chunk missing', () => null, /receives 0 times|does not|gets no result/],
    ['the chunk under another id', (c) => ({ ...c, id: 7 }), /receives 0 times|chunk 4 of 5 is missing/],
  ])('is refused: %s', (_, change, reason) => {
    expect(() => validatePlans(changed(RING, 1, 0, change), RING)).toThrow(reason);
  });

  it('is refused: a chunk listed twice, a plan missing, another algorithm', () => {
    const plans = plansFor(RING);
    const [first, ...others] = plans;
    const twice = { ...first!, chunks: [...first!.chunks, first!.chunks[0]!] };
    expect(() => validatePlans([twice, ...others], RING)).toThrow(/rank 0 lists chunk 0 twice/);
    expect(() => validatePlans(others, RING)).toThrow(/3 plans for 4 ranks/);
    expect(() => validatePlans([{ ...first!, algorithm: 'tree' }, ...others], RING)).toThrow(/rank 1 ring/);
    expect(() => validatePlans(others, RING)).toThrow(ArgumentError);
  });

  it('is refused: results that overlap', () => {
    const request: PlanRequest = { kind: 'allReduce', algorithm: 'tree', worldSize: 1, count: 4, root: 0 };
    const overlapping = changed(request, 0, 1, (chunk) => ({ ...chunk, input: 1, output: 1 }));
    expect(() => validatePlans(overlapping, request)).toThrow(/rank 0 gets two results for its element 1/);
  });

  it("is refused: a part of all-to-all that reaches into the next source's place", () => {
    const request: PlanRequest = { kind: 'allToAll', algorithm: 'direct', worldSize: 2, count: 3, root: 0 };
    const greedy = (rank: number): Plan => {
      return { algorithm: 'direct', chunks: [{ id: rank, count: 6, input: 0, output: 0, steps: [] }] };
    };
    expect(() => validatePlans([greedy(0), greedy(1)], request)).toThrow(/reaches over the parts of two ranks/);
  });

  it('is refused: a wrong part in gather, scatter and all-to-all', () => {
    for (const kind of ['gather', 'scatter', 'allToAll'] as const) {
      const request: PlanRequest = { kind, algorithm: 'direct', worldSize: 3, count: 4, root: 0 };
      const plans = plansFor(request);
      const [first, ...others] = plans;
      const side = kind === 'scatter' ? 'input' : 'output';
      const kept = first!.chunks.filter((chunk) => chunk[side] !== null);
      const [a, b] = [kept[1]!, kept[2]!];
      const chunks = first!.chunks.map((chunk) => {
        if (chunk === a) return { ...chunk, [side]: b[side] };
        if (chunk === b) return { ...chunk, [side]: a[side] };
        return chunk;
      });
      expect(() => validatePlans([{ ...first!, chunks }, ...others], request), kind).toThrow(ArgumentError);
    }
  });
});

/** One random change to one chunk of one rank. */
function mutate(plans: readonly Plan[], worldSize: number, random: () => number): Plan[] {
  const below = (limit: number): number => Math.floor(random() * limit);
  const rank = below(worldSize);
  return plans.map((plan, index) => {
    if (index !== rank || plan.chunks.length === 0) return plan;
    const target = below(plan.chunks.length);
    const chunks = plan.chunks.map((chunk, at) => (at === target ? mutateChunk(chunk, worldSize, below) : chunk));
    return { ...plan, chunks };
  });
}

function mutateChunk(chunk: ChunkProgram, worldSize: number, below: (limit: number) => number): ChunkProgram {
  const steps = [...chunk.steps];
  const at = below(Math.max(1, steps.length));
  switch (below(7)) {
    case 0:
      steps.splice(at, 1);
      return { ...chunk, steps };
    case 1:
      steps.splice(at, 0, ...steps.splice(below(Math.max(1, steps.length)), 1));
      return { ...chunk, steps };
    case 2: {
      const other = below(worldSize);
      steps.splice(at, 0, [send(other), reduce(other), replace(other)][below(3)]!);
      return { ...chunk, steps };
    }
    case 3: {
      const step = steps[at];
      if (step !== undefined && step.do !== 'send')
        steps[at] = step.do === 'reduce' ? replace(step.from) : reduce(step.from);
      return { ...chunk, steps };
    }
    case 4:
      return { ...chunk, input: chunk.input === null ? below(3) : below(2) === 0 ? null : chunk.input + 1 };
    case 5:
      return { ...chunk, output: chunk.output === null ? below(3) : below(2) === 0 ? null : chunk.output + 1 };
    default:
      return { ...chunk, count: Math.max(0, chunk.count + below(3) - 1) };
  }
}

describe('what the validator accepts', () => {
  it('computes the right result, scaled once, on all ranks: whatever was done to the plans', () => {
    let accepted = 0;
    let refused = 0;
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 6 }),
        fc.nat(),
        fc.integer({ min: 1, max: 3 }),
        (worldSize, seed, changes) => {
          const random = randomFrom(seed);
          const pick = <T>(list: readonly T[]): T => list[Math.floor(random() * list.length)]!;
          const kind = pick(COLLECTIVE_KINDS);
          const request: PlanRequest = {
            kind,
            algorithm: pick(algorithmsOf(kind)),
            worldSize,
            count: Math.floor(random() * 9),
            root: ROOTED.has(kind) ? Math.floor(random() * worldSize) : 0,
          };
          let plans = plansFor(request);
          for (let change = 0; change < changes; change++) plans = mutate(plans, worldSize, random);
          try {
            validatePlans(plans, request);
          } catch (error) {
            expect(error).toBeInstanceOf(ArgumentError);
            refused += 1;
            return;
          }
          accepted += 1;
          const scale: Arithmetic<number> = { combine: (a, b) => a + b, finish: (value) => value * 1000 };
          const inputs = inputsFor(request, () => Math.floor(random() * 100));
          const isReducing = ['allReduce', 'reduce', 'reduceScatter', 'barrier'].includes(kind) && worldSize > 1;
          const expected = resultsByDefinition(request, inputs, (terms) => {
            return terms.reduce((a, b) => a + b) * (isReducing ? 1000 : 1);
          });
          expect(interpret(plans, request, inputs, scale, seed).outputs).toEqual(expected);
        },
      ),
      { numRuns: 3000 },
    );
    // Both sides were tried: some changes are harmless (two sends swapped, a chunk of no elements), most are not.
    expect(accepted).toBeGreaterThan(50);
    expect(refused).toBeGreaterThan(500);
  });
});
