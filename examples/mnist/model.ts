/** A perceptron with one hidden layer, its gradient, and AdamW: plain typed arrays, no framework. */

export const INPUTS = 784;
export const HIDDEN = 256;
export const CLASSES = 10;

/** Layout of the parameter vector. */
const W1 = 0;
const B1: number = W1 + INPUTS * HIDDEN;
const W2: number = B1 + HIDDEN;
const B2: number = W2 + HIDDEN * CLASSES;
export const PARAMETERS: number = B2 + CLASSES;

/** A small seeded generator (Marsaglia's xorshift32), so that every peer draws the same numbers. */
export function seededRandom(seed: number): () => number {
  let state = Math.imul(seed ^ 0x5bf03635, 0x9e3779b1) | 1;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) / 2 ** 32;
  };
}

/** He initialisation. */
export function initialParameters(seed: number): Float32Array {
  const random = seededRandom(seed);
  const parameters = new Float32Array(PARAMETERS);
  const normal = () => Math.sqrt(-2 * Math.log(random() + 1e-12)) * Math.cos(2 * Math.PI * random());
  for (let index = W1; index < B1; index++) parameters[index] = normal() * Math.sqrt(2 / INPUTS);
  for (let index = W2; index < B2; index++) parameters[index] = normal() * Math.sqrt(2 / HIDDEN);
  return parameters;
}

const hidden = new Float32Array(HIDDEN);
const hiddenGradient = new Float32Array(HIDDEN);
const probabilities = new Float32Array(CLASSES);

/** Fills `hidden` and `probabilities` for one image. */
function forward(parameters: Float32Array, image: Float32Array): void {
  for (let unit = 0; unit < HIDDEN; unit++) hidden[unit] = parameters[B1 + unit]!;
  for (let input = 0; input < INPUTS; input++) {
    const value = image[input]!;
    if (value === 0) continue;
    const row = W1 + input * HIDDEN;
    for (let unit = 0; unit < HIDDEN; unit++) hidden[unit]! += value * parameters[row + unit]!;
  }
  for (let unit = 0; unit < HIDDEN; unit++) if (hidden[unit]! < 0) hidden[unit] = 0;
  let largest = Number.NEGATIVE_INFINITY;
  for (let label = 0; label < CLASSES; label++) {
    let sum = parameters[B2 + label]!;
    for (let unit = 0; unit < HIDDEN; unit++) sum += hidden[unit]! * parameters[W2 + unit * CLASSES + label]!;
    probabilities[label] = sum;
    largest = Math.max(largest, sum);
  }
  let total = 0;
  for (let label = 0; label < CLASSES; label++) {
    const value = Math.exp(probabilities[label]! - largest);
    probabilities[label] = value;
    total += value;
  }
  for (let label = 0; label < CLASSES; label++) probabilities[label]! /= total;
}

/**
 * Adds the gradient of one image's cross-entropy loss to `gradient`.
 * @returns the loss
 */
export function accumulateGradient(
  parameters: Float32Array,
  image: Float32Array,
  label: number,
  gradient: Float32Array,
): number {
  forward(parameters, image);
  const loss = -Math.log(Math.max(probabilities[label]!, 1e-12));
  hiddenGradient.fill(0);
  for (let output = 0; output < CLASSES; output++) {
    const error = probabilities[output]! - (output === label ? 1 : 0);
    gradient[B2 + output]! += error;
    for (let unit = 0; unit < HIDDEN; unit++) {
      const weight = W2 + unit * CLASSES + output;
      gradient[weight]! += error * hidden[unit]!;
      hiddenGradient[unit]! += error * parameters[weight]!;
    }
  }
  for (let unit = 0; unit < HIDDEN; unit++) {
    if (hidden[unit] === 0) hiddenGradient[unit] = 0;
    gradient[B1 + unit]! += hiddenGradient[unit]!;
  }
  for (let input = 0; input < INPUTS; input++) {
    const value = image[input]!;
    if (value === 0) continue;
    const row = W1 + input * HIDDEN;
    for (let unit = 0; unit < HIDDEN; unit++) gradient[row + unit]! += value * hiddenGradient[unit]!;
  }
  return loss;
}

export function classify(parameters: Float32Array, image: Float32Array): number {
  forward(parameters, image);
  return probabilities.indexOf(Math.max(...probabilities));
}

/** AdamW (I. Loshchilov, F. Hutter, "Decoupled Weight Decay Regularization", 2019). The state is part of what newcomers receive. */
export class AdamW {
  readonly mean: Float32Array = new Float32Array(PARAMETERS);
  readonly variance: Float32Array = new Float32Array(PARAMETERS);

  /** @param step number of the update, from 1 */
  update(parameters: Float32Array, gradient: Float32Array, step: number): void {
    const [rate, beta1, beta2, epsilon, decay] = [2e-3, 0.9, 0.999, 1e-8, 1e-3] as const;
    const correct1 = 1 - beta1 ** step;
    const correct2 = 1 - beta2 ** step;
    for (let index = 0; index < PARAMETERS; index++) {
      const slope = gradient[index]!;
      const mean = beta1 * this.mean[index]! + (1 - beta1) * slope;
      const variance = beta2 * this.variance[index]! + (1 - beta2) * slope * slope;
      this.mean[index] = mean;
      this.variance[index] = variance;
      const direction = mean / correct1 / (Math.sqrt(variance / correct2) + epsilon);
      parameters[index]! -= rate * (direction + decay * parameters[index]!);
    }
  }
}
