/** How fast pieces are given to a newcomer, by a model of a trainer whose steps they make longer. */
import { describe, expect, test } from 'vitest';
import { Leisure } from '../../src/state/leisure.ts';
import { Random } from '../sim/random.ts';

const MIB = 1024 * 1024;

interface Model {
  /** A step in peace (ms). */
  stepMs: number;
  /** How much longer a step takes for each MiB that is given in it (ms). */
  readonly costMs: number;
  /** By how much steps differ by themselves, as a share. */
  readonly noise: number;
}

/** Trains while somebody asks for pieces of 1 MiB without end, or nobody does. @returns time, and bytes that were given */
function train(
  leisure: Leisure,
  clock: { now: number },
  model: Model,
  steps: number,
  isAsked: boolean,
  random: Random,
) {
  const start = clock.now;
  let given = 0;
  for (let step = 0; step < steps; step++) {
    leisure.onStep(clock.now);
    let end = clock.now + model.stepMs * (1 + model.noise * (random.next() - 0.5));
    for (let askAt = isAsked ? clock.now : end; askAt < end; ) {
      clock.now = askAt;
      const waitMs = leisure.spend(MIB, clock.now);
      askAt += waitMs;
      if (waitMs > 0) continue;
      given += MIB;
      end += model.costMs;
    }
    clock.now = end;
  }
  return { ms: clock.now - start, given };
}

describe.each([1, 2, 3, 4, 5])('a holder (seed %i)', (seed) => {
  const random = new Random(seed);

  test.each([
    ['hardly felt', 0.05],
    ['felt', 4],
    ['heavy', 20],
  ])('that trains keeps its pace when giving is %s', (_, costMs) => {
    const leisure = new Leisure();
    const clock = { now: 0 };
    const model = { stepMs: 100, costMs, noise: 0.2 };
    const peace = train(leisure, clock, model, 100, false, random).ms / 100;
    train(leisure, clock, model, 200, true, random); // finds its rate
    const served = train(leisure, clock, model, 400, true, random);
    expect(peace / (served.ms / 400)).toBeGreaterThan(0.9);
    // As much as that leaves room for, or nearly so.
    const room = (0.01 * served.ms) / costMs;
    expect(served.given / MIB).toBeGreaterThan(Math.min(room, 0.03 * served.ms));
  });

  test('does not take steps for peaceful that are slow as somebody is being started who has not asked yet', () => {
    const leisure = new Leisure();
    const clock = { now: 0 };
    const model = { stepMs: 100, costMs: 8, noise: 0.2 };
    const peace = train(leisure, clock, model, 100, false, random).ms / 100;
    train(leisure, clock, { ...model, stepMs: 150 }, 16, false, random);
    const served = train(leisure, clock, model, 200, true, random);
    expect(peace / (served.ms / 200)).toBeGreaterThan(0.88); // it finds its rate within these
  });

  test('finds out when steps have become longer for another reason', () => {
    const leisure = new Leisure();
    const clock = { now: 0 };
    const model = { stepMs: 100, costMs: 0.5, noise: 0.1 };
    train(leisure, clock, model, 50, false, random);
    train(leisure, clock, model, 300, true, random);
    model.stepMs = 150;
    train(leisure, clock, model, 300, true, random);
    const { rate } = leisure;
    expect(rate).toBeGreaterThan(8 * MIB);
  });
});

test('without steps pieces are given as at first, and nobody is put off for good', () => {
  const leisure = new Leisure();
  const start = leisure.rate;
  let now = 0;
  let given = 0;
  // A few steps, of which none was in peace, and then none any more.
  for (let step = 0; step < 9; step++) {
    leisure.onStep(now);
    for (const until = now + 100; now < until; now += Math.max(1, leisure.spend(MIB, now)));
  }
  const since = now;
  while (now < since + 20_000) {
    const waitMs = leisure.spend(MIB, now);
    if (waitMs === 0) given += MIB;
    now += waitMs;
  }
  expect(leisure.rate).toBe(start);
  expect(given).toBeGreaterThan((0.8 * start * 20_000) / 1_000);
});
