// Codecs that share a scale among the elements of a block. A block on the wire is its scale followed by its values, so whole
// blocks can be encoded and decoded wherever a segment is cut; the last block of a segment may be short:
//
//     int8   ┌ scale: bf16 ┬ 64 × i8, −127 to 127                   ┐ 66 bytes
//     int4   ┌ scale: bf16 ┬ 48 nibbles, low first, −8 to 7         ┐ 26 bytes      by chance −7 to 7
//     e3m0   ┌ scale: bf16 ┬ 64 nibbles, low first, sign · exponent ┐ 34 bytes
//
// The value of largest magnitude gets the code of largest magnitude, so the scale is their quotient, as a bf16. That of int4
// is negative when the largest value is positive: then all sixteen codes are used. A scale's few bits make every code × scale
// exact, so decoded values encode to the same bytes again. A NaN as scale says that the block held a NaN or an infinity.
// (`@inline` stands before functions in AssemblyScript, but not in TypeScript: the ts-ignore lines are for editors.)


const INT8 = 0;
const INT4 = 1;
const E3M0 = 2;

const NAN_BITS: u32 = 0x7fc00000;
const INFINITY_BITS: u32 = 0x7f800000;
const MAGNITUDE: u32 = 0x7fffffff;

/** Added to a number below 2^22 it leaves the nearest integer, ties to even, in the low bits. */
const ROUNDER: f32 = 12582912.0;
const ROUNDER_BITS: i32 = 0x4b400000;

/** The bits of 2^-7: below, a value is nearer to zero than to the smallest e3m0. And those of 2^-6. */
const E3M0_HALF_LEAST: i32 = 0x3c000000;
const E3M0_LEAST: i32 = 0x3c800000;

/**
 * Elements whose scales are found before any of them is encoded, those of four blocks at a time: sixteen blocks or twelve. For
 * each block: its largest keys by lane, its scale, and what its values are multiplied by, or divided.
 */
const GROUP: usize = 768;
const LARGEST = memory.data(16 * 16, 16);
const SCALES = memory.data(16 * 4, 16);
const FACTORS = memory.data(16 * 4, 16);

/** Where a block that is not whole is padded with zeros. */
const PADDED = memory.data(64 * 4, 16);
const PADDED_CODES = memory.data(64, 16);

/** Values that are encoded and decoded at a time. */
const STEP: usize = 16;

// --- the kinds --------------------------------------------------------------------------------------------------------

// @ts-ignore: decorator
@inline function blockOf(kind: i32): usize { return kind == INT4 ? 48 : 64; }
// @ts-ignore: decorator
@inline function levelsOf(kind: i32, chance: bool): f32 { return kind == INT8 ? 127 : kind == E3M0 ? 1 : chance ? 7 : 8; }
/** The sign of a scale says that of the largest value. */
// @ts-ignore: decorator
@inline function isSigned(kind: i32, chance: bool): bool { return kind == INT4 && !chance; }
/** Smallest scales: 2^-126, and 2^-120 for e3m0, whose smallest value is a 64th of the scale. Below them bits would be lost. */
// @ts-ignore: decorator
@inline function leastOf(kind: i32): u32 { return kind == E3M0 ? 0x03800000 : 0x00800000; }
// @ts-ignore: decorator
@inline function codeBytes(kind: i32, count: usize): usize { return kind == INT8 ? count : (count + 1) >>> 1; }

// --- scales -----------------------------------------------------------------------------------------------------------

/**
 * By lane, the largest of the keys of sixteen values and of those in `most`. A key is what tells how large a value is: the bits of
 * its magnitude, whose order is that of numbers, with infinity and NaNs above.
 */
// @ts-ignore: decorator
@inline function largest16(at: usize, most: v128): v128 {
  const mask = i32x4.splat(<i32>MAGNITUDE);
  const first = i32x4.max_s(v128.and(v128.load(at), mask), v128.and(v128.load(at, 16), mask));
  const second = i32x4.max_s(v128.and(v128.load(at, 32), mask), v128.and(v128.load(at, 48), mask));
  return i32x4.max_s(most, i32x4.max_s(first, second));
}

// @ts-ignore: decorator
@inline function positives16(at: usize, most: v128): v128 {
  const first = i32x4.max_s(v128.load(at), v128.load(at, 16));
  return i32x4.max_s(most, i32x4.max_s(first, i32x4.max_s(v128.load(at, 32), v128.load(at, 48))));
}

// @ts-ignore: decorator
@inline function negatives16(at: usize, most: v128): v128 {
  const first = i32x4.max_u(v128.load(at), v128.load(at, 16));
  return i32x4.max_u(most, i32x4.max_u(first, i32x4.max_u(v128.load(at, 32), v128.load(at, 48))));
}

/**
 * The largest keys of a block, by lane. Those of a `signed` kind end in a bit that is set where a positive value is as large as
 * any. As signed integers, positive numbers are above all others; as unsigned ones, negative numbers are, the larger their magnitude.
 */
// @ts-ignore: decorator
@inline function largestLanes(kind: i32, signed: bool, s: usize, n: usize): v128 {
  const zero = i32x4.splat(0);
  let most = zero;
  let least = zero;
  if (n == blockOf(kind)) {
    most = signed ? positives16(s + 128, positives16(s + 64, positives16(s, zero))) : largest16(s + 128, largest16(s + 64, largest16(s, zero)));
    if (signed) least = negatives16(s + 128, negatives16(s + 64, negatives16(s, zero)));
    if (blockOf(kind) == 64) most = largest16(s + 192, most);
  } else {
    memory.fill(PADDED, 0, 256);
    memory.copy(PADDED, s, n * 4);
    for (let at = PADDED; at < PADDED + 256; at += 64) {
      most = signed ? positives16(at, most) : largest16(at, most);
      if (signed) least = negatives16(at, least);
    }
  }
  return signed ? i32x4.max_u(v128.or(i32x4.shl(most, 1), i32x4.splat(1)), i32x4.shl(least, 1)) : most;
}

/** The largest key of each of four blocks. */
// @ts-ignore: decorator
@inline function largestOfFour(at: usize): v128 {
  const a = v128.load(at);
  const b = v128.load(at, 16);
  const c = v128.load(at, 32);
  const d = v128.load(at, 48);
  const ab = i32x4.max_u(v128.shuffle<i32>(a, b, 0, 4, 1, 5), v128.shuffle<i32>(a, b, 2, 6, 3, 7));
  const cd = i32x4.max_u(v128.shuffle<i32>(c, d, 0, 4, 1, 5), v128.shuffle<i32>(c, d, 2, 6, 3, 7));
  return i32x4.max_u(v128.shuffle<i64>(ab, cd, 0, 2), v128.shuffle<i64>(ab, cd, 1, 3));
}

/** The bits of the scales of four blocks. */
// @ts-ignore: decorator
@inline function scalesOf(kind: i32, chance: bool, keys: v128): v128 {
  const signed = isSigned(kind, chance);
  const largest = signed ? i32x4.shr_u(keys, 1) : keys;
  const levels = f32x4.splat(levelsOf(kind, chance));
  const least = i32x4.splat(<i32>leastOf(kind));
  const step = i32x4.splat(0xffff0000);
  const exact = kind == E3M0 ? largest : f32x4.div(largest, levels);
  const even = v128.and(i32x4.shr_u(exact, 16), i32x4.splat(1));
  let bits = v128.and(i32x4.add(i32x4.add(exact, i32x4.splat(0x7fff)), even), step);
  // Rounded up beyond what f32 can hold: the step below is as good, as the largest value is still nearest to the largest code.
  bits = i32x4.add(bits, v128.and(f32x4.eq(f32x4.mul(bits, levels), f32x4.splat(Infinity)), step));
  bits = i32x4.max_s(bits, least);
  if (signed) bits = v128.or(bits, v128.and(i32x4.shl(keys, 31), i32x4.gt_s(bits, least)));
  return v128.bitselect(i32x4.splat(<i32>NAN_BITS), bits, i32x4.ge_s(largest, i32x4.splat(<i32>INFINITY_BITS)));
}

// --- rounding: four values to four codes ------------------------------------------------------------------------------

/** Hashes of seed and position, with the constants of C. Wellons' "lowbias32", whose bits are as good as independent. */
// @ts-ignore: decorator
@inline function hashLanes(seed: u32, index: u32): v128 {
  const places = i32x4.add(i32x4.splat(<i32>index), i32x4(0, 1, 2, 3));
  let x = i32x4.add(i32x4.mul(places, i32x4.splat(<i32>0x9e3779b9)), i32x4.splat(<i32>seed));
  x = i32x4.mul(v128.xor(x, i32x4.shr_u(x, 16)), i32x4.splat(0x7feb352d));
  x = i32x4.mul(v128.xor(x, i32x4.shr_u(x, 15)), i32x4.splat(<i32>0x846ca68b));
  return v128.xor(x, i32x4.shr_u(x, 16));
}

/** 0 to 1 − 2^-24. */
// @ts-ignore: decorator
@inline function uniformLanes(seed: u32, index: u32): v128 {
  return f32x4.mul(f32x4.convert_i32x4_s(i32x4.shr_u(hashLanes(seed, index), 8)), f32x4.splat(5.9604644775390625e-8));
}

// @ts-ignore: decorator
@inline function nearestLanes(x: v128, by: v128): v128 {
  return i32x4.sub(f32x4.add(f32x4.mul(x, by), f32x4.splat(ROUNDER)), i32x4.splat(ROUNDER_BITS));
}

/**
 * Down or up with the probability that makes the mean exact. The division is exact for what was decoded with this scale. What is
 * within 1/256 of the largest code has that code: the scale, as a bf16, is no more exact, and the largest value must keep its code.
 */
// @ts-ignore: decorator
@inline function chanceLanes(kind: i32, x: v128, scale: v128, seed: u32, index: u32): v128 {
  const levels = levelsOf(kind, true);
  const quotient = f32x4.div(x, scale);
  const sign = v128.and(quotient, i32x4.splat(<i32>0x80000000));
  const isLargest = f32x4.ge(f32x4.abs(quotient), f32x4.splat(levels * 0.99609375));
  const exact = v128.bitselect(v128.or(f32x4.splat(levels), sign), quotient, isLargest);
  const below = f32x4.floor(exact);
  const up = f32x4.lt(uniformLanes(seed, index), f32x4.sub(exact, below));
  return i32x4.sub(i32x4.sub(f32x4.add(below, f32x4.splat(ROUNDER)), i32x4.splat(ROUNDER_BITS)), up);
}

/** Adding half a step of the exponent rounds to the nearest power of two, ties away from zero. */
// @ts-ignore: decorator
@inline function e3m0Lanes(x: v128, by: v128): v128 {
  const share = f32x4.mul(v128.and(x, i32x4.splat(<i32>MAGNITUDE)), by);
  const exponent = i32x4.sub(i32x4.shr_u(i32x4.add(share, i32x4.splat(0x00400000)), 23), i32x4.splat(120));
  const sign = v128.and(i32x4.shr_u(x, 28), i32x4.splat(8));
  const isSome = i32x4.ge_s(share, i32x4.splat(E3M0_HALF_LEAST));
  return v128.and(v128.or(i32x4.max_s(exponent, i32x4.splat(1)), sign), isSome);
}

/** How far a value is from one power of two to the next is its fraction: adding a random one carries that often. */
// @ts-ignore: decorator
@inline function e3m0ChanceLanes(x: v128, scale: v128, seed: u32, index: u32): v128 {
  const quotient = f32x4.div(v128.and(x, i32x4.splat(<i32>MAGNITUDE)), scale);
  const share = v128.bitselect(f32x4.splat(1), quotient, f32x4.ge(quotient, f32x4.splat(0.99609375)));
  const carried = i32x4.shr_u(i32x4.add(share, i32x4.shr_u(hashLanes(seed, index), 9)), 23);
  const exponent = i32x4.sub(carried, i32x4.splat(120));
  // Below the smallest power it is all or nothing.
  const rises = v128.and(f32x4.lt(uniformLanes(seed, index), f32x4.mul(share, f32x4.splat(64))), i32x4.splat(1));
  const code = v128.bitselect(exponent, rises, i32x4.ge_s(share, i32x4.splat(E3M0_LEAST)));
  const sign = v128.and(i32x4.shr_u(x, 28), i32x4.splat(8));
  return v128.and(v128.or(code, sign), i32x4.gt_s(code, i32x4.splat(0)));
}

/** `by`: the inverse of the scale; by chance, the scale itself. */
// @ts-ignore: decorator
@inline function four(kind: i32, chance: bool, at: usize, by: v128, seed: u32, index: u32): v128 {
  const x = v128.load(at);
  if (kind == E3M0) return chance ? e3m0ChanceLanes(x, by, seed, index) : e3m0Lanes(x, by);
  return chance ? chanceLanes(kind, x, by, seed, index) : nearestLanes(x, by);
}

// @ts-ignore: decorator
@inline function sixteen(kind: i32, chance: bool, at: usize, by: v128, seed: u32, index: u32): v128 {
  const a = four(kind, chance, at, by, seed, index);
  const b = four(kind, chance, at + 16, by, seed, index + 4);
  const c = four(kind, chance, at + 32, by, seed, index + 8);
  const d = four(kind, chance, at + 48, by, seed, index + 12);
  const bytes = i8x16.narrow_i16x8_s(i16x8.narrow_i32x4_s(a, b), i16x8.narrow_i32x4_s(c, d));
  return kind == INT4 ? i8x16.min_s(bytes, i8x16.splat(7)) : bytes;
}

/** The low halves of sixteen bytes, as eight; the first of two in the low half. */
// @ts-ignore: decorator
@inline function packPairs(bytes: v128): v128 {
  const nibbles = v128.and(bytes, i8x16.splat(15));
  return i8x16.swizzle(v128.or(nibbles, i16x8.shr_u(nibbles, 4)), i8x16(0, 2, 4, 6, 8, 10, 12, 14, 0, 2, 4, 6, 8, 10, 12, 14));
}

/** Sixteen values to wire bytes: a whole vector of them, or half of one. */
// @ts-ignore: decorator
@inline function storeCodes(kind: i32, chance: bool, to: usize, at: usize, by: v128, seed: u32, index: u32): void {
  const bytes = sixteen(kind, chance, at, by, seed, index);
  if (kind == INT8) {
    v128.store(to, bytes);
  } else {
    v128.store64_lane(to, packPairs(bytes), 0);
  }
}

// --- encoding ---------------------------------------------------------------------------------------------------------

// @ts-ignore: decorator
@inline function encode(kind: i32, chance: bool, d: usize, s: usize, n: usize, seed: u32, index: u32): void {
  const block = blockOf(kind);
  for (let start: usize = 0; start < n; start += GROUP) {
    const end = min<usize>(n, start + GROUP);
    let at = LARGEST;
    for (let first = start; first < end; first += block, at += 16) {
      v128.store(at, largestLanes(kind, isSigned(kind, chance), s + first * 4, min<usize>(block, end - first)));
    }
    for (let four: usize = 0; LARGEST + four * 4 < at; four += 16) {
      const bits = scalesOf(kind, chance, largestOfFour(LARGEST + four * 4));
      v128.store(SCALES + four, bits);
      v128.store(FACTORS + four, chance ? bits : f32x4.div(f32x4.splat(1), bits));
    }
    at = 0;
    for (let first = start; first < end; first += block, at += 4) {
      const count = min<usize>(block, end - first);
      const by = load<f32>(FACTORS + at);
      store<u16>(d, load<u16>(SCALES + at, 2));
      d += 2;
      if (by != by) memory.fill(d, 0, codeBytes(kind, count));
      else encodeBlock(kind, chance, d, s + first * 4, count, f32x4.splat(by), seed, index + <u32>first);
      d += codeBytes(kind, count);
    }
  }
}

// @ts-ignore: decorator
@inline function encodeBlock(kind: i32, chance: bool, d: usize, s: usize, n: usize, by: v128, seed: u32, index: u32): void {
  if (n == blockOf(kind)) {
    storeCodes(kind, chance, d, s, by, seed, index);
    storeCodes(kind, chance, d + codeBytes(kind, 16), s + 64, by, seed, index + 16);
    storeCodes(kind, chance, d + codeBytes(kind, 32), s + 128, by, seed, index + 32);
    if (blockOf(kind) == 64) storeCodes(kind, chance, d + codeBytes(kind, 48), s + 192, by, seed, index + 48);
  } else {
    memory.fill(PADDED, 0, 256);
    memory.copy(PADDED, s, n * 4);
    for (let i: usize = 0; i < n; i += STEP) {
      storeCodes(kind, chance, PADDED_CODES + codeBytes(kind, i), PADDED + i * 4, by, seed, index + <u32>i);
    }
    memory.copy(d, PADDED_CODES, codeBytes(kind, n));
  }
}

export function int8_encode(d: usize, s: usize, n: usize): void { encode(INT8, false, d, s, n, 0, 0); }
export function int4_encode(d: usize, s: usize, n: usize): void { encode(INT4, false, d, s, n, 0, 0); }
export function e3m0_encode(d: usize, s: usize, n: usize): void { encode(E3M0, false, d, s, n, 0, 0); }
export function int8_encode_by_chance(d: usize, s: usize, n: usize, seed: u32, index: u32): void { encode(INT8, true, d, s, n, seed, index); }
export function int4_encode_by_chance(d: usize, s: usize, n: usize, seed: u32, index: u32): void { encode(INT4, true, d, s, n, seed, index); }
export function e3m0_encode_by_chance(d: usize, s: usize, n: usize, seed: u32, index: u32): void { encode(E3M0, true, d, s, n, seed, index); }

// --- decoding ---------------------------------------------------------------------------------------------------------

// @ts-ignore: decorator
@inline function widen(to: usize, shorts: v128, scale: v128): void {
  v128.store(to, f32x4.mul(f32x4.convert_i32x4_s(i32x4.extend_low_i16x8_s(shorts)), scale));
  v128.store(to, f32x4.mul(f32x4.convert_i32x4_s(i32x4.extend_high_i16x8_s(shorts)), scale), 16);
}

/** Nibbles go by way of the bf16 that a table has for each, as two bytes. */
// @ts-ignore: decorator
@inline function widenNibbles(kind: i32, to: usize, nibbles: v128, scale: v128): void {
  const high = kind == INT4
    ? i8x16(0, 0x3f, 0x40, 0x40, 0x40, 0x40, 0x40, 0x40, <i8>0xc1, <i8>0xc0, <i8>0xc0, <i8>0xc0, <i8>0xc0, <i8>0xc0, <i8>0xc0, <i8>0xbf)
    : i8x16(0, 0x3c, 0x3d, 0x3d, 0x3e, 0x3e, 0x3f, 0x3f, 0, <i8>0xbc, <i8>0xbd, <i8>0xbd, <i8>0xbe, <i8>0xbe, <i8>0xbf, <i8>0xbf);
  const low = kind == INT4
    ? i8x16(0, <i8>0x80, 0, 0x40, <i8>0x80, <i8>0xa0, <i8>0xc0, <i8>0xe0, 0, <i8>0xe0, <i8>0xc0, <i8>0xa0, <i8>0x80, 0x40, 0, <i8>0x80)
    : i8x16(0, <i8>0x80, 0, <i8>0x80, 0, <i8>0x80, 0, <i8>0x80, 0, <i8>0x80, 0, <i8>0x80, 0, <i8>0x80, 0, <i8>0x80);
  const h = i8x16.swizzle(high, nibbles);
  const l = i8x16.swizzle(low, nibbles);
  const first = i8x16.shuffle(l, h, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  const second = i8x16.shuffle(l, h, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
  const zero = i32x4.splat(0);
  v128.store(to, f32x4.mul(i8x16.shuffle(zero, first, 0, 1, 16, 17, 2, 3, 18, 19, 4, 5, 20, 21, 6, 7, 22, 23), scale));
  v128.store(to, f32x4.mul(i8x16.shuffle(zero, first, 8, 9, 24, 25, 10, 11, 26, 27, 12, 13, 28, 29, 14, 15, 30, 31), scale), 16);
  v128.store(to, f32x4.mul(i8x16.shuffle(zero, second, 0, 1, 16, 17, 2, 3, 18, 19, 4, 5, 20, 21, 6, 7, 22, 23), scale), 32);
  v128.store(to, f32x4.mul(i8x16.shuffle(zero, second, 8, 9, 24, 25, 10, 11, 26, 27, 12, 13, 28, 29, 14, 15, 30, 31), scale), 48);
}

/** Wire bytes of sixteen values. */
// @ts-ignore: decorator
@inline function loadCodes(kind: i32, to: usize, from: usize, scale: v128): void {
  if (kind == INT8) {
    const bytes = v128.load(from);
    widen(to, i16x8.extend_low_i8x16_s(bytes), scale);
    widen(to + 32, i16x8.extend_high_i8x16_s(bytes), scale);
  } else {
    const bytes = v128.load64_zero(from);
    const even = v128.and(bytes, i8x16.splat(15));
    const odd = i8x16.shr_u(bytes, 4);
    widenNibbles(kind, to, i8x16.shuffle(even, odd, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23), scale);
  }
}

// @ts-ignore: decorator
@inline function decode(kind: i32, d: usize, s: usize, n: usize): void {
  const block = blockOf(kind);
  for (let first: usize = 0; first < n; first += block) {
    const count = min<usize>(block, n - first);
    const scale = reinterpret<f32>(<u32>load<u16>(s) << 16);
    s += 2;
    decodeBlock(kind, d + first * 4, s, count, scale);
    s += codeBytes(kind, count);
  }
}

// @ts-ignore: decorator
@inline function decodeBlock(kind: i32, d: usize, s: usize, n: usize, scale: f32): void {
  const lanes = f32x4.splat(scale);
  if (scale != scale) {
    for (let i: usize = 0; i < n; i++) store<u32>(d + i * 4, NAN_BITS);
  } else if (n == blockOf(kind)) {
    loadCodes(kind, d, s, lanes);
    loadCodes(kind, d + 64, s + codeBytes(kind, 16), lanes);
    loadCodes(kind, d + 128, s + codeBytes(kind, 32), lanes);
    if (blockOf(kind) == 64) loadCodes(kind, d + 192, s + codeBytes(kind, 48), lanes);
  } else {
    memory.copy(PADDED_CODES, s, codeBytes(kind, n));
    for (let i: usize = 0; i < n; i += STEP) loadCodes(kind, PADDED + i * 4, PADDED_CODES + codeBytes(kind, i), lanes);
    memory.copy(d, PADDED, n * 4);
  }
}

export function int8_decode(d: usize, s: usize, n: usize): void { decode(INT8, d, s, n); }
export function int4_decode(d: usize, s: usize, n: usize): void { decode(INT4, d, s, n); }
export function e3m0_decode(d: usize, s: usize, n: usize): void { decode(E3M0, d, s, n); }

// --- what an encoding dropped -------------------------------------------------------------------------------------------

/** `to[i] = (value[i] − decoded[i]) · factor`, 0 where that is no number: what is lost for good must not come back as a NaN. */
export function f32_dropped(to: usize, value: usize, decoded: usize, n: usize, factor: f32): void {
  const factors = f32x4.splat(factor);
  const whole = n & ~(<usize>3);
  let i: usize = 0;
  for (; i < whole; i += 4) {
    const at = i * 4;
    const lost = f32x4.mul(f32x4.sub(v128.load(value + at), v128.load(decoded + at)), factors);
    const finite = i32x4.lt_s(v128.and(lost, i32x4.splat(<i32>MAGNITUDE)), i32x4.splat(<i32>INFINITY_BITS));
    v128.store(to + at, v128.and(lost, finite));
  }
  for (; i < n; i++) {
    const at = i * 4;
    const lost = (load<f32>(value + at) - load<f32>(decoded + at)) * factor;
    store<f32>(to + at, (reinterpret<u32>(lost) & MAGNITUDE) < INFINITY_BITS ? lost : 0);
  }
}

/** Sum of squares. */
export function f32_energy(at: usize, n: usize): f64 {
  const whole = n & ~(<usize>3);
  let a = f64x2.splat(0);
  let b = a;
  let i: usize = 0;
  for (; i < whole; i += 4) {
    const x = v128.load(at + i * 4);
    const low = f64x2.promote_low_f32x4(x);
    const high = f64x2.promote_low_f32x4(i8x16.shuffle(x, x, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7));
    a = f64x2.add(a, f64x2.mul(low, low));
    b = f64x2.add(b, f64x2.mul(high, high));
  }
  a = f64x2.add(a, b);
  let sum = f64x2.extract_lane(a, 0) + f64x2.extract_lane(a, 1);
  for (; i < n; i++) {
    const value = <f64>load<f32>(at + i * 4);
    sum += value * value;
  }
  return sum;
}
