/** A member for the benchmark of algorithms: all-reduces by each of them in turn, and by `auto`. */
import { performance } from 'node:perf_hooks';
import { type Algorithm, type AlgorithmLabel, join, sharedTensor } from '../../src/index.ts';

export interface AlgorithmsTask {
  readonly address: string;
  readonly token: string;
  readonly worldSize: number;
  readonly sizes: readonly number[];
  /** Turns that each algorithm gets at each size. */
  readonly rounds: number;
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
}

const task = JSON.parse(process.argv[2] ?? '') as AlgorithmsTask; // written by algorithms.ts

/** Calls in one turn: small ones are told from noise by their number. */
function callsPerTurn(bytes: number): number {
  if (bytes <= 64 << 10) return 11;
  return bytes <= 1 << 20 ? 5 : 1;
}

const { address, token, worldSize, sizes, rounds, algorithms } = task;
const group = await join(address, { startWorldSize: worldSize, token, timeout: 60_000 });

/** One turn of an algorithm. */
async function turn(input: Float32Array, out: Float32Array, algorithm: Algorithm | 'auto') {
  let travelled: AlgorithmLabel = 'ring';
  const calls = new Float64Array(callsPerTurn(input.byteLength));
  for (let index = 0; index < calls.length; index++) {
    await group.barrier();
    const start = performance.now();
    const report = await group.allReduce(input, { out, algorithm });
    calls[index] = (performance.now() - start) / 1_000;
    travelled = report.algorithm;
  }
  await group.allReduce(calls, { op: 'max', tag: 'slowest' });
  const sorted = calls.sort();
  return { seconds: sorted[sorted.length >> 1]!, travelled };
}

/** The compiler sees the hot paths first. Rank 0 decides when the engines are warm, so that all stop after the same turn. */
async function warmUp(): Promise<void> {
  const [large, small] = [1 << 20, 1 << 10].map((count) => sharedTensor('f32', count).fill(1));
  const [largeOut, smallOut] = [1 << 20, 1 << 10].map((count) => sharedTensor('f32', count));
  const goOn = new Uint8Array(1);
  const start = performance.now();
  do {
    for (const algorithm of algorithms) {
      await turn(small!, smallOut!, algorithm);
      await turn(large!, largeOut!, algorithm);
    }
    goOn[0] = performance.now() - start < task.warmUpMs ? 1 : 0;
    await group.broadcast(goOn, { root: 0 });
  } while (goOn[0] === 1);
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
  }));
  for (let round = 0; round < rounds; round++) {
    // Each round begins with another, so that none always follows the same one.
    for (let index = 0; index < times.length; index++) {
      const one = times[(round + index) % times.length]!;
      out.fill(0);
      const { seconds, travelled } = await turn(input, out, one.algorithm);
      one.seconds.push(seconds);
      one.travelled = travelled;
      const expected = (worldSize * (worldSize + 1)) / 2;
      if (out[0] !== expected || out[count - 1] !== expected) throw new Error(`${travelled}: a wrong result`);
    }
  }
  if (group.rank === 0) for (const one of times) process.send?.({ bytes, ...one } satisfies AlgorithmTimes);
}
await group.leave();
process.disconnect?.();
