/** The face of the compute kernels: element-wise work over one fixed linear memory, the *arena*. `load.ts` makes them. */
import type { Dtype } from '../tensor.ts';

/** An element-wise operation; `avg` is a sum that is divided later. */
export type KernelOp = 'sum' | 'min' | 'max' | 'prod';

/** What turns f32 into fewer bytes; `collectives/codec.ts` says how many and how well. */
export type LossyCodec = 'bf16' | 'f16' | 'int8' | 'int4' | 'e3m0' | 'topk';

/** Those that can round up or down by chance, so that the mean of many roundings is exact. */
export type ChanceCodec = 'int8' | 'int4' | 'e3m0';

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
  /** Gives every NaN of a float dtype one bit pattern, so that machines whose NaNs differ agree bit for bit. Integers stay. */
  canonicalizeNaN(dtype: Dtype, offset: number, count: number): void;
}
