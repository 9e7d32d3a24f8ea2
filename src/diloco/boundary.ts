/** The boundary between two rounds, where newcomers come in. */
import type { CallOptions, Group } from '../index.ts';

export class Boundary {
  readonly #group: Group;
  readonly #call: Pick<CallOptions, 'timeout' | 'minWorldSize'>;
  #isFirst = true;
  #isPast = false;

  constructor(group: Group, { timeout, minWorldSize }: Pick<CallOptions, 'timeout' | 'minWorldSize'>) {
    this.#group = group;
    this.#call = {
      ...(timeout === undefined ? {} : { timeout }),
      ...(minWorldSize === undefined ? {} : { minWorldSize }),
    };
  }

  /** Returns at once where this boundary is passed already, so that what comes after it can be tried again. @throws what `group.admit` throws */
  async pass(): Promise<void> {
    if (this.#isPast) return;
    // The first turn of `steps()` is the boundary at which this peer came in.
    if (this.#isFirst) await this.#group.steps().next();
    else await this.#group.admit(this.#call);
    this.#isFirst = false;
    this.#isPast = true;
  }

  /** A round is over: the next boundary is ahead. */
  approach(): void {
    this.#isPast = false;
  }
}
