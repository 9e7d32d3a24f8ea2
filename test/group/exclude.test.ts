import { ArgumentError, ExcludedError, type Group } from 'skein';
import { expect, test } from 'vitest';
import { Members } from './members.ts';

const COUNT = 300_000;
const LATE_MS = 7_000;

async function sum(group: Group, rank: number): Promise<{ values: Float32Array; contributors: readonly string[] }> {
  const values = new Float32Array(COUNT).fill(rank + 1);
  const { contributors } = await group.allReduce(values, { algorithm: 'ring', stragglers: 'exclude' });
  return { values, contributors };
}

// They wait, most of the time: all at once.
test.concurrent.each(['inline', 'worker'] as const)(
  'the others go on without one that comes late, and it stays a member (%s)',
  { timeout: 40_000 },
  async (engine) => {
    await using members = await Members.form(3, { engine, minWorldSize: 2 });
    const ids = members.groups.map((group) => group.peerId);
    const startedAt = performance.now();
    const elapsed: number[] = [];
    let toCaughtUp: () => void = () => {};
    const caughtUp = new Promise<void>((resolve) => {
      toCaughtUp = resolve;
    });
    await members.all(async (group, rank) => {
      if (rank === 1) {
        await new Promise((resolve) => setTimeout(resolve, LATE_MS));
        const values = new Float32Array(COUNT).fill(9);
        const call = group.allReduce(values, { algorithm: 'ring', stragglers: 'exclude' });
        await expect(call).rejects.toThrow(ExcludedError);
        expect(values.every((value) => value === 9)).toBe(true);
        toCaughtUp();
      } else {
        const { values, contributors } = await sum(group, rank);
        elapsed.push(performance.now() - startedAt);
        expect(contributors).toEqual([ids[0], ids[2]]);
        expect(values.every((value) => value === 4)).toBe(true);
      }
      // It has caught up: the next one is of all again.
      await caughtUp;
      const { values, contributors } = await sum(group, rank);
      expect(contributors).toEqual(ids);
      expect(values.every((value) => value === 6)).toBe(true);
    });
    expect(Math.max(...elapsed)).toBeLessThan(LATE_MS);
    expect(members.groups.map((group) => group.worldSize)).toEqual([3, 3, 3]);
  },
);

test.concurrent('nobody is left out when too few would be left, or where the members do not want it alike', {
  timeout: 30_000,
}, async () => {
  await using members = await Members.form(2, { engine: 'inline', minWorldSize: 2 });
  await members.all(async (group, rank) => {
    if (rank === 1) await new Promise((resolve) => setTimeout(resolve, 5_000));
    const { values } = await sum(group, rank);
    expect(values.every((value) => value === 3)).toBe(true);
  });
  const [one, other] = members.groups;
  const calls = [one!.allReduce(new Float32Array(4), { stragglers: 'exclude' }), other!.allReduce(new Float32Array(4))];
  for (const result of await Promise.allSettled(calls))
    expect(result).toMatchObject({ reason: { code: 'SKEIN_MISMATCH' } });
  expect(() => one!.allReduce(new Float32Array(4), { stragglers: 'exclude', consistency: 'eager' })).toThrow(
    ArgumentError,
  );
});
