/** All members hold the same after a sync: who is behind takes what differs, and only that. */
import { join, MismatchError, type SharedState, StateLostError, type SyncStrategy, sharedTensor } from 'skein';
import { describe, expect, test } from 'vitest';
import { type EngineKind, Members } from '../group/members.ts';

const MIB = 1024 * 1024;
const INLINE = { engine: 'inline' } as const;

/** A state of a few pieces, the same on all ranks but for `fill`. */
function stateOf(fill: number, shared: boolean, revision = 0): SharedState & { entries: { weights: Float32Array } } {
  const make = (count: number) => (shared ? sharedTensor('f32', count) : new Float32Array(count));
  const weights = make((2 * MIB) / 4 + 3);
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
      if (rank === 0) expect(report).toMatchObject({ revision: 0, received: 0, from: [] });
      // The momentum is the same, and so is one of the values on rank 2.
      else expect(report.received).toBe(2 * MIB + 12 + (rank === 1 ? 3 : 2) * 8);
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
    bits[300_000]! ^= 1 << 13;
    const reports = await members.all((group, rank) => group.syncState(states[rank]!));
    const { peerId } = members.groups[2]!;
    expect(reports.map((report) => report.diverged)).toEqual([[peerId], [peerId], [peerId]]);
    expect(reports.map((report) => report.received)).toEqual([0, 0, MIB]);
    expect(reports.reduce((sum, report) => sum + report.sent, 0)).toBe(MIB);
    expectEqual(states, 1, 0);
  });
});

/** One number, and so many elements. */
function small(value: number, revision: number, count = 10): SharedState {
  return { revision, entries: { value: Float32Array.from({ length: count }, () => value), value2: value } };
}

describe('who is followed', () => {
  async function synced(strategies: readonly SyncStrategy[], held: readonly (readonly [number, number])[]) {
    await using members = await Members.form(held.length, INLINE);
    return await members.all(async (group, rank) => {
      const state = small(...held[rank]!);
      try {
        await group.syncState(state, { strategy: strategies[rank]! });
      } catch (error) {
        return error;
      }
      return [state.entries['value2'], (state.entries['value'] as Float32Array)[9], state.revision];
    });
  }

  test('most', async () => {
    const results = await synced(
      ['majority', 'majority', 'majority'],
      [
        [1, 4],
        [2, 4],
        [2, 4],
      ],
    );
    expect(results).toEqual([
      [2, 2, 4],
      [2, 2, 4],
      [2, 2, 4],
    ]);
  });

  test('the highest revision', async () => {
    const highest = 'highest-revision';
    const results = await synced(
      [highest, highest, highest],
      [
        [1, 4],
        [3, 9],
        [1, 4],
      ],
    );
    expect(results).toEqual([
      [3, 3, 9],
      [3, 3, 9],
      [3, 3, 9],
    ]);
  });

  test('who sends only, and nobody who receives only', async () => {
    const results = await synced(
      ['receive-only', 'majority', 'send-only'],
      [
        [1, 4],
        [1, 4],
        [7, 1],
      ],
    );
    expect(results).toEqual([
      [7, 7, 1],
      [7, 7, 1],
      [7, 7, 1],
    ]);
    const errors = await synced(
      ['receive-only', 'receive-only'],
      [
        [1, 4],
        [1, 4],
      ],
    );
    for (const error of errors) expect(error).toBeInstanceOf(StateLostError);
  });

  test('nobody, where they want different things', async () => {
    const errors = await synced(
      ['highest-revision', 'majority'],
      [
        [1, 4],
        [2, 4],
      ],
    );
    for (const error of errors) expect(error).toBeInstanceOf(MismatchError);
  });
});

test('entries of another length are a mismatch for all, which leaves everything as it was, and may be made good', async () => {
  await using members = await Members.form(2, INLINE);
  const { peerId } = members.groups[1]!;
  await members.all(async (group, rank) => {
    const state = small(rank + 1, 3, 10 + rank);
    await expect(group.syncState(state)).rejects.toThrow(MismatchError);
    await expect(group.syncState(state)).rejects.toThrow(peerId);
    expect(state).toEqual(small(rank + 1, 3, 10 + rank));
    await group.syncState(small(rank + 1, 3));
  });
});

test('a newcomer with other entries fails alone: the members go on', async () => {
  await using members = await Members.form(2, INLINE);
  const states = members.groups.map(() => small(1, 1));
  await members.all((group, rank) => group.syncState(states[rank]!));
  const joining = join(members.coordinator.address, { ...INLINE, timeout: 20_000 });
  while (members.groups[0]!.worldSize < 3) await members.all((group) => group.admit());
  members.groups.push(await joining);
  states.push(small(2, 1, 11));
  const results = await Promise.allSettled(members.groups.map((group, rank) => group.syncState(states[rank]!)));
  expect(results.map(({ status }) => status)).toEqual(['fulfilled', 'fulfilled', 'rejected']);
  expect((results[2] as PromiseRejectedResult).reason).toBeInstanceOf(MismatchError);
  expect(states).toEqual([small(1, 1), small(1, 1), small(2, 1, 11)]);
});

test("states of different tags don't concern one another", async () => {
  await using members = await Members.form(2, INLINE);
  await members.all(async (group, rank) => {
    const [one, other] = [small(1 + rank, 1), small(5 + rank, 2 + rank)];
    await Promise.all([
      group.syncState(one, { tag: 'one' }),
      group.syncState(other, { tag: 'other', strategy: 'highest-revision' }),
    ]);
    expect([one, other]).toEqual([small(1, 1), small(6, 3)]);
    const { states } = await group.status();
    expect(states.map(({ tag, revision, syncs }) => [tag, revision, syncs])).toEqual([
      ['one', 1, 1],
      ['other', 3, 1],
    ]);
    expect(states[0]!.hash).toMatch(/^[0-9a-f]{32}$/);
  });
});

test('what the caller says has not changed is hashed in turn: a flipped bit there is found later', async () => {
  await using members = await Members.form(2, INLINE);
  const states = members.groups.map(() => ({
    revision: 0,
    entries: { frozen: new Float32Array((12 * MIB) / 4), step: 0 },
  }));
  await members.all((group, rank) => group.syncState(states[rank]!));
  states[1]!.entries.frozen[2_900_000] = 1;
  let found = 0;
  let syncs = 0;
  for (; found === 0 && syncs < 10; syncs++) {
    const reports = await members.all((group, rank) => {
      states[rank]!.entries.step += 1;
      return group.syncState(states[rank]!, { changed: [] });
    });
    for (const { received } of reports) found += received;
  }
  expect(found).toBe(MIB);
  expect(syncs).toBeGreaterThan(1);
  expect(states.map(({ entries }) => [entries.step, entries.frozen[2_900_000]])).toEqual([
    [syncs, 0],
    [syncs, 0],
  ]);
});

describe.each<EngineKind>(['worker', 'inline'])('steps with a state (engine %s)', (engine) => {
  test('newcomers go on with what the members have, and the number of their step', async () => {
    await using members = await Members.form(2, { engine });
    /** Adds 1 to everything in each step, until somebody has made enough of them. */
    const train = async (
      group: (typeof members.groups)[number],
      state: SharedState,
      enough: number,
    ): Promise<number[]> => {
      const { weights } = state.entries as { weights: Float32Array };
      const indices: number[] = [];
      for await (const { index, sync, joined } of group.steps({ state })) {
        indices.push(index);
        expect(sync).toMatchObject({ revision: index, diverged: [] });
        if (joined.length === 0) expect(sync!.received).toBe(0);
        expect(weights.findIndex((value) => value !== index)).toBe(-1);
        const ends = Float32Array.of(indices.length >= enough ? 1 : 0);
        await group.allReduce(ends, { op: 'max' });
        for (let at = 0; at < weights.length; at++) weights[at]! += 1;
        if (ends[0] === 1) return indices;
      }
      return indices;
    };
    const fresh = (): SharedState => ({ revision: 0, entries: { weights: sharedTensor('f32', 400_000) } });
    const training = members.all((group) => train(group, fresh(), Number.POSITIVE_INFINITY));
    const state = fresh();
    const newcomer = await join(members.coordinator.address, { engine, timeout: 20_000, state });
    members.groups.push(newcomer);
    const indices = await train(newcomer, state, 5);
    const [one, other] = await training;
    expect(one).toEqual(Array.from({ length: one!.length }, (_, index) => index));
    expect(other).toEqual(one);
    expect(indices).toEqual(one!.slice(indices[0]));
  });

  test('they end where the state says so', async () => {
    await using members = await Members.form(2, { engine });
    await members.all(async (group, rank) => {
      const state = { revision: 7 - rank, entries: { value: 7 - rank } };
      const indices: number[] = [];
      const sync = { strategy: 'highest-revision' } as const;
      for await (const { index } of group.steps({ state, sync, until: 10 })) {
        indices.push(index);
        state.entries.value += 1;
      }
      expect(indices).toEqual([7, 8, 9]);
      expect(state).toEqual({ revision: 10, entries: { value: 10 } });
    });
  });
});
