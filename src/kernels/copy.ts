/**
 * Copies at the speed of memory. `TypedArray.prototype.set` goes word by word as soon as either side is a SharedArrayBuffer, since
 * others may watch; Node's `Buffer.prototype.fill`, given a source as long as what it fills, is one `memcpy`: within the cache some
 * five times as fast (`npm run bench:kernels`), and still faster where memory is the limit.
 */

type Fill = (this: Uint8Array, source: Uint8Array, from: number, to: number) => unknown;

interface Host {
  readonly process?: { readonly versions?: { readonly node?: string } };
  readonly Buffer?: { readonly prototype: { readonly fill: Fill } };
}

const host = globalThis as Host; // Node or a browser, of which only Node has these

/** Absent elsewhere than in Node: a polyfill of it would be slower than `set`. */
const fill: Fill | undefined = host.process?.versions?.node === undefined ? undefined : host.Buffer?.prototype.fill;

/** Below this the two are equally fast. */
const WORTHWHILE_BYTES = 4 * 1024;

/** Copies all of `source` to `target[at..]`. They must not overlap. */
export function copyBytes(target: Uint8Array, source: Uint8Array, at: number): void {
  if (fill === undefined || source.length < WORTHWHILE_BYTES) target.set(source, at);
  else fill.call(target, source, at, at + source.length);
}
