/** The promise of DiLoCo on real data, with real processes and measured bytes: nearly the accuracy, for a fraction of the bytes. */
import { beforeAll, describe, expect, test } from 'vitest';
import { compare, type Row } from '../../examples/diloco-mnist/compare.ts';

let rows: readonly Row[];
let worldSizes: readonly number[];
const find = (part: string): Row => rows.find(({ name }) => name.includes(part))!;
const POINT = 0.01;

beforeAll(async () => {
  ({ rows, worldSizes } = await compare());
}, 110_000);

test('data-parallel training learns the digits, and its peers agree to the bit', () => {
  expect(find('data-parallel').accuracy).toBeGreaterThan(0.92);
  expect(find('data-parallel').areEqual).toBe(true);
});

test('without communication the peers end at least 1.5 points lower', () => {
  expect(find('no communication').accuracy).toBeLessThanOrEqual(find('data-parallel').accuracy - 1.5 * POINT);
});

describe.each([
  ['int8', 150],
  ['int4', 300],
] as const)('DiLoCo with %s', (codec, fewer) => {
  test(`ends within a point of data-parallel training, with at least ${fewer} times fewer bytes`, () => {
    const row = find(codec);
    const baseline = find('data-parallel');
    expect(row.accuracy).toBeGreaterThanOrEqual(baseline.accuracy - POINT);
    expect(baseline.bytes / row.bytes).toBeGreaterThanOrEqual(fewer);
    expect(row.areEqual).toBe(true);
    expect(row.lost).toBe(0);
  });
});

test('two kills and two joins cost at most 1.5 points, and all end with equal bits', () => {
  const churn = find('kills');
  expect(worldSizes.filter((size) => size < 4).length).toBeGreaterThan(0);
  expect(worldSizes.at(-1)).toBe(4);
  expect(churn.accuracy).toBeGreaterThanOrEqual(find('data-parallel').accuracy - 1.5 * POINT);
  expect(churn.areEqual).toBe(true);
});
