/** Rounds that fail, and peers that come late: every inner step counts once, and all hold the same bits. */
import { type Group, join } from 'skein';
import { describe, expect, test } from 'vitest';
import { Members } from '../group/members.ts';
import { AVERAGING, expectEqualBits, misinformed, type Trainee, trainee, trainUntil, withdrawing } from './peers.ts';

const INLINE = { engine: 'inline' } as const;

describe.each(['now', 'later', 'eager'] as const)("a lost round is merged into a later one (apply: '%s')", (apply) => {
  const options = { every: 4, outer: AVERAGING, apply } as const;

  /** Each peer adds its rank + 1 in each of `rounds` · 4 steps. */
  async function train(members: Members, rounds: number, disturb: (group: Group, rank: number) => Group) {
    const trainees = await members.all(async (group, rank) => {
      const one = await trainee(disturb(group, rank), options);
      await trainUntil(one, rounds, rank + 1);
      await one.diloco.finish();
      return one;
    });
    expectEqualBits(trainees);
    return trainees;
  }

  test('when it failed for all: no step is missing or counted twice', async () => {
    await using members = await Members.form(3, INLINE);
    const trainees = await train(members, 6, (group, rank) => (rank === 1 ? withdrawing(group, [1, 2]) : group));
    for (const { parameters, diloco } of trainees) {
      expect(diloco.totals.lost).toBe(2);
      expect([...parameters.x]).toEqual([6 * 4 * 2]);
    }
  });

  test.each([0, 1])('when one peer alone saw it fail (rank %i): the others had counted its steps', async (wrong) => {
    await using members = await Members.form(3, INLINE);
    const trainees = await train(members, 6, (group, rank) => (rank === wrong ? misinformed(group, [1]) : group));
    expect(trainees.map(({ diloco }) => diloco.totals.lost)).toEqual([0, 1, 2].map((rank) => (rank === wrong ? 1 : 0)));
    for (const { parameters } of trainees) expect([...parameters.x]).toEqual([6 * 4 * 2]);
  });
});

test('a peer that is too slow costs the round, not its steps', async () => {
  await using members = await Members.form(2, INLINE);
  const options = { every: 2, outer: AVERAGING, wire: { timeout: 400 } } as const;
  const trainees = await members.all((group) => trainee(group, options));
  const [quick, slow] = trainees as [Trainee, Trainee];
  const lost = trainUntil(quick, 1, 1);
  // Its first round is over when the other has given up on it.
  await expect.poll(() => quick.diloco.totals.lost, { timeout: 5_000 }).toBe(1);
  // By now the other may have given up on the next round's opening as well: what it withdrew from costs this peer nothing.
  await Promise.all([lost, trainUntil(slow, 1, 3)]);
  await Promise.all([trainUntil(quick, 2, 1), trainUntil(slow, 2, 3)]);
  expectEqualBits(trainees);
  for (const { parameters, diloco } of trainees) {
    expect(diloco.totals.lost).toBe(1);
    expect([...parameters.x]).toEqual([4 * 2]);
  }
});

describe.each(['now', 'later', 'eager'] as const)("a newcomer (apply: '%s')", (apply) => {
  test('is given the shared state, weighs nothing in its first round, and as much as others afterwards', async () => {
    await using members = await Members.form(2, INLINE);
    const options = { every: 2, outer: { learningRate: 1, momentum: 0.5 }, apply } as const;
    const old = await members.all((group) => trainee(group, options, [100, 200]));
    await Promise.all(old.map((one) => trainUntil(one, 2, 1)));

    const joining = join(members.coordinator.address, { ...INLINE, timeout: 20_000 });
    const coming = joining.then((group) => {
      members.groups.push(group);
      return trainee(group, options, [-1, -1]);
    });
    // The old members go on until it is in.
    for (let rounds = 3; members.groups[0]!.worldSize < 3; rounds++)
      await Promise.all(old.map((one) => trainUntil(one, rounds, 1)));
    const newcomer = await coming;
    expect(newcomer.diloco.weight).toBe(0);
    const { round } = newcomer.diloco;
    expect(old.map(({ diloco }) => diloco.round)).toEqual([round, round]);
    expect(round).toBeGreaterThan(2);
    // What it does in its first round is poison.
    await Promise.all([
      ...old.map((one) => trainUntil(one, round + 1, 1)),
      trainUntil(newcomer, round + 1, Number.NaN),
    ]);
    const all = [...old, newcomer];
    expect(newcomer.diloco.weight).toBe(2);
    await Promise.all(all.map((one) => trainUntil(one, round + 3, 1)));
    await Promise.all(all.map((one) => one.diloco.finish()));
    expectEqualBits(all);
    for (const { parameters } of all) {
      expect(parameters.x).toEqual(all[0]!.parameters.x);
      expect([...parameters.x].every(Number.isFinite)).toBe(true);
    }
  });
});
