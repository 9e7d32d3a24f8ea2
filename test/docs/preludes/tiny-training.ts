/** What examples leave to their reader: a model of two weights that learns y = 3x − 1 from numbers. */

interface Sample {
  readonly x: number;
  readonly y: number;
}

export const model: Float32Array = new Float32Array(2);

/** This peer's part of the step's samples. */
export function batch(step: number, rank: number, worldSize: number): Sample[] {
  return Array.from({ length: 8 }, (_, index) => {
    const x = Math.sin((step * worldSize + rank) * 8 + index);
    return { x, y: 3 * x - 1 };
  });
}

export function backward(weights: Float32Array, samples: readonly Sample[]): Float32Array {
  const gradients = new Float32Array(2);
  for (const { x, y } of samples) {
    const error = weights[0]! * x + weights[1]! - y;
    gradients[0]! += (2 * error * x) / samples.length;
    gradients[1]! += (2 * error) / samples.length;
  }
  return gradients;
}

export function update(weights: Float32Array, gradients: Float32Array): void {
  for (let index = 0; index < weights.length; index++) weights[index]! -= 0.1 * gradients[index]!;
}

/** One layer's part of a backward pass. */
export function backwardOf(layer: number, gradients: readonly Float32Array[]): void {
  gradients[layer]!.fill(layer + 1);
}

export const weights: Float32Array = new Float32Array(64);
export const biases: Float32Array = new Float32Array(8);

/** One step of an inner optimiser. */
export function innerStep(): void {
  for (const [index, value] of weights.entries()) weights[index] = value - 0.1 * (value - index);
  for (const [index, value] of biases.entries()) biases[index] = value - 0.1 * (value + index);
}
