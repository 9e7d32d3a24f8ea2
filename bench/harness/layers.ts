/**
 * A perceptron with two hidden layers whose gradient is computed for a whole batch, layer by layer from the last to the first, so that
 * a layer's gradient is complete while those before it are still to come. Plain typed arrays, no framework.
 */
import type { Example } from '../../examples/mnist/batch.ts';
import { CLASSES, INPUTS, seededRandom } from '../../examples/mnist/model.ts';

/** Rows of a layer's weights whose gradient is handed out at a time. */
const ROWS = 64;

interface Layer {
  readonly inputs: number;
  readonly outputs: number;
  /** Where its weights (inputs × outputs) and its biases are among the parameters. */
  readonly weights: number;
  readonly biases: number;
}

/** Elements `offset` to `offset + length` of the gradient are complete. */
type OnReady = (offset: number, length: number) => void;

export class Layers {
  readonly parameters: number;
  readonly #layers: readonly Layer[];
  readonly #batch: number;
  /** What comes into each layer, and what the last gives: batch × width. */
  readonly #values: readonly Float32Array[];
  readonly #errors: readonly Float32Array[];

  constructor(hidden: number, batch: number) {
    const widths = [INPUTS, hidden, hidden, CLASSES];
    let at = 0;
    this.#layers = widths.slice(1).map((outputs, index) => {
      const inputs = widths[index]!; // one width more than layers
      const layer = { inputs, outputs, weights: at, biases: at + inputs * outputs };
      at = layer.biases + outputs;
      return layer;
    });
    this.parameters = at;
    this.#batch = batch;
    this.#values = widths.map((width) => new Float32Array(width * batch));
    this.#errors = widths.map((width) => new Float32Array(width * batch));
  }

  /** He initialisation. */
  initialise(parameters: Float32Array, seed: number): void {
    const random = seededRandom(seed);
    parameters.fill(0);
    for (const { inputs, outputs, weights } of this.#layers) {
      for (let index = weights; index < weights + inputs * outputs; index++) {
        const normal = Math.sqrt(-2 * Math.log(random() + 1e-12)) * Math.cos(2 * Math.PI * random());
        parameters[index] = normal * Math.sqrt(2 / inputs);
      }
    }
  }

  /** @returns the mean cross-entropy loss of the batch */
  forward(parameters: Float32Array, batch: readonly Example[]): number {
    for (const [index, { image }] of batch.entries()) this.#values[0]!.set(image, index * INPUTS);
    for (const [index, layer] of this.#layers.entries()) {
      const isLast = index === this.#layers.length - 1;
      this.#layerForward(parameters, layer, this.#values[index]!, this.#values[index + 1]!, isLast);
    }
    const [outputs, errors] = [this.#values.at(-1)!, this.#errors.at(-1)!];
    let loss = 0;
    for (const [index, { label }] of batch.entries()) {
      const scores = outputs.subarray(index * CLASSES, (index + 1) * CLASSES);
      const most = Math.max(...scores);
      const total = scores.reduce((sum, score) => sum + Math.exp(score - most), 0);
      for (let one = 0; one < CLASSES; one++) {
        const probability = Math.exp(scores[one]! - most) / total;
        errors[index * CLASSES + one] = (probability - Number(one === label)) / this.#batch;
        if (one === label) loss -= Math.log(Math.max(probability, 1e-12));
      }
    }
    return loss / this.#batch;
  }

  #layerForward(
    parameters: Float32Array,
    { inputs, outputs, weights, biases }: Layer,
    from: Float32Array,
    to: Float32Array,
    isLast: boolean,
  ): void {
    for (let one = 0; one < this.#batch; one++) {
      const target = to.subarray(one * outputs, (one + 1) * outputs);
      target.set(parameters.subarray(biases, biases + outputs));
      for (let input = 0; input < inputs; input++) {
        const value = from[one * inputs + input]!;
        if (value === 0) continue;
        const row = weights + input * outputs;
        for (let output = 0; output < outputs; output++) target[output]! += value * parameters[row + output]!;
      }
      if (!isLast) for (let output = 0; output < outputs; output++) if (target[output]! < 0) target[output] = 0;
    }
  }

  /** The gradient of what `forward` computed last, from the last layer to the first. */
  backward(parameters: Float32Array, gradient: Float32Array, onReady: OnReady): void {
    for (let index = this.#layers.length - 1; index >= 0; index--) {
      const layer = this.#layers[index]!;
      const [values, errors] = [this.#values[index]!, this.#errors[index + 1]!];
      this.#layerGradient(layer, values, errors, gradient, onReady);
      if (index > 0) this.#layerErrors(parameters, layer, values, errors, this.#errors[index]!);
    }
  }

  #layerGradient(
    { inputs, outputs, weights, biases }: Layer,
    values: Float32Array,
    errors: Float32Array,
    gradient: Float32Array,
    onReady: OnReady,
  ): void {
    const sums = gradient.subarray(biases, biases + outputs).fill(0);
    for (let one = 0; one < this.#batch; one++) {
      for (let output = 0; output < outputs; output++) sums[output]! += errors[one * outputs + output]!;
    }
    onReady(biases, outputs);
    for (let first = 0; first < inputs; first += ROWS) {
      const last = Math.min(inputs, first + ROWS);
      for (let input = first; input < last; input++) {
        const row = gradient.subarray(weights + input * outputs, weights + (input + 1) * outputs).fill(0);
        for (let one = 0; one < this.#batch; one++) {
          const value = values[one * inputs + input]!;
          if (value === 0) continue;
          const error = one * outputs;
          for (let output = 0; output < outputs; output++) row[output]! += value * errors[error + output]!;
        }
      }
      onReady(weights + first * outputs, (last - first) * outputs);
    }
  }

  /** What a layer's error is where its inputs came from. Rectified units that were off have none. */
  #layerErrors(
    parameters: Float32Array,
    { inputs, outputs, weights }: Layer,
    values: Float32Array,
    errors: Float32Array,
    before: Float32Array,
  ): void {
    for (let input = 0; input < inputs; input++) {
      const row = weights + input * outputs;
      for (let one = 0; one < this.#batch; one++) {
        let sum = 0;
        if (values[one * inputs + input]! > 0) {
          const error = one * outputs;
          for (let output = 0; output < outputs; output++) sum += parameters[row + output]! * errors[error + output]!;
        }
        before[one * inputs + input] = sum;
      }
    }
  }
}
