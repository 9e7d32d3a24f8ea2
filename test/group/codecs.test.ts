/** Codecs through the public API, with both engines: bits, errors, bytes, and what error feedback keeps. */
import { type AllReduceOptions, ArgumentError, type Codec, type Group, type Report, sharedTensor } from 'skein';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type EngineKind, Members } from './members.ts';

const WORLD = 3;

function gaussian(count: number, seed: number): Float32Array {
  let state = seed;
  const random = () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return (state + 0.5) / 2 ** 32;
  };
  return Float32Array.from(
    { length: count },
    () => Math.sqrt(-2 * Math.log(random())) * Math.cos(2 * Math.PI * random()),
  );
}

function sumOf(tensors: readonly Float32Array[]): Float64Array {
  return Float64Array.from(tensors[0]!, (_, at) => tensors.reduce((sum, tensor) => sum + tensor[at]!, 0));
}

function relativeError(actual: Float32Array, exact: Float64Array): number {
  let dropped = 0;
  let energy = 0;
  for (const [at, value] of exact.entries()) {
    dropped += (actual[at]! - value) ** 2;
    energy += value ** 2;
  }
  return Math.sqrt(dropped / energy);
}

function expectSameBits(tensors: readonly Float32Array[]): void {
  const bytes = (tensor: Float32Array) => new Uint8Array(tensor.buffer, tensor.byteOffset, tensor.byteLength);
  for (const tensor of tensors) expect(Buffer.compare(bytes(tensor), bytes(tensors[0]!))).toBe(0);
}

describe.each<EngineKind>(['inline', 'worker'])('with an engine that is %s', (engine) => {
  let members: Members;

  beforeAll(async () => {
    members = await Members.form(WORLD, { engine });
  });
  afterAll(async () => {
    await members[Symbol.asyncDispose]();
  });

  const reduce = (tensors: readonly Float32Array[], options: AllReduceOptions): Promise<Report[]> =>
    members.all((group, rank) => group.allReduce(tensors[rank]!, options));

  test.each<[Codec, number, number]>([
    ['int8', 0.26, 0.009],
    ['int4', 0.14, 0.13],
    ['e3m0', 0.14, 0.27],
  ])('%s takes at most %f of the bytes, goes straight, and drops at most %f', async (codec, share, bound) => {
    const count = 1_000_003;
    const inputs = members.groups.map((_, rank) => gaussian(count, rank + 1));
    const exact = await reduce(
      inputs.map((input) => input.slice()),
      { algorithm: 'direct' },
    );
    const tensors = inputs.map((input) => sharedTensor('f32', count).map((_, at) => input[at]!));
    const reports = await reduce(tensors, { codec, measureError: true });
    expectSameBits(tensors);
    for (const [rank, report] of reports.entries()) {
      expect(report).toMatchObject({ codec, algorithm: 'direct' });
      expect(report.bytesSent / exact[rank]!.bytesSent).toBeLessThanOrEqual(share);
    }
    const error = relativeError(tensors[0]!, sumOf(inputs));
    expect(error).toBeLessThanOrEqual(bound);
    const mean = Math.sqrt(reports.reduce((sum, report) => sum + report.error! ** 2, 0) / WORLD);
    expect(error).toBeGreaterThanOrEqual(0.95 * mean);
    expect(error).toBeLessThanOrEqual(1.05 * Math.SQRT2 * mean);
  });

  test.each<Codec>(['bf16', 'int8', 'int4', 'e3m0'])(
    '%s goes round the ring, down trees and straight',
    async (codec) => {
      for (const algorithm of ['ring', 'tree', 'direct'] as const) {
        const tensors = members.groups.map((_, rank) => gaussian(20_011, rank + 1));
        const inputs = tensors.map((tensor) => tensor.slice());
        const reports = await reduce(tensors, { codec, algorithm, op: 'avg' });
        expectSameBits(tensors);
        const exact = sumOf(inputs).map((sum) => sum / WORLD);
        expect(relativeError(tensors[0]!, exact)).toBeLessThanOrEqual(codec === 'e3m0' ? 0.4 : 0.25);
        expect(reports[0]).toMatchObject({ algorithm, error: null });
      }
    },
  );

  test('other collectives take codecs too', async () => {
    const part = gaussian(5_000, 1);
    const outs = members.groups.map(() => new Float32Array(WORLD * part.length));
    await members.all((group, rank) => group.allGather(part, outs[rank]!, { codec: 'int8' }));
    expectSameBits(outs);
    expect(relativeError(outs[0]!.subarray(5_000, 10_000), Float64Array.from(part))).toBeLessThanOrEqual(0.007);
    const tensors = members.groups.map((_, rank) => gaussian(5_000, rank));
    await members.all((group, rank) => group.broadcast(tensors[rank]!, { root: 1, codec: 'int4' }));
    expectSameBits(tensors);
  });

  test('rounds by chance to the right mean, the same on every rank', async () => {
    const count = 4_096;
    const rounds = 60;
    const input = gaussian(count, 9);
    const sums = new Float64Array(count);
    for (let round = 0; round < rounds; round++) {
      const tensors = members.groups.map(() => input.slice());
      await reduce(tensors, { codec: 'int4', rounding: 'stochastic', op: 'avg' });
      expectSameBits(tensors);
      for (const [at, value] of tensors[0]!.entries()) sums[at]! += value / rounds;
    }
    // One rounding to the nearest is 9 % off; the mean of many by chance comes nearer.
    expect(relativeError(Float32Array.from(sums), Float64Array.from(input))).toBeLessThanOrEqual(0.035);
  });

  test.each<[Codec, AllReduceOptions]>([
    ['int4', {}],
    ['e3m0', { algorithm: 'ring' }],
    ['int8', { rounding: 'stochastic' }],
    ['topk', {}],
  ])('error feedback with %s: over many calls nothing is lost', async (codec, options) => {
    const count = 10_007;
    const tag = `feedback ${codec}`;
    const rounds = 40;
    const inputs = members.groups.map((_, rank) => gaussian(count, rank + 1));
    const exact = sumOf(inputs);
    const totals = new Float64Array(count);
    const errors: number[] = [];
    for (let round = 1; round <= rounds; round++) {
      const tensors = inputs.map((input) => input.slice());
      await reduce(tensors, { codec, tag, op: 'avg', errorFeedback: true, ...options });
      expectSameBits(tensors);
      for (const [at, value] of tensors[0]!.entries()) totals[at]! += value;
      errors.push(
        relativeError(
          Float32Array.from(totals, (total) => (total * WORLD) / round),
          exact,
        ),
      );
    }
    // What is kept stays bounded, so the mean comes nearer as 1/rounds; topk sends an element once in a few dozen calls.
    expect(errors.at(-1)!).toBeLessThanOrEqual(codec === 'topk' ? 0.75 : errors[0]! / 10);
    for (const group of members.groups) group.dropErrorFeedback(tag);
    const tensors = inputs.map((input) => input.slice());
    await reduce(tensors, { codec, tag, op: 'avg', errorFeedback: true, ...options });
    if (options.rounding !== 'stochastic') {
      const first = relativeError(
        Float32Array.from(tensors[0]!, (value) => value * WORLD),
        exact,
      );
      expect(first).toBeCloseTo(errors[0]!, 12);
    }
  });

  test('a call that fails leaves what error feedback keeps as it was', async () => {
    const options: AllReduceOptions = { codec: 'int4', tag: 'failing', errorFeedback: true };
    const inputs = members.groups.map((_, rank) => gaussian(3_001, rank + 1));
    const twice = async (between: () => Promise<void>): Promise<Float32Array> => {
      for (const group of members.groups) group.dropErrorFeedback('failing');
      await reduce(
        inputs.map((input) => input.slice()),
        options,
      );
      await between();
      const tensors = inputs.map((input) => input.slice());
      await reduce(tensors, options);
      return tensors[0]!;
    };
    const undisturbed = await twice(async () => {});
    const disturbed = await twice(async () => {
      const outcomes = await Promise.allSettled(
        members.groups.map((group, rank) =>
          group.allReduce(inputs[rank]!.slice(), {
            ...options,
            ...(rank === 1 ? { signal: AbortSignal.abort(new Error('no')) } : {}),
          }),
        ),
      );
      expect(outcomes.map(({ status }) => status)).toEqual(['rejected', 'rejected', 'rejected']);
    });
    expectSameBits([disturbed, undisturbed]);
  });

  test('calls under one tag at the same time neither lose nor double what is kept', async () => {
    const options: AllReduceOptions = { codec: 'int4', tag: 'together', errorFeedback: true };
    const inputs = members.groups.map((_, rank) => gaussian(2_000, rank + 1));
    const exact = sumOf(inputs);
    const totals = new Float64Array(2_000);
    for (let round = 0; round < 15; round++) {
      const pairs = [0, 1].map(() => inputs.map((input) => input.slice()));
      await Promise.all(pairs.map((tensors) => reduce(tensors, options)));
      for (const tensors of pairs) for (const [at, value] of tensors[0]!.entries()) totals[at]! += value / 30;
    }
    expect(relativeError(Float32Array.from(totals), exact)).toBeLessThanOrEqual(0.03);
  });

  test('another shape under the tag begins anew', async () => {
    const options: AllReduceOptions = { codec: 'int8', tag: 'shapes', errorFeedback: true };
    for (const count of [1_000, 500, 500]) {
      const tensors = members.groups.map((_, rank) => gaussian(count, rank + 1));
      const inputs = tensors.map((tensor) => tensor.slice());
      await reduce(tensors, options);
      expect(relativeError(tensors[0]!, sumOf(inputs))).toBeLessThanOrEqual(0.015);
    }
  });

  test('what is not finite is not made a number, and is not kept', async () => {
    const options: AllReduceOptions = { codec: 'int8', tag: 'strangers', errorFeedback: true };
    const tensors = members.groups.map(() => new Float32Array(1_000).fill(1));
    tensors[1]![500] = Number.NaN;
    tensors[2]![0] = Number.POSITIVE_INFINITY;
    await reduce(tensors, options);
    expectSameBits(tensors);
    expect(tensors[0]![500]).toBeNaN();
    expect(tensors[0]![0]).toBeNaN();
    expect(tensors[0]![700]).toBeCloseTo(3, 1);
    const again = members.groups.map(() => new Float32Array(1_000).fill(1));
    await reduce(again, options);
    expect(again[0]!.every((value) => Math.abs(value - 3) < 0.2)).toBe(true);
  });

  test('says what codecs are not for', async () => {
    const [group] = members.groups as [Group];
    const tensor = new Float32Array(6);
    // As a caller without types would.
    const untyped: AllReduceOptions = { codec: 'int8', measureError: true };
    const calls: readonly [RegExp, () => unknown][] = [
      [/sums and averages, not for max/, () => group.allReduce(tensor, { codec: 'int8', op: 'max' })],
      [/works on f32 tensors/, () => group.allReduce(new Float64Array(2), { codec: 'int4' })],
      [/can't be used with 'doubling'/, () => group.allReduce(tensor, { codec: 'e3m0', algorithm: 'doubling' })],
      [/topk is for allReduce/, () => group.broadcast(tensor, { codec: 'topk' })],
      [/topk goes 'direct'/, () => group.allReduce(tensor, { codec: 'topk', algorithm: 'ring', errorFeedback: true })],
      [/say `errorFeedback: true`/, () => group.allReduce(tensor, { codec: 'topk' })],
      [/not for bf16/, () => group.allReduce(tensor, { codec: 'bf16', rounding: 'stochastic' })],
      [/f32 does not/, () => group.allReduce(tensor, { errorFeedback: true })],
      [/f32 does not/, () => group.allReduce(tensor, { measureError: true })],
      [/`measureError` is for allReduce/, () => group.reduceScatter(tensor, untyped)],
    ];
    for (const [message, call] of calls) {
      const failure = await (async () => call())().then(
        () => null,
        (error: unknown) => error,
      );
      expect(failure).toBeInstanceOf(ArgumentError);
      expect((failure as Error).message).toMatch(message);
    }
  });
});

test('a retry after a loss counts what error feedback keeps once', async () => {
  await using members = await Members.form(3, { engine: 'inline', minWorldSize: 1 });
  const [first, second, third] = members.groups as [Group, Group, Group];
  const options: AllReduceOptions = { codec: 'int4', errorFeedback: true };
  const inputs = [gaussian(50_000, 1), gaussian(50_000, 2)];
  const exact = sumOf(inputs);
  const totals = new Float64Array(50_000);
  const round = async (groups: readonly Group[]) => {
    const tensors = groups.map((_, rank) => (inputs[rank] ?? new Float32Array(50_000)).slice());
    const reports = await Promise.all(groups.map((group, rank) => group.allReduce(tensors[rank]!, options)));
    for (const [at, value] of tensors[0]!.entries()) totals[at]! += value;
    return reports[0]!;
  };
  await round([first, second, third]);
  // The third leaves while the others wait for it in the second call.
  const pending = round([first, second]);
  await new Promise((resolve) => setTimeout(resolve, 50));
  members.groups.pop();
  await third.leave();
  expect(await pending).toMatchObject({ worldSize: 2, retries: 1 });
  for (let index = 2; index < 30; index++) await round([first, second]);
  // What the third had kept for the others of its chunk is gone with it: a thirtieth of one call's error.
  expect(
    relativeError(
      Float32Array.from(totals, (total) => total / 30),
      exact,
    ),
  ).toBeLessThanOrEqual(0.02);
});
