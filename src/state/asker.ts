/** Asks other peers for parts of states, and gets the answers to those who wait for them. */
import type { FrameHeader } from '../wire/frame.ts';
import { type Ask, askFrame, MAX_ASKS, NOTHING } from './exchange.ts';
import type { StatePort } from './port.ts';

/** What is not answered by then is not awaited any longer (ms). */
const PATIENCE_MS = 30_000;

interface Request {
  readonly ask: Ask;
  readonly bytes: number;
  isArriving: boolean;
  /** Nobody waits for it any more; but it may still come. */
  isLate: boolean;
  readonly end: (answer: Uint8Array | null) => void;
}

export class Asker {
  readonly #port: StatePort;
  /** By peer, by number. */
  readonly #requests: Map<string, Map<number, Request>> = new Map();
  #next = 1;

  constructor(port: StatePort) {
    this.#port = port;
  }

  /**
   * @param bytes how long the answer is
   * @param patienceMs how long it is awaited
   * @returns memory that the caller gives back; null: the peer has no such thing, or can't be reached, or does not answer
   */
  ask(peerId: string, ask: Ask, bytes: number, patienceMs: number = PATIENCE_MS): Promise<Uint8Array | null> {
    const open = this.#requests.get(peerId) ?? new Map<number, Request>();
    if (open.size >= MAX_ASKS || !this.#port.isUp(peerId)) return Promise.resolve(null);
    this.#requests.set(peerId, open);
    const sequence = this.#next++ >>> 0;
    return new Promise((resolve) => {
      const end = (answer: Uint8Array | null) => {
        stopTimer();
        open.delete(sequence);
        if (request.isLate && answer !== null) this.#port.giveBuffer(answer);
        else resolve(answer);
      };
      const request = { ask, bytes, isArriving: false, isLate: false, end };
      const stopTimer = this.#port.schedule(patienceMs, () => {
        request.isLate = true;
        resolve(null);
      });
      open.set(sequence, request);
      this.#port.send(peerId, askFrame(sequence, ask), null, null);
    });
  }

  /** An answer begins. @returns memory for it; null where nobody waits for it any more; a text when it is not what was asked for */
  open(from: string, header: FrameHeader): Uint8Array | null | string {
    const request = this.#requests.get(from)?.get(header.sequence);
    if (request === undefined) return null;
    const { ask, bytes } = request;
    if (header.generation === NOTHING && header.length === 0) return null;
    const isIt = header.generation === ask.kind && header.tag === ask.tag && header.length === bytes;
    if (!isIt || request.isArriving) return 'it answered something else than what it was asked for';
    request.isArriving = true;
    return this.#port.takeBuffer(bytes);
  }

  /** An answer has come whole. @param buffer what `open` gave */
  end(from: string, header: FrameHeader, buffer: Uint8Array | null): void {
    const request = this.#requests.get(from)?.get(header.sequence);
    if (request !== undefined) request.end(buffer);
    else if (buffer !== null) this.#port.giveBuffer(buffer);
  }

  /** The rest of an answer will not come. */
  abandon(buffer: Uint8Array): void {
    this.#port.giveBuffer(buffer);
  }

  /** What was on the way to or from a peer is lost. */
  onLinkLost(peerId: string): void {
    for (const request of [...(this.#requests.get(peerId)?.values() ?? [])]) request.end(null);
  }

  close(): void {
    for (const peerId of this.#requests.keys()) this.onLinkLost(peerId);
  }
}
