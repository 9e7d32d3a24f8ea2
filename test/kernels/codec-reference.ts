/** What the block codecs must do, written from their definition: one element at a time, with JavaScript's own arithmetic. */

export type BlockCodec = 'int8' | 'int4' | 'e3m0';

interface Definition {
  readonly block: number;
  /** Magnitude of the largest code, to the nearest and by chance. */
  readonly levels: number;
  readonly chanceLevels: number;
  readonly leastScale: number;
  readonly bitsPerValue: number;
}

const DEFINITIONS: Readonly<Record<BlockCodec, Definition>> = {
  int8: { block: 64, levels: 127, chanceLevels: 127, leastScale: 2 ** -126, bitsPerValue: 8 },
  int4: { block: 48, levels: 8, chanceLevels: 7, leastScale: 2 ** -126, bitsPerValue: 4 },
  e3m0: { block: 64, levels: 1, chanceLevels: 1, leastScale: 2 ** -120, bitsPerValue: 4 },
};

const LARGEST_F32 = (2 - 2 ** -23) * 2 ** 127;

function floatBits(value: number): number {
  return new Uint32Array(Float32Array.of(value).buffer)[0]!;
}

/** NaN when the block holds what is not finite. */
function scaleOf(codec: BlockCodec, block: readonly number[], isByChance: boolean): number {
  const { levels, chanceLevels, leastScale } = DEFINITIONS[codec];
  if (!block.every(Number.isFinite)) return Number.NaN;
  const most = Math.max(0, ...block);
  const largest = Math.max(most, -Math.min(0, ...block));
  const divisor = isByChance ? chanceLevels : levels;
  const exact = Math.fround(largest / divisor);
  // A bf16 has 8 significant bits.
  const unit = 2 ** (Math.floor(Math.log2(exact)) - 7);
  const scale = nearest(exact / unit) * unit;
  if (!(scale > leastScale)) return leastScale;
  const fitting = scale * divisor <= LARGEST_F32 ? scale : scale - unit;
  return codec === 'int4' && !isByChance && most === largest ? -fitting : fitting;
}

/** Ties to even. */
function nearest(value: number): number {
  const below = Math.floor(value);
  const rest = value - below;
  return rest > 0.5 || (rest === 0.5 && below % 2 !== 0) ? below + 1 : below;
}

/** Codes 1 to 7 stand for 2^-6 to 1; ties go away from zero. */
function nearestPower(share: number): number {
  if (share < 2 ** -7) return 0;
  let code = 1;
  while (code < 7 && share >= 1.5 * 2 ** (code - 7)) code += 1;
  return code;
}

function hash(seed: number, index: number): number {
  let x = (Math.imul(index, 0x9e3779b9) + seed) | 0;
  x = Math.imul(x ^ (x >>> 16), 0x7feb352d);
  x = Math.imul(x ^ (x >>> 15), 0x846ca68b);
  return (x ^ (x >>> 16)) >>> 0;
}

function byChance(codec: BlockCodec, value: number, scale: number, random: number): number {
  const { chanceLevels: levels } = DEFINITIONS[codec];
  const quotient = Math.fround(value / scale);
  const isLargest = Math.abs(quotient) >= (levels * 255) / 256;
  const exact = isLargest ? Math.sign(quotient) * levels : quotient;
  const uniform = Math.floor(random / 256) / 2 ** 24;
  if (codec !== 'e3m0') {
    const below = Math.floor(exact);
    return uniform < Math.fround(exact - below) ? below + 1 : below;
  }
  const share = Math.abs(exact);
  if (share < 2 ** -6) return uniform < share * 64 ? 1 : 0;
  const power = Math.min(6, Math.floor(Math.log2(share)) + 6);
  const low = 2 ** (power - 6);
  const up = (share - low) / low > 1 - (Math.floor(random / 512) + 1) / 2 ** 23;
  return Math.min(7, power + 1 + (up ? 1 : 0));
}

/** `chance`: rounds up or down by it; without, to the nearest. */
function codeOf(
  codec: BlockCodec,
  value: number,
  scale: number,
  chance: { readonly seed: number; readonly index: number } | null,
): number {
  if (Number.isNaN(scale)) return 0;
  const isNegative = value < 0;
  if (chance !== null) {
    const code = byChance(codec, value, scale, hash(chance.seed, chance.index));
    return codec === 'e3m0' && code > 0 && isNegative ? code + 8 : code;
  }
  const inverse = Math.fround(1 / scale);
  if (codec !== 'e3m0') return Math.min(codec === 'int4' ? 7 : 127, nearest(Math.fround(value * inverse)));
  const code = nearestPower(Math.fround(Math.abs(value) * inverse));
  return code > 0 && isNegative ? code + 8 : code;
}

export function encodeByDefinition(
  codec: BlockCodec,
  values: readonly number[],
  chance: { readonly seed: number; readonly index: number } | null = null,
): Uint8Array {
  const { block, bitsPerValue } = DEFINITIONS[codec];
  const bytes: number[] = [];
  for (let start = 0; start < values.length; start += block) {
    const part = values.slice(start, start + block);
    const scale = scaleOf(codec, part, chance !== null);
    const bits = Number.isNaN(scale) ? 0x7fc00000 : floatBits(scale);
    bytes.push((bits >>> 16) & 255, bits >>> 24);
    const codes = part.map((value, index) => {
      const at = chance === null ? null : { seed: chance.seed, index: chance.index + start + index };
      return codeOf(codec, value, scale, at);
    });
    if (bitsPerValue === 8) bytes.push(...codes.map((code) => code & 255));
    else for (let i = 0; i < codes.length; i += 2) bytes.push((codes[i]! & 15) | (((codes[i + 1] ?? 0) & 15) << 4));
  }
  return Uint8Array.from(bytes);
}

function valueBehind(codec: BlockCodec, code: number): number {
  if (codec === 'int8') return (code << 24) >> 24;
  if (codec === 'int4') return (code << 28) >> 28;
  const power = code & 7;
  return power === 0 ? 0 : (code & 8 ? -1 : 1) * 2 ** (power - 7);
}

export function decodeByDefinition(codec: BlockCodec, bytes: Uint8Array, count: number): number[] {
  const { block, bitsPerValue } = DEFINITIONS[codec];
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const values: number[] = [];
  let at = 0;
  for (let start = 0; start < count; start += block) {
    const length = Math.min(block, count - start);
    const pattern = view.getUint16(at, true) << 16;
    const scale = new Float32Array(Uint32Array.of(pattern).buffer)[0]!;
    at += 2;
    for (let index = 0; index < length; index++) {
      const code = bitsPerValue === 8 ? bytes[at + index]! : (bytes[at + (index >> 1)]! >> (4 * (index & 1))) & 15;
      values.push(valueBehind(codec, code) * scale);
    }
    at += Math.ceil((length * bitsPerValue) / 8);
  }
  return values;
}
