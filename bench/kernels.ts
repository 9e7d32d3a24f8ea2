/**
 * `npm run bench:kernels`: the WASM SIMD kernels and copies, beside the plain JavaScript that they replace, over one segment (which
 * stays in the L2 cache, as in a collective). Ratios of medians, both sides in one run.
 */
import Table from 'cli-table3';
import { Bench } from 'tinybench';
import { formatBytes } from '../src/benchmark/statistics.ts';
import { SEGMENT_BYTES } from '../src/collectives/workspace.ts';
import { copyBytes } from '../src/kernels/copy.ts';
import type { KernelOp } from '../src/kernels/kernels.ts';
import { loadKernels } from '../src/kernels/load.ts';
import { DTYPE_BYTES, type Dtype } from '../src/tensor.ts';

/** Time per side and case (ms): long enough for the optimising compiler and a quiet median. */
const TIME_MS = 300;
const WARMUP_MS = 200;

type Loop = () => void;

const kernels = await loadKernels(4 * SEGMENT_BYTES);
const [left, right, target] = [0, 0, 0].map(() => kernels.reserve(SEGMENT_BYTES)) as [number, number, number];

/**
 * The plain loop. Each is a function of its own, so that the compiler of the JavaScript engine sees one type of array in it,
 * as it would in a program that reduces one dtype.
 */
function loopOf(arrays: readonly unknown[], expression: string): Loop {
  const body = `return () => { for (let i = 0; i < out.length; i++) out[i] = ${expression}; };`;
  const make = new Function('a', 'b', 'out', body) as (...operands: readonly unknown[]) => Loop; // made of the text above
  return make(...arrays);
}

const SUM = 'a[i] + b[i]';
const MAX = 'a[i] > b[i] ? a[i] : b[i]';

/** Rounds to nearest even, as the kernel does. */
const TO_BF16 = '(a[i] + 0x7fff + ((a[i] >>> 16) & 1)) >>> 16';

interface Case {
  readonly name: string;
  /** Of the larger operand. */
  readonly bytes: number;
  readonly kernel: Loop;
  readonly loop: Loop;
}

function reduceCase(dtype: Dtype, op: KernelOp, loop: Loop): Case {
  const count = SEGMENT_BYTES / DTYPE_BYTES[dtype];
  return {
    name: `${op} ${dtype}`,
    bytes: SEGMENT_BYTES,
    kernel: () => kernels.reduce(dtype, op, target, left, right, count),
    loop,
  };
}

/** The same memory for both sides. */
function arrays<A>(make: new (buffer: ArrayBufferLike, offset: number, length: number) => A, size: number): [A, A, A] {
  const { buffer } = kernels.bytes;
  return [left, right, target].map((offset) => new make(buffer, offset, SEGMENT_BYTES / size)) as [A, A, A];
}

/** As a tensor in shared memory meets the arena. The loop of JavaScript is `set`, the other way to say it. */
function copyCase(): Case {
  const shared = new Uint8Array(new SharedArrayBuffer(SEGMENT_BYTES)).fill(1);
  return {
    name: 'copy of shared memory',
    bytes: SEGMENT_BYTES,
    kernel: () => copyBytes(kernels.bytes, shared, target),
    loop: () => kernels.bytes.set(shared, target),
  };
}

const cases: readonly Case[] = [
  copyCase(),
  reduceCase('f32', 'sum', loopOf(arrays(Float32Array, 4), SUM)),
  reduceCase('f32', 'max', loopOf(arrays(Float32Array, 4), MAX)),
  reduceCase('f64', 'sum', loopOf(arrays(Float64Array, 8), SUM)),
  reduceCase('i32', 'sum', loopOf(arrays(Int32Array, 4), SUM)),
  reduceCase('i8', 'sum', loopOf(arrays(Int8Array, 1), SUM)),
  reduceCase('i8', 'max', loopOf(arrays(Int8Array, 1), MAX)),
  reduceCase('u16', 'sum', loopOf(arrays(Uint16Array, 2), SUM)),
  reduceCase('i64', 'sum', loopOf(arrays(BigInt64Array, 8), SUM)),
  {
    name: 'f32 to bf16',
    bytes: SEGMENT_BYTES,
    kernel: () => kernels.encode('bf16', target, left, SEGMENT_BYTES / 4),
    loop: loopOf(
      [
        new Uint32Array(kernels.bytes.buffer, left, SEGMENT_BYTES / 4),
        null,
        new Uint16Array(kernels.bytes.buffer, target, SEGMENT_BYTES / 4),
      ],
      TO_BF16,
    ),
  },
];

// Ordinary numbers in every dtype: no NaN, no subnormal f32 or f64.
new Float32Array(kernels.bytes.buffer, left, SEGMENT_BYTES / 4).fill(1.25);
new Float32Array(kernels.bytes.buffer, right, SEGMENT_BYTES / 4).fill(2.5);

const table = new Table({
  head: [`${formatBytes(SEGMENT_BYTES)} of`, 'kernel GB/s', 'JavaScript GB/s', '× JavaScript'],
  style: { head: [], border: [] },
});
for (const { name, bytes, kernel, loop } of cases) {
  const bench = new Bench({ time: TIME_MS, warmupTime: WARMUP_MS });
  bench.add('kernel', kernel).add('loop', loop);
  await bench.run();
  const medians = bench.tasks.map((task) => {
    if (!('latency' in task.result)) throw new Error(`${name}: the ${task.name} was not measured`);
    return task.result.latency.p50;
  });
  const [mine, plain] = medians as [number, number];
  // Latencies are in milliseconds.
  const rate = (ms: number) => (bytes / ms / 1e6).toFixed(2);
  table.push([name, rate(mine), rate(plain), (plain / mine).toFixed(1)]);
}
console.log(table.toString());
