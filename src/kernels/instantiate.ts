/** Makes kernels of the code that was compiled from AssemblyScript to WASM SIMD; `load.ts` and a browser get it each their own way. */
import { type Dtype, isFloat } from '../tensor.ts';
import type { ChanceCodec, KernelOp, Kernels, LossyCodec, RobustDtype } from './kernels.ts';

type Reduce = (dst: number, left: number, right: number, count: number) => void;
type Divide = (offset: number, count: number, divisor: number) => void;
type Convert = (dst: number, src: number, count: number) => void;
type ConvertByChance = (dst: number, src: number, count: number, seed: number, index: number) => void;
type Dropped = (dst: number, value: number, decoded: number, count: number, factor: number) => void;
type Energy = (offset: number, count: number) => number;
type Canonical = (offset: number, count: number) => void;
type Average = (dst: number, rows: number, stride: number, rowCount: number, count: number, parameter: number) => void;

const PAGE_BYTES = 65_536;
const ALIGNMENT = 64;

/** What a dtype's sums and products share with another: two's complement does not tell signed from unsigned. */
const WRAPPING: Partial<Record<Dtype, Dtype>> = { u8: 'i8', u16: 'i16', u32: 'i32', u64: 'i64' };

type OpTable = Readonly<Record<KernelOp, Reduce>>;

function table<V>(make: (dtype: Dtype) => V): Readonly<Record<Dtype, V>> {
  return {
    f32: make('f32'),
    f64: make('f64'),
    f16: make('f16'),
    bf16: make('bf16'),
    i8: make('i8'),
    i16: make('i16'),
    i32: make('i32'),
    i64: make('i64'),
    u8: make('u8'),
    u16: make('u16'),
    u32: make('u32'),
    u64: make('u64'),
  };
}

/**
 * Makes kernels with an arena of so many bytes (rounded up to 64 KiB). Pages that are never touched cost no memory.
 *
 * @throws Error where WebAssembly SIMD is missing
 */
export async function instantiateKernels(code: Uint8Array<ArrayBuffer>, arenaBytes: number): Promise<Kernels> {
  if (typeof WebAssembly === 'undefined' || !WebAssembly.validate(code)) {
    throw new Error(
      'Skein needs WebAssembly with SIMD: Node 16.4, Chrome 91, Firefox 89 or Safari 16.4 and later have it.',
    );
  }
  const pages = Math.ceil(arenaBytes / PAGE_BYTES) + 1;
  const memory = new WebAssembly.Memory({ initial: pages, maximum: pages });
  const { instance } = await WebAssembly.instantiate(code, { env: { memory } });
  const { exports } = instance;
  // The exports were compiled from assembly/, where each of these names has this signature.
  const find = <F>(name: string): F => {
    const found = exports[name];
    if (typeof found !== 'function') throw new Error(`The kernel ${name} is missing: build the package again.`);
    return found as F;
  };
  const reducers = table<OpTable>((dtype) => {
    const wrapping = WRAPPING[dtype] ?? dtype;
    return {
      sum: find<Reduce>(`${wrapping}_sum`),
      prod: find<Reduce>(`${wrapping}_prod`),
      min: find<Reduce>(`${dtype}_min`),
      max: find<Reduce>(`${dtype}_max`),
    };
  });
  const dividers = table((dtype) => find<Divide>(`${dtype}_divide`));
  const canonicals = table((dtype) => (isFloat(dtype) ? find<Canonical>(`${dtype}_canonical`) : null));
  const converters = (suffix: string): Readonly<Record<LossyCodec, Convert>> => ({
    f16: find(`f16_${suffix}`),
    bf16: find(`bf16_${suffix}`),
    int8: find(`int8_${suffix}`),
    int4: find(`int4_${suffix}`),
    e3m0: find(`e3m0_${suffix}`),
    topk: find(`topk_${suffix}`),
  });
  const encoders = converters('encode');
  const decoders = converters('decode');
  const encodersByChance: Readonly<Record<ChanceCodec, ConvertByChance>> = {
    int8: find('int8_encode_by_chance'),
    int4: find('int4_encode_by_chance'),
    e3m0: find('e3m0_encode_by_chance'),
  };
  const dropped = find<Dropped>('f32_dropped');
  const energy = find<Energy>('f32_energy');
  const averages = (name: string): Readonly<Record<RobustDtype, Average>> => ({
    f32: find(`f32_${name}`),
    f64: find(`f64_${name}`),
  });
  const medians = averages('median');
  const trimmedMeans = averages('trimmed_mean');
  const centeredClips = averages('centered_clip');
  const bytes = new Uint8Array(memory.buffer);
  // The first page is the module's own.
  let next = PAGE_BYTES;
  return {
    bytes,
    reserve(byteLength) {
      const offset = next;
      const end = offset + Math.ceil(byteLength / ALIGNMENT) * ALIGNMENT;
      if (end > bytes.length) throw new RangeError(`The arena has no room for ${byteLength} more bytes.`);
      next = end;
      return offset;
    },
    reduce(dtype, op, dst, left, right, count) {
      reducers[dtype][op](dst, left, right, count);
    },
    divide(dtype, offset, count, divisor) {
      dividers[dtype](offset, count, divisor);
    },
    encode(codec, dst, src, count) {
      encoders[codec](dst, src, count);
    },
    encodeByChance(codec, dst, src, count, seed, index) {
      encodersByChance[codec](dst, src, count, seed, index);
    },
    decode(codec, dst, src, count) {
      decoders[codec](dst, src, count);
    },
    dropped,
    energy,
    median(dtype, dst, rows, count) {
      medians[dtype](dst, rows.offset, rows.stride, rows.count, count, 0);
    },
    trimmedMean(dtype, dst, rows, count, cut) {
      trimmedMeans[dtype](dst, rows.offset, rows.stride, rows.count, count, cut);
    },
    centeredClip(dtype, dst, rows, count, radius) {
      centeredClips[dtype](dst, rows.offset, rows.stride, rows.count, count, radius);
    },
    canonicalizeNaN(dtype, offset, count) {
      canonicals[dtype]?.(offset, count);
    },
  };
}
