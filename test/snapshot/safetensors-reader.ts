/**
 * A reader of safetensors by the published specification, which shares nothing with the product. It is as strict as that: no
 * duplicate keys, no gaps, nothing behind the last tensor.
 */
interface ReadTensor {
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly data: Buffer;
}

export interface ReadFile {
  readonly metadata: Readonly<Record<string, string>>;
  readonly tensors: ReadonlyMap<string, ReadTensor>;
}

const BITS: Readonly<Record<string, number>> = {
  ...{ BOOL: 8, U8: 8, I8: 8, F16: 16, BF16: 16, I16: 16, U16: 16 },
  ...{ F32: 32, I32: 32, U32: 32, F64: 64, I64: 64, U64: 64 },
};

function refuse(reason: string): never {
  throw new Error(`no safetensors: ${reason}`);
}

/** JSON.parse keeps the last of several equal keys; the specification forbids them. */
function checkKeys(text: string, expected: number): void {
  const offsets = text.match(/"data_offsets"/g)?.length ?? 0;
  if (offsets !== expected) refuse(`${offsets} tensors are described, under ${expected} names`);
}

export function readSafetensors(file: Buffer): ReadFile {
  if (file.length < 8) refuse('shorter than 8 bytes');
  const headerBytes = Number(file.readBigUInt64LE(0));
  if (headerBytes > 100_000_000 || 8 + headerBytes > file.length) refuse(`a header of ${headerBytes} bytes`);
  const text = file.toString('utf8', 8, 8 + headerBytes);
  if (!text.startsWith('{')) refuse('the header does not begin with {');
  if (!/\} *$/.test(text)) refuse('the header is padded with something else than spaces');
  const header = JSON.parse(text) as Record<string, unknown>;
  const { __metadata__: metadata = {}, ...described } = header;
  if (!Object.values(metadata as object).every((value) => typeof value === 'string')) refuse('metadata are not texts');
  checkKeys(text, Object.keys(described).length);
  const data = file.subarray(8 + headerBytes);
  const tensors = new Map<string, ReadTensor>();
  const spans: [number, number][] = [];
  for (const [name, value] of Object.entries(described)) {
    const { dtype, shape, data_offsets } = value as { dtype: string; shape: number[]; data_offsets: [number, number] };
    const [begin, end] = data_offsets;
    const bits = BITS[dtype] ?? refuse(`dtype ${dtype}`);
    const elements = shape.reduce((product, one) => product * one, 1);
    if ((end - begin) * 8 !== elements * bits) refuse(`${name} has ${end - begin} bytes for ${elements} of ${dtype}`);
    spans.push([begin, end]);
    tensors.set(name, { dtype, shape, data: data.subarray(begin, end) });
  }
  spans.sort(([left, leftEnd], [right, rightEnd]) => left - right || leftEnd - rightEnd);
  let at = 0;
  for (const [begin, end] of spans) {
    if (begin !== at) refuse(`a gap or an overlap at ${at}`);
    at = end;
  }
  if (at !== data.length) refuse(`${data.length - at} bytes behind the last tensor`);
  return { metadata: metadata as Record<string, string>, tensors };
}
