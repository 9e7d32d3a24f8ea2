import { describe, expect, test } from 'vitest';
import { UNMEASURED } from '../../src/costs.ts';
import { placeNewcomers, Rings, type RingView } from '../../src/membership/rings.ts';
import { Stage } from './stage.ts';

const MEGABYTE = 1e6;

/** Members a, b, c… on hosts of their own, in this order. */
function viewOf(
  ring: string,
  cuts: readonly string[] = [],
  hostOf = (peerId: string) => `host of ${peerId}`,
): RingView {
  return {
    ring: [...ring].map((peerId) => ({ peerId, site: '', hostKey: hostOf(peerId) })),
    isCut: (from, to) => cuts.includes(from + to) || cuts.includes(to + from),
  };
}

/** Everybody tells of all ways. */
function tell(rings: Rings, ring: string, rate: (from: string, to: string) => number, now: number): void {
  for (const from of ring) {
    const links = [...ring]
      .filter((to) => to !== from)
      .map((peerId) => ({ peerId, bytesPerSecond: rate(from, peerId), delayMs: 1 }));
    rings.report(from, links, () => true, now);
  }
}

/** Looks once a second, as the coordinator does, and lets the search go on in between. */
function pass(rings: Rings, view: RingView, fromMs: number, seconds: number): number {
  for (let second = 1; second <= seconds; second++) {
    rings.look(view, fromMs + 1_000 * second);
    for (let tick = 0; tick < 40; tick++) rings.work();
  }
  return fromMs + 1_000 * seconds;
}

const slow =
  (...hops: string[]) =>
  (from: string, to: string) =>
    (hops.includes(from + to) ? 1 : 20) * MEGABYTE;

describe('a better order', () => {
  test('goes round a slow way, and is proposed when it was seen to be better for a while', () => {
    const rings = new Rings(true);
    const view = viewOf('abcd');
    tell(rings, 'abcd', slow('ab'), 0);
    let now = pass(rings, view, 0, 1);
    expect(rings.better(view, now)).toBeNull();
    now = pass(rings, view, now, 3);
    const order = rings.better(view, now)!.join('');
    expect(`${order}${order[0]}`).not.toContain('ab');
    expect([...order].sort().join('')).toBe('abcd');
  });

  test('is not proposed if it promises less than 10 %, and is if more', () => {
    for (const [share, isWorth] of [
      [0.93, false],
      [0.85, true],
    ] as const) {
      const rings = new Rings(true);
      const view = viewOf('abcd');
      tell(rings, 'abcd', (from, to) => (from + to === 'ab' ? share : 1) * 20 * MEGABYTE, 0);
      expect(rings.better(view, pass(rings, view, 0, 6)) !== null).toBe(isWorth);
    }
  });

  test('is not proposed on the word of ways that nobody has measured', () => {
    const rings = new Rings(true);
    const view = viewOf('abcd');
    for (const hop of ['ab', 'bc', 'cd', 'da'])
      rings.report(
        hop[0]!,
        [{ peerId: hop[1]!, bytesPerSecond: hop === 'ab' ? MEGABYTE : 50 * MEGABYTE, delayMs: 1 }],
        () => true,
        0,
      );
    const now = pass(rings, view, 0, 6);
    expect(rings.better(view, now)).toBeNull();
    tell(rings, 'abcd', slow('ab'), now);
    expect(rings.better(view, pass(rings, view, now, 6))).not.toBeNull();
  });

  test('avoids what is cut, and is forgotten with the members that it was found for', () => {
    const rings = new Rings(true);
    const view = viewOf('abcde', ['bd', 'ac']);
    tell(rings, 'abcde', slow('ab'), 0);
    const now = pass(rings, view, 0, 6);
    const order = rings.better(view, now)!.join('');
    for (const hop of ['ab', 'bd', 'db', 'ac', 'ca']) expect(`${order}${order[0]}`).not.toContain(hop);
    expect(rings.better(viewOf('abcd'), now)).toBeNull();
  });

  test('goes back when the ways have changed, and not by one figure that is out of line', () => {
    const rings = new Rings(true);
    const view = viewOf('abcd');
    tell(rings, 'abcd', slow(), 0);
    let now = pass(rings, view, 0, 4);
    rings.report('a', [{ peerId: 'b', bytesPerSecond: 19 * MEGABYTE, delayMs: 1 }], () => true, now);
    now = pass(rings, view, now, 4);
    expect(rings.better(view, now)).toBeNull();
    for (let time = 0; time < 8; time++) tell(rings, 'abcd', slow('cd'), now);
    now = pass(rings, view, now, 4);
    const order = rings.better(view, now)!.join('');
    expect(`${order}${order[0]}`).not.toContain('cd');
  });

  test('is of no use between peers on one host', () => {
    const rings = new Rings(true);
    const view = viewOf('abcd', [], () => 'one host');
    tell(rings, 'abcd', slow('ab'), 0);
    const now = pass(rings, view, 0, 6);
    expect(rings.better(view, now)).toBeNull();
    expect(rings.takeProbes(now)).toEqual([]);
  });
});

describe('probes', () => {
  test('ask for each way that was not measured, those of the ring first, and for no peer two at once', () => {
    const rings = new Rings(true);
    const view = viewOf('abcdef');
    const asked: string[] = [];
    let now = pass(rings, view, 0, 4);
    const first = rings.takeProbes(now).map(({ from, to }) => from + to);
    expect(first).toEqual(['ab', 'cd', 'ef']);
    expect(rings.takeProbes(now)).toEqual([]);
    for (let probes = first; asked.length < 30; ) {
      expect(new Set(probes.join('')).size).toBe(2 * probes.length);
      asked.push(...probes);
      for (const hop of probes)
        rings.report(hop[0]!, [{ peerId: hop[1]!, bytesPerSecond: MEGABYTE, delayMs: 1 }], () => true, now);
      now += 250;
      probes = rings.takeProbes(now).map(({ from, to }) => from + to);
      expect(probes.length > 0 || asked.length === 30).toBe(true);
    }
    expect(new Set(asked).size).toBe(30);
    now = pass(rings, view, now, 30);
    expect(rings.takeProbes(now)).toEqual([]);
    // Those of the ring are good for a minute, the others for ten.
    now = pass(rings, view, now + 60_000, 1);
    expect(rings.takeProbes(now).map(({ from, to }) => from + to)).toEqual(['ab', 'cd', 'ef']);
  });

  test('leave alone what is cut, what traffic has measured, what gave no answer, and groups that forbid them', () => {
    const rings = new Rings(true);
    const view = viewOf('abc', ['ab']);
    rings.report('b', [{ peerId: 'c', bytesPerSecond: MEGABYTE, delayMs: 1 }], () => true, 0);
    const now = pass(rings, view, 0, 4);
    expect(rings.takeProbes(now)).toEqual([{ from: 'c', to: 'a' }]);
    const later = pass(rings, view, now, 11);
    expect(rings.takeProbes(later)).not.toContainEqual({ from: 'c', to: 'a' });
    const silent = new Rings(false);
    expect(silent.takeProbes(pass(silent, view, 0, 10))).toEqual([]);
  });
});

test('newcomers stand with those of their site, or at the end', () => {
  const sites: Record<string, string> = { a: 'eu', b: 'us', c: '', d: 'eu', e: 'asia', f: 'us', g: '' };
  expect(placeNewcomers(['a', 'b', 'c'], ['d', 'e', 'f', 'g'], (peerId) => sites[peerId]!)).toEqual([...'adbfceg']);
});

describe('the coordinator', () => {
  const ALL = 'abcd';
  const others = (name: string) => [...ALL].filter((other) => other !== name);

  /** All but the way from a to b are fast. */
  function measured(): Stage {
    const stage = Stage.withMembers(4, true);
    for (const name of ALL) stage.links(name, Object.fromEntries(others(name).map((to) => [to, slow('ab')(name, to)])));
    stage.pass(6_000, ALL);
    return stage;
  }

  test('makes a view with a better ring at a boundary, the same for all', () => {
    const stage = measured();
    const [answer] = stage.boundary('a', 2);
    expect(answer).toMatch(/^a ← boundary 2: generation 2 @2 abcd, ring [abcd]{4}, joined nobody$/);
    const ring = answer!.split('ring ')[1]!.slice(0, 4);
    expect(`${ring}${ring[0]}`).not.toContain('ab');
    for (const name of 'bcd') expect(stage.boundary(name, 2)).toEqual([answer!.replace('a ←', `${name} ←`)]);
    expect(stage.snapshot().ring.join('')).toBe(ring);
    stage.pass(6_000, ALL);
    expect(stage.boundary('a', 3)).toEqual(['a ← boundary 3: unchanged, joined nobody']);
  });

  test('keeps the order when a member is lost, and when one comes', () => {
    const stage = measured();
    stage.boundary('a', 2);
    const ring = stage.snapshot().ring.join('');
    stage.say('d', { type: 'leave' });
    expect(stage.snapshot().ring.join('')).toBe(ring.replace('d', ''));
    for (const name of 'abc') stage.progress(name, 3);
    const newcomer = stage.joinReady();
    stage.boundary('a', 3);
    expect(stage.snapshot().ring.join('')).toBe(`${ring.replace('d', '')}${newcomer}`);
  });

  test('asks for ways to be measured that carry nothing, once the view has stood for a while', () => {
    const stage = Stage.withMembers(4, true);
    const probes = stage.pass(5_000, ALL);
    expect(probes).toEqual(['a ← probe b', 'c ← probe d']);
    stage.links('a', { b: MEGABYTE });
    expect(stage.pass(1_000, ALL)).toEqual(['b ← probe a']); // c and d are not done
    stage.links('c', { d: MEGABYTE });
    expect(stage.pass(1_000, ALL)).toEqual(['d ← probe c']);
  });

  test('that was restarted has the order from its members', () => {
    const stage = new Stage();
    const members = [...'xyz'].map((peerId, rank) => ({ peerId, site: '', place: [1, 0, 2][rank]! }));
    const views = [{ generation: 2, epoch: 5, boundary: 2, members, cuts: [], costs: UNMEASURED }];
    for (const name of 'xyz') stage.resume(name, { epoch: 5, boundary: 2, views });
    expect(stage.snapshot().ring.join('')).toBe('yxz');
  });
});
