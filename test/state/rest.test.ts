import { expect, test } from 'vitest';
import { restfulTurns } from '../../src/state/rest.ts';

test('whoever looks at its memory beside members rests as long as it worked, within bounds', async () => {
  const clock = { now: 5 };
  const rests: number[] = [];
  const turn = restfulTurns({
    now: () => clock.now,
    schedule: (delayMs, task) => {
      rests.push(delayMs);
      clock.now += delayMs;
      task();
      return () => {};
    },
  });
  for (const workMs of [40, 0, 75, 120_000, 10]) {
    clock.now += workMs;
    await turn();
  }
  expect(rests).toEqual([40, 0, 75, 1_000, 10]);
});
