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
    for (const one of [first, second, third]) expect(lobby.enter(one)).toBe(true);
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

  test('has room for so many of one origin, and for more when some of them have left', () => {
    const lobby = new Lobby({ total: 100, perOrigin: 2 });
    const [one, two] = [guest('a'), guest('a')];
    expect(lobby.enter(one) && lobby.enter(two)).toBe(true);
    expect(lobby.enter(guest('a'))).toBe(false);
    expect(lobby.enter(guest('b'))).toBe(true);
    lobby.leave(one);
    lobby.leave(one);
    expect(lobby.enter(guest('a'))).toBe(true);
    expect(lobby.enter(guest('a'))).toBe(false);
    for (let count = 0; count < 50; count++) expect(lobby.enter(guest(null))).toBe(true);
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
            const ofOrigin = [...inside.values()].filter((other) => other.origin === one.origin).length;
            const entered = lobby.enter(one);
            expect(entered).toBe(one.origin === null || ofOrigin < limits.perOrigin);
            if (entered) inside.set(who, one);
          } else if (what === 'hear' && known !== undefined) lobby.hear(known);
          else if (what === 'leave' && known !== undefined) {
            lobby.leave(known);
            inside.delete(who);
          }
          for (const [key, one] of inside) if (one.evicted) inside.delete(key);
          expect(lobby.size).toBe(inside.size);
          expect(lobby.size).toBeLessThanOrEqual(limits.total);
        }
      }),
    );
  });
});
