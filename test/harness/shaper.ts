/**
 * One direction of a link with a rate and a delay, as a state machine: frames and times in, frames and times out. What comes while
 * the queue before the link is full is dropped, as a router does.
 */
export interface Shape {
  readonly bytesPerSecond: number;
  /** One way. */
  readonly delayMs: number;
  /** What the queue before the link holds. */
  readonly queueBytes: number;
}

interface Travelling {
  readonly frame: Buffer;
  readonly at: number;
}

export class Shaper {
  /** Bytes that were let through, and frames that were not. */
  passed = 0;
  dropped = 0;
  readonly #shape: Shape;
  #travelling: Travelling[] = [];
  #head = 0;
  /** When the link has sent all that was given to it. */
  #freeAt = 0;

  constructor(shape: Shape) {
    this.#shape = shape;
  }

  /** @param bytes that the frame takes on the link; it may stand for several packets */
  arrive(frame: Buffer, bytes: number, now: number): void {
    const { bytesPerSecond, delayMs, queueBytes } = this.#shape;
    const queued = (Math.max(0, this.#freeAt - now) * bytesPerSecond) / 1_000;
    if (queued + bytes > queueBytes) {
      this.dropped += 1;
      return;
    }
    this.passed += bytes;
    this.#freeAt = Math.max(this.#freeAt, now) + (1_000 * bytes) / bytesPerSecond;
    this.#travelling.push({ frame, at: this.#freeAt + delayMs });
  }

  /** The next frame that has arrived at the other end by now; null when there is none. */
  depart(now: number): Buffer | null {
    const first = this.#travelling[this.#head];
    if (first === undefined || first.at > now) return null;
    this.#head += 1;
    if (this.#head === this.#travelling.length) {
      this.#travelling = [];
      this.#head = 0;
    }
    return first.frame;
  }
}

/** What precedes each frame that a macvtap device gives and takes (`struct virtio_net_hdr`). */
const VNET_BYTES = 10;
const HEADERS_AT = 2;
const SEGMENT_AT = 4;

/** What a frame takes on the wire, which may be as long as 64 KiB: then a network card would send it as packets with headers of their own. */
export function wireBytes(frame: Buffer): number {
  const bytes = frame.length - VNET_BYTES;
  const [headers, segment] = [frame.readUInt16LE(HEADERS_AT), frame.readUInt16LE(SEGMENT_AT)];
  if (segment === 0) return bytes;
  const packets = Math.ceil((bytes - headers) / segment);
  return bytes + (packets - 1) * headers;
}
