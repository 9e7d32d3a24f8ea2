/**
 * What turns values into wire bytes. `f32` stands for "as they are", whatever the dtype; the others are for f32 tensors.
 *
 *     codec   bytes per element   a decoded value differs from x by at most        (m: the largest magnitude of its block)
 *     bf16    2                   |x| / 256
 *     f16     2                   |x| / 2,048, or 2^-25; infinite from 65,520
 *     int8    1.0313              m / 253 + 2^-127                                 blocks of 64 with a scale
 *     int4    0.5417              m / 15.9 + 2^-127, for −x as large as m: m / 7.7 blocks of 48 with a scale
 *     e3m0    0.5313              the larger of |x| / 3, m / 127 and 2^-127        blocks of 64 with a scale
 *     topk    0.0283              |x| where it is dropped; the norm of the error never exceeds that of the block (4,096)
 *
 * All round to the nearest, ties to even (those of e3m0 away from zero). By chance, int8, int4 and e3m0 round to one of the two
 * codes beside a value, so that the mean is exact: within m / 126, m / 6.9 and the larger of |x| and m / 63. What is within 1/256 of
 * the largest of its block is an exception: it has that one's code always, and is off by 1/128 of itself at most.
 *
 * A block with a NaN or an infinity in it decodes to NaN throughout: what is not finite never becomes a number in silence.
 * Zeros, and blocks of zeros, stay zero. What was decoded, and is encoded again in the same way, has the same bytes (topk: the
 * same values).
 *
 * The sizes of blocks are chosen by what an all-reduce of Gaussian values that goes straight then drops of its result, at a
 * little over a quarter and an eighth of f32's bytes: 0.8 % for int8 (blocks of 256: 0.97 %), 12.8 % for int4 (of 64: 13.2 %).
 */
import type { ChanceCodec, LossyCodec } from '../kernels/kernels.ts';
import { DTYPE_BYTES, type Dtype } from '../tensor.ts';

/** How f32 values travel. */
export type Codec = 'f32' | LossyCodec;

export const CODECS: readonly Codec[] = ['f32', 'bf16', 'f16', 'int8', 'int4', 'e3m0', 'topk'];

/** `nearest`, or up or down by a chance that makes the mean exact: the same on every run with the same calls. */
export type Rounding = 'nearest' | 'stochastic';

export const ROUNDINGS: readonly Rounding[] = ['nearest', 'stochastic'];

/** Elements that share something on the wire: segments consist of whole blocks, but for the last of a chunk. */
export const BLOCK_ELEMENTS: Readonly<Record<Codec, number>> = {
  f32: 1,
  bf16: 1,
  f16: 1,
  int8: 64,
  int4: 48,
  e3m0: 64,
  topk: 4_096,
};

/** Whether values share scales, so that all ranks' errors add up to more at every hop, and sums and averages are all they are good for. */
export function isBlockCodec(codec: Codec): boolean {
  return BLOCK_ELEMENTS[codec] > 1;
}

/** The most elements up to so many that are whole blocks. */
export function wholeBlocks(codec: Codec, count: number): number {
  const block = BLOCK_ELEMENTS[codec];
  return Math.floor(count / block) * block;
}

export function roundsByChance(codec: Codec): codec is ChanceCodec {
  return codec === 'int8' || codec === 'int4' || codec === 'e3m0';
}

/** Of so many elements `topk` keeps one. */
const TOPK_SHARE = 64;

/** A block of `topk`, as assembly/topk.ts draws it. */
function topkBlockBytes(count: number): number {
  const kept = Math.ceil(count / TOPK_SHARE);
  return 4 + Math.ceil(kept / 4) + Math.ceil((kept * 12) / 8);
}

/** Bytes that `count` elements take on the wire, when they begin with a block. */
export function wireLength(dtype: Dtype, codec: Codec, count: number): number {
  const block = BLOCK_ELEMENTS[codec];
  switch (codec) {
    case 'f32':
      return count * DTYPE_BYTES[dtype];
    case 'bf16':
    case 'f16':
      return count * 2;
    case 'int8':
      return 2 * Math.ceil(count / block) + count;
    case 'int4':
    case 'e3m0':
      return 2 * Math.ceil(count / block) + Math.ceil(count / 2);
    case 'topk': {
      const rest = count % block;
      return ((count - rest) / block) * topkBlockBytes(block) + (rest === 0 ? 0 : topkBlockBytes(rest));
    }
  }
}
