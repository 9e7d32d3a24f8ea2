/**
 * Memory that all transfers of one engine share: slots in the kernels' arena where a segment is reduced while it is hot in
 * the cache and from which it is sent, and staging for operands that live elsewhere. Nothing here is ever required for
 * progress: a transfer that finds no free slot works in its own memory, so collectives can't block one another here.
 */
import { copyBytes } from '../kernels/copy.ts';
import type { Kernels } from '../kernels/kernels.ts';
import { HEADER_BYTES } from '../wire/frame.ts';
import { MAX_WORLD_SIZE } from '../wire/limits.ts';

/** Default bytes per segment: large enough to amortise a frame's fixed costs, small enough to stay in the L2 cache. */
export const SEGMENT_BYTES: number = 256 * 1024;

/** Operands outside the arena are staged in blocks of this many bytes, which fit the L1/L2 caches. */
export const STAGE_BYTES: number = 64 * 1024;

const CACHE_LINE_BYTES = 64;

/**
 * Contributions of part of a segment, side by side, while a robust average is made of them: few enough to stay in the L2 cache, and
 * a block of any codec but `topk` of as many as a run may have, with a cache line more for each.
 */
const ROWS_BYTES = MAX_WORLD_SIZE * (64 * 4 + CACHE_LINE_BYTES);

/** Payloads start here in a slot; the header stands right before it, so that both leave in one write. */
const PAYLOAD_OFFSET = 64;

const SLOT_COUNT = 16;

/** Buffers for frames that came before their turn, kept for later ones: fresh memory costs more than what it holds. */
const MAX_KEPT_BUFFERS = 16;

/** Slots kept for encoded bytes, so that values waiting in slots can't take what sending them needs. */
const WIRE_SLOT_COUNT = 4;

/** Buffers up to this size are not worth keeping; larger ones come in this size times 2, 4, …, the last a segment's. */
const SMALL_BUFFER_BYTES = 4 * 1024;

/** What one block of any codec may take beyond the bytes of its values. */
const MAX_BLOCK_OVERHEAD = 64;

export const NO_SLOT: number = -1;

/** Called with what was sent once the link has no more use for its bytes. */
export interface FlushListener {
  onSegmentFlushed(segment: number, fromMemory: boolean): void;
}

/** One write in flight: what to release when its bytes have left. Reused; its callback is made once. */
export class SendTicket {
  readonly header: Uint8Array = new Uint8Array(HEADER_BYTES);
  readonly headerView: DataView = new DataView(this.header.buffer);
  readonly flushed: () => void;
  listener: FlushListener | null = null;
  segment = 0;
  slot: number = NO_SLOT;
  /** The bytes are in the transfer's memory, not in a slot or the caller's input. */
  fromMemory = false;

  constructor(workspace: Workspace) {
    this.flushed = () => {
      const { listener, segment, slot, fromMemory } = this;
      this.listener = null;
      if (slot !== NO_SLOT) workspace.release(slot);
      workspace.returnTicket(this);
      listener?.onSegmentFlushed(segment, fromMemory);
    };
  }
}

export class Workspace {
  readonly kernels: Kernels;
  readonly bytes: Uint8Array;
  readonly view: DataView;
  /** Three staging areas of `STAGE_BYTES`: for the own value, for one that arrived, and for the wire bytes of either. */
  readonly stageOwn: number;
  readonly stageArrived: number;
  readonly stageWire: number;
  /** Staging for rows of values, as long as `rowStride` says. */
  readonly stageRows: number;
  readonly segmentBytes: number;

  readonly #slotOffsets: number[] = [];
  readonly #references: Int32Array;
  readonly #free: number[] = [];
  readonly #freeWire: number[] = [];
  readonly #tickets: SendTicket[] = [];
  readonly #buffers: Map<number, Uint8Array[]> = new Map();

  constructor(kernels: Kernels, segmentBytes: number = SEGMENT_BYTES) {
    this.kernels = kernels;
    this.bytes = kernels.bytes;
    this.view = new DataView(kernels.bytes.buffer, kernels.bytes.byteOffset, kernels.bytes.byteLength);
    this.segmentBytes = segmentBytes;
    this.stageOwn = kernels.reserve(STAGE_BYTES);
    this.stageArrived = kernels.reserve(STAGE_BYTES);
    // A few elements may take more bytes encoded than not: their block has a scale all the same.
    this.stageWire = kernels.reserve(STAGE_BYTES + MAX_BLOCK_OVERHEAD);
    this.stageRows = kernels.reserve(ROWS_BYTES);
    for (let slot = 0; slot < SLOT_COUNT + WIRE_SLOT_COUNT; slot++) {
      this.#slotOffsets.push(kernels.reserve(PAYLOAD_OFFSET + segmentBytes + MAX_BLOCK_OVERHEAD));
      (slot < SLOT_COUNT ? this.#free : this.#freeWire).push(slot);
    }
    this.#references = new Int32Array(SLOT_COUNT + WIRE_SLOT_COUNT);
  }

  /** A slot with one reference, or `NO_SLOT`. */
  acquire(): number {
    return this.#take(this.#free);
  }

  /** A slot for encoded bytes with one reference, or `NO_SLOT`: then one will be free after the next flush. */
  acquireWire(): number {
    return this.#take(this.#freeWire);
  }

  #take(pool: number[]): number {
    const slot = pool.pop() ?? NO_SLOT;
    if (slot !== NO_SLOT) this.#references[slot] = 1;
    return slot;
  }

  retain(slot: number): void {
    this.#references[slot]! += 1;
  }

  release(slot: number): void {
    const left = this.#references[slot]! - 1;
    this.#references[slot] = left;
    if (left === 0) (slot < SLOT_COUNT ? this.#free : this.#freeWire).push(slot);
  }

  /** Arena offset of the slot's payload. */
  payload(slot: number): number {
    return this.#slotOffsets[slot]! + PAYLOAD_OFFSET;
  }

  /** Arena offset where the header of a frame sent from the slot must be written. */
  header(slot: number): number {
    return this.payload(slot) - HEADER_BYTES;
  }

  /** Header and payload of a slot as one view. */
  frame(slot: number, payloadBytes: number): Uint8Array {
    const start = this.header(slot);
    return this.bytes.subarray(start, start + HEADER_BYTES + payloadBytes);
  }

  /** Bytes from row to row where so many are staged: an odd number of cache lines, or the rows would compete for a few places in the cache. */
  rowStride(rows: number): number {
    const lines = Math.floor(Math.min(STAGE_BYTES, ROWS_BYTES / rows) / CACHE_LINE_BYTES);
    return (lines % 2 === 1 ? lines : lines - 1) * CACHE_LINE_BYTES;
  }

  ticket(): SendTicket {
    return this.#tickets.pop() ?? new SendTicket(this);
  }

  /** A buffer that holds a segment of so many wire bytes, or up to twice as much. */
  takeBuffer(byteLength: number): Uint8Array {
    if (byteLength <= SMALL_BUFFER_BYTES) return new Uint8Array(byteLength);
    let size = 2 * SMALL_BUFFER_BYTES;
    while (size < byteLength) size *= 2;
    return this.#buffers.get(size)?.pop() ?? new Uint8Array(size);
  }

  giveBuffer(buffer: Uint8Array): void {
    if (buffer.length <= SMALL_BUFFER_BYTES) return;
    let kept = this.#buffers.get(buffer.length);
    if (kept === undefined) {
      kept = [];
      this.#buffers.set(buffer.length, kept);
    }
    if (kept.length < MAX_KEPT_BUFFERS) kept.push(buffer);
  }

  returnTicket(ticket: SendTicket): void {
    this.#tickets.push(ticket);
  }

  /** Arena offset of `bytes[start..end)`; copied to `stage` when it is elsewhere. */
  locate(bytes: Uint8Array, start: number, end: number, stage: number): number {
    if (bytes.buffer === this.bytes.buffer) return bytes.byteOffset + start;
    copyBytes(this.bytes, bytes.subarray(start, end), stage);
    return stage;
  }
}
