/** The example's perceptron and optimiser written again, in double precision and as the formulas stand in the textbooks. */
import { CLASSES, INPUTS } from '../../examples/mnist/model.ts';

/** Units of the perceptron that is compared. */
export const HIDDEN = 256;

/** Where each layer lies in the parameter vector. */
export const LAYERS = {
  'input weights': { from: 0, to: INPUTS * HIDDEN },
  'hidden biases': { from: INPUTS * HIDDEN, to: (INPUTS + 1) * HIDDEN },
  'output weights': { from: (INPUTS + 1) * HIDDEN, to: (INPUTS + 1) * HIDDEN + HIDDEN * CLASSES },
  'output biases': {
    from: (INPUTS + 1) * HIDDEN + HIDDEN * CLASSES,
    to: (INPUTS + 1) * HIDDEN + (HIDDEN + 1) * CLASSES,
  },
} as const;

/** weights: one row for each input. */
function affine(
  input: ArrayLike<number>,
  parameters: Float64Array,
  weights: number,
  biases: number,
  outputs: number,
): Float64Array {
  const sums = parameters.slice(biases, biases + outputs);
  for (let row = 0; row < input.length; row++) {
    for (let output = 0; output < outputs; output++)
      sums[output]! += input[row]! * parameters[weights + row * outputs + output]!;
  }
  return sums;
}

/** Cross-entropy of softmax(relu(x·W1 + b1)·W2 + b2). */
export function loss(parameters: Float64Array, image: Float32Array, label: number): number {
  const [first, second] = [LAYERS['input weights'].from, LAYERS['output weights'].from];
  const hidden = affine(image, parameters, first, LAYERS['hidden biases'].from, HIDDEN);
  const active = hidden.map((value) => Math.max(0, value));
  const scores = affine(active, parameters, second, LAYERS['output biases'].from, CLASSES);
  const total = scores.reduce((sum, score) => sum + Math.exp(score), 0);
  return Math.log(total) - scores[label]!;
}

export interface AdamWState {
  mean: number;
  variance: number;
}

/** One step for one parameter: algorithm 2 of Loshchilov and Hutter (2019) with the rate in front of both terms, as in PyTorch. */
export function adamW(parameter: number, slope: number, state: AdamWState, step: number): number {
  const [rate, beta1, beta2, epsilon, decay] = [0.002, 0.9, 0.999, 1e-8, 0.001] as const;
  state.mean = beta1 * state.mean + (1 - beta1) * slope;
  state.variance = beta2 * state.variance + (1 - beta2) * slope ** 2;
  const mean = state.mean / (1 - beta1 ** step);
  const variance = state.variance / (1 - beta2 ** step);
  const decayed = parameter * (1 - rate * decay);
  return decayed - (rate * mean) / (Math.sqrt(variance) + epsilon);
}
