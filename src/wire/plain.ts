/**
 * A look at msgpack before anything is built from it. Messages here are plain: numbers, strings, bytes, arrays and maps. The
 * extensions of the library (references between values, bundled strings, records, sets, errors) are refused: a few hundred
 * bytes of them can unfold to gigabytes. So are more values, and deeper ones, than any message has. One pass, no memory.
 */
import { MAX_CONTROL_DEPTH, MAX_CONTROL_VALUES } from './limits.ts';

const ARRAY_16 = 0xdc;
const MAP_16 = 0xde;

/** Bytes after the token of what has a fixed length; −1: what is not plain, or not of a fixed length. */
function fixedLength(token: number): number {
  if (token < 0x80 || token >= 0xe0) return 0; // small integers
  switch (token) {
    case 0xc0: // nil
    case 0xc2: // false
    case 0xc3: // true
      return 0;
    case 0xcc: // uint 8, int 8
    case 0xd0:
      return 1;
    case 0xcd: // uint 16, int 16
    case 0xd1:
      return 2;
    case 0xca: // float 32, uint 32, int 32
    case 0xce:
    case 0xd2:
      return 4;
    case 0xcb: // float 64, uint 64, int 64
    case 0xcf:
    case 0xd3:
      return 8;
    default:
      return -1;
  }
}

/** How many bytes tell the length of a string or of bytes; 0: it is neither. */
function lengthBytes(token: number): number {
  if (token === 0xc4 || token === 0xd9) return 1;
  if (token === 0xc5 || token === 0xda) return 2;
  return token === 0xc6 || token === 0xdb ? 4 : 0;
}

/** What is wrong with a body that should be one plain value, or null. */
export function checkPlain(body: Uint8Array): string | null {
  const view = new DataView(body.buffer, body.byteOffset, body.byteLength);
  const end = body.length;
  /** Values still to come at each depth. */
  const open: number[] = [1];
  let at = 0;
  let values = 0;
  for (let depth = 0; depth >= 0; ) {
    if (open[depth] === 0) {
      depth -= 1;
      continue;
    }
    open[depth]! -= 1;
    if (at >= end) return 'it ends early';
    const token = body[at++]!;
    let inside = -1;
    let skip = fixedLength(token);
    if (skip < 0) {
      if (token < 0x90) inside = 2 * (token & 0x0f);
      else if (token < 0xa0) inside = token & 0x0f;
      else if (token < 0xc0) skip = token & 0x1f;
      else {
        const isContainer = token >= ARRAY_16;
        const width = isContainer ? 2 << (token & 1) : lengthBytes(token);
        if (width === 0) return `token ${token} has no meaning here`;
        if (end - at < width) return 'it ends early';
        const length = width === 1 ? body[at]! : width === 2 ? view.getUint16(at) : view.getUint32(at);
        at += width;
        if (isContainer) inside = token >= MAP_16 ? 2 * length : length;
        else skip = length;
      }
    }
    if (inside >= 0) {
      values += inside;
      if (values > MAX_CONTROL_VALUES) return `it has more than ${MAX_CONTROL_VALUES} values`;
      depth += 1;
      if (depth > MAX_CONTROL_DEPTH) return `it is more than ${MAX_CONTROL_DEPTH} deep`;
      open[depth] = inside;
    } else {
      if (skip > end - at) return 'it ends early';
      at += skip;
    }
  }
  return at === end ? null : 'there are bytes after it';
}
