/**
 * Ranges of a tensor that are finished: what `recovery: 'salvage'` keeps when a peer is lost. Each bears the epoch of the
 * attempt that finished it, as values of different attempts are not the same. Lists are ascending and don't overlap.
 */
import { MAX_KEPT_RANGES } from './limits.ts';

/** Elements `start` to `end` (not included), finished by the attempt of `epoch`. */
export interface KeptRange {
  readonly start: number;
  readonly end: number;
  readonly epoch: number;
}

export interface Span {
  readonly start: number;
  readonly end: number;
}

/** Puts ranges in order and joins neighbours of one epoch; of too many, the longest stay. */
export function tidyRanges(ranges: readonly KeptRange[]): readonly KeptRange[] {
  const joined: { start: number; end: number; epoch: number }[] = [];
  for (const range of [...ranges].sort((left, right) => left.start - right.start)) {
    const last = joined.at(-1);
    if (last !== undefined && last.end === range.start && last.epoch === range.epoch) last.end = range.end;
    else joined.push({ ...range });
  }
  if (joined.length <= MAX_KEPT_RANGES) return joined;
  const longest = joined.sort((left, right) => right.end - right.start - (left.end - left.start));
  return longest.slice(0, MAX_KEPT_RANGES).sort((left, right) => left.start - right.start);
}

/** What is finished in both lists, by the same attempts. */
export function intersectRanges(left: readonly KeptRange[], right: readonly KeptRange[]): readonly KeptRange[] {
  const common: KeptRange[] = [];
  let at = 0;
  for (const one of left) {
    while (at < right.length && right[at]!.end <= one.start) at += 1;
    for (let index = at; index < right.length && right[index]!.start < one.end; index++) {
      const other = right[index]!;
      const start = Math.max(one.start, other.start);
      const end = Math.min(one.end, other.end);
      if (one.epoch === other.epoch && start < end) common.push({ start, end, epoch: one.epoch });
    }
  }
  return tidyRanges(common);
}

/** What is in both lists. */
export function commonSpans(left: readonly Span[], right: readonly Span[]): readonly Span[] {
  const common: Span[] = [];
  let at = 0;
  for (const one of left) {
    while (at < right.length && right[at]!.end <= one.start) at += 1;
    for (let index = at; index < right.length && right[index]!.start < one.end; index++) {
      const { start, end } = right[index]!;
      common.push({ start: Math.max(one.start, start), end: Math.min(one.end, end) });
    }
  }
  return common;
}

/** What is left of `count` elements. */
export function restOf(kept: readonly Span[], count: number): readonly Span[] {
  const rest: Span[] = [];
  let at = 0;
  for (const { start, end } of kept) {
    if (at < start) rest.push({ start: at, end: start });
    at = end;
  }
  if (at < count) rest.push({ start: at, end: count });
  return rest;
}

/** Whether a list is one: within `count` elements, ascending, without overlap. */
export function areRanges(ranges: readonly KeptRange[], count: number): boolean {
  let at = 0;
  for (const { start, end } of ranges) {
    if (start < at || end <= start || end > count) return false;
    at = end;
  }
  return true;
}
