/**
 * How a vector is shared out. Ring programs cut it into one chunk per rank, trees into halves; every rank must cut in the
 * same places, so there is this one rule: chunks differ by one element at most, the longer ones come first.
 */

/** A run of elements. */
export interface Share {
  readonly start: number;
  readonly count: number;
}

/** The `index`-th of `parts` balanced shares of `count` elements. Empty when there are fewer elements than parts. */
export function shareOf(count: number, parts: number, index: number): Share {
  const base = Math.floor(count / parts);
  const longer = count % parts;
  return { start: index * base + Math.min(index, longer), count: base + (index < longer ? 1 : 0) };
}

/** All shares, in order; together they cover the vector without gap or overlap. */
export function partition(count: number, parts: number): readonly Share[] {
  return Array.from({ length: parts }, (_, index) => shareOf(count, parts, index));
}
