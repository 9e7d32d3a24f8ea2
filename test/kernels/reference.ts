/** What the kernels must compute, written as plainly as possible: one element at a time, with JavaScript's own arithmetic. */
import type { KernelOp } from '../../src/kernels/kernels.ts';
import { DTYPE_BYTES, type Dtype } from '../../src/tensor.ts';

export const FLOATS = ['f32', 'f64', 'f16', 'bf16'] as const;
export const OPS: readonly KernelOp[] = ['sum', 'min', 'max', 'prod'];

export function isFloat(dtype: Dtype): boolean {
  return (FLOATS as readonly Dtype[]).includes(dtype);
}

/** Exact value of a 16-bit float: sign, exponent and fraction by the definition of IEEE 754. */
export function halfToNumber(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >>> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  if (exponent === 31) return fraction === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  return sign * (1024 + fraction) * 2 ** (exponent - 25);
}

export function bf16ToNumber(bits: number): number {
  return new Float32Array(Uint32Array.of(bits << 16).buffer)[0]!;
}

/** Nearest of all finite patterns, the even one of two; beyond half a step above the largest, infinity. */
function nearest(value: number, toNumber: (bits: number) => number, infinity: number): number {
  const sign = value < 0 || Object.is(value, -0) ? 0x8000 : 0;
  const magnitude = Math.abs(value);
  const largest = infinity - 1;
  // The step above the largest finite number is as wide as the one below it.
  const beyond = toNumber(largest) + (toNumber(largest) - toNumber(largest - 1)) / 2;
  if (magnitude >= beyond) return sign | infinity;
  let low = 0;
  let high = largest;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (toNumber(middle) <= magnitude) low = middle;
    else high = middle - 1;
  }
  if (low === largest) return sign | low;
  const below = magnitude - toNumber(low);
  const above = toNumber(low + 1) - magnitude;
  const up = above < below || (above === below && low % 2 === 1);
  return sign | (up ? low + 1 : low);
}

/** null: any NaN will do. */
export function numberToHalf(value: number): number | null {
  return Number.isNaN(value) ? null : nearest(value, halfToNumber, 0x7c00);
}

export function numberToBf16(value: number): number | null {
  return Number.isNaN(value) ? null : nearest(value, bf16ToNumber, 0x7f80);
}

function applyFloat(op: KernelOp, left: number, right: number): number {
  if (op === 'sum') return left + right;
  if (op === 'prod') return left * right;
  return op === 'min' ? Math.min(left, right) : Math.max(left, right);
}

function applyInteger(op: KernelOp, left: bigint, right: bigint): bigint {
  if (op === 'sum') return left + right;
  if (op === 'prod') return left * right;
  if (op === 'min') return left < right ? left : right;
  return left > right ? left : right;
}

function wrap(dtype: Dtype, value: bigint): bigint {
  const bits = DTYPE_BYTES[dtype] * 8;
  return dtype.startsWith('u') ? BigInt.asUintN(bits, value) : BigInt.asIntN(bits, value);
}

/** One element of a tensor, wherever it is. */
export type Element = number | bigint;

export function readElement(dtype: Dtype, view: DataView, at: number): Element {
  switch (dtype) {
    case 'f32':
      return view.getFloat32(at, true);
    case 'f64':
      return view.getFloat64(at, true);
    case 'f16':
      return halfToNumber(view.getUint16(at, true));
    case 'bf16':
      return bf16ToNumber(view.getUint16(at, true));
    default: {
      let value = 0n;
      for (let byte = DTYPE_BYTES[dtype] - 1; byte >= 0; byte--)
        value = (value << 8n) | BigInt(view.getUint8(at + byte));
      return wrap(dtype, value);
    }
  }
}

/** The result in the dtype's own precision. */
export function reduceElement(dtype: Dtype, op: KernelOp, left: Element, right: Element): Element {
  if (typeof left === 'bigint' && typeof right === 'bigint') return wrap(dtype, applyInteger(op, left, right));
  return roundTo(dtype, applyFloat(op, Number(left), Number(right)));
}

/** Integers are divided towards zero. */
export function divideElement(dtype: Dtype, value: Element, divisor: number): Element {
  if (typeof value === 'bigint') return value / BigInt(divisor);
  return roundTo(dtype, value / divisor);
}

/** A number as its dtype holds it. 16-bit floats are computed in f32 first. */
function roundTo(dtype: Dtype, value: number): number {
  if (dtype === 'f64') return value;
  const single = Math.fround(value);
  if (dtype === 'f32' || Number.isNaN(single)) return single;
  return dtype === 'f16' ? halfToNumber(numberToHalf(single)!) : bf16ToNumber(numberToBf16(single)!);
}
