import { expect, test } from 'vitest';
import { NO_SLOT, type Workspace } from '../../src/collectives/workspace.ts';
import { ARENA_BYTES, divideArena } from '../../src/engine/memory.ts';
import { rehearse } from '../../src/engine/rehearsal.ts';
import { loadKernels } from '../../src/kernels/load.ts';
import { systemClock } from '../../src/transport/clock.ts';

function freeSlots(workspace: Workspace): number {
  const slots: number[] = [];
  for (const acquire of [() => workspace.acquire(), () => workspace.acquireWire()])
    for (let slot = acquire(); slot !== NO_SLOT; slot = acquire()) slots.push(slot);
  for (const slot of slots) workspace.release(slot);
  return slots.length;
}

test('all calls of a rehearsal have their results, and what they borrowed is given back', async () => {
  const memory = divideArena(await loadKernels(ARENA_BYTES));
  const before = freeSlots(memory.workspace);
  expect(before).toBeGreaterThan(0);
  const { calls, results } = await rehearse(memory, systemClock);
  expect(calls).toBeGreaterThan(20);
  expect(results).toBe(calls);
  expect(freeSlots(memory.workspace)).toBe(before);
});
