import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { CODECS, type Codec, isBlockCodec } from '../../src/collectives/codec.ts';
import { algorithmsOf, tensorSizes } from '../../src/collectives/plan.ts';
import { COLLECTIVE_KINDS, type CollectiveKind, type PlanRequest } from '../../src/collectives/program.ts';
import { DTYPE_BYTES, type Dtype, type ReduceOp } from '../../src/tensor.ts';
import { resultsByDefinition } from '../collectives/cases.ts';
import { type Element, readElement } from '../kernels/reference.ts';
import { freeSlots, type Scenario, SEGMENT_BYTES, simulate } from './simulation.ts';

const REDUCING: ReadonlySet<CollectiveKind> = new Set(['allReduce', 'reduce', 'reduceScatter']);

const CHOICES = COLLECTIVE_KINDS.flatMap((kind) => algorithmsOf(kind).map((algorithm) => ({ kind, algorithm })));

const request: fc.Arbitrary<PlanRequest> = fc
  .record({ choice: fc.constantFrom(...CHOICES), worldSize: fc.integer({ min: 1, max: 8 }) })
  .chain(({ choice, worldSize }) =>
    fc.record({
      kind: fc.constant(choice.kind),
      algorithm: fc.constant(choice.algorithm),
      worldSize: fc.constant(worldSize),
      count:
        choice.kind === 'barrier'
          ? fc.constant(1)
          : fc.oneof(fc.integer({ min: 0, max: 9 }), fc.integer({ min: 10, max: 700 })),
      root: fc.integer({ min: 0, max: worldSize - 1 }),
    }),
  );

const weather = fc.record({
  seed: fc.integer(),
  slotsTaken: fc.constantFrom(0, 0, 12, 15, 16),
});

/** Writes numbers as a dtype holds them. */
function write(dtype: Dtype, values: readonly number[]): Uint8Array {
  const size = DTYPE_BYTES[dtype];
  const bytes = new Uint8Array(values.length * size);
  const view = new DataView(bytes.buffer);
  for (const [index, value] of values.entries()) {
    const at = index * size;
    if (dtype === 'f32') view.setFloat32(at, value, true);
    else if (dtype === 'f64') view.setFloat64(at, value, true);
    else if (size === 8) view.setBigInt64(at, BigInt(value), true);
    else if (size === 4) view.setInt32(at, value, true);
    else if (size === 2) view.setInt16(at, value, true);
    else view.setInt8(at, value);
  }
  return bytes;
}

function read(dtype: Dtype, bytes: Uint8Array): Element[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const size = DTYPE_BYTES[dtype];
  return Array.from({ length: bytes.length / size }, (_, index) => readElement(dtype, view, index * size));
}

/** Whole numbers from −20 to 20 that tell rank and place apart. */
function valuesFor(wanted: PlanRequest): number[][] {
  return Array.from({ length: wanted.worldSize }, (_, rank) =>
    Array.from({ length: tensorSizes(wanted, rank).input }, (_, index) => ((index * 7 + rank * 11 + 3) % 41) - 20),
  );
}

function combine(op: ReduceOp | null, terms: readonly number[]): number {
  if (op === 'min') return Math.min(...terms);
  if (op === 'max') return Math.max(...terms);
  if (op === 'prod') return terms.reduce((left, right) => left * right);
  return terms.reduce((left, right) => left + right);
}

/** So large that blocks and segments are many. */
function enlarged(request: PlanRequest, codec: Codec): PlanRequest {
  if (!isBlockCodec(codec)) return request;
  return { ...request, count: (request.count * 37) % (codec === 'topk' ? 9_000 : 2_000) };
}

/** What one encoding may drop of the largest value in a block. */
const RELATIVE_BOUND = { f32: 0, bf16: 2 ** -8, f16: 2 ** -11, int8: 1 / 253, int4: 1 / 13.8, e3m0: 1 / 3, topk: 1 };

function run(scenario: Scenario, inputs: readonly Uint8Array[]) {
  const before = inputs.map((input) => input.slice());
  const slots = freeSlots();
  const result = simulate(scenario, inputs);
  expect(inputs).toEqual(before);
  expect(freeSlots()).toBe(slots);
  return result;
}

describe('a collective in memory', () => {
  const exact: readonly Dtype[] = ['i32', 'u8', 'i16', 'i64', 'f32', 'f64'];

  test('is exact for whole numbers, whatever happens in which order, with many slots or none', () => {
    const cases = fc.record({
      request,
      weather,
      dtype: fc.constantFrom(...exact),
      op: fc.constantFrom<ReduceOp>('sum', 'min', 'max'),
    });
    fc.assert(
      fc.property(cases, ({ request, weather, dtype, op }) => {
        const reduces = REDUCING.has(request.kind);
        const values = valuesFor(request);
        const scenario: Scenario = {
          request,
          dtype,
          op: reduces ? op : null,
          codec: 'f32',
          cancelAfter: null,
          ...weather,
        };
        const inputs = values.map((list) => write(dtype, list));
        const { outputs, shares } = run(scenario, inputs);
        const typed = inputs.map((input) => read(dtype, input).map(Number));
        const wanted = resultsByDefinition(request, typed, (terms) => combine(op, terms));
        if (request.kind !== 'barrier') {
          for (const [rank, output] of outputs.entries()) {
            // Wraps round as the dtype does.
            expect(read(dtype, output)).toEqual(read(dtype, write(dtype, wanted[rank]!)));
          }
        }
        for (const list of shares) expect(list).toEqual([...list].sort((left, right) => left - right));
      }),
      { numRuns: 200 },
    );
  });

  test('gives all ranks the same bits for floats, near the exact result', () => {
    const cases = fc.record({
      request: request.filter(({ kind }) => REDUCING.has(kind)),
      weather,
      dtype: fc.constantFrom<Dtype>('f32', 'f64', 'f16', 'bf16'),
      op: fc.constantFrom<ReduceOp>('sum', 'avg', 'prod', 'min', 'max'),
    });
    const unit = { f32: 2 ** -23, f64: 2 ** -52, f16: 2 ** -10, bf16: 2 ** -7 };
    fc.assert(
      fc.property(cases, ({ request, weather, dtype, op }) => {
        const values = valuesFor(request).map((list) => list.map((value) => 1 + value / 53));
        const halves = (list: readonly number[]) => Float32Array.from(list);
        // 16-bit floats by cutting f32: which numbers exactly does not matter here.
        const inputs = values.map((list) => {
          if (dtype === 'f32' || dtype === 'f64') return write(dtype, list);
          const words = new Uint32Array(halves(list).buffer);
          const cut = Uint16Array.from(words, (word) =>
            dtype === 'bf16' ? word >>> 16 : 0x3000 | ((word >>> 13) & 0x0fff),
          );
          return new Uint8Array(cut.buffer);
        });
        const typed = inputs.map((input) => read(dtype, input).map(Number));
        const { outputs } = run({ request, dtype, op, codec: 'f32', cancelAfter: null, ...weather }, inputs);
        const wanted = resultsByDefinition(request, typed, (terms) => {
          const total = combine(op, terms);
          return op === 'avg' ? total / terms.length : total;
        });
        for (const [rank, output] of outputs.entries()) {
          for (const [index, element] of read(dtype, output).entries()) {
            const exact = wanted[rank]![index]!;
            const scale =
              typed.reduce((most, list) => Math.max(most, Math.abs(list[index] ?? 0)), Math.abs(exact)) *
              request.worldSize;
            expect(Math.abs(Number(element) - exact)).toBeLessThanOrEqual(
              2 * scale * request.worldSize * unit[dtype as keyof typeof unit],
            );
          }
          if (request.kind === 'allReduce') expect(output).toEqual(outputs[0]);
        }
      }),
      { numRuns: 150 },
    );
  });

  test('with a codec: the same bits on all ranks, the documented error', () => {
    const cases = fc
      .record({
        request: request.filter(({ algorithm, kind }) => algorithm !== 'doubling' && kind !== 'barrier'),
        weather,
        codec: fc.constantFrom(...CODECS.filter((name) => name !== 'f32' && name !== 'topk')),
        large: fc.boolean(),
      })
      .map(({ request, large, ...rest }) => ({ ...rest, request: large ? enlarged(request, rest.codec) : request }));
    fc.assert(
      fc.property(cases, ({ request, weather, codec }) => {
        const reduces = REDUCING.has(request.kind);
        const values = valuesFor(request).map((list) => list.map((value) => 1 + value / 53));
        const inputs = values.map((list) => write('f32', list));
        const scenario: Scenario = {
          request,
          dtype: 'f32',
          op: reduces ? 'sum' : null,
          codec,
          cancelAfter: null,
          ...weather,
        };
        const { outputs } = run(scenario, inputs);
        const wanted = resultsByDefinition(request, values, (terms) => combine('sum', terms));
        // Whatever the algorithm, at most N + 1 roundings of a partial result of at most 1.4 · N are in a value.
        const bound = 1.4 * request.worldSize * ((1 + RELATIVE_BOUND[codec]) ** (request.worldSize + 1) - 1);
        for (const [rank, output] of outputs.entries()) {
          const errors = read('f32', output).map((element, index) => Math.abs(Number(element) - wanted[rank]![index]!));
          expect(Math.max(0, ...errors)).toBeLessThanOrEqual(bound);
          const agrees = ['allReduce', 'broadcast', 'allGather'].includes(request.kind);
          if (agrees) expect(output).toEqual(outputs[0]);
        }
      }),
      { numRuns: 125 },
    );
  });

  test('with error feedback nothing is lost: what ranks dropped and the result add up to the inputs', () => {
    const cases = fc.record({
      request: request.filter(({ algorithm, kind }) => algorithm !== 'doubling' && kind === 'allReduce'),
      weather,
      codec: fc.constantFrom(...CODECS.filter((name) => name !== 'f32')),
      op: fc.constantFrom<ReduceOp>('sum', 'avg'),
      chanceSeed: fc.option(fc.nat(2 ** 32 - 1), { nil: null }),
    });
    fc.assert(
      fc.property(cases, ({ request: drawn, weather, codec, op, chanceSeed }) => {
        const sized = enlarged(drawn, codec);
        const request = codec === 'topk' ? { ...sized, algorithm: 'direct' as const } : sized;
        const values = valuesFor(request).map((list) => list.map((value) => 1 + value / 53));
        // As in a call: what is dropped takes the place of the corrected input.
        const inputs = values.map((list) => write('f32', list));
        const slots = freeSlots();
        const observed = { dropped: inputs, chanceSeed };
        const { outputs, errors } = simulate(
          { request, dtype: 'f32', op, codec, cancelAfter: null, observed, ...weather },
          inputs,
        );
        expect(freeSlots()).toBe(slots);
        const { worldSize } = request;
        const results = read('f32', outputs[0]!).map(Number);
        const dropped = inputs.map((input) => read('f32', input).map(Number));
        for (const output of outputs) expect(output).toEqual(outputs[0]);
        for (const [index, result] of results.entries()) {
          const exact = values.reduce((sum, list) => sum + Math.fround(list[index]!), 0);
          const kept = dropped.reduce((sum, list) => sum + list[index]!, 0);
          const whole = op === 'avg' ? result * worldSize : result;
          expect(Math.abs(whole + kept - exact)).toBeLessThanOrEqual(worldSize ** 2 * 1e-5);
        }
        if (worldSize === 1) return;
        for (const error of errors) if (!Number.isNaN(error)) expect(error).toBeLessThanOrEqual(1);
      }),
      { numRuns: 75 },
    );
  });

  test('goes straight to the same bits, whatever comes first and by whatever chance it rounds', () => {
    const cases = fc.record({
      worldSize: fc.integer({ min: 2, max: 8 }),
      count: fc.integer({ min: 1, max: 700 }),
      codec: fc.constantFrom(...CODECS),
      weathers: fc.tuple(weather, weather),
      chanceSeed: fc.option(fc.nat(2 ** 32 - 1), { nil: null }),
    });
    fc.assert(
      fc.property(cases, ({ worldSize, count, codec, weathers, chanceSeed }) => {
        const request: PlanRequest = { kind: 'allReduce', algorithm: 'direct', worldSize, count, root: 0 };
        const inputs = valuesFor(request).map((list, rank) =>
          write(
            'f32',
            list.map((value, index) => value * Math.sin(index + rank)),
          ),
        );
        const results = weathers.map((weather) => {
          const observed = { dropped: inputs.map((input) => input.slice()), chanceSeed };
          return run({ request, dtype: 'f32', op: 'sum', codec, cancelAfter: null, observed, ...weather }, inputs);
        });
        for (const output of results.flatMap(({ outputs }) => outputs)) {
          expect(Buffer.compare(output, results[0]!.outputs[0]!)).toBe(0);
        }
      }),
      { numRuns: 60 },
    );
  });

  test('can be stopped at any moment, and gives back what it had borrowed', () => {
    const cases = fc.record({
      request: request.filter(({ worldSize }) => worldSize > 1),
      weather,
      codec: fc.constantFrom(...CODECS),
      cancelAfter: fc.integer({ min: 1, max: 150 }),
    });
    fc.assert(
      fc.property(cases, ({ request, weather, codec, cancelAfter }) => {
        const usable = request.algorithm === 'doubling' ? 'f32' : codec;
        const inputs = valuesFor(request).map((list) => write('f32', list));
        const op = REDUCING.has(request.kind) ? 'sum' : null;
        run({ request, dtype: 'f32', op, codec: usable, cancelAfter, ...weather }, inputs);
      }),
      { numRuns: 150 },
    );
  });
});

describe('particular cases', () => {
  test('NaNs of every kind end as the same bits on all ranks of recursive doubling', () => {
    const patterns = [0x7fc00000, 0xffc00000, 0x7f800001, 0xffc01234];
    const inputs = patterns.map((pattern) => new Uint8Array(Uint32Array.of(pattern, 0x3f800000, pattern).buffer));
    const request: PlanRequest = { kind: 'allReduce', algorithm: 'doubling', worldSize: 4, count: 3, root: 0 };
    const scenario: Scenario = {
      request,
      dtype: 'f32',
      op: 'sum',
      codec: 'f32',
      seed: 5,
      slotsTaken: 0,
      cancelAfter: null,
    };
    const { outputs } = run(scenario, inputs);
    for (const output of outputs) expect(output).toEqual(outputs[0]);
    expect(read('f32', outputs[0]!)[0]).toBeNaN();
    expect(read('f32', outputs[0]!)[1]).toBe(4);
  });

  test('segments are what the test says they are', () => {
    const request: PlanRequest = {
      kind: 'broadcast',
      algorithm: 'ring',
      worldSize: 2,
      count: (SEGMENT_BYTES / 4) * 3 + 1,
      root: 0,
    };
    const inputs = valuesFor(request).map((list) => write('i32', list));
    const scenario: Scenario = {
      request,
      dtype: 'i32',
      op: null,
      codec: 'f32',
      seed: 1,
      slotsTaken: 0,
      cancelAfter: null,
    };
    const { shares } = run(scenario, inputs);
    expect(shares[1]).toEqual([0.25, 0.5, 0.75, 1]);
  });
});
