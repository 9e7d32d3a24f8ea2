/**
 * What a run's machine wants, on its way out: in order, and nothing before what it follows from is stored. The machine goes on
 * meanwhile.
 */
import type { CoordinatorEffect } from '../membership/events.ts';

/** What is said bears the fences of the step that said it, not of a later one that is not stored yet. */
export interface Fences {
  readonly term: number;
  readonly epoch: number;
}

interface Batch {
  readonly effects: readonly CoordinatorEffect[];
  readonly fences: Fences;
}

export class Outbox {
  readonly #carryOut: (effect: CoordinatorEffect, fences: Fences) => Promise<void> | null;
  readonly #onFailed: (error: unknown) => void;
  readonly #batches: Batch[] = [];
  #isBusy = false;
  #isClosed = false;
  /** Of what was said last. */
  #fences: Fences = { term: 0, epoch: 0 };

  /**
   * @param carryOut gives a promise where what follows has to wait for it
   * @param onFailed such a promise was rejected: nothing more goes out
   */
  constructor(
    carryOut: (effect: CoordinatorEffect, fences: Fences) => Promise<void> | null,
    onFailed: (error: unknown) => void,
  ) {
    this.#carryOut = carryOut;
    this.#onFailed = onFailed;
  }

  /** Of what was said last: nothing may be said with higher ones yet. */
  get fences(): Fences {
    return this.#fences;
  }

  push(effects: readonly CoordinatorEffect[], fences: Fences): void {
    this.#batches.push({ effects, fences });
    if (!this.#isBusy) this.#drain(0);
  }

  /** Nothing more goes out. */
  close(): void {
    this.#isClosed = true;
    this.#batches.length = 0;
  }

  /** @param from of the first batch, what was not carried out yet */
  #drain(from: number): void {
    this.#isBusy = true;
    let at = from;
    for (let batch = this.#batches[0]; batch !== undefined; batch = this.#batches[0]) {
      const { effects, fences } = batch;
      while (at < effects.length && !this.#isClosed) {
        const stored = this.#carryOut(effects[at]!, fences);
        at += 1;
        if (stored !== null) {
          this.#wait(stored, at);
          return;
        }
        this.#fences = fences;
      }
      if (this.#isClosed) return;
      this.#fences = fences;
      this.#batches.shift();
      at = 0;
    }
    this.#isBusy = false;
  }

  #wait(stored: Promise<void>, next: number): void {
    stored.then(
      () => {
        if (!this.#isClosed) this.#drain(next);
      },
      (error: unknown) => {
        if (this.#isClosed) return;
        this.close();
        this.#onFailed(error);
      },
    );
  }
}
