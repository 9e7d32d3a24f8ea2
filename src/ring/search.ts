/** The one door to the search for a ring: a search that can be gone on with now and then, and never blocks for long. */
import { searchExactly } from './exact.ts';
import { searchNearby } from './heuristic.ts';
import { EXACT_SIZE, isBetter, type RingProblem, scoreOf } from './problem.ts';

export class RingSearch {
  readonly #steps: Generator<number, void>;
  #best: readonly number[];
  #operations = 0;
  #done = false;

  /** @param start an order of the problem's members; one that is as good as any is kept */
  constructor(problem: RingProblem, start: readonly number[]) {
    this.#best = start;
    this.#steps = problem.size <= EXACT_SIZE ? this.#exactly(problem) : this.#nearby(problem);
  }

  *#exactly(problem: RingProblem): Generator<number, void> {
    const found = yield* searchExactly(problem);
    if (isBetter(scoreOf(problem, found), scoreOf(problem, this.#best))) this.#best = found;
  }

  *#nearby(problem: RingProblem): Generator<number, void> {
    yield* searchNearby(problem, this.#best, (order) => {
      this.#best = order;
    });
  }

  /** The best order so far; of a search that has ended, and of `EXACT_SIZE` members at most, the best of all. */
  get best(): readonly number[] {
    return this.#best;
  }

  /** Operations done, each of a few nanoseconds. */
  get operations(): number {
    return this.#operations;
  }

  get done(): boolean {
    return this.#done;
  }

  /** Goes on for about so many operations; whether the search has come to its end. */
  run(operations: number): boolean {
    for (let left = operations; left > 0 && !this.#done; ) {
      const step = this.#steps.next();
      if (step.done === true) this.#done = true;
      else {
        this.#operations += step.value;
        left -= step.value;
      }
    }
    return this.#done;
  }
}
