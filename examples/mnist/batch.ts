/** Labelled images, and which of them a peer works on in a step. Free of Node, so that browsers can use it too. */
import { seededRandom } from './model.ts';

export interface Example {
  /** 784 brightness values, 0 to 1. */
  readonly image: Float32Array;
  readonly label: number;
}

export interface Digits {
  readonly training: readonly Example[];
  readonly test: readonly Example[];
}

/**
 * This rank's part of the batch of a step. The whole batch depends only on the step, so training hardly depends on how many
 * peers share the work.
 */
export function shareOfBatch(
  training: readonly Example[],
  step: number,
  size: number,
  rank: number,
  worldSize: number,
): Example[] {
  const random = seededRandom(1_000_003 + step);
  const batch = Array.from({ length: size }, () => training[Math.floor(random() * training.length)]!);
  return batch.slice(Math.floor((rank * size) / worldSize), Math.floor(((rank + 1) * size) / worldSize));
}
