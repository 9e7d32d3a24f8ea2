import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { Cuts, ringAround, routeAround } from '../../src/collectives/routes.ts';

const ids = (count: number) => Array.from({ length: count }, (_, index) => `p${index}`);

/** A few members, and some pairs of them. */
const views = fc.integer({ min: 2, max: 9 }).chain((count) => {
  const member = fc.nat({ max: count - 1 });
  return fc
    .array(fc.tuple(member, member), { maxLength: count * 2 })
    .map((pairs) => ({ members: ids(count), pairs: pairs.map(([one, other]) => [`p${one}`, `p${other}`] as const) }));
});

/** Whoever can be reached from a member at all, found the simple way. */
function reachable(members: readonly string[], cuts: Cuts, from: string): Set<string> {
  const found = new Set([from]);
  for (let before = 0; before < found.size; ) {
    before = found.size;
    for (const at of [...found]) for (const next of members) if (next !== at && !cuts.has(at, next)) found.add(next);
  }
  return found;
}

describe('a route', () => {
  test('leads over open pairs only, and exists wherever there is one', () => {
    fc.assert(
      fc.property(views, ({ members, pairs }) => {
        const cuts = new Cuts(pairs);
        for (const from of members) {
          const near = reachable(members, cuts, from);
          for (const to of members) {
            const route = routeAround(members, cuts, from, to);
            expect(route !== null).toBe(near.has(to));
            if (route === null) continue;
            expect([route[0], route.at(-1)]).toEqual([from, to]);
            expect(new Set(route).size).toBe(route.length);
            for (let hop = 1; hop < route.length; hop++) expect(cuts.has(route[hop - 1]!, route[hop]!)).toBe(false);
          }
        }
      }),
    );
  });

  test('takes the fewest hops, and different relays for different members', () => {
    const members = ids(6);
    const cuts = new Cuts([
      ['p0', 'p3'],
      ['p1', 'p4'],
    ]);
    expect(routeAround(members, cuts, 'p0', 'p1')).toEqual(['p0', 'p1']);
    expect(routeAround(members, cuts, 'p0', 'p3')).toEqual(['p0', 'p1', 'p3']);
    expect(routeAround(members, cuts, 'p4', 'p1')).toEqual(['p4', 'p5', 'p1']);
  });
});

describe('a ring', () => {
  const rings = (members: readonly string[], cuts: Cuts) =>
    ringAround(
      members.map((peerId) => ({ peerId, site: '', place: 0 })),
      cuts,
    ).map((member) => member.peerId);

  /** All orders, tried one after the other. */
  function hasRing(left: readonly string[], ring: readonly string[], cuts: Cuts): boolean {
    const last = ring.at(-1)!;
    if (left.length === 0) return !cuts.has(last, ring[0]!);
    return left.some(
      (next) =>
        !cuts.has(last, next) &&
        hasRing(
          left.filter((one) => one !== next),
          [...ring, next],
          cuts,
        ),
    );
  }

  test('has every member once, and passes no cut where there is an order that does not', () => {
    fc.assert(
      fc.property(views, ({ members, pairs }) => {
        const cuts = new Cuts(pairs.filter(([one, other]) => one !== other));
        const ring = rings(members, cuts);
        expect([...ring].sort()).toEqual([...members].sort());
        if (members.length < 4 || members.length > 7) return;
        const passes = ring.some((peerId, index) => cuts.has(peerId, ring[(index + 1) % ring.length]!));
        expect(passes).toBe(!hasRing(members.slice(1), [members[0]!], cuts));
      }),
    );
  });

  test('stays as it is where nothing is cut', () => {
    expect(rings(ids(5), new Cuts([]))).toEqual(ids(5));
  });

  test('is not searched for without end', () => {
    const members = ids(40);
    const cuts = new Cuts(members.slice(1).map((peerId) => ['p0', peerId] as const));
    expect(rings(members, cuts)).toEqual(members);
  });
});
