/**
 * Data frames: a fixed header and a payload. A frame names its place (collective, attempt, chunk, segment), so the order
 * between frames, and between the stripes of a link, does not matter.
 *
 *      0        1        2        4           8            12       16       20         24      28        32               36
 *     ┌────────┬────────┬────────┬───────────┬────────────┬────────┬────────┬──────────┬───────┬─────────┬────────────────┬──────┐
 *     │ magic  │ type   │ zero   │ epoch     │ generation │ tag lo │ tag hi │ sequence │ chunk │ segment │ payload length │ zero │
 *     └────────┴────────┴────────┴───────────┴────────────┴────────┴────────┴──────────┴───────┴─────────┴────────────────┴──────┘
 *
 * All little-endian. `epoch` is that of the attempt (it fences stale bytes); `generation` is the epoch at which the view
 * was made at a boundary; `tag` is a 53-bit hash of the tag. Nothing in here touches a socket.
 */
import { MAX_OPEN_BYTES, MAX_RELAY_BYTES, MAX_SEGMENT_BYTES, PROBE_BYTES, STATE_PIECE_BYTES } from './limits.ts';

export const HEADER_BYTES = 40;

const MAGIC = 0x5e;

/**
 * `open` announces a call; `data` carries one segment. `relay` wraps a frame that goes through other peers, and `credit` says
 * that so many bytes (`segment`) of such frames have arrived. `ping` shows that the way is open; it may ask for the same, or be the
 * answer (`segment`). `take` and `last` say which lane of a link is in use: see transport/link.ts. `probe` is so many bytes of
 * nothing, by which a way is measured; `probed` says that so many of them (`chunk`) came in so many microseconds (`segment`).
 * `ask` and `answer` are about shared state: see state/exchange.ts.
 */
export const FRAME_OPEN = 1;
export const FRAME_DATA = 2;
export const FRAME_RELAY = 3;
export const FRAME_CREDIT = 4;
export const FRAME_PING = 5;
export const FRAME_TAKE = 6;
export const FRAME_LAST = 7;
export const FRAME_PROBE = 8;
export const FRAME_PROBED = 9;
export const FRAME_ASK = 10;
export const FRAME_ANSWER = 11;

/** What a ping is, in its `segment`. */
export const PING_SHOWS = 0;
export const PING_ASKS = 1;
export const PING_ANSWERS = 2;

/** Longest payload of each type of frame. */
const LIMITS: Readonly<Record<number, number>> = {
  [FRAME_OPEN]: MAX_OPEN_BYTES,
  [FRAME_DATA]: MAX_SEGMENT_BYTES,
  [FRAME_RELAY]: MAX_RELAY_BYTES,
  [FRAME_CREDIT]: 0,
  [FRAME_PING]: 0,
  [FRAME_TAKE]: 0,
  [FRAME_LAST]: 0,
  [FRAME_PROBE]: PROBE_BYTES,
  [FRAME_PROBED]: 0,
  [FRAME_ASK]: 0,
  [FRAME_ANSWER]: STATE_PIECE_BYTES,
};

/** Payload pieces are handed on in multiples of this many bytes (but for the last), so that no element is ever cut. */
const PIECE_ALIGNMENT = 16;

export interface FrameHeader {
  type: number;
  epoch: number;
  generation: number;
  tag: number;
  sequence: number;
  chunk: number;
  segment: number;
  length: number;
}

const TWO_32 = 2 ** 32;

/** 53-bit hash of a tag: two 32-bit multiply-xor lanes. Collisions are caught because `open` carries the tag itself. */
export function hashTag(tag: string): number {
  let low = 0x9e3779b9;
  let high = 0x85ebca6b;
  for (let index = 0; index < tag.length; index++) {
    const unit = tag.charCodeAt(index);
    low = Math.imul(low ^ unit, 0x01000193);
    high = Math.imul(high ^ unit, 0x5bd1e995);
    high ^= high >>> 15;
  }
  low = Math.imul(low ^ (low >>> 16), 0xc2b2ae35) ^ high;
  high = Math.imul(high ^ (high >>> 13), 0x27d4eb2f) ^ low;
  return (high >>> 11) * TWO_32 + (low >>> 0);
}

export function writeHeader(target: DataView, at: number, header: FrameHeader): void {
  target.setUint32(at, MAGIC | (header.type << 8), true);
  target.setUint32(at + 4, header.epoch, true);
  target.setUint32(at + 8, header.generation, true);
  target.setUint32(at + 12, header.tag % TWO_32, true);
  target.setUint32(at + 16, Math.floor(header.tag / TWO_32), true);
  target.setUint32(at + 20, header.sequence, true);
  target.setUint32(at + 24, header.chunk, true);
  target.setUint32(at + 28, header.segment, true);
  target.setUint32(at + 32, header.length, true);
  target.setUint32(at + 36, 0, true);
}

/** Reads a header into `into`; returns what is wrong with it, or null. */
export function readHeader(source: DataView, at: number, into: FrameHeader): string | null {
  const start = source.getUint32(at, true);
  const type = (start >>> 8) & 0xff;
  if ((start & 0xff) !== MAGIC || start >>> 16 !== 0) return 'these bytes are not a Skein frame';
  const limit = LIMITS[type];
  if (limit === undefined) return `frame type ${type} is unknown`;
  const length = source.getUint32(at + 32, true);
  if (length > limit) return `a frame of ${length} bytes is longer than the limit of ${limit}`;
  if (source.getUint32(at + 36, true) !== 0) return 'the reserved field of a frame is not zero';
  into.type = type;
  into.epoch = source.getUint32(at + 4, true);
  into.generation = source.getUint32(at + 8, true);
  into.tag = source.getUint32(at + 16, true) * TWO_32 + source.getUint32(at + 12, true);
  into.sequence = source.getUint32(at + 20, true);
  into.chunk = source.getUint32(at + 24, true);
  into.segment = source.getUint32(at + 28, true);
  into.length = length;
  return null;
}

export function emptyHeader(): FrameHeader {
  return { type: 0, epoch: 0, generation: 0, tag: 0, sequence: 0, chunk: 0, segment: 0, length: 0 };
}

/** Where a connection's frames go. `bytes[start..end)` is valid only during the call. Each method returns what is wrong, or null. */
export interface FrameSink {
  /** A header is complete; `header` is reused for the next frame. */
  onFrame(header: FrameHeader): string | null;
  /** Part of the payload, in order; lengths are multiples of 16 but for the last part. */
  onPayload(bytes: Uint8Array, start: number, end: number): string | null;
  /** The payload is complete (called for empty payloads too). */
  onFrameEnd(): string | null;
}

/**
 * Cuts a byte stream into frames, however it is split, without copying payloads: what arrives is handed on as windows on
 * the read buffer, and only a header or an element that is cut in two is pieced together in a small carry.
 */
export class FrameReader {
  readonly #sink: FrameSink;
  readonly #carry: Uint8Array;
  readonly #carryView: DataView;
  readonly #header: FrameHeader = emptyHeader();
  #carried = 0;
  #inPayload = false;
  #remaining = 0;

  /** @param carry at least `HEADER_BYTES` long; inside the arena, so that the kernels can read cut elements from it */
  constructor(sink: FrameSink, carry: Uint8Array) {
    this.#sink = sink;
    this.#carry = carry;
    this.#carryView = new DataView(carry.buffer, carry.byteOffset, carry.byteLength);
  }

  /** Takes the next bytes of the stream; returns what is wrong with them, or null. After an error the stream is unusable. */
  push(bytes: Uint8Array): string | null {
    let at = 0;
    const end = bytes.length;
    while (at < end) {
      let error: string | null;
      if (this.#inPayload) {
        const take = Math.min(end - at, this.#remaining - this.#carried);
        error = this.#payload(bytes, at, at + take);
        at += take;
      } else {
        const take = Math.min(end - at, HEADER_BYTES - this.#carried);
        this.#carry.set(bytes.subarray(at, at + take), this.#carried);
        this.#carried += take;
        at += take;
        error = this.#carried === HEADER_BYTES ? this.#startFrame() : null;
      }
      if (error !== null) return error;
    }
    return null;
  }

  #startFrame(): string | null {
    this.#carried = 0;
    const error = readHeader(this.#carryView, 0, this.#header) ?? this.#sink.onFrame(this.#header);
    if (error !== null) return error;
    this.#remaining = this.#header.length;
    this.#inPayload = true;
    return this.#remaining === 0 ? this.#endFrame() : null;
  }

  #endFrame(): string | null {
    this.#inPayload = false;
    return this.#sink.onFrameEnd();
  }

  /** `bytes[at..end)` all belong to the current payload. */
  #payload(bytes: Uint8Array, start: number, end: number): string | null {
    let at = start;
    if (this.#carried > 0) {
      const wanted = Math.min(PIECE_ALIGNMENT, this.#remaining) - this.#carried;
      const take = Math.min(wanted, end - at);
      this.#carry.set(bytes.subarray(at, at + take), this.#carried);
      this.#carried += take;
      at += take;
      if (take < wanted) return null;
      const piece = this.#carried;
      this.#carried = 0;
      const error = this.#deliver(this.#carry, 0, piece);
      if (error !== null || !this.#inPayload) return error;
    }
    const available = end - at;
    const whole = available === this.#remaining ? available : available - (available % PIECE_ALIGNMENT);
    if (whole > 0) {
      const error = this.#deliver(bytes, at, at + whole);
      if (error !== null) return error;
      at += whole;
    }
    if (at < end) {
      this.#carry.set(bytes.subarray(at, end), 0);
      this.#carried = end - at;
    }
    return null;
  }

  #deliver(bytes: Uint8Array, start: number, end: number): string | null {
    this.#remaining -= end - start;
    const error = this.#sink.onPayload(bytes, start, end);
    if (error !== null) return error;
    return this.#remaining === 0 ? this.#endFrame() : null;
  }
}
