/** What arrives on one connection of a link: each frame goes straight to its transfer, or is kept for a call still to come. */
import { copyBytes } from '../kernels/copy.ts';
import type { FrameHeader, FrameSink } from '../wire/frame.ts';
import {
  FRAME_ANSWER,
  FRAME_ASK,
  FRAME_CREDIT,
  FRAME_OPEN,
  FRAME_PING,
  FRAME_PROBE,
  FRAME_PROBED,
  FRAME_RELAY,
  PING_ANSWERS,
  PING_ASKS,
} from '../wire/frame.ts';
import { EAGER_BYTES } from '../wire/limits.ts';
import type { PeerId } from './call.ts';
import type { Delivery } from './delivery.ts';
import { FrameCursor, type Transfer } from './executor.ts';
import { rankIn } from './operation.ts';

/** What is not about collectives, but about the way itself. */
export interface Signs {
  /** Milliseconds, monotonic. */
  now(): number;
  /** The peer shows that the way is open. */
  onSign(): void;
  /** It does, and wants to be shown the same. */
  onAsked(): void;
  /** It does, because it was asked. */
  onAnswered(): void;
  /** A probe of `length` bytes came in whole; of these, the last `bytes` took `elapsed` ms. */
  onProbe(length: number, bytes: number, elapsed: number): void;
  /** The peer says that so many bytes of a probe took so many ms to it. */
  onProbed(bytes: number, elapsed: number): void;
  /** The peer asks for something of a shared state. @returns what is wrong with it, or null */
  onAsk(header: FrameHeader): string | null;
  /** It answers. @returns memory for what comes; null: nobody wants it; a text: what is wrong with it */
  openAnswer(header: FrameHeader): Uint8Array | null | string;
  endAnswer(header: FrameHeader, answer: Uint8Array | null): void;
  /** The rest of an answer will not come. */
  abandonAnswer(answer: Uint8Array): void;
}

/** Where nobody looks at the way itself. */
export const NO_SIGNS: Signs = {
  now: () => 0,
  onSign: () => {},
  onAsked: () => {},
  onAnswered: () => {},
  onProbe: () => {},
  onProbed: () => {},
  onAsk: () => null,
  openAnswer: () => null,
  endAnswer: () => {},
  abandonAnswer: () => {},
};

/** The first half of a probe fills buffers on the way: what counts is how fast the second comes. */
interface Probe {
  readonly length: number;
  came: number;
  halfAt: number;
  atHalf: number;
}

export class Inbound implements FrameSink {
  readonly #from: PeerId;
  readonly #delivery: Delivery;
  readonly #signs: Signs;
  #probe: Probe | null = null;
  readonly #cursor: FrameCursor = new FrameCursor();
  #transfer: Transfer | null = null;
  /** A whole frame that is collected before it is handed on. */
  #collected: { readonly header: FrameHeader; readonly payload: Uint8Array } | null = null;
  /** Of a shared state. */
  #answer: { readonly header: FrameHeader; readonly memory: Uint8Array | null } | null = null;
  #at = 0;

  constructor(from: PeerId, delivery: Delivery, signs: Signs) {
    this.#from = from;
    this.#delivery = delivery;
    this.#signs = signs;
  }

  onFrame(header: FrameHeader): string | null {
    this.#transfer = null;
    if (header.type === FRAME_RELAY) {
      this.#collect(header);
      return null;
    }
    if (header.type === FRAME_PING) {
      if (header.segment === PING_ASKS) this.#signs.onAsked();
      else if (header.segment === PING_ANSWERS) this.#signs.onAnswered();
      else this.#signs.onSign();
      return null;
    }
    if (header.type === FRAME_PROBE) {
      this.#probe = { length: header.length, came: 0, halfAt: 0, atHalf: 0 };
      return null;
    }
    if (header.type === FRAME_PROBED) {
      this.#signs.onProbed(header.chunk, header.segment / 1_000);
      return null;
    }
    if (header.type === FRAME_ASK) return this.#signs.onAsk(header);
    if (header.type === FRAME_ANSWER) return this.#openAnswer(header);
    if (header.type === FRAME_CREDIT) return 'it gave credit for what was not relayed';
    const target = this.#delivery.route(this.#from, header);
    if (target === 'drop') return null;
    if (target === 'keep' || header.type === FRAME_OPEN) {
      if (header.length > EAGER_BYTES) return 'it sent bulk data for a call that was not announced to it';
      this.#collect(header);
      return null;
    }
    const attempt = target.attempt!; // route compared its epoch
    const error = attempt.transfer.beginFrame(this.#cursor, rankIn(attempt, this.#from), header);
    if (error === null) this.#transfer = attempt.transfer;
    return error;
  }

  #openAnswer(header: FrameHeader): string | null {
    const memory = this.#signs.openAnswer(header);
    if (typeof memory === 'string') return memory;
    this.#answer = { header: { ...header }, memory };
    this.#at = 0;
    return null;
  }

  #collect(header: FrameHeader): void {
    this.#collected = { header: { ...header }, payload: new Uint8Array(header.length) };
    this.#at = 0;
  }

  onPayload(bytes: Uint8Array, start: number, end: number): string | null {
    if (this.#transfer !== null) {
      this.#transfer.payload(this.#cursor, bytes, start, end);
    } else if (this.#collected !== null) {
      this.#collected.payload.set(bytes.subarray(start, end), this.#at);
      this.#at += end - start;
    } else if (this.#answer !== null) {
      if (this.#answer.memory !== null) copyBytes(this.#answer.memory, bytes.subarray(start, end), this.#at);
      this.#at += end - start;
    } else if (this.#probe !== null) {
      this.#probe.came += end - start;
      if (this.#probe.atHalf === 0 && 2 * this.#probe.came >= this.#probe.length) {
        this.#probe.atHalf = this.#probe.came;
        this.#probe.halfAt = this.#signs.now();
      }
    }
    return null;
  }

  #endProbe({ length, came, halfAt, atHalf }: Probe): void {
    this.#probe = null;
    // What came in one piece took no time that could be measured.
    if (came > atHalf) this.#signs.onProbe(length, came - atHalf, this.#signs.now() - halfAt);
    else this.#signs.onProbe(length, length, 0);
  }

  onFrameEnd(): string | null {
    if (this.#probe !== null) this.#endProbe(this.#probe);
    if (this.#answer !== null) {
      const { header, memory } = this.#answer;
      this.#answer = null;
      this.#signs.endAnswer(header, memory);
    }
    const transfer = this.#transfer;
    const collected = this.#collected;
    this.#transfer = null;
    this.#collected = null;
    if (transfer !== null) transfer.endFrame(this.#cursor);
    if (collected === null) return null;
    const arrival = { from: this.#from, path: null, ...collected };
    return arrival.header.type === FRAME_RELAY ? this.#delivery.onRelayed(arrival) : this.#delivery.deliver(arrival);
  }

  /** The connection is gone, perhaps half-way through a frame. */
  close(): void {
    this.#transfer?.abandonFrame(this.#cursor);
    this.#transfer = null;
    this.#collected = null;
    this.#probe = null;
    const answer = this.#answer;
    this.#answer = null;
    if (answer !== null && answer.memory !== null) this.#signs.abandonAnswer(answer.memory);
  }
}
