/** Damage to bytes, as chance or malice would do it, and cuts of a stream. */
import { HEADER_BYTES } from '../../src/wire/frame.ts';
import { CONTROL_HEADER_BYTES } from '../../src/wire/messages.ts';
import type { Random } from '../sim/random.ts';
import { concat } from '../wire/cut.ts';

/** Numbers at which something ends, in 32 bits. */
const EDGES: readonly number[] = [
  0, 1, 2, 15, 16, 17, 255, 256, 2_047, 2_048, 2_049, 4_096, 4_097, 65_535, 65_536, 65_537, 1_048_576, 1_048_577,
  4_194_304, 4_194_305, 0x7fff_ffff, 0x8000_0000, 0xffff_fffe, 0xffff_ffff,
];

/** Tokens of msgpack that announce more than they are: containers, strings, bytes and extensions. */
const TOKENS: readonly number[] = [
  0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xc1, 0xc4, 0xc5, 0xc6, 0xc7, 0xc8, 0xc9, 0xca, 0xcb, 0xcf, 0xd3, 0xd4,
  0xd5, 0xd6, 0xd7, 0xd8, 0xd9, 0xda, 0xdb, 0xdc, 0xdd, 0xde, 0xdf,
];

type Damage = (bytes: Uint8Array, random: Random) => Uint8Array;

function slice(bytes: Uint8Array, random: Random): readonly [number, number] {
  const start = random.integer(0, bytes.length - 1);
  return [start, Math.min(bytes.length, start + random.integer(1, 48))];
}

function changed(bytes: Uint8Array, at: number, byte: number): Uint8Array {
  const copy = bytes.slice();
  copy[at] = byte;
  return copy;
}

const DAMAGE: readonly Damage[] = [
  (bytes, random) => {
    const at = random.integer(0, bytes.length - 1);
    return changed(bytes, at, bytes[at]! ^ (1 << random.integer(0, 7)));
  },
  (bytes, random) => changed(bytes, random.integer(0, bytes.length - 1), random.integer(0, 255)),
  (bytes, random) => changed(bytes, random.integer(0, bytes.length - 1), random.pick(TOKENS)),
  // Ends early.
  (bytes, random) => bytes.slice(0, random.integer(0, bytes.length - 1)),
  // A slice is missing, or there twice.
  (bytes, random) => {
    const [start, end] = slice(bytes, random);
    return concat([bytes.subarray(0, start), bytes.subarray(end)]);
  },
  (bytes, random) => {
    const [start, end] = slice(bytes, random);
    return concat([bytes.subarray(0, end), bytes.subarray(start)]);
  },
  (bytes, random) => {
    const [start] = slice(bytes, random);
    return concat([bytes.subarray(0, start), random.bytes(random.integer(1, 24)), bytes.subarray(start)]);
  },
];

/** A 32-bit field at a multiple of four gets another value; the field's first bytes are those of a header. */
function fieldChanged(bytes: Uint8Array, fields: number, random: Random): Uint8Array {
  const copy = bytes.slice();
  const view = new DataView(copy.buffer);
  const at = 4 * random.integer(0, fields - 1);
  if (at + 4 > copy.length) return copy;
  const near = view.getUint32(at, true) + random.integer(-2, 2);
  view.setUint32(at, random.chance(0.4) ? near >>> 0 : random.pick(EDGES), true);
  return copy;
}

/** Two fields of the header change places. */
function fieldsSwapped(bytes: Uint8Array, fields: number, random: Random): Uint8Array {
  const copy = bytes.slice();
  const [left, right] = [4 * random.integer(0, fields - 1), 4 * random.integer(0, fields - 1)];
  if (Math.max(left, right) + 4 > copy.length) return copy;
  copy.set(bytes.subarray(right, right + 4), left);
  copy.set(bytes.subarray(left, left + 4), right);
  return copy;
}

function damaged(bytes: Uint8Array, fields: number, random: Random): Uint8Array {
  let result = bytes;
  const times = random.chance(0.7) ? 1 : random.integer(2, 4);
  for (let time = 0; time < times && result.length > 0; time++) {
    const how = random.next();
    if (how < 0.35) result = fieldChanged(result, fields, random);
    else if (how < 0.45) result = fieldsSwapped(result, fields, random);
    else result = random.pick(DAMAGE)(result, random);
  }
  return result;
}

export function damagedFrame(frame: Uint8Array, random: Random): Uint8Array {
  return damaged(frame, HEADER_BYTES / 4, random);
}

/** Damage anywhere, or to the body alone with a length that fits it, so that the damage reaches the parser. */
export function damagedControl(message: Uint8Array, random: Random): Uint8Array {
  if (random.chance(0.4)) return damaged(message, CONTROL_HEADER_BYTES / 4, random);
  const body = random.pick(DAMAGE)(message.slice(CONTROL_HEADER_BYTES), random);
  const whole = concat([message.subarray(0, CONTROL_HEADER_BYTES), body]);
  new DataView(whole.buffer).setUint32(0, body.length, true);
  return whole;
}

/** Lengths of the pieces in which a stream arrives. */
export function cuts(random: Random): readonly number[] {
  const how = random.next();
  if (how < 0.5) return [Number.MAX_SAFE_INTEGER];
  if (how < 0.6) return [1];
  return Array.from({ length: random.integer(1, 6) }, () => random.integer(1, how < 0.8 ? 60 : 3_000));
}
