/** Every collective through the public API, with both engines: what users get for what they pass in. */
import { type Dtype, type JoinOptions, type Report, sharedTensor } from 'skein';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { algorithmsOf } from '../../src/collectives/plan.ts';
import { Cluster } from '../harness/cluster.ts';
import { type EngineKind, Members } from './members.ts';

const WORLD = 3;

type AnyArray = ReturnType<typeof sharedTensor<Dtype>>;

const INTEGERS = ['i8', 'i16', 'i32', 'i64', 'u8', 'u16', 'u32', 'u64'] as const;

function isBig(dtype: Dtype): boolean {
  return dtype === 'i64' || dtype === 'u64';
}

/** Element i of rank r: small, so that sums and products of three are exact in every dtype. */
function value(rank: number, index: number): number {
  return 1 + ((index * 5 + rank * 3) % 4);
}

function fill(array: AnyArray, dtype: Dtype, of: (index: number) => number): AnyArray {
  for (let index = 0; index < array.length; index++) {
    array[index] = isBig(dtype) ? BigInt(of(index)) : of(index);
  }
  return array;
}

function expected(op: 'sum' | 'min' | 'max' | 'prod', index: number): number {
  const values = Array.from({ length: WORLD }, (_, rank) => value(rank, index));
  if (op === 'min') return Math.min(...values);
  if (op === 'max') return Math.max(...values);
  return values.reduce((left, right) => (op === 'sum' ? left + right : left * right));
}

/** The bit pattern of a small number. */
function halfBits(dtype: 'f16' | 'bf16', number: number): number {
  const single = new Uint32Array(Float32Array.of(number).buffer)[0]!;
  if (dtype === 'bf16') return single >>> 16;
  if (number === 0) return 0;
  const exponent = ((single >>> 23) & 0xff) - 127 + 15;
  return ((single >>> 16) & 0x8000) | (exponent << 10) | ((single >>> 13) & 0x3ff);
}

function bytesOf(array: AnyArray): Uint8Array {
  return new Uint8Array(array.buffer, array.byteOffset, array.byteLength).slice();
}

function sameReports(reports: readonly Report[]): void {
  for (const report of reports) {
    expect(report.id).toBe(reports[0]!.id);
    expect(report.contributors).toEqual(reports[0]!.contributors);
    expect(report.epoch).toBe(reports[0]!.epoch);
  }
}

interface Way extends Pick<JoinOptions, 'transports'> {
  readonly engine: EngineKind;
  readonly path: RegExp;
}

// A process can have one engine thread that uses WebRTC; see test/processes for several processes.
const WAYS: readonly Way[] = [
  { engine: 'inline', path: /^unix / },
  { engine: 'worker', path: /^unix / },
  { engine: 'inline', transports: ['webrtc'], path: /^webrtc p/ },
];

describe.each(WAYS)('with an engine that is $engine, over $path', ({ engine, path, ...transports }) => {
  let members: Members;

  beforeAll(async () => {
    members = await Members.form(WORLD, { engine, ...transports });
  });
  afterAll(async () => {
    await members[Symbol.asyncDispose]();
  });

  describe('allReduce', () => {
    test.each(['f32', 'f64', ...INTEGERS] as const)('reduces %s with every operation, in place', async (dtype) => {
      for (const op of ['sum', 'min', 'max', 'prod'] as const) {
        const tensors = members.groups.map((_, rank) =>
          fill(sharedTensor(dtype, 1_003), dtype, (at) => value(rank, at)),
        );
        const reports = await members.all((group, rank) => group.allReduce(tensors[rank]!, { op }));
        const wanted = fill(sharedTensor(dtype, 1_003), dtype, (at) => expected(op, at));
        for (const tensor of tensors) expect(bytesOf(tensor)).toEqual(bytesOf(wanted));
        sameReports(reports);
        expect(reports[0]).toMatchObject({ worldSize: WORLD, retries: 0, codec: 'f32' });
        expect(reports[0]!.contributors).toEqual(members.groups.map((group) => group.peerId));
      }
    });

    test.each(['f16', 'bf16'] as const)('reduces %s, which has no typed array of its own', async (dtype) => {
      const tensors = members.groups.map((_, rank) => ({
        dtype,
        data: Uint16Array.from({ length: 77 }, (_, at) => halfBits(dtype, value(rank, at))),
      }));
      await members.all((group, rank) => group.allReduce(tensors[rank]!));
      const wanted = Uint16Array.from({ length: 77 }, (_, at) => halfBits(dtype, expected('sum', at)));
      for (const { data } of tensors) expect(data).toEqual(wanted);
    });

    test('averages over the contributors', async () => {
      const floats = members.groups.map((_, rank) => Float32Array.from({ length: 10 }, (_, at) => value(rank, at)));
      await members.all((group, rank) => group.allReduce(floats[rank]!, { op: 'avg' }));
      for (const tensor of floats) {
        for (const [at, average] of tensor.entries()) expect(average).toBeCloseTo(expected('sum', at) / WORLD, 5);
        expect(tensor).toEqual(floats[0]);
      }
    });

    test.each(algorithmsOf('allReduce'))('gives all the same bits by %s', async (algorithm) => {
      const count = 200_003;
      const tensors = members.groups.map((_, rank) =>
        Float32Array.from({ length: count }, (_, at) => Math.sin(at * 0.37 + rank) * 10 ** ((at % 7) - 3)),
      );
      const inputs = tensors.map((tensor) => tensor.slice());
      const reports = await members.all((group, rank) => group.allReduce(tensors[rank]!, { algorithm }));
      expect(reports[0]!.algorithm).toBe(algorithm);
      for (const tensor of tensors) expect(Buffer.compare(bytesOf(tensor), bytesOf(tensors[0]!))).toBe(0);
      for (let at = 0; at < count; at += 997) {
        const sum = inputs.reduce((total, input) => total + input[at]!, 0);
        const scale = inputs.reduce((total, input) => total + Math.abs(input[at]!), 0);
        expect(Math.abs(tensors[0]![at]! - sum)).toBeLessThanOrEqual(scale * 3e-7);
      }
    });

    test.each([0, 1, 2, 3, 4, 65_537])('reduces %i elements, fewer than members included', async (count) => {
      const tensors = members.groups.map((_, rank) => Int32Array.from({ length: count }, (_, at) => value(rank, at)));
      await members.all((group, rank) => group.allReduce(tensors[rank]!));
      for (const tensor of tensors) {
        expect(tensor).toEqual(Int32Array.from({ length: count }, (_, at) => expected('sum', at)));
      }
    });

    test('takes views at any offset, and touches nothing beside them', async () => {
      for (const offset of [1, 3, 7, 13]) {
        const buffers = members.groups.map(() => new Uint8Array(new SharedArrayBuffer(1_000)).fill(0xaa));
        const views = buffers.map(({ buffer }, rank) =>
          new Uint8Array(buffer, offset, 700).map((_, at) => value(rank, at)),
        );
        buffers.forEach((bytes, rank) => void bytes.set(views[rank]!, offset));
        await members.all((group, rank) => group.allReduce(new Uint8Array(buffers[rank]!.buffer, offset, 700)));
        for (const bytes of buffers) {
          expect(bytes.subarray(0, offset).every((byte) => byte === 0xaa)).toBe(true);
          expect(bytes.subarray(offset + 700).every((byte) => byte === 0xaa)).toBe(true);
          expect(bytes[offset + 5]).toBe(expected('sum', 5));
          expect(bytes[offset + 699]).toBe(expected('sum', 699));
        }
      }
    });

    test('leaves the tensor alone when `out` is given, shared or not', async () => {
      for (const shared of [true, false]) {
        const make = () => (shared ? sharedTensor('f64', 50) : new Float64Array(50));
        const inputs = members.groups.map((_, rank) => make().fill(rank + 1));
        const outs = members.groups.map(make);
        await members.all((group, rank) => group.allReduce(inputs[rank]!, { out: outs[rank]! }));
        for (const [rank, input] of inputs.entries()) expect(input.every((element) => element === rank + 1)).toBe(true);
        for (const out of outs) expect(out.every((element) => element === 6)).toBe(true);
      }
    });

    test('fuses several tensors into one collective', async () => {
      const lists = members.groups.map((_, rank) => [
        new Float32Array(5).fill(rank),
        sharedTensor('f32', 0),
        sharedTensor('f32', 1_001).fill(rank * 2),
        new Float32Array(1).fill(1),
      ]);
      const reports = await members.all((group, rank) => group.allReduce(lists[rank]!));
      sameReports(reports);
      for (const list of lists) {
        expect([...list[0]!]).toEqual([3, 3, 3, 3, 3]);
        expect(list[2]!.every((element) => element === 6)).toBe(true);
        expect([...list[3]!]).toEqual([3]);
      }
    });

    test.each(['bf16', 'f16'] as const)(
      'travels as %s: the same bits everywhere, close to the exact result',
      async (codec) => {
        const count = 70_001;
        const tensors = members.groups.map((_, rank) =>
          Float32Array.from({ length: count }, (_, at) => Math.cos(at + rank)),
        );
        const inputs = tensors.map((tensor) => tensor.slice());
        const reports = await members.all((group, rank) => group.allReduce(tensors[rank]!, { codec }));
        expect(reports[0]).toMatchObject({ codec });
        for (const tensor of tensors) expect(Buffer.compare(bytesOf(tensor), bytesOf(tensors[0]!))).toBe(0);
        const unit = codec === 'bf16' ? 2 ** -8 : 2 ** -11;
        for (let at = 0; at < count; at += 101) {
          const sum = inputs.reduce((total, input) => total + input[at]!, 0);
          // Each partial result on the way is at most 3 and is rounded once per hop.
          expect(Math.abs(tensors[0]![at]! - sum)).toBeLessThanOrEqual(3 * 3 * unit);
        }
        expect(reports[0]!.bytesSent).toBeLessThan(count * 4);
      },
    );

    test('runs many at once under different tags, issued in different orders', async () => {
      const tags = Array.from({ length: 12 }, (_, index) => `layer-${index}`);
      await members.all(async (group, rank) => {
        const order = tags.map((_, index) => (index * (rank === 1 ? 5 : 1) + rank) % tags.length);
        await Promise.all(
          order.map(async (index) => {
            const tensor = new Float32Array(500 + index).fill(index + rank);
            await group.allReduce(tensor, { tag: tags[index]! });
            expect(tensor.every((element) => element === index * WORLD + 3)).toBe(true);
          }),
        );
      });
    });

    test('tells its progress, upwards to 1', async () => {
      const shares: number[] = [];
      await members.all((group, rank) =>
        group.allReduce(sharedTensor('f32', 2_000_000), {
          ...(rank === 0 ? { onProgress: (share: number) => shares.push(share) } : {}),
        }),
      );
      expect(shares.length).toBeGreaterThan(3);
      expect(shares).toEqual([...shares].sort((left, right) => left - right));
      expect(shares.at(-1)).toBe(1);
    });

    test('works without a commit', async () => {
      const tensors = members.groups.map((_, rank) => Float32Array.of(rank, 1));
      await members.all((group, rank) => group.allReduce(tensors[rank]!, { consistency: 'eager' }));
      for (const tensor of tensors) expect([...tensor]).toEqual([3, 3]);
    });
  });

  test.each([0, 1, 2])('broadcast: everybody has what root %i has', async (root) => {
    for (const algorithm of ['ring', 'tree'] as const) {
      const tensors = members.groups.map((_, rank) => Float64Array.from({ length: 999 }, (_, at) => at * 10 + rank));
      await members.all((group, rank) => group.broadcast(tensors[rank]!, { root, algorithm }));
      for (const tensor of tensors)
        expect(tensor).toEqual(Float64Array.from({ length: 999 }, (_, at) => at * 10 + root));
    }
  });

  test('broadcast takes a root by its id', async () => {
    const root = members.groups[2]!.peerId;
    const tensors = members.groups.map((_, rank) => Uint8Array.of(rank));
    await members.all((group, rank) => group.broadcast(tensors[rank]!, { root }));
    expect(tensors.map(([first]) => first)).toEqual([2, 2, 2]);
  });

  test.each([0, 1, 2])('reduce: only root %i gets the result', async (root) => {
    const tensors = members.groups.map((_, rank) => Int16Array.from({ length: 100 }, (_, at) => value(rank, at)));
    await members.all((group, rank) => group.reduce(tensors[rank]!, { root, op: 'max' }));
    tensors.forEach((tensor, rank) => {
      const wanted = Int16Array.from({ length: 100 }, (_, at) =>
        rank === root ? expected('max', at) : value(rank, at),
      );
      expect(tensor).toEqual(wanted);
    });
  });

  test('reduceScatter: rank r gets the r-th chunk, in place or in `out`', async () => {
    const count = 100; // chunks of 34, 33 and 33
    const starts = [0, 34, 67, 100];
    for (const separate of [false, true]) {
      const tensors = members.groups.map((_, rank) => Float32Array.from({ length: count }, (_, at) => value(rank, at)));
      const outs = members.groups.map((_, rank) => new Float32Array(starts[rank + 1]! - starts[rank]!));
      await members.all((group, rank) => group.reduceScatter(tensors[rank]!, separate ? { out: outs[rank]! } : {}));
      tensors.forEach((tensor, rank) => {
        const chunk = separate ? outs[rank]! : tensor.subarray(starts[rank], starts[rank + 1]);
        const wanted = Float32Array.from(chunk, (_, at) => expected('sum', starts[rank]! + at));
        expect(chunk).toEqual(wanted);
        const beside = separate ? 0 : starts[rank + 1]!;
        for (let at = beside; at < count; at++) expect(tensor[at]).toBe(value(rank, at));
      });
    }
  });

  test.each(['ring', 'direct'] as const)('allGather by %s: everybody has every part', async (algorithm) => {
    const outs = members.groups.map(() => new Int32Array(3 * 41));
    await members.all((group, rank) => group.allGather(new Int32Array(41).fill(rank + 7), outs[rank]!, { algorithm }));
    for (const out of outs) expect(out).toEqual(Int32Array.from({ length: 123 }, (_, at) => Math.floor(at / 41) + 7));
  });

  test('gather and scatter are each other’s inverse', async () => {
    const root = 1;
    const gathered = new Int32Array(30);
    await members.all((group, rank) =>
      group.gather(new Int32Array(10).fill(rank), rank === root ? gathered : undefined, { root }),
    );
    expect(gathered).toEqual(Int32Array.from({ length: 30 }, (_, at) => Math.floor(at / 10)));
    const parts = members.groups.map(() => new Int32Array(10));
    await members.all((group, rank) => group.scatter(rank === root ? gathered : undefined, parts[rank]!, { root }));
    for (const [rank, part] of parts.entries()) expect(part).toEqual(new Int32Array(10).fill(rank));
  });

  test('allToAll transposes', async () => {
    const outs = members.groups.map(() => new Uint32Array(3 * 4));
    await members.all((group, rank) =>
      group.allToAll(
        Uint32Array.from({ length: 12 }, (_, at) => rank * 100 + at),
        outs[rank]!,
      ),
    );
    outs.forEach((out, rank) => {
      expect(out).toEqual(Uint32Array.from({ length: 12 }, (_, at) => Math.floor(at / 4) * 100 + rank * 4 + (at % 4)));
    });
  });

  test('barrier: nobody passes before all have come', async () => {
    const arrived: number[] = [];
    await members.all(async (group, rank) => {
      await new Promise((resolve) => setTimeout(resolve, rank * 40));
      arrived.push(rank);
      await group.barrier();
      expect(arrived).toHaveLength(WORLD);
    });
  });

  test('status shows the links, how they are reached, and what is open', async () => {
    const [first, ...others] = members.groups;
    // Too large to be sent before the others have made the call.
    const make = () => new Float32Array(100_000);
    const open = first!.allReduce(make(), { tag: 'slow' });
    const status = await first!.status();
    expect(status.members.map((member) => member.peerId)).toEqual(members.groups.map((group) => group.peerId));
    expect(status.links).toHaveLength(WORLD - 1);
    for (const link of status.links) expect(link).toMatchObject({ up: true, path: expect.stringMatching(path) });
    expect(status.collectives).toEqual([
      expect.objectContaining({
        op: expect.stringContaining('"slow"'),
        waitsFor: expect.stringContaining('same call'),
      }),
    ]);
    await Promise.all([open, ...others.map((group) => group.allReduce(make(), { tag: 'slow' }))]);
  });
});

describe('with an engine thread', () => {
  test('allReduceSync blocks until the result is there', async () => {
    // In processes of their own: a coordinator in this thread would be blocked too.
    await using cluster = await Cluster.start();
    const peers = await cluster.form(2);
    const results = await Promise.all(
      peers.map((peer, rank) =>
        peer.run(({ skein, state }, rank) => {
          const tensor = rank === 0 ? new Float32Array(1_000).fill(2) : skein.sharedTensor('f32', 1_000).fill(3);
          const group = state.group!;
          const { id } = group.allReduceSync(tensor, { timeout: 20_000 });
          let refusal = '';
          try {
            group.allReduceSync(new Float32Array(1), { timeout: 100, minWorldSize: 3 });
          } catch (error) {
            refusal = (error as Error).name;
          }
          return { id, right: tensor.every((element) => element === 5), refusal };
        }, rank),
      ),
    );
    for (const result of results) expect(result).toEqual({ id: results[0]!.id, right: true, refusal: 'QuorumError' });
  });
});
