/**
 * What a peer holds of a state, as its engine sees it: the memory, the hashes of all pieces when it last looked, and what it has
 * fetched meanwhile.
 *
 * A replica that is *whole* (holds one revision) is replaced when everything has come, in one go: what was fetched is kept beside it
 * until then. One that is not has nothing to lose: what comes goes straight to its place.
 */
import { copyBytes } from '../kernels/copy.ts';
import { HASH_BYTES, sameHash } from './digest.ts';
import type { Hasher } from './hash.ts';
import { type EntryShape, type Layout, placeOf, shapeHash } from './layout.ts';
import { type Manifest, makeManifest, stateHash } from './manifest.ts';

/** Hashed before others have a turn (bytes): a few milliseconds. */
const TURN_BYTES: number = 8 * 1024 * 1024;

/** Entries up to this length are always looked at (bytes). */
const SMALL_BYTES: number = 64 * 1024;

/** Of what the caller says it has not changed, hashed again at each sync that can spare it (bytes): so a bit that flips there is found in time. */
const AUDIT_BYTES: number = 4 * 1024 * 1024;

/** What a peer is to hold, as told by one that holds it. */
export interface Target {
  readonly revision: number;
  readonly hash: Uint8Array;
  /** Hashes of all pieces. */
  readonly table: Uint8Array;
  /** Of each entry, when it last changed. */
  readonly revisions: Float64Array;
}

export class Replica {
  readonly layout: Layout;
  readonly shape: Uint8Array;
  /** Of the contents when they were last looked at; null before that. */
  hash: Uint8Array | null = null;
  revision: number;
  isWhole = true;
  isSynced = false;
  /** Everything of it has come. */
  ready: Target | null = null;
  readonly #memory: readonly Uint8Array[];
  readonly #hasher: Hasher;
  readonly #table: Uint8Array;
  readonly #revisions: Float64Array;
  /** Pieces of another revision. */
  readonly #kept: Map<number, { readonly bytes: Uint8Array; readonly hash: Uint8Array }> = new Map();
  /** The next piece that is looked at though nobody has changed it. */
  #audited = 0;
  /** Pieces that came to their places since the owner last let go of the memory: they are what they were found to be on the way. */
  #fresh: Set<number> | null = null;

  /** @param memory of each entry of the layout */
  constructor(layout: Layout, memory: readonly Uint8Array[], revision: number, hasher: Hasher) {
    this.layout = layout;
    this.shape = shapeHash(layout, hasher);
    this.revision = revision;
    this.#memory = memory;
    this.#hasher = hasher;
    this.#table = new Uint8Array(layout.pieces * HASH_BYTES);
    this.#revisions = new Float64Array(layout.entries.length).fill(revision);
  }

  get table(): Uint8Array {
    return this.#table;
  }

  get revisions(): Float64Array {
    return this.#revisions;
  }

  manifest(): Manifest {
    return makeManifest(this.layout, this.#table, this.revision, this.#revisions, this.#hasher);
  }

  /** The contents of pieces side by side, copied to `into`. */
  read(first: number, count: number, into: Uint8Array): void {
    let at = 0;
    for (let piece = first; piece < first + count; piece++) {
      const bytes = this.#pieceOf(piece);
      copyBytes(into, bytes, at);
      at += bytes.length;
    }
  }

  #pieceOf(piece: number): Uint8Array {
    const { entry, start, bytes } = placeOf(this.layout, piece);
    return this.#memory[entry]!.subarray(start, start + bytes);
  }

  #hashIn(table: Uint8Array, piece: number): Uint8Array {
    return table.subarray(piece * HASH_BYTES, (piece + 1) * HASH_BYTES);
  }

  /** What comes to its place from now on need not be looked at: the owner writes nothing before the next look has ended. */
  letGo(): void {
    this.#fresh = new Set();
  }

  #isKnown({ name, bytes }: EntryShape, changed: readonly string[] | null): boolean {
    return bytes > SMALL_BYTES && this.hash !== null && changed !== null && !changed.includes(name);
  }

  /** What a look has to look at, if nothing is fresh (bytes). */
  bytesToLookAt(changed: readonly string[] | null): number {
    return this.layout.entries.reduce((sum, entry) => sum + (this.#isKnown(entry, changed) ? 0 : entry.bytes), 0);
  }

  /**
   * Looks at the contents.
   *
   * @param revision what they are, as their owner says
   * @param changed names of the entries that may be others than at the last look; null: all of them
   * @param turn lets others have a turn
   * @param mayAudit asked when all that has changed was looked at: there is time for some of what has not
   * @returns bytes looked at
   */
  async look(
    revision: number,
    changed: readonly string[] | null,
    turn: () => Promise<void>,
    mayAudit: () => boolean = () => true,
  ): Promise<number> {
    let bytes = 0;
    let sinceTurn = 0;
    // Others may ask for the table meanwhile: they get the last whole one.
    const table = this.#table.slice();
    for (const [index, entry] of this.layout.entries.entries()) {
      if (this.#isKnown(entry, changed)) continue;
      for (let piece = entry.firstPiece; piece < entry.firstPiece + entry.pieces; piece++) {
        const length = this.#fresh?.has(piece) === true ? 0 : this.#lookAt(table, piece, index, revision);
        bytes += length;
        sinceTurn += length;
        if (sinceTurn < TURN_BYTES) continue;
        sinceTurn = 0;
        await turn();
      }
    }
    // A newcomer has seen all of it lately.
    if (this.isSynced && bytes < this.layout.bytes && mayAudit()) bytes += this.#audit(table, revision);
    this.#fresh = null;
    this.#table.set(table);
    this.revision = revision;
    this.hash = stateHash(this.layout, this.#table, this.#hasher);
    // What was here and is not any more would be missing when it is put together.
    if (this.ready !== null && this.lacks(this.ready).length > 0) this.ready = null;
    return bytes;
  }

  #lookAt(table: Uint8Array, piece: number, entry: number, revision: number): number {
    const bytes = this.#pieceOf(piece);
    const hash = this.#hasher.of(bytes);
    const known = this.#hashIn(table, piece);
    if (!sameHash(known, hash)) {
      known.set(hash);
      this.#revisions[entry] = revision;
    }
    return bytes.length;
  }

  #audit(table: Uint8Array, revision: number): number {
    let bytes = 0;
    for (let looked = 0; looked < this.layout.pieces && bytes < AUDIT_BYTES; looked++) {
      const piece = this.#audited;
      this.#audited = (piece + 1) % this.layout.pieces;
      bytes += this.#lookAt(table, piece, placeOf(this.layout, piece).entry, revision);
    }
    return bytes;
  }

  /** The pieces of a target that are neither here nor fetched, in ascending order. Forgets what was fetched of others. */
  lacks({ table }: Target): number[] {
    const missing: number[] = [];
    for (const [piece, { hash }] of [...this.#kept])
      if (!sameHash(hash, this.#hashIn(table, piece))) this.#kept.delete(piece);
    for (let piece = 0; piece < this.layout.pieces; piece++) {
      const isHere = sameHash(this.#hashIn(this.#table, piece), this.#hashIn(table, piece));
      if (!isHere && !this.#kept.has(piece)) missing.push(piece);
    }
    return missing;
  }

  /** Bytes of a piece, if they are what the target says. */
  isOf({ table }: Target, piece: number, bytes: Uint8Array): boolean {
    return sameHash(this.#hasher.of(bytes), this.#hashIn(table, piece));
  }

  /** A piece of the target has come, and was found to be it. `bytes` are its own from now on, if it keeps them. @returns whether it does */
  put({ table }: Target, piece: number, bytes: Uint8Array): boolean {
    const hash = this.#hashIn(table, piece);
    if (this.isWhole) {
      this.#kept.set(piece, { bytes, hash: hash.slice() });
      return true;
    }
    this.#write(piece, bytes, hash);
    return false;
  }

  #write(piece: number, bytes: Uint8Array, hash: Uint8Array): void {
    const { entry, start } = placeOf(this.layout, piece);
    copyBytes(this.#memory[entry]!, bytes, start);
    this.#table.set(hash, piece * HASH_BYTES);
    this.#fresh?.add(piece);
  }

  /** Everything of a target has come. */
  complete(target: Target): void {
    this.ready = target;
    if (this.isWhole) return;
    this.hash = stateHash(this.layout, this.#table, this.#hasher);
    this.#revisions.set(target.revisions);
  }

  /** Holds the target from now on, of which everything is here. @returns whether the contents changed */
  settle(revision: number, hash: Uint8Array): boolean {
    const { ready } = this;
    const isReady = ready !== null && sameHash(ready.hash, hash);
    let isChanged = false;
    if (isReady) {
      for (const [piece, kept] of this.#kept) this.#write(piece, kept.bytes, kept.hash);
      isChanged = this.#kept.size > 0;
      this.#revisions.set(ready.revisions);
      this.hash = stateHash(this.layout, this.#table, this.#hasher);
    }
    this.forget();
    this.revision = revision;
    this.isWhole = true;
    this.isSynced = true;
    return isChanged;
  }

  /** Lets go of what was fetched and has not got to its place. */
  forget(): void {
    this.#kept.clear();
    this.#fresh = null;
    this.ready = null;
  }
}

/** What is wrong with a table and revisions that somebody has told; null: nothing. */
export function checkTarget(layout: Layout, target: Target, hasher: Hasher): string | null {
  if (!sameHash(stateHash(layout, target.table, hasher), target.hash)) return 'the pieces are not those of the state';
  return target.revisions.every((revision) => Number.isSafeInteger(revision) && revision >= 0)
    ? null
    : 'a revision is none';
}
