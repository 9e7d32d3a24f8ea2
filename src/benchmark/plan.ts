/** What a benchmark measures: one collective over a range of sizes. Plain data, so that it can be told to other processes. */
import type { Algorithm, AlgorithmLabel, Codec, Consistency } from '../index.ts';
import type { DTYPE_BYTES } from '../tensor.ts';

export const BENCHED = ['allReduce', 'reduceScatter', 'allGather', 'allToAll', 'broadcast', 'reduce'] as const;
export type Benched = (typeof BENCHED)[number];

export const BENCHED_OPS = ['sum', 'avg', 'min', 'max', 'prod'] as const;
export type BenchedOp = (typeof BENCHED_OPS)[number];

export interface Plan {
  readonly collective: Benched;
  readonly dtype: keyof typeof DTYPE_BYTES;
  readonly op: BenchedOp;
  readonly codec: Codec;
  readonly algorithm: Algorithm | 'auto';
  readonly consistency: Consistency;
  /** Of the larger of input and output of one rank, in bytes; made smaller by what does not fit into equal parts. */
  readonly sizes: readonly number[];
  /** At sizes above 4 MiB; 8 times as many up to there, 40 times up to 64 KiB, as short times scatter more. */
  readonly iterations: number;
  readonly warmups: number;
  /** Time for the compiler to get to know the hot paths: a training run has that behind it after its first steps. */
  readonly warmUpMs: number;
  /** Each algorithm beside what the model says of it, instead of the columns of nccl-tests. */
  readonly explains: boolean;
}

/** How the result was told: beside the input, or in its place. */
export interface Timing {
  /** Median over the iterations of the slowest rank's time. */
  readonly seconds: number;
  /** Elements of the last result that are wrong, on all ranks. */
  readonly wrong: number;
}

export interface Row {
  readonly bytes: number;
  readonly count: number;
  /** What `auto` stood for. */
  readonly algorithm: AlgorithmLabel;
  readonly outOfPlace: Timing;
  /** Null for collectives that have no such form. */
  readonly inPlace: Timing | null;
  /** Relative RMS error of codecs that drop bits; null for the others. */
  readonly error: number | null;
  /** Processor time of one rank, all its threads, for each 10⁹ bytes of tensor (out of place). */
  readonly cpuSecondsPerGb: number;
  /** The largest process so far. */
  readonly peakRssBytes: number;
}

export function repetitions(iterations: number, bytes: number): number {
  if (bytes <= 64 * 1024) return iterations * 40;
  return bytes <= 4 * 1024 * 1024 ? iterations * 8 : iterations;
}

/** From `begin` to `end`, each `factor` times the one before. */
export function sizesBetween(begin: number, end: number, factor: number): number[] {
  const sizes: number[] = [];
  for (let bytes = begin; bytes <= end; bytes *= factor) sizes.push(Math.round(bytes));
  return sizes;
}

/** What one rank's link carries for each byte of tensor, as nccl-tests defines it. */
export function busFactor(collective: Benched, worldSize: number): number {
  if (collective === 'broadcast' || collective === 'reduce') return 1;
  return ((collective === 'allReduce' ? 2 : 1) * (worldSize - 1)) / worldSize;
}
