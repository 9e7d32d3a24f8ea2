import fc from 'fast-check';
import { expect, test } from 'vitest';
import { describeFault, disturbanceOf, FAULT_KINDS, MOMENTS, planFaults, RELAY_FAULTS } from '../../src/chaos/plan.ts';

const requests = fc.record({
  seed: fc.nat({ max: 2 ** 31 - 1 }),
  kinds: fc.uniqueArray(fc.constantFrom(...FAULT_KINDS), { minLength: 1 }),
  peers: fc.integer({ min: 1, max: 9 }),
  forMs: fc.integer({ min: 1_000, max: 300_000 }),
  everyMs: fc.constantFrom(500, 4_000),
});

test('a plan follows from its seed, keeps to its time and its peers, and names only the faults that were asked for', () => {
  fc.assert(
    fc.property(requests, (request) => {
      const plan = planFaults(request);
      expect(planFaults(request)).toEqual(plan);
      let before = 0;
      for (const fault of plan) {
        expect(fault.at).toBeGreaterThanOrEqual(before);
        expect(fault.at).toBeLessThanOrEqual(request.forMs);
        before = fault.at;
        expect(request.kinds).toContain(fault.kind);
        expect(describeFault(fault)).not.toBe('');
        expect(disturbanceOf([fault]) !== null).toBe(RELAY_FAULTS.has(fault.kind));
        if (fault.kind === 'coordinator') continue;
        expect(fault.victim).toBeLessThan(request.peers);
        if (fault.kind === 'partition') expect(fault.others).not.toContain(fault.victim);
      }
    }),
  );
});

test('faults come as often as was asked for, of all kinds', () => {
  const plan = planFaults({ seed: 1, kinds: FAULT_KINDS, peers: 4, forMs: 1_000_000, everyMs: 1_000 });
  expect(plan.length).toBeGreaterThan(900);
  expect(plan.length).toBeLessThan(1_100);
  expect(new Set(plan.map((fault) => fault.kind)).size).toBe(FAULT_KINDS.length);
  expect(new Set(plan.map((fault) => fault.moment)).size).toBe(MOMENTS.length);
});

test('seeds next to one another begin differently', () => {
  const firsts = Array.from({ length: 20 }, (_, index) => {
    const seed = index + 1;
    return planFaults({ seed, kinds: FAULT_KINDS, peers: 8, forMs: 60_000, everyMs: 4_000 })[0]!;
  });
  expect(new Set(firsts.map((fault) => fault.at)).size).toBeGreaterThan(18);
  expect(new Set(firsts.map((fault) => fault.kind)).size).toBeGreaterThan(5);
  const victims = firsts.flatMap((fault) => (fault.kind === 'coordinator' ? [] : [fault.victim]));
  expect(new Set(victims).size).toBeGreaterThan(5);
});

test('what comes upon another fault waits for what that one can bring about', () => {
  const plan = planFaults({ seed: 2, kinds: FAULT_KINDS, peers: 4, forMs: 1_000_000, everyMs: 1_000 });
  const following = plan.flatMap((fault, index) =>
    plan[index - 1]?.at === fault.at ? [[plan[index - 1]!, fault] as const] : [],
  );
  expect(following.length).toBeGreaterThan(100);
  for (const [before, fault] of following) {
    expect(['recovery', 'view', 'coordinator-back']).toContain(fault.moment);
    expect(fault.moment === 'coordinator-back' && before.kind !== 'coordinator').toBe(false);
    expect(['kill', 'restart', 'coordinator', 'stop', 'partition']).toContain(before.kind);
  }
});

test('faults of one peer that last at the same time add up', () => {
  const late = (delayMs: number) => ({ kind: 'delay', victim: 1, delayMs, jitterMs: 1, forMs: 1 }) as const;
  const damaged = { kind: 'corrupt', victim: 1, percent: 5, forMs: 1 } as const;
  expect(disturbanceOf([late(10), damaged, late(20)])).toEqual({
    delayMs: 30,
    jitterMs: 2,
    overtakePercent: 0,
    corruptPercent: 5,
  });
  expect(disturbanceOf([{ kind: 'slow', victim: 1, megabits: 5, forMs: 1 }])).toBeNull();
});
