/** What a peer of this example is asked to do, and what it answers. */

import type { Codec } from '../../src/index.ts';

export const STEPS = 600;
/** Inner steps between two synchronisations. */
export const EVERY = 50;
/** Examples of one peer in one step. */
export const BATCH = 32;
/** Of the inner optimiser, the same on all sides. */
export const RATE = 2e-3;
export const PEERS = 4;
export const HIDDEN = 64;
export const SEED = 7;

/** How the peers of a run work together. */
export type Method =
  | { readonly kind: 'data-parallel' }
  | { readonly kind: 'alone' }
  | { readonly kind: 'diloco'; readonly codec: Codec; readonly errorFeedback: boolean };

export interface Task {
  /** Also the name of the run. */
  readonly name: string;
  readonly method: Method;
  readonly coordinator: string;
  /** Peers that begin together. */
  readonly peers: number;
  /** Which quarter of the training images this peer learns from. */
  readonly shard: number;
}

export interface Point {
  readonly step: number;
  /** That this peer had sent by then. */
  readonly bytes: number;
  /** On the test images. */
  readonly loss: number;
  readonly accuracy: number;
}

export interface Result {
  readonly hash: string;
  readonly curve: readonly Point[];
  /** Outer gradients lost and merged into later ones. */
  readonly lost: number;
}
