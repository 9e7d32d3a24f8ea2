/**
 * Error feedback: what the codec dropped in one call, kept per tag until the next call under that tag adds it to its input. So
 * nothing is lost for good: over many calls the sum of the results is that of the inputs, but for what is kept here.
 *
 * A call *takes* what is kept when it begins. If it succeeds, what it dropped itself is kept instead; if it fails, what it
 * had taken is put back, as its input counted nowhere. Calls under one tag may be open at the same time: what each leaves is added up.
 * A residual is as large as the tensor; whose shape changed is dropped.
 */

import { MAX_RESIDUALS } from '../wire/limits.ts';
import type { Span } from '../wire/ranges.ts';
import type { Pieces } from './pieces.ts';

export interface ResidualMemory {
  takeScratch(byteLength: number): Uint8Array;
  giveScratch(memory: Uint8Array): void;
}

/** What one call with error feedback holds. */
export interface Feedback {
  /** What earlier calls dropped; null: nothing. */
  readonly taken: Uint8Array | null;
  /** The input with that added, of which the executor makes what this call drops. */
  readonly corrected: Uint8Array;
}

function floats(memory: Uint8Array): Float32Array {
  return new Float32Array(memory.buffer, memory.byteOffset, memory.byteLength / 4);
}

export class Residuals {
  readonly #memory: ResidualMemory;
  readonly #kept: Map<string, Uint8Array> = new Map();
  /** By tag: calls that have begun, and will leave something. */
  readonly #begun: Map<string, number> = new Map();

  constructor(memory: ResidualMemory) {
    this.#memory = memory;
  }

  /** Whether nothing can be kept under one tag more. */
  isFullFor(tag: string): boolean {
    if (this.#kept.has(tag) || this.#begun.has(tag)) return false;
    return this.#kept.size + this.#begun.size >= MAX_RESIDUALS;
  }

  /** Begins a call whose input has so many bytes of f32. */
  take(tag: string, byteLength: number): Feedback {
    let taken = this.#kept.get(tag) ?? null;
    this.#kept.delete(tag);
    this.#begun.set(tag, (this.#begun.get(tag) ?? 0) + 1);
    if (taken !== null && taken.byteLength !== byteLength) {
      this.#memory.giveScratch(taken);
      taken = null;
    }
    return { taken, corrected: this.#memory.takeScratch(byteLength) };
  }

  /** Corrects part of the input: all of it, or what an attempt does anew. */
  correct({ taken, corrected }: Feedback, input: Pieces, spans: readonly Span[]): void {
    for (const { start, end } of spans) {
      input.copyTo(corrected, start * 4, start * 4, end * 4);
      if (taken === null) continue;
      const target = floats(corrected.subarray(start * 4, end * 4));
      const residual = floats(taken.subarray(start * 4, end * 4));
      for (let index = 0; index < target.length; index++) target[index]! += residual[index]!;
    }
  }

  /** Ends a call. After a success `corrected` holds what it dropped. */
  settle(tag: string, { taken, corrected }: Feedback, succeeded: boolean): void {
    const others = (this.#begun.get(tag) ?? 0) - 1;
    if (others > 0) this.#begun.set(tag, others);
    else this.#begun.delete(tag);
    const left = succeeded ? corrected : taken;
    const spare = succeeded ? taken : corrected;
    if (spare !== null) this.#memory.giveScratch(spare);
    if (left === null) return;
    const kept = this.#kept.get(tag);
    if (kept === undefined || kept.byteLength !== left.byteLength) {
      if (kept !== undefined) this.#memory.giveScratch(kept);
      this.#kept.set(tag, left);
      return;
    }
    const sum = floats(kept);
    for (const [index, value] of floats(left).entries()) sum[index]! += value;
    this.#memory.giveScratch(left);
  }

  /** Forgets what is kept under a tag, or under all. Calls that are open leave theirs when they end. */
  drop(tag: string | null): void {
    for (const [one, memory] of this.#kept) {
      if (tag !== null && one !== tag) continue;
      this.#kept.delete(one);
      this.#memory.giveScratch(memory);
    }
  }
}
