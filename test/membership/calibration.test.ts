import { describe, expect, test } from 'vitest';
import { NO_WAY, UNMEASURED, type WayCosts } from '../../src/costs.ts';
import { Calibration, type CostPeer, measuredCosts, settled } from '../../src/membership/calibration.ts';
import { Rings, type RingView } from '../../src/membership/rings.ts';
import type { WireView } from '../../src/wire/parts.ts';
import { Stage } from './stage.ts';

const MEGABYTE = 1e6;

interface Way {
  readonly rate: number | null;
  readonly delayMs: number | null;
}

/** Members a, b, c…, each on a host of its own with two processors; capitals are in another site. */
function viewOf(ring: string, hostOf = (peerId: string) => `host of ${peerId}`): RingView<CostPeer> {
  const siteOf = (peerId: string) => (peerId === peerId.toUpperCase() ? 'far' : 'near');
  return {
    ring: [...ring].map((peerId) => ({ peerId, site: siteOf(peerId), hostKey: hostOf(peerId), cores: 2 })),
    isCut: () => false,
  };
}

function told(ring: string, way: (from: string, to: string) => Way): Rings {
  const rings = new Rings(true);
  for (const from of ring) {
    const links = [...ring].filter((to) => to !== from);
    const measured = links.map((to) => [to, way(from, to)] as const);
    rings.report(
      from,
      measured.map(([peerId, { rate, delayMs }]) => ({ peerId, bytesPerSecond: rate, delayMs })),
      () => true,
      0,
    );
  }
  return rings;
}

const isFar = (from: string, to: string) => from < 'a' !== to < 'a';

describe('what is measured', () => {
  test('counts as the slowest way of each class does, and the ring by its own hops', () => {
    const rings = told('abcAB', (from, to) => {
      if (from + to === 'ac') return { rate: MEGABYTE, delayMs: 3 };
      return isFar(from, to) ? { rate: 5 * MEGABYTE, delayMs: 40 } : { rate: 100 * MEGABYTE, delayMs: 1 };
    });
    const { near, far, ring } = measuredCosts(viewOf('abcAB'), rings, UNMEASURED);
    expect(near).toEqual({ hopSeconds: 0.003, byteSeconds: 1 / MEGABYTE });
    expect(far).toEqual({ hopSeconds: 0.04, byteSeconds: 1 / (5 * MEGABYTE) });
    expect(ring!.byteSeconds).toBe(1 / (5 * MEGABYTE));
    expect(ring!.hopSeconds).toBeCloseTo((3 * 0.001 + 2 * 0.04) / 5, 9);
    // One that does not pass the slow way.
    expect(measuredCosts(viewOf('cabAB'), rings, UNMEASURED).ring!.byteSeconds).toBe(1 / (5 * MEGABYTE));
    expect(measuredCosts(viewOf('acbAB'), rings, UNMEASURED).ring!.byteSeconds).toBe(1 / MEGABYTE);
  });

  test('is nothing where nobody has measured: what is known stays, and a ring is like other ways', () => {
    const known: WayCosts = { ...UNMEASURED, near: { hopSeconds: 0.5, byteSeconds: 0.25 } };
    const none = told('abAB', () => ({ rate: null, delayMs: null }));
    expect(measuredCosts(viewOf('abAB'), none, known)).toMatchObject({ near: known.near, far: known.far, ring: null });
    const gaps = told('abAB', (from, to) => ({ rate: from + to === 'bA' ? null : MEGABYTE, delayMs: 2 }));
    expect(measuredCosts(viewOf('abAB'), gaps, known).ring).toBeNull();
    // Of whom is not a member, nothing counts.
    const strangers = told('xyz', () => ({ rate: 1, delayMs: 9_000 }));
    expect(measuredCosts(viewOf('abAB'), strangers, known).near).toEqual(known.near);
  });

  test('is nothing between members of one host, who share its processors instead', () => {
    const rings = told('abcd', () => ({ rate: 1, delayMs: 9_000 }));
    const together = measuredCosts(
      viewOf('abcd', () => 'one'),
      rings,
      UNMEASURED,
    );
    expect(together).toEqual({ ...UNMEASURED, ring: NO_WAY, sharing: 2 });
    const crowded = (peerId: string) => (peerId === 'd' ? 'another' : 'one');
    expect(measuredCosts(viewOf('abcd', crowded), rings, UNMEASURED).sharing).toBe(1.5);
    expect(measuredCosts(viewOf('abcd'), rings, UNMEASURED).sharing).toBe(0.5);
  });
});

describe('what is agreed', () => {
  const agreed: WayCosts = { ...UNMEASURED, near: { hopSeconds: 1e-3, byteSeconds: 1e-8 } };

  test('stays the same object through noise, and follows what is more than that, figure by figure', () => {
    const measured = (hopSeconds: number, byteSeconds: number) => ({ ...agreed, near: { hopSeconds, byteSeconds } });
    expect(settled(agreed, measured(1.2e-3, 0.85e-8))).toBe(agreed);
    expect(settled(agreed, measured(2e-3, 1.1e-8)).near).toEqual({ hopSeconds: 2e-3, byteSeconds: 1e-8 });
    expect(settled(agreed, measured(0.9e-3, 0.5e-8)).near).toEqual({ hopSeconds: 1e-3, byteSeconds: 0.5e-8 });
    // Less than what a processor takes is no difference.
    const local = { ...agreed, near: NO_WAY };
    expect(settled(local, { ...agreed, near: { hopSeconds: 40e-6, byteSeconds: 4e-11 } })).toBe(local);
  });

  test('has the ring as soon as it is known, and not when it is not', () => {
    const ring = { hopSeconds: 1e-3, byteSeconds: 1e-8 };
    expect(settled(agreed, { ...agreed, ring }).ring).toBe(ring);
    expect(settled({ ...agreed, ring }, { ...agreed, ring: { ...ring, byteSeconds: 1.1e-8 } }).ring).toBe(ring);
    expect(settled({ ...agreed, ring }, agreed).ring).toBeNull();
  });

  test('is due for a change only after several looks in a row, and a rest', () => {
    const off = { ...agreed, far: { hopSeconds: 0.1, byteSeconds: 1e-6 } };
    const calibration = new Calibration();
    for (const measured of [off, off, agreed, off, off]) calibration.look(agreed, measured);
    expect(calibration.isDue(0)).toBe(false);
    calibration.look(agreed, off);
    expect(calibration.isDue(0)).toBe(true);
    calibration.onAgreed(0);
    for (let look = 0; look < 5; look++) calibration.look(agreed, off);
    expect(calibration.isDue(5_000)).toBe(false);
    expect(calibration.isDue(60_000)).toBe(true);
  });

  test('settles whatever noise there is: figures that wander within a fifth change nothing', () => {
    let costs = agreed;
    for (let look = 0; look < 100; look++) {
      const factor = 1 + 0.2 * Math.sin(look);
      const { hopSeconds, byteSeconds } = agreed.near;
      costs = settled(costs, {
        ...agreed,
        near: { hopSeconds: hopSeconds * factor, byteSeconds: byteSeconds / factor },
      });
    }
    expect(costs).toBe(agreed);
  });
});

describe('the coordinator', () => {
  const ALL = 'abcd';

  function tell(stage: Stage, rate: number): void {
    for (const name of ALL)
      stage.links(name, Object.fromEntries([...ALL].filter((other) => other !== name).map((other) => [other, rate])));
  }

  /** The views that the members got at a boundary. */
  function viewsAt(stage: Stage, index: number): (WireView | null)[] {
    return [...ALL].map((name) => stage.viewAt(name, index));
  }

  test('makes a view with measured figures at a boundary, the same for all, and then leaves them alone', () => {
    const stage = Stage.withMembers(4, true);
    expect(stage.snapshot().costs).toMatchObject({ near: UNMEASURED.near, ring: null });
    tell(stage, MEGABYTE);
    stage.pass(11_000, ALL);
    const views = viewsAt(stage, 2);
    for (const view of views) expect(view?.costs).toEqual(stage.snapshot().costs);
    // Each is a site of its own.
    expect(views[0]!.costs.far).toEqual({ hopSeconds: 0.001, byteSeconds: 1 / MEGABYTE });
    tell(stage, 0.9 * MEGABYTE);
    stage.pass(15_000, ALL);
    expect(viewsAt(stage, 3)).toEqual([null, null, null, null]);
    for (let time = 0; time < 6; time++) tell(stage, 10 * MEGABYTE);
    stage.pass(5_000, ALL);
    expect(viewsAt(stage, 4)[0]!.costs.far.byteSeconds).toBeLessThan(0.2 / MEGABYTE);
  });

  test('that was restarted keeps the figures of its members, and newcomers get them', () => {
    const costs: WayCosts = { ...UNMEASURED, far: { hopSeconds: 0.123, byteSeconds: 1e-7 } };
    const stage = new Stage();
    const members = [...'xyz'].map((peerId, place) => ({ peerId, site: peerId, place }));
    const views = [{ generation: 2, epoch: 5, boundary: 2, members, cuts: [], costs }];
    for (const name of 'xyz') stage.resume(name, { epoch: 5, boundary: 2, views });
    expect(stage.snapshot().costs).toEqual(costs);
    for (const name of 'xyz') stage.progress(name, 6);
    stage.joinReady();
    expect(stage.viewAt('x', 3)?.costs.far).toEqual(costs.far);
  });
});
