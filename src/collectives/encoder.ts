/**
 * Turns values into the bytes of a codec that drops bits. A value that is sent and still needed is *sealed*: it is encoded once, those
 * bytes go to everyone it is sent to, and it becomes what they decode, here too. What arrives sealed is passed on untouched. Values
 * that are not needed here any more are encoded on their way out, to a wire slot.
 *
 * Invariant: sealed bytes are written once, so links may have them as long as they like. Such codecs are for f32 only.
 */
import type { LossyCodec } from '../kernels/kernels.ts';
import { DTYPE_BYTES } from '../tensor.ts';
import type { Chunk } from './chunk.ts';
import { roundsByChance, wholeBlocks, wireLength } from './codec.ts';
import type { TransferSpec } from './transfer-spec.ts';
import type { Values } from './values.ts';
import { NO_SLOT, STAGE_BYTES, type Workspace } from './workspace.ts';

type Encoding = Pick<TransferSpec, 'seed' | 'measures' | 'dropped' | 'op' | 'contributors' | 'scratch'>;

/** Bytes of a value. */
const SIZE = DTYPE_BYTES.f32;

export class Encoder {
  readonly #workspace: Workspace;
  readonly #values: Values;
  readonly #codec: LossyCodec;
  readonly #spec: Encoding;
  /** Elements that are staged at a time: whole blocks. */
  readonly #partElements: number;
  /** Whether a segment's value is sealed. */
  readonly #isSealed: Uint8Array;
  /** By the order of chunks: their sealed bytes, made on first use. */
  readonly #sealed: (Uint8Array | undefined)[] = [];
  /** Sums of squares, if they are measured: of what this rank encoded, and of what that dropped. */
  #encodedEnergy = 0;
  #droppedEnergy = 0;

  constructor(workspace: Workspace, values: Values, codec: LossyCodec, spec: Encoding, segments: number) {
    this.#workspace = workspace;
    this.#values = values;
    this.#codec = codec;
    this.#spec = spec;
    this.#partElements = wholeBlocks(codec, STAGE_BYTES / SIZE);
    this.#isSealed = new Uint8Array(segments);
  }

  /** Relative RMS of what was dropped, if it is measured. */
  get error(): number {
    return this.#encodedEnergy === 0 ? 0 : Math.sqrt(this.#droppedEnergy / this.#encodedEnergy);
  }

  isSealed(segment: number): boolean {
    return this.#isSealed[segment] !== 0;
  }

  /**
   * Encodes the value once for all to whom it is sent, before step `step`. It becomes what they decode, so that all ranks go on
   * with the same bits.
   */
  seal(chunk: Chunk, segment: number, step: number): void {
    this.encode(chunk, segment, step, NO_SLOT);
    if (!this.#values.isInSlot(segment)) this.#values.move(segment, NO_SLOT);
    this.#isSealed[segment] = 1;
  }

  /** The first bytes of a sealed segment. */
  sealed(chunk: Chunk, segment: number, bytes: number): Uint8Array {
    let sealed = this.#sealed[chunk.order];
    if (sealed === undefined) {
      sealed = this.#spec.scratch(wireLength('f32', this.#codec, chunk.program.count));
      this.#sealed[chunk.order] = sealed;
    }
    const offset = (segment - chunk.firstSegment) * wireLength('f32', this.#codec, chunk.segmentElements);
    return sealed.subarray(offset, offset + bytes);
  }

  /** Part of what arrived sealed is kept as it came, from the segment's byte `at` on. */
  keepSealed(chunk: Chunk, segment: number, bytes: Uint8Array, at: number): void {
    this.sealed(chunk, segment, at + bytes.length).set(bytes, at);
  }

  /** All of what arrived sealed has been kept. */
  passOn(segment: number): void {
    this.#isSealed[segment] = 1;
  }

  /** What goes nowhere loses nothing. */
  dropsNothing(chunk: Chunk, segment: number): void {
    const first = chunk.index(segment) * SIZE;
    this.#spec.dropped?.fill(0, first, first + chunk.elements(segment) * SIZE);
  }

  /** Encodes the value into a wire slot, after which it is not needed, or without one into the chunk's sealed bytes. */
  encode(chunk: Chunk, segment: number, step: number, wire: number): void {
    const { bytes, kernels, stageOwn, stageArrived, stageWire } = this.#workspace;
    const { measures, dropped } = this.#spec;
    const codec = this.#codec;
    const count = chunk.elements(segment);
    const inSlot = this.#values.isInSlot(segment);
    const seals = wire === NO_SLOT;
    const sealed = seals ? this.sealed(chunk, segment, wireLength('f32', codec, count)) : null;
    for (let done = 0; done < count; done += this.#partElements) {
      const part = Math.min(this.#partElements, count - done);
      const at = wireLength('f32', codec, done);
      const target = seals ? stageWire : this.#workspace.payload(wire) + at;
      const value = inSlot ? this.#values.locate(segment) + done * SIZE : stageOwn;
      if (!inSlot) this.#values.load(chunk, segment, done * SIZE, (done + part) * SIZE, value);
      this.#encodePart(target, value, part, chunk.index(segment) + done);
      sealed?.set(bytes.subarray(target, target + wireLength('f32', codec, part)), at);
      if (!seals && !measures && dropped === null) continue;
      kernels.decode(codec, stageArrived, target, part);
      if (measures || dropped !== null) this.#noteDropped(chunk, segment, step, done, part, value);
      if (!seals) continue;
      if (inSlot) bytes.copyWithin(value, stageArrived, stageArrived + part * SIZE);
      else this.#values.store(chunk, segment, stageArrived, done * SIZE, (done + part) * SIZE);
    }
  }

  /** @param index place of the first value in the tensor, which chance depends on */
  #encodePart(target: number, value: number, count: number, index: number): void {
    const { kernels } = this.#workspace;
    const { seed } = this.#spec;
    const codec = this.#codec;
    if (seed === null || !roundsByChance(codec)) kernels.encode(codec, target, value, count);
    else kernels.encodeByChance(codec, target, value, count, seed, index);
  }

  /** `value` has been encoded, and decoded again to `stageArrived`. It is overwritten: nothing needs it as it was. */
  #noteDropped(chunk: Chunk, segment: number, step: number, done: number, part: number, value: number): void {
    const { bytes, kernels, stageArrived } = this.#workspace;
    const { dropped, measures, op, contributors } = this.#spec;
    // An average drops as much as so many times that in one contribution to it.
    const isAverage = op === 'avg' && chunk.finishingStep >= 0 && step > chunk.finishingStep;
    const factor = isAverage ? contributors : 1;
    if (measures) this.#encodedEnergy += kernels.energy(value, part);
    kernels.dropped(value, value, stageArrived, part, factor);
    if (measures) this.#droppedEnergy += kernels.energy(value, part) / factor ** 2;
    const offset = (chunk.index(segment) + done) * SIZE;
    dropped?.set(bytes.subarray(value, value + part * SIZE), offset);
  }
}
