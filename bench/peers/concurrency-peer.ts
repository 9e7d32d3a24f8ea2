/** A member for `npm run bench:concurrency`: makes the calls that it is told to, and tells how long they took. */
import { execFileSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { shareOfBatch } from '../../examples/mnist/batch.ts';
import { loadDigits } from '../../examples/mnist/data.ts';
import { join, sharedTensor } from '../../src/index.ts';
import { Layers } from '../harness/layers.ts';
import type { MemberTask } from '../harness/ordered-swarm.ts';

export interface ConcurrencyTask extends MemberTask {
  /** Rank 0's training thread has a core to itself, all other threads of all members share the others. */
  readonly spare: boolean;
}

/**
 * `one`: an all-reduce of `parts` × `bytes`. `many`: `parts` of `bytes` each, at once. `train`: rank 0 makes training steps alone;
 * `train-beside`: while an all-reduce of `bytes` runs.
 */
export interface ConcurrencyOrder {
  readonly do: 'one' | 'many' | 'train' | 'train-beside';
  readonly bytes: number;
  readonly parts: number;
}

export interface ConcurrencyReport {
  /** Until the calls had ended; of `train…`, the time of the training steps alone. */
  readonly seconds: number;
  /** Of `train-beside`: how long the all-reduce went on after the training steps. */
  readonly afterSeconds: number;
}

const HIDDEN = 256;
const BATCH = 8;
/** So many training steps take less time than the all-reduce beside which they are made. */
const STEPS = 12;

const task = JSON.parse(process.argv[2] ?? '') as ConcurrencyTask; // written by concurrency.ts
const { address, token, worldSize, spare } = task;
const { training } = loadDigits();
const layers = new Layers(HIDDEN, BATCH);
const parameters = new Float32Array(layers.parameters);
layers.initialise(parameters, 7);
const gradient = new Float32Array(layers.parameters);
const images = shareOfBatch(training, 0, BATCH, 0, 1);
const threadsBefore = new Set(threads());
const group = await join(address, { startWorldSize: worldSize, token, timeout: 60_000 });
const tensors = new Map<string, Float32Array>();

function threads(): readonly string[] {
  return readdirSync('/proc/self/task');
}

function tensor(name: string, bytes: number): Float32Array {
  const key = `${name} ${bytes}`;
  const known = tensors.get(key) ?? sharedTensor('f32', bytes / 4).fill(1);
  tensors.set(key, known);
  return known;
}

/** The helpers of rank 0's training thread, which collect its garbage, go where there is room. */
function divideCores(): void {
  const last = availableParallelism() - 1;
  const pin = (thread: string, cores: string) => execFileSync('taskset', ['-cp', cores, thread], { stdio: 'pipe' });
  const isEngines = (thread: string) => group.rank !== 0 || !threadsBefore.has(thread);
  for (const thread of threads()) if (isEngines(thread)) pin(thread, `0-${last - 1}`);
  if (group.rank === 0) pin(String(process.pid), String(last));
}

function now(): number {
  return Number(process.hrtime.bigint()) / 1e9;
}

function train(): number {
  const start = now();
  for (let step = 0; step < STEPS; step++) {
    layers.forward(parameters, images);
    layers.backward(parameters, gradient, () => {});
  }
  return now() - start;
}

async function obey({ do: what, bytes, parts }: ConcurrencyOrder): Promise<ConcurrencyReport> {
  const pair = (index: number, size: number) => ({
    input: tensor(`in ${index}`, size),
    out: tensor(`out ${index}`, size),
  });
  const reduce = ({ input, out }: ReturnType<typeof pair>, tag: string) => group.allReduce(input, { out, tag });
  const pairs =
    what === 'many' ? Array.from({ length: parts }, (_, index) => pair(index, bytes)) : [pair(0, parts * bytes)];
  await group.barrier();
  const start = now();
  if (what === 'train') return { seconds: group.rank === 0 ? train() : 0, afterSeconds: 0 };
  const calls = pairs.map((one, index) => reduce(one, `call ${index}`));
  if (what === 'train-beside' && group.rank === 0) {
    const seconds = train();
    const trained = now();
    await Promise.all(calls);
    return { seconds, afterSeconds: now() - trained };
  }
  await Promise.all(calls);
  return { seconds: what === 'train-beside' ? 0 : now() - start, afterSeconds: 0 };
}

if (spare) divideCores();
process.on('disconnect', () => process.exit(0));
process.on('message', (order: ConcurrencyOrder) => void obey(order).then((report) => process.send?.(report)));
process.send?.({ ready: true });
