// The codec `topk`: of every 4,096 elements the 64 of largest magnitude (of a short last block, one in 64), each with a place of
// 12 bits, its sign, and one of two levels. A block on the wire:
//
//     ┌ high level: bf16 ┬ low level: bf16 ┬ 64 × 2 bits: sign, level ┬ 64 × 12 bits: place ┐ 116 bytes
//
// A level is the mean of the magnitudes nearer to the largest that is kept than to the smallest, or of the others. Blocks with
// fewer non-zero elements name the last of them again. A NaN as level says that the block held a NaN or an infinity.

const BLOCK: usize = 4096;
const KEPT_OF: usize = 64;
const NAN_BITS: u32 = 0x7fc00000;
const INFINITY_BITS: u32 = 0x7f800000;
const MAGNITUDE: u32 = 0x7fffffff;
const LARGEST_BF16: u32 = 0x7f7f;

/** Magnitudes have 31 bits: looked at 11, then 10, then 10 at a time. */
const HISTOGRAM = memory.data(2048 * 4, 16);
const PLACES = memory.data(64 * 2, 16);

// @ts-ignore: decorator
@inline function bitsAt(s: usize, i: usize): u32 { return load<u32>(s + i * 4) & MAGNITUDE; }

/** The bucket that holds the `wanted`-th largest of those whose higher bits are `prefix`; how many are above it is taken off. */
let rank: u32 = 0;
function bucketOf(s: usize, n: usize, shift: u32, width: u32, prefix: u32): u32 {
  const mask: u32 = (1 << width) - 1;
  memory.fill(HISTOGRAM, 0, (<usize>1 << width) * 4);
  for (let i: usize = 0; i < n; i++) {
    const bits = bitsAt(s, i);
    if (bits >>> (shift + width) != prefix) continue;
    const slot = HISTOGRAM + <usize>((bits >>> shift) & mask) * 4;
    store<u32>(slot, load<u32>(slot) + 1);
  }
  let bucket = mask;
  for (;;) {
    const held = load<u32>(HISTOGRAM + <usize>bucket * 4);
    if (held >= rank || bucket == 0) break;
    rank -= held;
    bucket -= 1;
  }
  return bucket;
}

/** The magnitude of which `kept` elements are no smaller; `rank` is then how many of those that equal it are among them. */
function threshold(s: usize, n: usize, kept: u32): u32 {
  rank = kept;
  const first = bucketOf(s, n, 20, 11, 0);
  const second = (first << 10) | bucketOf(s, n, 10, 10, first);
  return (second << 10) | bucketOf(s, n, 0, 10, second);
}

// @ts-ignore: decorator
@inline function toBf16(value: f64): u32 {
  const bits = reinterpret<u32>(<f32>value);
  return min<u32>((bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16, LARGEST_BF16);
}

/** Notes the places of the elements to keep, none of them zero; how many there are. */
function select(s: usize, n: usize, kept: u32): u32 {
  const least = threshold(s, n, kept);
  let count: u32 = 0;
  for (let i: usize = 0; i < n; i++) {
    const bits = bitsAt(s, i);
    if (bits < least || bits == 0) continue;
    if (bits == least) {
      if (rank == 0) continue;
      rank -= 1;
    }
    store<u16>(PLACES + <usize>count * 2, <u16>i);
    count += 1;
  }
  return count;
}

function encodeBlock(d: usize, s: usize, n: usize, kept: u32): void {
  const codes = d + 4;
  const places = codes + ((kept + 3) >>> 2);
  memory.fill(d, 0, 4 + ((kept + 3) >>> 2) + ((kept * 12 + 7) >>> 3));
  const count = select(s, n, kept);
  if (count == 0) return;
  let most: u32 = 0;
  let least: u32 = INFINITY_BITS;
  for (let j: u32 = 0; j < count; j++) {
    const bits = bitsAt(s, load<u16>(PLACES + <usize>j * 2));
    most = max<u32>(most, bits);
    least = min<u32>(least, bits);
  }
  if (most >= INFINITY_BITS) {
    store<u16>(d, <u16>(NAN_BITS >>> 16));
    store<u16>(d + 2, <u16>(NAN_BITS >>> 16));
    return;
  }
  const middle = <f64>reinterpret<f32>(most) * 0.5 + <f64>reinterpret<f32>(least) * 0.5;
  let high: f64 = 0;
  let low: f64 = 0;
  let highs: f64 = 0;
  for (let j: u32 = 0; j < kept; j++) {
    const place = <u32>load<u16>(PLACES + <usize>min<u32>(j, count - 1) * 2);
    const magnitude = <f64>reinterpret<f32>(bitsAt(s, place));
    const isHigh = magnitude >= middle;
    if (j < count) {
      if (isHigh) {
        high += magnitude;
        highs += 1;
      } else {
        low += magnitude;
      }
    }
    const code = (load<u32>(s + <usize>place * 4) >>> 31) | (isHigh ? 2 : 0);
    const codeAt = codes + (j >>> 2);
    store<u8>(codeAt, <u8>(load<u8>(codeAt) | (code << ((j & 3) * 2))));
    const placeAt = places + ((j * 12) >>> 3);
    if ((j & 1) == 0) {
      store<u8>(placeAt, <u8>place);
      store<u8>(placeAt + 1, <u8>(place >>> 8));
    } else {
      store<u8>(placeAt, <u8>(load<u8>(placeAt) | (place << 4)));
      store<u8>(placeAt + 1, <u8>(place >>> 4));
    }
  }
  store<u16>(d, <u16>toBf16(high / highs));
  const lows = <f64>count - highs;
  store<u16>(d + 2, <u16>(lows == 0 ? 0 : toBf16(low / lows)));
}

// @ts-ignore: decorator
@inline function keptOf(count: usize): u32 { return <u32>((count + KEPT_OF - 1) / KEPT_OF); }

// @ts-ignore: decorator
@inline function blockBytes(kept: u32): usize { return 4 + ((kept + 3) >>> 2) + ((kept * 12 + 7) >>> 3); }

export function topk_encode(d: usize, s: usize, n: usize): void {
  for (let done: usize = 0; done < n; done += BLOCK) {
    const count = min<usize>(BLOCK, n - done);
    const kept = keptOf(count);
    encodeBlock(d, s + done * 4, count, kept);
    d += blockBytes(kept);
  }
}

export function topk_decode(d: usize, s: usize, n: usize): void {
  for (let done: usize = 0; done < n; done += BLOCK) {
    const count = min<usize>(BLOCK, n - done);
    const kept = keptOf(count);
    const to = d + done * 4;
    const high = <u32>load<u16>(s) << 16;
    const low = <u32>load<u16>(s, 2) << 16;
    if ((high & MAGNITUDE) > INFINITY_BITS) {
      for (let i: usize = 0; i < count; i++) store<u32>(to + i * 4, NAN_BITS);
    } else {
      memory.fill(to, 0, count * 4);
      const codes = s + 4;
      const places = codes + ((kept + 3) >>> 2);
      for (let j: u32 = 0; j < kept; j++) {
        const code = (<u32>load<u8>(codes + (j >>> 2)) >>> ((j & 3) * 2)) & 3;
        const placeAt = places + ((j * 12) >>> 3);
        const first = <u32>load<u8>(placeAt);
        const second = <u32>load<u8>(placeAt + 1);
        const place = (j & 1) == 0 ? first | ((second & 15) << 8) : (first >>> 4) | (second << 4);
        // A place beyond a short block can only come from a peer that breaks the rules: it must not write there.
        if (<usize>place < count) store<u32>(to + <usize>place * 4, ((code & 2) != 0 ? high : low) | ((code & 1) << 31));
      }
    }
    s += blockBytes(kept);
  }
}
