/** Robust averages of the contributions to one element, from their definitions and in plain JavaScript. */

export interface Average {
  readonly op: 'median' | 'trimmed-mean' | 'centered-clip';
  /** Of the trimmed mean: contributions left out at each end. */
  readonly cut?: number;
  /** Of the centered clip. */
  readonly radius?: number;
}

/** Those that are numbers, lowest first. */
function soundOf(contributions: readonly number[]): number[] {
  return contributions.filter(Number.isFinite).sort((left, right) => left - right);
}

function medianOf(sorted: readonly number[]): number {
  const low = sorted[Math.floor((sorted.length - 1) / 2)]!;
  const high = sorted[Math.ceil((sorted.length - 1) / 2)]!;
  return Number.isFinite(low + high) ? (low + high) / 2 : low / 2 + high / 2;
}

/** Rounding must not lead out of the values that a mean is of. */
function meanOf(values: readonly number[]): number {
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  return Math.min(Math.max(mean, values[0]!), values.at(-1)!);
}

function exactly(
  { op, cut = 0, radius = 0 }: Average,
  sound: readonly number[],
  round: (value: number) => number,
): number {
  const median = round(medianOf(sound));
  if (op === 'median') return median;
  if (op === 'trimmed-mean') {
    const left = Math.min(cut, Math.floor((sound.length - 1) / 2));
    return meanOf(sound.slice(left, sound.length - left));
  }
  const pulls = sound.map((value) => Math.min(Math.max(value - median, -radius), radius));
  const moved = median + pulls.reduce((sum, pull) => sum + pull, 0) / sound.length;
  return Math.min(Math.max(moved, sound[0]!), sound.at(-1)!);
}

/** @param round to what the dtype holds */
export function robustAverage(
  average: Average,
  contributions: readonly number[],
  round: (value: number) => number,
): number {
  const sound = soundOf(contributions);
  return sound.length === 0 ? Number.NaN : round(exactly(average, sound, round));
}
