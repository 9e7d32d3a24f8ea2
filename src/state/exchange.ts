/**
 * What peers ask one another of a state, and how it is answered: bare frames by which is asked, and frames that carry what was asked
 * for. Asks have numbers, so order does not matter. Nothing that an answer says is used but its number: how long it must be follows from what was
 * asked, and what it contains is held against hashes.
 */
import { emptyHeader, FRAME_ANSWER, FRAME_ASK, type FrameHeader, HEADER_BYTES, writeHeader } from '../wire/frame.ts';

/** What is asked for, in `generation`; of an answer `NOTHING` says that there is nothing of the kind here. */
export const NOTHING = 0;
/** Revision, hash, and what they are worth. */
export const SUMMARY = 1;
/** A page of the hashes of all pieces; `chunk` is its number. */
export const TABLE = 2;
/** Pieces: `segment` of them, from number `chunk`. */
export const PIECES = 3;
/** The same, for whom no sync waits. */
export const SPARE_PIECES = 5;
/** A summary of what is brought into a sync: answered while one is under way, and till then kept waiting. */
export const SYNC_SUMMARY = 4;

/** Asks of one peer that wait for their answers. */
export const MAX_ASKS = 32;

export interface Ask {
  readonly kind: number;
  /** Of the state, with its shape. */
  readonly tag: number;
  readonly first: number;
  readonly count: number;
}

function frame(type: number, sequence: number, { kind, tag, first, count }: Ask, length: number): Uint8Array {
  const bytes = new Uint8Array(HEADER_BYTES);
  const header = { ...emptyHeader(), type, tag, sequence, generation: kind, chunk: first, segment: count, length };
  writeHeader(new DataView(bytes.buffer), 0, header);
  return bytes;
}

export function askFrame(sequence: number, ask: Ask): Uint8Array {
  return frame(FRAME_ASK, sequence, ask, 0);
}

export function answerFrame(sequence: number, ask: Ask, length: number): Uint8Array {
  return frame(FRAME_ANSWER, sequence, ask, length);
}

export function readAsk({ generation, tag, chunk, segment }: FrameHeader): Ask {
  return { kind: generation, tag, first: chunk, count: segment };
}

/** A summary on the wire. */
export interface Summary {
  readonly revision: number;
  readonly hash: Uint8Array;
  /** It has been through a sync: before that it is one peer's own. */
  readonly isSynced: boolean;
}

export const SUMMARY_BYTES = 32;

export function writeSummary({ revision, hash, isSynced }: Summary): Uint8Array {
  const bytes = new Uint8Array(SUMMARY_BYTES);
  new DataView(bytes.buffer).setFloat64(0, revision, true);
  bytes[8] = isSynced ? 1 : 0;
  bytes.set(hash, 16);
  return bytes;
}

/** @returns null when it is none */
export function readSummary(bytes: Uint8Array): Summary | null {
  const revision = new DataView(bytes.buffer, bytes.byteOffset).getFloat64(0, true);
  if (!Number.isSafeInteger(revision) || revision < 0 || bytes[8]! > 1) return null;
  return { revision, hash: bytes.slice(16, SUMMARY_BYTES), isSynced: bytes[8] === 1 };
}
