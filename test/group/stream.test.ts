/** All-reduces that begin before their tensors are complete, and whose results are used as they come. */
import {
  type AllReduceStream,
  type AllReduceStreamOptions,
  ArgumentError,
  type Group,
  type ReducedRange,
  sharedTensor,
  TimeoutError,
  WithdrawnError,
} from 'skein';
import { describe, expect, expectTypeOf, test } from 'vitest';
import { type EngineKind, Members } from './members.ts';

/** Several segments on each of three ranks. */
const COUNT = 900_001;

const elementOf = (rank: number, index: number): number => rank + 1 + (index % 11);

/** Of `size` members, in f32, where it is exact. */
function expectedSum(size: number, count: number): Float32Array {
  const ranks = (size * (size + 1)) / 2;
  return Float32Array.from({ length: count }, (_, index) => ranks + size * (index % 11));
}

function sameBits(left: Float32Array, right: Float32Array): boolean {
  return Buffer.compare(Buffer.from(left.buffer, left.byteOffset, left.byteLength), Buffer.from(right.buffer)) === 0;
}

/** Parts of a tensor, in an order of this rank's own. */
function partsFor(rank: number, count: number): { offset: number; length: number }[] {
  const parts = 7 + rank;
  const size = Math.ceil(count / parts);
  return Array.from({ length: parts }, (_, index) => {
    const offset = ((index * 3 + rank) % parts) * size; // none of 7, 8 and 10 is a multiple of 3
    return { offset, length: Math.max(0, Math.min(size, count - offset)) };
  });
}

/** Fills and declares part after part, with turns of the event loop between. */
async function fill(stream: AllReduceStream, tensor: Float32Array, rank: number): Promise<void> {
  for (const { offset, length } of partsFor(rank === 2 ? 3 : rank, tensor.length)) {
    for (let index = offset; index < offset + length; index++) tensor[index] = elementOf(rank, index);
    stream.ready(offset, length);
    await new Promise((resolve) => void setImmediate(resolve));
  }
}

const settled = (promise: Promise<unknown>): Promise<unknown> =>
  promise.then(
    (value) => value,
    (error) => error,
  );

async function rangesOf(stream: AllReduceStream): Promise<ReducedRange[]> {
  const ranges: ReducedRange[] = [];
  for await (const range of stream) ranges.push(range);
  return ranges;
}

async function expectSum(groups: readonly Group[]): Promise<void> {
  const tensors = groups.map((_, rank) => Float32Array.of(elementOf(rank, 0)));
  await Promise.all(groups.map((group, rank) => group.allReduce(tensors[rank]!)));
  for (const tensor of tensors) expect([...tensor]).toEqual([...expectedSum(groups.length, 1)]);
}

describe.each<EngineKind>(['inline', 'worker'])('with an engine that is %s', (engine) => {
  const memories = [
    ['shared memory', (count: number) => sharedTensor('f32', count)],
    ['ordinary memory', (count: number) => new Float32Array(count)],
  ] as const;

  test.each(memories)('parts in any order make the sum, in place, on %s', async (_, make) => {
    await using members = await Members.form(3, { engine });
    const tensors = members.groups.map(() => make(COUNT).fill(Number.NaN));
    const ranges = await members.all(async (group, rank) => {
      const stream = group.allReduceStream(tensors[rank]!);
      const handed = rangesOf(stream);
      await fill(stream, tensors[rank]!, rank);
      expect((await stream.report).contributors).toHaveLength(3);
      return handed;
    });
    for (const tensor of tensors) expect(sameBits(tensor, expectedSum(3, COUNT))).toBe(true);
    // Where the input is, no result may be before the call has succeeded.
    for (const list of ranges) expect(list).toEqual([{ offset: 0, length: COUNT, retry: 0 }]);
  });

  test.each(memories)('parts of the result come back while others are missing everywhere, on %s', async (_, make) => {
    await using members = await Members.form(2, { engine });
    const half = 1 << 19;
    await members.all(async (group, rank) => {
      const tensor = make(2 * half);
      const out = make(2 * half).fill(Number.NaN);
      const stream = group.allReduceStream(tensor, { out, algorithm: 'ring' });
      const used = new Float32Array(2 * half);
      let early = 0;
      for (let index = 0; index < half; index++) tensor[index] = elementOf(rank, index);
      stream.ready(0, half);
      for await (const { offset, length, retry } of stream) {
        expect(retry).toBe(0);
        used.set(out.subarray(offset, offset + length), offset);
        if (early < half) {
          // Nobody has filled the other half.
          expect(offset + length).toBeLessThanOrEqual(half);
          early += length;
          if (early < half) continue;
          for (let index = half; index < 2 * half; index++) tensor[index] = elementOf(rank, index);
          stream.ready(half);
        }
      }
      await stream.report;
      expect(sameBits(used, expectedSum(2, 2 * half))).toBe(true);
      expect(sameBits(out, used)).toBe(true);
      expect(tensor[half]).toBe(elementOf(rank, half));
    });
  });

  test('tensors of a list go out one by one, as a backward pass makes them', async () => {
    await using members = await Members.form(2, { engine });
    const sizes = [3, 200_000, 0, 1, 70_000, 5];
    await members.all(async (group, rank) => {
      const tensors = sizes.map((size) => new Float32Array(size));
      const stream = group.allReduceStream(tensors, { op: 'avg' });
      for (let index = sizes.length - 1; index >= 0; index--) {
        tensors[index]!.fill(10 * index + 2 * rank);
        stream.readyTensor(index);
        await new Promise((resolve) => void setImmediate(resolve));
      }
      await stream.report;
      for (const [index, tensor] of tensors.entries())
        expect(tensor.every((element) => element === 10 * index + 1)).toBe(true);
    });
  });

  test('one member streams, another calls allReduce', async () => {
    await using members = await Members.form(2, { engine });
    const tensors = [sharedTensor('f32', COUNT), sharedTensor('f32', COUNT)] as const;
    for (let index = 0; index < COUNT; index++) tensors[1][index] = elementOf(1, index);
    const [first, second] = members.groups as [Group, Group];
    const stream = first.allReduceStream(tensors[0]);
    const whole = second.allReduce(tensors[1]);
    await fill(stream, tensors[0], 0);
    expect((await stream.report).id).toBe((await whole).id);
    for (const tensor of tensors) expect(sameBits(tensor, expectedSum(2, COUNT))).toBe(true);
  });

  test.each(['int8', 'topk'] as const)('error feedback of %s is that of whole tensors', async (codec) => {
    await using members = await Members.form(2, { engine });
    const count = 40_000;
    const results = await members.all(async (group, rank) => {
      const sums: Float32Array[] = [];
      for (const streams of [false, true]) {
        for (let step = 0; step < 3; step++) {
          const tensor = Float32Array.from({ length: count }, (_, index) => Math.sin(index * (rank + 2) + step));
          const options = { codec, errorFeedback: true, measureError: true, tag: `streams: ${streams}` } as const;
          if (streams) {
            const stream = group.allReduceStream(tensor, options);
            for (const { offset, length } of partsFor(rank, count)) stream.ready(offset, length);
            expect((await stream.report).error).toBeGreaterThan(0);
          } else {
            await group.allReduce(tensor, options);
          }
          sums.push(tensor);
        }
      }
      return sums;
    });
    for (const [index, sum] of results[0]!.entries()) {
      expect(sameBits(sum, results[1]![index]!)).toBe(true);
      expect(sameBits(sum, results[0]![index % 3]!)).toBe(true);
    }
  });

  test('a stream that is aborted half-way fails for all, and changes no tensor', async () => {
    await using members = await Members.form(2, { engine });
    const [first, second] = members.groups as [Group, Group];
    const controller = new AbortController();
    const tensors = [sharedTensor('f32', COUNT).fill(1), new Float32Array(COUNT).fill(2)] as const;
    const aborted = first.allReduceStream(tensors[0], { signal: controller.signal });
    const other = second.allReduceStream(tensors[1]);
    aborted.ready(0, 500_000);
    other.ready(400_000);
    const reason = new Error('the loss is not finite');
    controller.abort(reason);
    expect(await settled(rangesOf(aborted))).toBe(reason);
    expect(await settled(aborted.report)).toBe(reason);
    expect(await settled(other.report)).toBeInstanceOf(WithdrawnError);
    expect(await settled(rangesOf(other))).toBeInstanceOf(WithdrawnError);
    aborted.ready(500_000);
    other.ready(0, 400_000);
    expect(tensors[0].every((element) => element === 1)).toBe(true);
    expect(tensors[1].every((element) => element === 2)).toBe(true);
    await expectSum(members.groups);
  });

  test('a stream whose caller is late runs out of time, and says whom it waited for', async () => {
    await using members = await Members.form(2, { engine });
    const [first, second] = members.groups as [Group, Group];
    const tensors = [new Float32Array(COUNT).fill(1), new Float32Array(COUNT).fill(2)] as const;
    const late = first.allReduceStream(tensors[0], { timeout: 300 });
    const prompt = second.allReduceStream(tensors[1]);
    late.ready(0, 10);
    prompt.ready();
    const error = await settled(late.report);
    expect(error).toBeInstanceOf(TimeoutError);
    expect(error).toMatchObject({ message: expect.stringContaining(`${COUNT - 10} of ${COUNT} elements are ready`) });
    expect(await settled(prompt.report)).toBeInstanceOf(WithdrawnError);
    expect(tensors[0].every((element) => element === 1)).toBe(true);
    await expectSum(members.groups);
  });

  test('a world of one, and a tensor of nothing, end as well', async () => {
    await using members = await Members.form(1, { engine });
    const [only] = members.groups as [Group];
    const out = new Float32Array(3);
    const stream = only.allReduceStream(Float32Array.of(1, 2, 3), { out });
    stream.ready(1);
    stream.ready(0, 1);
    expect((await rangesOf(stream)).reduce((sum, { length }) => sum + length, 0)).toBe(3);
    expect([...out]).toEqual([1, 2, 3]);
    expect((await only.allReduceStream(new Float32Array(0)).report).worldSize).toBe(1);
  });
});

describe('what makes no sense is refused', () => {
  test('elements that are ready twice, or not there; a guard; an output on the tensor', async () => {
    await using members = await Members.form(1, { engine: 'inline' });
    const [only] = members.groups as [Group];
    const tensor = new Float32Array(10);
    const stream = only.allReduceStream([tensor, new Float32Array(5)]);
    stream.ready(2, 4);
    for (const [offset, length] of [
      [5, 1],
      [0, 3],
      [0, 15],
      [14, 2],
      [-1, 1],
      [0, -1],
      [0.5, 1],
      [0, Number.NaN],
    ] as const) {
      expect(() => stream.ready(offset, length), `${offset} ${length}`).toThrow(ArgumentError);
    }
    expect(() => stream.readyTensor(0)).toThrow(ArgumentError);
    expect(() => stream.readyTensor(2)).toThrow(ArgumentError);
    stream.readyTensor(1);
    stream.ready(0, 2);
    stream.ready(6, 4);
    await stream.report;
    expect(() => stream.ready(3, 1)).toThrow(ArgumentError);
    const guarded = { guard: { finite: true } } as AllReduceStreamOptions;
    expect(() => only.allReduceStream(tensor, guarded)).toThrow(/guard/);
    expect(() => only.allReduceStream(tensor.subarray(0, 6), { out: tensor.subarray(4) })).toThrow(/overlaps/);
    const apart = only.allReduceStream(tensor.subarray(0, 5), { out: tensor.subarray(5) });
    apart.ready();
    await apart.report;
  });

  test('the types say what can be asked for', () => {
    expectTypeOf<AllReduceStreamOptions>().not.toHaveProperty('guard');
    expectTypeOf<AllReduceStreamOptions>().toHaveProperty('codec');
    expectTypeOf<ReturnType<Group['allReduceStream']>>().toEqualTypeOf<AllReduceStream>();
    expectTypeOf<AllReduceStream>().toExtend<AsyncIterable<ReducedRange>>();
    expectTypeOf<AllReduceStream['ready']>().toBeCallableWith();
    expectTypeOf<AllReduceStream['ready']>().toBeCallableWith(10, 5);
    // @ts-expect-error: how much of it there is, is a number
    expectTypeOf<AllReduceStream['ready']>().toBeCallableWith(10, 'all');
    expectTypeOf<ReducedRange['offset']>().toEqualTypeOf<number>();
  });
});
