/** Which memory crosses to the engine as it is, and which is copied. */
import fc from 'fast-check';
import { sharedTensor } from 'skein';
import { expect, test } from 'vitest';
import { Staging } from '../src/staging.ts';
import { type TensorPart, tensorParts } from '../src/tensor.ts';

const LARGE = 300_000; // more than 1 MiB of f32
const bytesOf = (parts: readonly TensorPart[]): number => parts.reduce((sum, { bytes }) => sum + bytes.length, 0);

function isSame(left: Uint8Array | undefined, right: Float32Array): boolean {
  return left?.buffer === right.buffer && left.byteOffset === right.byteOffset && left.length === right.byteLength;
}

test('one shared tensor, and large ones of a list, are used where they are; small ones are put together', () => {
  const staging = new Staging(true);
  const [first, second] = [sharedTensor('f32', LARGE), sharedTensor('f32', LARGE + 1)];
  const small = [sharedTensor('f32', 3), sharedTensor('f32', 0), new Float32Array(4)];
  const one = tensorParts(first, 'tensor');
  expect(isSame(staging.prepare(one, one, true).input[0], first)).toBe(true);
  const list = tensorParts([first, ...small, second], 'tensor');
  const { input, output, atomic } = staging.prepare(list, list, true);
  expect(input.map(({ length }) => length)).toEqual([4 * LARGE, 28, 4 * LARGE + 4]);
  expect(isSame(input[0], first) && isSame(input[2], second)).toBe(true);
  expect(isSame(output[0], first) && isSame(output[2], second)).toBe(true);
  expect(input[1]!.buffer).toBeInstanceOf(SharedArrayBuffer);
  // Otherwise a call that fails could change a tensor.
  expect(atomic).toBe(true);
  const few = tensorParts(small, 'tensor');
  expect(staging.prepare(few, few, true)).toMatchObject({ atomic: false });
});

test('what a thread can not see is copied, however large; inline nothing is that large', () => {
  const tensor = new Float32Array(LARGE);
  const parts = tensorParts([tensor, new Float32Array(1)], 'tensor');
  expect(isSame(new Staging(false).prepare(parts, parts, true).input[0], tensor)).toBe(true);
  const { input, atomic } = new Staging(true).prepare(parts, parts, true);
  expect(input).toHaveLength(1);
  expect(atomic).toBe(false);
});

test('neighbours on one buffer are one piece: layers that are views of a flat gradient cost nothing', () => {
  const flat = sharedTensor('f32', 100);
  const layers = [flat.subarray(0, 10), flat.subarray(10, 11), flat.subarray(11)];
  const parts = tensorParts(layers, 'tensor');
  const { input } = new Staging(true).prepare(parts, parts, true);
  expect(input).toHaveLength(1);
  expect(isSame(input[0], flat)).toBe(true);
});

test('what is sent and fetched in any parts arrives, and nothing else', () => {
  const kinds = fc.constantFrom('shared', 'own', 'next');
  const cases = fc.record({
    tensors: fc.array(fc.tuple(kinds, fc.constantFrom(0, 1, 2, 5, 7, LARGE)), { minLength: 1, maxLength: 5 }),
    cuts: fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { maxLength: 5 }),
    mustShare: fc.boolean(),
  });
  fc.assert(
    fc.property(cases, ({ tensors, cuts, mustShare }) => {
      let last: Float32Array = new Float32Array(0);
      const list = tensors.map(([kind, count]) => {
        const room = kind === 'next' ? new Float32Array(last.buffer, last.byteOffset + last.byteLength) : null;
        if (room !== null && room.length >= count && count < 10) last = room.subarray(0, count);
        else
          last = (kind === 'shared' ? sharedTensor('f32', count + 9) : new Float32Array(count + 9)).subarray(0, count);
        return last;
      });
      const parts = tensorParts(list, 'tensor');
      const total = bytesOf(parts);
      for (const [index, { bytes }] of parts.entries()) bytes.fill(index + 1);
      const wanted = Buffer.concat(parts.map(({ bytes }) => bytes));
      const staged = new Staging(mustShare).prepare(parts, parts, true);
      const ends = [...cuts.map((cut) => Math.floor((cut * total) / 4) * 4), total].sort((left, right) => left - right);
      for (const [index, end] of ends.entries()) staged.send(ends[index - 1] ?? 0, end);
      expect(Buffer.concat(staged.input).equals(wanted)).toBe(true);
      for (const piece of staged.output) piece.fill(99);
      for (const [index, end] of ends.entries()) staged.fetch(ends[index - 1] ?? 0, end);
      expect(parts.every(({ bytes }) => bytes.every((byte) => byte === 99))).toBe(true);
    }),
    { numRuns: 40 },
  );
});
