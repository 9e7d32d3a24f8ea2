// Robust averages, column by column, of rows that each hold one contribution:
//
//     row 0   ┌ x x x x x … ┐ `stride` bytes, a multiple of 64
//     row 1   │ x x x x x … │
//     …       └             ┘
//
// 64 bytes of columns are taken at a time. What is not finite becomes +infinity, and the columns are sorted in place, by Batcher's
// merge exchange (Knuth, The Art of Computer Programming, volume 3, 5.2.2, algorithm M): which rows are compared does not depend on
// the values, so a vector of columns is sorted as fast as one. Then the finite values of a column are its first ones, in order,
// whatever the order of the rows was. They are added in f64.
// (`@inline` stands before functions in AssemblyScript, but not in TypeScript: the ts-ignore lines are for editors.)

const MEDIAN = 0;
const TRIMMED_MEAN = 1;
const CENTERED_CLIP = 2;

const GROUP_BYTES: usize = 64;

// --- sorting ----------------------------------------------------------------------------------------------------------

// @ts-ignore: decorator
@inline function finiteOr16<T>(at: usize): void {
  const x = v128.load(at);
  // The difference is NaN where x is infinite, or NaN itself.
  const isFinite = v128.eq<T>(v128.sub<T>(x, x), v128.splat<T>(0));
  v128.store(at, v128.bitselect(x, v128.splat<T>(<T>Infinity), isFinite));
}

/** Puts the smaller values into `low`, the larger into `high`: both are kept where they are equal, so that no zero loses its sign. */
// @ts-ignore: decorator
@inline function exchange16<T>(low: usize, high: usize): void {
  const a = v128.load(low);
  const b = v128.load(high);
  v128.store(low, v128.pmin<T>(a, b));
  v128.store(high, v128.pmax<T>(b, a));
}

// @ts-ignore: decorator
@inline function exchange<T>(low: usize, high: usize): void {
  exchange16<T>(low, high);
  exchange16<T>(low + 16, high + 16);
  exchange16<T>(low + 32, high + 32);
  exchange16<T>(low + 48, high + 48);
}

// @ts-ignore: decorator
@inline function sort<T>(at: usize, stride: usize, rows: usize): void {
  for (let row: usize = 0; row < rows; row++) {
    const values = at + row * stride;
    finiteOr16<T>(values);
    finiteOr16<T>(values + 16);
    finiteOr16<T>(values + 32);
    finiteOr16<T>(values + 48);
  }
  let top: usize = 1;
  while (top * 2 < rows) top <<= 1;
  for (let p = top; p > 0; p >>>= 1) {
    let q = top;
    let r: usize = 0;
    let d = p;
    while (true) {
      for (let row: usize = 0; row + d < rows; row++) {
        if ((row & p) == r) exchange<T>(at + row * stride, at + (row + d) * stride);
      }
      if (q == p) break;
      d = q - p;
      q >>>= 1;
      r = p;
    }
  }
}

// --- averages of a sorted column ----------------------------------------------------------------------------------------

/** How many values are finite: those are first. */
// @ts-ignore: decorator
@inline function finiteIn<T>(at: usize, stride: usize, rows: usize): usize {
  let count = rows;
  while (count > 0 && load<T>(at + (count - 1) * stride) == <T>Infinity) count--;
  return count;
}

// @ts-ignore: decorator
@inline function medianOf<T>(at: usize, stride: usize, count: usize): T {
  const low = load<T>(at + ((count - 1) >>> 1) * stride);
  if ((count & 1) == 1) return low;
  const high = load<T>(at + (count >>> 1) * stride);
  // Half the sum loses nothing where the sum is small; the sum of halves does not overflow.
  const sum: T = (low + high) as T;
  const half: T = <T>0.5;
  return (sum - sum == 0 ? sum * half : low * half + high * half) as T;
}

/** As of a vector, which takes two instructions: WASM's own minimum heeds NaNs, of which there are none here, and a choice would branch. */
// @ts-ignore: decorator
@inline function clamp(value: f64, low: f64, high: f64): f64 {
  const raised = f64x2.pmax(f64x2.splat(low), f64x2.splat(value));
  return f64x2.extract_lane(f64x2.pmin(f64x2.splat(high), raised), 0);
}

/** Between the lowest and the highest value that it is made of, however their sum was rounded. */
// @ts-ignore: decorator
@inline function within<T>(value: f64, at: usize, stride: usize, first: usize, last: usize): T {
  return <T>clamp(value, <f64>load<T>(at + first * stride), <f64>load<T>(at + last * stride));
}

// @ts-ignore: decorator
@inline function trimmedMeanOf<T>(at: usize, stride: usize, count: usize, cut: usize): T {
  const first = min<usize>(cut, (count - 1) >>> 1);
  const end = count - first;
  let sum: f64 = 0;
  for (let row = first; row < end; row++) sum += <f64>load<T>(at + row * stride);
  return within<T>(sum / <f64>(end - first), at, stride, first, end - 1);
}

// @ts-ignore: decorator
@inline function centeredClipOf<T>(at: usize, stride: usize, count: usize, radius: f64): T {
  const centre = <f64>medianOf<T>(at, stride, count);
  let sum: f64 = 0;
  for (let row: usize = 0; row < count; row++) {
    sum += clamp(<f64>load<T>(at + row * stride) - centre, -radius, radius);
  }
  return within<T>(centre + sum / <f64>count, at, stride, 0, count - 1);
}

// @ts-ignore: decorator
@inline function average<T>(kind: i32, dst: usize, rows: usize, stride: usize, n: usize, count: usize, parameter: f64): void {
  const group = GROUP_BYTES / sizeof<T>();
  for (let first: usize = 0; first < count; first += group) {
    sort<T>(rows + first * sizeof<T>(), stride, n);
    const end = min<usize>(first + group, count);
    for (let column = first; column < end; column++) {
      const at = rows + column * sizeof<T>();
      const finite = finiteIn<T>(at, stride, n);
      let value: T = <T>NaN;
      if (finite > 0) {
        if (kind == MEDIAN) value = medianOf<T>(at, stride, finite);
        else if (kind == TRIMMED_MEAN) value = trimmedMeanOf<T>(at, stride, finite, <usize>parameter);
        else value = centeredClipOf<T>(at, stride, finite, parameter);
      }
      store<T>(dst + column * sizeof<T>(), value);
    }
  }
}

export function f32_median(d: usize, r: usize, s: usize, n: usize, count: usize, p: f64): void { average<f32>(MEDIAN, d, r, s, n, count, p); }
export function f64_median(d: usize, r: usize, s: usize, n: usize, count: usize, p: f64): void { average<f64>(MEDIAN, d, r, s, n, count, p); }
export function f32_trimmed_mean(d: usize, r: usize, s: usize, n: usize, count: usize, p: f64): void { average<f32>(TRIMMED_MEAN, d, r, s, n, count, p); }
export function f64_trimmed_mean(d: usize, r: usize, s: usize, n: usize, count: usize, p: f64): void { average<f64>(TRIMMED_MEAN, d, r, s, n, count, p); }
export function f32_centered_clip(d: usize, r: usize, s: usize, n: usize, count: usize, p: f64): void { average<f32>(CENTERED_CLIP, d, r, s, n, count, p); }
export function f64_centered_clip(d: usize, r: usize, s: usize, n: usize, count: usize, p: f64): void { average<f64>(CENTERED_CLIP, d, r, s, n, count, p); }
