import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { MAX_KEPT_RANGES } from '../../src/wire/limits.ts';
import { areRanges, intersectRanges, type KeptRange, restOf, tidyRanges } from '../../src/wire/ranges.ts';

const COUNT = 40;

/** A list of ranges, as one byte per element: 0 for unfinished, else the epoch. */
const painted = fc.array(fc.nat({ max: 3 }), { minLength: COUNT, maxLength: COUNT });

function rangesOf(epochs: readonly number[]): readonly KeptRange[] {
  return tidyRanges(epochs.flatMap((epoch, start) => (epoch === 0 ? [] : [{ start, end: start + 1, epoch }])));
}

function paint(ranges: readonly KeptRange[]): number[] {
  const epochs = new Array<number>(COUNT).fill(0);
  for (const { start, end, epoch } of ranges) epochs.fill(epoch, start, end);
  return epochs;
}

describe('ranges', () => {
  test('are joined where neighbours are of one epoch, and lose nothing', () => {
    fc.assert(
      fc.property(painted, (epochs) => {
        const ranges = rangesOf(epochs);
        expect(paint(ranges)).toEqual(epochs);
        expect(areRanges(ranges, COUNT)).toBe(true);
        for (const [index, range] of ranges.slice(1).entries()) {
          const before = ranges[index]!;
          expect(before.end < range.start || before.epoch !== range.epoch).toBe(true);
        }
      }),
    );
  });

  test('have in common what both finished in the same epoch', () => {
    fc.assert(
      fc.property(painted, painted, (left, right) => {
        const common = left.map((epoch, index) => (epoch === right[index] ? epoch : 0));
        expect(intersectRanges(rangesOf(left), rangesOf(right))).toEqual(rangesOf(common));
      }),
    );
  });

  test('and the rest are the whole', () => {
    fc.assert(
      fc.property(painted, (epochs) => {
        const ranges = rangesOf(epochs);
        const rest = restOf(ranges, COUNT).map((span) => ({ ...span, epoch: 9 }));
        expect(paint([...ranges, ...rest])).toEqual(epochs.map((epoch) => (epoch === 0 ? 9 : epoch)));
      }),
    );
  });

  test('are at most so many: the longest', () => {
    const many = Array.from({ length: MAX_KEPT_RANGES + 50 }, (_, index) => ({
      start: index * 10,
      end: index * 10 + (index < 50 ? 1 : 2),
      epoch: 1,
    }));
    const kept = tidyRanges(many);
    expect(kept).toEqual(many.slice(50));
  });

  test.each<[string, KeptRange[]]>([
    ['overlap', [{ start: 0, end: 5, epoch: 1 }, { start: 4, end: 6, epoch: 1 }]], // biome-ignore format: ranges
    ['are empty', [{ start: 3, end: 3, epoch: 1 }]],
    ['run backwards', [{ start: 5, end: 3, epoch: 1 }]],
    ['are not in order', [{ start: 5, end: 6, epoch: 1 }, { start: 1, end: 2, epoch: 1 }]], // biome-ignore format: ranges
    ['pass the end', [{ start: 5, end: COUNT + 1, epoch: 1 }]],
  ])('are none when they %s', (_, ranges) => {
    expect(areRanges(ranges, COUNT)).toBe(false);
  });
});
