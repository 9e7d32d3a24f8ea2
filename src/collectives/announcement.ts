/** What a call tells its peers of itself: the `open` frame, with the part of the call that all members must have in common. */
import * as v from 'valibot';
import { DTYPES, REDUCE_OPS } from '../tensor.ts';
import { FRAME_OPEN, type FrameHeader, HEADER_BYTES, writeHeader } from '../wire/frame.ts';
import { MAX_TAG_LENGTH } from '../wire/limits.ts';
import { type Parsed, packBody, parseBody } from '../wire/messages.ts';
import type { Description } from './call.ts';
import { CODECS } from './codec.ts';
import type { Operation } from './operation.ts';
import { ALGORITHMS, type AlgorithmLabel, COLLECTIVE_KINDS, isProgramLabel, type ProgramLabel } from './program.ts';

/** Room for the longest name and its hash. */
const MAX_LABEL_LENGTH = 100;

const programLabel = v.custom<ProgramLabel>(
  (value) => typeof value === 'string' && value.length <= MAX_LABEL_LENGTH && isProgramLabel(value),
);

const descriptionSchema = v.strictObject({
  kind: v.picklist(COLLECTIVE_KINDS),
  tag: v.pipe(v.string(), v.maxLength(MAX_TAG_LENGTH)),
  dtype: v.picklist(DTYPES),
  op: v.nullable(v.picklist(REDUCE_OPS)),
  trim: v.nullable(v.number()),
  clipRadius: v.nullable(v.number()),
  codec: v.picklist(CODECS),
  algorithm: v.union([v.picklist(ALGORITHMS), programLabel]),
  count: v.pipe(v.number(), v.integer(), v.minValue(0)),
  root: v.nullable(v.pipe(v.string(), v.maxLength(256))),
  consistency: v.picklist(['commit', 'eager']),
  recovery: v.picklist(['restart', 'salvage', 'fail']),
  stragglers: v.picklist(['wait', 'exclude']),
  minWorldSize: v.pipe(v.number(), v.integer(), v.minValue(1)),
  segmentBytes: v.pipe(v.number(), v.integer(), v.minValue(1)),
});

const DESCRIPTION_KEYS = Object.keys(descriptionSchema.entries) as (keyof Description)[]; // the schema has the type's keys

export function parseDescription(payload: Uint8Array): Parsed<Description> {
  return parseBody(descriptionSchema, payload);
}

/** The frame that announces an attempt. Training loops make the same call again and again: its body is kept per tag. */
export function announce(
  operation: Operation,
  algorithm: AlgorithmLabel,
  segmentBytes: number,
  frame: Pick<FrameHeader, 'epoch' | 'generation' | 'tag' | 'sequence'>,
): Uint8Array {
  const description = operation.description(algorithm, segmentBytes);
  const state = operation.tagState!; // only calls with a number are announced
  if (state.announced === null || !sameDescription(state.announced.description, description)) {
    state.announced = { description, body: packBody(description) };
  }
  const { body } = state.announced;
  const bytes = new Uint8Array(HEADER_BYTES + body.length);
  const header = { ...frame, type: FRAME_OPEN, chunk: 0, segment: 0, length: body.length };
  writeHeader(new DataView(bytes.buffer), 0, header);
  bytes.set(body, HEADER_BYTES);
  return bytes;
}

export function sameDescription(left: Description, right: Description): boolean {
  for (const key of DESCRIPTION_KEYS) if (left[key] !== right[key]) return false;
  return true;
}

export function sameBytes(left: Uint8Array, right: Uint8Array): boolean {
  if (left.length !== right.length) return false;
  for (let index = 0; index < left.length; index++) if (left[index] !== right[index]) return false;
  return true;
}
