/** What becomes of the tensors that a caller gives: which memory is read and written. */
import { describe, expect, test } from 'vitest';
import {
  allReduceShape,
  allToAllShape,
  gatherShape,
  overlap,
  reduceScatterShape,
  scatterShape,
} from '../../src/group/shape.ts';
import type { TensorPart } from '../../src/tensor.ts';

const numbers = ({ bytes }: TensorPart) => [...new Float32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4)];
const list = (): Float32Array[] => [Float32Array.of(0, 1, 2), Float32Array.of(), Float32Array.of(3, 4, 5, 6)];

describe('a chunk that is written to its place', () => {
  test.each([
    [0, [[0, 1, 2]]],
    [1, [[3, 4]]],
    [2, [[5, 6]]],
  ])('of rank %d of three is its share of all tensors of a list', (rank, expected) => {
    const { output, inPlace, count } = reduceScatterShape(list(), undefined, { worldSize: 3, rank });
    expect(output.map(numbers)).toEqual(expected);
    expect({ inPlace, count }).toEqual({ inPlace: true, count: 7 });
  });

  test('goes on in the next tensor where one ends', () => {
    const { output } = reduceScatterShape(list(), undefined, { worldSize: 2, rank: 0 });
    expect(output.map(numbers)).toEqual([[0, 1, 2], [3]]);
  });

  test('is empty, and of the same type, where there are more members than elements', () => {
    const { output } = reduceScatterShape(Float32Array.of(1), undefined, { worldSize: 2, rank: 1 });
    expect(output.map(({ dtype, count }) => ({ dtype, count }))).toEqual([{ dtype: 'f32', count: 0 }]);
  });
});

test('only the root needs memory for what only the root gets or gives', () => {
  const part = Float32Array.of(1, 2);
  const rooted = (isRoot: boolean) => ({ root: 'a', isRoot, worldSize: 3 });
  expect(gatherShape(part, undefined, rooted(false))).toMatchObject({ count: 2, output: [], root: 'a' });
  expect(() => gatherShape(part, undefined, rooted(true))).toThrow('The output has 0 elements of nothing; 6 of f32');
  expect(scatterShape(undefined, part, rooted(false))).toMatchObject({ count: 2, input: [], dtype: 'f32' });
  expect(() => scatterShape(new Float32Array(5), part, rooted(true))).toThrow('needs 6 elements of f32, 2 for each');
  expect(() => scatterShape(new Float64Array(6), part, rooted(true))).toThrow('needs 6 elements of f32');
});

test('what does not fit is refused before anything is sent', () => {
  expect(() => allReduceShape(new Float32Array(3), new Float32Array(2))).toThrow('2 elements of f32; 3 of f32');
  expect(() => allReduceShape(new Float32Array(3), new Float64Array(3))).toThrow('3 elements of f64; 3 of f32');
  expect(() => allToAllShape(new Float32Array(5), new Float32Array(5), 2)).toThrow("5 elements can't be");
});

test('tensors overlap where they share a byte, wherever in a list', () => {
  const memory = new Float32Array(8);
  const outside = new Float32Array(2);
  const parts = (...tensors: Float32Array[]) => allReduceShape(tensors, undefined).input;
  expect(overlap(parts(outside, memory.subarray(0, 4)), parts(memory.subarray(3, 6)))).toBe(true);
  expect(overlap(parts(memory.subarray(0, 4)), parts(outside, memory.subarray(4)))).toBe(false);
});
