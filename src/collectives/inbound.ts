/** What arrives on one connection of a link: each frame goes straight to its transfer, or is kept for a call still to come. */
import type { FrameHeader, FrameSink } from '../wire/frame.ts';
import { FRAME_CREDIT, FRAME_OPEN, FRAME_PING, FRAME_RELAY } from '../wire/frame.ts';
import { EAGER_BYTES } from '../wire/limits.ts';
import type { PeerId } from './call.ts';
import { type Collectives, rankIn } from './collectives.ts';
import { FrameCursor, type Transfer } from './executor.ts';

export class Inbound implements FrameSink {
  readonly #from: PeerId;
  readonly #collectives: Collectives;
  readonly #onPing: (asks: boolean) => void;
  readonly #cursor: FrameCursor = new FrameCursor();
  #transfer: Transfer | null = null;
  /** A whole frame that is collected before it is handed on. */
  #collected: { readonly header: FrameHeader; readonly payload: Uint8Array } | null = null;
  #at = 0;

  /** @param onPing the peer shows that the way is open; `asks`: it wants to be shown the same */
  constructor(from: PeerId, collectives: Collectives, onPing: (asks: boolean) => void) {
    this.#from = from;
    this.#collectives = collectives;
    this.#onPing = onPing;
  }

  onFrame(header: FrameHeader): string | null {
    this.#transfer = null;
    if (header.type === FRAME_RELAY) {
      this.#collect(header);
      return null;
    }
    if (header.type === FRAME_PING) {
      this.#onPing(header.segment === 1);
      return null;
    }
    if (header.type === FRAME_CREDIT) return 'it gave credit for what was not relayed';
    const target = this.#collectives.route(this.#from, header);
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
    }
    return null;
  }

  onFrameEnd(): string | null {
    const transfer = this.#transfer;
    const collected = this.#collected;
    this.#transfer = null;
    this.#collected = null;
    if (transfer !== null) transfer.endFrame(this.#cursor);
    if (collected === null) return null;
    const arrival = { from: this.#from, path: null, ...collected };
    return arrival.header.type === FRAME_RELAY
      ? this.#collectives.onRelayed(arrival)
      : this.#collectives.deliver(arrival);
  }

  /** The connection is gone, perhaps half-way through a frame. */
  close(): void {
    this.#transfer?.abandonFrame(this.#cursor);
    this.#transfer = null;
    this.#collected = null;
  }
}
