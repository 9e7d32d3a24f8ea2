/** Averaging in pairs, and rounds that come late. */
import fc from 'fast-check';
import { type Group, join } from 'skein';
import { createDiloco, createGossip, type Gossip, type GossipOptions, lateRounds } from 'skein/diloco';
import { describe, expect, test } from 'vitest';
import { pairing } from '../../src/diloco/pairing.ts';
import { Members } from '../group/members.ts';
import { replacing, withdrawingFromGossip, withdrawingFromState } from './peers.ts';

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

test.each([0, 1])('finalMerge contains what the last exchange lost (hop %i), and steps since', async (hop) => {
  await using members = await Members.form(3, INLINE);
  const seen = await members.all(async (group, rank) => {
    const x = new Float32Array(1);
    const disturbed = rank === 1 ? withdrawingFromGossip(group, [hop]) : group;
    const gossip = await createGossip(disturbed, { x }, { every: 2 });
    await train(gossip, x, 1, rank);
    x[0]! += rank;
    await gossip.step();
    await gossip.finalMerge();
    return x[0];
  });
  expect(seen).toEqual([3, 3, 3]);
});

test('pairs exchange in a codec, finalMerge in f32', async () => {
  await using members = await Members.form(4, INLINE);
  const seen = await members.all(async (group) => {
    const sent: number[] = [];
    const watched = replacing(group, 'allToAll', (real) => async (tensor, out, options) => {
      const report = await real(tensor, out, options);
      sent.push(report.bytesSent);
      return report;
    });
    const x = new Float32Array(1_000);
    const gossip = await createGossip(watched, { x }, { every: 1, wire: { codec: 'bf16' } });
    await train(gossip, x, 1, 1 + 2 ** -12);
    const rounded = x[0]!;
    x[0] = 1 + 2 ** -12;
    await gossip.finalMerge();
    return { rounded, merged: x[0], most: Math.max(...sent) };
  });
  for (const { rounded, merged, most } of seen) {
    // Half of the change is the peer's own, in full precision; the partner's has lost its last bit.
    expect(rounded).toBe(Math.fround(0.7 * (1 + 2 ** -13)));
    expect(merged).toBe(1 + 2 ** -12);
    expect(most).toBeLessThan(4_000); // three quarters of 2,000 elements are 3,000 bytes in bf16, 6,000 in f32
  }
});

test('a boundary has the time-out and the quorum of the other calls', async () => {
  await using members = await Members.form(2, INLINE);
  const wire = { timeout: 5_000, minWorldSize: 2 } as const;
  const seen = await members.all(async (group) => {
    const asked: unknown[] = [];
    const watched = replacing(group, 'admit', (real) => (options) => {
      asked.push(options);
      return real(options);
    });
    const x = new Float32Array(1);
    await train(await createGossip(watched, { x }, { every: 1, wire: { ...wire, codec: 'bf16' } }), x, 2, 1);
    return asked;
  });
  for (const asked of seen) expect(asked).toEqual([wire, wire]);
});

describe('a newcomer', () => {
  const COUNT = 200_000;

  /** Two members whose parameters are 7 go on until a third is in. */
  async function welcome(members: Members, options: GossipOptions, disturb: (group: Group, rank: number) => Group) {
    const old = await members.all(async (group, rank) => {
      const x = new Float32Array(COUNT).fill(7);
      return { x, gossip: await createGossip(disturb(group, rank), { x }, options), failures: 0 };
    });
    const joining = join(members.coordinator.address, { ...INLINE, timeout: 20_000 });
    const coming = joining.then(async (group) => {
      members.groups.push(group);
      const x = new Float32Array(COUNT);
      return { x, gossip: await createGossip(disturb(group, 2), { x }, options), failures: 0 };
    });
    while (members.groups[0]!.worldSize < 3) {
      await Promise.all(
        old.map((one) =>
          one.gossip.step().catch(() => {
            one.failures += 1;
            return one.gossip.step();
          }),
        ),
      );
    }
    return [...old, await coming];
  }

  test('takes the slow parameters and the round of the others', async () => {
    await using members = await Members.form(2, INLINE);
    const all = await welcome(members, { every: 1 }, (group) => group);
    const [old, , newcomer] = all;
    expect(newcomer!.gossip.round).toBe(old!.gossip.round);
    expect(newcomer!.x.every((value) => value === 7)).toBe(true);
    const { round } = newcomer!.gossip;
    await Promise.all(all.map(({ gossip, x }) => train(gossip, x, round + 2, 1)));
    for (const { x } of all) expect(x[0]).toBeGreaterThan(7);
  });

  test.each([
    ['once for the newcomer', 2, [0], 0],
    ["until an old member's patience is over, and it calls step() again", 0, [0, 1, 2], 1],
  ])('is given them at last when the call fails: %s', async (_name, wrong, calls, failures) => {
    await using members = await Members.form(2, INLINE);
    const all = await welcome(members, { every: 1 }, (group, rank) =>
      rank === wrong ? withdrawingFromState(group, calls) : group,
    );
    expect(all.map((one) => one.failures)).toEqual([failures, 0, 0]);
    const { round } = all[0]!.gossip;
    for (const { gossip, x } of all) {
      expect(gossip.round).toBe(round);
      expect(x.every((value) => value === 7)).toBe(true);
    }
  });

  test.each([false, true])('weighs nothing in its first round (whose exchange fails: %s)', async (fails) => {
    await using members = await Members.form(2, INLINE);
    const options = { every: 1, momentum: 0, attraction: 1, learningRate: 1 } as const;
    const disturb = (group: Group, rank: number) => (rank === 2 && fails ? withdrawingFromGossip(group, [0]) : group);
    const all = await welcome(members, options, disturb);
    const { round } = all[0]!.gossip;
    // What it does in its first round is poison; in the next, all count.
    await Promise.all(all.map(({ gossip, x }, rank) => train(gossip, x, round + 1, rank === 2 ? Number.NaN : 1)));
    expect(all[2]!.x.every(Number.isFinite)).toBe(true);
    await Promise.all(all.map(({ gossip, x }) => train(gossip, x, round + 2, 1)));
    await Promise.all(all.map(({ gossip }) => gossip.finalMerge()));
    for (const { x } of all) {
      expect(x[0]).toBe(all[0]!.x[0]);
      expect(x[0]).toBeGreaterThan(8);
      expect(x[0]).toBeLessThanOrEqual(9);
    }
  });
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
