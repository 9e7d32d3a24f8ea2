/** Rounds of DiLoCo between members in this process: what is averaged, when, and with what weight. */
import { createDiloco, lateRounds } from 'skein/diloco';
import { describe, expect, test } from 'vitest';
import { Members } from '../group/members.ts';
import { AVERAGING, expectEqualBits, trainee, trainUntil } from './peers.ts';

const INLINE = { engine: 'inline' } as const;

test('a round moves the shared parameters by the outer step of the mean change, the same bits on all', async () => {
  await using members = await Members.form(3, INLINE);
  const trainees = await members.all(async (group, rank) => {
    const one = await trainee(group, { every: 4, outer: { learningRate: 0.5, momentum: 0.5 } });
    await trainUntil(one, 2, -(rank + 1));
    return one;
  });
  expectEqualBits(trainees);
  // Mean gradient 4 · 2 = 8. Nesterov: steps 8 + 4 = 12, then buffer 4 + 8 = 12 and step 8 + 6 = 14; half of each.
  for (const { parameters } of trainees) expect([...parameters.x]).toEqual([-13]);
});

test('peers that begin with different parameters take those of rank 0', async () => {
  await using members = await Members.form(3, INLINE);
  const trainees = await members.all((group, rank) => trainee(group, {}, [rank + 1]));
  expectEqualBits(trainees);
  for (const { parameters, diloco } of trainees) {
    expect([...parameters.x]).toEqual([1]);
    expect(diloco.weight).toBeGreaterThan(0);
  }
});

test('contributions are weighted by samples', async () => {
  await using members = await Members.form(2, INLINE);
  const trainees = await members.all(async (group, rank) => {
    const one = await trainee(group, { every: 2, outer: AVERAGING, pace: { samples: rank === 0 ? 1 : 3 } });
    await trainUntil(one, 1, rank === 0 ? 4 : 8);
    return one;
  });
  expectEqualBits(trainees);
  // (1 · 8 + 3 · 16) / 4
  for (const { parameters } of trainees) expect([...parameters.x]).toEqual([14]);
});

test('from measured speed, a peer three times as fast makes three times the steps, within its bounds', async () => {
  await using members = await Members.form(2, INLINE);
  const trainees = await members.all(async (group, rank) => {
    let now = 0;
    const one = await trainee(group, { every: 10, outer: AVERAGING, pace: { fewest: 5, most: 14, now: () => now } });
    const counts: number[] = [];
    for (let round = 0; round < 3; round++) {
      counts.push(one.diloco.stepsInRound);
      for (let hasEnded = false; !hasEnded; ) {
        now += rank === 0 ? 30 : 10;
        one.parameters.x[0]! += 1;
        ({ hasEnded } = await one.diloco.step());
      }
    }
    return { ...one, counts };
  });
  expectEqualBits(trainees);
  // A mean of 66.7 steps per second makes 10: the slow one 5, the fast one 15, of which 14 are allowed.
  expect(trainees.map(({ counts }) => counts)).toEqual([
    [10, 5, 5],
    [10, 14, 14],
  ]);
  // The second and third rounds weigh 5 and 14 samples: (5 · 5 + 14 · 14) / 19 each.
  for (const { parameters } of trainees) expect(parameters.x[0]).toBeCloseTo(10 + 2 * ((25 + 196) / 19), 4);
});

test('a fragment travels while inner steps go on: who has sent does not wait before its turn', async () => {
  await using members = await Members.form(2, INLINE);
  const options = { every: 4, outer: AVERAGING, fragments: { overlap: 3 } } as const;
  const [first, second] = await members.all((group) => trainee(group, options));
  for (let step = 0; step < 3; step++) {
    first!.parameters.x[0]! += 1;
    await first!.diloco.step(); // sends after step 1, and would wait here if it did not overlap
  }
  first!.parameters.x[0]! += 1;
  const last = first!.diloco.step();
  await trainUntil(second!, 1, 3);
  await last;
  expectEqualBits([first!, second!]);
  // What the first step changed: (1 + 3) / 2. The three overlapped steps are given up with mixing 0.
  expect([first, second].map((one) => one!.parameters.x[0])).toEqual([2, 2]);
});

test('each fragment has its own codec', async () => {
  await using members = await Members.form(2, INLINE);
  const fine = 1 + 2 ** -12; // lost in bf16
  const seen = await members.all(async (group) => {
    const parameters = { a: new Float32Array(1), b: new Float32Array(1) };
    const diloco = await createDiloco(group, parameters, {
      every: 2,
      outer: AVERAGING,
      fragments: { count: 2, pattern: 'strided' },
      wire: { codec: ['f32', 'bf16'] },
    });
    while (diloco.round < 1) {
      if (diloco.round === 0) for (const parameter of Object.values(parameters)) parameter[0] = fine;
      await diloco.step();
    }
    return [parameters.a[0], parameters.b[0]];
  });
  for (const values of seen) expect(values).toEqual([fine, 1]);
});

describe('at the end', () => {
  test('finalMerge makes all parameters the mean of the local ones', async () => {
    await using members = await Members.form(4, INLINE);
    const trainees = await members.all(async (group, rank) => {
      const one = await trainee(group, { every: 1_000 }, [5]);
      for (let step = 0; step < 10; step++) {
        one.parameters.x[0]! += rank;
        await one.diloco.step();
      }
      await one.diloco.finalMerge();
      return one;
    });
    expectEqualBits(trainees);
    for (const { parameters } of trainees) expect([...parameters.x]).toEqual([20]);
  });

  test('a saved state is gone on from', async () => {
    await using members = await Members.form(2, INLINE);
    const options = { every: 3, outer: { learningRate: 0.5, momentum: 0.5 } } as const;
    const trainees = await members.all(async (group) => {
      const one = await trainee(group, options);
      await trainUntil(one, 2, 1);
      const saved = structuredClone(one.diloco.state());
      await trainUntil(one, 4, 1);
      const again = await trainee(group, { ...options, wire: { tag: 'again' } });
      await again.diloco.restore(saved);
      expect(again.diloco.round).toBe(2);
      await trainUntil(again, 4, 1);
      return [one, again] as const;
    });
    for (const [one, again] of trainees) expect(again.parameters.x).toEqual(one.parameters.x);
    expectEqualBits(trainees.flat());
  });

  test('a saved state is gone on from in its own round, which may be shorter than the first', async () => {
    await using members = await Members.form(2, INLINE);
    const every = lateRounds(12, 3); // 6, 4, 2 steps
    const ends = await members.all(async (group) => {
      const first = await trainee(group, { every });
      await trainUntil(first, 1, 1);
      const again = await trainee(group, { every, wire: { tag: 'again' } });
      await again.diloco.restore(first.diloco.state());
      expect(again.diloco.stepsInRound).toBe(4);
      const steps: number[] = [];
      for (let step = 1; step <= 6; step++) if ((await again.diloco.step()).hasEnded) steps.push(step);
      return steps;
    });
    for (const steps of ends) expect(steps).toEqual([4, 6]);
  });
});
