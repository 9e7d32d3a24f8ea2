/** Data-parallel training on digits, the same for a process and for a tab: it uses the group that it is given, and nothing of Node. */
import type { Group, Step } from '../../src/index.ts';
import { type Example, shareOfBatch } from '../mnist/batch.ts';
import { AdamW, Perceptron } from '../mnist/model.ts';

const BATCH = 160;
const HIDDEN = 32;
const SEED = 7;

export const model: Perceptron = new Perceptron(HIDDEN);

export interface Progress {
  readonly step: number;
  readonly loss: number;
  readonly epoch: number;
  readonly worldSize: number;
  /** Of the step (ms). */
  readonly elapsed: number;
}

/** Newcomers get parameters and optimiser state from the lowest-ranked old member. */
async function shareState(group: Group, step: Step, state: readonly Float32Array[]): Promise<void> {
  const source = group.members.find((member) => !step.joined.includes(member.peerId));
  // At the very start everybody is new, and begins with the same seed.
  if (step.joined.length > 0 && source !== undefined) await group.broadcast(state, { root: source.peerId });
}

/** @returns the parameters, with the same bits on all members */
export async function trainDigits(
  group: Group,
  training: readonly Example[],
  steps: number,
  onStep: (progress: Progress) => void,
): Promise<Float32Array> {
  const size = model.parameters;
  const parameters = model.initial(SEED);
  const optimizer = new AdamW(size);
  const done = new Float32Array(1);
  /** Gradient, then the sum of losses and the number of examples in it. */
  const sums = new Float32Array(size + 2);
  let before = performance.now();
  for await (const step of group.steps()) {
    await shareState(group, step, [parameters, optimizer.mean, optimizer.variance, done]);
    const number = done[0]!;
    if (number >= steps) break;
    sums.fill(0);
    const share = shareOfBatch(training, number, BATCH, group.rank, group.worldSize);
    for (const { image, label } of share) sums[size]! += model.accumulateGradient(parameters, image, label, sums);
    sums[size + 1] = share.length;
    const { epoch, worldSize } = await group.allReduce(sums);
    // A peer that was lost in this step took its examples along: what is left is averaged over its own number.
    const examples = sums[size + 1]!;
    for (let index = 0; index < size; index++) sums[index]! /= examples;
    optimizer.update(parameters, sums, number + 1);
    done[0] = number + 1;
    const now = performance.now();
    onStep({ step: number + 1, loss: sums[size]! / examples, epoch, worldSize, elapsed: now - before });
    before = now;
  }
  return parameters;
}
