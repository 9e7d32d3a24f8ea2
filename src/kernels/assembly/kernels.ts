// Element-wise kernels over the arena. Compiled by AssemblyScript to WASM SIMD; see scripts/build-kernels.mjs.
// (`@inline` stands before functions in AssemblyScript, but not in TypeScript: the ts-ignore lines are for editors.)
// Offsets are in bytes and may be unaligned. SIMD loops take 16 bytes at a time, a scalar loop the rest.

// --- scalar operations ------------------------------------------------------------------------------------------------

// @ts-ignore: decorator
@inline function sumOf<T>(a: T, b: T): T { return (a + b) as T; }
// @ts-ignore: decorator
@inline function prodOf<T>(a: T, b: T): T { return (a * b) as T; }
// @ts-ignore: decorator
@inline function minOf<T>(a: T, b: T): T { return isFloat<T>() ? min<T>(a, b) : (a < b ? a : b); }
// @ts-ignore: decorator
@inline function maxOf<T>(a: T, b: T): T { return isFloat<T>() ? max<T>(a, b) : (a > b ? a : b); }

const SUM = 0;
const MIN = 1;
const MAX = 2;
const PROD = 3;

// @ts-ignore: decorator
@inline function apply<T>(op: i32, a: T, b: T): T {
  if (op == SUM) return sumOf<T>(a, b);
  if (op == MIN) return minOf<T>(a, b);
  if (op == MAX) return maxOf<T>(a, b);
  return prodOf<T>(a, b);
}

// @ts-ignore: decorator
@inline function scalar<T>(op: i32, dst: usize, left: usize, right: usize, count: usize): void {
  for (let i: usize = 0; i < count; i++) {
    const at = i * sizeof<T>();
    store<T>(dst + at, apply<T>(op, load<T>(left + at), load<T>(right + at)));
  }
}

// @ts-ignore: decorator
@inline function lanes<T>(op: i32, a: v128, b: v128): v128 {
  if (op == SUM) return v128.add<T>(a, b);
  // WASM has no lane-wise minimum of 64-bit integers, and no product of bytes: those go through scalar().
  if (isFloat<T>() || sizeof<T>() < 8) {
    if (op == MIN) return v128.min<T>(a, b);
    if (op == MAX) return v128.max<T>(a, b);
  }
  if (sizeof<T>() > 1) return v128.mul<T>(a, b);
  return unreachable();
}

// @ts-ignore: decorator
@inline function vector<T>(op: i32, dst: usize, left: usize, right: usize, count: usize): void {
  const bytes = count * sizeof<T>();
  const unrolled = bytes & ~(<usize>63);
  const whole = bytes & ~(<usize>15);
  let at: usize = 0;
  for (; at < unrolled; at += 64) {
    const a = lanes<T>(op, v128.load(left + at), v128.load(right + at));
    const b = lanes<T>(op, v128.load(left + at, 16), v128.load(right + at, 16));
    const c = lanes<T>(op, v128.load(left + at, 32), v128.load(right + at, 32));
    const d = lanes<T>(op, v128.load(left + at, 48), v128.load(right + at, 48));
    v128.store(dst + at, a);
    v128.store(dst + at, b, 16);
    v128.store(dst + at, c, 32);
    v128.store(dst + at, d, 48);
  }
  for (; at < whole; at += 16) v128.store(dst + at, lanes<T>(op, v128.load(left + at), v128.load(right + at)));
  scalar<T>(op, dst + at, left + at, right + at, (bytes - at) / sizeof<T>());
}

// --- f32, f64 ---------------------------------------------------------------------------------------------------------

export function f32_sum(d: usize, l: usize, r: usize, n: usize): void { vector<f32>(SUM, d, l, r, n); }
export function f32_min(d: usize, l: usize, r: usize, n: usize): void { vector<f32>(MIN, d, l, r, n); }
export function f32_max(d: usize, l: usize, r: usize, n: usize): void { vector<f32>(MAX, d, l, r, n); }
export function f32_prod(d: usize, l: usize, r: usize, n: usize): void { vector<f32>(PROD, d, l, r, n); }
export function f64_sum(d: usize, l: usize, r: usize, n: usize): void { vector<f64>(SUM, d, l, r, n); }
export function f64_min(d: usize, l: usize, r: usize, n: usize): void { vector<f64>(MIN, d, l, r, n); }
export function f64_max(d: usize, l: usize, r: usize, n: usize): void { vector<f64>(MAX, d, l, r, n); }
export function f64_prod(d: usize, l: usize, r: usize, n: usize): void { vector<f64>(PROD, d, l, r, n); }

// --- integers: sums and products wrap round -----------------------------------------------------------------------------

export function i8_sum(d: usize, l: usize, r: usize, n: usize): void { vector<i8>(SUM, d, l, r, n); }
export function i8_min(d: usize, l: usize, r: usize, n: usize): void { vector<i8>(MIN, d, l, r, n); }
export function i8_max(d: usize, l: usize, r: usize, n: usize): void { vector<i8>(MAX, d, l, r, n); }
export function i8_prod(d: usize, l: usize, r: usize, n: usize): void { scalar<i8>(PROD, d, l, r, n); }
export function u8_min(d: usize, l: usize, r: usize, n: usize): void { vector<u8>(MIN, d, l, r, n); }
export function u8_max(d: usize, l: usize, r: usize, n: usize): void { vector<u8>(MAX, d, l, r, n); }
export function i16_sum(d: usize, l: usize, r: usize, n: usize): void { vector<i16>(SUM, d, l, r, n); }
export function i16_min(d: usize, l: usize, r: usize, n: usize): void { vector<i16>(MIN, d, l, r, n); }
export function i16_max(d: usize, l: usize, r: usize, n: usize): void { vector<i16>(MAX, d, l, r, n); }
export function i16_prod(d: usize, l: usize, r: usize, n: usize): void { vector<i16>(PROD, d, l, r, n); }
export function u16_min(d: usize, l: usize, r: usize, n: usize): void { vector<u16>(MIN, d, l, r, n); }
export function u16_max(d: usize, l: usize, r: usize, n: usize): void { vector<u16>(MAX, d, l, r, n); }
export function i32_sum(d: usize, l: usize, r: usize, n: usize): void { vector<i32>(SUM, d, l, r, n); }
export function i32_min(d: usize, l: usize, r: usize, n: usize): void { vector<i32>(MIN, d, l, r, n); }
export function i32_max(d: usize, l: usize, r: usize, n: usize): void { vector<i32>(MAX, d, l, r, n); }
export function i32_prod(d: usize, l: usize, r: usize, n: usize): void { vector<i32>(PROD, d, l, r, n); }
export function u32_min(d: usize, l: usize, r: usize, n: usize): void { vector<u32>(MIN, d, l, r, n); }
export function u32_max(d: usize, l: usize, r: usize, n: usize): void { vector<u32>(MAX, d, l, r, n); }
export function i64_sum(d: usize, l: usize, r: usize, n: usize): void { vector<i64>(SUM, d, l, r, n); }
export function i64_min(d: usize, l: usize, r: usize, n: usize): void { scalar<i64>(MIN, d, l, r, n); }
export function i64_max(d: usize, l: usize, r: usize, n: usize): void { scalar<i64>(MAX, d, l, r, n); }
export function i64_prod(d: usize, l: usize, r: usize, n: usize): void { vector<i64>(PROD, d, l, r, n); }
export function u64_min(d: usize, l: usize, r: usize, n: usize): void { scalar<u64>(MIN, d, l, r, n); }
export function u64_max(d: usize, l: usize, r: usize, n: usize): void { scalar<u64>(MAX, d, l, r, n); }

// --- 16-bit floats: computed in f32, rounded to nearest even --------------------------------------------------------------

// @ts-ignore: decorator
@inline function bf16ToF32(h: u32): f32 { return reinterpret<f32>(h << 16); }

// @ts-ignore: decorator
@inline function f32ToBf16(value: f32): u32 {
  const bits = reinterpret<u32>(value);
  if ((bits & 0x7fffffff) > 0x7f800000) return (bits >>> 16) | 0x40;
  return (bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16;
}

// Scaling by 2^112 moves the exponent of an f16 that was shifted into place to where f32 has it, denormals included.
// @ts-ignore: decorator
@inline function f16ToF32(h: u32): f32 {
  const sign = (h & 0x8000) << 16;
  const magnitude = h & 0x7fff;
  if (magnitude >= 0x7c00) return reinterpret<f32>(sign | 0x7f800000 | ((magnitude & 0x3ff) << 13));
  const scaled = reinterpret<f32>(magnitude << 13) * reinterpret<f32>(0x77800000);
  return reinterpret<f32>(sign | reinterpret<u32>(scaled));
}

// @ts-ignore: decorator
@inline function f32ToF16(value: f32): u32 {
  const bits = reinterpret<u32>(value);
  const sign = (bits >>> 16) & 0x8000;
  const magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return sign | 0x7e00 | ((magnitude >>> 13) & 0x1ff);
  if (magnitude >= 0x477ff000) return sign | 0x7c00;
  if (magnitude < 0x38800000) {
    // Denormal: adding 0.5 aligns the last bit kept with the last bit of the sum, which rounds to nearest even.
    const aligned = reinterpret<f32>(magnitude) + 0.5;
    return sign | (reinterpret<u32>(aligned) - 0x3f000000);
  }
  const rounded = magnitude + 0xfff + ((magnitude >>> 13) & 1);
  return sign | ((rounded - 0x38000000) >>> 13);
}

// Four bf16 in the low halves of 32-bit lanes.
// @ts-ignore: decorator
@inline function roundBf16(x: v128): v128 {
  const odd = v128.and(v128.shr<u32>(x, 16), i32x4.splat(1));
  const rounded = v128.shr<u32>(v128.add<i32>(x, v128.add<i32>(odd, i32x4.splat(0x7fff))), 16);
  const nan = v128.or(v128.shr<u32>(x, 16), i32x4.splat(0x40));
  return v128.bitselect(nan, rounded, v128.ne<f32>(x, x));
}

// @ts-ignore: decorator
@inline function reduceBf16(op: i32, d: usize, l: usize, r: usize, n: usize): void {
  const whole = n & ~(<usize>7);
  let i: usize = 0;
  for (; i < whole; i += 8) {
    const a = v128.load(l + i * 2);
    const b = v128.load(r + i * 2);
    const low = lanes<f32>(op, v128.shl<i32>(v128.extend_low<u16>(a), 16), v128.shl<i32>(v128.extend_low<u16>(b), 16));
    const high = lanes<f32>(op, v128.shl<i32>(v128.extend_high<u16>(a), 16), v128.shl<i32>(v128.extend_high<u16>(b), 16));
    v128.store(d + i * 2, v128.narrow<u32>(roundBf16(low), roundBf16(high)));
  }
  for (; i < n; i++) {
    const value = apply<f32>(op, bf16ToF32(load<u16>(l + i * 2)), bf16ToF32(load<u16>(r + i * 2)));
    store<u16>(d + i * 2, f32ToBf16(value));
  }
}

// @ts-ignore: decorator
@inline function reduceF16(op: i32, d: usize, l: usize, r: usize, n: usize): void {
  for (let i: usize = 0; i < n; i++) {
    const value = apply<f32>(op, f16ToF32(load<u16>(l + i * 2)), f16ToF32(load<u16>(r + i * 2)));
    store<u16>(d + i * 2, f32ToF16(value));
  }
}

export function bf16_sum(d: usize, l: usize, r: usize, n: usize): void { reduceBf16(SUM, d, l, r, n); }
export function bf16_min(d: usize, l: usize, r: usize, n: usize): void { reduceBf16(MIN, d, l, r, n); }
export function bf16_max(d: usize, l: usize, r: usize, n: usize): void { reduceBf16(MAX, d, l, r, n); }
export function bf16_prod(d: usize, l: usize, r: usize, n: usize): void { reduceBf16(PROD, d, l, r, n); }
export function f16_sum(d: usize, l: usize, r: usize, n: usize): void { reduceF16(SUM, d, l, r, n); }
export function f16_min(d: usize, l: usize, r: usize, n: usize): void { reduceF16(MIN, d, l, r, n); }
export function f16_max(d: usize, l: usize, r: usize, n: usize): void { reduceF16(MAX, d, l, r, n); }
export function f16_prod(d: usize, l: usize, r: usize, n: usize): void { reduceF16(PROD, d, l, r, n); }

export function bf16_decode(d: usize, s: usize, n: usize): void {
  const whole = n & ~(<usize>7);
  let i: usize = 0;
  for (; i < whole; i += 8) {
    const packed = v128.load(s + i * 2);
    v128.store(d + i * 4, v128.shl<i32>(v128.extend_low<u16>(packed), 16));
    v128.store(d + i * 4, v128.shl<i32>(v128.extend_high<u16>(packed), 16), 16);
  }
  for (; i < n; i++) store<f32>(d + i * 4, bf16ToF32(load<u16>(s + i * 2)));
}

export function bf16_encode(d: usize, s: usize, n: usize): void {
  const whole = n & ~(<usize>7);
  let i: usize = 0;
  for (; i < whole; i += 8) {
    v128.store(d + i * 2, v128.narrow<u32>(roundBf16(v128.load(s + i * 4)), roundBf16(v128.load(s + i * 4, 16))));
  }
  for (; i < n; i++) store<u16>(d + i * 2, f32ToBf16(load<f32>(s + i * 4)));
}

export function f16_decode(d: usize, s: usize, n: usize): void {
  for (let i: usize = 0; i < n; i++) store<f32>(d + i * 4, f16ToF32(load<u16>(s + i * 2)));
}

export function f16_encode(d: usize, s: usize, n: usize): void {
  for (let i: usize = 0; i < n; i++) store<u16>(d + i * 2, f32ToF16(load<f32>(s + i * 4)));
}

// --- division for `avg`: floats correctly rounded, integers towards zero --------------------------------------------------

// @ts-ignore: decorator
@inline function divideScalar<T>(at: usize, n: usize, divisor: T): void {
  for (let i: usize = 0; i < n; i++) store<T>(at + i * sizeof<T>(), (load<T>(at + i * sizeof<T>()) / divisor) as T);
}

export function f32_divide(at: usize, n: usize, divisor: f64): void {
  const by = f32x4.splat(<f32>divisor);
  const whole = n & ~(<usize>3);
  let i: usize = 0;
  for (; i < whole; i += 4) v128.store(at + i * 4, v128.div<f32>(v128.load(at + i * 4), by));
  divideScalar<f32>(at + i * 4, n - i, <f32>divisor);
}
export function f64_divide(at: usize, n: usize, divisor: f64): void { divideScalar<f64>(at, n, divisor); }
export function i8_divide(at: usize, n: usize, divisor: f64): void { for (let i: usize = 0; i < n; i++) store<i8>(at + i, <i8>(<i32>load<i8>(at + i) / <i32>divisor)); }
export function i16_divide(at: usize, n: usize, divisor: f64): void { for (let i: usize = 0; i < n; i++) store<i16>(at + i * 2, <i16>(<i32>load<i16>(at + i * 2) / <i32>divisor)); }
export function i32_divide(at: usize, n: usize, divisor: f64): void { divideScalar<i32>(at, n, <i32>divisor); }
export function i64_divide(at: usize, n: usize, divisor: f64): void { divideScalar<i64>(at, n, <i64>divisor); }
export function u8_divide(at: usize, n: usize, divisor: f64): void { for (let i: usize = 0; i < n; i++) store<u8>(at + i, <u8>(<u32>load<u8>(at + i) / <u32>divisor)); }
export function u16_divide(at: usize, n: usize, divisor: f64): void { for (let i: usize = 0; i < n; i++) store<u16>(at + i * 2, <u16>(<u32>load<u16>(at + i * 2) / <u32>divisor)); }
export function u32_divide(at: usize, n: usize, divisor: f64): void { divideScalar<u32>(at, n, <u32>divisor); }
export function u64_divide(at: usize, n: usize, divisor: f64): void { divideScalar<u64>(at, n, <u64>divisor); }
export function bf16_divide(at: usize, n: usize, divisor: f64): void {
  for (let i: usize = 0; i < n; i++) store<u16>(at + i * 2, f32ToBf16(bf16ToF32(load<u16>(at + i * 2)) / <f32>divisor));
}
export function f16_divide(at: usize, n: usize, divisor: f64): void {
  for (let i: usize = 0; i < n; i++) store<u16>(at + i * 2, f32ToF16(f16ToF32(load<u16>(at + i * 2)) / <f32>divisor));
}

// --- one bit pattern for NaN ------------------------------------------------------------------------------------------------

export function f32_canonical(at: usize, n: usize): void {
  for (let i: usize = 0; i < n; i++) { const v = load<f32>(at + i * 4); if (v != v) store<u32>(at + i * 4, 0x7fc00000); }
}
export function f64_canonical(at: usize, n: usize): void {
  for (let i: usize = 0; i < n; i++) { const v = load<f64>(at + i * 8); if (v != v) store<u64>(at + i * 8, 0x7ff8000000000000); }
}
export function bf16_canonical(at: usize, n: usize): void {
  for (let i: usize = 0; i < n; i++) if ((load<u16>(at + i * 2) & 0x7fff) > 0x7f80) store<u16>(at + i * 2, 0x7fc0);
}
export function f16_canonical(at: usize, n: usize): void {
  for (let i: usize = 0; i < n; i++) if ((load<u16>(at + i * 2) & 0x7fff) > 0x7c00) store<u16>(at + i * 2, 0x7e00);
}
