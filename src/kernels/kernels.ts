/** The face of the compute kernels: element-wise work over one fixed linear memory, the *arena*. `load.ts` makes them. */
import type { Dtype } from '../tensor.ts';

/** An element-wise operation; `avg` is a sum that is divided later. */
export type KernelOp = 'sum' | 'min' | 'max' | 'prod';

/** What turns f32 into fewer bytes; `collectives/codec.ts` says how many and how well. */
export type LossyCodec = 'bf16' | 'f16' | 'int8' | 'int4' | 'e3m0' | 'topk';

/** Those that can round up or down by chance, so that the mean of many roundings is exact. */
export type ChanceCodec = 'int8' | 'int4' | 'e3m0';

/** Float dtypes whose robust averages there are kernels for. */
export type RobustDtype = 'f32' | 'f64';

/** Rows of values, one per contribution, that are averaged column by column. */
export interface Rows {
  /** Byte offset of the first row. */
  readonly offset: number;
  /** Bytes from row to row: a multiple of 64. */
  readonly stride: number;
  readonly count: number;
}

export interface Kernels {
  /** The whole arena. It never grows, so views on it stay valid. */
  readonly bytes: Uint8Array;
  /**
   * Reserves arena memory for good, on a 64-byte boundary.
   * @returns its byte offset
   * @throws RangeError when the arena is full
   */
  reserve(byteLength: number): number;
  /** `dst[i] = left[i] op right[i]`. Byte offsets, aligned or not; `dst` may be `left` or `right`. Integers wrap round. */
  reduce(dtype: Dtype, op: KernelOp, dst: number, left: number, right: number, count: number): void;
  /** `values[i] /= divisor` in place: floats correctly rounded, integers towards zero. */
  divide(dtype: Dtype, offset: number, count: number, divisor: number): void;
  /** f32 to wire bytes, each value to the nearest that the codec has. Whole blocks, but for the last one of a segment. */
  encode(codec: LossyCodec, dst: number, src: number, count: number): void;
  /** As `encode`, but by chance up or down. The chance is a hash of `seed` and of the value's position, `index` for the first. */
  encodeByChance(codec: ChanceCodec, dst: number, src: number, count: number, seed: number, index: number): void;
  /** Wire bytes to f32. Decoded values encode to the same bytes again. */
  decode(codec: LossyCodec, dst: number, src: number, count: number): void;
  /** `dst[i] = (value[i] − decoded[i]) · factor` in f32, and 0 where that is not finite; `dst` may be either of them. */
  dropped(dst: number, value: number, decoded: number, count: number, factor: number): void;
  /** Sum of the squares of f32 values. */
  energy(offset: number, count: number): number;
  /**
   * The median of each of `count` columns: of an even number the mean of the two in the middle. As in the two below, what is not
   * finite is left out of its column, a column without anything else gives NaN, and the rows are overwritten.
   */
  median(dtype: RobustDtype, dst: number, rows: Rows, count: number): void;
  /** The mean of each column without its `cut` lowest and `cut` highest values, or without all but the middle where that is more. */
  trimmedMean(dtype: RobustDtype, dst: number, rows: Rows, count: number, cut: number): void;
  /** The median m of each column, plus the mean of x − m, brought to between −`radius` and `radius`. */
  centeredClip(dtype: RobustDtype, dst: number, rows: Rows, count: number, radius: number): void;
  /** Gives every NaN of a float dtype one bit pattern, so that machines whose NaNs differ agree bit for bit. Integers stay. */
  canonicalizeNaN(dtype: Dtype, offset: number, count: number): void;
}
