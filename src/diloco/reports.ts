/** What DiLoCo tells its caller, and what can be saved of it: plain data. */
import type { FragmentSync } from './fragment.ts';

/** What one call of `step()` did. */
export interface StepReport {
  /** Rounds done. */
  readonly round: number;
  /** A round ended with this step. */
  readonly hasEnded: boolean;
  /** Fragments whose communication ended with this step. */
  readonly synced: readonly FragmentSync[];
}

/** Of this peer since the beginning, everything included: outer gradients, censuses, state for newcomers. */
export interface Totals {
  /** Outer gradients that were lost, and merged into later ones. */
  lost: number;
  /** Bytes with their headers, of collectives that succeeded. */
  bytesSent: number;
  bytesReceived: number;
  /** The most that one collective sent. */
  largestBytesSent: number;
}

/** The shared state. */
export interface DilocoState {
  readonly round: number;
  readonly fragments: readonly {
    /** Elements in the fragment's order. */
    readonly parameters: Float32Array;
    readonly momentum: Float32Array;
    /** Outer steps taken. */
    readonly steps: number;
  }[];
}
