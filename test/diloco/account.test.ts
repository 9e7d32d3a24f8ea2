/**
 * The account of inner steps at the end of a run, where there is no later round to hide in: with several fragments, losses in
 * the last rounds, and failures that peers see differently, the final merge finds every step of every peer exactly once.
 */
import type { Group } from 'skein';
import { describe, expect, test } from 'vitest';
import { Members } from '../group/members.ts';
import {
  AVERAGING,
  expectEqualBits,
  misinformed,
  misinformedOfCensus,
  trainee,
  trainUntil,
  withdrawing,
  withdrawingFromCensus,
} from './peers.ts';

const INLINE = { engine: 'inline' } as const;
const ROUNDS = 6;
const EVERY = 4;
type Disturbance = (group: Group, rank: number) => Group;

/** Each peer adds its rank + 1 in each step. */
async function train(members: Members, apply: 'now' | 'later' | 'eager', count: number, disturb: Disturbance) {
  const options = { every: EVERY, outer: AVERAGING, apply, fragments: { count } } as const;
  return members.all(async (group, rank) => {
    const one = await trainee(
      disturb(group, rank),
      options,
      Array.from({ length: count }, () => 0),
    );
    await trainUntil(one, ROUNDS, rank + 1);
    await one.diloco.finish();
    return one;
  });
}

type Trained = Awaited<ReturnType<typeof train>>;

/** What all steps add up to, for a mean change of `mean` in each. */
async function expectComplete(trainees: Trained, mean: number): Promise<void> {
  await Promise.all(trainees.map(({ diloco }) => diloco.finalMerge()));
  expectEqualBits(trainees);
  for (const { parameters } of trainees)
    expect([...parameters.x]).toEqual([...parameters.x].map(() => ROUNDS * EVERY * mean));
}

const locals = (trainees: Trained) => trainees.map(({ parameters }) => [...parameters.x]);

/** Numbers of a round's calls, for so many fragments. */
const callOf = (round: number, fragment: number, count: number) => round * count + fragment;

describe.each(['now', 'later', 'eager'] as const)("apply: '%s'", (apply) => {
  test.each([1, 2, 3])('of %i fragments, finish() leaves all steps in the parameters, once', async (count) => {
    await using members = await Members.form(3, INLINE);
    const trainees = await train(members, apply, count, (group) => group);
    const before = locals(trainees);
    for (let at = 0; at < count; at++) {
      const sum = before.reduce((total, values) => total + values[at]!, 0);
      expect(sum / 3).toBeCloseTo(ROUNDS * EVERY * 2, 4);
    }
    await Promise.all(trainees.map(({ diloco }) => diloco.finish()));
    expect(locals(trainees)).toEqual(before);
    await expectComplete(trainees, 2);
  });

  test.each([[[4]], [[5]], [[4, 5]]])('a loss in the last two rounds: %j, for all', async (rounds) => {
    for (const count of [1, 2]) {
      await using members = await Members.form(3, INLINE);
      const lost = rounds.flatMap((round) => Array.from({ length: count }, (_, at) => callOf(round, at, count)));
      const trainees = await train(members, apply, count, (group, rank) =>
        rank === 1 ? withdrawing(group, lost) : group,
      );
      const before = locals(trainees);
      const sum = before.reduce((total, [first]) => total + first!, 0);
      expect(sum / 3).toBeCloseTo(ROUNDS * EVERY * 2, 4);
      await Promise.all(trainees.map(({ diloco }) => diloco.finish()));
      expect(locals(trainees)).toEqual(before);
      await expectComplete(trainees, 2);
    }
  });

  test.each([0, 1])('a loss in the last two rounds that only rank %i sees', async (wrong) => {
    for (const lost of [[callOf(4, 0, 2)], [callOf(5, 1, 2)], [callOf(4, 1, 2), callOf(5, 0, 2)]]) {
      await using members = await Members.form(3, INLINE);
      const trainees = await train(members, apply, 2, (group, rank) =>
        rank === wrong ? misinformed(group, lost) : group,
      );
      await expectComplete(trainees, 2);
    }
  });

  test.each([0, 1])('one fragment fails for rank %i alone, the other for all, in one round', async (wrong) => {
    for (const round of [1, 4, 5]) {
      for (const alone of [0, 1]) {
        await using members = await Members.form(3, INLINE);
        const trainees = await train(members, apply, 2, (group, rank) => {
          if (rank === wrong) return misinformed(group, [callOf(round, alone, 2)]);
          return rank === 2 ? withdrawing(group, [callOf(round, 1 - alone, 2)]) : group;
        });
        await expectComplete(trainees, 2);
      }
    }
  });

  test('each of two peers sees another fragment fail alone: who follows takes back what it counted', async () => {
    for (const round of [1, 5]) {
      await using members = await Members.form(2, INLINE);
      const trainees = await train(members, apply, 2, (group, rank) => misinformed(group, [callOf(round, rank, 2)]));
      await expectComplete(trainees, 1.5);
    }
  });

  test('a run goes on after finish(): nothing is counted twice', async () => {
    await using members = await Members.form(3, INLINE);
    const trainees = await train(members, apply, 2, (group, rank) =>
      rank === 1 ? withdrawing(group, [10, 11]) : group,
    );
    await Promise.all(trainees.map((one, rank) => trainUntil(one, ROUNDS + 2, rank + 1)));
    await Promise.all(trainees.map(({ diloco }) => diloco.finalMerge()));
    expectEqualBits(trainees);
    for (const { parameters } of trainees) expect([...parameters.x]).toEqual([64, 64]);
  });
});

describe.each(['now', 'later', 'eager'] as const)("the final merge of a run without rounds (apply: '%s')", (apply) => {
  /** Ten steps of `rank` from 5, a merge, and everybody leaves at once. */
  async function merge(members: Members, disturb: Disturbance, count = 1) {
    const options = { every: 1_000, apply, fragments: { count }, wire: { timeout: 5_000 } } as const;
    return members.all(async (group, rank) => {
      const one = await trainee(disturb(group, rank), options, [5, 5]);
      for (let step = 0; step < 10; step++) {
        for (let at = 0; at < 2; at++) one.parameters.x[at]! += rank;
        await one.diloco.step();
      }
      await one.diloco.finalMerge();
      await group.leave();
      return one;
    });
  }

  test.each<[string, number, Disturbance]>([
    ['nothing fails', 1, (group) => group],
    ['it failed for all once', 1, (group, rank) => (rank === 1 ? withdrawing(group, [0]) : group)],
    ['one of two fragments failed for all', 2, (group, rank) => (rank === 1 ? withdrawing(group, [1]) : group)],
    ['one peer alone saw it fail', 1, (group, rank) => (rank === 1 ? misinformed(group, [0]) : group)],
    ['the leader alone saw it fail', 1, (group, rank) => (rank === 0 ? misinformed(group, [0]) : group)],
    [
      'one fragment failed for one peer alone, the other for all',
      2,
      (group, rank) => (rank === 1 ? misinformed(group, [0]) : rank === 2 ? withdrawing(group, [1]) : group),
    ],
  ])('ends with the mean on all when %s', async (_name, count, disturb) => {
    await using members = await Members.form(4, INLINE);
    const trainees = await merge(members, disturb, count);
    expectEqualBits(trainees);
    for (const { parameters } of trainees) expect([...parameters.x]).toEqual([20, 20]);
  });

  test('one who saw neither the merge nor the closing census is given the mean', async () => {
    await using members = await Members.form(4, INLINE);
    // Censuses: 0 of the first round, 1 before the merge, 2 after it.
    const trainees = await merge(members, (group, rank) =>
      rank === 1 ? misinformedOfCensus(misinformed(group, [0]), [2]) : group,
    );
    expectEqualBits(trainees);
    for (const { parameters } of trainees) expect([...parameters.x]).toEqual([20, 20]);
  });

  test('throws the last error when all attempts failed, and may be called again: no step is lost', async () => {
    await using members = await Members.form(3, INLINE);
    const trainees = await members.all(async (group, rank) => {
      const disturbed = rank === 1 ? withdrawing(group, [0, 1, 2]) : group;
      const one = await trainee(disturbed, { every: 1_000, apply });
      one.parameters.x[0]! += 3 * rank;
      await one.diloco.step();
      await expect(one.diloco.finalMerge()).rejects.toThrow(rank === 1 ? 'withdrawn by the test' : /./);
      expect([...one.parameters.x]).toEqual([3 * rank]);
      await one.diloco.finalMerge();
      return one;
    });
    expectEqualBits(trainees);
    for (const { parameters } of trainees) expect([...parameters.x]).toEqual([3]);
  });
});

test('a peer that missed the census in which another was found to be behind falls in again at once', async () => {
  await using members = await Members.form(3, INLINE);
  const startedAt = performance.now();
  const trainees = await train(members, 'now', 1, (group, rank) => {
    if (rank === 0) return misinformed(group, [1]);
    return rank === 1 ? misinformedOfCensus(group, [2]) : group; // the one after that round
  });
  await expectComplete(trainees, 2);
  expect(performance.now() - startedAt).toBeLessThan(10_000); // half a time-out
});

test('a round that ended is told by the first step() that returns, when the next could not be opened at once', async () => {
  await using members = await Members.form(2, INLINE);
  const reports = await members.all(async (group, rank) => {
    const disturbed = rank === 1 ? withdrawingFromCensus(group, [1, 2, 3]) : group;
    const { diloco, parameters } = await trainee(disturbed, { every: 1, outer: AVERAGING });
    parameters.x[0]! += rank;
    if (rank === 1) await expect(diloco.step()).rejects.toThrow('withdrawn by the test');
    const { round, hasEnded, synced } = await diloco.step();
    return { round, hasEnded, outcomes: synced.map(({ outcome }) => outcome), x: parameters.x[0] };
  });
  for (const report of reports) expect(report).toEqual({ round: 1, hasEnded: true, outcomes: ['applied'], x: 0.5 });
});
