/**
 * The schedule, fragments and mixing of Streaming DiLoCo, pinned by values that can be worked out with a pencil: two
 * fragments of one parameter each that begin at 1, an inner optimiser of rate 1 whose gradient is always 2 (each step takes 2
 * off), plain SGD of rate 2 outside, a round of 6 steps. The model is that of torchft's regression test of its DiLoCo.
 *
 * Fragment 0 has its turn after steps 3, 9, 15, fragment 1 after steps 6, 12, 18; with an overlap of 1 the outer gradient is
 * taken one step before. For example with mixing 0 and no overlap, fragment 0: after step 3 local is 1 − 6 = −5, so the outer
 * gradient is 6, global 1 − 2 · 6 = −11, and local −11 too; after step 9 local is −23, the gradient 12, global −35.
 */
import { createDiloco } from 'skein/diloco';
import { expect, test } from 'vitest';
import { Members } from '../group/members.ts';

interface Fixture {
  readonly overlap: number;
  readonly mixing: number;
  /** After each turn of the fragment: [global, local]. */
  readonly first: readonly (readonly [number, number])[];
  readonly second: readonly (readonly [number, number])[];
}

const FIXTURES: readonly Fixture[] = [
  {
    overlap: 0,
    mixing: 0,
    first: [
      [-11, -11],
      [-35, -35],
      [-59, -59],
    ],
    second: [
      [-23, -23],
      [-47, -47],
      [-71, -71],
    ],
  },
  {
    overlap: 0,
    mixing: 0.5,
    first: [
      [-11, -8],
      [-29, -24.5],
      [-44, -40.25],
    ],
    second: [
      [-23, -17],
      [-35, -32],
      [-53, -48.5],
    ],
  },
  {
    overlap: 0,
    mixing: 1,
    first: [
      [-11, -5],
      [-23, -17],
      [-35, -29],
    ],
    second: [
      [-23, -11],
      [-23, -23],
      [-47, -35],
    ],
  },
  {
    overlap: 1,
    mixing: 0,
    first: [
      [-7, -7],
      [-27, -27],
      [-47, -47],
    ],
    second: [
      [-19, -19],
      [-39, -39],
      [-59, -59],
    ],
  },
  {
    overlap: 1,
    mixing: 0.5,
    first: [
      [-7, -6],
      [-25, -21.5],
      [-38, -35.75],
    ],
    second: [
      [-19, -15],
      [-31, -29],
      [-47, -44],
    ],
  },
  {
    overlap: 1,
    mixing: 1,
    first: [
      [-7, -5],
      [-23, -17],
      [-31, -29],
    ],
    second: [
      [-19, -11],
      [-23, -23],
      [-43, -35],
    ],
  },
];

test.each(FIXTURES)('overlap $overlap, mixing $mixing', async ({ overlap, mixing, first, second }) => {
  await using members = await Members.form(2, { engine: 'inline' });
  const seen = await members.all(async (group) => {
    const parameters = { first: Float32Array.of(1), second: Float32Array.of(1) };
    const diloco = await createDiloco(group, parameters, {
      every: 6,
      outer: { learningRate: 2, momentum: 0 },
      fragments: { count: 2, pattern: 'strided', overlap, mixing },
    });
    const turns: { fragment: number; step: number; global: number; local: number }[] = [];
    for (let step = 1; step <= 18; step++) {
      for (const parameter of Object.values(parameters)) parameter[0]! -= 2;
      const { synced } = await diloco.step();
      for (const { fragment } of synced) {
        const name = fragment === 0 ? 'first' : 'second';
        turns.push({ fragment, step, global: diloco.shared()[name]![0]!, local: parameters[name][0]! });
      }
    }
    expect(diloco.round).toBe(3);
    return turns;
  });
  const expected = [0, 1, 2].flatMap((round) => [
    { fragment: 0, step: 6 * round + 3, global: first[round]![0], local: first[round]![1] },
    { fragment: 1, step: 6 * round + 6, global: second[round]![0], local: second[round]![1] },
  ]);
  for (const turns of seen) expect(turns).toEqual(expected);
});
