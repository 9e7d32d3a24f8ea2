import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { algorithmsOf, makePlan } from '../../src/collectives/plan.ts';
import { spreadPlan } from '../../src/collectives/salvage.ts';
import { restOf } from '../../src/wire/ranges.ts';
import { interpret } from './interpreter.ts';

const COUNT = 60;

/** What is kept of a tensor: every element, or not. */
const kept = fc.array(fc.boolean(), { minLength: COUNT, maxLength: COUNT });

describe('a plan for part of a tensor', () => {
  test('gives the sum there, and touches nothing else, by every algorithm', () => {
    fc.assert(
      fc.property(
        kept,
        fc.integer({ min: 1, max: 6 }),
        fc.constantFrom(...algorithmsOf('allReduce')),
        (finished, worldSize, algorithm) => {
          const spans = finished.flatMap((done, start) => (done ? [{ start, end: start + 1 }] : []));
          const rest = restOf(spans, COUNT);
          const count = finished.filter((done) => !done).length;
          const request = { kind: 'allReduce' as const, algorithm, worldSize, count, root: 0 };
          const ranks = Array.from({ length: worldSize }, (_, rank) => rank);
          const plans = ranks.map((rank) => spreadPlan(makePlan(request, rank), rest));
          const inputs = ranks.map((rank) => Array.from({ length: COUNT }, (_, index) => index * 10 + rank));
          const arithmetic = {
            combine: (left: number, right: number) => left + right,
            finish: (value: number) => value,
          };
          const { outputs } = interpret(plans, { ...request, count: COUNT }, inputs, arithmetic, 1);
          const sums = inputs[0]!.map((_, index) => inputs.reduce((sum, input) => sum + input[index]!, 0));
          const wanted = finished.map((done, index) => (done ? undefined : sums[index]));
          for (const output of outputs) expect([...output]).toEqual(wanted);
          for (const { chunks } of plans)
            expect(chunks.map((chunk) => chunk.id).sort((a, b) => a - b)).toEqual(chunks.map((_, index) => index));
        },
      ),
    );
  });
});
