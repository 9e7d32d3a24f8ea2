/** Every program of every kind, run by all ranks in memory, against the result by definition. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { algorithmsOf } from '../../src/collectives/plan.ts';
import { COLLECTIVE_KINDS, type PlanRequest } from '../../src/collectives/program.ts';
import { validatePlans } from '../../src/collectives/validate.ts';
import { inputsFor, LARGEST_WORLD, plansFor, ROOTED, requestsFor, resultsByDefinition } from './cases.ts';
import { type Arithmetic, interpret, randomFrom } from './interpreter.ts';

const WORLD_SIZES = Array.from({ length: LARGEST_WORLD }, (_, index) => index + 1);

/** Plain comparisons: `Math.min` does not take bigints. */
const smaller = (left: bigint, right: bigint): bigint => (right < left ? right : left);
const identity = <T>(value: T): T => value;

const INTEGER_OPS: Readonly<Record<string, Arithmetic<bigint>>> = {
  sum: { combine: (left, right) => left + right, finish: identity },
  min: { combine: smaller, finish: identity },
  max: { combine: (left, right) => (smaller(left, right) === left ? right : left), finish: identity },
  prod: { combine: (left, right) => left * right, finish: identity },
};

/** Single precision, where almost every addition rounds, so that another order shows in the bits. */
const FLOAT_AVERAGE = (worldSize: number): Arithmetic<number> => ({
  combine: (left, right) => Math.fround(left + right),
  finish: (value) => Math.fround(value / worldSize),
});

function bitsOf(output: readonly (number | undefined)[]): string {
  const floats = Float32Array.from(output, (value) => value ?? Number.NaN);
  return new Uint32Array(floats.buffer).join(' ');
}

const anyRequest: fc.Arbitrary<PlanRequest> = fc
  .record({
    kind: fc.constantFrom(...COLLECTIVE_KINDS),
    worldSize: fc.integer({ min: 1, max: LARGEST_WORLD }),
    count: fc.integer({ min: 0, max: 100 }),
    pick: fc.nat(),
  })
  .map(({ kind, worldSize, count, pick }) => {
    const algorithms = algorithmsOf(kind);
    const algorithm = algorithms[pick % algorithms.length]!;
    return { kind, algorithm, worldSize, count, root: ROOTED.has(kind) ? pick % worldSize : 0 };
  });

function expectExactResult(request: PlanRequest, op: Arithmetic<bigint>, seed: number): void {
  const random = randomFrom(seed);
  const inputs = inputsFor(request, () => BigInt(Math.floor(random() * 19) - 9));
  const { outputs } = interpret(plansFor(request), request, inputs, op, seed);
  const expected = resultsByDefinition(request, inputs, (terms) => terms.reduce((a, b) => op.combine(a, b)));
  expect(outputs, JSON.stringify(request)).toEqual(expected);
}

describe.each(WORLD_SIZES)('world size %i', (worldSize) => {
  it('gives exactly the sum, for every kind, algorithm, root and awkward count', () => {
    for (const request of requestsFor(worldSize)) expectExactResult(request, INTEGER_OPS['sum']!, worldSize);
  });

  it('has plans that the validator accepts', () => {
    for (const request of requestsFor(worldSize)) validatePlans(plansFor(request), request);
  });
});

describe('any program', () => {
  it('is exact for integers under each op, whatever order the ranks run in', () => {
    fc.assert(
      fc.property(anyRequest, fc.constantFrom(...Object.values(INTEGER_OPS)), fc.integer(), (request, op, seed) =>
        expectExactResult(request, op, seed),
      ),
      { numRuns: 400 },
    );
  });

  it('gives floats the same bits whatever order the ranks run in', () => {
    fc.assert(
      fc.property(anyRequest, fc.integer(), fc.integer(), fc.integer(), (request, data, orderA, orderB) => {
        const random = randomFrom(data);
        const inputs = inputsFor(request, () => Math.fround((random() - 0.5) * 2 ** Math.floor(random() * 24)));
        const plans = plansFor(request);
        const arithmetic = FLOAT_AVERAGE(request.worldSize);
        const a = interpret(plans, request, inputs, arithmetic, orderA).outputs.map(bitsOf);
        const b = interpret(plans, request, inputs, arithmetic, orderB).outputs.map(bitsOf);
        expect(a).toEqual(b);
      }),
      { numRuns: 400 },
    );
  });

  it.each(algorithmsOf('allReduce'))('all-reduce by %s gives all ranks the same bits of a float sum', (algorithm) => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: LARGEST_WORLD }),
        fc.integer({ min: 0, max: 80 }),
        fc.integer(),
        (worldSize, count, seed) => {
          const request: PlanRequest = { kind: 'allReduce', algorithm, worldSize, count, root: 0 };
          const random = randomFrom(seed);
          const inputs = inputsFor(request, () => Math.fround((random() - 0.5) * 2 ** Math.floor(random() * 24)));
          const { outputs } = interpret(plansFor(request), request, inputs, FLOAT_AVERAGE(worldSize), seed);
          expect(new Set(outputs.map(bitsOf)).size).toBe(1);
        },
      ),
      { numRuns: 200 },
    );
  });

  it('scales every element of an average once', () => {
    for (const worldSize of WORLD_SIZES.filter((size) => size > 1)) {
      for (const request of requestsFor(worldSize)) {
        if (!['allReduce', 'reduce', 'reduceScatter'].includes(request.kind)) continue;
        const inputs = inputsFor(request, (rank, index) => (rank + 1) * worldSize + index * worldSize);
        const average: Arithmetic<number> = {
          combine: (left, right) => left + right,
          finish: (value) => value / worldSize,
        };
        const { outputs } = interpret(plansFor(request), request, inputs, average, worldSize);
        const expected = resultsByDefinition(request, inputs, (terms) => terms.reduce((a, b) => a + b) / worldSize);
        expect(outputs, JSON.stringify(request)).toEqual(expected);
      }
    }
  });

  it('lists only chunks that the rank has steps in, or copies', () => {
    for (const worldSize of WORLD_SIZES) {
      for (const request of requestsFor(worldSize)) {
        for (const chunk of plansFor(request).flatMap((plan) => plan.chunks)) {
          expect(chunk.steps.length > 0 || (chunk.input !== null && chunk.output !== null)).toBe(true);
        }
      }
    }
  });
});
