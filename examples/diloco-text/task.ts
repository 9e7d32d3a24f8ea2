/** What a peer of this example is asked to do, and what it answers. */
import type { DilocoOptions } from '../../src/diloco/index.ts';

export const PEERS = 4;
/** Characters that one peer learns to predict in one step. */
export const BATCH = 16;
/** Steps between two examinations. */
export const EXAMINE_EVERY = 50;

export interface Setting {
  readonly name: string;
  readonly steps: number;
  /** Peak of the inner learning rate, which falls linearly to a tenth. */
  readonly rate: number;
  /** Null: data-parallel, every step's gradients are averaged. */
  readonly diloco: DilocoOptions | null;
}

export interface Task extends Setting {
  /** Of the run. */
  readonly run: string;
  readonly coordinator: string;
  readonly seed: number;
  /** Which part of the book this peer learns from. */
  readonly shard: number;
}

export interface Point {
  readonly step: number;
  /** That this peer had sent by then. */
  readonly bytes: number;
  /** Nats per character on the test blocks; null on peers that did not examine. */
  readonly loss: number | null;
}

export interface Result {
  readonly hash: string;
  readonly curve: readonly Point[];
  /** The most that one step sent: what a link must carry at once. */
  readonly largestBurst: number;
}
