import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { Lobby, type Visitor } from '../../src/transport/lobby.ts';

interface Guest extends Visitor {
  evicted: boolean;
}

function guest(origin: string | null = null): Guest {
  const one: Guest = {
    origin,
    evicted: false,
    onEvicted: () => {
      one.evicted = true;
    },
  };
  return one;
}

describe('a lobby', () => {
  test('lets newcomers in when it is full: who has been silent for longest goes, however late the others came', () => {
    const lobby = new Lobby({ total: 3, perOrigin: 3 });
    const [first, second, third, fourth, fifth] = [guest(), guest(), guest(), guest(), guest()];
    for (const one of [first, second, third]) lobby.enter(one);
    lobby.hear(first);
    lobby.enter(fourth);
    expect([first, second, third, fourth].map(({ evicted }) => evicted)).toEqual([false, true, false, false]);
    lobby.hear(third);
    lobby.hear(fourth);
    // All have spoken: the oldest goes.
    lobby.enter(fifth);
    expect([first, third, fourth, fifth].map(({ evicted }) => evicted)).toEqual([true, false, false, false]);
    expect(lobby.size).toBe(3);
  });

  test('has room for so many of one origin, which then makes room at its own cost', () => {
    const lobby = new Lobby({ total: 100, perOrigin: 2 });
    const other = guest('b');
    const [one, two, three, four] = [guest('a'), guest('a'), guest('a'), guest('a')];
    for (const each of [other, one, two]) lobby.enter(each);
    lobby.hear(one);
    lobby.enter(three);
    expect([other, one, two, three].map(({ evicted }) => evicted)).toEqual([false, false, true, false]);
    lobby.leave(one);
    lobby.leave(one);
    lobby.enter(four);
    expect([other, three, four].map(({ evicted }) => evicted)).toEqual([false, false, false]);
    const uncounted = Array.from({ length: 50 }, () => guest(null));
    for (const each of uncounted) lobby.enter(each);
    expect(uncounted.some(({ evicted }) => evicted)).toBe(false);
    expect(lobby.size).toBe(53);
  });

  test('never holds more than it may, evicts nobody twice, and forgets whoever has left', () => {
    const act = fc.record({ what: fc.constantFrom('enter', 'hear', 'leave'), who: fc.nat(11), origin: fc.nat(2) });
    fc.assert(
      fc.property(fc.array(act, { maxLength: 200 }), (acts) => {
        const limits = { total: 4, perOrigin: 2 };
        const lobby = new Lobby(limits);
        const inside = new Map<number, Guest>();
        for (const { what, who, origin } of acts) {
          const known = inside.get(who);
          if (what === 'enter' && known === undefined) {
            const one = guest(origin === 2 ? null : `origin ${origin}`);
            lobby.enter(one);
            inside.set(who, one);
            expect(one.evicted).toBe(false);
          } else if (what === 'hear' && known !== undefined) lobby.hear(known);
          else if (what === 'leave' && known !== undefined) {
            lobby.leave(known);
            inside.delete(who);
          }
          for (const [key, one] of inside) if (one.evicted) inside.delete(key);
          expect(lobby.size).toBe(inside.size);
          expect(lobby.size).toBeLessThanOrEqual(limits.total);
          for (const origin of ['origin 0', 'origin 1']) {
            const ofOrigin = [...inside.values()].filter((one) => one.origin === origin).length;
            expect(ofOrigin).toBeLessThanOrEqual(limits.perOrigin);
          }
        }
      }),
    );
  });
});
