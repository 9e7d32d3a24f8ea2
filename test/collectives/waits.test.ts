import { expect, test } from 'vitest';
import { Waits } from '../../src/collectives/waits.ts';

const CALL = { id: '1::0', epoch: 1, spare: 1 };

const sight = (received: number, changes: { due?: boolean; blocked?: boolean; calls?: (typeof CALL)[] } = {}) =>
  new Map([['b', { due: true, blocked: false, received, calls: [], ...changes }]]);

test('a wait is time in which something is due and nothing comes', () => {
  const waits = new Waits();
  waits.look(sight(0), 25);
  for (let look = 0; look < 12; look++) waits.look(sight(0), 25);
  waits.look(sight(100), 25); // something came
  waits.look(sight(100, { due: false, blocked: true, calls: [CALL] }), 25);
  expect(waits.take()).toEqual([{ peerId: 'b', receiveMs: 300, sendMs: 25, calls: [CALL] }]);
  expect(waits.take()).toEqual([]);
});

test('short waits are not told, and slow is not silent', () => {
  const waits = new Waits();
  for (let look = 0; look < 6; look++) waits.look(sight(0), 25);
  expect(waits.take()).toEqual([]);
  for (let look = 0; look < 40; look++) waits.look(sight(look), 25);
  expect(waits.take()).toEqual([]);
});
