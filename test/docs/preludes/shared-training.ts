/** What examples of shared state leave to their reader: an update that is the same on all members, whoever has which samples. */
import type { SharedState } from 'skein';

/** This peer's part of the step's samples. */
export function batch(step: number, rank: number, worldSize: number): Float32Array {
  return Float32Array.from({ length: 8 }, (_, index) => Math.sin((step * worldSize + rank) * 8 + index));
}

function weightsOf({ entries }: SharedState): Float32Array {
  return entries['weights'] as Float32Array;
}

export function backward(state: SharedState, samples: Float32Array): Float32Array {
  const mean = samples.reduce((sum, one) => sum + one, 0) / samples.length;
  return weightsOf(state).map((weight) => weight - mean);
}

export function update(state: SharedState, gradients: Float32Array): void {
  const weights = weightsOf(state);
  const rate = Number(state.entries['learningRate']);
  for (const [index, gradient] of gradients.entries()) weights[index]! -= rate * gradient;
}

/** A step by oneself, by what all have alike; what is this peer's own changes with it. */
export function train(state: SharedState, own: SharedState): void {
  weightsOf(state).fill(state.revision + 1);
  own.entries['position'] = Number(own.entries['position']) + 1;
}
