/**
 * A collective is a program per chunk: for each chunk of a logical vector, the ordered list of what this rank does with it.
 * One executor runs every program. An algorithm is a pure function `(world size, rank, count) → Plan`; no socket, no
 * clock and no memory may enter this room.
 *
 * The logical vector is cut into chunks that all ranks number alike. A rank lists only the chunks it takes part in.
 * A chunk's *current value* at a rank starts as the rank's own input (if it has one) and changes with each step:
 *
 *     send     hand the current value to a rank (values already sent stay as they were when sent)
 *     reduce   combine what arrives into the current value; the operand of the lower rank stands on the left
 *     replace  take what arrives as the value
 *
 * Robust averages (robust.ts) combine all contributions at once, so their programs reduce at one rank only, and nothing but inputs.
 *
 * A rank whose chunk has an `output`, at least one `reduce` and no `replace` is the chunk's *finisher*: after its last
 * `reduce` the value is final (it is scaled for `avg` there), and every other rank that keeps the chunk receives those very bytes.
 */

/** Position of a peer in its view, from 0. */
export type Rank = number;

/** For each rank the number of its site: from 0, in the order in which ranks name them first. */
export type Sites = readonly number[];

/** What a rank does with a chunk, in one step of a program. */
export type Instruction =
  | { readonly do: 'send'; readonly to: Rank }
  | { readonly do: 'reduce'; readonly from: Rank }
  | { readonly do: 'replace'; readonly from: Rank };

export interface ChunkProgram {
  /** The chunk's number, the same on every rank. Ids are dense: 0 to (number of chunks in the collective − 1). */
  readonly id: number;
  /** Elements in the chunk; may be 0 (nothing is sent then, on any rank). */
  readonly count: number;
  /** First element of this rank's contribution in its input tensor; null: it contributes nothing. */
  readonly input: number | null;
  /** First element of the result in this rank's output tensor; null: this rank does not keep the result. */
  readonly output: number | null;
  readonly steps: readonly Instruction[];
}

/** What one rank does in one collective. */
export interface Plan {
  readonly algorithm: AlgorithmLabel;
  readonly chunks: readonly ChunkProgram[];
}

/**
 * How a collective travels. `ring`: bandwidth-optimal. `tree`: double binary trees (all-reduce) or one binomial tree.
 * `doubling`: recursive doubling, fewest hops. `halving`: recursive halving and doubling, as few bytes as the ring in few hops.
 * `direct`: straight from source to destination. `hierarchical`: within each site first, then between sites, then back.
 */
export type Algorithm = 'ring' | 'tree' | 'doubling' | 'halving' | 'direct' | 'hierarchical';

export const ALGORITHMS: readonly Algorithm[] = ['ring', 'tree', 'doubling', 'halving', 'direct', 'hierarchical'];

/** A user's own program (`defineProgram`): its name and a hash of what it says for the world size at hand. */
export type ProgramLabel = `program:${string}`;

/** What a collective travelled by. */
export type AlgorithmLabel = Algorithm | ProgramLabel;

export function isProgramLabel(label: string): label is ProgramLabel {
  return label.startsWith('program:');
}

/** The collectives, as they are called. */
export type CollectiveKind =
  | 'allReduce'
  | 'broadcast'
  | 'reduce'
  | 'reduceScatter'
  | 'allGather'
  | 'gather'
  | 'scatter'
  | 'allToAll'
  | 'barrier';

export const COLLECTIVE_KINDS: readonly CollectiveKind[] = [
  'allReduce',
  'broadcast',
  'reduce',
  'reduceScatter',
  'allGather',
  'gather',
  'scatter',
  'allToAll',
  'barrier',
];

/** What a collective means, however it travels. */
export type Task = Omit<PlanRequest, 'algorithm' | 'sites'>;

/** What all ranks must agree on for a plan to be made. */
export interface PlanRequest {
  readonly kind: CollectiveKind;
  readonly algorithm: Algorithm;
  readonly worldSize: number;
  /** The number of each rank's site, where that matters (`hierarchical`); without it all are in one. */
  readonly sites?: Sites;
  /**
   * Elements of the call's larger tensor, in one rank's terms: allReduce, broadcast, reduce, reduceScatter: the whole vector;
   * allGather, gather, scatter, allToAll: one rank's part (allToAll: what one rank sends to one other). barrier: 1, a token.
   */
  readonly count: number;
  /** Root of broadcast, reduce, gather and scatter; 0 for the others. */
  readonly root: Rank;
}
