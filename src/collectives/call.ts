/** What a caller asks for, and what it gets: the vocabulary between the engine and the collectives. */
import type { SkeinError } from '../errors.ts';
import type { Dtype, ReduceOp } from '../tensor.ts';
import type { Codec, Rounding } from './codec.ts';
import type { Guard } from './guard.ts';
import type { Algorithm, AlgorithmLabel, CollectiveKind } from './program.ts';
import type { CallProgram } from './program-code.ts';

/** Names a peer in its run; another one after each `join()`. */
export type PeerId = string;

/**
 * `commit`: a call resolves when all members hold the result, and they agree on the outcome when one is lost.
 * `eager`: a call resolves as soon as this rank holds the result. It saves a round trip; when a peer is lost, some members
 * may have returned while others get a `PeerLostError`.
 */
export type Consistency = 'commit' | 'eager';

/** `restart`: redo among the survivors. `fail`: the call throws `PeerLostError`. */
export type Recovery = 'restart' | 'salvage' | 'fail';

/**
 * `wait`: for every member. `exclude`: a member for which the others have waited for some seconds, while it waits for nobody, is
 * left out of this collective; it stays a member, and its own call fails with an `ExcludedError`.
 */
export type StragglerPolicy = 'wait' | 'exclude';

/** An all-reduce that begins before its input is complete. The other members need not know. */
export interface StreamSpec {
  /** The caller wants to know of parts of the output as soon as they have the values that a commit would confirm. */
  readonly handsBack: boolean;
}

export interface CallSpec {
  readonly kind: CollectiveKind;
  readonly tag: string;
  readonly dtype: Dtype;
  /** null for collectives that reduce nothing. */
  readonly op: ReduceOp | null;
  /** Share that a trimmed mean leaves out at each end; null for other ops. */
  readonly trim: number | null;
  /** How far from the median a contribution to a centered clip may pull; null for other ops. */
  readonly clipRadius: number | null;
  readonly codec: Codec;
  readonly rounding: Rounding;
  /** Add what the codec dropped in the last call under this tag to the input. */
  readonly errorFeedback: boolean;
  readonly measureError: boolean;
  readonly algorithm: Algorithm | 'auto' | CallProgram;
  /** Elements, as `PlanRequest.count` has it. */
  readonly count: number;
  readonly root: PeerId | null;
  /** World size for which the tensors were laid out; null where any will do. */
  readonly laidOutFor: number | null;
  readonly consistency: Consistency;
  readonly recovery: Recovery;
  readonly stragglers: StragglerPolicy;
  readonly minWorldSize: number;
  readonly timeoutMs: number;
  /** What this rank's input must be like, or nothing of it is sent; null: anything. */
  readonly guard: Guard | null;
  /** Of a call whose input comes in parts; null: it is all there from the start. */
  readonly stream: StreamSpec | null;
  /** Memory of the tensor, in pieces of whole elements. */
  readonly input: readonly Uint8Array[];
  /** Receives the result. It may be the input itself. */
  readonly output: readonly Uint8Array[];
  /** The output must not change unless the call succeeds: the result is built in scratch, and copied at the end. */
  readonly atomic: boolean;
}

/** What became of a call that succeeded. */
export interface Report {
  /** `generation:tag:sequence`: names the collective in the whole run. */
  readonly id: string;
  readonly epoch: number;
  readonly worldSize: number;
  readonly contributors: readonly PeerId[];
  /**
   * With `recovery: 'salvage'`, when a peer was lost: what each range of elements was made of, ascending, without gaps. Empty
   * where the contributors are the same for the whole tensor.
   */
  readonly ranges: readonly ContributedRange[];
  readonly algorithm: AlgorithmLabel;
  readonly codec: Codec;
  /**
   * With `measureError`: √(Σ dropped² / Σ encoded²) over all values that this rank encoded in the attempt that succeeded: its
   * contribution to what others add up, and the sums that it added up itself. Else null. In a direct all-reduce, if what
   * different ranks drop is uncorrelated, the result's relative RMS error is between this (mean over the ranks) and √2 times it.
   * NaN when what was encoded was not finite.
   */
  readonly error: number | null;
  /** How often it was begun anew because a peer or a link was lost. */
  readonly retries: number;
  /** Data bytes with their headers, all attempts together. */
  readonly bytesSent: number;
  readonly bytesReceived: number;
  readonly seconds: number;
}

/** Elements `start` to `end` (not included), counted through all tensors of the call. */
export interface ContributedRange {
  readonly start: number;
  readonly end: number;
  readonly contributors: readonly PeerId[];
}

export interface CallListener {
  onProgress(share: number): void;
  /**
   * Elements `start` to `end` of the output are done. They are the result if the call succeeds and does not tell of them again:
   * after a loss it does, with a higher `retry`, of those that are done anew.
   */
  onPart(start: number, end: number, retry: number): void;
  onSettled(outcome: Outcome): void;
}

type Outcome = { readonly ok: true; readonly report: Report } | { readonly ok: false; readonly error: SkeinError };

/** The part of a call that all members must have in common, as the `open` frame carries it. */
export interface Description {
  readonly kind: CollectiveKind;
  readonly tag: string;
  readonly dtype: Dtype;
  readonly op: ReduceOp | null;
  readonly trim: number | null;
  readonly clipRadius: number | null;
  readonly codec: Codec;
  readonly algorithm: AlgorithmLabel;
  readonly count: number;
  readonly root: PeerId | null;
  readonly consistency: Consistency;
  readonly recovery: Recovery;
  readonly stragglers: StragglerPolicy;
  readonly minWorldSize: number;
  readonly segmentBytes: number;
}

/** For messages: `allReduce(f32 × 1000, sum, ring)`. Equal strings mean equal calls. */
export function describe(call: Omit<Description, 'tag'>): string {
  const parts = [`${call.dtype} × ${call.count}`];
  if (call.op !== null) parts.push(call.op);
  if (call.trim !== null) parts.push(`trim ${call.trim}`);
  if (call.clipRadius !== null) parts.push(`clip radius ${call.clipRadius}`);
  if (call.root !== null) parts.push(`root ${call.root}`);
  parts.push(call.algorithm);
  if (call.codec !== 'f32') parts.push(`codec ${call.codec}`);
  if (call.minWorldSize > 1) parts.push(`at least ${call.minWorldSize} members`);
  if (call.stragglers !== 'wait') parts.push(`${call.stragglers} stragglers`);
  parts.push(call.consistency, call.recovery, `segments of ${call.segmentBytes}`);
  return `${call.kind}(${parts.join(', ')})`;
}
