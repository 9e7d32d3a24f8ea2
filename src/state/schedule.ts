/**
 * Which pieces are asked of whom. Every source is asked for as much as it has room for, so a fast one gives more; what a source
 * failed to give is asked of another, and what one is late with is asked of a second one as well.
 */
import { type Layout, placeOf } from './layout.ts';

/** Pieces side by side that are asked for at once. */
export interface Batch {
  readonly first: number;
  readonly count: number;
  readonly bytes: number;
}

/** What is asked for longer than this is late (ms). */
const LATE_MS = 2_000;

/** Pieces in one batch: of a state of many small entries. */
export const MAX_BATCH_PIECES = 4_096;

/** @param pieces in ascending order */
export function makeBatches(layout: Layout, pieces: Iterable<number>): Batch[] {
  const batches: Batch[] = [];
  let open = { first: 0, count: 0, bytes: 0 };
  const close = () => {
    if (open.count > 0) batches.push(open);
  };
  for (const piece of pieces) {
    const { bytes } = placeOf(layout, piece);
    const fits =
      piece === open.first + open.count &&
      open.count > 0 &&
      open.count < MAX_BATCH_PIECES &&
      open.bytes + bytes <= layout.pieceBytes;
    if (fits) {
      open.count += 1;
      open.bytes += bytes;
    } else {
      close();
      open = { first: piece, count: 1, bytes };
    }
  }
  close();
  return batches;
}

interface Errand {
  readonly batch: Batch;
  readonly since: number;
  readonly sources: Set<string>;
}

export class Schedule {
  readonly #waiting: Batch[];
  /** Asked for, the oldest first. */
  readonly #errands: Map<Batch, Errand> = new Map();
  readonly #sources: Set<string>;

  constructor(batches: readonly Batch[], sources: Iterable<string>) {
    this.#waiting = [...batches].reverse();
    this.#sources = new Set(sources);
  }

  /** Everything has come. */
  get isDone(): boolean {
    return this.#waiting.length === 0 && this.#errands.size === 0;
  }

  /** Something is missing, and there is nobody left to ask. */
  get isStuck(): boolean {
    return !this.isDone && this.#sources.size === 0;
  }

  has(source: string): boolean {
    return this.#sources.has(source);
  }

  /** What to ask of a source that has room; null: nothing for now. */
  take(source: string, now: number): Batch | null {
    if (!this.#sources.has(source)) return null;
    const next = this.#waiting.pop();
    if (next !== undefined) {
      this.#errands.set(next, { batch: next, since: now, sources: new Set([source]) });
      return next;
    }
    for (const { batch, since, sources } of this.#errands.values()) {
      if (now - since < LATE_MS) break;
      if (sources.size > 1 || sources.has(source)) continue;
      sources.add(source);
      return batch;
    }
    return null;
  }

  /** More to ask for. */
  add(batches: readonly Batch[]): void {
    this.#waiting.push(...batches);
  }

  /** All of it has come. @returns whether it was still missing */
  onCame(batch: Batch): boolean {
    return this.#errands.delete(batch);
  }

  /** A source did not give it, or something else. */
  onFailed(source: string, batch: Batch): void {
    const errand = this.#errands.get(batch);
    if (errand === undefined) return; // another one gave it
    errand.sources.delete(source);
    if (errand.sources.size > 0) return;
    this.#errands.delete(batch);
    this.#waiting.push(batch);
  }

  /** A source is gone, or not to be trusted. */
  drop(source: string): void {
    this.#sources.delete(source);
    for (const { batch } of [...this.#errands.values()]) this.onFailed(source, batch);
  }
}
