/** The outer optimiser against values worked out by hand from PyTorch's documentation of `torch.optim.SGD`. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { createOuterState, type OuterOptions, outerStep, resolveOuter } from '../../src/diloco/outer.ts';
import { ArgumentError } from '../../src/errors.ts';

/** One parameter that begins at 10, after each of the gradients. */
function trajectory(options: OuterOptions, gradients: readonly number[], stale = false): number[] {
  const resolved = resolveOuter(options);
  const state = createOuterState(1);
  const parameters = Float32Array.of(10);
  return gradients.map((gradient) => {
    outerStep(resolved, state, parameters, Float32Array.of(gradient), stale);
    return parameters[0]!;
  });
}

describe("PyTorch's form", () => {
  test('plain: p − lr · g', () => {
    expect(trajectory({ learningRate: 0.5, momentum: 0 }, [4, -2, 1])).toEqual([8, 9, 8.5]);
  });

  test('momentum: the buffer begins as the gradient, and the rate multiplies it afterwards', () => {
    // buffers 4, 0.5·4 − 2 = 0, 0.5·0 + 1 = 1
    expect(trajectory({ learningRate: 0.5, momentum: 0.5, nesterov: false }, [4, -2, 1])).toEqual([8, 8, 7.5]);
  });

  test('Nesterov: g + momentum · buffer', () => {
    // buffers 4, 0, 1; steps 4 + 2 = 6, −2 + 0 = −2, 1 + 0.5 = 1.5
    expect(trajectory({ learningRate: 0.5, momentum: 0.5, nesterov: true }, [4, -2, 1])).toEqual([7, 8, 7.25]);
  });

  test('dampening takes from every gradient but the first', () => {
    // buffers 4, 0.5·4 + 0.75·(−2) = 0.5, 0.25 + 0.75 = 1
    expect(trajectory({ learningRate: 0.5, momentum: 0.5, dampening: 0.25 }, [4, -2, 1])).toEqual([8, 7.75, 7.25]);
  });

  test("the defaults are DiLoCo's: Nesterov momentum 0.9, rate 0.7", () => {
    expect(resolveOuter()).toMatchObject({ learningRate: 0.7, momentum: 0.9, dampening: 0, nesterov: true });
    // step 1 + 0.9 · 1 = 1.9
    expect(trajectory({}, [1])[0]).toBeCloseTo(10 - 0.7 * 1.9, 6);
  });

  test('refuses what PyTorch refuses', () => {
    expect(() => resolveOuter({ nesterov: true, momentum: 0 })).toThrow(ArgumentError);
    expect(() => resolveOuter({ nesterov: true, dampening: 0.5 })).toThrow(ArgumentError);
    expect(() => resolveOuter({ learningRate: -1 })).toThrow(ArgumentError);
  });
});

describe("CO2's measures", () => {
  test('what was clipped is what is used: in the buffer, and in the step', () => {
    // Clipped at 1 the buffer is 1, then 0.5·1 − 1.25 = −0.75; unclipped it would be 4, then 0.75.
    const options = { learningRate: 1, momentum: 0.5, nesterov: false } as const;
    expect(trajectory({ ...options, clip: 1 }, [4, -1.25])).toEqual([9, 9.75]);
    expect(trajectory(options, [4, -1.25])).toEqual([6, 5.25]);
  });

  test('no step is longer than clip · rate, whatever the gradients', () => {
    fc.assert(
      fc.property(fc.array(fc.float({ noNaN: true }), { maxLength: 20 }), fc.boolean(), (gradients, nesterov) => {
        const positions = trajectory({ learningRate: 0.5, momentum: 0.9, nesterov, clip: 0.25 }, gradients);
        for (const [index, position] of positions.entries())
          expect(Math.abs(position - (positions[index - 1] ?? 10))).toBeLessThanOrEqual(0.125 + 1e-5);
      }),
    );
  });

  test('a stale gradient counts less than a fresh one, never more', () => {
    const options = { learningRate: 1, momentum: 0, stalePenalty: 4 } as const;
    expect(trajectory(options, [4], false)).toEqual([6]);
    expect(trajectory(options, [4], true)).toEqual([9]);
    expect(() => resolveOuter({ stalePenalty: 0.5 })).toThrow(ArgumentError);
  });
});
