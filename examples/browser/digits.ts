/** Digits as a page loads them: brightness in thousandths, which is how the package `mnist` writes it, so that nothing is lost. */
import type { Example } from '../mnist/batch.ts';
import { INPUTS } from '../mnist/model.ts';

const SCALE = 1_000;

export function packImages(examples: readonly Example[]): Uint16Array {
  const packed = new Uint16Array(examples.length * INPUTS);
  for (const [at, { image }] of examples.entries()) {
    for (const [input, brightness] of image.entries()) packed[at * INPUTS + input] = Math.round(brightness * SCALE);
  }
  return packed;
}

export function unpackExamples(images: Uint16Array, labels: Uint8Array): Example[] {
  return Array.from(labels, (label, at) => {
    const image = Float32Array.from(images.subarray(at * INPUTS, (at + 1) * INPUTS), (packed) => packed / SCALE);
    return { image, label };
  });
}
