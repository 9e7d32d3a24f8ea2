/**
 * Brings tensors to where the engine can reach them. Memory that the engine shares is used as it is; the rest is copied to
 * shared memory and, when the call has succeeded, back. Until then the caller's tensors are untouched.
 */
import { ScratchPool } from './engine/memory.ts';
import { copyBytes } from './kernels/copy.ts';
import type { TensorPart } from './tensor.ts';

export interface Staged {
  readonly input: Uint8Array;
  readonly output: Uint8Array;
  /** The output is the caller's own memory, and in use as input: the engine must not write it before the end. */
  readonly atomic: boolean;
  /** The call has succeeded, with so many bytes of output. */
  succeed(outputBytes: number): void;
  /** Gives staging memory back, in any case. */
  release(): void;
}

function totalBytes(parts: readonly TensorPart[]): number {
  return parts.reduce((sum, part) => sum + part.bytes.length, 0);
}

const NOTHING = new Uint8Array(0);

export class Staging {
  readonly #mustShare: boolean;
  readonly #pool: ScratchPool;

  constructor(mustShare: boolean) {
    this.#mustShare = mustShare;
    this.#pool = new ScratchPool((byteLength) =>
      mustShare ? new SharedArrayBuffer(byteLength) : new ArrayBuffer(byteLength),
    );
  }

  /** @param inPlace the output is (part of) the input */
  prepare(input: readonly TensorPart[], output: readonly TensorPart[], inPlace: boolean): Staged {
    const borrowed: Uint8Array[] = [];
    const ownInput = this.#direct(input);
    const ownOutput = this.#direct(output);
    const from = ownInput ?? this.#borrow(totalBytes(input), borrowed);
    if (ownInput === null) {
      let at = 0;
      for (const part of input) {
        copyBytes(from, part.bytes, at);
        at += part.bytes.length;
      }
    }
    const to = ownOutput ?? this.#borrow(totalBytes(output), borrowed);
    return {
      input: from,
      output: to,
      atomic: inPlace && ownOutput !== null,
      succeed: (outputBytes) => {
        if (ownOutput !== null) return;
        let at = 0;
        for (const part of output) {
          if (at >= outputBytes) return;
          const length = Math.min(part.bytes.length, outputBytes - at);
          copyBytes(part.bytes, to.subarray(at, at + length), 0);
          at += part.bytes.length;
        }
      },
      release: () => {
        for (const memory of borrowed.splice(0)) this.#pool.give(memory);
      },
    };
  }

  /** The caller's memory, when the engine can use it as it is. */
  #direct(parts: readonly TensorPart[]): Uint8Array | null {
    if (parts.length === 0) return NOTHING;
    const [only] = parts;
    if (parts.length > 1 || only === undefined) return null;
    return !this.#mustShare || only.bytes.buffer instanceof SharedArrayBuffer ? only.bytes : null;
  }

  #borrow(byteLength: number, borrowed: Uint8Array[]): Uint8Array {
    const memory = this.#pool.take(byteLength);
    borrowed.push(memory);
    return memory;
  }
}
