/** Chance that repeats: every number follows from the seed. */
import { xorshift128plus } from 'pure-rand/generator/xorshift128plus';

/** Seeds next to one another begin alike: so many numbers are thrown away. */
const SKIPPED = 8;

export class Draw {
  readonly #generator: ReturnType<typeof xorshift128plus>;

  constructor(seed: number) {
    this.#generator = xorshift128plus(seed);
    for (let skipped = 0; skipped < SKIPPED; skipped++) this.#generator.next();
  }

  /** Uniform in [0, 1). */
  next(): number {
    return (this.#generator.next() >>> 0) / 2 ** 32;
  }

  below(count: number): number {
    return Math.floor(this.next() * count);
  }

  pick<T>(choices: readonly T[]): T {
    return choices[this.below(choices.length)]!;
  }
}
