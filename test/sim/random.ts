/** The one source of chance of a simulation. */
import { xorshift128plus } from 'pure-rand/generator/xorshift128plus';

export class Random {
  readonly #generator: ReturnType<typeof xorshift128plus>;

  constructor(seed: number) {
    this.#generator = xorshift128plus(seed);
    for (let skipped = 0; skipped < 8; skipped++) this.#generator.next(); // seeds next to one another begin alike
  }

  /** Uniform in [0, 1). */
  next(): number {
    return (this.#generator.next() >>> 0) / 2 ** 32;
  }

  /** Uniform among `least`, …, `most`. */
  integer(least: number, most: number): number {
    return least + Math.floor(this.next() * (most - least + 1));
  }

  chance(share: number): boolean {
    return this.next() < share;
  }

  pick<T>(choices: readonly T[]): T {
    return choices[this.integer(0, choices.length - 1)]!; // callers give at least one
  }

  bytes(length: number): Uint8Array {
    const bytes = new Uint8Array(length);
    for (let at = 0; at < length; at++) bytes[at] = this.integer(0, 255);
    return bytes;
  }
}

/** 32 well-mixed bits of some numbers: chance that does not depend on the order in which it is asked for. */
export function mix(...parts: readonly number[]): number {
  let state = 0x9e3779b9;
  for (let at = 0; at < parts.length; at++) {
    state = Math.imul(state ^ parts[at]!, 0x85ebca6b);
    state = Math.imul(state ^ (state >>> 13), 0xc2b2ae35);
    state ^= state >>> 16;
  }
  return state >>> 0;
}
