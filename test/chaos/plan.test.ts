import fc from 'fast-check';
import { expect, test } from 'vitest';
import { describeFault, FAULT_KINDS, planFaults } from '../../src/chaos/plan.ts';

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
  expect(new Set(plan.map((fault) => fault.moment)).size).toBe(3);
});
