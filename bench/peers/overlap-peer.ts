/** A member for `npm run bench:overlap`: makes the training steps that it is told to, and tells how long they took. */
import { shareOfBatch } from '../../examples/mnist/batch.ts';
import { loadDigits } from '../../examples/mnist/data.ts';
import { type AllReduceStream, join, sharedTensor } from '../../src/index.ts';
import { Layers } from '../harness/layers.ts';
import type { MemberTask } from '../harness/ordered-swarm.ts';

export interface OverlapTask extends MemberTask {
  readonly hidden: number;
  /** Images per member and step. */
  readonly batch: number;
}

/** `alone`: nothing is communicated. `after`: all-reduce when the gradient is complete. `during`: while it is computed. */
export type OverlapMode = 'alone' | 'after' | 'during';

export interface OverlapOrder {
  readonly mode: OverlapMode;
  /** From which the batch is drawn. */
  readonly step: number;
}

export interface OverlapReport {
  /** Forward and backward pass, all-reduce and update. */
  readonly seconds: number;
  readonly backwardSeconds: number;
  /** From the end of the backward pass until the sum was there. */
  readonly waitSeconds: number;
  readonly loss: number;
  /** Of the parameters. */
  readonly hash: number;
  readonly parameters: number;
}

const LEARNING_RATE = 0.05;
const SEED = 7;

const task = JSON.parse(process.argv[2] ?? '') as OverlapTask; // written by overlap.ts
const { address, token, worldSize, hidden, batch } = task;
const { training } = loadDigits();
const layers = new Layers(hidden, batch);
const parameters = new Float32Array(layers.parameters);
layers.initialise(parameters, SEED);
const gradient = sharedTensor('f32', layers.parameters);
const group = await join(address, { startWorldSize: worldSize, token, timeout: 60_000 });

function now(): number {
  return Number(process.hrtime.bigint()) / 1e9;
}

async function step({ mode, step: index }: OverlapOrder): Promise<OverlapReport> {
  const images = shareOfBatch(training, index, batch * worldSize, group.rank, worldSize);
  const before = mode === 'alone' ? parameters.slice() : null;
  await group.barrier();
  const start = now();
  const loss = layers.forward(parameters, images);
  const stream: AllReduceStream | null = mode === 'during' ? group.allReduceStream(gradient, { op: 'avg' }) : null;
  const forwarded = now();
  layers.backward(parameters, gradient, (offset, length) => stream?.ready(offset, length));
  const computed = now();
  if (mode === 'after') await group.allReduce(gradient, { op: 'avg' });
  await stream?.report;
  const summed = now();
  for (let at = 0; at < parameters.length; at++) parameters[at]! -= LEARNING_RATE * gradient[at]!;
  const seconds = now() - start;
  // What each computed alone would lead the members apart.
  if (before !== null) parameters.set(before);
  let hash = 0;
  for (const word of new Uint32Array(parameters.buffer)) hash = (Math.imul(hash, 31) + word) | 0;
  const backwardSeconds = computed - forwarded;
  return {
    seconds,
    backwardSeconds,
    waitSeconds: summed - computed,
    loss,
    hash,
    parameters: parameters.length,
  };
}

process.on('disconnect', () => process.exit(0));
process.on('message', (order: OverlapOrder) => void step(order).then((report) => process.send?.(report)));
process.send?.({ ready: true });
