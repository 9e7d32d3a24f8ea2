/** How far an all-reduce of sixteen ranks is from the exact sum, through the real executor: going straight, and round the ring. */
import { describe, expect, test } from 'vitest';
import type { Codec } from '../../src/collectives/codec.ts';
import type { Algorithm } from '../../src/collectives/program.ts';
import { randomFrom } from '../collectives/interpreter.ts';
import { simulate } from './simulation.ts';

const COUNT = 16 * 1_024;

function gaussian(seed: number): Float32Array {
  const random = randomFrom(seed);
  return Float32Array.from(
    { length: COUNT },
    () => Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random()),
  );
}

/** Relative RMS error of the result, and what each rank says that it dropped. Fails if two ranks have different bits. */
function measure(codec: Codec, algorithm: Algorithm, worldSize: number): { error: number; reported: number } {
  const inputs = Array.from({ length: worldSize }, (_, rank) => gaussian(1 + rank));
  const { outputs, errors } = simulate(
    {
      request: { kind: 'allReduce', algorithm, worldSize, count: COUNT, root: 0 },
      dtype: 'f32',
      op: 'sum',
      codec,
      seed: 1,
      slotsTaken: 0,
      cancelAfter: null,
      observed: { dropped: inputs.map(() => new Uint8Array(4 * COUNT)), chanceSeed: null },
    },
    inputs.map((input) => new Uint8Array(input.buffer)),
  );
  for (const output of outputs) expect(Buffer.compare(output, outputs[0]!)).toBe(0);
  const result = new Float32Array(outputs[0]!.buffer);
  let dropped = 0;
  let energy = 0;
  for (let index = 0; index < COUNT; index++) {
    const exact = inputs.reduce((sum, input) => sum + input[index]!, 0);
    dropped += (result[index]! - exact) ** 2;
    energy += exact ** 2;
  }
  const reported = Math.sqrt(errors.reduce((sum, error) => sum + error ** 2, 0) / worldSize);
  return { error: Math.sqrt(dropped / energy), reported };
}

describe('sixteen ranks, Gaussian input', () => {
  test.each([
    ['int8', 0.009],
    ['int4', 0.13],
    ['e3m0', 0.27],
  ] as const)('%s is within %f, round the ring at least twice that', (codec, bound) => {
    const direct = measure(codec, 'direct', 16);
    const ring = measure(codec, 'ring', 16);
    console.log(`${codec}: direct ${(100 * direct.error).toFixed(2)} %, ring ${(100 * ring.error).toFixed(2)} %`);
    expect(direct.error).toBeLessThanOrEqual(bound);
    expect(ring.error).toBeGreaterThan(1.7 * direct.error);
    // What is documented of `report.error`.
    expect(direct.error).toBeGreaterThanOrEqual(0.97 * direct.reported);
    expect(direct.error).toBeLessThanOrEqual(1.03 * Math.SQRT2 * direct.reported);
  });

  test('the error of going straight does not grow with the ranks', () => {
    const errors = [2, 4, 8, 16].map((worldSize) => measure('int8', 'direct', worldSize).error);
    expect(Math.max(...errors)).toBeLessThanOrEqual(1.3 * Math.min(...errors));
  });
});
