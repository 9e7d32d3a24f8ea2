/** The text example computes what it claims: the model's gradient, and shards of the book that differ. */
import { beforeAll, describe, expect, it } from 'vitest';
import {
  accumulateGradient,
  CONTEXT,
  evaluate,
  initialParameters,
  layers,
  PARAMETERS,
} from '../../examples/diloco-text/model.ts';
import { runAll } from '../../examples/diloco-text/runs.ts';
import { SIDES } from '../../examples/diloco-text/settings.ts';
import { PEERS } from '../../examples/diloco-text/task.ts';
import { type Book, loadBook, VOCABULARY } from '../../examples/diloco-text/text.ts';

let book: Book;
beforeAll(() => {
  book = loadBook(PEERS);
});

/** The loss as the formulas stand in the paper, in double precision: −log softmax(b + U · tanh(d + H · x)), x of pairs. */
function loss(parameters: Float64Array, text: Uint8Array, at: number): number {
  const sizes = Object.values(layers(new Float32Array(PARAMETERS))).map((layer) => layer.length);
  const [embedding, hidden] = [parameters.subarray(0, sizes[0]), parameters.subarray(sizes[0]!, sizes[0]! + sizes[1]!)];
  const output = parameters.subarray(sizes[0]! + sizes[1]!);
  const width = sizes[0]! / VOCABULARY ** 2;
  const x = Array.from({ length: (CONTEXT / 2) * width }, (_, input) => {
    const first = at - CONTEXT + 2 * Math.floor(input / width);
    return embedding[(text[first]! * VOCABULARY + text[first + 1]!) * width + (input % width)]!;
  });
  const units = sizes[1]! / (x.length + 1);
  const affine = (values: number[], layer: Float64Array, outputs: number) =>
    Array.from({ length: outputs }, (_, to) =>
      values.reduce(
        (sum, value, from) => sum + value * layer[from * outputs + to]!,
        layer[values.length * outputs + to]!,
      ),
    );
  const scores = affine(affine(x, hidden, units).map(Math.tanh), output, VOCABULARY);
  return Math.log(scores.reduce((sum, score) => sum + Math.exp(score), 0)) - scores[text[at]!]!;
}

describe('the gradient', () => {
  it('agrees with finite differences of the formulas in every layer', () => {
    const parameters = initialParameters(1);
    const text = book.shards[0]!;
    const at = 100;
    const gradient = new Float32Array(PARAMETERS);
    const exact = Float64Array.from(parameters);
    expect(accumulateGradient(parameters, text, at, gradient)).toBeCloseTo(loss(exact, text, at), 5);
    let first = 0;
    for (const [name, { length }] of Object.entries(layers(parameters))) {
      const indices = Array.from({ length }, (_, index) => first + index);
      const steepest = indices
        .sort((left, right) => Math.abs(gradient[right]!) - Math.abs(gradient[left]!))
        .slice(0, 12);
      expect(Math.abs(gradient[steepest[0]!]!), `${name} matters`).toBeGreaterThan(1e-3);
      for (const index of steepest) {
        const value = exact[index]!;
        exact[index] = value + 1e-4;
        const above = loss(exact, text, at);
        exact[index] = value - 1e-4;
        const below = loss(exact, text, at);
        exact[index] = value;
        expect(Math.abs((above - below) / 2e-4 / gradient[index]! - 1), `${name}, ${index}`).toBeLessThan(1e-3);
      }
      first += length;
    }
    expect(first).toBe(PARAMETERS);
  });
});

describe('the book', () => {
  it('is more than a million characters, of which a twelfth is kept for the examination', () => {
    const learned = book.shards.reduce((sum, shard) => sum + shard.length, 0);
    expect(learned + book.test.length).toBeGreaterThan(1_000_000);
    expect(book.test.length / (learned + book.test.length)).toBeCloseTo(1 / 12, 2);
  });

  it('is shared out evenly, in parts whose words differ', () => {
    const counts = book.shards.map((shard) => {
      const pairs = new Float64Array(VOCABULARY * VOCABULARY);
      for (let at = 1; at < shard.length; at++) pairs[shard[at - 1]! * VOCABULARY + shard[at]!]! += 1;
      return pairs;
    });
    expect(
      Math.max(...book.shards.map((shard) => shard.length)) - Math.min(...book.shards.map((shard) => shard.length)),
    ).toBeLessThan(2);
    // Chi-squared of pairs of characters, per degree of freedom: 1 for parts drawn from one distribution.
    const [one, other] = [counts[0]!, counts[3]!];
    let sum = 0;
    let pairs = 0;
    for (let at = 0; at < one.length; at++) {
      const both = one[at]! + other[at]!;
      if (both < 50) continue;
      sum += (one[at]! - other[at]!) ** 2 / both;
      pairs += 1;
    }
    expect(sum / pairs).toBeGreaterThan(3);
  });

  it('is the same on every peer', () => {
    const again = loadBook(PEERS);
    const parts = (one: Book) => [...one.shards, one.test].map((part) => Buffer.from(part).toString('latin1'));
    expect(parts(again).join('') === parts(book).join('')).toBe(true);
  });
});

it('an untrained model knows nothing: its loss is that of guessing', () => {
  expect(evaluate(initialParameters(1), book.test, 97)).toBeCloseTo(Math.log(VOCABULARY), 0);
});

it('a fragment of four is a burst of at most a quarter of the whole, by the bytes that were sent', async () => {
  const bursts: number[] = [];
  const short = SIDES.slice(1).map((side) => ({ ...side, steps: 50 })); // a round of each kind of DiLoCo
  for await (const { largestBurst } of runAll(short, [1])) bursts.push(largestBurst);
  const [whole, fragment] = bursts;
  expect(fragment).toBeGreaterThan(100_000);
  expect(whole! / fragment!).toBeGreaterThanOrEqual(4);
});
