/**
 * Averages that withstand contributions of any content, from crashed optimisers to malice, as long as most are sound. They need all
 * contributions of an element at one place, so they travel `direct`: the owner of a chunk sees each. n of them are finite:
 *
 *     median          the middle one of the n, or the mean of the two in the middle. Any number of bad contributions below n/2
 *                     leaves it between the lowest and the highest sound one
 *     trimmed-mean    the mean without the ⌊trim · N⌋ lowest and as many highest (or all but the middle where that is more), N the
 *                     contributors of the call: so many bad ones leave it within the sound ones
 *     centered-clip   m + mean(max(−r, min(x − m, r))), m the median, r the radius: never farther than r from the median, so that a
 *                     bad contribution counts as r/n at most, while all that are within r of the median are averaged as they are
 *
 * The first two are the coordinate-wise median and trimmed mean of D. Yin, Y. Chen, K. Ramchandran, P. Bartlett, "Byzantine-robust
 * distributed learning: towards optimal statistical rates" (ICML 2018). The third is centered clipping, v ← v + mean(clip(x − v, r)),
 * of S. P. Karimireddy, L. He, M. Jaggi, "Learning from history for Byzantine robust optimization" (ICML 2021), with two differences:
 *
 * - Each element is clipped by itself. The paper clips whole vectors by their norm, which no rank sees here: a norm over what
 *   an owner has would change with the world size, and one over a segment with how the chunk is cut.
 * - It makes one iteration, from the median. The paper starts from the last round's result, a history that newcomers and a call
 *   that is redone don't have; the median is within the sound contributions without one, and of a start like that a further
 *   iteration only lets bad contributions pull again. (From the median, one step is P. J. Bickel's one-step Huber estimate, 1975.)
 *
 * All are computed element by element from sorted values, so neither cuts nor the order of ranks change a bit of them.
 * A value that is not finite is no contribution to its element; an element without any finite one becomes NaN. Alone in its view a
 * rank keeps its tensor as it is.
 */
import type { Kernels, RobustDtype, Rows } from '../kernels/kernels.ts';
import type { Dtype, RobustOp } from '../tensor.ts';

export interface RobustAverage {
  readonly op: RobustOp;
  /** Share of the contributions that the trimmed mean leaves out at each end; null for other ops. */
  readonly trim: number | null;
  /** How far from the median a contribution may pull; null for other ops. */
  readonly clipRadius: number | null;
}

export function hasRobustAverages(dtype: Dtype): dtype is RobustDtype {
  return dtype === 'f32' || dtype === 'f64';
}

/** ⌊trim · contributors⌋, where 0.29 · 100 is 29, which it is not in binary. */
function trimmedAtEachEnd(trim: number, contributors: number): number {
  return Math.floor(trim * contributors + 1e-9);
}

/** Averages the columns of the rows, which are overwritten, into `count` values at `dst`. Each op comes with its parameter. */
export function averageRows(
  kernels: Kernels,
  dtype: RobustDtype,
  { op, trim, clipRadius }: RobustAverage,
  dst: number,
  rows: Rows,
  count: number,
): void {
  switch (op) {
    case 'median':
      kernels.median(dtype, dst, rows, count);
      break;
    case 'trimmed-mean':
      kernels.trimmedMean(dtype, dst, rows, count, trimmedAtEachEnd(trim!, rows.count));
      break;
    case 'centered-clip':
      kernels.centeredClip(dtype, dst, rows, count, clipRadius!);
      break;
    default:
      op satisfies never;
  }
}
