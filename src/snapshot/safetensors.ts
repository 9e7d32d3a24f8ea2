/**
 * The file format `safetensors` (github.com/huggingface/safetensors), of which each framework has a reader:
 *
 *     8 bytes   length of the header, little-endian
 *     header    JSON: {"__metadata__": {text: text}, "<name>": {"dtype", "shape", "data_offsets": [begin, end]}, …}, padded with spaces
 *     data      the tensors, little-endian, without gaps; offsets count from here
 *
 * This file is about bytes in memory only. Tensors are laid out by the size of their elements, largest first, and the header is
 * padded to a multiple of 8 bytes, so that each tensor is aligned in a file that is mapped to memory.
 */
import * as v from 'valibot';
import { DTYPE_BYTES, type Dtype } from '../tensor.ts';

/** What a file can hold of what Skein has. */
type StoredType = Dtype | 'bool';

export interface TensorShape {
  readonly name: string;
  readonly dtype: StoredType;
  /** Empty for a scalar. */
  readonly shape: readonly number[];
}

export interface PlacedTensor extends TensorShape {
  /** Bytes from the begin of the file. */
  readonly begin: number;
  readonly end: number;
}

export interface Layout {
  /** With the 8 bytes in front. */
  readonly header: Uint8Array;
  /** In the order in which they are in the file. */
  readonly tensors: readonly PlacedTensor[];
  readonly metadata: Readonly<Record<string, string>>;
  /** Of the whole file, in bytes. */
  readonly length: number;
}

/** In front of the header. */
export const LENGTH_BYTES = 8;
const ALIGNMENT = 8;
const METADATA = '__metadata__';

/** As other readers have it (bytes). */
const MAX_HEADER_BYTES = 100_000_000;

const NAMES: Readonly<Record<StoredType, string>> = {
  f32: 'F32',
  f64: 'F64',
  f16: 'F16',
  bf16: 'BF16',
  i8: 'I8',
  i16: 'I16',
  i32: 'I32',
  i64: 'I64',
  u8: 'U8',
  u16: 'U16',
  u32: 'U32',
  u64: 'U64',
  bool: 'BOOL',
};
const TYPES_BY_NAME: ReadonlyMap<string, StoredType> = new Map(
  Object.entries(NAMES).map(([dtype, name]) => [name, dtype as StoredType]), // its keys are these types
);

const size = v.pipe(v.number(), v.integer(), v.minValue(0));
const metadataSchema = v.record(v.string(), v.string());
const tensorSchema = v.object({
  dtype: v.string(),
  shape: v.array(size),
  data_offsets: v.strictTuple([size, size]),
});

/** The text is no file of this format, or damaged. */
export class FormatError extends Error {}

function elementBytes(dtype: StoredType): number {
  return dtype === 'bool' ? 1 : DTYPE_BYTES[dtype];
}

function bytesOf({ dtype, shape }: TensorShape): number {
  return shape.reduce((product, one) => product * one, 1) * elementBytes(dtype);
}

/** @throws FormatError for names that can't be in one file */
export function layOut(tensors: readonly TensorShape[], metadata: Readonly<Record<string, string>>): Layout {
  const ordered = tensors.toSorted(
    (left, right) => elementBytes(right.dtype) - elementBytes(left.dtype) || (left.name < right.name ? -1 : 1),
  );
  const names = new Set(ordered.map(({ name }) => name));
  if (names.size < ordered.length || names.has(METADATA))
    throw new FormatError(`names must be different from one another and from ${METADATA}`);
  let offset = 0;
  const lines: [string, object][] = ordered.map((tensor) => {
    const begin = offset;
    offset += bytesOf(tensor);
    const { name, dtype, shape } = tensor;
    return [name, { dtype: NAMES[dtype], shape, data_offsets: [begin, offset] }];
  });
  // Line by line: as keys of one object, names like '1' would change the order, and '__proto__' be lost.
  const members = [[METADATA, metadata] as const, ...lines].map(
    ([key, value]) => `${JSON.stringify(key)}:${JSON.stringify(value)}`,
  );
  const text = new TextEncoder().encode(`{${members.join(',')}}`);
  const padded = Math.ceil(text.length / ALIGNMENT) * ALIGNMENT;
  if (padded > MAX_HEADER_BYTES) throw new FormatError(`a header has at most ${MAX_HEADER_BYTES} bytes`);
  const header = new Uint8Array(LENGTH_BYTES + padded).fill(0x20);
  new DataView(header.buffer).setBigUint64(0, BigInt(padded), true);
  header.set(text, LENGTH_BYTES);
  return parseHeader(header, header.length + offset);
}

/** Bytes of the header with those in front, as these first 8 bytes say. @throws FormatError */
export function headerLength(first: Uint8Array): number {
  const length = new DataView(first.buffer, first.byteOffset, LENGTH_BYTES).getBigUint64(0, true);
  if (length > MAX_HEADER_BYTES) throw new FormatError(`its header would have ${length} bytes`);
  return LENGTH_BYTES + Number(length);
}

/**
 * @param header with the 8 bytes in front
 * @param length of the whole file
 * @throws FormatError where it is not what the format says; for dtypes that Skein has not
 */
export function parseHeader(header: Uint8Array, length: number): Layout {
  const text = new TextDecoder('utf-8', { fatal: true });
  let members: [string, unknown][];
  try {
    const parsed: unknown = JSON.parse(text.decode(header.subarray(LENGTH_BYTES)));
    members = Object.entries(v.parse(v.looseObject({}), parsed));
  } catch (error) {
    throw new FormatError(`its header is not readable (${(error as Error).message})`);
  }
  const metadata = v.safeParse(metadataSchema, members.find(([key]) => key === METADATA)?.[1] ?? {});
  if (!metadata.success) throw new FormatError(`${METADATA} is not of texts`);
  const tensors = members
    .filter(([key]) => key !== METADATA)
    .map(([name, value]) => readTensor(name, value, header.length))
    .sort((left, right) => left.begin - right.begin || left.end - right.end);
  let end = header.length;
  for (const tensor of tensors) {
    if (tensor.begin !== end)
      throw new FormatError(`${JSON.stringify(tensor.name)} does not begin where the one before ends`);
    end = tensor.end;
  }
  if (end !== length) throw new FormatError(`it has ${length} bytes, and its tensors end at ${end}`);
  return { header, tensors, metadata: metadata.output, length };
}

function readTensor(name: string, value: unknown, start: number): PlacedTensor {
  const parsed = v.safeParse(tensorSchema, value);
  if (!parsed.success) throw new FormatError(`${JSON.stringify(name)}: ${parsed.issues[0].message}`);
  const { dtype: dtypeName, shape, data_offsets } = parsed.output;
  const dtype = TYPES_BY_NAME.get(dtypeName);
  if (dtype === undefined) throw new FormatError(`${JSON.stringify(name)} is of ${dtypeName}`);
  const tensor = { name, dtype, shape, begin: start + data_offsets[0], end: start + data_offsets[1] };
  if (tensor.end - tensor.begin !== bytesOf(tensor))
    throw new FormatError(`${JSON.stringify(name)} has ${tensor.end - tensor.begin} bytes, not ${bytesOf(tensor)}`);
  return tensor;
}
