/** Robust averages through the executor: any order of frames, sizes around the edges of segments, codecs, poison. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { FrameCursor, Transfer } from '../../src/collectives/executor.ts';
import { shareOf } from '../../src/collectives/partition.ts';
import { Pieces } from '../../src/collectives/pieces.ts';
import { makePlan } from '../../src/collectives/plan.ts';
import type { PlanRequest } from '../../src/collectives/program.ts';
import { Workspace } from '../../src/collectives/workspace.ts';
import { loadKernels } from '../../src/kernels/load.ts';
import type { RobustOp } from '../../src/tensor.ts';
import { emptyHeader, FRAME_DATA } from '../../src/wire/frame.ts';
import { robustAverage } from '../kernels/robust-reference.ts';
import { freeSlots, type Scenario, SEGMENT_BYTES, simulate } from './simulation.ts';

const OPS: readonly RobustOp[] = ['median', 'trimmed-mean', 'centered-clip'];
const TRIM = 0.2;
const RADIUS = 0.75;

/** Elements of a segment in the simulation. */
const SEGMENT = { f32: SEGMENT_BYTES / 4, f64: SEGMENT_BYTES / 8, bf16: SEGMENT_BYTES / 4, int8: 256 };

/** What one encoding may change of a value, relative to the largest of its block. */
const DROPPED = { f32: 0, bf16: 2 ** -8, int8: 1 / 253 };

type Values = Float32Array | Float64Array;

function bytesOf(values: Values): Uint8Array {
  return new Uint8Array(values.buffer, values.byteOffset, values.byteLength).slice();
}

function run(scenario: Scenario, inputs: readonly Values[]): Values[] {
  const slots = freeSlots();
  const { outputs } = simulate(scenario, inputs.map(bytesOf));
  expect(freeSlots()).toBe(slots);
  return outputs.map(({ buffer }) => (scenario.dtype === 'f64' ? new Float64Array(buffer) : new Float32Array(buffer)));
}

/** What each element of the result should be, of exact contributions. */
function byDefinition(op: RobustOp, inputs: readonly Values[]): number[] {
  const average = { op, cut: Math.floor(TRIM * inputs.length + 1e-9), radius: RADIUS };
  const round = inputs[0] instanceof Float32Array ? Math.fround : (value: number) => value;
  return Array.from(inputs[0]!, (_, at) =>
    robustAverage(
      average,
      inputs.map((input) => input[at]!),
      round,
    ),
  );
}

function parametersOf(op: RobustOp): Pick<Scenario, 'trim' | 'clipRadius'> {
  return op === 'trimmed-mean' ? { trim: TRIM } : op === 'centered-clip' ? { clipRadius: RADIUS } : {};
}

const weather = fc.record({
  seed: fc.integer(),
  slotsTaken: fc.constantFrom(0, 0, 12, 15, 16),
  cancelAfter: fc.constant(null),
});

/** Chunks of about as many elements as a few segments of so many have. */
function shapeOf(segment: number): fc.Arbitrary<{ readonly worldSize: number; readonly count: number }> {
  const edge = fc.record({ segments: fc.integer({ min: 1, max: 3 }), off: fc.integer({ min: -2, max: 2 }) });
  return fc.integer({ min: 1, max: 8 }).chain((worldSize) =>
    fc.record({
      worldSize: fc.constant(worldSize),
      count: fc.oneof(
        fc.nat(20),
        edge.map(({ segments, off }) => worldSize * segment * segments + off),
      ),
    }),
  );
}

/** Values in [−1, 1], and in `share` of the elements something strange. */
function drawn(worldSize: number, count: number, seed: number, share: number): Float32Array[] {
  const strange = [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, 1e30, -3e38];
  let state = seed >>> 0;
  const random = () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
  return Array.from({ length: worldSize }, () =>
    Float32Array.from({ length: count }, () =>
      random() < share ? strange[Math.floor(random() * strange.length)]! : 2 * random() - 1,
    ),
  );
}

describe('without a codec', () => {
  test('all ranks get what the definition says, to the bit, with NaNs and infinities anywhere', () => {
    const cases = fc.constantFrom('f32' as const, 'f64' as const).chain((dtype) =>
      fc.record({
        shape: shapeOf(SEGMENT[dtype]),
        weather,
        op: fc.constantFrom(...OPS),
        dtype: fc.constant(dtype),
        kind: fc.constantFrom('allReduce' as const, 'reduceScatter' as const),
        share: fc.constantFrom(0, 0.3),
      }),
    );
    fc.assert(
      fc.property(cases, ({ shape: { worldSize, count }, weather, op, dtype, kind, share }) => {
        const singles = drawn(worldSize, count, weather.seed, share);
        const inputs =
          dtype === 'f32' ? singles : singles.map((values) => Float64Array.from(values, (value) => value / 3));
        const request: PlanRequest = { kind, algorithm: 'direct', worldSize, count, root: 0 };
        const outputs = run({ request, dtype, op, codec: 'f32', ...parametersOf(op), ...weather }, inputs);
        // Alone, a rank keeps what it has.
        const wanted = worldSize === 1 ? [...inputs[0]!] : byDefinition(op, inputs);
        for (const [rank, output] of outputs.entries()) {
          const { start, count: length } = kind === 'allReduce' ? { start: 0, count } : shareOf(count, worldSize, rank);
          // Zeros are equal whatever their sign.
          expect([...output].map((value) => value + 0)).toEqual(
            wanted.slice(start, start + length).map((value) => value + 0),
          );
          if (kind === 'allReduce') expect(bytesOf(output)).toEqual(bytesOf(outputs[0]!));
        }
      }),
      { numRuns: 300 },
    );
  });

  test('can be stopped at any moment, and gives back what it had borrowed', () => {
    const cases = fc.record({
      shape: shapeOf(SEGMENT.f32),
      weather,
      op: fc.constantFrom(...OPS),
      cancelAfter: fc.integer({ min: 1, max: 150 }),
    });
    fc.assert(
      fc.property(cases, ({ shape: { worldSize, count }, weather, op, cancelAfter }) => {
        const request: PlanRequest = { kind: 'allReduce', algorithm: 'direct', worldSize, count, root: 0 };
        const inputs = drawn(worldSize, count, weather.seed, 0);
        run({ request, dtype: 'f32', op, codec: 'f32', ...parametersOf(op), ...weather, cancelAfter }, inputs);
      }),
      { numRuns: 100 },
    );
  });
});

describe('with a codec', () => {
  test('all ranks get the same bits, off by at most what two encodings drop', () => {
    const cases = fc.constantFrom('bf16' as const, 'int8' as const).chain((codec) =>
      fc.record({
        shape: shapeOf(SEGMENT[codec]),
        weather,
        op: fc.constantFrom(...OPS),
        codec: fc.constant(codec),
      }),
    );
    fc.assert(
      fc.property(cases, ({ shape: { worldSize, count }, weather, op, codec }) => {
        const inputs = drawn(worldSize, count, weather.seed, 0);
        const request: PlanRequest = { kind: 'allReduce', algorithm: 'direct', worldSize, count, root: 0 };
        const outputs = run({ request, dtype: 'f32', op, codec, ...parametersOf(op), ...weather }, inputs);
        // A robust average moves no farther than the farthest of its contributions, so errors do not add up over ranks.
        const bound = 2 * DROPPED[codec] * (1 + DROPPED[codec]) + 2 ** -23;
        for (const output of outputs) {
          expect(bytesOf(output)).toEqual(bytesOf(outputs[0]!));
          const errors = byDefinition(op, inputs).map((wanted, at) => Math.abs(output[at]! - wanted));
          expect(Math.max(0, ...errors)).toBeLessThanOrEqual(bound);
        }
      }),
      { numRuns: 100 },
    );
  });
});

describe('one poisoner among five honest ranks', () => {
  const POISON: Readonly<Record<string, (at: number) => number>> = {
    NaN: () => Number.NaN,
    infinity: () => Number.POSITIVE_INFINITY,
    'minus infinity': () => Number.NEGATIVE_INFINITY,
    '1e30': () => 1e30,
    '-1e30': () => -1e30,
    'all of it': (at) => [Number.NaN, Number.POSITIVE_INFINITY, 1e30, -1e30, 100, -100][at % 6]!,
  };
  const COUNT = 6 * 256 + 5;

  describe.each(Object.entries(POISON))('%s', (_, poison) => {
    test.each(['f32', 'bf16', 'int8'] as const)('in %s', (codec) => {
      for (const poisoner of [0, 3]) {
        const honest = drawn(5, COUNT, 11 + poisoner, 0);
        const inputs = [...honest];
        inputs.splice(
          poisoner,
          0,
          Float32Array.from({ length: COUNT }, (_, at) => poison(at)),
        );
        const request: PlanRequest = { kind: 'allReduce', algorithm: 'direct', worldSize: 6, count: COUNT, root: 0 };
        const base = { request, dtype: 'f32', codec, seed: 3, slotsTaken: 0, cancelAfter: null } as const;
        /** Elements outside what the honest ranks have, widened by what a codec drops and by so much more. */
        const strays = (op: Scenario['op'], more: number): number => {
          const parameters = op === 'trimmed-mean' || op === 'median' || op === 'centered-clip' ? parametersOf(op) : {};
          const [output] = run({ ...base, op, ...parameters }, inputs);
          const margin = more + 3 * DROPPED[codec];
          return output!.filter((value, at) => {
            const of = honest.map((values) => values[at]!);
            return !(value >= Math.min(...of) - margin && value <= Math.max(...of) + margin);
          }).length;
        };
        expect(strays('median', 0)).toBe(0);
        expect(strays('trimmed-mean', 0)).toBe(0);
        expect(strays('centered-clip', RADIUS / 6)).toBe(0);
        expect(strays('avg', RADIUS / 6)).toBeGreaterThan(COUNT / 2);
      }
    });
  });
});

test('names the ranks whose contributions have not come, also where others have', async () => {
  const request: PlanRequest = { kind: 'reduceScatter', algorithm: 'direct', worldSize: 3, count: 3, root: 0 };
  const transfer = new Transfer(new Workspace(await loadKernels(2 * 1024 * 1024), SEGMENT_BYTES), {
    plan: makePlan(request, 0),
    rank: 0,
    frame: { epoch: 1, generation: 1, tag: 7, sequence: 0 },
    dtype: 'f32',
    op: 'median',
    trim: null,
    clipRadius: null,
    codec: 'f32',
    seed: null,
    measures: false,
    dropped: null,
    contributors: 3,
    input: new Pieces([bytesOf(Float32Array.of(1, 2, 3))]),
    ready: null,
    output: new Pieces([new Uint8Array(4)]),
    port: () => ({ writable: false, send: () => undefined }),
    scratch: (byteLength) => new Uint8Array(byteLength),
    onHeld: () => undefined,
    onDrained: () => undefined,
    onProgress: () => undefined,
    traffic: null,
    onFinished: null,
  });
  transfer.start();
  expect([...transfer.waitsFor].sort()).toEqual([1, 2]);
  const cursor = new FrameCursor();
  expect(transfer.beginFrame(cursor, 2, { ...emptyHeader(), type: FRAME_DATA, length: 4 })).toBeNull();
  transfer.payload(cursor, new Uint8Array(4), 0, 4);
  expect([...transfer.waitsFor].sort()).toEqual([1, 2]); // it is not whole
  transfer.endFrame(cursor);
  expect(transfer.waitsFor).toEqual([1]);
});
