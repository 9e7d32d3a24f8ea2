/**
 * The one executor: runs this rank's plan of one collective, segment by segment, whatever the algorithm, dtype or codec.
 * It is a machine without socket or clock: frames are pushed in, segments are handed to `SegmentPort`s.
 *
 * A segment walks through its chunk's steps on its own. This file is the walk: which step each segment is at, what it waits for, and
 * what an arriving frame may do. The rest is where it says so:
 *
 *     chunk.ts           what the program says of a chunk, and how it is cut into segments
 *     values.ts          where the current value of a segment is, and which of its bytes are in flight
 *     combiner.ts        what arrives is worked into the value
 *     encoder.ts         what leaves by a codec that drops bits
 *     outboxes.ts        in which order segments go to each peer
 *     early-frames.ts    what came before its turn
 *     missing-input.ts   what an input that comes in parts still lacks
 *
 * Invariants: a header is compared with this rank's own program before a number from it is used. Frames that come before their turn
 * are kept (their number and size follow from that program), so a link is never blocked.
 */
import { copyBytes } from '../kernels/copy.ts';
import { DTYPE_BYTES } from '../tensor.ts';
import { emptyHeader, FRAME_DATA, type FrameHeader, HEADER_BYTES, writeHeader } from '../wire/frame.ts';
import type { Span } from '../wire/ranges.ts';
import { type Chunk, cutChunks, isReceive } from './chunk.ts';
import { BLOCK_ELEMENTS, wholeBlocks, wireLength } from './codec.ts';
import { Combiner } from './combiner.ts';
import { type EarlyFrame, EarlyFrames } from './early-frames.ts';
import { Encoder } from './encoder.ts';
import { MissingInput } from './missing-input.ts';
import { Outboxes } from './outboxes.ts';
import type { Instruction, Rank } from './program.ts';
import type { SegmentPort, TransferSpec } from './transfer-spec.ts';
import { Values } from './values.ts';
import { type FlushListener, NO_SLOT, type Workspace } from './workspace.ts';

/** Calls of `onProgress` per transfer. */
const PROGRESS_STEPS = 20;

const MODE_DISCARD = 0;
const MODE_EARLY = 1;
const MODE_COMBINE = 2;

/** A frame on its way in from one connection. One per connection, reused. */
export class FrameCursor {
  mode: number = MODE_DISCARD;
  from = 0;
  segment = 0;
  /** Payload bytes taken so far. */
  at = 0;
  early: EarlyFrame | null = null;
  /** Slot that the value goes to, or `NO_SLOT` for the chunk's memory. */
  slot: number = NO_SLOT;

  discard(): void {
    this.mode = MODE_DISCARD;
  }
}

export class Transfer implements FlushListener {
  readonly #workspace: Workspace;
  readonly #spec: TransferSpec;
  readonly #chunks: readonly Chunk[];
  readonly #chunkById: (Chunk | undefined)[] = [];
  readonly #values: Values;
  readonly #combiner: Combiner;
  /** null: values travel as they are. */
  readonly #encoder: Encoder | null;
  readonly #outboxes: Outboxes;
  readonly #early: EarlyFrames;
  /** null: the whole input was there from the start. */
  readonly #missing: MissingInput | null;
  readonly #header: FrameHeader = emptyHeader();

  /** By segment: the order of its chunk, and the step it is at. */
  readonly #chunkOf: Int32Array;
  readonly #step: Uint16Array;
  /** Whether a frame is being worked into it. */
  readonly #arriving: Uint8Array;

  #alive = true;
  #finished = 0;
  /** Data bytes, headers included. */
  bytesSent = 0;
  bytesReceived = 0;

  constructor(workspace: Workspace, spec: TransferSpec) {
    this.#workspace = workspace;
    this.#spec = spec;
    const { codec } = spec;
    const segmentElements = wholeBlocks(codec, workspace.segmentBytes / DTYPE_BYTES[spec.dtype]);
    if (segmentElements === 0)
      throw new Error(`a segment of ${workspace.segmentBytes} bytes has no block of ${BLOCK_ELEMENTS[codec]}`);
    this.#chunks = cutChunks(spec.plan, segmentElements);
    const last = this.#chunks.at(-1);
    const segments = last === undefined ? 0 : last.firstSegment + last.segments;
    this.#chunkOf = new Int32Array(segments);
    for (const chunk of this.#chunks) {
      this.#chunkById[chunk.program.id] = chunk;
      this.#chunkOf.fill(chunk.order, chunk.firstSegment, chunk.firstSegment + chunk.segments);
    }
    this.#step = new Uint16Array(segments);
    this.#arriving = new Uint8Array(segments);
    this.#values = new Values(workspace, spec, this.#chunks, segments);
    this.#combiner = new Combiner(workspace, this.#values, spec);
    this.#encoder = codec === 'f32' ? null : new Encoder(workspace, this.#values, codec, spec, segments);
    this.#outboxes = new Outboxes(spec, (rank, port, segment) => this.#send(rank, port, segment));
    this.#early = new EarlyFrames(workspace, segments);
    this.#missing = spec.ready === null ? null : new MissingInput(this.#chunks, segments, spec.ready);
  }

  // --- how far it is -----------------------------------------------------------------------------------------------

  /** Share of this rank's segments that are done, 0 to 1. */
  get progress(): number {
    return this.#step.length === 0 ? 1 : this.#finished / this.#step.length;
  }

  get held(): boolean {
    return this.#finished === this.#step.length;
  }

  /** No link refers to this transfer's memory any more. */
  get drained(): boolean {
    return this.#values.lent === 0;
  }

  /** Relative RMS of what this rank's encodings dropped, if it is measured. */
  get error(): number {
    return this.#encoder?.error ?? 0;
  }

  /** Elements of the output that have their final values. */
  finishedSpans(): readonly Span[] {
    const spans: Span[] = [];
    for (const chunk of this.#chunks) {
      const { output } = chunk.program;
      if (output === null) continue;
      for (let segment = chunk.firstSegment; segment < chunk.firstSegment + chunk.segments; segment++) {
        if (!this.#values.isDone(segment)) continue;
        const start = output + chunk.before(segment);
        spans.push({ start, end: start + chunk.elements(segment) });
      }
    }
    return spans;
  }

  /** Ranks whose data this rank still waits for. Where its own is not there yet, it waits for nobody else. */
  get waitsFor(): readonly Rank[] {
    const ranks = new Set<Rank>();
    for (const chunk of this.#chunks) {
      for (let segment = chunk.firstSegment; segment < chunk.firstSegment + chunk.segments; segment++) {
        const step = chunk.steps[this.#step[segment]!];
        if (step === undefined || !isReceive(step) || this.#lacks(segment)) continue;
        if (this.#combiner.collects(step)) for (const rank of this.#uncollected(chunk, segment)) ranks.add(rank);
        else ranks.add(step.from);
      }
    }
    return [...ranks];
  }

  /** Ranks whose contributions to a robust average have not come yet. */
  #uncollected(chunk: Chunk, segment: number): Rank[] {
    const contributions = chunk.steps.slice(this.#step[segment]!, chunk.finishingStep + 1).filter(isReceive);
    return contributions.map(({ from }) => from).filter((from) => this.#early.from(segment, from)?.complete !== true);
  }

  /** Whether a segment's own part of the input is not there yet, which its first step reads. */
  #lacks(segment: number): boolean {
    return this.#missing?.lacks(segment) === true;
  }

  // --- beginning and end -------------------------------------------------------------------------------------------

  /** Begins: segments whose first step is a send are queued, those without steps are finished. */
  start(): void {
    for (const chunk of this.#chunks) {
      for (let segment = chunk.firstSegment; segment < chunk.firstSegment + chunk.segments; segment++) {
        if (!this.#lacks(segment)) this.#setOut(chunk, segment);
      }
    }
    if (this.#step.length === 0) this.#spec.onHeld();
    this.pump();
  }

  /** Elements `start` to `end` of the input are there, and won't change any more. Each is told of once, after `start`. */
  ready(start: number, end: number): void {
    if (!this.#alive || this.#missing === null) return;
    this.#missing.add(start, end, (chunk, segment) => this.#setOut(chunk, segment));
    this.pump();
  }

  /** Stops for good; bytes that are still in flight are released as they are flushed, frames that still come are dropped. */
  cancel(): void {
    if (!this.#alive) return;
    this.#alive = false;
    this.#values.dropAll();
    this.#early.forget();
  }

  // --- walking through the steps -----------------------------------------------------------------------------------

  /** A segment can take its first step. */
  #setOut(chunk: Chunk, segment: number): void {
    const first = chunk.steps[0];
    if (first === undefined) this.#finish(chunk, segment);
    else if (first.do === 'send') this.#outboxes.begin(first.to, segment);
    else this.#takeEarly(chunk, segment);
  }

  #advance(chunk: Chunk, segment: number): void {
    this.#step[segment]! += 1;
    const step = chunk.steps[this.#step[segment]!];
    if (step === undefined) this.#finish(chunk, segment);
    else if (step.do === 'send') this.#outboxes.forward(step.to, segment);
    else this.#takeEarly(chunk, segment);
  }

  /** Works in a frame that came before its turn, when the current step waits for it. */
  #takeEarly(chunk: Chunk, segment: number): void {
    const step = chunk.steps[this.#step[segment]!];
    if (step === undefined || step.do === 'send' || this.#lacks(segment)) return;
    if (this.#combiner.collects(step)) {
      this.#takeAll(chunk, segment, step);
      return;
    }
    const frame = this.#early.from(segment, step.from);
    if (frame === null || !frame.complete) return;
    const slot = this.#target(chunk, segment, step);
    if (slot === null) return;
    this.#combine(chunk, segment, slot, frame.buffer, 0, frame.length, 0);
    this.#early.drop(segment, frame);
    this.#combined(chunk, segment, slot);
  }

  /** Makes a robust average of all contributions, once the last of them has come. */
  #takeAll(chunk: Chunk, segment: number, step: Instruction): void {
    const frames = this.#early.complete(segment);
    if (frames.length <= chunk.finishingStep - this.#step[segment]!) return;
    const slot = this.#target(chunk, segment, step);
    if (slot === null) return;
    this.#combiner.average(chunk, segment, slot, frames);
    for (const frame of frames) this.#early.drop(segment, frame);
    this.#step[segment] = chunk.finishingStep;
    this.#combined(chunk, segment, slot);
  }

  #target(chunk: Chunk, segment: number, step: Instruction): number | null {
    return this.#values.target(chunk, segment, step.do === 'replace');
  }

  /** Works part of what arrived for the current step in: as `Combiner.combine`. */
  #combine(
    chunk: Chunk,
    segment: number,
    slot: number,
    bytes: Uint8Array,
    start: number,
    end: number,
    at: number,
  ): void {
    const index = this.#step[segment]!;
    if (this.#encoder !== null && chunk.passesOn[index] === true)
      this.#encoder.keepSealed(chunk, segment, bytes.subarray(start, end), at);
    this.#combiner.combine(chunk, segment, chunk.steps[index]!, slot, bytes, start, end, at);
  }

  /** The whole segment has been worked in: takes over its new place and goes on. */
  #combined(chunk: Chunk, segment: number, slot: number): void {
    const index = this.#step[segment]!;
    this.#values.move(segment, slot);
    if (this.#encoder !== null && chunk.passesOn[index] === true) this.#encoder.passOn(segment);
    if (index === chunk.finishingStep) this.#combiner.finish(chunk, segment);
    this.#advance(chunk, segment);
  }

  #finish(chunk: Chunk, segment: number): void {
    if (!this.#values.finish(chunk, segment)) return; // comes back when what is in flight has left
    if (chunk.steps.length === 0) this.#encoder?.dropsNothing(chunk, segment);
    const before = this.progress;
    this.#finished += 1;
    if (chunk.program.output !== null && this.#spec.onFinished !== null) {
      const start = chunk.program.output + chunk.before(segment);
      this.#spec.onFinished(start, start + chunk.elements(segment));
    }
    if (Math.floor(before * PROGRESS_STEPS) !== Math.floor(this.progress * PROGRESS_STEPS))
      this.#spec.onProgress(this.progress);
    if (this.#finished === this.#step.length) this.#spec.onHeld();
  }

  // --- sending -----------------------------------------------------------------------------------------------------

  /** Hands segments to every link that takes them. To be called when a link has become writable. */
  pump(): void {
    if (this.#alive) this.#outboxes.pump();
  }

  /** Sends the value to the peer of the segment's current step; false when it must wait for a slot. */
  #send(rank: Rank, port: SegmentPort, segment: number): boolean {
    const chunk = this.#chunks[this.#chunkOf[segment]!]!;
    const bytes = this.#wireBytes(chunk, segment);
    const step = this.#step[segment]!;
    const keep = chunk.neededAfter[step] === true;
    const encoder = this.#encoder;
    if (encoder !== null && keep && !encoder.isSealed(segment)) encoder.seal(chunk, segment, step);
    let wire = NO_SLOT;
    if (encoder !== null && !encoder.isSealed(segment)) {
      wire = this.#workspace.acquireWire();
      if (wire === NO_SLOT) return false;
      encoder.encode(chunk, segment, step, wire);
    }
    const header = this.#header;
    Object.assign(header, this.#spec.frame);
    header.type = FRAME_DATA;
    header.chunk = chunk.program.id;
    header.segment = segment - chunk.firstSegment;
    header.length = bytes;
    const ticket = this.#workspace.ticket();
    ticket.listener = this;
    ticket.segment = segment;
    ticket.slot = encoder === null ? this.#values.holdSlot(segment) : wire;
    ticket.fromMemory = encoder === null && this.#values.isInMemory(segment);
    this.#values.lend(segment, ticket.fromMemory);
    this.bytesSent += HEADER_BYTES + bytes;
    this.#spec.traffic?.sent(rank, HEADER_BYTES + bytes);
    if (ticket.slot !== NO_SLOT) {
      writeHeader(this.#workspace.view, this.#workspace.header(ticket.slot), header);
      port.send(this.#workspace.frame(ticket.slot, bytes), null, ticket.flushed);
    } else {
      writeHeader(ticket.headerView, 0, header);
      const values = this.#values;
      const body = encoder === null ? values.view(chunk, segment, bytes) : encoder.sealed(chunk, segment, bytes);
      port.send(ticket.header, body, ticket.flushed);
    }
    if (!keep) this.#values.drop(segment);
    this.#advance(chunk, segment);
    return true;
  }

  #wireBytes(chunk: Chunk, segment: number): number {
    return wireLength(this.#spec.dtype, this.#spec.codec, chunk.elements(segment));
  }

  /** Called by a ticket when the link has no more use for a segment's bytes. */
  onSegmentFlushed(segment: number, fromMemory: boolean): void {
    this.#values.returned(segment, fromMemory);
    if (this.#alive) this.#afterFlush(segment);
    if (this.drained) this.#spec.onDrained();
  }

  #afterFlush(segment: number): void {
    const chunk = this.#chunks[this.#chunkOf[segment]!]!;
    const ended = this.#step[segment] === chunk.steps.length;
    if (ended && !this.#values.isDone(segment)) {
      this.#finish(chunk, segment);
    } else if (!ended && this.#early.has(segment)) {
      this.#takeEarly(chunk, segment);
      this.pump();
    }
  }

  // --- receiving ---------------------------------------------------------------------------------------------------

  /**
   * A frame of this attempt begins. Everything in its header is compared with what this rank's own program expects; no
   * number from it is used before.
   * @returns what is wrong with it, or null
   */
  beginFrame(cursor: FrameCursor, from: Rank, header: FrameHeader): string | null {
    cursor.discard();
    if (!this.#alive) return null;
    const chunk = this.#chunkById[header.chunk];
    if (chunk === undefined) return `it names chunk ${header.chunk}, in which this rank has no part`;
    if (header.segment >= chunk.segments) return `it names segment ${header.segment} of ${chunk.segments}`;
    const segment = chunk.firstSegment + header.segment;
    const bytes = this.#wireBytes(chunk, segment);
    if (header.length !== bytes) return `its segment has ${header.length} bytes where ${bytes} are expected`;
    const current = this.#step[segment]!;
    const index = chunk.steps.findIndex((step, at) => at >= current && isReceive(step) && step.from === from);
    const arrivesNow = this.#arriving[segment] !== 0 && index === current;
    if (index < 0 || arrivesNow || this.#early.from(segment, from) !== null) {
      return `rank ${from} sent a segment that it does not owe`;
    }
    this.bytesReceived += HEADER_BYTES + bytes;
    this.#spec.traffic?.received(from, HEADER_BYTES + bytes);
    cursor.from = from;
    cursor.segment = segment;
    cursor.at = 0;
    const step = chunk.steps[index]!;
    const lacks = this.#lacks(segment);
    const isTurn = index === current && !lacks && !this.#combiner.takesWhole(step);
    const slot = isTurn ? this.#target(chunk, segment, step) : null;
    if (slot === null) {
      cursor.mode = MODE_EARLY;
      // Late parts of the input are the rule, not the exception, so what waits for them must touch no fresh memory.
      const isNext = index === current && lacks && this.#encoder === null && !this.#combiner.collects(step);
      const room = isNext ? this.#values.room(chunk, segment, bytes) : null;
      cursor.early = this.#early.keep(segment, from, bytes, room);
    } else {
      cursor.mode = MODE_COMBINE;
      cursor.slot = slot;
      this.#arriving[segment] = 1;
    }
    return null;
  }

  /** Part of the payload, in order, in whole elements. */
  payload(cursor: FrameCursor, bytes: Uint8Array, start: number, end: number): void {
    if (!this.#alive) this.abandonFrame(cursor);
    if (cursor.mode === MODE_DISCARD) return;
    if (cursor.mode === MODE_EARLY) {
      copyBytes(cursor.early!.buffer, bytes.subarray(start, end), cursor.at);
    } else {
      const chunk = this.#chunks[this.#chunkOf[cursor.segment]!]!;
      this.#combine(chunk, cursor.segment, cursor.slot, bytes, start, end, cursor.at);
    }
    cursor.at += end - start;
  }

  endFrame(cursor: FrameCursor): void {
    if (!this.#alive) this.abandonFrame(cursor);
    const { mode, segment } = cursor;
    if (mode === MODE_DISCARD) return;
    this.#spec.traffic?.receivedWhole(cursor.from);
    const chunk = this.#chunks[this.#chunkOf[segment]!]!;
    if (mode === MODE_EARLY) {
      cursor.early!.complete = true;
      cursor.early = null;
      if (this.#arriving[segment] === 0) this.#takeEarly(chunk, segment);
    } else {
      this.#arriving[segment] = 0;
      this.#combined(chunk, segment, cursor.slot);
    }
    cursor.discard();
    this.pump();
  }

  /** The transfer, or the connection, ended while a frame was half-way in: gives back the slot that the frame was going to. */
  abandonFrame(cursor: FrameCursor): void {
    if (cursor.mode === MODE_COMBINE && cursor.slot !== NO_SLOT) this.#workspace.release(cursor.slot);
    cursor.early = null;
    cursor.discard();
  }
}
