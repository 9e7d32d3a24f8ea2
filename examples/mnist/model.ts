/** A perceptron with one hidden layer, its gradient, and AdamW: plain typed arrays, no framework. */

export const INPUTS = 784;
export const CLASSES = 10;

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

/** 784 inputs, one layer of rectified units, ten classes. All parameters are one vector: W1, b1, W2, b2. */
export class Perceptron {
  readonly hidden: number;
  /** Length of the parameter vector. */
  readonly parameters: number;
  readonly #b1: number;
  readonly #w2: number;
  readonly #b2: number;
  readonly #units: Float32Array;
  readonly #unitGradient: Float32Array;
  readonly #probabilities: Float32Array = new Float32Array(CLASSES);

  constructor(hidden: number) {
    this.hidden = hidden;
    this.#b1 = INPUTS * hidden;
    this.#w2 = this.#b1 + hidden;
    this.#b2 = this.#w2 + hidden * CLASSES;
    this.parameters = this.#b2 + CLASSES;
    this.#units = new Float32Array(hidden);
    this.#unitGradient = new Float32Array(hidden);
  }

  /** He initialisation. */
  initial(seed: number): Float32Array {
    const random = seededRandom(seed);
    const parameters = new Float32Array(this.parameters);
    const normal = () => Math.sqrt(-2 * Math.log(random() + 1e-12)) * Math.cos(2 * Math.PI * random());
    for (let index = 0; index < this.#b1; index++) parameters[index] = normal() * Math.sqrt(2 / INPUTS);
    for (let index = this.#w2; index < this.#b2; index++) parameters[index] = normal() * Math.sqrt(2 / this.hidden);
    return parameters;
  }

  /** Fills units and probabilities for one image. */
  #forward(parameters: Float32Array, image: Float32Array): void {
    const { hidden } = this;
    const units = this.#units;
    const probabilities = this.#probabilities;
    for (let unit = 0; unit < hidden; unit++) units[unit] = parameters[this.#b1 + unit]!;
    for (let input = 0; input < INPUTS; input++) {
      const value = image[input]!;
      if (value === 0) continue;
      const row = input * hidden;
      for (let unit = 0; unit < hidden; unit++) units[unit]! += value * parameters[row + unit]!;
    }
    for (let unit = 0; unit < hidden; unit++) if (units[unit]! < 0) units[unit] = 0;
    let largest = Number.NEGATIVE_INFINITY;
    for (let label = 0; label < CLASSES; label++) {
      let sum = parameters[this.#b2 + label]!;
      for (let unit = 0; unit < hidden; unit++) sum += units[unit]! * parameters[this.#w2 + unit * CLASSES + label]!;
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
  accumulateGradient(parameters: Float32Array, image: Float32Array, label: number, gradient: Float32Array): number {
    const { hidden } = this;
    this.#forward(parameters, image);
    const units = this.#units;
    const unitGradient = this.#unitGradient.fill(0);
    for (let output = 0; output < CLASSES; output++) {
      const error = this.#probabilities[output]! - (output === label ? 1 : 0);
      gradient[this.#b2 + output]! += error;
      for (let unit = 0; unit < hidden; unit++) {
        const weight = this.#w2 + unit * CLASSES + output;
        gradient[weight]! += error * units[unit]!;
        unitGradient[unit]! += error * parameters[weight]!;
      }
    }
    for (let unit = 0; unit < hidden; unit++) {
      if (units[unit] === 0) unitGradient[unit] = 0;
      gradient[this.#b1 + unit]! += unitGradient[unit]!;
    }
    for (let input = 0; input < INPUTS; input++) {
      const value = image[input]!;
      if (value === 0) continue;
      const row = input * hidden;
      for (let unit = 0; unit < hidden; unit++) gradient[row + unit]! += value * unitGradient[unit]!;
    }
    return this.#loss(label);
  }

  /** The class held most likely, and the loss against the true one. */
  classify(parameters: Float32Array, image: Float32Array, label: number): { guess: number; loss: number } {
    this.#forward(parameters, image);
    const guess = this.#probabilities.indexOf(Math.max(...this.#probabilities));
    return { guess, loss: this.#loss(label) };
  }

  #loss(label: number): number {
    return -Math.log(Math.max(this.#probabilities[label]!, 1e-12));
  }
}

/** AdamW (I. Loshchilov, F. Hutter, "Decoupled Weight Decay Regularization", 2019). The state is part of what newcomers receive. */
export class AdamW {
  readonly mean: Float32Array;
  readonly variance: Float32Array;
  rate: number;

  constructor(parameters: number, rate = 2e-3) {
    this.mean = new Float32Array(parameters);
    this.variance = new Float32Array(parameters);
    this.rate = rate;
  }

  /** @param step number of the update, from 1 */
  update(parameters: Float32Array, gradient: Float32Array, step: number): void {
    const [beta1, beta2, epsilon, decay] = [0.9, 0.999, 1e-8, 1e-3] as const;
    const rate = this.rate;
    const correct1 = 1 - beta1 ** step;
    const correct2 = 1 - beta2 ** step;
    for (let index = 0; index < parameters.length; index++) {
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
