/**
 * What an input that comes in parts still lacks, segment by segment. A segment waits for its own elements only, and for no other
 * segment: so ranks may get their parts in different orders.
 */
import type { Span } from '../wire/ranges.ts';
import type { Chunk } from './chunk.ts';

export class MissingInput {
  readonly #chunks: readonly Chunk[];
  /** Elements that each segment lacks. */
  readonly #lacking: Uint32Array;

  /** @param ready elements that are there already, ascending */
  constructor(chunks: readonly Chunk[], segments: number, ready: readonly Span[]) {
    this.#chunks = chunks;
    this.#lacking = new Uint32Array(segments);
    for (const chunk of chunks) {
      if (chunk.program.input === null) continue;
      const end = chunk.firstSegment + chunk.segments;
      for (let segment = chunk.firstSegment; segment < end; segment++) this.#lacking[segment] = chunk.elements(segment);
    }
    for (const { start, end } of ready) this.add(start, end, null);
  }

  /** Whether part of what a segment's first step reads is not there yet. */
  lacks(segment: number): boolean {
    return this.#lacking[segment] !== 0;
  }

  /** Elements `start` to `end` are there, of which each may be told once. Tells of the segments that lack nothing any more. */
  add(start: number, end: number, onComplete: ((chunk: Chunk, segment: number) => void) | null): void {
    for (const chunk of this.#chunks) {
      const { input, count } = chunk.program;
      if (input === null) continue;
      const size = chunk.segmentElements;
      const from = Math.max(start - input, 0);
      const to = Math.min(end - input, count);
      for (let at = from; at < to; ) {
        const index = Math.floor(at / size);
        const next = Math.min(to, (index + 1) * size);
        const segment = chunk.firstSegment + index;
        this.#lacking[segment]! -= next - at;
        if (this.#lacking[segment] === 0) onComplete?.(chunk, segment);
        at = next;
      }
    }
  }
}
