/** Memory in pieces is like memory in one. */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { Pieces } from '../../src/collectives/pieces.ts';

test('reads and writes as if all pieces were one, whatever their lengths', () => {
  const cases = fc.record({
    lengths: fc.array(fc.nat(9), { maxLength: 8 }),
    spans: fc.array(fc.tuple(fc.nat(70), fc.nat(20)), { minLength: 1, maxLength: 12 }),
  });
  fc.assert(
    fc.property(cases, ({ lengths, spans }) => {
      const total = lengths.reduce((sum, length) => sum + length, 0);
      const memory = lengths.map((length) => new Uint8Array(length));
      const pieces = new Pieces(memory);
      const one = new Uint8Array(total);
      expect(pieces.length).toBe(total);
      for (const [index, [offset, most]] of spans.entries()) {
        const start = Math.min(offset, total);
        const end = Math.min(start + most, total);
        const written = new Uint8Array(end - start).fill(index + 1);
        pieces.set(written, start);
        one.set(written, start);
        expect(Buffer.concat(memory).equals(one)).toBe(true);
        const [from, to] = [start >> 1, Math.min(total, (start >> 1) + most)];
        const copy = new Uint8Array(to - from + 2).fill(0xee);
        pieces.copyTo(copy, 1, from, to);
        expect([...copy]).toEqual([0xee, ...one.subarray(from, to), 0xee]);
        const view = pieces.view(from, to);
        if (view !== null) expect([...view]).toEqual([...one.subarray(from, to)]);
        // What is within one piece is there as it is.
        let first = 0;
        const isWhole = lengths.some((length) => {
          first += length;
          return from >= first - length && to <= first;
        });
        if (isWhole) expect(view).not.toBeNull();
      }
    }),
  );
});
