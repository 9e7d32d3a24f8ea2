/** Sources that are killed while a newcomer fetches, and members that die in a sync: real processes, SIGKILL. */
import type { SharedState } from 'skein';
import { expect, test } from 'vitest';
import { Cluster } from '../harness/cluster.ts';
import type { PeerScope } from '../harness/peer-process.ts';

const MIB = 1024 * 1024;

/** Trains until it is told to stop; kills itself when it has given others so many bytes. */
async function train(
  { skein, state: kept, tell }: PeerScope,
  { bytes, dieAt }: { bytes: number; dieAt: number | null },
) {
  const group = kept.group!;
  const weights = skein.sharedTensor('f32', bytes / 4);
  const state: SharedState = { revision: 0, entries: { weights, steps: 0 } };
  for (let at = 0; at < weights.length; at++) weights[at] = at % 1_000;
  if (dieAt !== null) {
    const look = async () => {
      const [shared] = (await group.status()).states;
      if ((shared?.sent ?? 0) >= dieAt) process.kill(process.pid, 'SIGKILL');
      setTimeout(look, 5);
    };
    void look();
  }
  let isTold = false;
  for await (const { index, worldSize, joined, sync } of group.steps({ state, sync: { changed: ['steps'] } })) {
    if (index === 3) tell('trains');
    if (joined.length > 0 && !isTold && index > 3) {
      isTold = true;
      tell('is in company');
    }
    await group.barrier();
    (state.entries['steps'] as number) += 1;
    if (index >= 20 && isTold && worldSize === 3) return { index, hash: sync!.hash, steps: state.entries['steps'] };
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  return null;
}

/** Joins with a state of zeros, and trains along. */
async function come({ skein, state: kept }: PeerScope, { address, bytes }: { address: string; bytes: number }) {
  const weights = skein.sharedTensor('f32', bytes / 4);
  const state: SharedState = { revision: 0, entries: { weights, steps: 0 } };
  const group = await skein.join(address, { timeout: 30_000, state });
  kept.group = group;
  let first: { prefetched: number; hash: string; index: number } | null = null;
  for await (const { index, sync } of group.steps({ state, sync: { changed: ['steps'] } })) {
    if (first === null) {
      const wrong = weights.findIndex((value, at) => value !== at % 1_000);
      if (wrong >= 0 || state.entries['steps'] !== index) throw new Error(`element ${wrong} is wrong in step ${index}`);
      first = { prefetched: sync!.prefetched, hash: sync!.hash, index };
    }
    await group.barrier();
    (state.entries['steps'] as number) += 1;
    if (group.worldSize === 1) break;
  }
  return first;
}

test('a newcomer whose sources are killed fetches the rest from those that are left', async () => {
  const bytes = 96 * MIB; // each source gives as much as its steps can spare: that much of it at least
  await using cluster = await Cluster.start();
  const members = await cluster.form(4, { stripes: 1 });
  const dieAt = [null, null, 2 * MIB, 4 * MIB];
  const training = members.map((member, rank) => member.run(train, { bytes, dieAt: dieAt[rank]! }));
  const deaths = training.slice(2).map((one) => one.catch((error: Error) => error.message));
  await Promise.all(members.map((member) => member.told('trains')));
  const newcomer = cluster.spawn();
  const coming = newcomer.run(come, { address: cluster.coordinator.address, bytes });
  expect(await Promise.all(deaths)).toEqual([expect.stringContaining('SIGKILL'), expect.stringContaining('SIGKILL')]);
  const survivors = await Promise.all(training.slice(0, 2));
  await Promise.all(members.slice(0, 2).map((member) => member.run(({ state }) => state.group!.leave())));
  const first = await coming;
  expect(first!.prefetched).toBeGreaterThan(10 * MIB);
  expect(survivors[0]).toEqual(survivors[1]);
  expect(survivors[0]!.steps).toBe(survivors[0]!.index + 1);
});

test('those who are left agree when whoever they fetch from dies in the sync, on what one of them holds', async () => {
  const bytes = 24 * MIB;
  await using cluster = await Cluster.start();
  const members = await cluster.form(3, { stripes: 1 });
  /** Rank 0 has the highest revision, and dies when it has given some of it. */
  const results = members.map((member, rank) =>
    member.run(
      async ({ skein, state: kept }, { bytes, rank }) => {
        const group = kept.group!;
        const weights = skein.sharedTensor('f32', bytes / 4);
        weights.fill(10 - rank);
        const state: SharedState = { revision: 10 - rank, entries: { weights } };
        if (rank === 0) {
          const look = async () => {
            const [shared] = (await group.status()).states;
            if ((shared?.sent ?? 0) > 0) process.kill(process.pid, 'SIGKILL');
            setImmediate(look);
          };
          void look();
        }
        const { revision, hash } = await group.syncState(state, { strategy: 'highest-revision' });
        return { revision, hash, wrong: weights.findIndex((value) => value !== revision) };
      },
      { bytes, rank },
    ),
  );
  await expect(results[0]).rejects.toThrow('SIGKILL');
  const [one, other] = await Promise.all(results.slice(1));
  expect(one).toEqual(other);
  // It may have died when it had given everything.
  expect([9, 10]).toContain(one!.revision);
  expect(one!.wrong).toBe(-1);
});
