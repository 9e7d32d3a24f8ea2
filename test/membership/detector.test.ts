import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { Detector, type DetectorBounds } from '../../src/membership/detector.ts';

const HEARTBEAT_MS = 250;
const BOUNDS: DetectorBounds = { minimumMs: 500, maximumMs: 10_000 };

/** A detector that has heard signs of life at these intervals, and the time of the last. */
function listening(gaps: readonly number[], bounds: DetectorBounds = BOUNDS): { detector: Detector; last: number } {
  const detector = new Detector(0, HEARTBEAT_MS, bounds);
  let last = 0;
  for (const gap of gaps) {
    last += gap;
    detector.signal(last);
  }
  return { detector, last };
}

function steady(gap: number, count = 200): number[] {
  return new Array<number>(count).fill(gap);
}

const gaps = fc.array(
  fc.oneof(fc.constant(0), fc.integer({ min: 1, max: 1_000 }), fc.integer({ min: 1, max: 100_000 })),
  {
    maxLength: 60,
  },
);
const bounds = fc
  .tuple(fc.integer({ min: 1, max: 20_000 }), fc.integer({ min: 0, max: 60_000 }))
  .map(([minimumMs, more]): DetectorBounds => ({ minimumMs, maximumMs: minimumMs + more }));

describe('failure detector', () => {
  test('is never late before the minimum, and always after the maximum', () => {
    fc.assert(
      fc.property(gaps, bounds, (heard, limits) => {
        const { detector, last } = listening(heard, limits);
        expect(detector.isLate(last + limits.minimumMs)).toBe(false);
        expect(detector.isLate(last + limits.maximumMs + 1)).toBe(true);
        expect(detector.bound).toBeGreaterThanOrEqual(limits.minimumMs);
        expect(detector.bound).toBeLessThanOrEqual(limits.maximumMs);
      }),
    );
  });

  test('who is late stays late until a sign of life', () => {
    fc.assert(
      fc.property(gaps, fc.nat(30_000), fc.nat(30_000), (heard, silence, more) => {
        const { detector, last } = listening(heard);
        const soon = detector.isLate(last + silence);
        const later = detector.isLate(last + silence + more);
        expect(soon && !later).toBe(false);
        detector.signal(last + silence + more);
        expect(detector.isLate(last + silence + more)).toBe(false);
      }),
    );
  });

  test('asking changes nothing', () => {
    const { detector, last } = listening([250, 300, 200]);
    const bound = detector.bound;
    for (let silence = 0; silence < 20_000; silence += 100) detector.isLate(last + silence);
    expect(detector.bound).toBe(bound);
    expect(detector.isLate(last + bound)).toBe(false);
    expect(detector.isLate(last + bound + 1)).toBe(true);
  });

  test('a peer with a steady rhythm is believed lost at the minimum, a slow one later', () => {
    expect(listening(steady(HEARTBEAT_MS)).detector.bound).toBe(BOUNDS.minimumMs);
    const slow = listening(steady(2_000)).detector.bound;
    expect(slow).toBeGreaterThanOrEqual(2_000);
    expect(slow).toBeLessThan(4_000);
  });

  test('the slower the rhythm, the more patience', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 5_000 }), fc.integer({ min: 0, max: 5_000 }), (gap, more) => {
        expect(listening(steady(gap + more)).detector.bound).toBeGreaterThanOrEqual(
          listening(steady(gap)).detector.bound,
        );
      }),
    );
  });

  test('the more jitter about the same rhythm, the more patience', () => {
    const jittery = (jitter: number) =>
      listening(Array.from({ length: 200 }, (_, index) => 1_000 + (index % 2 === 0 ? jitter : -jitter)));
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 500 }), fc.integer({ min: 0, max: 500 }), (jitter, more) => {
        expect(jittery(jitter + more).detector.bound).toBeGreaterThanOrEqual(jittery(jitter).detector.bound);
      }),
    );
    expect(jittery(800).detector.bound).toBeGreaterThan(2 * jittery(50).detector.bound);
  });

  test('a peer that is no more irregular than it always was is not late', () => {
    const gap = fc.integer({ min: 1, max: 5_000 });
    fc.assert(
      fc.property(gap, gap, (short, long) => {
        const { detector, last } = listening(steady(0, 100).flatMap(() => [short, long]));
        expect(detector.isLate(last + Math.max(short, long))).toBe(false);
      }),
    );
  });

  test('a longer wait for the same sign of life never makes it less patient once the rhythm is known', () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 20_000 }), fc.integer({ min: 0, max: 20_000 }), (wait, more) => {
        const rhythm = steady(1_000);
        const shorter = listening([...rhythm, 1_000 + wait]).detector.bound;
        expect(listening([...rhythm, 1_000 + wait + more]).detector.bound).toBeGreaterThanOrEqual(shorter);
      }),
    );
  });

  test('forgets a single long pause', () => {
    const usual = listening(steady(250)).detector.bound;
    const paused = listening([...steady(250), 9_000]);
    expect(paused.detector.bound).toBeGreaterThan(usual);
    expect(listening([...steady(250), 9_000, ...steady(250, 60)]).detector.bound).toBe(usual);
  });

  test('a pause of the observer counts as no silence, and leaves the rhythm as it was', () => {
    const { detector, last } = listening(steady(250));
    const bound = detector.bound;
    const woken = last + 1_000_000;
    expect(detector.isLate(woken)).toBe(true);
    detector.forgive(woken);
    expect(detector.isLate(woken)).toBe(false);
    expect(detector.bound).toBe(bound);
    expect(detector.isLate(woken + BOUNDS.maximumMs + 1)).toBe(true);
  });
});
