/**
 * Frames that are kept until it is their segment's turn, or until they are whole. How many there are follows from this rank's own
 * program: at most one of each sender for a segment. So a link is never blocked, and nobody can make a rank keep more.
 *
 * What describes a frame is used again for later ones, and its buffer goes back to the workspace when the frame has been worked in.
 */
import type { Rank } from './program.ts';
import type { Workspace } from './workspace.ts';

export interface EarlyFrame {
  from: Rank;
  /** May be longer than the frame. */
  buffer: Uint8Array;
  length: number;
  complete: boolean;
  /** The buffer is where the segment's result will be. */
  inPlace: boolean;
  /** Of the same segment, in no order. */
  next: EarlyFrame | null;
}

type Buffers = Pick<Workspace, 'takeBuffer' | 'giveBuffer'>;

const NO_BYTES = new Uint8Array(0);

export class EarlyFrames {
  readonly #workspace: Buffers;
  readonly #ofSegment: (EarlyFrame | null)[];
  readonly #spare: EarlyFrame[] = [];

  constructor(workspace: Buffers, segments: number) {
    this.#workspace = workspace;
    this.#ofSegment = new Array<EarlyFrame | null>(segments).fill(null);
  }

  /** @param room where the frame can be kept; null: in a buffer of its own */
  keep(segment: number, from: Rank, length: number, room: Uint8Array | null): EarlyFrame {
    const spare = this.#spare.pop();
    const frame = spare ?? { from, buffer: NO_BYTES, length, complete: false, inPlace: false, next: null };
    frame.from = from;
    frame.buffer = room ?? this.#workspace.takeBuffer(length);
    frame.length = length;
    frame.complete = false;
    frame.inPlace = room !== null;
    frame.next = this.#ofSegment[segment] ?? null;
    this.#ofSegment[segment] = frame;
    return frame;
  }

  has(segment: number): boolean {
    return this.#ofSegment[segment] !== null;
  }

  /** What a rank sent for a segment, perhaps not whole yet. */
  from(segment: number, rank: Rank): EarlyFrame | null {
    let frame = this.#ofSegment[segment] ?? null;
    while (frame !== null && frame.from !== rank) frame = frame.next;
    return frame;
  }

  /** Those of a segment that are whole. */
  complete(segment: number): EarlyFrame[] {
    const frames: EarlyFrame[] = [];
    for (let frame = this.#ofSegment[segment] ?? null; frame !== null; frame = frame.next) {
      if (frame.complete) frames.push(frame);
    }
    return frames;
  }

  /** A frame has been worked in. */
  drop(segment: number, frame: EarlyFrame): void {
    this.#unlink(segment, frame);
    if (!frame.inPlace) this.#workspace.giveBuffer(frame.buffer);
    frame.buffer = NO_BYTES;
    this.#spare.push(frame);
  }

  /** Forgets all. Buffers are not given back to the workspace: a frame that is still coming in may refer to one. */
  forget(): void {
    this.#ofSegment.fill(null);
  }

  #unlink(segment: number, frame: EarlyFrame): void {
    let before = this.#ofSegment[segment] ?? null;
    if (before === frame) {
      this.#ofSegment[segment] = frame.next;
      return;
    }
    while (before !== null && before.next !== frame) before = before.next;
    if (before !== null) before.next = frame.next;
  }
}
