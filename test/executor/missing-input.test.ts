import fc from 'fast-check';
import { expect, test } from 'vitest';
import { cutChunks } from '../../src/collectives/chunk.ts';
import { MissingInput } from '../../src/collectives/missing-input.ts';
import { makePlan } from '../../src/collectives/plan.ts';

test('a segment is told of once, with the last of its own elements, in whatever order parts come', () => {
  const cases = fc.record({
    worldSize: fc.integer({ min: 2, max: 4 }),
    segmentElements: fc.integer({ min: 1, max: 12 }),
    lengths: fc.array(fc.integer({ min: 1, max: 15 }), { minLength: 1, maxLength: 8 }),
    keys: fc.infiniteStream(fc.nat()),
    early: fc.nat(3),
  });
  fc.assert(
    fc.property(cases, ({ worldSize, segmentElements, lengths, keys, early }) => {
      let count = 0;
      const parts = lengths.map((length) => {
        count += length;
        return { start: count - length, end: count, key: keys.next().value };
      });
      const plan = makePlan({ kind: 'allReduce', algorithm: 'ring', worldSize, count, root: 0 }, 1);
      const chunks = cutChunks(plan, segmentElements);
      const segments = chunks.reduce((sum, chunk) => sum + chunk.segments, 0);
      const ready = parts.slice(0, early);
      const missing = new MissingInput(chunks, segments, ready);
      const there = new Set<number>();
      const complete = new Set<number>();
      /** Segments that have all their elements, by looking at each of them. */
      const whole = () =>
        chunks.flatMap((chunk) =>
          Array.from({ length: chunk.segments }, (_, index) => chunk.firstSegment + index).filter((segment) =>
            Array.from({ length: chunk.elements(segment) }, (_, at) => chunk.index(segment) + at).every((element) =>
              there.has(element),
            ),
          ),
        );
      const arrive = ({ start, end }: { readonly start: number; readonly end: number }) => {
        for (let element = start; element < end; element++) there.add(element);
      };
      ready.forEach(arrive);
      for (const segment of whole()) complete.add(segment);
      const late = parts.slice(early).sort((left, right) => left.key - right.key);
      for (const part of late) {
        missing.add(part.start, part.end, (chunk, segment) => {
          expect(complete.has(segment)).toBe(false);
          expect(segment - chunk.firstSegment).toBeLessThan(chunk.segments);
          complete.add(segment);
        });
        arrive(part);
        expect([...complete].sort((left, right) => left - right)).toEqual(whole());
        for (let segment = 0; segment < segments; segment++)
          expect(missing.lacks(segment)).toBe(!complete.has(segment));
      }
      expect(complete.size).toBe(segments);
    }),
  );
});
