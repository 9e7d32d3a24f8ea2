/** Finds the figures of the cost model that explain measured times best. */
import type { ProcessorFigures } from '../../src/costs.ts';

/** How far to step from a figure: ever finer. */
const STEPS = [2, 1.4, 1.2, 1.1, 1.05, 1.02];

/**
 * Coordinate descent over factors, as figures are orders of magnitude apart.
 *
 * @param errorOf what is to be least
 */
export function fitFigures(start: ProcessorFigures, errorOf: (figures: ProcessorFigures) => number): ProcessorFigures {
  const names = Object.keys(start) as (keyof ProcessorFigures)[]; // it has no others
  let best = start;
  let least = errorOf(best);
  for (const step of STEPS) {
    for (let improves = true; improves; ) {
      improves = false;
      for (const name of names) {
        for (const factor of [step, 1 / step]) {
          const tried = { ...best, [name]: best[name] * factor };
          const error = errorOf(tried);
          if (error >= least * (1 - 1e-6)) continue;
          [best, least, improves] = [tried, error, true];
        }
      }
    }
  }
  return best;
}
