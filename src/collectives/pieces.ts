/**
 * A tensor's memory in one or more pieces, in the order of its elements: what a caller has in several arrays need not be copied into
 * one. Elements don't straddle pieces. Offsets are in bytes, counted through all pieces.
 */
import { copyBytes } from '../kernels/copy.ts';

export class Pieces {
  readonly #pieces: readonly Uint8Array[];
  /** Where each piece begins. */
  readonly #starts: readonly number[];
  readonly length: number;

  constructor(pieces: readonly Uint8Array[]) {
    const starts: number[] = [];
    let length = 0;
    this.#pieces = pieces.filter((piece) => piece.length > 0);
    for (const piece of this.#pieces) {
      starts.push(length);
      length += piece.length;
    }
    this.#starts = starts;
    this.length = length;
  }

  /** Bytes `start` to `end` as they are in memory; null where they are in several pieces. */
  view(start: number, end: number): Uint8Array | null {
    const index = this.#at(start);
    const first = this.#starts[index] ?? 0;
    const piece = this.#pieces[index];
    if (piece === undefined || end - first > piece.length) return start === end ? NOTHING : null;
    return piece.subarray(start - first, end - first);
  }

  /** Copies bytes `start` to `end` to `target`, from its byte `at` on. */
  copyTo(target: Uint8Array, at: number, start: number, end: number): void {
    for (let index = this.#at(start), from = start; from < end; index++) {
      const first = this.#starts[index]!; // the tensor is at least that long
      const piece = this.#pieces[index]!;
      const to = Math.min(end, first + piece.length);
      copyBytes(target, piece.subarray(from - first, to - first), at + from - start);
      from = to;
    }
  }

  /** Writes `bytes` from byte `at` on. */
  set(bytes: Uint8Array, at: number): void {
    const end = at + bytes.length;
    for (let index = this.#at(at), from = at; from < end; index++) {
      const first = this.#starts[index]!; // as in copyTo
      const piece = this.#pieces[index]!;
      const to = Math.min(end, first + piece.length);
      copyBytes(piece, from === at && to === end ? bytes : bytes.subarray(from - at, to - at), from - first);
      from = to;
    }
  }

  /** Index of the piece in which a byte is. */
  #at(byte: number): number {
    let low = 0;
    let high = this.#starts.length;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (this.#starts[middle]! <= byte) low = middle;
      else high = middle;
    }
    return low;
  }
}

const NOTHING = new Uint8Array(0);
