/** The sides of the comparison. */
import type { FragmentOptions, WireOptions } from '../../src/diloco/index.ts';
import type { Setting } from './task.ts';

/** Steps of data-parallel training, at whose end the loss to be reached is taken. */
export const DATA_PARALLEL_STEPS = 1_500;

/** Steps of DiLoCo: communicating seldom takes more of them. */
export const DILOCO_STEPS = 2_500;

export const EVERY = 50;

export function dataParallel({ rate }: { readonly rate: number }): Setting {
  return { name: 'data-parallel, f32', steps: DATA_PARALLEL_STEPS, rate, diloco: null };
}

export function diloco(how: {
  readonly rate: number;
  readonly momentum: number;
  readonly fragments?: FragmentOptions;
  readonly codec?: NonNullable<WireOptions['codec']>;
}): Setting {
  const { rate, momentum, fragments = {}, codec = 'bf16' } = how;
  const streaming = fragments.count === undefined ? '' : `, ${fragments.count} fragments`;
  return {
    name: `DiLoCo, H=${EVERY}, ${codec}, momentum ${momentum}${streaming}`,
    steps: DILOCO_STEPS,
    rate,
    diloco: { every: EVERY, outer: { learningRate: 0.7, momentum }, fragments, wire: { codec } },
  };
}

const BEST = { rate: 16e-3, momentum: 0.6 } as const;

/** The first is the one that the others are measured by. */
export const SIDES: readonly Setting[] = [
  dataParallel({ rate: 16e-3 }),
  diloco(BEST),
  diloco({ ...BEST, fragments: { count: 4, overlap: 5, mixing: 0.5 } }),
];
