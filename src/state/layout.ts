/**
 * How shared state is laid out: named entries in the order of their names, each cut into pieces. Every peer makes the layout from
 * its own entries; what comes from outside is held against it.
 */
import { STATE_PIECE_BYTES } from '../wire/limits.ts';
import { toHex } from './digest.ts';
import type { Hasher } from './hash.ts';

/** What an entry is: a tensor of a dtype, or one value of JavaScript's. */
export type EntryType =
  | 'f32'
  | 'f64'
  | 'f16'
  | 'bf16'
  | 'i8'
  | 'i16'
  | 'i32'
  | 'i64'
  | 'u8'
  | 'u16'
  | 'u32'
  | 'u64'
  | 'number'
  | 'bigint'
  | 'boolean';

export interface EntryShape {
  readonly name: string;
  readonly type: EntryType;
  /** Length in bytes. */
  readonly bytes: number;
}

interface LayoutEntry extends EntryShape {
  /** Number of its first piece among all pieces of the state. */
  readonly firstPiece: number;
  readonly pieces: number;
}

export interface Layout {
  /** In the order of their names. */
  readonly entries: readonly LayoutEntry[];
  /** Length of all pieces but the last of each entry (bytes). */
  readonly pieceBytes: number;
  /** Of all entries. */
  readonly pieces: number;
  readonly bytes: number;
}

/** Where a piece is. */
export interface PiecePlace {
  /** Index of its entry. */
  readonly entry: number;
  /** First byte within the entry. */
  readonly start: number;
  readonly bytes: number;
}

export function layOut(shapes: readonly EntryShape[], pieceBytes: number = STATE_PIECE_BYTES): Layout {
  const sorted = [...shapes].sort((left, right) => (left.name < right.name ? -1 : 1));
  let firstPiece = 0;
  const entries = sorted.map(({ name, type, bytes }) => {
    const entry = { name, type, bytes, firstPiece, pieces: Math.ceil(bytes / pieceBytes) };
    firstPiece += entry.pieces;
    return entry;
  });
  const bytes = entries.reduce((sum, entry) => sum + entry.bytes, 0);
  return { entries, pieceBytes, pieces: firstPiece, bytes };
}

/** @param piece one of the layout's */
export function placeOf({ entries, pieceBytes }: Layout, piece: number): PiecePlace {
  let low = 0;
  let high = entries.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (entries[middle]!.firstPiece <= piece) low = middle;
    else high = middle - 1;
  }
  // Empty entries have no pieces, and the first piece of what follows them: it belongs to the last one.
  const { firstPiece, bytes } = entries[low]!;
  const start = (piece - firstPiece) * pieceBytes;
  return { entry: low, start, bytes: Math.min(pieceBytes, bytes - start) };
}

/** Of pieces side by side, together (bytes). */
export function bytesOfPieces(layout: Layout, first: number, count: number): number {
  let bytes = 0;
  for (let piece = first; piece < first + count; piece++) bytes += placeOf(layout, piece).bytes;
  return bytes;
}

/** What peers must have in common: names, types, lengths, and how they are cut. */
export function shapeHash({ entries, pieceBytes }: Layout, hasher: Hasher): Uint8Array {
  const text = JSON.stringify([pieceBytes, entries.map(({ name, type, bytes }) => [name, type, bytes])]);
  return hasher.of(text);
}

/** As peers that ask one another name a state: of another shape it has another name. */
export function wireName(tag: string, shape: Uint8Array): string {
  return `${tag}\n${toHex(shape)}`;
}
