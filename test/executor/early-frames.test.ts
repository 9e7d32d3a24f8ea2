import fc from 'fast-check';
import { expect, test } from 'vitest';
import { EarlyFrames } from '../../src/collectives/early-frames.ts';

const SEGMENTS = 3;
const RANKS = 4;

test('frames are found by segment and sender whatever goes first, and buffers go back once', () => {
  const step = fc.record({
    segment: fc.nat(SEGMENTS - 1),
    from: fc.nat(RANKS - 1),
    inPlace: fc.boolean(),
    whole: fc.boolean(),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const borrowed = new Set<Uint8Array>();
      const early = new EarlyFrames(
        {
          takeBuffer: (byteLength) => {
            const buffer = new Uint8Array(byteLength);
            borrowed.add(buffer);
            return buffer;
          },
          giveBuffer: (buffer) => expect(borrowed.delete(buffer)).toBe(true),
        },
        SEGMENTS,
      );
      const kept = Array.from(
        { length: SEGMENTS },
        () => new Map<number, { readonly whole: boolean; at: Uint8Array }>(),
      );
      // What is kept is dropped at the next step with the same segment and sender.
      for (const { segment, from, inPlace, whole } of steps) {
        const frame = early.from(segment, from);
        if (kept[segment]!.delete(from)) {
          early.drop(segment, frame!);
        } else {
          expect(frame).toBeNull();
          const room = inPlace ? new Uint8Array(8) : null;
          const added = early.keep(segment, from, 8, room);
          added.complete = whole;
          if (room !== null) expect(added.buffer).toBe(room);
          kept[segment]!.set(from, { whole, at: added.buffer });
        }
        for (const [index, frames] of kept.entries()) {
          expect(early.has(index)).toBe(frames.size > 0);
          for (const [rank, { at }] of frames) expect(early.from(index, rank)!.buffer).toBe(at);
          const complete = early.complete(index).map((one) => one.from);
          expect(complete.sort()).toEqual([...frames].flatMap(([rank, one]) => (one.whole ? [rank] : [])).sort());
        }
        const own = kept.flatMap((frames) => [...frames.values()].filter(({ at }) => borrowed.has(at)));
        expect(own.length).toBe(borrowed.size);
      }
    }),
  );
});
