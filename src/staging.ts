/**
 * Brings tensors to where the engine can reach them. Memory that the engine shares is used as it is; the rest is copied to
 * shared memory and, when the call has succeeded, back. Until then the caller's tensors are untouched.
 *
 * Of several tensors in one call, large ones stay where they are. Small ones are put together, as they are worth no piece of their own:
 * what is sent must be in one piece, so a segment that begins in one tensor and ends in another is copied anyway.
 */
import { ScratchPool } from './engine/memory.ts';
import { copyBytes } from './kernels/copy.ts';
import type { TensorPart } from './tensor.ts';

export interface Staged {
  /** In pieces, which have the elements in their order. */
  readonly input: readonly Uint8Array[];
  readonly output: readonly Uint8Array[];
  /** (Part of) the output is the caller's own memory, and in use as input: the engine must not write it before the end. */
  readonly atomic: boolean;
  /** Bytes `start` to `end` of the caller's input are there: they go to where the engine reads them. */
  send(start: number, end: number): void;
  /** Bytes `start` to `end` of the output are there: they go to the caller's. */
  fetch(start: number, end: number): void;
  /** Gives staging memory back, in any case. */
  release(): void;
}

/** Of several tensors, one with so many bytes is used where it is: a few segments. */
const LARGE_BYTES = 1024 * 1024;

/** Some of a tensor's bytes, which are side by side. */
interface Run {
  /** Its place among all bytes of the tensor. */
  readonly start: number;
  /** The caller's memory. */
  readonly bytes: Uint8Array;
}

/** Where the engine finds a tensor. */
interface Layout {
  readonly pieces: readonly Uint8Array[];
  /** What must be copied, and to where. */
  readonly staged: readonly (Run & { readonly copy: Uint8Array })[];
  /** (Part of) it is the caller's memory. */
  readonly isDirect: boolean;
}

/** The tensor's memory; neighbours are one run. */
function runsOf(parts: readonly TensorPart[]): Run[] {
  const runs: Run[] = [];
  let start = 0;
  for (const { bytes } of parts) {
    const last = runs.at(-1);
    const follows =
      last !== undefined &&
      last.bytes.buffer === bytes.buffer &&
      last.bytes.byteOffset + last.bytes.length === bytes.byteOffset;
    if (follows) {
      const length = last.bytes.length + bytes.length;
      runs[runs.length - 1] = { ...last, bytes: new Uint8Array(bytes.buffer, last.bytes.byteOffset, length) };
    } else if (bytes.length > 0) {
      runs.push({ start, bytes });
    }
    start += bytes.length;
  }
  return runs;
}

/** Visits what is common to bytes `start` to `end` and what is staged. */
function forEachStaged(
  { staged }: Layout,
  start: number,
  end: number,
  visit: (bytes: Uint8Array, copy: Uint8Array) => void,
): void {
  for (const run of staged) {
    const from = Math.max(start - run.start, 0);
    const to = Math.min(end - run.start, run.bytes.length);
    if (from < to) visit(run.bytes.subarray(from, to), run.copy.subarray(from, to));
  }
}

export class Staging {
  readonly #mustShare: boolean;
  readonly #pool: ScratchPool;

  constructor(mustShare: boolean) {
    this.#mustShare = mustShare;
    this.#pool = new ScratchPool((byteLength) =>
      mustShare ? new SharedArrayBuffer(byteLength) : new ArrayBuffer(byteLength),
    );
  }

  /**
   * Nothing is copied before `send`.
   * @param inPlace the output is (part of) the input
   */
  prepare(input: readonly TensorPart[], output: readonly TensorPart[], inPlace: boolean): Staged {
    const borrowed: Uint8Array[] = [];
    const from = this.#lay(input, borrowed);
    const to = this.#lay(output, borrowed);
    return {
      input: from.pieces,
      output: to.pieces,
      atomic: inPlace && to.isDirect,
      send: (start, end) => forEachStaged(from, start, end, (bytes, copy) => copyBytes(copy, bytes, 0)),
      fetch: (start, end) => forEachStaged(to, start, end, (bytes, copy) => copyBytes(bytes, copy, 0)),
      release: () => {
        for (const memory of borrowed.splice(0)) this.#pool.give(memory);
      },
    };
  }

  #lay(parts: readonly TensorPart[], borrowed: Uint8Array[]): Layout {
    const runs = runsOf(parts);
    const isStaged = ({ bytes }: Run): boolean => {
      const isReached = !this.#mustShare || bytes.buffer instanceof SharedArrayBuffer;
      return !isReached || (runs.length > 1 && bytes.length < LARGE_BYTES);
    };
    const size = runs.reduce((sum, run) => sum + (isStaged(run) ? run.bytes.length : 0), 0);
    const memory = size === 0 ? null : this.#pool.take(size);
    if (memory !== null) borrowed.push(memory);
    const pieces: Uint8Array[] = [];
    const staged: (Run & { copy: Uint8Array })[] = [];
    /** Where the staged runs since the last piece begin and end in that memory. */
    let from = 0;
    let to = 0;
    const close = () => {
      if (memory !== null && to > from) pieces.push(memory.subarray(from, to));
      from = to;
    };
    for (const run of runs) {
      if (memory !== null && isStaged(run)) {
        const end = to + run.bytes.length;
        staged.push({ ...run, copy: memory.subarray(to, end) });
        to = end;
      } else {
        close();
        pieces.push(run.bytes);
      }
    }
    close();
    return { pieces, staged, isDirect: staged.length < runs.length };
  }
}
