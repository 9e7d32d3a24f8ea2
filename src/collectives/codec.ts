/** What turns values into wire bytes. `f32` stands for "as they are", whatever the dtype; the others halve f32 tensors. */
import { DTYPE_BYTES, type Dtype } from '../tensor.ts';

export type Codec = 'f32' | 'bf16' | 'f16';

export const CODECS: readonly Codec[] = ['f32', 'bf16', 'f16'];

/** Bytes that one element takes on the wire. */
export function wireBytes(dtype: Dtype, codec: Codec): number {
  return codec === 'f32' ? DTYPE_BYTES[dtype] : 2;
}
