import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { RobustDtype } from '../../src/kernels/kernels.ts';
import { loadKernels } from '../../src/kernels/load.ts';
import { DTYPE_BYTES } from '../../src/tensor.ts';
import { type Average, robustAverage } from './robust-reference.ts';

const kernels = await loadKernels(4 * 1024 * 1024);
const area = kernels.reserve(2 * 1024 * 1024);
const target = kernels.reserve(64 * 1024);
const view = new DataView(kernels.bytes.buffer);

const ROUND = { f32: Math.fround, f64: (value: number) => value };

function write(dtype: RobustDtype, at: number, values: readonly number[]): void {
  for (const [index, value] of values.entries()) {
    if (dtype === 'f32') view.setFloat32(at + index * 4, value, true);
    else view.setFloat64(at + index * 8, value, true);
  }
}

function read(dtype: RobustDtype, at: number, count: number): number[] {
  return Array.from({ length: count }, (_, index) =>
    dtype === 'f32' ? view.getFloat32(at + index * 4, true) : view.getFloat64(at + index * 8, true),
  );
}

function run(dtype: RobustDtype, { op, cut = 0, radius = 0 }: Average, rows: readonly (readonly number[])[]): number[] {
  const count = rows[0]!.length;
  const stride = Math.ceil((count * DTYPE_BYTES[dtype] + 1) / 64) * 64;
  for (const [index, row] of rows.entries()) write(dtype, area + index * stride, row);
  const ends = [area + rows.length * stride, target + count * DTYPE_BYTES[dtype]];
  for (const end of ends) kernels.bytes.fill(0x5a, end, end + 64);
  const matrix = { offset: area, stride, count: rows.length };
  if (op === 'median') kernels.median(dtype, target, matrix, count);
  else if (op === 'trimmed-mean') kernels.trimmedMean(dtype, target, matrix, count, cut);
  else kernels.centeredClip(dtype, target, matrix, count, radius);
  for (const end of ends) expect(kernels.bytes.slice(end, end + 64).every((byte) => byte === 0x5a)).toBe(true);
  return read(dtype, target, count);
}

/** Equal as numbers: neither a zero's sign nor a NaN's bits are promised. */
function expectEqual(actual: readonly number[], wanted: readonly number[], what: string): void {
  for (const [index, value] of wanted.entries()) {
    const same = actual[index] === value || (Number.isNaN(actual[index]) && Number.isNaN(value));
    if (!same) expect.fail(`${what}: column ${index} is ${actual[index]}, not ${value}`);
  }
}

/** Any bits, and often few different numbers, so that there are equal ones, infinities and NaNs. */
function element(dtype: RobustDtype): fc.Arbitrary<number> {
  const any = dtype === 'f32' ? fc.float() : fc.double();
  const strange = [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, 0, -0];
  const largest = dtype === 'f32' ? 3.4028234663852886e38 : Number.MAX_VALUE;
  const least = dtype === 'f32' ? 1.401298464324817e-45 : Number.MIN_VALUE;
  return fc.oneof(any, fc.integer({ min: -3, max: 3 }), fc.constantFrom(...strange, largest, -largest, least, -least));
}

describe.each<RobustDtype>(['f32', 'f64'])('%s', (dtype) => {
  test('agrees with the definitions, to the bit, for any number of rows and columns', () => {
    const cases = fc
      .record({ rows: fc.oneof(fc.integer({ min: 1, max: 9 }), fc.integer({ min: 10, max: 40 })), count: fc.nat(37) })
      .chain(({ rows, count }) => {
        const row = fc.array(element(dtype), { minLength: count, maxLength: count });
        return fc.array(row, { minLength: rows, maxLength: rows });
      });
    const averages = fc.oneof<fc.Arbitrary<Average>[]>(
      fc.constant({ op: 'median' }),
      fc.record({ op: fc.constant('trimmed-mean' as const), cut: fc.nat(21) }),
      fc.record({
        op: fc.constant('centered-clip' as const),
        radius: fc.constantFrom(1e-30, 0.1, 1, 1.5, 1e30, 1e300),
      }),
    );
    fc.assert(
      fc.property(cases, averages, (rows, average) => {
        const wanted = rows[0]!.map((_, column) =>
          robustAverage(
            average,
            rows.map((row) => row[column]!),
            ROUND[dtype],
          ),
        );
        expectEqual(run(dtype, average, rows), wanted, average.op);
      }),
      { numRuns: 400 },
    );
  });

  test('sorts as many rows as a run may have members', () => {
    const rows = Array.from({ length: 1_024 }, (_, row) =>
      Array.from({ length: 20 }, (_, column) => Math.fround(Math.sin(row * 7 + column))),
    );
    for (const average of [{ op: 'median' }, { op: 'trimmed-mean', cut: 300 }] as const) {
      const wanted = rows[0]!.map((_, column) =>
        robustAverage(
          average,
          rows.map((row) => row[column]!),
          ROUND[dtype],
        ),
      );
      expectEqual(run(dtype, average, rows), wanted, average.op);
    }
  });

  test('the order of the rows changes nothing', () => {
    const rows = [1, 2, 3, 4, 5, 6, 7].map((row) =>
      Array.from({ length: 33 }, (_, at) => Math.fround(Math.cos(row * at))),
    );
    for (const average of [
      { op: 'trimmed-mean', cut: 1 },
      { op: 'centered-clip', radius: 0.3 },
    ] as const) {
      const results = [rows, [...rows].reverse(), [...rows.slice(3), ...rows.slice(0, 3)]].map((some) =>
        run(dtype, average, some),
      );
      for (const result of results) expect(result).toEqual(results[0]);
    }
  });
});
