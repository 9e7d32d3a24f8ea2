/** One rank of the Skein sides: the public API, as a training script uses it. */
import { performance } from 'node:perf_hooks';
import { type JoinOptions, join, sharedTensor } from '../../src/index.ts';
import type { SideMeasurement } from '../harness/sides.ts';

export interface PeerTask {
  readonly address: string;
  readonly worldSize: number;
  readonly sizes: readonly number[];
  readonly iterations: number;
  readonly warmups: number;
  /** Lets the compiler see the hot paths first; what it keeps in memory then is no part of a measurement of memory. */
  readonly compileFirst: boolean;
  readonly engine: 'worker' | 'inline';
  readonly transports: readonly ('unix' | 'tcp')[];
  readonly consistency: 'commit' | 'eager';
  /** The coordinator has the same. */
  readonly credentials: Pick<JoinOptions, 'token' | 'encryption'>;
}

const task = JSON.parse(process.argv[2] ?? '') as PeerTask; // written by sides.ts

/** As in timing.h: small transfers are repeated more often. */
function repetitions(bytes: number): number {
  if (bytes <= 64 << 10) return task.iterations * 40;
  return bytes <= 4 << 20 ? task.iterations * 8 : task.iterations;
}

/**
 * The compiler of a JavaScript engine needs a while to know the hot paths, in which a C++ program is compiled already. A training
 * run has that behind it after its first steps, so it is no part of what is measured. Tensors of every kind take part, as larger ones
 * take paths that smaller ones never do: what was compiled without them is thrown away when the first comes, and compiled again beside
 * the next hundred calls. Ranks share the processors, so it takes longer the more there are.
 */
const WARMUP_MS_PER_RANK = 3_000;
const WARMUP_BYTES = [4 << 10, 256 << 10, 4 << 20, 16 << 20];

const { worldSize, consistency } = task;
const group = await join(task.address, {
  startWorldSize: worldSize,
  engine: task.engine,
  transports: task.transports,
  timeout: 60_000,
  ...task.credentials,
});

async function iterate(input: Float32Array, out: Float32Array): Promise<number> {
  await group.barrier({ consistency });
  const start = performance.now();
  await group.allReduce(input, { out, consistency });
  return (performance.now() - start) / 1_000;
}

/** One iteration; its time on the slowest rank. */
async function measure(input: Float32Array, out: Float32Array): Promise<number> {
  const slowest = Float64Array.of(await iterate(input, out));
  await group.allReduce(slowest, { op: 'max', tag: 'slowest' });
  return slowest[0]!;
}

function tensors(bytes: number): { readonly input: Float32Array; readonly out: Float32Array } {
  const count = bytes / 4;
  return { input: sharedTensor('f32', count).fill(group.rank + 1), out: sharedTensor('f32', count).fill(0) };
}

/** Rank 0 decides when the engines are warm, so that all stop after the same iteration. */
async function warmUp(): Promise<void> {
  const kinds = WARMUP_BYTES.map((bytes) => ({
    ...tensors(bytes),
    times: Math.max(1, Math.floor((256 << 10) / bytes)),
  }));
  const goOn = new Uint8Array(1);
  const start = performance.now();
  do {
    for (const { input, out, times } of kinds) for (let index = 0; index < times; index++) await measure(input, out);
    goOn[0] = performance.now() - start < WARMUP_MS_PER_RANK * worldSize ? 1 : 0;
    await group.broadcast(goOn, { root: 0 });
  } while (goOn[0] === 1);
}

if (task.compileFirst) await warmUp();
const measurements: SideMeasurement[] = [];
for (const bytes of task.sizes) {
  const { input, out } = tensors(bytes);
  const before = process.memoryUsage.rss();
  const seconds: number[] = [];
  let usage = process.cpuUsage();
  for (let round = -task.warmups; round < repetitions(bytes); round++) {
    if (round === 0) usage = process.cpuUsage();
    const slowest = await measure(input, out);
    if (round >= 0) seconds.push(slowest);
  }
  const { user, system } = process.cpuUsage(usage);
  const cpuSeconds = (user + system) / 1e6;
  const expected = (worldSize * (worldSize + 1)) / 2;
  if (out[0] !== expected || out.at(-1) !== expected) throw new Error('skein: wrong result');
  const { maxRSS } = process.resourceUsage();
  measurements.push({ bytes, seconds, cpuSeconds, maxRssKiB: maxRSS, growthKiB: Math.max(0, maxRSS - before / 1024) });
}
if (group.rank === 0) process.send?.(measurements);
await group.leave();
process.disconnect?.();
