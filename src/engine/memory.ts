/** Memory that an engine lends out and gets back, so that bulk work touches no fresh pages (a first touch costs milliseconds per MiB). */
import { Workspace } from '../collectives/workspace.ts';
import type { Kernels } from '../kernels/kernels.ts';

/** What an engine works in. */
export interface EngineMemory {
  readonly workspace: Workspace;
  /** For reads of dialled connections. */
  readonly readBuffers: ArenaPool;
  /** For frames cut in two. */
  readonly carries: ArenaPool;
}

/** Bytes of an engine's arena. */
export const ARENA_BYTES: number = 16 * 1024 * 1024;
/** What a Unix-domain socket holds (208 KiB), and a bit more: one read empties it. */
const READ_BUFFER_BYTES = 256 * 1024;
const READ_BUFFERS = 32;
const CARRY_BYTES = 64;
const CARRIES = 64;

/** Bytes of scratch kept for later calls. */
const MAX_KEPT_BYTES = 512 * 1024 * 1024;

/** Scratch is not lent when it is larger than so many times what is asked for. */
const MAX_WASTE = 2;
const SMALL_BYTES = 64 * 1024;

/** Scratch for results, values that are in no slot, and tensors on their way to another thread. */
export class ScratchPool {
  readonly #allocate: (byteLength: number) => ArrayBufferLike;
  readonly #free: ArrayBufferLike[] = [];
  #kept = 0;

  constructor(allocate: (byteLength: number) => ArrayBufferLike) {
    this.#allocate = allocate;
  }

  take(byteLength: number): Uint8Array {
    let best = -1;
    for (let index = 0; index < this.#free.length; index++) {
      const size = this.#free[index]!.byteLength;
      if (size < byteLength || size > MAX_WASTE * byteLength + SMALL_BYTES) continue;
      if (best < 0 || size < this.#free[best]!.byteLength) best = index;
    }
    if (best < 0) return new Uint8Array(this.#allocate(byteLength));
    const [buffer] = this.#free.splice(best, 1);
    this.#kept -= buffer!.byteLength;
    return new Uint8Array(buffer!, 0, byteLength);
  }

  give(memory: Uint8Array): void {
    const { buffer } = memory;
    if (this.#kept + buffer.byteLength > MAX_KEPT_BYTES) return;
    this.#free.push(buffer);
    this.#kept += buffer.byteLength;
  }
}

/** Pieces of one size, in the arena as long as they last. */
export class ArenaPool {
  readonly #free: Uint8Array[] = [];
  readonly #pieceBytes: number;

  constructor(kernels: Kernels, pieceBytes: number, pieces: number) {
    this.#pieceBytes = pieceBytes;
    for (let index = 0; index < pieces; index++) {
      const offset = kernels.reserve(pieceBytes);
      this.#free.push(kernels.bytes.subarray(offset, offset + pieceBytes));
    }
  }

  take(): Uint8Array {
    return this.#free.pop() ?? new Uint8Array(this.#pieceBytes);
  }

  give(piece: Uint8Array): void {
    this.#free.push(piece);
  }
}

/** Divides the arena of these kernels, which are the engine's own. */
export function divideArena(kernels: Kernels): EngineMemory {
  return {
    workspace: new Workspace(kernels),
    readBuffers: new ArenaPool(kernels, READ_BUFFER_BYTES, READ_BUFFERS),
    carries: new ArenaPool(kernels, CARRY_BYTES, CARRIES),
  };
}
