/** All members hold the same after a sync: who is behind takes what differs, and only that. */
import { type SharedState, sharedTensor } from 'skein';
import { describe, expect, test } from 'vitest';
import { type EngineKind, Members } from '../group/members.ts';

const MIB = 1024 * 1024;

/** A state of a few pieces, the same on all ranks but for `fill`. */
function stateOf(fill: number, shared: boolean, revision = 0): SharedState & { entries: { weights: Float32Array } } {
  const make = (count: number) => (shared ? sharedTensor('f32', count) : new Float32Array(count));
  const weights = make((5 * MIB) / 4 + 3);
  weights.fill(fill);
  const entries = { weights, momentum: make(1_000), rate: 0.5 + fill, step: BigInt(fill), warm: fill % 2 === 1 };
  return { revision, entries };
}

function expectEqual(states: readonly SharedState[], fill: number, revision: number): void {
  for (const { revision: own, entries } of states) {
    expect(own).toBe(revision);
    const weights = entries['weights'] as Float32Array;
    expect(weights.findIndex((value) => value !== fill)).toBe(-1);
    expect([entries['rate'], entries['step'], entries['warm']]).toEqual([0.5 + fill, BigInt(fill), fill % 2 === 1]);
  }
}

describe.each<[EngineKind, boolean]>([
  ['worker', true],
  ['worker', false],
  ['inline', false],
])('engine %s, tensors on shared memory: %s', (engine, shared) => {
  test('all take what the first rank holds at the start, and nothing is moved after that', async () => {
    await using members = await Members.form(3, { engine });
    const states = await members.all(async (group, rank) => {
      const state = stateOf(rank + 1, shared);
      const report = await group.syncState(state);
      const bytes = 5 * MIB + 12 + 2 * 8 + 1;
      if (rank === 0) expect(report).toMatchObject({ revision: 0, received: 0, from: [] });
      else expect(report.received).toBeGreaterThan(bytes - MIB);
      expect(report.diverged).toEqual([]);
      return state;
    });
    expectEqual(states, 1, 0);
    // Deterministic updates: the same everywhere.
    for (let step = 2; step < 6; step++) {
      await members.all(async (group, rank) => {
        const { entries } = states[rank]!;
        (entries['weights'] as Float32Array).fill(step);
        Object.assign(entries, { rate: 0.5 + step, step: BigInt(step), warm: step % 2 === 1 });
        states[rank]!.revision += 1;
        const report = await group.syncState(states[rank]!);
        expect(report).toMatchObject({ sent: 0, received: 0, from: [], diverged: [] });
      });
      expectEqual(states, step, step - 1);
    }
  });

  test('a bit that flipped is found at the next sync, healed with one piece, and told of', async () => {
    await using members = await Members.form(3, { engine });
    const states = members.groups.map(() => stateOf(1, shared));
    await members.all((group, rank) => group.syncState(states[rank]!));
    const bits = new Uint32Array((states[2]!.entries['weights'] as Float32Array).buffer);
    bits[700_000]! ^= 1 << 13;
    const reports = await members.all((group, rank) => group.syncState(states[rank]!));
    const { peerId } = members.groups[2]!;
    expect(reports.map((report) => report.diverged)).toEqual([[peerId], [peerId], [peerId]]);
    expect(reports.map((report) => report.received)).toEqual([0, 0, MIB]);
    expect(reports.reduce((sum, report) => sum + report.sent, 0)).toBe(MIB);
    expectEqual(states, 1, 0);
  });
});
