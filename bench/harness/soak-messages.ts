/** What the soak and its peers say to one another. */
import type { ReportedResult } from './agreement.ts';

export interface SoakTask {
  readonly address: string;
  readonly startWorldSize: number;
  /** All-reduces at each boundary. */
  readonly tags: number;
  /** Elements of f32 of each. */
  readonly count: number;
  /** Boundaries that may be passed before the results of one must be there. */
  readonly ahead: number;
}

export type SoakMessage =
  | { readonly type: 'joined'; readonly peerId: string }
  | {
      readonly type: 'step';
      readonly boundary: number;
      readonly worldSize: number;
      readonly results: readonly ReportedResult[];
      /** Calls that failed because too few members were left of those that began them. */
      readonly lost: number;
    }
  | { readonly type: 'status'; readonly status: unknown }
  | { readonly type: 'wrong'; readonly text: string };

/** `end`: after this boundary, at which all end together. `leave`: at the next one, alone. */
export type SoakOrder = { readonly end: number } | 'leave' | 'status';

/** Exit codes by which the soak tells what became of a peer. */
export const EVICTED = 3;
export const FAILED = 4;
