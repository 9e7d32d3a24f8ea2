/** The face of the compute kernels: element-wise work over one fixed linear memory, the *arena*. `load.ts` makes them. */
import type { Dtype } from '../tensor.ts';

/** An element-wise operation; `avg` is a sum that is divided later. */
export type KernelOp = 'sum' | 'min' | 'max' | 'prod';

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
  /** f32 to 16-bit floats, rounded to nearest even. */
  encode(codec: 'f16' | 'bf16', dst: number, src: number, count: number): void;
  /** 16-bit floats to f32, exactly. */
  decode(codec: 'f16' | 'bf16', dst: number, src: number, count: number): void;
  /** Gives every NaN of a float dtype one bit pattern, so that machines whose NaNs differ agree bit for bit. Integers stay. */
  canonicalizeNaN(dtype: Dtype, offset: number, count: number): void;
}
