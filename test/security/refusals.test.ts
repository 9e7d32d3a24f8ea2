import { expect, test } from 'vitest';
import { Refusals } from '../../src/engine/refusals.ts';
import { VirtualClock } from '../../src/transport/clock.ts';

test('a flood of refusals becomes a few lines, and the next one tells how many were left out', () => {
  const clock = new VirtualClock();
  const lines: string[] = [];
  const refusals = new Refusals(clock, (line) => lines.push(line));
  for (let count = 0; count < 1_000; count++) refusals.tell(`stranger ${count}`);
  expect(lines).toEqual(Array.from({ length: 16 }, (_, count) => `stranger ${count}`));
  clock.advance(1_000);
  refusals.tell('one more');
  refusals.tell('and another');
  expect(lines.slice(16)).toEqual(['one more (984 more were refused before)']);
  clock.advance(1_000_000);
  for (let count = 0; count < 17; count++) refusals.tell('later');
  expect(lines.slice(17)).toEqual(['later (1 more were refused before)', ...new Array(15).fill('later')]);
});
