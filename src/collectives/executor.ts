/**
 * The one executor: runs this rank's plan of one collective, segment by segment, whatever the algorithm, dtype or codec.
 * It is a machine without socket or clock: frames are pushed in, segments are handed to `SegmentPort`s.
 *
 * A segment walks through its chunk's steps on its own. Its current value is at one *place*:
 *
 *     input    the caller's tensor, never written
 *     slot     the arena, hot in the cache: where it is reduced, and from where it is sent
 *     memory   this rank's result, or scratch when the rank keeps no result: used when no slot is free
 *
 * With a codec that drops bits, a value that is sent and still needed is *sealed*: it is encoded once, those bytes go to
 * everyone it is sent to, and it becomes what they decode, here too. What arrives sealed is passed on untouched. Values that are
 * not needed here any more are encoded on their way out.
 *
 * A robust average needs all contributions to a segment at once: its owner keeps them, as it keeps what comes before its turn, until
 * the last has come. So it keeps at most what the others send it of its chunk.
 *
 * Segments that arrived and must go on are sent before new ones are begun. So few segments are under way at a time, each
 * is finished while its bytes are in the cache, and a new one enters the pipeline whenever a link would be idle.
 *
 * The input may come in parts (`ready`). A segment whose first step reads it waits for its own elements only, and for no other
 * segment: so ranks may get their parts in different orders. What comes for it from others meanwhile is kept like what comes
 * before its turn.
 *
 * Invariants: the input is never written. What was handed to a link is not changed before it was flushed. Frames that come
 * before their turn are kept (their number and size follow from this rank's own program), so a link is never blocked.
 */
import { copyBytes } from '../kernels/copy.ts';
import type { LossyCodec } from '../kernels/kernels.ts';
import { DTYPE_BYTES, type Dtype, isFloat, isRobust, type ReduceOp } from '../tensor.ts';
import { emptyHeader, FRAME_DATA, type FrameHeader, HEADER_BYTES, writeHeader } from '../wire/frame.ts';
import type { Span } from '../wire/ranges.ts';
import { BLOCK_ELEMENTS, type Codec, isBlockCodec, roundsByChance, wireLength } from './codec.ts';
import { Pieces } from './pieces.ts';
import {
  type AlgorithmLabel,
  type ChunkProgram,
  type Instruction,
  isProgramLabel,
  type Plan,
  type Rank,
} from './program.ts';
import { averageRows, hasRobustAverages, type RobustAverage } from './robust.ts';
import { type FlushListener, NO_SLOT, STAGE_BYTES, type Workspace } from './workspace.ts';

/** The way to one peer. */
export interface SegmentPort {
  /** Whether another segment should be given to it now. */
  readonly writable: boolean;
  /** As `Connection.write`: the views stay unchanged until `onFlushed`. */
  send(head: Uint8Array, body: Uint8Array | null, onFlushed: () => void): void;
}

/** Is told of what a rank exchanges with others. */
interface Traffic {
  /** Bytes of data with their header were given to the link. */
  sent(rank: Rank, bytes: number): void;
  /** So many bytes begin to come. */
  received(rank: Rank, bytes: number): void;
  /** They have come. */
  receivedWhole(rank: Rank): void;
}

export interface TransferSpec {
  readonly plan: Plan;
  readonly rank: Rank;
  /** What the header of each frame says of the collective and the attempt. */
  readonly frame: Pick<FrameHeader, 'epoch' | 'generation' | 'tag' | 'sequence'>;
  readonly dtype: Dtype;
  /** null: nothing is reduced. */
  readonly op: ReduceOp | null;
  /** What robust averages are made with, as in a call; null for other ops. */
  readonly trim: number | null;
  readonly clipRadius: number | null;
  readonly codec: Codec;
  /** Where codecs that can round by chance take it from; null: they round to the nearest. */
  readonly seed: number | null;
  /** Sum up what encoding drops. */
  readonly measures: boolean;
  /**
   * Receives what this rank's encodings drop, in units of the input and at its place there; null: nobody wants it. It may be the
   * input itself, as what was encoded is not read again.
   */
  readonly dropped: Uint8Array | null;
  /** Ranks whose inputs are in a finished value. */
  readonly contributors: number;
  readonly input: Pieces;
  /** Elements of the input that are there at the start, ascending; `ready` tells of the others. null: all. */
  readonly ready: readonly Span[] | null;
  readonly output: Pieces;
  /** The way to a rank. */
  port(rank: Rank): SegmentPort;
  /** Scratch of so many bytes, for values that neither a slot nor the output can take. */
  scratch(byteLength: number): Uint8Array;
  /** This rank holds the whole result. */
  onHeld(): void;
  /** The links have let go of all bytes that they were given so far. */
  onDrained(): void;
  /** Another twentieth of this rank's segments is done. */
  onProgress(share: number): void;
  /** Is told what goes to and fro; null: nobody wants to know. */
  readonly traffic: Traffic | null;
  /** Elements `start` to `end` of the output have their final values; null: nobody wants to know. */
  readonly onFinished: ((start: number, end: number) => void) | null;
}

/**
 * Where each peer adds up a chunk of its own, none gets so many segments more than another. Connections share a link unevenly:
 * without this, owners soon have much of one rank and nothing of the next, and no sum to send while the link is idle.
 */
const MAX_LEAD = 2;

/** Calls of `onProgress` per transfer. */
const PROGRESS_STEPS = 20;

const PLACE_NONE = 0;
const PLACE_INPUT = 1;
const PLACE_SLOT = 2;
const PLACE_MEMORY = 3;
const PLACE_DONE = 4;

/** One chunk of this rank's plan, with what can be known before it runs. */
interface ChunkState {
  readonly program: ChunkProgram;
  readonly steps: readonly Instruction[];
  readonly firstSegment: number;
  readonly segments: number;
  /** Whether the value is still needed after step k. */
  readonly neededAfter: readonly boolean[];
  /** Whether what step k takes is sent on as it came. */
  readonly passesOn: readonly boolean[];
  /** The step after which the value is final here; −1: another rank finishes it. */
  readonly finishingStep: number;
  /** Where values live that are in no slot: the rank's result, else scratch (made on first use). */
  memory: Pieces | null;
  /** Where the chunk begins in that memory, in bytes. */
  readonly base: number;
  /** Encoded bytes of sealed segments, made on first use. They are written once. */
  sealed: Uint8Array | null;
}

/** What goes to one peer. */
interface Outbox {
  readonly rank: Rank;
  readonly port: SegmentPort;
  /** Segments whose first step sends to it, in the order in which they are begun. */
  readonly begin: number[];
  /** So many of them have been begun. */
  begun: number;
  /** Segments that arrived and go on to this peer, oldest first. */
  readonly forward: number[];
  forwardHead: number;
}

/** A frame that is kept until its turn comes, or until it is whole. */
interface EarlyFrame {
  from: Rank;
  /** May be longer than the frame. */
  buffer: Uint8Array;
  length: number;
  complete: boolean;
  /** The buffer is where the segment's result will be. */
  inPlace: boolean;
  /** Of the same segment, in no order. */
  next: EarlyFrame | null;
}

const NO_BYTES = new Uint8Array(0);

const MODE_DISCARD = 0;
const MODE_EARLY = 1;
const MODE_REDUCE = 2;
const MODE_REPLACE = 3;

/** A frame on its way in from one connection. One per connection, reused. */
export class FrameCursor {
  transfer: Transfer | null = null;
  mode: number = MODE_DISCARD;
  from = 0;
  segment = 0;
  /** Payload bytes taken so far. */
  at = 0;
  early: EarlyFrame | null = null;
  /** Slot that the value goes to, or `NO_SLOT` for the chunk's memory. */
  slot: number = NO_SLOT;

  discard(): void {
    this.transfer = null;
    this.mode = MODE_DISCARD;
  }
}

function isReceive(step: Instruction): step is Extract<Instruction, { from: Rank }> {
  return step.do !== 'send';
}

function lastIndex(steps: readonly Instruction[], kind: Instruction['do']): number {
  return steps.map((step) => step.do).lastIndexOf(kind);
}

function neededAfter(program: ChunkProgram): boolean[] {
  const needed: boolean[] = new Array(program.steps.length);
  let later = program.output !== null;
  for (let index = program.steps.length - 1; index >= 0; index--) {
    needed[index] = later;
    later = program.steps[index]!.do !== 'replace';
  }
  return needed;
}

/** Whether several ranks may compute a finished value for themselves. */
function isFinishedBySeveral(algorithm: AlgorithmLabel): boolean {
  return algorithm === 'doubling' || isProgramLabel(algorithm);
}

/** Whether a step takes a finished value that is sent on later. */
function passesOn({ steps }: ChunkProgram): boolean[] {
  const lastSend = lastIndex(steps, 'send');
  return steps.map((step, index) => step.do === 'replace' && index < lastSend);
}

export class Transfer implements FlushListener {
  readonly #workspace: Workspace;
  readonly #spec: TransferSpec;
  readonly #elementBytes: number;
  readonly #lossy: boolean;
  /** Every owner needs something of every rank. */
  readonly #beginsEvenly: boolean;
  /** Blocks may be cut anywhere by the network: they are put together before they are decoded. */
  readonly #decodesWhole: boolean;
  readonly #segmentElements: number;
  /** Elements that are staged at a time: whole blocks. */
  readonly #partElements: number;
  /** What all contributions to a segment are worked into at once; null: they are combined one by one. */
  readonly #robust: RobustAverage | null;
  readonly #chunks: ChunkState[] = [];
  readonly #chunkById: (ChunkState | undefined)[] = [];
  readonly #outboxes: Outbox[] = [];
  readonly #outboxOf: (Outbox | undefined)[] = [];
  readonly #header: FrameHeader = emptyHeader();

  readonly #chunkOf: Int32Array;
  readonly #step: Uint16Array;
  readonly #place: Uint8Array;
  readonly #slot: Int16Array;
  readonly #inFlight: Uint16Array;
  /** Of those in flight, how many are sent from memory: it must not be written while there are any. */
  readonly #memoryInFlight: Uint16Array;
  readonly #arriving: Uint8Array;
  readonly #sealed: Uint8Array;
  /** Elements of the input that each segment still lacks; null: it was there from the start. */
  readonly #lacking: Uint32Array | null;
  readonly #early: (EarlyFrame | null)[];
  readonly #spareFrames: EarlyFrame[] = [];

  #alive = true;
  #finished = 0;
  #begun = 0;
  #totalInFlight = 0;
  /** Data bytes, headers included. */
  bytesSent = 0;
  bytesReceived = 0;
  /** Sums of squares, if they are measured: of what this rank encoded, and of what that dropped. */
  encodedEnergy = 0;
  droppedEnergy = 0;

  constructor(workspace: Workspace, spec: TransferSpec) {
    this.#workspace = workspace;
    this.#spec = spec;
    this.#elementBytes = DTYPE_BYTES[spec.dtype];
    this.#lossy = spec.codec !== 'f32';
    this.#beginsEvenly = spec.plan.algorithm === 'direct' && spec.op !== null;
    this.#decodesWhole = isBlockCodec(spec.codec);
    const block = BLOCK_ELEMENTS[spec.codec];
    this.#segmentElements = Math.floor(workspace.segmentBytes / this.#elementBytes / block) * block;
    this.#partElements = Math.floor(STAGE_BYTES / this.#elementBytes / block) * block;
    if (this.#segmentElements === 0)
      throw new Error(`a segment of ${workspace.segmentBytes} bytes has no block of ${block}`);
    const { op, trim, clipRadius } = spec;
    this.#robust = isRobust(op) ? { op, trim, clipRadius } : null;
    let segments = 0;
    for (const program of spec.plan.chunks) {
      const count = Math.ceil(program.count / this.#segmentElements);
      if (count === 0) continue;
      const chunk = this.#describe(program, segments, count);
      this.#chunks.push(chunk);
      this.#chunkById[program.id] = chunk;
      segments += count;
    }
    this.#chunkOf = new Int32Array(segments);
    this.#step = new Uint16Array(segments);
    this.#place = new Uint8Array(segments);
    this.#slot = new Int16Array(segments).fill(NO_SLOT);
    this.#inFlight = new Uint16Array(segments);
    this.#memoryInFlight = new Uint16Array(segments);
    this.#arriving = new Uint8Array(segments);
    this.#sealed = new Uint8Array(segments);
    this.#early = new Array<EarlyFrame | null>(segments).fill(null);
    this.#chunks.forEach((chunk, index) => {
      this.#chunkOf.fill(index, chunk.firstSegment, chunk.firstSegment + chunk.segments);
    });
    this.#lacking = spec.ready === null ? null : this.#lackingWithout(spec.ready);
  }

  #lackingWithout(ready: readonly Span[]): Uint32Array {
    const lacking = new Uint32Array(this.#chunkOf.length);
    for (const chunk of this.#chunks) {
      if (chunk.program.input === null) continue;
      for (let index = 0; index < chunk.segments; index++) {
        const segment = chunk.firstSegment + index;
        lacking[segment] = this.#elements(chunk, segment);
      }
    }
    for (const { start, end } of ready) this.#take(lacking, start, end, null);
    return lacking;
  }

  /** Elements `start` to `end` are there. Tells of the segments that lack nothing any more. */
  #take(
    lacking: Uint32Array,
    start: number,
    end: number,
    onComplete: ((chunk: ChunkState, segment: number) => void) | null,
  ): void {
    const size = this.#segmentElements;
    for (const chunk of this.#chunks) {
      const { input, count } = chunk.program;
      if (input === null) continue;
      const from = Math.max(start - input, 0);
      const to = Math.min(end - input, count);
      for (let at = from; at < to; ) {
        const index = Math.floor(at / size);
        const next = Math.min(to, (index + 1) * size);
        const segment = chunk.firstSegment + index;
        lacking[segment]! -= next - at;
        if (lacking[segment] === 0) onComplete?.(chunk, segment);
        at = next;
      }
    }
  }

  /** Whether a segment's own part of the input is not there yet, which its first step reads. */
  #lacks(segment: number): boolean {
    return this.#lacking !== null && this.#lacking[segment] !== 0;
  }

  #describe(program: ChunkProgram, firstSegment: number, segments: number): ChunkState {
    const { steps } = program;
    const lastReduce = lastIndex(steps, 'reduce');
    const finishes = program.output !== null && lastReduce >= 0 && lastIndex(steps, 'replace') < 0;
    return {
      program,
      steps,
      firstSegment,
      segments,
      neededAfter: neededAfter(program),
      passesOn: passesOn(program),
      finishingStep: finishes ? lastReduce : -1,
      memory: program.output === null ? null : this.#spec.output,
      base: (program.output ?? 0) * this.#elementBytes,
      sealed: null,
    };
  }

  /** Share of this rank's segments that are done, 0 to 1. */
  get progress(): number {
    return this.#step.length === 0 ? 1 : this.#finished / this.#step.length;
  }

  get held(): boolean {
    return this.#finished === this.#step.length;
  }

  /** Elements of the output that have their final values. */
  finishedSpans(): readonly Span[] {
    const spans: Span[] = [];
    for (const chunk of this.#chunks) {
      const { output } = chunk.program;
      if (output === null) continue;
      for (let index = 0; index < chunk.segments; index++) {
        const segment = chunk.firstSegment + index;
        if (this.#place[segment] !== PLACE_DONE) continue;
        const start = output + index * this.#segmentElements;
        spans.push({ start, end: start + this.#elements(chunk, segment) });
      }
    }
    return spans;
  }

  /** No link refers to this transfer's memory any more. */
  get drained(): boolean {
    return this.#totalInFlight === 0;
  }

  /** Ranks whose data this rank still waits for. Where its own is not there yet, it waits for nobody else. */
  get waitsFor(): readonly Rank[] {
    const ranks = new Set<Rank>();
    for (const chunk of this.#chunks) {
      for (let index = 0; index < chunk.segments; index++) {
        const segment = chunk.firstSegment + index;
        const step = chunk.steps[this.#step[segment]!];
        if (step === undefined || !isReceive(step) || this.#lacks(segment)) continue;
        if (this.#collects(step)) for (const rank of this.#missing(chunk, segment)) ranks.add(rank);
        else ranks.add(step.from);
      }
    }
    return [...ranks];
  }

  /** Whether what a step takes is kept until all contributions are there. */
  #collects(step: Instruction): boolean {
    return this.#robust !== null && step.do === 'reduce';
  }

  /** Ranks whose contributions to a robust average have not come yet. */
  #missing(chunk: ChunkState, segment: number): Rank[] {
    const contributions = chunk.steps.slice(this.#step[segment]!, chunk.finishingStep + 1).filter(isReceive);
    return contributions.map(({ from }) => from).filter((from) => this.#earlyFrom(segment, from)?.complete !== true);
  }

  /** Begins: segments whose first step is a send are queued, those without steps are finished. */
  start(): void {
    for (const chunk of this.#chunks) {
      const place = chunk.program.input === null ? PLACE_NONE : PLACE_INPUT;
      this.#place.fill(place, chunk.firstSegment, chunk.firstSegment + chunk.segments);
      for (let index = 0; index < chunk.segments; index++) {
        const segment = chunk.firstSegment + index;
        if (!this.#lacks(segment)) this.#setOut(chunk, segment);
      }
    }
    if (this.#step.length === 0) this.#spec.onHeld();
    this.pump();
  }

  /** Elements `start` to `end` of the input are there, and won't change any more. Each is told of once, after `start`. */
  ready(start: number, end: number): void {
    if (!this.#alive || this.#lacking === null) return;
    this.#take(this.#lacking, start, end, (chunk, segment) => this.#setOut(chunk, segment));
    this.pump();
  }

  /** A segment can take its first step. */
  #setOut(chunk: ChunkState, segment: number): void {
    const first = chunk.steps[0];
    if (first === undefined) this.#finish(chunk, segment);
    else if (first.do === 'send') this.#outbox(first.to).begin.push(segment);
    else this.#takeEarly(chunk, segment);
  }

  /** Stops for good; bytes that are still in flight are released as they are flushed, frames that still come are dropped. */
  cancel(): void {
    if (!this.#alive) return;
    this.#alive = false;
    for (let segment = 0; segment < this.#slot.length; segment++) this.#dropSlot(segment);
    // Not given back to the workspace: a frame that is still coming in may refer to them until it is abandoned.
    this.#early.fill(null);
  }

  /** Hands segments to every link that takes them. To be called when a link has become writable. */
  pump(): void {
    if (!this.#alive) return;
    let begun: number;
    do {
      begun = this.#begun;
      for (let index = 0; index < this.#outboxes.length; index++) this.#pumpOutbox(this.#outboxes[index]!);
      // What was begun for one may let another go on.
    } while (this.#beginsEvenly && this.#begun > begun);
  }

  #outbox(rank: Rank): Outbox {
    let outbox = this.#outboxOf[rank];
    if (outbox === undefined) {
      outbox = {
        rank,
        port: this.#spec.port(rank),
        begin: [],
        begun: 0,
        forward: [],
        forwardHead: 0,
      };
      this.#outboxOf[rank] = outbox;
      this.#outboxes.push(outbox);
    }
    return outbox;
  }

  #pumpOutbox(outbox: Outbox): void {
    while (outbox.port.writable) {
      if (outbox.forwardHead < outbox.forward.length) {
        if (!this.#send(outbox, outbox.forward[outbox.forwardHead]!)) return;
        outbox.forwardHead += 1;
        if (outbox.forwardHead === outbox.forward.length) {
          outbox.forward.length = 0;
          outbox.forwardHead = 0;
        }
      } else {
        const segment = outbox.begin[outbox.begun];
        if (segment === undefined || (this.#beginsEvenly && this.#leads(outbox))) return;
        outbox.begun += 1;
        this.#begun += 1;
        if (!this.#send(outbox, segment)) {
          outbox.forward.push(segment);
          return;
        }
      }
    }
  }

  #leads(outbox: Outbox): boolean {
    for (let index = 0; index < this.#outboxes.length; index++) {
      const other = this.#outboxes[index]!;
      const isBehind = other.begun + MAX_LEAD <= outbox.begun;
      if (isBehind && other.begun < other.begin.length) return true;
    }
    return false;
  }

  #elements(chunk: ChunkState, segment: number): number {
    const start = (segment - chunk.firstSegment) * this.#segmentElements;
    return Math.min(this.#segmentElements, chunk.program.count - start);
  }

  /** Byte offset of a segment in its chunk. */
  #offset(chunk: ChunkState, segment: number): number {
    return (segment - chunk.firstSegment) * this.#segmentElements * this.#elementBytes;
  }

  #memory(chunk: ChunkState): Pieces {
    chunk.memory ??= new Pieces([this.#spec.scratch(chunk.program.count * this.#elementBytes)]);
    return chunk.memory;
  }

  /** Copies part of the current value, which is not in a slot, to the arena. */
  #loadValue(chunk: ChunkState, segment: number, from: number, to: number, target: number): void {
    const offset = this.#offset(chunk, segment);
    if (this.#place[segment] === PLACE_INPUT) {
      const base = chunk.program.input! * this.#elementBytes + offset;
      this.#spec.input.copyTo(this.#workspace.bytes, target, base + from, base + to);
    } else {
      const base = chunk.base + offset;
      this.#memory(chunk).copyTo(this.#workspace.bytes, target, base + from, base + to);
    }
  }

  // --- sending -----------------------------------------------------------------------------------------------------

  /** Sends the value to the peer of the segment's current step; false when it must wait for a slot. */
  #send(outbox: Outbox, segment: number): boolean {
    const chunk = this.#chunks[this.#chunkOf[segment]!]!;
    const count = this.#elements(chunk, segment);
    const bytes = wireLength(this.#spec.dtype, this.#spec.codec, count);
    const keep = chunk.neededAfter[this.#step[segment]!] === true;
    if (this.#lossy && keep && this.#sealed[segment] === 0) this.#seal(chunk, segment, count);
    const sealed = this.#sealed[segment] !== 0;
    let wire = NO_SLOT;
    if (this.#lossy && !sealed) {
      wire = this.#workspace.acquireWire();
      if (wire === NO_SLOT) return false;
      this.#encode(chunk, segment, count, wire);
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
    ticket.slot = wire;
    if (!this.#lossy && this.#place[segment] === PLACE_SLOT) {
      ticket.slot = this.#slot[segment]!;
      this.#workspace.retain(ticket.slot);
    }
    ticket.fromMemory = !this.#lossy && ticket.slot === NO_SLOT && this.#place[segment] === PLACE_MEMORY;
    if (ticket.fromMemory) this.#memoryInFlight[segment]! += 1;
    this.#inFlight[segment]! += 1;
    this.#totalInFlight += 1;
    this.bytesSent += HEADER_BYTES + bytes;
    this.#spec.traffic?.sent(outbox.rank, HEADER_BYTES + bytes);
    if (ticket.slot !== NO_SLOT) {
      writeHeader(this.#workspace.view, this.#workspace.header(ticket.slot), header);
      outbox.port.send(this.#workspace.frame(ticket.slot, bytes), null, ticket.flushed);
    } else {
      writeHeader(ticket.headerView, 0, header);
      const body = sealed ? this.#sealedBytes(chunk, segment, bytes) : this.#valueInMemory(chunk, segment, bytes);
      outbox.port.send(ticket.header, body, ticket.flushed);
    }
    if (!keep) this.#dropSlot(segment);
    this.#advance(chunk, segment);
    return true;
  }

  /** The value's own memory; a copy where that is in several pieces, which is seldom: a value is in one or two as a rule. */
  #valueInMemory(chunk: ChunkState, segment: number, bytes: number): Uint8Array {
    const isInput = this.#place[segment] === PLACE_INPUT;
    const start = (isInput ? chunk.program.input! * this.#elementBytes : chunk.base) + this.#offset(chunk, segment);
    const memory = isInput ? this.#spec.input : this.#memory(chunk);
    const view = memory.view(start, start + bytes);
    if (view !== null) return view;
    const copy = this.#spec.scratch(bytes);
    memory.copyTo(copy, 0, start, start + bytes);
    return copy;
  }

  #sealedBytes(chunk: ChunkState, segment: number, bytes: number): Uint8Array {
    const { dtype, codec } = this.#spec;
    chunk.sealed ??= this.#spec.scratch(wireLength(dtype, codec, chunk.program.count));
    const offset = (segment - chunk.firstSegment) * wireLength(dtype, codec, this.#segmentElements);
    return chunk.sealed.subarray(offset, offset + bytes);
  }

  /** Encodes the value once for all to whom it is sent. It becomes what they decode, so that all ranks go on with the same bits. */
  #seal(chunk: ChunkState, segment: number, count: number): void {
    this.#encode(chunk, segment, count, NO_SLOT);
    if (this.#place[segment] !== PLACE_SLOT) this.#place[segment] = PLACE_MEMORY;
    this.#sealed[segment] = 1;
  }

  /** Encodes the value into a wire slot, after which it is not needed, or without one into the chunk's sealed bytes. */
  #encode(chunk: ChunkState, segment: number, count: number, wire: number): void {
    const { bytes, kernels, stageOwn, stageArrived, stageWire } = this.#workspace;
    const { dtype, measures, dropped } = this.#spec;
    const codec = this.#spec.codec as LossyCodec; // the caller has excluded 'f32'
    const inSlot = this.#place[segment] === PLACE_SLOT;
    const seals = wire === NO_SLOT;
    const sealed = seals ? this.#sealedBytes(chunk, segment, wireLength(dtype, codec, count)) : null;
    for (let done = 0; done < count; done += this.#partElements) {
      const part = Math.min(this.#partElements, count - done);
      const at = wireLength(dtype, codec, done);
      const target = seals ? stageWire : this.#workspace.payload(wire) + at;
      const value = inSlot ? this.#workspace.payload(this.#slot[segment]!) + done * 4 : stageOwn;
      if (!inSlot) this.#loadValue(chunk, segment, done * 4, (done + part) * 4, value);
      this.#encodePart(chunk, segment, done, part, target, value);
      sealed?.set(bytes.subarray(target, target + wireLength(dtype, codec, part)), at);
      if (!seals && !measures && dropped === null) continue;
      kernels.decode(codec, stageArrived, target, part);
      if (measures || dropped !== null) this.#noteDropped(chunk, segment, done, part, value);
      if (!seals) continue;
      if (inSlot) bytes.copyWithin(value, stageArrived, stageArrived + part * 4);
      else this.#storeStaged(chunk, segment, stageArrived, done * 4, (done + part) * 4);
    }
  }

  #encodePart(chunk: ChunkState, segment: number, done: number, part: number, target: number, value: number): void {
    const { kernels } = this.#workspace;
    const { seed } = this.#spec;
    const codec = this.#spec.codec as LossyCodec; // as in #encode
    if (seed === null || !roundsByChance(codec)) kernels.encode(codec, target, value, part);
    else kernels.encodeByChance(codec, target, value, part, seed, this.#index(chunk, segment) + done);
  }

  /** `value` has been encoded, and decoded again to `stageArrived`. It is overwritten: nothing needs it as it was. */
  #noteDropped(chunk: ChunkState, segment: number, done: number, part: number, value: number): void {
    const { bytes, kernels, stageArrived } = this.#workspace;
    const { dropped, measures, op, contributors } = this.#spec;
    // An average drops as much as so many times that in one contribution to it.
    const isAverage = op === 'avg' && chunk.finishingStep >= 0 && this.#step[segment]! > chunk.finishingStep;
    const factor = isAverage ? contributors : 1;
    if (measures) this.encodedEnergy += kernels.energy(value, part);
    kernels.dropped(value, value, stageArrived, part, factor);
    if (measures) this.droppedEnergy += kernels.energy(value, part) / factor ** 2;
    const offset = (this.#index(chunk, segment) + done) * 4;
    dropped?.set(bytes.subarray(value, value + part * 4), offset);
  }

  /** Place of a segment's first element in the tensor. */
  #index(chunk: ChunkState, segment: number): number {
    const { input, output } = chunk.program;
    return (input ?? output ?? 0) + (segment - chunk.firstSegment) * this.#segmentElements;
  }

  #storeStaged(chunk: ChunkState, segment: number, source: number, from: number, to: number): void {
    const offset = this.#offset(chunk, segment);
    this.#memory(chunk).set(this.#workspace.bytes.subarray(source, source + to - from), chunk.base + offset + from);
  }

  /** Called by a ticket when the link has no more use for a segment's bytes. */
  onSegmentFlushed(segment: number, fromMemory: boolean): void {
    if (fromMemory) this.#memoryInFlight[segment]! -= 1;
    this.#inFlight[segment]! -= 1;
    this.#totalInFlight -= 1;
    if (this.#alive) this.#afterFlush(segment);
    if (this.#totalInFlight === 0) this.#spec.onDrained();
  }

  #afterFlush(segment: number): void {
    const chunk = this.#chunks[this.#chunkOf[segment]!]!;
    const ended = this.#step[segment] === chunk.steps.length;
    if (ended && this.#place[segment] !== PLACE_DONE) {
      this.#finish(chunk, segment);
    } else if (!ended && this.#early[segment] !== null) {
      this.#takeEarly(chunk, segment);
      this.pump();
    }
  }

  // --- walking through the steps -----------------------------------------------------------------------------------

  #advance(chunk: ChunkState, segment: number): void {
    this.#step[segment]! += 1;
    const step = chunk.steps[this.#step[segment]!];
    if (step === undefined) this.#finish(chunk, segment);
    else if (step.do === 'send') this.#outbox(step.to).forward.push(segment);
    else this.#takeEarly(chunk, segment);
  }

  /** Works in a frame that came before its turn, when the current step waits for it. */
  #takeEarly(chunk: ChunkState, segment: number): void {
    const step = chunk.steps[this.#step[segment]!];
    if (step === undefined || step.do === 'send' || this.#lacks(segment)) return;
    if (this.#collects(step)) {
      this.#takeAll(chunk, segment, step);
      return;
    }
    const frame = this.#earlyFrom(segment, step.from);
    if (frame === null || !frame.complete) return;
    const slot = this.#target(chunk, segment, step);
    if (slot === null) return;
    this.#apply(chunk, segment, step, slot, frame.buffer, 0, frame.length, 0);
    this.#dropEarly(segment, frame);
    this.#applied(chunk, segment, slot);
  }

  /** Makes a robust average of all contributions, once the last of them has come. */
  #takeAll(chunk: ChunkState, segment: number, step: Instruction): void {
    const frames: EarlyFrame[] = [];
    for (let frame = this.#early[segment] ?? null; frame !== null; frame = frame.next) {
      if (frame.complete) frames.push(frame);
    }
    if (frames.length <= chunk.finishingStep - this.#step[segment]!) return;
    const slot = this.#target(chunk, segment, step);
    if (slot === null) return;
    this.#averageFrames(chunk, segment, slot, frames);
    for (const frame of frames) this.#dropEarly(segment, frame);
    this.#step[segment] = chunk.finishingStep;
    this.#applied(chunk, segment, slot);
  }

  /** Row 0 is this rank's own contribution, the others are those of the frames. */
  #averageFrames(chunk: ChunkState, segment: number, slot: number, frames: readonly EarlyFrame[]): void {
    const { bytes, kernels, stageOwn, stageRows, stageWire } = this.#workspace;
    const { codec, dtype } = this.#spec;
    const size = this.#elementBytes;
    const count = this.#elements(chunk, segment);
    const stride = this.#workspace.rowStride(1 + frames.length);
    const most = Math.floor(stride / size / BLOCK_ELEMENTS[codec]) * BLOCK_ELEMENTS[codec];
    const rows = { offset: stageRows, stride, count: 1 + frames.length };
    // Options that would lead here are refused before a call is made.
    if (this.#robust === null || !hasRobustAverages(dtype) || most === 0 || rows.count !== this.#spec.contributors)
      throw new Error(`no robust average of ${rows.count} contributions in ${codec}, of ${dtype}`);
    for (let done = 0; done < count; done += most) {
      const part = Math.min(most, count - done);
      const from = wireLength(dtype, codec, done);
      const to = from + wireLength(dtype, codec, part);
      this.#loadValue(chunk, segment, done * size, (done + part) * size, stageRows);
      for (const [index, { buffer }] of frames.entries()) {
        const row = stageRows + (1 + index) * stride;
        if (codec === 'f32') bytes.set(buffer.subarray(from, to), row);
        else kernels.decode(codec, row, this.#workspace.locate(buffer, from, to, stageWire), part);
      }
      const target = slot === NO_SLOT ? stageOwn : this.#workspace.payload(slot) + done * size;
      averageRows(kernels, dtype, this.#robust, target, rows, part);
      if (slot === NO_SLOT) this.#storeStaged(chunk, segment, target, done * size, (done + part) * size);
    }
  }

  /** A kept frame has been worked in. */
  #dropEarly(segment: number, frame: EarlyFrame): void {
    this.#unlink(segment, frame);
    if (!frame.inPlace) this.#workspace.giveBuffer(frame.buffer);
    frame.buffer = NO_BYTES;
    this.#spareFrames.push(frame);
  }

  #earlyFrom(segment: number, from: Rank): EarlyFrame | null {
    let frame = this.#early[segment] ?? null;
    while (frame !== null && frame.from !== from) frame = frame.next;
    return frame;
  }

  /** @param room where the frame can be kept; null: in a buffer of its own */
  #keepEarly(segment: number, from: Rank, length: number, room: Uint8Array | null): EarlyFrame {
    const spare = this.#spareFrames.pop();
    const frame = spare ?? { from, buffer: NO_BYTES, length, complete: false, inPlace: false, next: null };
    frame.from = from;
    frame.buffer = room ?? this.#workspace.takeBuffer(length);
    frame.length = length;
    frame.complete = false;
    frame.inPlace = room !== null;
    frame.next = this.#early[segment] ?? null;
    this.#early[segment] = frame;
    return frame;
  }

  #unlink(segment: number, frame: EarlyFrame): void {
    let before = this.#early[segment] ?? null;
    if (before === frame) {
      this.#early[segment] = frame.next;
      return;
    }
    while (before !== null && before.next !== frame) before = before.next;
    if (before !== null) before.next = frame.next;
  }

  #finish(chunk: ChunkState, segment: number): void {
    if (chunk.program.output !== null && this.#place[segment] !== PLACE_MEMORY) {
      if (this.#memoryInFlight[segment] !== 0) return; // comes back when it has left
      this.#storeResult(chunk, segment);
    }
    // What goes nowhere loses nothing.
    if (chunk.steps.length === 0 && this.#spec.dropped !== null) this.#clearDropped(chunk, segment);
    this.#place[segment] = PLACE_DONE;
    this.#dropSlot(segment);
    const before = this.progress;
    this.#finished += 1;
    if (chunk.program.output !== null && this.#spec.onFinished !== null) {
      const start = chunk.program.output + (segment - chunk.firstSegment) * this.#segmentElements;
      this.#spec.onFinished(start, start + this.#elements(chunk, segment));
    }
    if (Math.floor(before * PROGRESS_STEPS) !== Math.floor(this.progress * PROGRESS_STEPS))
      this.#spec.onProgress(this.progress);
    if (this.#finished === this.#step.length) this.#spec.onHeld();
  }

  #clearDropped(chunk: ChunkState, segment: number): void {
    const first = this.#index(chunk, segment) * this.#elementBytes;
    this.#spec.dropped?.fill(0, first, first + this.#elements(chunk, segment) * this.#elementBytes);
  }

  #storeResult(chunk: ChunkState, segment: number): void {
    const offset = this.#offset(chunk, segment);
    const bytes = this.#elements(chunk, segment) * this.#elementBytes;
    const memory = this.#memory(chunk);
    const to = chunk.base + offset;
    if (this.#place[segment] === PLACE_SLOT) {
      const source = this.#workspace.payload(this.#slot[segment]!);
      memory.set(this.#workspace.bytes.subarray(source, source + bytes), to);
      return;
    }
    const source = this.#valueInMemory(chunk, segment, bytes);
    const target = memory.view(to, to + bytes);
    const same = source.buffer === target?.buffer && source.byteOffset === target.byteOffset;
    if (!same) memory.set(source, to);
  }

  #dropSlot(segment: number): void {
    const slot = this.#slot[segment]!;
    if (slot === NO_SLOT) return;
    this.#slot[segment] = NO_SLOT;
    this.#workspace.release(slot);
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
    const bytes = wireLength(this.#spec.dtype, this.#spec.codec, this.#elements(chunk, segment));
    if (header.length !== bytes) return `its segment has ${header.length} bytes where ${bytes} are expected`;
    const current = this.#step[segment]!;
    const index = chunk.steps.findIndex((step, at) => at >= current && isReceive(step) && step.from === from);
    const arrivesNow = this.#arriving[segment] !== 0 && index === current;
    if (index < 0 || arrivesNow || this.#earlyFrom(segment, from) !== null) {
      return `rank ${from} sent a segment that it does not owe`;
    }
    this.bytesReceived += HEADER_BYTES + bytes;
    this.#spec.traffic?.received(from, HEADER_BYTES + bytes);
    cursor.transfer = this;
    cursor.from = from;
    cursor.segment = segment;
    cursor.at = 0;
    const step = chunk.steps[index]!;
    const isWhole = this.#decodesWhole || this.#collects(step);
    const lacks = this.#lacks(segment);
    const slot = index === current && !isWhole && !lacks ? this.#target(chunk, segment, step) : null;
    if (slot === null) {
      cursor.mode = MODE_EARLY;
      // Late parts of the input are the rule, not the exception, so what waits for them must touch no fresh memory.
      const isNext = index === current && lacks && !this.#lossy && !this.#collects(step);
      const start = chunk.base + this.#offset(chunk, segment);
      const room = isNext ? this.#memory(chunk).view(start, start + bytes) : null;
      cursor.early = this.#keepEarly(segment, from, bytes, room);
    } else {
      cursor.mode = step.do === 'reduce' ? MODE_REDUCE : MODE_REPLACE;
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
      const step = chunk.steps[this.#step[cursor.segment]!]!;
      this.#apply(chunk, cursor.segment, step, cursor.slot, bytes, start, end, cursor.at);
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
      this.#applied(chunk, segment, cursor.slot);
    }
    cursor.discard();
    this.pump();
  }

  /** The transfer, or the connection, ended while a frame was half-way in: gives back the slot that the frame was going to. */
  abandonFrame(cursor: FrameCursor): void {
    const arriving = cursor.mode === MODE_REDUCE || cursor.mode === MODE_REPLACE;
    if (arriving && cursor.slot !== NO_SLOT) this.#workspace.release(cursor.slot);
    cursor.early = null;
    cursor.discard();
  }

  /**
   * Where the new value of a segment goes: a slot of its own (with a reference for the cursor), `NO_SLOT` for the chunk's
   * memory, or null when it must wait until bytes in flight have left.
   */
  #target(chunk: ChunkState, segment: number, step: Instruction): number | null {
    const memory = this.#memoryInFlight[segment] === 0 ? NO_SLOT : null;
    if (step.do === 'replace' && chunk.program.output !== null) return memory;
    if (this.#place[segment] === PLACE_SLOT && this.#inFlight[segment] === 0) {
      this.#workspace.retain(this.#slot[segment]!);
      return this.#slot[segment]!;
    }
    const slot = this.#workspace.acquire();
    return slot === NO_SLOT ? memory : slot;
  }

  /** Works part of an arrived value in. `at` is the byte offset of `bytes[start]` in the segment's wire bytes. */
  #apply(
    chunk: ChunkState,
    segment: number,
    step: Instruction,
    slot: number,
    bytes: Uint8Array,
    start: number,
    end: number,
    at: number,
  ): void {
    const { dtype, codec } = this.#spec;
    if (step.do === 'replace' && !this.#lossy) {
      if (slot === NO_SLOT) {
        const part = start === 0 && end === bytes.length ? bytes : bytes.subarray(start, end);
        this.#memory(chunk).set(part, chunk.base + this.#offset(chunk, segment) + at);
      } else {
        copyBytes(this.#workspace.bytes, bytes.subarray(start, end), this.#workspace.payload(slot) + at);
      }
      return;
    }
    if (this.#lossy && chunk.passesOn[this.#step[segment]!]) {
      this.#sealedBytes(chunk, segment, at + end - start).set(bytes.subarray(start, end), at);
    }
    // Blocks come whole, so `at` is 0 then.
    const size = wireLength(dtype, codec, 1);
    const first = this.#decodesWhole ? 0 : at / size;
    const count = this.#decodesWhole ? this.#elements(chunk, segment) : (end - start) / size;
    for (let done = 0; done < count; done += this.#partElements) {
      const part = Math.min(this.#partElements, count - done);
      const from = start + wireLength(dtype, codec, done);
      const to = from + wireLength(dtype, codec, part);
      this.#applyPart(chunk, segment, step, slot, bytes, from, to, first + done, part);
    }
  }

  /** At most `STAGE_BYTES` of values: the wire bytes `from` to `to`. `index` is the place of the first in the segment. */
  #applyPart(
    chunk: ChunkState,
    segment: number,
    step: Instruction,
    slot: number,
    bytes: Uint8Array,
    from: number,
    to: number,
    index: number,
    count: number,
  ): void {
    const { kernels, stageOwn, stageArrived, stageWire } = this.#workspace;
    const { codec, dtype } = this.#spec;
    const first = index * this.#elementBytes;
    const last = first + count * this.#elementBytes;
    let arrived: number;
    if (codec === 'f32') {
      arrived = this.#workspace.locate(bytes, from, to, stageArrived);
    } else {
      kernels.decode(codec, stageArrived, this.#workspace.locate(bytes, from, to, stageWire), count);
      arrived = stageArrived;
    }
    if (step.do !== 'reduce') {
      if (slot === NO_SLOT) this.#storeStaged(chunk, segment, arrived, first, last);
      else this.#workspace.bytes.copyWithin(this.#workspace.payload(slot) + first, arrived, arrived + last - first);
      return;
    }
    const result = slot === NO_SLOT ? stageOwn : this.#workspace.payload(slot) + first;
    let own = result;
    if (this.#place[segment] === PLACE_SLOT) own = this.#workspace.payload(this.#slot[segment]!) + first;
    else this.#loadValue(chunk, segment, first, last, own);
    const arrivedIsLeft = step.from < this.#spec.rank;
    const { op: asked } = this.#spec;
    // An average is divided when its sum is whole; what is robust does not come here.
    const op = asked === 'avg' || asked === null || isRobust(asked) ? 'sum' : asked;
    kernels.reduce(dtype, op, result, arrivedIsLeft ? arrived : own, arrivedIsLeft ? own : arrived, count);
    if (slot === NO_SLOT) this.#storeStaged(chunk, segment, result, first, last);
  }

  /** The whole segment has been worked in: takes over its new place and goes on. */
  #applied(chunk: ChunkState, segment: number, slot: number): void {
    this.#dropSlot(segment);
    this.#slot[segment] = slot;
    this.#place[segment] = slot === NO_SLOT ? PLACE_MEMORY : PLACE_SLOT;
    if (this.#lossy && chunk.passesOn[this.#step[segment]!]) this.#sealed[segment] = 1;
    if (this.#step[segment] === chunk.finishingStep) this.#finishValue(chunk, segment);
    this.#advance(chunk, segment);
  }

  /** The value has every contribution: divides it for `avg`, and gives NaNs one pattern where several ranks computed it. */
  #finishValue(chunk: ChunkState, segment: number): void {
    const { dtype, op, plan, contributors } = this.#spec;
    const canonical = isFinishedBySeveral(plan.algorithm) && isFloat(dtype);
    if (op !== 'avg' && !canonical) return;
    const { kernels, stageOwn } = this.#workspace;
    const bytes = this.#elements(chunk, segment) * this.#elementBytes;
    const inSlot = this.#place[segment] === PLACE_SLOT;
    for (let from = 0; from < bytes; from += STAGE_BYTES) {
      const to = Math.min(bytes, from + STAGE_BYTES);
      const at = inSlot ? this.#workspace.payload(this.#slot[segment]!) + from : stageOwn;
      const count = (to - from) / this.#elementBytes;
      if (!inSlot) this.#loadValue(chunk, segment, from, to, at);
      if (op === 'avg') kernels.divide(dtype, at, count, contributors);
      if (canonical) kernels.canonicalizeNaN(dtype, at, count);
      if (!inSlot) this.#storeStaged(chunk, segment, at, from, to);
    }
  }
}
