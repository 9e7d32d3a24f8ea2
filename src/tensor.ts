/**
 * Tensors as users hand them in: typed arrays, 16-bit floats as `{ dtype, data }`, or several fused into one.
 * This file only describes memory; it moves no bytes and computes nothing.
 */
import { ArgumentError } from './errors.ts';

/** Element types. Sizes are in `DTYPE_BYTES`. */
export type Dtype = 'f32' | 'f64' | 'f16' | 'bf16' | 'i8' | 'i16' | 'i32' | 'i64' | 'u8' | 'u16' | 'u32' | 'u64';

export const DTYPE_BYTES: Readonly<Record<Dtype, number>> = {
  f32: 4,
  f64: 8,
  f16: 2,
  bf16: 2,
  i8: 1,
  i16: 2,
  i32: 4,
  i64: 8,
  u8: 1,
  u16: 2,
  u32: 4,
  u64: 8,
};

/** Those that can hold what is not finite. */
export type FloatDtype = 'f32' | 'f64' | 'f16' | 'bf16';

export function isFloat(dtype: Dtype): dtype is FloatDtype {
  return dtype === 'f32' || dtype === 'f64' || dtype === 'f16' || dtype === 'bf16';
}

export const DTYPES: readonly Dtype[] = Object.freeze(Object.keys(DTYPE_BYTES) as Dtype[]); // keys of a Record<Dtype, …>

/**
 * Averages that a minority of poisoned contributions can't move far, element by element; what is not finite is left out.
 * `median`: the middle value, or the mean of the two in the middle. `trimmed-mean`: the mean without a share of the lowest and
 * of the highest. `centered-clip`: the median and the mean of the distances from it, none counted for more than a radius.
 */
export type RobustOp = 'median' | 'trimmed-mean' | 'centered-clip';

const ROBUST_OPS: readonly RobustOp[] = ['median', 'trimmed-mean', 'centered-clip'];

/** What an element-wise reduction does. `avg` is `sum` divided by the number of contributors. */
export type ReduceOp = 'sum' | 'avg' | 'min' | 'max' | 'prod' | RobustOp;

export const REDUCE_OPS: readonly ReduceOp[] = ['sum', 'avg', 'min', 'max', 'prod', ...ROBUST_OPS];

export function isRobust(op: ReduceOp | null): op is RobustOp {
  return ROBUST_OPS.some((robust) => robust === op);
}

/** Typed arrays whose dtype is told by their class. */
export type PlainTensor =
  | Float32Array
  | Float64Array
  | Int8Array
  | Int16Array
  | Int32Array
  | BigInt64Array
  | Uint8Array
  | Uint16Array
  | Uint32Array
  | BigUint64Array;

/** 16-bit floats, which have no typed array of their own: the bit patterns are in `data`. */
export interface HalfTensor {
  readonly dtype: 'f16' | 'bf16';
  readonly data: Uint16Array;
}

/** One tensor, of a call that takes one or a list. */
export type SingleTensor = PlainTensor | HalfTensor;

/** One tensor, or several of one dtype that are reduced as one. */
export type Tensor = SingleTensor | readonly SingleTensor[];

/** Where the elements of one typed array are. */
export interface TensorPart {
  readonly dtype: Dtype;
  /** Number of elements. */
  readonly count: number;
  /** The elements' bytes, in the machine's byte order (little-endian on every platform Node runs on). */
  readonly bytes: Uint8Array;
}

function dtypeOf(array: PlainTensor): Dtype | undefined {
  if (array instanceof Float32Array) return 'f32';
  if (array instanceof Float64Array) return 'f64';
  if (array instanceof Int8Array) return 'i8';
  if (array instanceof Int16Array) return 'i16';
  if (array instanceof Int32Array) return 'i32';
  if (array instanceof BigInt64Array) return 'i64';
  if (array instanceof Uint16Array) return 'u16';
  if (array instanceof Uint32Array) return 'u32';
  if (array instanceof BigUint64Array) return 'u64';
  if (array instanceof Uint8Array) return 'u8';
  return undefined;
}

function partOf(tensor: SingleTensor, name: string): TensorPart {
  const isHalf = typeof tensor === 'object' && tensor !== null && 'dtype' in tensor;
  const array = isHalf ? tensor.data : tensor;
  const dtype = isHalf && array instanceof Uint16Array ? tensor.dtype : dtypeOf(array as PlainTensor); // refused below when it is none
  if (dtype === undefined || DTYPE_BYTES[dtype] === undefined) {
    throw new ArgumentError(
      `${name} is not a tensor: pass a typed array, { dtype: 'f16' | 'bf16', data: Uint16Array }, or an array of these.`,
    );
  }
  return { dtype, count: array.length, bytes: new Uint8Array(array.buffer, array.byteOffset, array.byteLength) };
}

/**
 * Describes the memory of a tensor.
 *
 * @param name the argument's name, for the error
 * @throws ArgumentError when it is no tensor, or its parts differ in dtype
 */
export function tensorParts(tensor: Tensor, name: string): readonly TensorPart[] {
  if (!Array.isArray(tensor)) return [partOf(tensor as SingleTensor, name)];
  const parts = (tensor as readonly SingleTensor[]).map((one, index) => partOf(one, `${name}[${index}]`));
  const first = parts[0];
  if (first === undefined) throw new ArgumentError(`${name} is an empty array: pass at least one tensor.`);
  for (const part of parts) {
    if (part.dtype !== first.dtype) {
      throw new ArgumentError(
        `${name} mixes ${first.dtype} and ${part.dtype}: tensors fused into one call share a dtype.`,
      );
    }
  }
  return parts;
}

type ArrayOf = {
  f32: Float32Array;
  f64: Float64Array;
  f16: Uint16Array;
  bf16: Uint16Array;
  i8: Int8Array;
  i16: Int16Array;
  i32: Int32Array;
  i64: BigInt64Array;
  u8: Uint8Array;
  u16: Uint16Array;
  u32: Uint32Array;
  u64: BigUint64Array;
};

const ARRAYS = {
  f32: Float32Array,
  f64: Float64Array,
  f16: Uint16Array,
  bf16: Uint16Array,
  i8: Int8Array,
  i16: Int16Array,
  i32: Int32Array,
  i64: BigInt64Array,
  u8: Uint8Array,
  u16: Uint16Array,
  u32: Uint32Array,
  u64: BigUint64Array,
} as const;

/** Zeroed memory that threads can share. Where there is none (a page that is not cross-origin isolated), there are no threads to share it. */
export function sharedMemory(byteLength: number): ArrayBufferLike {
  return typeof SharedArrayBuffer === 'undefined' ? new ArrayBuffer(byteLength) : new SharedArrayBuffer(byteLength);
}

/**
 * A zeroed typed array of `count` elements on a `SharedArrayBuffer`: it crosses to the engine thread without a copy. In a page that
 * is not cross-origin isolated it is on ordinary memory, which serves the engine there as well.
 *
 * @example const gradients = sharedTensor('f32', 1_000_000); // Float32Array
 */
export function sharedTensor<D extends Dtype>(dtype: D, count: number): ArrayOf[D] {
  if (!(dtype in DTYPE_BYTES))
    throw new ArgumentError(`Unknown dtype ${JSON.stringify(dtype)}: use one of ${DTYPES.join(', ')}.`);
  if (!Number.isSafeInteger(count) || count < 0) throw new ArgumentError(`A tensor cannot have ${count} elements.`);
  const array = ARRAYS[dtype] as unknown as new (memory: ArrayBufferLike) => ArrayOf[D]; // the same class in both tables
  return new array(sharedMemory(count * DTYPE_BYTES[dtype]));
}
