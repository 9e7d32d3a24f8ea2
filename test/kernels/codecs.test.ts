/** The codecs against their definition, bit for bit, and against the bounds that are documented for them. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { BLOCK_ELEMENTS, CODECS, wireLength } from '../../src/collectives/codec.ts';
import type { LossyCodec } from '../../src/kernels/kernels.ts';
import { loadKernels } from '../../src/kernels/load.ts';
import { randomFrom } from '../collectives/interpreter.ts';
import { type BlockCodec, decodeByDefinition, encodeByDefinition } from './codec-reference.ts';

const AREA_BYTES = 512 * 1024;
const kernels = await loadKernels(4 * AREA_BYTES);
const view = new DataView(kernels.bytes.buffer);
const [sourceArea, wireArea, targetArea] = Array.from({ length: 3 }, () => kernels.reserve(AREA_BYTES)) as [
  number,
  number,
  number,
];

const BLOCK_CODECS: readonly BlockCodec[] = ['int8', 'int4', 'e3m0'];
const LOSSY = CODECS.filter((codec) => codec !== 'f32') as LossyCodec[];

function put(values: readonly number[], at: number): void {
  for (const [index, value] of values.entries()) view.setFloat32(at + 4 * index, value, true);
}

function get(at: number, count: number): number[] {
  return Array.from({ length: count }, (_, index) => view.getFloat32(at + 4 * index, true));
}

/** Encodes at a given offset, and checks that nothing beside the wire bytes is written. */
function encode(codec: LossyCodec, values: readonly number[], offset = 0, chance?: { seed: number; index: number }) {
  const source = sourceArea + offset;
  const wire = wireArea + 64 + offset;
  const length = wireLength('f32', codec, values.length);
  put(values, source);
  kernels.bytes.fill(0x5a, wire - 64, wire + length + 64);
  if (chance === undefined) kernels.encode(codec, wire, source, values.length);
  else kernels.encodeByChance(codec as BlockCodec, wire, source, values.length, chance.seed, chance.index);
  expect(kernels.bytes.subarray(wire - 64, wire).every((byte) => byte === 0x5a)).toBe(true);
  expect(kernels.bytes.subarray(wire + length, wire + length + 64).every((byte) => byte === 0x5a)).toBe(true);
  return kernels.bytes.slice(wire, wire + length);
}

function decode(codec: LossyCodec, bytes: Uint8Array, count: number, offset = 0): number[] {
  const wire = wireArea + offset;
  const target = targetArea + 64 + offset;
  kernels.bytes.set(bytes, wire);
  kernels.bytes.fill(0x5a, target - 64, target + 4 * count + 64);
  kernels.decode(codec, target, wire, count);
  expect(kernels.bytes.subarray(target - 64, target).every((byte) => byte === 0x5a)).toBe(true);
  expect(kernels.bytes.subarray(target + 4 * count, target + 4 * count + 64).every((byte) => byte === 0x5a)).toBe(true);
  return get(target, count);
}

function roundTrip(codec: LossyCodec, values: readonly number[]): number[] {
  return decode(codec, encode(codec, values), values.length);
}

const tiny = fc.float({ noNaN: true, min: -Math.fround(2 ** -120), max: Math.fround(2 ** -120) });
const finite = fc.float({ noNaN: true, noDefaultInfinity: true });
const ordinary = fc.float({ noNaN: true, min: -8, max: 8 });

/** Blocks of every sort: ordinary, of zeros, of denormals, with one outlier, huge, with what is not finite. */
const anyValues: fc.Arbitrary<number[]> = fc
  .array(
    fc.oneof(
      { weight: 4, arbitrary: fc.array(ordinary, { minLength: 1, maxLength: 300 }) },
      { weight: 1, arbitrary: fc.array(tiny, { minLength: 1, maxLength: 100 }) },
      { weight: 1, arbitrary: fc.array(finite, { minLength: 1, maxLength: 100 }) },
      { weight: 1, arbitrary: fc.integer({ min: 1, max: 300 }).map((length) => new Array<number>(length).fill(0)) },
      { weight: 1, arbitrary: fc.constantFrom([1e30], [-3.4028234663852886e38], [3.3895e38], [-0]) },
    ),
    { maxLength: 4 },
  )
  .map((parts) => parts.flat().map(Math.fround));

const withStrangers: fc.Arbitrary<number[]> = fc
  .tuple(
    anyValues,
    fc.array(fc.constantFrom(Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY), { maxLength: 2 }),
    fc.nat(),
  )
  .map(([values, strangers, at]) => values.toSpliced(at % (values.length + 1), 0, ...strangers));

/** Calls with each block and where it begins. */
function forBlocks(codec: LossyCodec, count: number, action: (start: number, end: number) => void): void {
  const block = BLOCK_ELEMENTS[codec];
  for (let start = 0; start < count; start += block) action(start, Math.min(count, start + block));
}

function gaussian(count: number, seed: number): number[] {
  const random = randomFrom(seed);
  return Array.from({ length: count }, () =>
    Math.fround(Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random())),
  );
}

function relativeError(exact: readonly number[], actual: readonly number[]): number {
  const energy = (list: readonly number[]) => list.reduce((sum, value) => sum + value * value, 0);
  return Math.sqrt(energy(exact.map((value, index) => value - actual[index]!)) / energy(exact));
}

describe.each(BLOCK_CODECS)('%s', (codec) => {
  test('encodes and decodes as it is defined, bit for bit, at any offset and length', () => {
    fc.assert(
      fc.property(withStrangers, fc.nat(17), (values, offset) => {
        const bytes = encode(codec, values, offset);
        expect(bytes).toEqual(encodeByDefinition(codec, values));
        const decoded = decode(codec, bytes, values.length, offset);
        const wanted = decodeByDefinition(codec, bytes, values.length);
        for (const [index, value] of wanted.entries()) {
          if (decoded[index] !== value && !Number.isNaN(value))
            expect.fail(`element ${index} is ${decoded[index]}, not ${value}`);
          if (Number.isNaN(value)) expect(decoded[index]).toBeNaN();
        }
      }),
      { numRuns: 400 },
    );
  });

  test('keeps to its documented bound', () => {
    fc.assert(
      fc.property(anyValues, fc.nat(), (values, seed) => {
        const decoded = roundTrip(codec, values);
        const byChance = decode(codec, encode(codec, values, 0, { seed, index: 0 }), values.length);
        forBlocks(codec, values.length, (start, end) => {
          const largest = values.slice(start, end).reduce((most, value) => Math.max(most, Math.abs(value)), 0);
          for (let index = start; index < end; index++) {
            const x = values[index]!;
            const bound = {
              int8: largest / 253 + 2 ** -127,
              int4: largest / (Math.abs(x) > 0.93 * largest ? 7.7 : 15.9) + 2 ** -127,
              e3m0: Math.max(Math.abs(x) / 3, largest / 127, 2 ** -127),
            }[codec];
            expect(Math.abs(decoded[index]! - x)).toBeLessThanOrEqual(bound);
            const chanceBound = {
              int8: largest / 126 + 2 ** -126,
              int4: largest / 6.9 + 2 ** -126,
              e3m0: Math.max(Math.abs(x), largest / 63, 2 ** -126),
            }[codec];
            expect(Math.abs(byChance[index]! - x)).toBeLessThanOrEqual(chanceBound);
          }
        });
      }),
      { numRuns: 300 },
    );
  });

  test('gives what it decoded the same bytes again, to the nearest and by chance', () => {
    fc.assert(
      fc.property(withStrangers, fc.nat(), (values, seed) => {
        const bytes = encode(codec, values);
        const decoded = decode(codec, bytes, values.length);
        expect(encode(codec, decoded)).toEqual(bytes);
        const byChance = encode(codec, values, 0, { seed, index: 3 });
        const decodedByChance = decode(codec, byChance, values.length);
        expect(encode(codec, decodedByChance, 0, { seed: seed + 1, index: 7 })).toEqual(byChance);
      }),
      { numRuns: 300 },
    );
  });

  test('rounds by chance as it is defined, wherever the values are cut into segments', () => {
    fc.assert(
      fc.property(withStrangers, fc.nat(0xffffffff), fc.nat(2 ** 31), fc.nat(3), (values, seed, index, blocks) => {
        const whole = encode(codec, values, 0, { seed, index });
        expect(whole).toEqual(encodeByDefinition(codec, values, { seed, index }));
        const cut = Math.min(values.length, blocks * BLOCK_ELEMENTS[codec]);
        const first = encode(codec, values.slice(0, cut), 0, { seed, index });
        const second = encode(codec, values.slice(cut), 0, { seed, index: index + cut });
        expect(Uint8Array.from([...first, ...second])).toEqual(whole);
      }),
      { numRuns: 300 },
    );
  });

  test('rounds by chance to the exact mean', () => {
    const rounds = 4_000;
    const values = [1, ...gaussian(31, 3).map((value) => Math.fround(Math.max(-0.99, Math.min(0.99, value / 3))))];
    const sums = values.map(() => 0);
    for (let seed = 0; seed < rounds; seed++) {
      const bytes = encode(codec, values, 0, { seed: seed * 7919, index: 0 });
      for (const [index, value] of decode(codec, bytes, values.length).entries()) sums[index]! += value;
    }
    // A step is at most so wide, so the mean of as many has this standard error at most.
    const step = { int8: 1 / 126, int4: 1 / 6.9, e3m0: 0.51 }[codec];
    const bound = (4.5 * step) / 2 / Math.sqrt(rounds);
    for (const [index, value] of values.entries()) {
      expect(Math.abs(sums[index]! / rounds - value)).toBeLessThanOrEqual(
        bound + 0.008 * Math.abs(value) * (index === 0 ? 1 : 0),
      );
    }
  });

  test('a block of zeros stays zero, whatever its signs; its neighbours are another matter', () => {
    const block = BLOCK_ELEMENTS[codec];
    const values = [...new Array<number>(block).fill(-0), ...new Array<number>(block).fill(1)];
    const decoded = roundTrip(codec, values);
    expect(decoded.slice(0, block).every((value) => value === 0)).toBe(true);
    expect(decoded.slice(block).every((value) => Math.abs(value - 1) < 0.01)).toBe(true);
  });
});

test.each([
  ['int8', 0.0062],
  ['int4', 0.095],
  ['e3m0', 0.2],
] as const)('%s: what is dropped of Gaussian values is that of rounding, not of truncating', (codec, bound) => {
  const values = gaussian(65_536, 11);
  const decoded = roundTrip(codec, values);
  expect(relativeError(values, decoded)).toBeLessThanOrEqual(bound);
  // Truncation would pull every value towards zero.
  const pull = values.reduce((sum, value, index) => sum + Math.sign(value) * (value - decoded[index]!), 0);
  expect(Math.abs(pull / values.length)).toBeLessThanOrEqual(codec === 'e3m0' ? 0.03 : bound / 20);
});

describe.each(LOSSY)('%s', (codec) => {
  test('never makes a number of what is not finite, nor of its block', () => {
    fc.assert(
      fc.property(
        fc.array(ordinary, { minLength: 1, maxLength: 5_000 }),
        fc.nat(),
        fc.constantFrom(Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY),
        (values, drawn, stranger) => {
          const at = drawn % values.length;
          const decoded = roundTrip(codec, values.with(at, stranger));
          if (codec === 'bf16' || codec === 'f16') expect(decoded[at]).toBe(stranger);
          else {
            forBlocks(codec, values.length, (start, end) => {
              const isStruck = start <= at && at < end;
              for (let index = start; index < end; index++) expect(Number.isNaN(decoded[index])).toBe(isStruck);
            });
          }
        },
      ),
      { numRuns: 40 },
    );
  });

  test('decodes what was decoded to the same values again', () => {
    fc.assert(
      fc.property(anyValues, (values) => {
        const decoded = roundTrip(codec, values);
        const unsigned = (list: ArrayLike<number>) => Array.from(list, (value) => value + 0); // a zero is a zero
        expect(unsigned(roundTrip(codec, decoded))).toEqual(unsigned(decoded));
      }),
      { numRuns: 100 },
    );
  });
});

describe('topk', () => {
  const lists = fc.oneof(
    anyValues,
    fc.tuple(fc.integer({ min: 1, max: 9_000 }), fc.integer()).map(([count, seed]) => gaussian(count, seed)),
  );

  test('keeps the largest, one in 64, with their signs; everything else becomes zero', () => {
    fc.assert(
      fc.property(lists, (values) => {
        const decoded = roundTrip('topk', values);
        forBlocks('topk', values.length, (start, end) => {
          const magnitudes = values.slice(start, end).map(Math.abs);
          const sorted = magnitudes.toSorted((left, right) => right - left);
          const kept = Math.ceil((end - start) / 64);
          const least = sorted[kept - 1]!;
          let nonZero = 0;
          for (let index = start; index < end; index++) {
            const value = decoded[index]!;
            if (value === 0) continue;
            nonZero += 1;
            expect(Math.abs(values[index]!)).toBeGreaterThanOrEqual(least);
            expect(Math.sign(value)).toBe(Math.sign(values[index]!));
          }
          expect(nonZero).toBeLessThanOrEqual(kept);
          // Levels too small for a bf16 become zero.
          if (least > 1e-37) expect(nonZero).toBe(kept);
          expect(new Set(decoded.slice(start, end).map(Math.abs)).size).toBeLessThanOrEqual(3);
        });
      }),
      { numRuns: 150 },
    );
  });

  test('never makes an error larger than the block itself, and takes the energy of what it keeps off', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 9_000 }), fc.integer(), (count, seed) => {
        const values = gaussian(count, seed);
        const decoded = roundTrip('topk', values);
        forBlocks('topk', count, (start, end) => {
          const energy = (of: (index: number) => number) => {
            let sum = 0;
            for (let index = start; index < end; index++) sum += of(index) ** 2;
            return sum;
          };
          const whole = energy((index) => values[index]!);
          const kept = energy((index) => (decoded[index] === 0 ? 0 : values[index]!));
          const error = energy((index) => values[index]! - decoded[index]!);
          expect(error).toBeLessThanOrEqual(whole);
          expect(error).toBeLessThanOrEqual(whole - 0.9 * kept);
        });
      }),
      { numRuns: 40 },
    );
  });

  test('refuses to write outside a short block, whatever the places say', () => {
    const length = wireLength('f32', 'topk', 100);
    const bytes = new Uint8Array(length).fill(0xff);
    bytes.set([0x80, 0x3f, 0x80, 0x3f]); // both levels 1
    expect(decode('topk', bytes, 100).every((value) => value === 0)).toBe(true);
  });
});

describe('wireLength', () => {
  test('adds up over whole blocks', () => {
    for (const codec of CODECS) {
      const block = BLOCK_ELEMENTS[codec];
      for (const rest of [0, 1, 63, 64, 65, 255, 300, 4_095]) {
        const parts = wireLength('f32', codec, 3 * block) + wireLength('f32', codec, rest);
        expect(wireLength('f32', codec, 3 * block + rest)).toBe(parts);
      }
    }
  });

  test('has one scale for a block, not for an element, of whatever a tensor is', () => {
    const share = (codec: LossyCodec) => wireLength('f32', codec, 1_000_003) / 4_000_012;
    expect(share('int8')).toBeLessThan(0.2579);
    expect(share('int4')).toBeLessThan(0.1355);
    expect(share('e3m0')).toBeLessThan(0.133);
    expect(share('topk')).toBeLessThan(0.0072);
  });
});

describe('what was dropped', () => {
  test('is the difference, scaled, and nothing where that is not finite', () => {
    fc.assert(
      fc.property(withStrangers, fc.integer({ min: 1, max: 16 }), (values, factor) => {
        const decoded = values.map((_, index) => Math.fround(Math.sin(index)));
        put(values, sourceArea);
        put(decoded, wireArea);
        kernels.dropped(targetArea, sourceArea, wireArea, values.length, factor);
        const wanted = values.map((value, index) => {
          const difference = Math.fround(Math.fround(value - decoded[index]!) * factor);
          return Number.isFinite(difference) ? difference : 0;
        });
        expect(get(targetArea, values.length)).toEqual(wanted);
      }),
      { numRuns: 100 },
    );
  });

  test('has the energy of its squares', () => {
    const values = gaussian(1_003, 5);
    put(values, sourceArea);
    const exact = values.reduce((sum, value) => sum + value * value, 0);
    expect(kernels.energy(sourceArea, values.length)).toBeCloseTo(exact, 8);
  });
});
