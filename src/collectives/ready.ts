/** Which elements of a tensor there are already, where they come part by part and in any order. */
import type { Span } from '../wire/ranges.ts';

export class ReadySpans {
  /** Ascending, without overlap; neighbours are joined. */
  readonly #spans: Span[] = [];
  #total = 0;

  /** Elements that are there. */
  get total(): number {
    return this.#total;
  }

  get spans(): readonly Span[] {
    return this.#spans;
  }

  /** Adds elements `start` to `end` (not included); false, and nothing is added, where some of them were there already. */
  add(start: number, end: number): boolean {
    if (start >= end) return true;
    const at = this.#after(start);
    const before = this.#spans[at - 1];
    const after = this.#spans[at];
    if ((before !== undefined && before.end > start) || (after !== undefined && after.start < end)) return false;
    const joinsBefore = before?.end === start;
    const joinsAfter = after?.start === end;
    const from = joinsBefore ? before.start : start;
    const to = joinsAfter ? after.end : end;
    this.#spans.splice(joinsBefore ? at - 1 : at, Number(joinsBefore) + Number(joinsAfter), { start: from, end: to });
    this.#total += end - start;
    return true;
  }

  /** Index of the first span that begins after an element. */
  #after(element: number): number {
    let low = 0;
    let high = this.#spans.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#spans[middle]!.start <= element) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}
