/** Robust averages and guards through the public API. */
import {
  type AllReduceOptions,
  ArgumentError,
  type Group,
  MismatchError,
  PoisonedInputError,
  type ReduceOp,
  sharedTensor,
  type TransferOptions,
  WithdrawnError,
} from 'skein';
import { describe, expect, test } from 'vitest';
import { type EngineKind, Members } from './members.ts';

const settled = (promise: Promise<unknown>): Promise<unknown> =>
  promise.then(
    (value) => value,
    (error) => error,
  );

const ROBUST: readonly AllReduceOptions[] = [
  { op: 'median' },
  { op: 'trimmed-mean' },
  { op: 'centered-clip', clipRadius: 0.5 },
];

/** A sine of a phase of its own for each rank. */
function wave(count: number, rank: number): Float32Array {
  return Float32Array.from({ length: count }, (_, at) => Math.sin(at + rank / 4));
}

function expectSameBits(tensors: readonly Float32Array[]): void {
  const bytes = (tensor: Float32Array) => new Uint8Array(tensor.buffer, tensor.byteOffset, tensor.byteLength);
  for (const tensor of tensors) expect(Buffer.compare(bytes(tensor), bytes(tensors[0]!))).toBe(0);
}

/** Elements that are not between the lowest and the highest of the honest ones, with a margin. */
function strays(result: Float32Array, honest: readonly Float32Array[], margin: number): number {
  return result.filter((value, at) => {
    const of = honest.map((tensor) => tensor[at]!);
    return !(value >= Math.min(...of) - margin && value <= Math.max(...of) + margin);
  }).length;
}

test('one of six that sends NaN, infinity and 1e30 moves no robust average out of what the others sent', async () => {
  const count = 100_003;
  await using members = await Members.form(6, { engine: 'inline' });
  const inputs = members.groups.map((_, rank) =>
    rank === 2
      ? Float32Array.from({ length: count }, (_, at) => [Number.NaN, Number.NEGATIVE_INFINITY, 1e30, -1e30][at % 4]!)
      : wave(count, rank),
  );
  const honest = inputs.filter((_, rank) => rank !== 2);
  const reduce = async (options: AllReduceOptions): Promise<Float32Array> => {
    const tensors = inputs.map((input) => input.slice());
    const reports = await members.all((group, rank) => group.allReduce(tensors[rank]!, options));
    expectSameBits(tensors);
    expect(reports[0]!.contributors).toHaveLength(6);
    if (options.op !== 'avg') for (const report of reports) expect(report.algorithm).toBe('direct');
    return tensors[0]!;
  };
  for (const codec of ['f32', 'bf16', 'int8'] as const) {
    const margin = { f32: 0, bf16: 0.01, int8: 0.01 }[codec];
    for (const options of ROBUST) {
      const pull = options.clipRadius === undefined ? 0 : options.clipRadius / 6;
      expect(strays(await reduce({ ...options, codec }), honest, margin + pull)).toBe(0);
    }
  }
  expect(strays(await reduce({ op: 'avg' }), honest, 1)).toBe(count);
});

describe.each<EngineKind>(['inline', 'worker'])('with an engine that is %s', (engine) => {
  test('medians and trimmed means are what they are called, in one call or in parts', async () => {
    await using members = await Members.form(4, { engine });
    const count = 50_001;
    const values = [1, 20, 300, 4_000];
    const fill = () => members.groups.map((_, rank) => sharedTensor('f32', count).fill(values[rank]!));
    const reduce = async (options: AllReduceOptions): Promise<number> => {
      const tensors = fill();
      await members.all((group, rank) => group.allReduce(tensors[rank]!, options));
      for (const tensor of tensors) expect(tensor.every((value) => value === tensors[0]![0])).toBe(true);
      return tensors[0]![0]!;
    };
    expect(await reduce({ op: 'median' })).toBe(160);
    expect(await reduce({ op: 'trimmed-mean', trim: 0.3 })).toBe(160);
    expect(await reduce({ op: 'trimmed-mean' })).toBe(1_080.25); // a fifth of four is less than one
    expect(await reduce({ op: 'centered-clip', clipRadius: 200 })).toBe(160 + (-159 - 140 + 140 + 200) / 4);
    const tensors = fill();
    const outs = members.groups.map((group) => new Float32Array(Math.ceil(count / 4) - (group.rank === 0 ? 0 : 1)));
    await members.all((group, rank) => group.reduceScatter(tensors[rank]!, { op: 'median', out: outs[rank]! }));
    for (const out of outs) expect(out.every((value) => value === 160)).toBe(true);
    const doubles = members.groups.map((_, rank) => new Float64Array(9).fill(values[rank]! / 3));
    await members.all((group, rank) => group.allReduce(doubles[rank]!, { op: 'median' }));
    expect(doubles[3]![8]).toBe((20 / 3 + 300 / 3) / 2);
  });

  test('who is alone, or one of two, gets something that makes sense', async () => {
    await using members = await Members.form(2, { engine });
    for (const [options, wanted] of [
      [{ op: 'median' }, 2],
      [{ op: 'trimmed-mean', trim: 0.49 }, 2],
      [{ op: 'centered-clip', clipRadius: 0.1 }, 2],
    ] as const) {
      const tensors = [Float32Array.of(1, Number.NaN), Float32Array.of(3, 7)];
      await members.all((group, rank) => group.allReduce(tensors[rank]!, options));
      for (const tensor of tensors) expect([...tensor]).toEqual([wanted, 7]);
    }
    await members.groups.pop()!.leave();
    const alone = Float32Array.of(5, Number.NaN);
    await members.groups[0]!.allReduce(alone, { op: 'median' });
    expect([...alone]).toEqual([5, Number.NaN]);
  });

  test('members that ask for different parameters are told so', async () => {
    await using members = await Members.form(2, { engine });
    const calls: readonly [AllReduceOptions, AllReduceOptions, RegExp][] = [
      [
        { op: 'trimmed-mean', trim: 0.1 },
        { op: 'trimmed-mean', trim: 0.2 },
        /trim 0\.1.*trim 0\.2|trim 0\.2.*trim 0\.1/,
      ],
      [{ op: 'trimmed-mean' }, { op: 'median' }, /trimmed-mean/],
      [{ op: 'centered-clip', clipRadius: 1 }, { op: 'centered-clip', clipRadius: 2 }, /clip radius/],
    ];
    for (const [left, right, message] of calls) {
      const outcomes = await members.all((group, rank) =>
        settled(group.allReduce(new Float32Array(5), rank === 0 ? left : right)),
      );
      for (const outcome of outcomes) {
        expect(outcome).toBeInstanceOf(MismatchError);
        expect(String(outcome)).toMatch(message);
      }
    }
  });

  test('a guard stops a poisoned input for everybody, says where it is poisoned, and the group goes on', async () => {
    await using members = await Members.form(3, { engine });
    const culprit = members.groups[1]!;
    const inputs: readonly [TransferOptions, (tensors: Float32Array[]) => void, RegExp][] = [
      [{ guard: { finite: true } }, (tensors) => tensors[1]!.set([Number.NaN], 3), /element 3 of tensor 1 is NaN/],
      [
        { guard: { finite: true } },
        (tensors) => tensors[0]!.set([-1 / 0], 99_999),
        /element 99999 of tensor 0 is -Inf/,
      ],
      [
        { guard: { maxNorm: 1_000 } },
        (tensors) => tensors[0]!.set([1e6], 5),
        /norm is 1000000\.0\d*, above .* of 1000/,
      ],
      [{ guard: { maxNorm: 1_000 } }, (tensors) => tensors[1]!.set([Number.NaN], 0), /element 0 of tensor 1 is NaN/],
    ];
    for (const [options, poison, message] of inputs) {
      const tensors = members.groups.map(() => [new Float32Array(100_000).fill(1), new Float32Array(10).fill(2)]);
      poison(tensors[1]!);
      const before = structuredClone(tensors);
      const outcomes = await members.all((group, rank) => settled(group.allReduce(tensors[rank]!, options)));
      expect(outcomes[1]).toBeInstanceOf(PoisonedInputError);
      expect(outcomes[1]).toMatchObject({ code: 'SKEIN_POISONED_INPUT', peer: culprit.peerId });
      for (const outcome of outcomes) expect(String(outcome)).toMatch(message);
      for (const rank of [0, 2]) {
        expect(outcomes[rank]).toBeInstanceOf(WithdrawnError);
        expect(outcomes[rank]).toMatchObject({ peer: culprit.peerId });
      }
      for (const [rank, pair] of tensors.entries()) {
        for (const [index, tensor] of pair.entries()) expectSameBits([tensor, before[rank]![index]!]);
      }
    }
    // One norm for all tensors of a call: √(100,000 + 40) here.
    const sound = members.groups.map(() => [new Float32Array(100_000).fill(1), new Float32Array(10).fill(2)]);
    await members.all((group, rank) => group.allReduce(sound[rank]!, { guard: { finite: true, maxNorm: 316.3 } }));
    expect([sound[0]![0]![7], sound[2]![1]![9]]).toEqual([3, 6]);
  });

  test('other collectives have guards too', async () => {
    await using members = await Members.form(2, { engine });
    const guard = { finite: true };
    const poisoned = (group: Group) => (group.rank === 0 ? Float32Array.of(1 / 0, 1) : Float32Array.of(1, 1));
    const calls: readonly ((group: Group) => Promise<unknown>)[] = [
      (group) => group.broadcast(poisoned(group), { guard }),
      (group) => group.reduce(poisoned(group), { guard, root: 1 }),
      (group) => group.reduceScatter(poisoned(group), { guard }),
      (group) => group.allGather(poisoned(group), new Float32Array(4), { guard }),
      (group) => group.gather(poisoned(group), new Float32Array(4), { guard }),
      (group) => group.scatter(group.rank === 0 ? poisoned(group) : undefined, new Float32Array(1), { guard }),
      (group) => group.allToAll(poisoned(group), new Float32Array(2), { guard }),
    ];
    for (const call of calls) {
      const outcomes = await members.all((group) => settled(call(group)));
      expect(outcomes[0]).toBeInstanceOf(PoisonedInputError);
      expect(outcomes[1]).toBeInstanceOf(WithdrawnError);
    }
    // Where only the root has an input, the others' memory may hold anything.
    const tensors = [Float32Array.of(1, 2), Float32Array.of(Number.NaN, Number.NaN)];
    await members.all((group, rank) => group.broadcast(tensors[rank]!, { guard }));
    expect([...tensors[1]!]).toEqual([1, 2]);
  });

  test('says what robust averages and guards are not for', async () => {
    await using members = await Members.form(2, { engine });
    const [group] = members.groups as [Group];
    const tensor = new Float32Array(6);
    const median = { op: 'median' } as const;
    const clip = { op: 'centered-clip', clipRadius: 1 } as const;
    const calls: readonly [RegExp, () => unknown][] = [
      [/goes 'direct'.*not by 'ring'/, () => group.allReduce(tensor, { ...median, algorithm: 'ring' })],
      [/goes 'direct'.*not by 'tree'/, () => group.allReduce(tensor, { ...clip, algorithm: 'tree' })],
      [/for allReduce and reduceScatter, not for reduce/, () => group.reduce(tensor, median)],
      [/works on f32 and f64 tensors, not on i32/, () => group.allReduce(new Int32Array(2), median)],
      [/not on bf16/, () => group.allReduce({ dtype: 'bf16', data: new Uint16Array(2) }, median)],
      [/topk can't be used/, () => group.allReduce(tensor, { ...median, codec: 'topk', errorFeedback: false })],
      [/`errorFeedback`/, () => group.allReduce(tensor, { ...median, codec: 'int8', errorFeedback: true })],
      [/`trim` must be from 0 to below 0\.5/, () => group.allReduce(tensor, { op: 'trimmed-mean', trim: 0.5 })],
      [/`trim` must be/, () => group.allReduce(tensor, { op: 'trimmed-mean', trim: Number.NaN })],
      [/`trim` is for .*not for median/, () => group.allReduce(tensor, { ...median, trim: 0.1 })],
      [/`clipRadius` is for .*not for sum/, () => group.allReduce(tensor, { clipRadius: 1 })],
      [/needs a positive `clipRadius`/, () => group.allReduce(tensor, { op: 'centered-clip' })],
      [/needs a positive `clipRadius`/, () => group.allReduce(tensor, { ...clip, clipRadius: 1 / 0 })],
      [/`guard` looks for nothing/, () => group.allReduce(tensor, { guard: {} })],
      [/`guard.maxNorm` must be/, () => group.allReduce(tensor, { guard: { maxNorm: -1 } })],
      [/`guard` is for floats, not for i32/, () => group.allReduce(new Int32Array(2), { guard: { finite: true } })],
    ];
    for (const [message, call] of calls) {
      const error = await settled((async () => call())());
      expect(error).toBeInstanceOf(ArgumentError);
      expect((error as Error).message).toMatch(message);
    }
  });
});

test('a blocking call is guarded as well', async () => {
  await using members = await Members.form(1, { engine: 'worker' });
  const tensor = Float32Array.of(1, Number.NaN);
  const options = { op: 'median' as ReduceOp, guard: { finite: true } };
  expect(() => members.groups[0]!.allReduceSync(tensor, options)).toThrow(PoisonedInputError);
});

test('a member that leaves in the middle is no contributor to the median that is redone', async () => {
  await using members = await Members.form(4, { engine: 'inline', minWorldSize: 1 });
  const count = 300_000;
  const last = members.groups.pop()!;
  const tensors = members.groups.map((_, rank) => new Float32Array(count).fill(10 ** rank));
  const pending = members.all((group, rank) => group.allReduce(tensors[rank]!, { op: 'median' }));
  await new Promise((resolve) => setTimeout(resolve, 50));
  await last.leave();
  for (const report of await pending) expect(report).toMatchObject({ worldSize: 3, retries: 1 });
  for (const tensor of tensors) expect(tensor.every((value) => value === 10)).toBe(true);
});
