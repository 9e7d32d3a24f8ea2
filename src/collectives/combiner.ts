/**
 * The arithmetic of a transfer: works what arrives into the value that is here, part by part as the bytes come, and makes finished
 * values of it. The order of operands is that of ranks, so that it does not matter what comes first, nor where the network cuts it.
 *
 * A robust average needs all contributions to a segment at once: its owner keeps them, as it keeps what comes before its turn, until
 * the last has come. So it keeps at most what the others send it of its chunk.
 */
import { copyBytes } from '../kernels/copy.ts';
import { DTYPE_BYTES, isFloat, isRobust } from '../tensor.ts';
import type { Chunk } from './chunk.ts';
import { isBlockCodec, wholeBlocks, wireLength } from './codec.ts';
import type { EarlyFrame } from './early-frames.ts';
import { type AlgorithmLabel, type Instruction, isProgramLabel } from './program.ts';
import { averageRows, hasRobustAverages, type RobustAverage } from './robust.ts';
import type { TransferSpec } from './transfer-spec.ts';
import type { Values } from './values.ts';
import { NO_SLOT, STAGE_BYTES, type Workspace } from './workspace.ts';

type Arithmetic = Pick<
  TransferSpec,
  'plan' | 'rank' | 'dtype' | 'op' | 'trim' | 'clipRadius' | 'codec' | 'contributors'
>;

/** Whether several ranks may compute a finished value for themselves. */
function isFinishedBySeveral(algorithm: AlgorithmLabel): boolean {
  return algorithm === 'doubling' || isProgramLabel(algorithm);
}

export class Combiner {
  readonly #workspace: Workspace;
  readonly #values: Values;
  readonly #spec: Arithmetic;
  readonly #elementBytes: number;
  /** Elements that are staged at a time: whole blocks. */
  readonly #partElements: number;
  /** Blocks may be cut anywhere by the network: they are put together before they are decoded. */
  readonly #decodesWhole: boolean;
  /** What all contributions to a segment are worked into at once; null: they are combined one by one. */
  readonly #robust: RobustAverage | null;

  constructor(workspace: Workspace, values: Values, spec: Arithmetic) {
    this.#workspace = workspace;
    this.#values = values;
    this.#spec = spec;
    this.#elementBytes = DTYPE_BYTES[spec.dtype];
    this.#partElements = wholeBlocks(spec.codec, STAGE_BYTES / this.#elementBytes);
    this.#decodesWhole = isBlockCodec(spec.codec);
    const { op, trim, clipRadius } = spec;
    this.#robust = isRobust(op) ? { op, trim, clipRadius } : null;
  }

  /** Whether what a step takes is kept until all contributions are there. */
  collects(step: Instruction): boolean {
    return this.#robust !== null && step.do === 'reduce';
  }

  /** Whether what a step takes is worked in only when all of the frame is there. */
  takesWhole(step: Instruction): boolean {
    return this.#decodesWhole || this.collects(step);
  }

  /** Works part of an arrived value in. `at` is the byte offset of `bytes[start]` in the segment's wire bytes. */
  combine(
    chunk: Chunk,
    segment: number,
    step: Instruction,
    slot: number,
    bytes: Uint8Array,
    start: number,
    end: number,
    at: number,
  ): void {
    const { dtype, codec } = this.#spec;
    if (step.do === 'replace' && codec === 'f32') {
      if (slot === NO_SLOT) {
        const part = start === 0 && end === bytes.length ? bytes : bytes.subarray(start, end);
        this.#values.write(chunk, segment, part, at);
      } else {
        copyBytes(this.#workspace.bytes, bytes.subarray(start, end), this.#workspace.payload(slot) + at);
      }
      return;
    }
    // Blocks come whole, so `at` is 0 then.
    const size = wireLength(dtype, codec, 1);
    const first = this.#decodesWhole ? 0 : at / size;
    const count = this.#decodesWhole ? chunk.elements(segment) : (end - start) / size;
    for (let done = 0; done < count; done += this.#partElements) {
      const part = Math.min(this.#partElements, count - done);
      const from = start + wireLength(dtype, codec, done);
      const to = from + wireLength(dtype, codec, part);
      this.#combinePart(chunk, segment, step, slot, bytes, from, to, first + done, part);
    }
  }

  /** At most `STAGE_BYTES` of values: the wire bytes `from` to `to`. `index` is the place of the first in the segment. */
  #combinePart(
    chunk: Chunk,
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
      if (slot === NO_SLOT) this.#values.store(chunk, segment, arrived, first, last);
      else this.#workspace.bytes.copyWithin(this.#workspace.payload(slot) + first, arrived, arrived + last - first);
      return;
    }
    const result = slot === NO_SLOT ? stageOwn : this.#workspace.payload(slot) + first;
    let own = result;
    if (this.#values.isInSlot(segment)) own = this.#values.locate(segment) + first;
    else this.#values.load(chunk, segment, first, last, own);
    const arrivedIsLeft = step.from < this.#spec.rank;
    const { op: asked } = this.#spec;
    // An average is divided when its sum is whole; what is robust does not come here.
    const op = asked === 'avg' || asked === null || isRobust(asked) ? 'sum' : asked;
    kernels.reduce(dtype, op, result, arrivedIsLeft ? arrived : own, arrivedIsLeft ? own : arrived, count);
    if (slot === NO_SLOT) this.#values.store(chunk, segment, result, first, last);
  }

  /** Makes a robust average of this rank's own contribution, which is row 0, and those of the frames. */
  average(chunk: Chunk, segment: number, slot: number, frames: readonly EarlyFrame[]): void {
    const { bytes, kernels, stageOwn, stageRows, stageWire } = this.#workspace;
    const { codec, dtype } = this.#spec;
    const size = this.#elementBytes;
    const count = chunk.elements(segment);
    const stride = this.#workspace.rowStride(1 + frames.length);
    const most = wholeBlocks(codec, stride / size);
    const rows = { offset: stageRows, stride, count: 1 + frames.length };
    // Options that would lead here are refused before a call is made.
    if (this.#robust === null || !hasRobustAverages(dtype) || most === 0 || rows.count !== this.#spec.contributors)
      throw new Error(`no robust average of ${rows.count} contributions in ${codec}, of ${dtype}`);
    for (let done = 0; done < count; done += most) {
      const part = Math.min(most, count - done);
      const from = wireLength(dtype, codec, done);
      const to = from + wireLength(dtype, codec, part);
      this.#values.load(chunk, segment, done * size, (done + part) * size, stageRows);
      for (const [index, { buffer }] of frames.entries()) {
        const row = stageRows + (1 + index) * stride;
        if (codec === 'f32') bytes.set(buffer.subarray(from, to), row);
        else kernels.decode(codec, row, this.#workspace.locate(buffer, from, to, stageWire), part);
      }
      const target = slot === NO_SLOT ? stageOwn : this.#workspace.payload(slot) + done * size;
      averageRows(kernels, dtype, this.#robust, target, rows, part);
      if (slot === NO_SLOT) this.#values.store(chunk, segment, target, done * size, (done + part) * size);
    }
  }

  /** The value has every contribution: divides it for `avg`, and gives NaNs one pattern where several ranks computed it. */
  finish(chunk: Chunk, segment: number): void {
    const { dtype, op, plan, contributors } = this.#spec;
    const canonical = isFinishedBySeveral(plan.algorithm) && isFloat(dtype);
    if (op !== 'avg' && !canonical) return;
    const { kernels, stageOwn } = this.#workspace;
    const bytes = chunk.elements(segment) * this.#elementBytes;
    const inSlot = this.#values.isInSlot(segment);
    for (let from = 0; from < bytes; from += STAGE_BYTES) {
      const to = Math.min(bytes, from + STAGE_BYTES);
      const at = inSlot ? this.#values.locate(segment) + from : stageOwn;
      const count = (to - from) / this.#elementBytes;
      if (!inSlot) this.#values.load(chunk, segment, from, to, at);
      if (op === 'avg') kernels.divide(dtype, at, count, contributors);
      if (canonical) kernels.canonicalizeNaN(dtype, at, count);
      if (!inSlot) this.#values.store(chunk, segment, at, from, to);
    }
  }
}
