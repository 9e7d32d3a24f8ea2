/** What a transfer is told of its collective, and what it is lent: the one list from which its parts take what each needs. */
import type { Dtype, ReduceOp } from '../tensor.ts';
import type { FrameHeader } from '../wire/frame.ts';
import type { Span } from '../wire/ranges.ts';
import type { Codec } from './codec.ts';
import type { Pieces } from './pieces.ts';
import type { Plan, Rank } from './program.ts';

/** The way to one peer. */
export interface SegmentPort {
  /** Whether another segment should be given to it now. */
  readonly writable: boolean;
  /** As `Connection.write`: the views stay unchanged until `onFlushed`. */
  send(head: Uint8Array, body: Uint8Array | null, onFlushed: () => void): void;
}

/** Is told of what a rank exchanges with others. */
interface Traffic {
  /** Bytes of data with their header were given to the link. */
  sent(rank: Rank, bytes: number): void;
  /** So many bytes begin to come. */
  received(rank: Rank, bytes: number): void;
  /** They have come. */
  receivedWhole(rank: Rank): void;
}

export interface TransferSpec {
  readonly plan: Plan;
  readonly rank: Rank;
  /** What the header of each frame says of the collective and the attempt. */
  readonly frame: Pick<FrameHeader, 'epoch' | 'generation' | 'tag' | 'sequence'>;
  readonly dtype: Dtype;
  /** null: nothing is reduced. */
  readonly op: ReduceOp | null;
  /** What robust averages are made with, as in a call; null for other ops. */
  readonly trim: number | null;
  readonly clipRadius: number | null;
  readonly codec: Codec;
  /** Where codecs that can round by chance take it from; null: they round to the nearest. */
  readonly seed: number | null;
  /** Sum up what encoding drops. */
  readonly measures: boolean;
  /**
   * Receives what this rank's encodings drop, in units of the input and at its place there; null: nobody wants it, or the codec
   * drops nothing. It may be the input itself, as what was encoded is not read again.
   */
  readonly dropped: Uint8Array | null;
  /** Ranks whose inputs are in a finished value. */
  readonly contributors: number;
  readonly input: Pieces;
  /** Elements of the input that are there at the start, ascending; `ready` tells of the others. null: all. */
  readonly ready: readonly Span[] | null;
  readonly output: Pieces;
  /** The way to a rank. */
  port(rank: Rank): SegmentPort;
  /** Scratch of so many bytes, for values that neither a slot nor the output can take. */
  scratch(byteLength: number): Uint8Array;
  /** This rank holds the whole result. */
  onHeld(): void;
  /** The links have let go of all bytes that they were given so far. */
  onDrained(): void;
  /** Another twentieth of this rank's segments is done. */
  onProgress(share: number): void;
  /** Is told what goes to and fro; null: nobody wants to know. */
  readonly traffic: Traffic | null;
  /** Elements `start` to `end` of the output have their final values; null: nobody wants to know. */
  readonly onFinished: ((start: number, end: number) => void) | null;
}
