/**
 * A character-level language model after Bengio et al. (2003): the last characters as vectors, one for each pair, one hidden
 * layer of tanh, and a softmax over the next character. Plain typed arrays, no framework. The vectors of pairs make it as
 * large as something whose traffic is worth saving, while a step reads only few of them.
 */
import { seededRandom } from '../mnist/model.ts';
import { VOCABULARY } from './text.ts';

/** Characters that the model sees. */
export const CONTEXT = 8;
/** Pairs of them. */
const PLACES: number = CONTEXT / 2;
/** So wide that a peer's part of the model travels in four segments, and that of a quarter of the model in one: headers shrink alike. */
const EMBEDDING = 176;
const HIDDEN = 96;
const INPUTS: number = PLACES * EMBEDDING;

/** Layout of the parameter vector. */
const E = 0;
const W1: number = E + VOCABULARY * VOCABULARY * EMBEDDING;
const B1: number = W1 + INPUTS * HIDDEN;
const W2: number = B1 + HIDDEN;
const B2: number = W2 + HIDDEN * VOCABULARY;
export const PARAMETERS: number = B2 + VOCABULARY;

export function initialParameters(seed: number): Float32Array {
  const random = seededRandom(seed);
  const parameters = new Float32Array(PARAMETERS);
  const normal = () => Math.sqrt(-2 * Math.log(random() + 1e-12)) * Math.cos(2 * Math.PI * random());
  for (let at = E; at < W1; at++) parameters[at] = 0.1 * normal();
  for (let at = W1; at < B1; at++) parameters[at] = normal() / Math.sqrt(INPUTS);
  for (let at = W2; at < B2; at++) parameters[at] = (0.5 * normal()) / Math.sqrt(HIDDEN);
  return parameters;
}

const inputs = new Float32Array(INPUTS);
const units = new Float32Array(HIDDEN);
const unitGradient = new Float32Array(HIDDEN);
const probabilities = new Float32Array(VOCABULARY);

/** Where the vector of a pair before the character at `at` begins. */
function vectorOf(text: Uint8Array, at: number, place: number): number {
  const first = at - CONTEXT + 2 * place;
  return E + (text[first]! * VOCABULARY + text[first + 1]!) * EMBEDDING;
}

/** Fills inputs, units and probabilities for the character at `at`. @returns the loss in nats */
function forward(parameters: Float32Array, text: Uint8Array, at: number): number {
  for (let place = 0; place < PLACES; place++) {
    const row = vectorOf(text, at, place);
    for (let part = 0; part < EMBEDDING; part++) inputs[place * EMBEDDING + part] = parameters[row + part]!;
  }
  for (let unit = 0; unit < HIDDEN; unit++) units[unit] = parameters[B1 + unit]!;
  for (let input = 0; input < INPUTS; input++) {
    const value = inputs[input]!;
    const row = W1 + input * HIDDEN;
    for (let unit = 0; unit < HIDDEN; unit++) units[unit]! += value * parameters[row + unit]!;
  }
  for (let label = 0; label < VOCABULARY; label++) probabilities[label] = parameters[B2 + label]!;
  for (let unit = 0; unit < HIDDEN; unit++) {
    const value = Math.tanh(units[unit]!);
    units[unit] = value;
    const row = W2 + unit * VOCABULARY;
    for (let label = 0; label < VOCABULARY; label++) probabilities[label]! += value * parameters[row + label]!;
  }
  let largest = Number.NEGATIVE_INFINITY;
  for (let label = 0; label < VOCABULARY; label++) largest = Math.max(largest, probabilities[label]!);
  let total = 0;
  for (let label = 0; label < VOCABULARY; label++) {
    const value = Math.exp(probabilities[label]! - largest);
    probabilities[label] = value;
    total += value;
  }
  for (let label = 0; label < VOCABULARY; label++) probabilities[label]! /= total;
  return -Math.log(Math.max(probabilities[text[at]!]!, 1e-12));
}

/** Adds the gradient of predicting the character at `at` to `gradient`. @returns the loss in nats */
export function accumulateGradient(
  parameters: Float32Array,
  text: Uint8Array,
  at: number,
  gradient: Float32Array,
): number {
  const loss = forward(parameters, text, at);
  probabilities[text[at]!]! -= 1; // now the gradient of the loss by the scores
  for (let label = 0; label < VOCABULARY; label++) gradient[B2 + label]! += probabilities[label]!;
  for (let unit = 0; unit < HIDDEN; unit++) {
    const row = W2 + unit * VOCABULARY;
    const value = units[unit]!;
    let sum = 0;
    for (let label = 0; label < VOCABULARY; label++) {
      const error = probabilities[label]!;
      gradient[row + label]! += value * error;
      sum += parameters[row + label]! * error;
    }
    unitGradient[unit] = sum * (1 - value * value);
    gradient[B1 + unit]! += unitGradient[unit]!;
  }
  for (let input = 0; input < INPUTS; input++) {
    const row = W1 + input * HIDDEN;
    const value = inputs[input]!;
    let sum = 0;
    for (let unit = 0; unit < HIDDEN; unit++) {
      const error = unitGradient[unit]!;
      gradient[row + unit]! += value * error;
      sum += parameters[row + unit]! * error;
    }
    gradient[vectorOf(text, at, Math.floor(input / EMBEDDING)) + (input % EMBEDDING)]! += sum;
  }
  return loss;
}

/** Mean loss in nats over every `stride`-th character. */
export function evaluate(parameters: Float32Array, text: Uint8Array, stride: number): number {
  let sum = 0;
  let count = 0;
  for (let at = CONTEXT; at < text.length; at += stride) {
    sum += forward(parameters, text, at);
    count += 1;
  }
  return sum / count;
}

/** The parameters by layer, for fragments: views on the one vector. */
export function layers(parameters: Float32Array): Record<string, Float32Array> {
  return {
    embedding: parameters.subarray(E, W1),
    hidden: parameters.subarray(W1, W2),
    output: parameters.subarray(W2, PARAMETERS),
  };
}
