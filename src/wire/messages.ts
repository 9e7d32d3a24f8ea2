/**
 * Control messages, between a peer and the coordinator and in the handshake of data connections: msgpack maps, one
 * discriminated union, each validated on receipt. On the wire each is preceded by its length and by the two fences:
 *
 *      0             4           8            12
 *     ┌─────────────┬───────────┬────────────┬──────────────┐
 *     │ body length │ term      │ epoch      │ msgpack body │
 *     └─────────────┴───────────┴────────────┴──────────────┘
 *
 * The few that may be longer than a frame take several (`pages.ts`).
 */
import * as v from 'valibot';
import type { ControlSchema } from './control-schema.ts';
import type { CoordinatorMessage } from './coordinator-messages.ts';
import type { DialMessage } from './dial-messages.ts';
import { MAX_CONTROL_BYTES, MAX_TEXT_LENGTH } from './limits.ts';
import { pack, unpack } from './packer.ts';
import {
  LONG_FROM_COORDINATOR,
  LONG_FROM_PEERS,
  PAGE_HEADER_BYTES,
  PageGatherer,
  type PageMark,
  pagesOf,
} from './pages.ts';
import type { PeerMessage } from './peer-messages.ts';
import { checkPlain } from './plain.ts';

export const CONTROL_HEADER_BYTES = 12;

/** Both fences and the message they protect. */
export interface Control<M> {
  readonly term: number;
  readonly epoch: number;
  readonly message: M;
}

/** By far the most frequent message. */
const BEAT: Uint8Array = Uint8Array.from(pack({ type: 'beat' }));

/** The highest byte of a length is the kind of a page, 0 for a message of its own. */
const KIND_SHIFT = 24;
const LENGTH_MASK: number = 2 ** KIND_SHIFT - 1;

function setHeader(
  bytes: Uint8Array,
  at: number,
  length: number,
  { term, epoch }: Omit<Control<never>, 'message'>,
): void {
  const view = new DataView(bytes.buffer);
  view.setUint32(at, length, true);
  view.setUint32(at + 4, term, true);
  view.setUint32(at + 8, epoch, true);
}

/** One message as it is sent, in as many frames as it takes. */
export function encodeControl(
  message: PeerMessage | CoordinatorMessage | DialMessage,
  term: number,
  epoch: number,
): Uint8Array {
  const body = message.type === 'beat' ? BEAT : pack(message);
  const fences = { term, epoch };
  if (body.length > MAX_CONTROL_BYTES) {
    const long = [...LONG_FROM_PEERS, ...LONG_FROM_COORDINATOR].find(({ type }) => type === message.type);
    // Of another kind no message is that long, and none would be taken.
    if (long !== undefined) return encodePages(body, long.kind, fences);
  }
  const bytes = new Uint8Array(CONTROL_HEADER_BYTES + body.length);
  setHeader(bytes, 0, body.length, fences);
  bytes.set(body, CONTROL_HEADER_BYTES);
  return bytes;
}

function encodePages(body: Uint8Array, kind: number, fences: Omit<Control<never>, 'message'>): Uint8Array {
  const pages = [...pagesOf(body)];
  const bytes = new Uint8Array(body.length + pages.length * (CONTROL_HEADER_BYTES + PAGE_HEADER_BYTES));
  const view = new DataView(bytes.buffer);
  let at = 0;
  for (const { part, left } of pages) {
    setHeader(bytes, at, (kind << KIND_SHIFT) | (PAGE_HEADER_BYTES + part.length), fences);
    view.setUint32(at + CONTROL_HEADER_BYTES, left, true);
    bytes.set(part, at + CONTROL_HEADER_BYTES + PAGE_HEADER_BYTES);
    at += CONTROL_HEADER_BYTES + PAGE_HEADER_BYTES + part.length;
  }
  return bytes;
}

/** Outcome of parsing: a value, or what is wrong. */
export type Parsed<M> = { readonly ok: true; readonly value: M } | { readonly ok: false; readonly error: string };

/** Unpacks and validates one msgpack body. Bytes in it are views of the body: schemas copy those that they take (`parts.ts`). */
export function parseBody<M>(schema: v.GenericSchema<unknown, M>, body: Uint8Array): Parsed<M> {
  const strange = checkPlain(body);
  if (strange !== null) return { ok: false, error: `a control message is not plain msgpack: ${strange}` };
  let unpacked: unknown;
  try {
    unpacked = unpack(body);
  } catch (error) {
    return { ok: false, error: `a control message is not msgpack: ${String(error)}`.slice(0, MAX_TEXT_LENGTH) };
  }
  // Only the first issue is told, and a list of millions of them would cost gigabytes.
  const result = v.safeParse(schema, unpacked, { abortEarly: true });
  if (result.success) return { ok: true, value: result.output };
  const issue = result.issues[0];
  // It quotes what came, which may be as long as the message.
  const text = `a control message is not valid: ${v.getDotPath(issue) ?? 'message'}: ${issue.message}`;
  return { ok: false, error: text.slice(0, MAX_TEXT_LENGTH) };
}

/** Packs a plain value for the payload of an `open` frame. */
export function packBody(value: object): Uint8Array {
  return Uint8Array.from(pack(value));
}

const NOTHING = new Uint8Array(0);

/**
 * Cuts a byte stream into control messages. No more than `limit` bytes of a frame are ever kept, and a length above
 * it is refused before anything is reserved. Pages are taken only where a frame may have its full size.
 */
export class ControlReader<M> {
  readonly #schema: ControlSchema<M>;
  readonly #pages: PageGatherer;
  #limit: number;
  #beat: Parsed<M> | null = null;
  /** What is kept stands at its start; the rest is room, so that a message in tiny pieces is not copied for each of them. */
  #memory: Uint8Array = NOTHING;
  #kept = 0;

  constructor(schema: ControlSchema<M>, limit: number) {
    this.#schema = schema;
    this.#pages = new PageGatherer(schema.long);
    this.#limit = limit;
  }

  /** Raises the limit once the other end has proved who it is. */
  setLimit(bytes: number): void {
    this.#limit = bytes;
  }

  /**
   * Takes the next bytes; calls `onMessage` for each complete message until it returns false.
   * Returns what is wrong, or null.
   */
  push(bytes: Uint8Array, onMessage: (control: Control<M>) => boolean): string | null {
    const data = this.#kept > 0 ? this.#append(bytes) : bytes;
    const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
    let at = 0;
    while (data.length - at >= CONTROL_HEADER_BYTES) {
      const word = view.getUint32(at, true);
      const [kind, length] = [word >>> KIND_SHIFT, word & LENGTH_MASK];
      const isWrong = kind !== 0 && this.#limit < MAX_CONTROL_BYTES;
      if (length > this.#limit || isWrong)
        return this.#refuse(`a control message of ${word} bytes is longer than the limit of ${this.#limit}`);
      const end = at + CONTROL_HEADER_BYTES + length;
      if (end > data.length) break;
      const [term, epoch] = [view.getUint32(at + 4, true), view.getUint32(at + 8, true)];
      const parsed = this.#take(data.subarray(at + CONTROL_HEADER_BYTES, end), { kind, term, epoch });
      if (parsed?.ok === false) return this.#refuse(parsed.error);
      at = end;
      if (parsed !== null && !onMessage({ term, epoch, message: parsed.value })) break;
    }
    // What was appended to is kept as it is, unless a message was taken from it.
    if (at > 0 || this.#kept === 0) {
      this.#memory = at < data.length ? data.slice(at) : NOTHING;
      this.#kept = this.#memory.length;
    }
    return null;
  }

  /** What a frame says; null when it is a page of a message that is not whole yet. */
  #take(body: Uint8Array, mark: PageMark): Parsed<M> | null {
    if (mark.kind === 0) {
      if (this.#pages.isWaiting) return { ok: false, error: 'a control message came between the pages of another' };
      return this.#parse(body);
    }
    const whole = this.#pages.push(mark, body);
    if (whole === null) return null;
    if (typeof whole === 'string') return { ok: false, error: whole };
    const parsed = parseBody(this.#schema, whole.body);
    // Its limit is that of its type, so it must be what its pages said it is.
    if (parsed.ok && (parsed.value as { readonly type?: unknown }).type !== whole.type)
      return { ok: false, error: `a control message came in pages of ${whole.type}, and is none` };
    return parsed;
  }

  /** Signs of life are all alike, and often all that comes: what was taken once need not be looked at again. */
  #parse(body: Uint8Array): Parsed<M> {
    const isBeat = body.length === BEAT.length && BEAT.every((byte, at) => body[at] === byte);
    if (isBeat && this.#beat !== null) return this.#beat;
    const parsed = parseBody(this.#schema, body);
    if (isBeat && parsed.ok) this.#beat = parsed;
    return parsed;
  }

  /** The stream is unusable: nothing of it is kept. */
  #refuse(error: string): string {
    this.#pages.forget();
    this.#memory = NOTHING;
    this.#kept = 0;
    return error;
  }

  /** What was kept with `bytes` after it. */
  #append(bytes: Uint8Array): Uint8Array {
    const length = this.#kept + bytes.length;
    if (length > this.#memory.length) {
      const grown = new Uint8Array(Math.max(length, 2 * this.#kept));
      grown.set(this.#memory.subarray(0, this.#kept), 0);
      this.#memory = grown;
    }
    this.#memory.set(bytes, this.#kept);
    this.#kept = length;
    return this.#memory.subarray(0, length);
  }

  /** Bytes received after the last message that `push` handed on. */
  get rest(): Uint8Array {
    return this.#memory.subarray(0, this.#kept);
  }
}
