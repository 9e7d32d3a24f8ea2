/**
 * Frames that go through other peers, where two members can't reach one another. The sender names the whole path; each
 * peer on it hands the frame on as it came. A relayed frame:
 *
 *     ┌─────────────────┬──────────────────┬──────────────┬─────────┐
 *     │ header (relay)  │ path (msgpack)   │ inner header │ payload │
 *     └─────────────────┴──────────────────┴──────────────┴─────────┘
 *       `chunk`: bytes of the path
 *
 * What a relay must keep is bounded: the sender has a window for each collective and receiver, which the receiver's
 * `credit` frames open again.
 */
import * as v from 'valibot';
import {
  emptyHeader,
  FRAME_CREDIT,
  FRAME_DATA,
  FRAME_OPEN,
  FRAME_RELAY,
  type FrameHeader,
  HEADER_BYTES,
  readHeader,
  writeHeader,
} from '../wire/frame.ts';
import { MAX_PATH_BYTES, MAX_PATH_LENGTH } from '../wire/limits.ts';
import { packBody, parseBody } from '../wire/messages.ts';
import type { PeerId } from './call.ts';

const pathSchema = v.strictObject({
  path: v.pipe(
    v.array(v.pipe(v.string(), v.minLength(1), v.maxLength(256))),
    v.minLength(3),
    v.maxLength(MAX_PATH_LENGTH),
    v.check((path) => new Set(path).size === path.length, 'a path passes nobody twice'),
  ),
});

export type Path = readonly PeerId[];

/** What stands in front of a frame that is relayed: the relay header and the path. */
export class Envelope {
  readonly #body: Uint8Array;

  constructor(path: Path) {
    this.#body = packBody({ path });
  }

  /** The first part of a relayed frame: everything but the inner frame's body. */
  wrap(head: Uint8Array, bodyLength: number): Uint8Array {
    const wrapped = new Uint8Array(HEADER_BYTES + this.#body.length + head.length);
    wrapped.set(relayHeader(this.#body.length, this.#body.length + head.length + bodyLength), 0);
    wrapped.set(this.#body, HEADER_BYTES);
    wrapped.set(head, HEADER_BYTES + this.#body.length);
    return wrapped;
  }
}

/** The header of a relayed frame, for whoever hands it on. */
export function relayHeader(pathBytes: number, length: number): Uint8Array {
  const bytes = new Uint8Array(HEADER_BYTES);
  writeHeader(new DataView(bytes.buffer), 0, { ...emptyHeader(), type: FRAME_RELAY, chunk: pathBytes, length });
  return bytes;
}

/** The path of a relayed frame, or what is wrong with it. */
export function readPath(header: FrameHeader, payload: Uint8Array): Path | string {
  const { chunk: pathBytes } = header;
  if (pathBytes > MAX_PATH_BYTES || pathBytes + HEADER_BYTES > payload.length) return 'its path is too long';
  const parsed = parseBody(pathSchema, payload.subarray(0, pathBytes));
  return parsed.ok ? parsed.value.path : parsed.error;
}

/** The frame inside, at its destination, or what is wrong with it. */
export function readInner(
  header: FrameHeader,
  payload: Uint8Array,
): { header: FrameHeader; payload: Uint8Array } | string {
  const at = header.chunk;
  const inner = emptyHeader();
  const error = readHeader(new DataView(payload.buffer, payload.byteOffset, payload.byteLength), at, inner);
  if (error !== null) return error;
  if (inner.type !== FRAME_OPEN && inner.type !== FRAME_DATA && inner.type !== FRAME_CREDIT)
    return `frames of type ${inner.type} are not relayed`;
  const body = payload.subarray(at + HEADER_BYTES);
  if (body.length !== inner.length) return `it wraps ${body.length} bytes where ${inner.length} are announced`;
  return { header: inner, payload: body };
}
