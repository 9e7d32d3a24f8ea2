/**
 * What a state contains, without the contents: for each entry its revision, its hash, and those of its pieces.
 *
 *     hash of the state ── of the entries' hashes ── each of its pieces' hashes ── each of at most 1 MiB of contents
 *
 * So whoever knows the hash of the state can check whatever list of pieces it is given, and with that each piece by itself.
 */
import { HASH_BYTES, toHex } from './digest.ts';
import type { Hasher } from './hash.ts';
import type { EntryType, Layout } from './layout.ts';

interface ManifestEntry {
  readonly name: string;
  readonly type: EntryType;
  /** Length in bytes. */
  readonly bytes: number;
  /** Of the state, when this entry last changed. */
  readonly revision: number;
  /** In hex. */
  readonly hash: string;
  /** The hashes of its pieces, 16 bytes each. */
  readonly pieces: Uint8Array;
}

export interface Manifest {
  readonly revision: number;
  /** In hex. */
  readonly hash: string;
  /** Length of all pieces but the last of each entry (bytes). */
  readonly pieceBytes: number;
  /** In the order of their names. */
  readonly entries: readonly ManifestEntry[];
}

/** The hashes of one entry's pieces among those of all. */
function piecesOf(layout: Layout, table: Uint8Array, entry: number): Uint8Array {
  const { firstPiece, pieces } = layout.entries[entry]!;
  return table.subarray(firstPiece * HASH_BYTES, (firstPiece + pieces) * HASH_BYTES);
}

/** Hashes of the entries, one after the other. @param table the hashes of all pieces */
function entryHashes(layout: Layout, table: Uint8Array, hasher: Hasher): Uint8Array {
  const hashes = new Uint8Array(layout.entries.length * HASH_BYTES);
  for (let entry = 0; entry < layout.entries.length; entry++)
    hashes.set(hasher.of(piecesOf(layout, table, entry)), entry * HASH_BYTES);
  return hashes;
}

/** @param table the hashes of all pieces */
export function stateHash(layout: Layout, table: Uint8Array, hasher: Hasher): Uint8Array {
  return hasher.of(entryHashes(layout, table, hasher));
}

/** @param revisions of each entry, when it last changed */
export function makeManifest(
  layout: Layout,
  table: Uint8Array,
  revision: number,
  revisions: Float64Array,
  hasher: Hasher,
): Manifest {
  const hashes = entryHashes(layout, table, hasher);
  const entries = layout.entries.map(({ name, type, bytes }, index) => ({
    name,
    type,
    bytes,
    revision: revisions[index]!,
    hash: toHex(hashes.subarray(index * HASH_BYTES, (index + 1) * HASH_BYTES)),
    pieces: piecesOf(layout, table, index).slice(),
  }));
  return { revision, hash: toHex(hasher.of(hashes)), pieceBytes: layout.pieceBytes, entries };
}
