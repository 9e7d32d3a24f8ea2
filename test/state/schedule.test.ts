/** Layouts, and which pieces are asked of whom. */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { bytesOfPieces, layOut, placeOf } from '../../src/state/layout.ts';
import { type Batch, makeBatches, Schedule } from '../../src/state/schedule.ts';

const PIECE = 64;

const layouts = fc.array(fc.integer({ min: 0, max: 5 * PIECE }), { minLength: 1, maxLength: 8 }).map((lengths) =>
  layOut(
    lengths.map((bytes, index) => ({ name: `${index}`, type: 'u8' as const, bytes })),
    PIECE,
  ),
);

test('the pieces cover every byte of every entry once', () => {
  fc.assert(
    fc.property(layouts, (layout) => {
      const seen = layout.entries.map(({ bytes }) => new Uint8Array(bytes));
      for (let piece = 0; piece < layout.pieces; piece++) {
        const { entry, start, bytes } = placeOf(layout, piece);
        expect(bytes).toBeGreaterThan(0);
        expect(bytes).toBeLessThanOrEqual(PIECE);
        for (let at = start; at < start + bytes; at++) seen[entry]![at]! += 1;
      }
      for (const counts of seen) expect(counts.every((count) => count === 1)).toBe(true);
    }),
  );
});

test('batches are what is missing, in order, and none is larger than a piece', () => {
  fc.assert(
    fc.property(layouts, fc.func(fc.boolean()), (layout, isMissing) => {
      const missing = Array.from({ length: layout.pieces }, (_, piece) => piece).filter((piece) => isMissing(piece));
      const batches = makeBatches(layout, missing);
      expect(batches.flatMap(({ first, count }) => Array.from({ length: count }, (_, at) => first + at))).toEqual(
        missing,
      );
      for (const { first, count, bytes } of batches) {
        expect(bytes).toBe(bytesOfPieces(layout, first, count));
        expect(bytes).toBeLessThanOrEqual(PIECE);
      }
    }),
  );
});

/** What may happen, to a source that is chosen by a number. */
const events = fc.array(
  fc.record({
    kind: fc.constantFrom('take', 'take', 'take', 'came', 'came', 'failed', 'lost', 'wait'),
    who: fc.nat({ max: 99 }),
  }),
  { maxLength: 120 },
);

test('whatever fails, is lost or late: all comes while a source is left, and at most two are asked for it at once', () => {
  fc.assert(
    fc.property(events, fc.integer({ min: 1, max: 12 }), (list, count) => {
      const batches: Batch[] = Array.from({ length: count }, (_, first) => ({ first, count: 1, bytes: PIECE }));
      const alive = ['p', 'q', 'r'];
      const schedule = new Schedule(batches, alive);
      let errands: { source: string; batch: Batch }[] = [];
      const came = new Set<Batch>();
      let now = 0;
      const take = (source: string): boolean => {
        const batch = schedule.take(source, now);
        if (batch === null) return false;
        expect(came.has(batch)).toBe(false);
        errands.push({ source, batch });
        const asked = errands.filter((errand) => errand.batch === batch);
        expect(asked.length).toBeLessThanOrEqual(2);
        expect(new Set(asked.map((errand) => errand.source)).size).toBe(asked.length);
        return true;
      };
      const arrive = (at: number) => {
        const { batch } = errands.splice(at, 1)[0]!;
        expect(schedule.onCame(batch)).toBe(!came.has(batch));
        came.add(batch);
      };
      for (const { kind, who } of list) {
        const at = who % Math.max(1, errands.length);
        if (kind === 'take' && alive.length > 0) take(alive[who % alive.length]!);
        else if (kind === 'came' && errands.length > 0) arrive(at);
        else if (kind === 'failed' && errands.length > 0) {
          const { source, batch } = errands.splice(at, 1)[0]!;
          schedule.onFailed(source, batch);
        } else if (kind === 'lost' && alive.length > 1) {
          const [source] = alive.splice(who % alive.length, 1);
          errands = errands.filter((errand) => errand.source !== source);
          schedule.drop(source!);
        } else if (kind === 'wait') now += 1_500;
      }
      expect(schedule.isStuck).toBe(false);
      // From here on all goes well.
      while (!schedule.isDone) {
        if (!alive.some((source) => take(source))) expect(errands.length).toBeGreaterThan(0);
        if (errands.length > 0) arrive(0);
      }
      expect(came.size).toBe(count);
      for (const source of alive) schedule.drop(source);
      expect(schedule.isStuck).toBe(false);
    }),
  );
});

test('who has nobody left to ask is stuck', () => {
  const schedule = new Schedule([{ first: 0, count: 1, bytes: PIECE }], ['p', 'q']);
  schedule.take('p', 0);
  schedule.drop('q');
  expect(schedule.isStuck).toBe(false);
  schedule.drop('p');
  expect(schedule.isStuck).toBe(true);
});
