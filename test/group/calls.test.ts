/** What goes wrong, and what goes on: failures leave tensors and the group as they were. */
import {
  type AllReduceOptions,
  ArgumentError,
  ClosedError,
  Coordinator,
  type Group,
  type GroupEvents,
  join,
  MismatchError,
  QuorumError,
  type ReduceOptions,
  type Step,
  sharedTensor,
  type Tensor,
  TimeoutError,
  WithdrawnError,
} from 'skein';
import { describe, expect, test } from 'vitest';
import { type EngineKind, Members } from './members.ts';

const settled = (promise: Promise<unknown>): Promise<unknown> =>
  promise.then(
    (value) => value,
    (error) => error,
  );

const pause = (ms: number): Promise<void> => new Promise((resolve) => void setTimeout(resolve, ms));

/** The group works: a sum over all members is right. */
async function expectSum(groups: readonly Group[]): Promise<void> {
  const tensors = groups.map((_, rank) => Float32Array.of(rank, 10));
  await Promise.all(groups.map((group, rank) => group.allReduce(tensors[rank]!)));
  const sum = (groups.length * (groups.length - 1)) / 2;
  for (const tensor of tensors) expect([...tensor]).toEqual([sum, 10 * groups.length]);
}

describe.each<EngineKind>(['inline', 'worker'])('with an engine that is %s', (engine) => {
  test('a call that is aborted before it began fails with the reason, and for everybody', async () => {
    await using members = await Members.form(2, { engine });
    const [first, second] = members.groups as [Group, Group];
    const reason = new Error('changed my mind');
    const tensors = [new Float32Array(8).fill(1), new Float32Array(8).fill(2)] as const;
    const outcomes = await Promise.all([
      settled(first.allReduce(tensors[0], { signal: AbortSignal.abort(reason) })),
      settled(second.allReduce(tensors[1])),
    ]);
    expect(outcomes[0]).toBe(reason);
    expect(outcomes[1]).toBeInstanceOf(WithdrawnError);
    expect([...tensors[0], ...tensors[1]]).toEqual([1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2]);
    await expectSum(members.groups);
  });

  test('a call that is aborted in the middle fails for everybody, changes no tensor, and the group goes on', async () => {
    await using members = await Members.form(3, { engine });
    const tensors = members.groups.map((_, rank) => sharedTensor('f32', 8_000_000).fill(rank + 1));
    const controller = new AbortController();
    const outcomes = await members.all((group, rank) =>
      settled(
        group.allReduce(tensors[rank]!, {
          ...(rank === 1 ? { signal: controller.signal, onProgress: () => controller.abort() } : {}),
        }),
      ),
    );
    expect(outcomes[1]).toMatchObject({ name: 'AbortError' });
    for (const rank of [0, 2]) {
      expect(outcomes[rank]).toBeInstanceOf(WithdrawnError);
      expect(outcomes[rank]).toMatchObject({ peer: members.groups[1]!.peerId, code: 'SKEIN_WITHDRAWN' });
    }
    tensors.forEach((tensor, rank) => {
      expect(tensor.every((element) => element === rank + 1)).toBe(true);
    });
    await expectSum(members.groups);
  });

  test('a call that nobody else makes runs out of time and says whom it waited for', async () => {
    await using members = await Members.form(2, { engine });
    const [first, second] = members.groups as [Group, Group];
    const tensor = Float32Array.of(1, 2, 3);
    const error = await settled(first.allReduce(tensor, { timeout: 150, tag: 'lonely' }));
    expect(error).toBeInstanceOf(TimeoutError);
    expect(error).toMatchObject({ message: expect.stringContaining(second.peerId), epoch: first.epoch });
    expect([...tensor]).toEqual([1, 2, 3]);
    // The other one learns it when it makes that call, and both go on.
    expect(await settled(second.allReduce(Float32Array.of(4, 5, 6), { tag: 'lonely' }))).toBeInstanceOf(WithdrawnError);
    await expectSum(members.groups);
  });

  test('different calls under one number are a mismatch on both, with both calls named', async () => {
    await using members = await Members.form(2, { engine });
    const [first, second] = members.groups as [Group, Group];
    const calls: readonly [Tensor, ReduceOptions][][] = [
      [
        [new Float32Array(5), {}],
        [new Float32Array(6), {}],
      ],
      [
        [new Float32Array(5), {}],
        [new Int32Array(5), {}],
      ],
      [
        [new Float32Array(5), { op: 'sum' }],
        [new Float32Array(5), { op: 'max' }],
      ],
      [
        [new Float32Array(5), { algorithm: 'ring' }],
        [new Float32Array(5), { algorithm: 'tree' }],
      ],
      [
        [new Float32Array(500_000), { codec: 'f32' }],
        [new Float32Array(500_000), { codec: 'bf16' }],
      ],
      [
        [new Float32Array(5), { consistency: 'commit' }],
        [new Float32Array(5), { consistency: 'eager' }],
      ],
    ];
    for (const [left, right] of calls) {
      const outcomes = await Promise.all([
        settled(first.allReduce(left![0], left![1])),
        settled(second.allReduce(right![0], right![1])),
      ]);
      for (const outcome of outcomes) expect(outcome).toBeInstanceOf(MismatchError);
      expect(String(outcomes[0])).toContain(first.peerId);
      expect(String(outcomes[0])).toContain(second.peerId);
    }
    const kinds = await Promise.all([settled(first.barrier()), settled(second.allReduce(new Float32Array(1)))]);
    for (const outcome of kinds) expect(outcome).toBeInstanceOf(MismatchError);
    await expectSum(members.groups);
  });

  test('calls wait for a quorum, and fail with what is missing', async () => {
    await using members = await Members.form(2, { engine });
    const errors = await members.all((group) =>
      settled(group.allReduce(new Float32Array(3), { minWorldSize: 5, timeout: 120 })),
    );
    for (const error of errors) {
      expect(error).toBeInstanceOf(QuorumError);
      expect(String(error)).toMatch(/5 members; there are 2/);
    }
    const boundary = await settled(members.groups[0]!.admit({ minWorldSize: 4, timeout: 100 }));
    expect(boundary).toBeInstanceOf(QuorumError);
    await expectSum(members.groups);
  });

  test('a member that leaves is missed by nobody, and can do no more', async () => {
    await using members = await Members.form(3, { engine });
    const [first, second, third] = members.groups as [Group, Group, Group];
    const lost: GroupEvents['peer-lost'][] = [];
    first.on('peer-lost', (event) => lost.push(event));
    await second.leave();
    await second.leave();
    expect(() => second.allReduce(new Float32Array(1))).toThrow(ClosedError);
    await expectSum([first, third]);
    expect(first.worldSize).toBe(2);
    expect(third.rank).toBe(1);
    expect(lost).toEqual([expect.objectContaining({ peerId: second.peerId, reason: 'left' })]);
  });

  test('leave waits for the calls that are open', async () => {
    await using members = await Members.form(2, { engine });
    const [first, second] = members.groups as [Group, Group];
    const mine = sharedTensor('f32', 3_000_000).fill(1);
    const theirs = sharedTensor('f32', 3_000_000).fill(2);
    const call = first.allReduce(mine);
    const leaving = first.leave();
    await second.allReduce(theirs);
    await Promise.all([call, leaving]);
    expect([mine.at(-1), theirs.at(-1)]).toEqual([3, 3]);
  });

  test('steps let newcomers in, at one boundary for all', async () => {
    await using members = await Members.form(2, { engine });
    const seen: string[][] = [];
    /** Until some steps after the newcomer came in, which is the same step on every member. */
    const run = async (group: Group, from: number, joinedAt: number | null) => {
      const own: string[] = [];
      seen.push(own);
      let last = joinedAt === null ? null : joinedAt + 5;
      for await (const step of group.steps({ from })) {
        const at = Int32Array.of(step.index, 1);
        await group.allReduce(at, { op: 'max' });
        // Everybody is at the same step.
        expect(at[0]).toBe(step.index);
        // The first boundary let in the founders.
        if (step.joined.length > 0 && step.index > 0) {
          own.push(`${step.index}: ${step.worldSize} ${step.epoch} ${step.joined.join()}`);
          last = step.index + 5;
        }
        if (step.index === last) break;
      }
    };
    const running = members.groups.map((group) => run(group, 0, null));
    const newcomer = await join(members.coordinator.address, { engine, timeout: 20_000 });
    members.groups.push(newcomer);
    expect(newcomer.worldSize).toBe(3);
    // A newcomer does not know the members' step: it asks.
    const index = Int32Array.of(0, 1);
    const steps = newcomer.steps();
    const first = (await steps.next()).value as Step;
    await newcomer.allReduce(index, { op: 'max' });
    const joinedAt = index[0]!;
    await Promise.all([...running, run(newcomer, joinedAt + 1, joinedAt)]);
    const line = `${joinedAt}: 3 ${first.epoch} ${newcomer.peerId}`;
    expect(seen).toEqual([[line], [line], []]);
  });

  test('tells of views, and no more after off', async () => {
    await using members = await Members.form(1, { engine });
    const [first] = members.groups as [Group];
    const views: number[] = [];
    const listener = (event: GroupEvents['view']) => views.push(event.members.length);
    first.on('view', listener);
    const joining = join(members.coordinator.address, { engine, timeout: 20_000 });
    while (first.worldSize === 1) {
      await first.admit();
      await pause(5);
    }
    const second = await joining;
    expect(views).toEqual([2]);
    first.off('view', listener);
    await second.leave();
    await expectSum([first]);
    expect(views).toEqual([2]);
  });

  test('runs side by side on one coordinator do not see each other', async () => {
    await using members = await Members.form(2, { engine, run: 'left' });
    const others = await Promise.all(
      [0, 1].map(() => join(members.coordinator.address, { engine, run: 'right', startWorldSize: 2, timeout: 20_000 })),
    );
    try {
      others.sort((left, right) => left.rank - right.rank);
      await Promise.all([expectSum(members.groups), expectSum(others)]);
      expect(Object.keys(members.coordinator.status()).sort()).toEqual(['left', 'right']);
    } finally {
      await Promise.all(others.map((group) => group.leave()));
    }
  });

  test('bad arguments fail at once, clearly, and nothing is sent', async () => {
    await using members = await Members.form(2, { engine });
    const [group] = members.groups as [Group];
    const tensor = new Float32Array(6);
    // As a caller without types would.
    const wrong = <T>(value: unknown) => value as T;
    const calls: readonly [string, RegExp, () => unknown][] = [
      ['no tensor', /is not a tensor/, () => group.allReduce(wrong<Tensor>('text'))],
      ['no tensors', /empty array/, () => group.allReduce([])],
      ['mixed dtypes', /mixes f32 and f64/, () => group.allReduce([tensor, new Float64Array(1)])],
      ['short out', /needed/, () => group.allReduce(tensor, { out: new Float32Array(5) })],
      ['other dtype of out', /needed/, () => group.allReduce(tensor, { out: new Float64Array(6) })],
      ['unknown op', /`op` must be one of/, () => group.allReduce(tensor, { op: wrong('mode') })],
      ['unknown algorithm', /`algorithm` must be one of/, () => group.allReduce(tensor, { algorithm: wrong('star') })],
      ['unknown codec', /`codec` must be one of/, () => group.allReduce(tensor, { codec: wrong('int3') })],
      ['codec of integers', /works on f32/, () => group.allReduce(new Int32Array(2), { codec: 'bf16' })],
      ['codec and doubling', /doubling/, () => group.allReduce(tensor, { codec: 'bf16', algorithm: 'doubling' })],
      ['negative timeout', /`timeout`/, () => group.allReduce(tensor, { timeout: -1 })],
      ['long tag', /`tag`/, () => group.allReduce(tensor, { tag: 'x'.repeat(201) })],
      ['quorum of nobody', /`minWorldSize`/, () => group.allReduce(tensor, { minWorldSize: 0 })],
      [
        'a broadcast that leaves somebody out',
        /`stragglers: 'exclude'` is for allReduce/,
        () => {
          const options: AllReduceOptions = { stragglers: 'exclude' };
          return group.broadcast(tensor, options);
        },
      ],
      ['unknown root', /no member/, () => group.broadcast(tensor, { root: 2 })],
      ['short gather', /needed/, () => group.gather(tensor, new Float32Array(11))],
      ['short allGather', /needed/, () => group.allGather(tensor, new Float32Array(11))],
      ['odd allToAll', /equal parts/, () => group.allToAll(new Float32Array(5), new Float32Array(5))],
      ['scatter of nothing', /needs 12 elements/, () => group.scatter(undefined, tensor)],
      [
        'broadcast by doubling',
        /`algorithm` must be one of ring, tree/,
        () => group.broadcast(tensor, { algorithm: 'doubling' }),
      ],
    ];
    for (const [what, message, call] of calls) {
      const error = await settled((async () => call())());
      expect(error, what).toBeInstanceOf(ArgumentError);
      expect(String(error), what).toMatch(message);
    }
    await expectSum(members.groups);
  });
});

test('an inline engine refuses to block', async () => {
  await using members = await Members.form(1, { engine: 'inline' });
  expect(() => members.groups[0]!.allReduceSync(new Float32Array(1))).toThrow(/engine thread/);
});

test('join says what is wrong with its options, and stops when it is told to', async () => {
  const error = (promise: Promise<unknown>) => settled(promise).then(String);
  expect(await error(join('nowhere:99999999'))).toMatch(/not a coordinator's address/);
  expect(await error(join('tcp://127.0.0.1:1', { stripes: 0 }))).toMatch(/`stripes`/);
  expect(await error(join('tcp://127.0.0.1:1', { transports: [] }))).toMatch(/`transports` is empty/);
  expect(await error(join('tcp://127.0.0.1:1', { engine: 'inline' }))).toMatch(/ConnectError/);
  expect(await error(join('tcp://127.0.0.1:1', { signal: AbortSignal.abort() }))).toMatch(/AbortError/);
  await using members = await Members.form(1, { engine: 'inline' });
  const controller = new AbortController();
  const waiting = join(members.coordinator.address, { signal: controller.signal, timeout: 20_000 });
  setTimeout(() => controller.abort(new Error('no longer needed')), 100);
  expect(await error(waiting)).toMatch(/no longer needed/);
  const late = await settled(join(members.coordinator.address, { timeout: 200 }));
  expect(late).toBeInstanceOf(QuorumError);
});

test('a peer whose join was called off does not come in all the same, in an inline engine either', async () => {
  await using coordinator = await Coordinator.listen({ port: 0 });
  const { address } = coordinator;
  const controller = new AbortController();
  const waiting = join(address, { engine: 'inline', startWorldSize: 2, signal: controller.signal, timeout: 20_000 });
  setTimeout(() => controller.abort(new Error('no longer needed')), 1_500);
  expect(String(await settled(waiting))).toMatch(/no longer needed/);
  await pause(500);
  const group = await join(address, { engine: 'inline', startWorldSize: 1, timeout: 20_000 });
  expect(group.worldSize).toBe(1);
  await group.leave();
});
