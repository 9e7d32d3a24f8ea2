/** All-reduces whose inputs come in parts: on each rank other ones, in another order, early and late. */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { CODECS, isBlockCodec } from '../../src/collectives/codec.ts';
import { algorithmsOf } from '../../src/collectives/plan.ts';
import type { PlanRequest } from '../../src/collectives/program.ts';
import { ReadySpans } from '../../src/collectives/ready.ts';
import type { ReduceOp } from '../../src/tensor.ts';
import { freeSlots, type Scenario, simulate } from './simulation.ts';

const request: fc.Arbitrary<PlanRequest> = fc.record({
  kind: fc.constant('allReduce' as const),
  algorithm: fc.constantFrom(...algorithmsOf('allReduce')),
  worldSize: fc.integer({ min: 1, max: 8 }),
  count: fc.oneof(fc.integer({ min: 0, max: 9 }), fc.integer({ min: 10, max: 700 })),
  root: fc.constant(0),
});

const weather = fc.record({ seed: fc.integer(), slotsTaken: fc.constantFrom(0, 0, 12, 15, 16) });

/** Whole numbers that tell rank and place apart, as f32. */
function inputsFor({ worldSize, count }: PlanRequest, scale = 1): Uint8Array[] {
  return Array.from({ length: worldSize }, (_, rank) => {
    const values = Float32Array.from(
      { length: count },
      (_, index) => (((index * 7 + rank * 11 + 3) % 41) - 20) * scale,
    );
    return new Uint8Array(values.buffer);
  });
}

function run(scenario: Scenario, inputs: readonly Uint8Array[]) {
  const slots = freeSlots();
  const result = simulate({ ...scenario, streams: true }, inputs);
  expect(freeSlots()).toBe(slots);
  return result;
}

test('is exact for any order of parts on any rank, with many slots or none, and tells of each element once', () => {
  const cases = fc.record({ request, weather, op: fc.constantFrom<ReduceOp>('sum', 'min', 'max') });
  fc.assert(
    fc.property(cases, ({ request, weather, op }) => {
      const inputs = inputsFor(request);
      const { outputs } = run({ request, dtype: 'f32', op, codec: 'f32', cancelAfter: null, ...weather }, inputs);
      const combine = { sum: (all: number[]) => all.reduce((sum, one) => sum + one), min: Math.min, max: Math.max };
      const columns = inputs.map((input) => new Float32Array(input.buffer));
      const wanted = Float32Array.from({ length: request.count }, (_, index) => {
        const terms = columns.map((column) => column[index]!);
        return op === 'sum' ? combine.sum(terms) : Math[op as 'min' | 'max'](...terms);
      });
      for (const output of outputs) expect(Buffer.compare(output, new Uint8Array(wanted.buffer))).toBe(0);
    }),
    { numRuns: 400 },
  );
});

test('gives the bits that it would give if all were there from the start, with any codec', () => {
  const cases = fc.record({
    request: request.filter(({ algorithm }) => algorithm !== 'doubling'),
    weathers: fc.tuple(weather, weather),
    codec: fc.constantFrom(...CODECS),
    op: fc.constantFrom<ReduceOp>('sum', 'avg'),
  });
  fc.assert(
    fc.property(cases, ({ request: drawn, weathers, codec, op }) => {
      const count = isBlockCodec(codec) ? (drawn.count * 37) % (codec === 'topk' ? 9_000 : 2_000) : drawn.count;
      const request = codec === 'topk' ? { ...drawn, count, algorithm: 'direct' as const } : { ...drawn, count };
      const inputs = inputsFor(request, 1 / 7);
      const [whole, parts] = weathers.map((weather, index) => {
        const scenario: Scenario = { request, dtype: 'f32', op, codec, cancelAfter: null, ...weather };
        return index === 0 ? simulate(scenario, inputs) : run(scenario, inputs);
      });
      for (const output of parts!.outputs) expect(Buffer.compare(output, whole!.outputs[0]!)).toBe(0);
    }),
    { numRuns: 200 },
  );
});

test('makes robust averages of parts as of wholes', () => {
  const cases = fc.record({ request, weather, op: fc.constantFrom<ReduceOp>('median', 'trimmed-mean') });
  fc.assert(
    fc.property(cases, ({ request: drawn, weather, op }) => {
      const request = { ...drawn, algorithm: 'direct' as const };
      const inputs = inputsFor(request);
      const shared = { request, dtype: 'f32', op, trim: 0.3, codec: 'f32', cancelAfter: null, ...weather } as const;
      const whole = simulate(shared, inputs);
      for (const output of run(shared, inputs).outputs) expect(Buffer.compare(output, whole.outputs[0]!)).toBe(0);
    }),
    { numRuns: 60 },
  );
});

test('can be stopped at any moment, and gives back what it had borrowed', () => {
  const cases = fc.record({ request, weather, cancelAfter: fc.integer({ min: 1, max: 120 }) });
  fc.assert(
    fc.property(cases, ({ request, weather, cancelAfter }) => {
      run({ request, dtype: 'f32', op: 'sum', codec: 'f32', cancelAfter, ...weather }, inputsFor(request));
    }),
    { numRuns: 200 },
  );
});

test('knows which elements are there, and refuses them a second time', () => {
  const parts = fc.array(fc.tuple(fc.nat(40), fc.nat(12)), { maxLength: 30 });
  fc.assert(
    fc.property(parts, (parts) => {
      const ready = new ReadySpans();
      const there = new Array<boolean>(64).fill(false);
      for (const [start, length] of parts) {
        const isNew = !there.slice(start, start + length).includes(true);
        expect(ready.add(start, start + length)).toBe(isNew);
        if (isNew) there.fill(true, start, start + length);
        expect(ready.total).toBe(there.filter(Boolean).length);
      }
      const listed = new Array<boolean>(64).fill(false);
      let before = -1;
      for (const { start, end } of ready.spans) {
        expect(start).toBeGreaterThan(before);
        listed.fill(true, start, end);
        before = end;
      }
      expect(listed).toEqual(there);
    }),
  );
});
