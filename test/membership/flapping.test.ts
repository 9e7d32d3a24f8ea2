import { expect, test } from 'vitest';
import { Flapping } from '../../src/membership/flapping.ts';
import { Stage } from './stage.ts';

test('the first fall is free; then the wait doubles, up to a minute', () => {
  const flapping = new Flapping();
  const waits = Array.from({ length: 9 }, () => {
    flapping.onLost('a', 0, 0);
    return flapping.waitOf('a', 0);
  });
  expect(waits).toEqual([0, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000]);
  expect(flapping.waitOf('b', 0)).toBe(0);
});

test('the wait begins with the loss, and ends, however often the peer asks', () => {
  const flapping = new Flapping();
  flapping.onLost('a', 0, 0);
  flapping.onLost('a', 0, 5_000);
  expect([5_000, 5_600, 6_000, 9_000].map((now) => flapping.waitOf('a', now))).toEqual([1_000, 400, 0, 0]);
});

test('who has been a member for half a minute begins anew', () => {
  const flapping = new Flapping();
  for (let fall = 0; fall < 5; fall++) flapping.onLost('a', 0, 0);
  flapping.onLost('a', 0, 30_000);
  expect(flapping.waitOf('a', 30_000)).toBe(0);
  flapping.onLost('a', 30_000, 30_001);
  expect(flapping.waitOf('a', 30_001)).toBe(0);
});

test('remembers no more names than it has room for', () => {
  const flapping = new Flapping();
  for (let name = 0; name < 5_000; name++) for (let fall = 0; fall < 3; fall++) flapping.onLost(`${name}`, 0, 0);
  expect(flapping.waitOf('0', 0)).toBe(0);
  expect(flapping.waitOf('4999', 0)).toBe(2_000);
});

/** Member `a`, and one that dies again and again; each time the boundary after its return is looked at. */
function returns(name: string, falls: number): boolean[] {
  const stage = Stage.withMembers(1);
  let boundary = 1;
  return Array.from({ length: falls }, () => {
    const newcomer = stage.joinReady(name);
    boundary += 1;
    const came = stage.boundary('a', boundary).some((line) => line.includes(`joined ${newcomer}`));
    if (!came) {
      stage.pass(1_025, `a${newcomer}`);
      boundary += 1;
      stage.boundary('a', boundary);
    }
    stage.linkClosed('a', newcomer);
    stage.closed(newcomer);
    return came;
  });
}

test('a coordinator lets a peer that flaps in later, and holds up nobody meanwhile; without a name nobody is known again', () => {
  expect(returns('worker 1', 3)).toEqual([true, true, false]);
  expect(returns('', 3)).toEqual([true, true, true]);
});
