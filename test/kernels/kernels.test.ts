import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { copyBytes } from '../../src/kernels/copy.ts';
import type { Kernels } from '../../src/kernels/kernels.ts';
import { loadKernels } from '../../src/kernels/load.ts';
import { DTYPE_BYTES, DTYPES, type Dtype } from '../../src/tensor.ts';
import {
  bf16ToNumber,
  divideElement,
  type Element,
  FLOATS,
  halfToNumber,
  isFloat,
  numberToBf16,
  numberToHalf,
  OPS,
  readElement,
  reduceElement,
} from './reference.ts';

const AREA_BYTES = 512 * 1024;

const kernels: Kernels = await loadKernels(4 * AREA_BYTES);
const view = new DataView(kernels.bytes.buffer);
const areas = Array.from({ length: 3 }, () => kernels.reserve(AREA_BYTES)) as [number, number, number];

/** Bytes of so many elements: mostly anything, and often the patterns where arithmetic turns peculiar. */
function arbitraryBytes(dtype: Dtype, count: number): fc.Arbitrary<Uint8Array> {
  const size = DTYPE_BYTES[dtype];
  const special = [
    new Uint8Array(size),
    new Uint8Array(size).fill(0xff), // −1, the largest, or a NaN
    Uint8Array.from({ length: size }, (_, byte) => (byte === size - 1 ? 0x80 : 0)), // the smallest, or −0
    Uint8Array.from({ length: size }, (_, byte) => (byte === size - 1 ? 0x7f : 0xff)), // the largest, or a NaN
    Uint8Array.from({ length: size }, (_, byte) => (byte === 0 ? 1 : 0)), // 1, or the smallest subnormal
  ];
  if (dtype === 'f32')
    special.push(...[Number.POSITIVE_INFINITY, 3.4e38, 1].map((one) => new Uint8Array(Float32Array.of(one).buffer)));
  if (dtype === 'f64')
    special.push(...[Number.NEGATIVE_INFINITY, 1.7e308, 1].map((one) => new Uint8Array(Float64Array.of(one).buffer)));
  if (dtype === 'f16')
    special.push(...[0x7c00, 0x7bff, 0x3c00].map((one) => new Uint8Array(Uint16Array.of(one).buffer)));
  if (dtype === 'bf16')
    special.push(...[0x7f80, 0xff7f, 0x3f80].map((one) => new Uint8Array(Uint16Array.of(one).buffer)));
  const element = fc.oneof(
    { weight: 3, arbitrary: fc.uint8Array({ minLength: size, maxLength: size }) },
    { weight: 1, arbitrary: fc.constantFrom(...special) },
  );
  return fc.array(element, { minLength: count, maxLength: count }).map((elements) => {
    const bytes = new Uint8Array(count * size);
    elements.forEach((one, index) => {
      bytes.set(one, index * size);
    });
    return bytes;
  });
}

function elements(dtype: Dtype, at: number, count: number): Element[] {
  return Array.from({ length: count }, (_, index) => readElement(dtype, view, at + index * DTYPE_BYTES[dtype]));
}

/** Equal as numbers and in the sign of zero; one NaN is as good as another. */
function expectSame(actual: readonly Element[], wanted: readonly Element[]): void {
  for (const [index, one] of wanted.entries()) {
    if (!Object.is(actual[index], one)) {
      expect.fail(`element ${index} is ${actual[index]}, not ${one}`);
    }
  }
}

describe('reduce', () => {
  describe.each(DTYPES)('%s', (dtype) => {
    test.each(OPS)('%s agrees with plain arithmetic, at any offset and length', (op) => {
      const size = DTYPE_BYTES[dtype];
      const cases = fc
        .record({
          count: fc.oneof(fc.integer({ min: 0, max: 40 }), fc.integer({ min: 41, max: 300 })),
          offsets: fc.tuple(fc.nat(17), fc.nat(17), fc.nat(17)),
          alias: fc.constantFrom('none', 'left', 'right'),
        })
        .chain((shape) =>
          fc.record({
            shape: fc.constant(shape),
            left: arbitraryBytes(dtype, shape.count),
            right: arbitraryBytes(dtype, shape.count),
          }),
        );
      fc.assert(
        fc.property(cases, ({ shape, left, right }) => {
          const { count, offsets, alias } = shape;
          const at = areas.map((area, index) => area + offsets[index]!) as [number, number, number];
          const [leftAt, rightAt] = at;
          const target = alias === 'left' ? leftAt : alias === 'right' ? rightAt : at[2];
          kernels.bytes.fill(0x5a, target - 17, target + count * size + 17);
          kernels.bytes.set(left, leftAt);
          kernels.bytes.set(right, rightAt);
          const before = kernels.bytes.slice(target - 17, target);
          const after = kernels.bytes.slice(target + count * size, target + count * size + 17);
          const lefts = elements(dtype, leftAt, count);
          const rights = elements(dtype, rightAt, count);
          const wanted = lefts.map((one, index) => reduceElement(dtype, op, one, rights[index]!));
          kernels.reduce(dtype, op, target, leftAt, rightAt, count);
          expectSame(elements(dtype, target, count), wanted);
          expect(kernels.bytes.slice(target - 17, target)).toEqual(before);
          expect(kernels.bytes.slice(target + count * size, target + count * size + 17)).toEqual(after);
        }),
        { numRuns: 60 },
      );
    });
  });

  test.each(['f16', 'bf16'] as const)('every seventh pattern of a %s with some others, in vector code', (dtype) => {
    const count = 65_536;
    const [leftAt, rightAt, target] = areas;
    for (let bits = 0; bits < count; bits++) view.setUint16(leftAt + 2 * bits, bits, true);
    for (const other of [0x0000, 0x8000, 0x0001, 0x3c00, 0xbf80, 0x7bff, 0x7c00, 0xfc01]) {
      for (let index = 0; index < count; index++) view.setUint16(rightAt + 2 * index, other, true);
      for (const op of OPS) {
        kernels.reduce(dtype, op, target, leftAt, rightAt, count);
        const right = readElement(dtype, view, rightAt);
        for (let bits = 0; bits < count; bits += 7) {
          const wanted = reduceElement(dtype, op, readElement(dtype, view, leftAt + 2 * bits), right);
          const actual = readElement(dtype, view, target + 2 * bits);
          if (!Object.is(actual, wanted))
            expect.fail(`${op} of patterns ${bits} and ${other} is ${actual}, not ${wanted}`);
        }
      }
    }
  });
});

describe('divide', () => {
  test.each(DTYPES)('%s: floats are rounded once, integers go towards zero', (dtype) => {
    fc.assert(
      fc.property(
        fc.integer({ min: 0, max: 100 }).chain((count) => arbitraryBytes(dtype, count)),
        fc.integer({ min: 1, max: 1_024 }),
        fc.nat(17),
        (bytes, drawn, offset) => {
          // A sum of that many i8 could not be divided by more than it holds.
          const divisor = DTYPE_BYTES[dtype] === 1 ? 1 + (drawn % 100) : drawn;
          const at = areas[0] + offset;
          const count = bytes.length / DTYPE_BYTES[dtype];
          kernels.bytes.set(bytes, at);
          const wanted = elements(dtype, at, count).map((one) => divideElement(dtype, one, divisor));
          kernels.divide(dtype, at, count, divisor);
          expectSame(elements(dtype, at, count), wanted);
        },
      ),
      { numRuns: 100 },
    );
  });
});

describe('16-bit floats', () => {
  const codecs = [
    ['f16', halfToNumber, numberToHalf],
    ['bf16', bf16ToNumber, numberToBf16],
  ] as const;

  test.each(codecs)('%s: all 65,536 patterns decode exactly, and encode to themselves', (codec, toNumber) => {
    const [source, decoded, encoded] = areas;
    for (let bits = 0; bits < 65_536; bits++) view.setUint16(source + 2 * bits, bits, true);
    kernels.decode(codec, decoded, source, 65_536);
    kernels.encode(codec, encoded, decoded, 65_536);
    for (let bits = 0; bits < 65_536; bits++) {
      const value = view.getFloat32(decoded + 4 * bits, true);
      if (!Object.is(value, toNumber(bits))) expect.fail(`pattern ${bits} decodes to ${value}`);
      const again = view.getUint16(encoded + 2 * bits, true);
      if (Number.isNaN(value) ? !Number.isNaN(toNumber(again)) : again !== bits)
        expect.fail(`pattern ${bits} comes back as ${again}`);
    }
  });

  test.each(codecs)('%s: encoding rounds to the nearest, ties to even', (codec, toNumber, fromNumber) => {
    // Around every pattern: the halfway point to the next one, and its neighbours on both sides.
    const [source, encoded] = areas;
    const infinity = codec === 'f16' ? 0x7c00 : 0x7f80;
    const values: number[] = [];
    for (let bits = 0; bits < infinity; bits++) {
      const next = bits + 1 === infinity ? 2 * toNumber(bits) - toNumber(bits - 1) : toNumber(bits + 1);
      const middle = new Float32Array([(toNumber(bits) + next) / 2]);
      const pattern = new Uint32Array(middle.buffer);
      values.push(middle[0]!, -middle[0]!);
      pattern[0]! += 1;
      values.push(middle[0]!);
      if (pattern[0]! >= 2) {
        pattern[0]! -= 2;
        values.push(middle[0]!);
      }
    }
    values.push(Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, Number.NaN, 3.4028234663852886e38, 1.4e-45);
    const block = AREA_BYTES / 4;
    for (let start = 0; start < values.length; start += block) {
      const part = values.slice(start, start + block);
      part.forEach((value, index) => {
        view.setFloat32(source + 4 * index, value, true);
      });
      kernels.encode(codec, encoded, source, part.length);
      for (const [index, value] of part.entries()) {
        const wanted = fromNumber(Math.fround(value));
        const bits = view.getUint16(encoded + 2 * index, true);
        if (wanted === null ? !Number.isNaN(toNumber(bits)) : bits !== wanted)
          expect.fail(`${value} encodes to ${bits}, not ${wanted}`);
      }
    }
  });

  test.each(codecs)('%s: any f32, at any offset and length', (codec, toNumber, fromNumber) => {
    fc.assert(
      fc.property(fc.array(fc.float(), { maxLength: 70 }), fc.nat(17), fc.nat(17), (values, from, to) => {
        const source = areas[0] + from;
        const target = areas[1] + to;
        values.forEach((value, index) => {
          view.setFloat32(source + 4 * index, value, true);
        });
        kernels.encode(codec, target, source, values.length);
        for (const [index, value] of values.entries()) {
          const bits = view.getUint16(target + 2 * index, true);
          const wanted = fromNumber(value);
          if (wanted === null) expect(toNumber(bits)).toBeNaN();
          else expect(bits).toBe(wanted);
        }
        kernels.decode(codec, source, target, values.length);
        for (let index = 0; index < values.length; index++) {
          expect(view.getFloat32(source + 4 * index, true)).toBe(toNumber(view.getUint16(target + 2 * index, true)));
        }
      }),
    );
  });
});

describe('canonicalizeNaN', () => {
  test.each(DTYPES)('%s: every NaN becomes the same bits, nothing else changes', (dtype) => {
    fc.assert(
      fc.property(
        fc.integer({ min: 0, max: 90 }).chain((count) => arbitraryBytes(dtype, count)),
        fc.nat(17),
        (bytes, offset) => {
          const at = areas[0] + offset;
          const size = DTYPE_BYTES[dtype];
          const count = bytes.length / size;
          kernels.bytes.set(bytes, at);
          const before = elements(dtype, at, count);
          kernels.canonicalizeNaN(dtype, at, count);
          const patterns = new Set<string>();
          for (const [index, element] of before.entries()) {
            const now = kernels.bytes.slice(at + index * size, at + (index + 1) * size);
            if (isFloat(dtype) && Number.isNaN(element)) patterns.add(now.join());
            else expect(now).toEqual(bytes.slice(index * size, (index + 1) * size));
          }
          expect(patterns.size).toBeLessThanOrEqual(1);
        },
      ),
      { numRuns: 100 },
    );
  });

  test.each(FLOATS)('%s: the same bits whatever the sign and payload were, in vector and scalar code', (dtype) => {
    const size = DTYPE_BYTES[dtype];
    const at = areas[0];
    const count = 37;
    const infinity = {
      f32: [0, 0, 0x80, 0x7f],
      f64: [0, 0, 0, 0, 0, 0, 0xf0, 0x7f],
      f16: [0, 0x7c],
      bf16: [0x80, 0x7f],
    };
    for (let index = 0; index < count; index++) {
      const bytes = Uint8Array.from(infinity[dtype]);
      bytes[0]! |= 1 + (index % 7);
      if (index % 2 === 1) bytes[size - 1]! |= 0x80;
      kernels.bytes.set(bytes, at + index * size);
    }
    kernels.canonicalizeNaN(dtype, at, count);
    const first = kernels.bytes.slice(at, at + size);
    for (let index = 0; index < count; index++) {
      expect(readElement(dtype, view, at + index * size)).toBeNaN();
      expect(kernels.bytes.slice(at + index * size, at + (index + 1) * size)).toEqual(first);
    }
  });
});

describe('copies', () => {
  test.for([ArrayBuffer, SharedArrayBuffer])(
    'move exactly the bytes they are given, long or short, from and to %o',
    (Memory) => {
      const source = Uint8Array.from({ length: 20_000 }, (_, index) => 1 + (index % 251));
      for (const length of [0, 1, 4_095, 4_096, 4_097, 10_001]) {
        const target = new Uint8Array(new Memory(20_000));
        copyBytes(target, source.subarray(7, 7 + length), 13);
        expect(target.slice(13, 13 + length)).toEqual(source.slice(7, 7 + length));
        expect(target.slice(0, 13).every((byte) => byte === 0)).toBe(true);
        expect(target.slice(13 + length).every((byte) => byte === 0)).toBe(true);
        expect(() => copyBytes(target, source.subarray(0, length), 20_001 - length)).toThrow(RangeError);
      }
    },
  );
});

describe('the arena', () => {
  test('reserves aligned pieces that do not overlap, and says when it is full', async () => {
    const small = await loadKernels(100_000);
    const first = small.reserve(1);
    const second = small.reserve(100);
    expect([first % 64, second % 64, second - first]).toEqual([0, 0, 64]);
    expect(() => small.reserve(200_000)).toThrow(RangeError);
  });
});
