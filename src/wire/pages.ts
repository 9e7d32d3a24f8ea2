/**
 * Few control messages may be longer than a frame: those that tell of all peers, or of all open collectives. They come in pages, one
 * after the other, with nothing in between. A page is a frame that names the kind of the message in the highest byte of its
 * length, and begins with how much of the message is still to come after it:
 *
 *      0             4           8            12              16
 *     ┌──────┬──────┬───────────┬────────────┬───────────────┬───────────────┐
 *     │ body length │ term      │ epoch      │ bytes to come │ msgpack, a    │
 *     │      │ kind │           │            │               │ part of it    │
 *     └──────┴──────┴───────────┴────────────┴───────────────┴───────────────┘
 *
 * All pages but the last are full, and all have the same fences. The first tells how long the whole is, so one that is too long for
 * its kind is refused before more of it is kept. What is not whole is never read.
 */
import { MAX_CONTROL_BYTES, MAX_FLIGHT_BYTES, MAX_NOTES_BYTES } from './limits.ts';

const MIB = 1024 * 1024;

export interface LongMessage {
  readonly type: string;
  /** 1 to 127. */
  readonly kind: number;
  /** Bytes of the whole. */
  readonly limit: number;
}

/** Of a member. Three times the ids of all open collectives with the longest tags; the views of a run, and what failed in them. */
export const LONG_FROM_PEERS: readonly LongMessage[] = [
  { type: 'resume', kind: 1, limit: 12 * MIB },
  { type: 'progress', kind: 2, limit: 12 * MIB },
  { type: 'waits', kind: 3, limit: 4 * MIB },
  { type: 'notes', kind: 17, limit: 2 * MAX_NOTES_BYTES + 1024 },
  { type: 'flight', kind: 16, limit: MAX_FLIGHT_BYTES + 1024 },
];

/** Of the coordinator, about a run of the largest size. */
export const LONG_FROM_COORDINATOR: readonly LongMessage[] = [
  { type: 'welcome', kind: 65, limit: 5 * MIB },
  { type: 'admitted', kind: 66, limit: 12 * MIB },
  { type: 'boundary', kind: 67, limit: 12 * MIB },
  { type: 'loss', kind: 68, limit: 8 * MIB },
  { type: 'decide', kind: 69, limit: 8 * MIB },
  { type: 'exclude', kind: 70, limit: MIB },
  { type: 'slow', kind: 71, limit: MIB },
  { type: 'noted', kind: 82, limit: 2 * MAX_NOTES_BYTES + 1024 },
  { type: 'flight-of', kind: 80, limit: MAX_FLIGHT_BYTES + 1024 },
  { type: 'flights-asked', kind: 81, limit: MIB },
];

/** Before the part of the message. */
export const PAGE_HEADER_BYTES = 4;

/** Of a message that a page holds, unless it is the last. */
export const PAGE_BYTES: number = MAX_CONTROL_BYTES - PAGE_HEADER_BYTES;

/** Cuts a message that is longer than a frame; the views share its memory. */
export function* pagesOf(body: Uint8Array): Generator<{ readonly part: Uint8Array; readonly left: number }> {
  for (let at = 0; at < body.length; at += PAGE_BYTES) {
    const part = body.subarray(at, at + PAGE_BYTES);
    yield { part, left: body.length - at - part.length };
  }
}

/** What every page of one message has in common. */
export interface PageMark {
  readonly kind: number;
  readonly term: number;
  readonly epoch: number;
}

export interface WholeMessage {
  readonly type: string;
  readonly body: Uint8Array;
}

/** Puts the pages of one message after the other together again. */
export class PageGatherer {
  readonly #allowed: readonly LongMessage[];
  #mark: PageMark | null = null;
  #parts: Uint8Array[] = [];
  #left = 0;

  constructor(allowed: readonly LongMessage[]) {
    this.#allowed = allowed;
  }

  /** Some pages of a message have come, and not all. */
  get isWaiting(): boolean {
    return this.#mark !== null;
  }

  /** Bytes of a message that is not whole yet. */
  get keptBytes(): number {
    return this.#parts.reduce((bytes, part) => bytes + part.length, 0);
  }

  /**
   * Takes the next page, and copies what it needs of it. Returns the message when it is whole, null when more of it is to come, or
   * what is wrong.
   */
  push(mark: PageMark, page: Uint8Array): WholeMessage | string | null {
    const long = this.#allowed.find(({ kind }) => kind === mark.kind);
    if (long === undefined) return this.#refuse(`a control message has pages of kind ${mark.kind}, which is none`);
    if (page.length <= PAGE_HEADER_BYTES) return this.#refuse('a control message has an empty page');
    const left = new DataView(page.buffer, page.byteOffset, page.byteLength).getUint32(0, true);
    const bytes = page.length - PAGE_HEADER_BYTES;
    if (left > 0 && bytes !== PAGE_BYTES) return this.#refuse('a control message has a page that is not full');
    const wrong =
      this.#mark === null ? startWrong(long, bytes + left) : this.#nextWrong(this.#mark, mark, bytes + left);
    if (wrong !== null) return this.#refuse(wrong);
    this.#mark = mark;
    this.#left = left;
    this.#parts.push(page.slice(PAGE_HEADER_BYTES));
    if (left > 0) return null;
    const body = new Uint8Array(this.keptBytes);
    let at = 0;
    for (const part of this.#parts) {
      body.set(part, at);
      at += part.length;
    }
    this.forget();
    return { type: long.type, body };
  }

  #nextWrong(before: PageMark, mark: PageMark, remaining: number): string | null {
    const isSame = mark.kind === before.kind && mark.term === before.term && mark.epoch === before.epoch;
    return isSame && remaining === this.#left ? null : 'a control message has pages that do not go together';
  }

  #refuse(error: string): string {
    this.forget();
    return error;
  }

  /** Of what has come nothing is kept. */
  forget(): void {
    this.#mark = null;
    this.#parts = [];
    this.#left = 0;
  }
}

function startWrong({ type, limit }: LongMessage, total: number): string | null {
  if (total > limit) return `a control message ${type} of ${total} bytes is longer than the limit of ${limit}`;
  return total > MAX_CONTROL_BYTES ? null : `a control message ${type} of ${total} bytes came in pages`;
}
