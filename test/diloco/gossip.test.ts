/** Averaging in pairs, and rounds that come late. */
import fc from 'fast-check';
import { join } from 'skein';
import { createDiloco, createGossip, type Gossip, lateRounds } from 'skein/diloco';
import { describe, expect, test } from 'vitest';
import { pairing } from '../../src/diloco/pairing.ts';
import { Members } from '../group/members.ts';
import { withdrawingFromGossip } from './peers.ts';

const INLINE = { engine: 'inline' } as const;

describe('pairs', () => {
  test('are disjoint, mutual, and leave out one rank at most', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 33 }), fc.nat({ max: 10_000 }), (worldSize, round) => {
        const partners = pairing(worldSize, round);
        for (const [rank, partner] of partners.entries()) expect(partners[partner]).toBe(rank);
        expect(partners.filter((partner, rank) => partner === rank)).toHaveLength(worldSize % 2);
      }),
    );
  });

  test('are drawn anew in every round: each rank meets every other', () => {
    const met = new Set(Array.from({ length: 100 }, (_, round) => pairing(8, round)[0]));
    expect([...met].sort()).toEqual([1, 2, 3, 4, 5, 6, 7]);
  });
});

async function train(gossip: Gossip, x: Float32Array, rounds: number, change: number): Promise<(string | null)[]> {
  const partners: (string | null)[] = [];
  while (gossip.round < rounds) {
    const { round } = gossip;
    for (let at = 0; at < x.length; at++) x[at]! += change;
    const report = await gossip.step();
    if (report.round > round) partners.push(report.partner);
  }
  return partners;
}

describe.each([2, 4, 5])('with %i members', (worldSize) => {
  test("a round is NoLoCo's update with the partner's change and slow parameters", async () => {
    await using members = await Members.form(worldSize, INLINE);
    const ROUNDS = 4;
    const seen = await members.all(async (group, rank) => {
      const x = new Float32Array(3).fill(1);
      const gossip = await createGossip(group, { x }, { every: 2 });
      await train(gossip, x, ROUNDS, rank + 1);
      return [...x];
    });
    const slow = Array.from({ length: worldSize }, () => 1);
    const momentum = slow.map(() => 0);
    for (let round = 0; round < ROUNDS; round++) {
      const before = [...slow];
      for (const [rank, partner] of pairing(worldSize, round).entries()) {
        const change = (2 * (rank + 1) + 2 * (partner + 1)) / 2;
        const pull = before[rank]! - (before[rank]! + before[partner]!) / 2;
        momentum[rank] = 0.5 * momentum[rank]! + 0.7 * change - 0.7 * pull;
        slow[rank]! += momentum[rank]!;
      }
    }
    for (const [rank, values] of seen.entries()) for (const value of values) expect(value).toBeCloseTo(slow[rank]!, 3);
  });
});

test('peers that learn different things stay close together, and finalMerge makes them equal', async () => {
  await using members = await Members.form(4, INLINE);
  const seen = await members.all(async (group, rank) => {
    const x = new Float32Array(5);
    const gossip = await createGossip(group, { x }, { every: 1 });
    await train(gossip, x, 60, rank - 1.5); // the mean change is 0
    const apart = [...x];
    await gossip.finalMerge();
    return { apart, merged: [...x] };
  });
  for (const { apart, merged } of seen) {
    expect(merged).toEqual(seen[0]!.merged);
    expect(Math.abs(apart[0]!)).toBeLessThan(12); // alone it would be 90, and more with momentum
  }
});

test.each([
  ['first', 2],
  ['second', 3],
])(
  'when the %s hop of a round fails, its steps are part of the next, and all are in step again',
  async (_hop, call) => {
    await using members = await Members.form(3, INLINE);
    const seen = await members.all(async (group, rank) => {
      const x = new Float32Array(1);
      const disturbed = rank === 1 ? withdrawingFromGossip(group, [call]) : group;
      const gossip = await createGossip(disturbed, { x }, { every: 2, momentum: 0, attraction: 1, learningRate: 1 });
      const partners = await train(gossip, x, 5, 1);
      return { partners, x: x[0]! };
    });
    // All change alike, so that pairs and singles move by what was changed; only the order in time differs.
    for (const { partners, x } of seen) {
      expect(partners.map((partner) => partner === null)).toEqual([false, true, false, false, false]);
      expect(x).toBe(10);
    }
  },
);

test('a newcomer takes the slow parameters and the round of the others', async () => {
  await using members = await Members.form(2, INLINE);
  const old = await members.all(async (group) => {
    const x = new Float32Array(200_000).fill(7);
    return { x, gossip: await createGossip(group, { x }, { every: 1 }) };
  });
  const joining = join(members.coordinator.address, { ...INLINE, timeout: 20_000 });
  const coming = joining.then(async (group) => {
    members.groups.push(group);
    const x = new Float32Array(200_000);
    return { x, gossip: await createGossip(group, { x }, { every: 1 }) };
  });
  let rounds = 0;
  while (members.groups[0]!.worldSize < 3) {
    rounds += 1;
    await Promise.all(old.map(({ gossip, x }) => train(gossip, x, rounds, 0)));
  }
  const newcomer = await coming;
  const all = [...old, newcomer];
  expect(newcomer.gossip.round).toBe(old[0]!.gossip.round);
  expect(newcomer.x.every((value) => value === 7)).toBe(true);
  await Promise.all(all.map(({ gossip, x }) => train(gossip, x, rounds + 2, 1)));
  for (const { x } of all) expect(x[0]).toBeGreaterThan(7);
});

describe('late rounds', () => {
  test('get shorter, and add up', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 20 }), fc.integer({ min: 1, max: 50 }), (rounds, factor) => {
        const steps = rounds * (rounds + 1) * factor;
        const lengths = Array.from({ length: rounds }, (_, round) => lateRounds(steps, rounds)(round));
        expect(lengths.reduce((sum, length) => sum + length, 0)).toBe(steps);
        for (let round = 1; round < rounds; round++) expect(lengths[round]).toBeLessThanOrEqual(lengths[round - 1]!);
        expect(lengths.at(-1)).toBeGreaterThan(0);
      }),
    );
    expect(() => lateRounds(10, 10)).toThrow();
  });

  test('are followed by DiLoCo', async () => {
    await using members = await Members.form(2, INLINE);
    const ends = await members.all(async (group) => {
      const diloco = await createDiloco(group, { x: new Float32Array(1) }, { every: lateRounds(12, 3) });
      const steps: number[] = [];
      for (let step = 1; step <= 12; step++) if ((await diloco.step()).hasEnded) steps.push(step);
      return steps;
    });
    for (const steps of ends) expect(steps).toEqual([6, 10, 12]);
  });
});
