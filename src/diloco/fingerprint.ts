/** A hash of the bits of arrays that fits a JavaScript number: 53 bits, enough to see that peers differ, no protection against malice. */

/** Odd constants with well-spread bits (from the golden ratio, and from MurmurHash3's finaliser). */
const LOW = 0x9e3779b1;
const HIGH = 0x85ebca6b;

/** Equal bits in equal order give equal numbers: −0 differs from 0, and NaNs of other bits differ. */
export function fingerprint(arrays: readonly Float32Array[]): number {
  let low = 0x243f6a88;
  let high = 0x85a308d3;
  for (const { buffer, byteOffset, length } of arrays) {
    const words = new Uint32Array(buffer, byteOffset, length);
    for (let index = 0; index < length; index++) {
      low = Math.imul(low ^ words[index]!, LOW);
      high = Math.imul(high ^ words[index]!, HIGH);
      low ^= low >>> 15;
      high ^= high >>> 13;
    }
    low = Math.imul(low ^ length, HIGH);
    high = Math.imul(high ^ length, LOW);
    low ^= low >>> 16;
    high ^= high >>> 16;
  }
  return (high & 0x1fffff) * 2 ** 32 + (low >>> 0);
}
