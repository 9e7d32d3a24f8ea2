/**
 * Where the current value of each segment is, and how long its bytes must stay as they are. It is at one *place*:
 *
 *     input    the caller's tensor, never written
 *     slot     the arena, hot in the cache: where it is reduced, and from where it is sent
 *     memory   this rank's result, or scratch when the rank keeps no result: used when no slot is free
 *
 * Invariants: the input is never written. What was handed to a link (`lend`) is not changed before it was flushed (`returned`).
 * A slot is held as long as a value is in it, and by each write that is sent from it.
 */
import { DTYPE_BYTES } from '../tensor.ts';
import type { Chunk } from './chunk.ts';
import { Pieces } from './pieces.ts';
import type { TransferSpec } from './transfer-spec.ts';
import { NO_SLOT, type Workspace } from './workspace.ts';

const PLACE_NONE = 0;
const PLACE_INPUT = 1;
const PLACE_SLOT = 2;
const PLACE_MEMORY = 3;
const PLACE_DONE = 4;

export class Values {
  readonly #workspace: Workspace;
  readonly #spec: Pick<TransferSpec, 'input' | 'scratch'>;
  readonly #elementBytes: number;
  readonly #place: Uint8Array;
  readonly #slot: Int16Array;
  /** By the order of chunks: where values live that are in no slot. Scratch is made on first use. */
  readonly #memories: (Pieces | null)[];
  /** Writes in flight that were sent of each segment. */
  readonly #lent: Uint16Array;
  /** Of those, how many are sent from memory: it must not be written while there are any. */
  readonly #memoryLent: Uint16Array;
  #totalLent = 0;

  constructor(
    workspace: Workspace,
    spec: Pick<TransferSpec, 'dtype' | 'input' | 'output' | 'scratch'>,
    chunks: readonly Chunk[],
    segments: number,
  ) {
    this.#workspace = workspace;
    this.#spec = spec;
    this.#elementBytes = DTYPE_BYTES[spec.dtype];
    this.#place = new Uint8Array(segments);
    this.#slot = new Int16Array(segments).fill(NO_SLOT);
    this.#lent = new Uint16Array(segments);
    this.#memoryLent = new Uint16Array(segments);
    this.#memories = [];
    for (const { program, firstSegment, segments: count } of chunks) {
      const place = program.input === null ? PLACE_NONE : PLACE_INPUT;
      this.#place.fill(place, firstSegment, firstSegment + count);
      this.#memories.push(program.output === null ? null : spec.output);
    }
  }

  // --- where values are --------------------------------------------------------------------------------------------

  isInSlot(segment: number): boolean {
    return this.#place[segment] === PLACE_SLOT;
  }

  isInMemory(segment: number): boolean {
    return this.#place[segment] === PLACE_MEMORY;
  }

  /** The value is final, and nothing will be done with it here. */
  isDone(segment: number): boolean {
    return this.#place[segment] === PLACE_DONE;
  }

  /** Arena offset of a value that is in a slot. */
  locate(segment: number): number {
    return this.#workspace.payload(this.#slot[segment]!);
  }

  /**
   * Where the next value of a segment can go: a slot (with a reference for whoever writes it), `NO_SLOT` for the chunk's memory,
   * or null when it must wait until bytes in flight have left.
   */
  target(chunk: Chunk, segment: number, replaces: boolean): number | null {
    const memory = this.#memoryLent[segment] === 0 ? NO_SLOT : null;
    if (replaces && chunk.program.output !== null) return memory;
    if (this.#place[segment] === PLACE_SLOT && this.#lent[segment] === 0) {
      this.#workspace.retain(this.#slot[segment]!);
      return this.#slot[segment]!;
    }
    const slot = this.#workspace.acquire();
    return slot === NO_SLOT ? memory : slot;
  }

  /** The value is now in a slot, or in the chunk's memory (`NO_SLOT`). */
  move(segment: number, slot: number): void {
    this.drop(segment);
    this.#slot[segment] = slot;
    this.#place[segment] = slot === NO_SLOT ? PLACE_MEMORY : PLACE_SLOT;
  }

  /** Brings the final value to where the result belongs, and ends the segment; false when bytes in flight must leave first. */
  finish(chunk: Chunk, segment: number): boolean {
    if (chunk.program.output !== null && this.#place[segment] !== PLACE_MEMORY) {
      if (this.#memoryLent[segment] !== 0) return false;
      this.#storeResult(chunk, segment);
    }
    this.#place[segment] = PLACE_DONE;
    this.drop(segment);
    return true;
  }

  /** The value is not needed here any more: gives its slot back, if it has one. */
  drop(segment: number): void {
    const slot = this.#slot[segment]!;
    if (slot === NO_SLOT) return;
    this.#slot[segment] = NO_SLOT;
    this.#workspace.release(slot);
  }

  dropAll(): void {
    for (let segment = 0; segment < this.#slot.length; segment++) this.drop(segment);
  }

  // --- what is sent of them ----------------------------------------------------------------------------------------

  /** Writes in flight. */
  get lent(): number {
    return this.#totalLent;
  }

  /** Holds a value's slot for a write, and returns it; `NO_SLOT` where it is in none. */
  holdSlot(segment: number): number {
    if (this.#place[segment] !== PLACE_SLOT) return NO_SLOT;
    const slot = this.#slot[segment]!;
    this.#workspace.retain(slot);
    return slot;
  }

  /** Something of a segment is given to a link. */
  lend(segment: number, fromMemory: boolean): void {
    if (fromMemory) this.#memoryLent[segment]! += 1;
    this.#lent[segment]! += 1;
    this.#totalLent += 1;
  }

  /** The link has no more use for it. */
  returned(segment: number, fromMemory: boolean): void {
    if (fromMemory) this.#memoryLent[segment]! -= 1;
    this.#lent[segment]! -= 1;
    this.#totalLent -= 1;
  }

  // --- their bytes -------------------------------------------------------------------------------------------------

  /** Copies bytes `from` to `to` of a value that is in no slot to the arena. */
  load(chunk: Chunk, segment: number, from: number, to: number, target: number): void {
    const isInput = this.#place[segment] === PLACE_INPUT;
    const base = isInput ? this.#inInput(chunk, segment) : this.#inMemory(chunk, segment);
    const memory = isInput ? this.#spec.input : this.#memory(chunk);
    memory.copyTo(this.#workspace.bytes, target, base + from, base + to);
  }

  /** Writes part of a value to the chunk's memory, from its byte `at` on. */
  write(chunk: Chunk, segment: number, bytes: Uint8Array, at: number): void {
    this.#memory(chunk).set(bytes, this.#inMemory(chunk, segment) + at);
  }

  /** Copies part of a value from the arena to the chunk's memory: its bytes `from` to `to`. */
  store(chunk: Chunk, segment: number, source: number, from: number, to: number): void {
    this.write(chunk, segment, this.#workspace.bytes.subarray(source, source + to - from), from);
  }

  /** The chunk's memory for a segment; null where that is in several pieces. */
  room(chunk: Chunk, segment: number, bytes: number): Uint8Array | null {
    const start = this.#inMemory(chunk, segment);
    return this.#memory(chunk).view(start, start + bytes);
  }

  /**
   * The bytes of a value that is in no slot. A copy where they are in several pieces, which is seldom: a value is in one or two
   * as a rule.
   */
  view(chunk: Chunk, segment: number, bytes: number): Uint8Array {
    const isInput = this.#place[segment] === PLACE_INPUT;
    const start = isInput ? this.#inInput(chunk, segment) : this.#inMemory(chunk, segment);
    const memory = isInput ? this.#spec.input : this.#memory(chunk);
    const view = memory.view(start, start + bytes);
    if (view !== null) return view;
    const copy = this.#spec.scratch(bytes);
    memory.copyTo(copy, 0, start, start + bytes);
    return copy;
  }

  #storeResult(chunk: Chunk, segment: number): void {
    const bytes = chunk.elements(segment) * this.#elementBytes;
    if (this.#place[segment] === PLACE_SLOT) {
      this.store(chunk, segment, this.locate(segment), 0, bytes);
      return;
    }
    const source = this.view(chunk, segment, bytes);
    const target = this.room(chunk, segment, bytes);
    const same = source.buffer === target?.buffer && source.byteOffset === target.byteOffset;
    if (!same) this.write(chunk, segment, source, 0);
  }

  #memory(chunk: Chunk): Pieces {
    let memory = this.#memories[chunk.order] ?? null;
    if (memory === null) {
      memory = new Pieces([this.#spec.scratch(chunk.program.count * this.#elementBytes)]);
      this.#memories[chunk.order] = memory;
    }
    return memory;
  }

  /** Where a segment begins in the input, in bytes. */
  #inInput(chunk: Chunk, segment: number): number {
    return (chunk.program.input! + chunk.before(segment)) * this.#elementBytes; // asked only of values that are there
  }

  /** Where a segment begins in the chunk's memory, in bytes. */
  #inMemory(chunk: Chunk, segment: number): number {
    return ((chunk.program.output ?? 0) + chunk.before(segment)) * this.#elementBytes;
  }
}
