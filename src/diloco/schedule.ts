/** When to synchronise, where rounds need not be equally long. */
import { ArgumentError } from '../index.ts';

/**
 * A schedule for `every` that spends its rounds late: "A Single Merging Suffices" (arXiv 2507.06542, section 4) finds that
 * communication is worth most towards the end of training. Rounds get shorter linearly, and add up to `steps`.
 *
 * @example createDiloco(group, parameters, { every: lateRounds(1_000, 10) }) // 182, 163, … 18 steps
 */
export function lateRounds(steps: number, rounds: number): (round: number) => number {
  if (!(Number.isInteger(rounds) && rounds > 0 && Number.isInteger(steps) && steps >= rounds * (rounds + 1))) {
    throw new ArgumentError(`${steps} steps are too few for ${rounds} rounds that get shorter.`);
  }
  const weight = (rounds * (rounds + 1)) / 2;
  // After k rounds: the share that their weights, rounds + (rounds − 1) + …, have of all.
  const end = (done: number) => Math.round((steps * (done * rounds - (done * (done - 1)) / 2)) / weight);
  return (round) => (round < rounds ? end(round + 1) - end(round) : end(rounds) - end(rounds - 1));
}
