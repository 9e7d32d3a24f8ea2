/** A member for the benchmark of algorithms: all-reduces by each of them in turn, and by `auto`. */
import { performance } from 'node:perf_hooks';
import type { WayCosts } from '../../src/costs.ts';
import { type Algorithm, type AlgorithmLabel, join, sharedTensor } from '../../src/index.ts';

export interface AlgorithmsTask {
  readonly address: string;
  readonly token: string;
  readonly worldSize: number;
  readonly sizes: readonly number[];
  /** So many turns each algorithm gets at each size at least, and more of them as long as this size's time is not over. */
  readonly rounds: number;
  readonly sizeMs: number;
  readonly warmUpMs: number;
  readonly algorithms: readonly (Algorithm | 'auto')[];
}

/** Seconds on the slowest rank: a median of each turn, in the order of turns. */
export interface AlgorithmTimes {
  readonly bytes: number;
  readonly algorithm: Algorithm | 'auto';
  /** What `auto` chose; else the algorithm itself. */
  readonly travelled: AlgorithmLabel;
  readonly seconds: readonly number[];
  /** Of each single call, in no order. */
  readonly calls: readonly number[];
  /** Processor time of a call, all threads of all ranks, with that of the barrier before it: a mean. */
  readonly cpuSeconds: number;
  /** By which `auto` chose. */
  readonly costs: WayCosts;
}

const task = JSON.parse(process.argv[2] ?? '') as AlgorithmsTask; // written by algorithms.ts

/** Calls in one turn: few, so that whatever disturbs the machine meets all algorithms alike. */
function callsPerTurn(bytes: number): number {
  return bytes <= 1 << 20 ? 3 : 1;
}

const { address, token, worldSize, sizes, rounds, sizeMs, algorithms } = task;
const group = await join(address, { startWorldSize: worldSize, token, timeout: 60_000 });

/** One turn of an algorithm. */
async function turn(input: Float32Array, out: Float32Array, algorithm: Algorithm | 'auto') {
  let travelled: AlgorithmLabel = 'ring';
  const calls = new Float64Array(callsPerTurn(input.byteLength));
  const before = process.cpuUsage();
  for (let index = 0; index < calls.length; index++) {
    await group.barrier();
    const start = performance.now();
    const report = await group.allReduce(input, { out, algorithm });
    calls[index] = (performance.now() - start) / 1_000;
    travelled = report.algorithm;
  }
  const { user, system } = process.cpuUsage(before);
  const cpu = Float64Array.of((user + system) / 1e6 / calls.length);
  await group.allReduce(calls, { op: 'max', tag: 'slowest' });
  await group.allReduce(cpu, { op: 'sum', tag: 'slowest' });
  const sorted = calls.sort();
  return { seconds: sorted[sorted.length >> 1]!, calls: sorted, cpuSeconds: cpu[0]!, travelled };
}

/** What rank 0 says, so that all stop after the same turn. */
async function decided(mine: boolean): Promise<boolean> {
  const word = Uint8Array.of(mine ? 1 : 0);
  await group.broadcast(word, { root: 0 });
  return word[0] === 1;
}

/** The compiler sees the hot paths first. */
async function warmUp(): Promise<void> {
  const [large, small] = [1 << 20, 1 << 10].map((count) => sharedTensor('f32', count).fill(1));
  const [largeOut, smallOut] = [1 << 20, 1 << 10].map((count) => sharedTensor('f32', count));
  const start = performance.now();
  do {
    for (const algorithm of algorithms) {
      await turn(small!, smallOut!, algorithm);
      await turn(large!, largeOut!, algorithm);
    }
  } while (!(await decided(performance.now() - start >= task.warmUpMs)));
}

await warmUp();
for (const bytes of sizes) {
  const count = bytes / 4;
  const input = sharedTensor('f32', count).fill(group.rank + 1);
  const out = sharedTensor('f32', count);
  for (const algorithm of algorithms) await turn(input, out, algorithm);
  const times = algorithms.map((algorithm) => ({
    algorithm,
    travelled: 'ring' as AlgorithmLabel,
    seconds: [] as number[],
    calls: [] as number[],
    cpuSeconds: 0,
  }));
  const start = performance.now();
  const isOver = () => performance.now() - start >= sizeMs;
  for (let round = 0; round < rounds || !(await decided(isOver())); round++) {
    // Each round begins with another, so that none always follows the same one.
    for (let index = 0; index < times.length; index++) {
      const one = times[(round + index) % times.length]!;
      out.fill(0);
      const { seconds, calls, cpuSeconds, travelled } = await turn(input, out, one.algorithm);
      one.seconds.push(seconds);
      one.calls.push(...calls);
      one.cpuSeconds += cpuSeconds;
      one.travelled = travelled;
      const expected = (worldSize * (worldSize + 1)) / 2;
      if (out[0] !== expected || out[count - 1] !== expected) throw new Error(`${travelled}: a wrong result`);
    }
  }
  for (const one of times) one.cpuSeconds /= one.seconds.length;
  const { costs } = await group.status();
  if (group.rank === 0) for (const one of times) process.send?.({ bytes, costs, ...one } satisfies AlgorithmTimes);
}
await group.leave();
process.disconnect?.();
