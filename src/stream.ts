/** An all-reduce whose tensor is still being computed: what its caller holds. It keeps the books, and moves no bytes. */
import type { Report } from './collectives/call.ts';
import { ReadySpans } from './collectives/ready.ts';
import { ArgumentError } from './errors.ts';
import type { Span } from './wire/ranges.ts';

/** Part of the result: `length` elements from `offset` on, counted through all tensors of the call. */
export interface ReducedRange {
  readonly offset: number;
  readonly length: number;
  /** How often the call had been begun anew when these values were computed (`report.retries` of that moment). */
  readonly retry: number;
}

interface DoneSpan extends Span {
  readonly retry: number;
}

/** Ranges that are done and not yet handed to the caller. What is done anew takes the place of what was done before. */
export class DoneQueue {
  #spans: DoneSpan[] = [];
  #ended = false;
  #wake: () => void = () => {};

  get ended(): boolean {
    return this.#ended;
  }

  push(span: DoneSpan): void {
    // In the order of their retries.
    const [oldest] = this.#spans;
    if (oldest !== undefined && oldest.retry < span.retry)
      this.#spans = this.#spans.flatMap((one) => (one.retry < span.retry ? without(one, span) : [one]));
    const last = this.#spans.at(-1);
    // Neighbours are handed out as one: whoever is busy meanwhile gets few and long ranges.
    if (last !== undefined && last.retry === span.retry && last.end === span.start)
      this.#spans[this.#spans.length - 1] = { ...last, end: span.end };
    else this.#spans.push(span);
    this.#wake();
  }

  take(): DoneSpan | undefined {
    return this.#spans.shift();
  }

  /** Nothing more will come. After a failure nothing that came is of use. */
  end(succeeded: boolean): void {
    if (!succeeded) this.#spans = [];
    this.#ended = true;
    this.#wake();
  }

  /** Resolves at the next `push` or `end`. */
  changed(): Promise<void> {
    const before = this.#wake;
    return new Promise((resolve) => {
      this.#wake = () => {
        before();
        this.#wake = () => {};
        resolve();
      };
    });
  }
}

function without(one: DoneSpan, { start, end }: Span): DoneSpan[] {
  const left = { ...one, end: Math.min(one.end, start) };
  const right = { ...one, start: Math.max(one.start, end) };
  return [left, right].filter((rest) => rest.start < rest.end);
}

/**
 * An all-reduce that has begun before its tensor is complete (`group.allReduceStream`).
 *
 * **Going out.** `ready` and `readyTensor` say that elements of the tensor have their values and won't change until the call has
 * ended. Any order will do, on each member another one.
 *
 * **Coming back.** `for await (const { offset, length, retry } of stream)` hands out parts of the result. With `out` a part comes as
 * soon as it is there, and its values are in `out`: they are the result *if the call succeeds and does not hand them out again*. It
 * does after a loss, with a higher `retry`, for what is computed anew: whoever used such a part uses it again, and keeps what
 * can't be taken back until `report` resolves. When it has, what was handed out last for each element is the result, on all
 * members the same. If the call fails the iterator throws its error, and `out` is undefined. Without `out` the tensor changes only
 * when the call has succeeded, as with `allReduce`, so all of it is handed out then. Each range is handed out once: iterate once.
 * Parts come in whole segments, which may reach beyond what was declared at a time: don't wait for one before the rest is ready.
 *
 * A caller that leaves the others waiting for its parts is slow as one is that makes its call late: `slow-peer` names it, and
 * `stragglers: 'exclude'` goes on without it.
 */
export class AllReduceStream implements AsyncIterable<ReducedRange> {
  /**
   * Resolves when the call has been committed, as the promise of `allReduce` does; rejects with the same errors. A rejection that
   * nobody awaits ends no process, as the failure may come long before the tensor is complete: so await it.
   */
  readonly report: Promise<Report>;
  /** Of each tensor, its first element; and how many there are of all. */
  readonly #starts: readonly number[];
  readonly #total: number;
  readonly #done: DoneQueue;
  readonly #tell: (start: number, end: number) => void;
  readonly #ready: ReadySpans = new ReadySpans();

  /** @internal use `group.allReduceStream()` */
  constructor(
    counts: readonly number[],
    report: Promise<Report>,
    done: DoneQueue,
    tell: (start: number, end: number) => void,
  ) {
    const starts = [0];
    for (const [index, count] of counts.entries()) starts.push(starts[index]! + count);
    this.#total = starts.pop()!; // there are one more than tensors
    this.#starts = starts;
    this.report = report;
    this.#done = done;
    this.#tell = tell;
    report.catch(() => {});
  }

  /**
   * Elements `offset` to `offset + length` may go out. Without arguments: all; without `length`: all from `offset` on. After the
   * call has failed it does nothing.
   *
   * @param offset in elements, counted through all tensors of the call
   * @throws ArgumentError when some of them don't exist, or were ready already: they may have been sent with other values
   */
  ready(offset = 0, length: number = this.#total - offset): void {
    const end = offset + length;
    if (
      !Number.isSafeInteger(offset) ||
      !Number.isSafeInteger(length) ||
      offset < 0 ||
      length < 0 ||
      end > this.#total
    ) {
      throw new ArgumentError(`There are no elements ${offset} to ${end} to be ready: the tensor has ${this.#total}.`);
    }
    if (!this.#ready.add(offset, end)) {
      throw new ArgumentError(
        `Some of the elements ${offset} to ${end} were ready already, and may have been sent: say it once, when they won't change any more.`,
      );
    }
    if (length > 0) this.#tell(offset, end);
  }

  /**
   * The `index`-th tensor of the call may go out.
   * @throws ArgumentError as `ready`
   */
  readyTensor(index: number): void {
    const start = this.#starts[index];
    if (start === undefined)
      throw new ArgumentError(`There is no tensor ${index} to be ready: the call has ${this.#starts.length}.`);
    this.ready(start, (this.#starts[index + 1] ?? this.#total) - start);
  }

  /** Parts of the result, as they come: see `ReducedRange`. */
  async *[Symbol.asyncIterator](): AsyncGenerator<ReducedRange, void, undefined> {
    for (;;) {
      const span = this.#done.take();
      if (span !== undefined) yield { offset: span.start, length: span.end - span.start, retry: span.retry };
      else if (this.#done.ended) break;
      else await this.#done.changed();
    }
    await this.report;
  }
}
