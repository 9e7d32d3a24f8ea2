/** The example computes what it claims: gradient, optimiser and data, each against something that was written separately. */
import { createHash } from 'node:crypto';
import fc from 'fast-check';
import { beforeAll, describe, expect, it } from 'vitest';
import { type Digits, type Example, shareOfBatch } from '../../examples/mnist/batch.ts';
import { loadDigits } from '../../examples/mnist/data.ts';
import { AdamW, CLASSES, INPUTS, Perceptron, seededRandom } from '../../examples/mnist/model.ts';
import { type AdamWState, adamW, HIDDEN, LAYERS, loss } from './reference.ts';

const model = new Perceptron(HIDDEN);
const PARAMETERS = model.parameters;

let digits: Digits;
beforeAll(() => {
  digits = loadDigits();
});

/** The parameters of a seed, with biases that are not zero. */
function someParameters(seed: number): Float32Array {
  const parameters = model.initial(seed);
  const random = seededRandom(seed + 1);
  for (const { from, to } of [LAYERS['hidden biases'], LAYERS['output biases']])
    for (let index = from; index < to; index++) parameters[index] = random() - 0.5;
  return parameters;
}

function gradientOf(parameters: Float32Array, { image, label }: Example): { gradient: Float32Array; loss: number } {
  const gradient = new Float32Array(PARAMETERS);
  return { loss: model.accumulateGradient(parameters, image, label, gradient), gradient };
}

/** Slope of the reference loss along one parameter. */
function finiteDifference(parameters: Float64Array, { image, label }: Example, index: number): number {
  const step = 1e-4;
  const value = parameters[index]!;
  parameters[index] = value + step;
  const above = loss(parameters, image, label);
  parameters[index] = value - step;
  const below = loss(parameters, image, label);
  parameters[index] = value;
  return (above - below) / (2 * step);
}

/** Of the parameters of a layer those with the steepest slope, where a relative comparison says most, and some others. */
function sampleOf(layer: { from: number; to: number }, gradient: Float32Array): number[] {
  const indices = Array.from({ length: layer.to - layer.from }, (_, index) => layer.from + index);
  const steepest = [...indices].sort((left, right) => Math.abs(gradient[right]!) - Math.abs(gradient[left]!));
  const random = seededRandom(layer.to);
  const others = Array.from({ length: 8 }, () => indices[Math.floor(random() * indices.length)]!);
  return [...steepest.slice(0, 8), ...others];
}

describe('the gradient', () => {
  it.each([0, 1, 2])('agrees with finite differences in every layer (image %i)', (which) => {
    const example = digits.training[which]!;
    const parameters = someParameters(which + 1);
    const { gradient, loss: found } = gradientOf(parameters, example);
    const exact = Float64Array.from(parameters);
    expect(found).toBeCloseTo(loss(exact, example.image, example.label), 5);
    for (const [name, layer] of Object.entries(LAYERS)) {
      const sample = sampleOf(layer, gradient);
      const expected = sample.map((index) => finiteDifference(exact, example, index));
      expect(Math.max(...expected.map(Math.abs)), `${name} matter`).toBeGreaterThan(1e-3);
      for (const [at, index] of sample.entries()) {
        const error = Math.abs(gradient[index]! - expected[at]!);
        expect(error, `${name}, parameter ${index}`).toBeLessThanOrEqual(1e-3 * Math.abs(expected[at]!) + 1e-6);
      }
    }
  });

  it('is zero for the weights of dark pixels', () => {
    const example = digits.training[0]!;
    const { gradient } = gradientOf(someParameters(1), example);
    const dark = example.image.indexOf(0);
    const hiddenUnits = LAYERS['hidden biases'].to - LAYERS['hidden biases'].from;
    expect(gradient.subarray(dark * hiddenUnits, (dark + 1) * hiddenUnits).every((slope) => slope === 0)).toBe(true);
  });

  it('is added to what is there, and touches nothing beyond the parameters', () => {
    const parameters = someParameters(1);
    const [first, second] = [digits.training[0]!, digits.training[1]!];
    const sums = new Float32Array(PARAMETERS + 2).fill(5, PARAMETERS);
    for (const { image, label } of [first, second]) model.accumulateGradient(parameters, image, label, sums);
    const [one, two] = [gradientOf(parameters, first).gradient, gradientOf(parameters, second).gradient];
    const worst = one.reduce((error, slope, index) => Math.max(error, Math.abs(slope + two[index]! - sums[index]!)), 0);
    expect(worst).toBeLessThan(1e-6);
    expect([...sums.slice(PARAMETERS)]).toEqual([5, 5]);
  });
});

describe('AdamW', () => {
  it('takes the steps of the reference, and leaves alone what has neither value nor slope', () => {
    const start = [0.5, -2, 0, 1e-3];
    const slopes = [
      [0.1, -3, 1e-6, 0],
      [-0.2, -1, 1e-6, 0],
      [0.05, 4, -1e-6, 1],
    ];
    const parameters = new Float32Array(PARAMETERS);
    parameters.set(start);
    const optimizer = new AdamW(PARAMETERS);
    const expected = [...start];
    const states: AdamWState[] = start.map(() => ({ mean: 0, variance: 0 }));
    for (const [index, row] of slopes.entries()) {
      const gradient = new Float32Array(PARAMETERS);
      gradient.set(row);
      optimizer.update(parameters, gradient, index + 1);
      for (const [at, slope] of row.entries()) expected[at] = adamW(expected[at]!, slope, states[at]!, index + 1);
      for (const [at, value] of expected.entries()) {
        expect(Math.abs(parameters[at]! - value), `step ${index + 1}, parameter ${at}`).toBeLessThan(1e-6);
        expect(optimizer.mean[at]!).toBeCloseTo(states[at]!.mean, 6);
        expect(optimizer.variance[at]!).toBeCloseTo(states[at]!.variance, 6);
      }
    }
    expect(parameters.subarray(start.length).every((value) => value === 0)).toBe(true);
  });

  it('first moves each parameter by the learning rate against its slope, however steep that is', () => {
    const parameters = new Float32Array(PARAMETERS);
    const gradient = new Float32Array(PARAMETERS);
    gradient.set([100, -1e-3]);
    new AdamW(PARAMETERS).update(parameters, gradient, 1);
    expect(parameters[0]).toBeCloseTo(-2e-3, 6);
    expect(parameters[1]).toBeCloseTo(2e-3, 6);
  });
});

describe('training', () => {
  it('begins with the same parameters on every peer', () => {
    const bytes = (seed: number) => Buffer.from(model.initial(seed).buffer);
    expect(bytes(7).equals(bytes(7))).toBe(true);
    expect(bytes(7).equals(bytes(8))).toBe(false);
  });

  it('learns a few images by heart', () => {
    const parameters = model.initial(7);
    const optimizer = new AdamW(PARAMETERS);
    const few = digits.training.slice(0, 8);
    for (let step = 1; step <= 20; step++) {
      const gradient = new Float32Array(PARAMETERS);
      for (const { image, label } of few) model.accumulateGradient(parameters, image, label, gradient);
      optimizer.update(parameters, gradient, step);
    }
    expect(few.map(({ image, label }) => model.classify(parameters, image, label).guess)).toEqual(
      few.map(({ label }) => label),
    );
  });
});

describe('the digits', () => {
  it('are ten thousand images of 28 × 28 values from 0 to 1, of all ten kinds', () => {
    const all = [...digits.training, ...digits.test];
    expect(all).toHaveLength(10_000);
    expect(all.every(({ image }) => image.length === INPUTS)).toBe(true);
    expect(all.every(({ image }) => image.every((value) => value >= 0 && value <= 1))).toBe(true);
    expect(all.every(({ image }) => image.some((value) => value > 0.5))).toBe(true);
    for (const part of [digits.training, digits.test])
      expect([...new Set(part.map(({ label }) => label))].sort()).toEqual(Array.from({ length: CLASSES }, (_, i) => i));
  });

  it('are split into 85 % to learn from and 15 % to be examined on, without a common image', () => {
    expect(digits.training).toHaveLength(8_500);
    expect(digits.test).toHaveLength(1_500);
    const fingerprint = ({ image }: Example) => createHash('sha256').update(image).digest('hex');
    const learned = new Set(digits.training.map(fingerprint));
    expect(digits.test.filter((example) => learned.has(fingerprint(example)))).toEqual([]);
  });

  it('are split in the same way on every peer', () => {
    const labels = ({ training, test }: Digits) => [...training, ...test].map(({ label }) => label).join('');
    expect(labels(loadDigits())).toBe(labels(digits));
  });
});

describe("a rank's share of a batch", () => {
  const anyBatch = fc.record({
    step: fc.nat(),
    size: fc.integer({ min: 0, max: 200 }),
    worldSize: fc.integer({ min: 1, max: 9 }),
  });

  it('is disjoint from the shares of the others: together they are the whole batch, whatever the world size', () => {
    fc.assert(
      fc.property(anyBatch, ({ step, size, worldSize }) => {
        const share = (rank: number, of: number) => shareOfBatch(digits.training, step, size, rank, of);
        const shares = Array.from({ length: worldSize }, (_, rank) => share(rank, worldSize));
        const whole = share(0, 1);
        expect(whole).toHaveLength(size);
        const joined = shares.flat();
        expect(joined.length === size && joined.every((example, index) => example === whole[index])).toBe(true);
        const sizes = shares.map((one) => one.length);
        expect(Math.max(...sizes) - Math.min(...sizes)).toBeLessThanOrEqual(1);
      }),
    );
  });

  it('is another one at each step', () => {
    const share = (step: number) => shareOfBatch(digits.training, step, 160, 0, 4).map(({ label }) => label);
    expect(share(1)).toEqual(share(1));
    expect(share(1)).not.toEqual(share(2));
  });
});
