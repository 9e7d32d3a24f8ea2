/**
 * How named parameters are cut into fragments (Streaming DiLoCo, arXiv 2501.18512, section 2.2), and the copies between the
 * user's arrays and a fragment's own, which is flat.
 */
import { ArgumentError } from '../index.ts';

/** Parameters of a model by name, in any layout: shapes are the user's affair. The order must be the same on all peers. */
export type Parameters = Readonly<Record<string, Float32Array>>;

/**
 * `sequential`: runs of parameters as they follow one another, of equal length to an element; arrays may be cut.
 * `strided`: the i-th array to fragment i modulo the number of fragments, as the paper deals out layers.
 */
export type FragmentPattern = 'sequential' | 'strided';

/** Elements `start` to `end` of a parameter. */
interface Piece {
  readonly name: string;
  readonly start: number;
  readonly end: number;
}

export interface FragmentLayout {
  readonly pieces: readonly Piece[];
  /** Elements in all. */
  readonly count: number;
}

function toLayout(pieces: readonly Piece[]): FragmentLayout {
  return { pieces, count: pieces.reduce((sum, piece) => sum + piece.end - piece.start, 0) };
}

function sequential(parameters: Parameters, count: number): FragmentLayout[] {
  const total = Object.values(parameters).reduce((sum, array) => sum + array.length, 0);
  return Array.from({ length: count }, (_, index) => {
    const from = Math.floor((total * index) / count);
    const to = Math.floor((total * (index + 1)) / count);
    const pieces: Piece[] = [];
    let first = 0;
    for (const [name, { length }] of Object.entries(parameters)) {
      const start = Math.max(from - first, 0);
      const end = Math.min(to - first, length);
      if (end > start) pieces.push({ name, start, end });
      first += length;
    }
    return toLayout(pieces);
  });
}

function strided(parameters: Parameters, count: number): FragmentLayout[] {
  const names = Object.keys(parameters);
  return Array.from({ length: count }, (_, index) =>
    toLayout(
      names
        .filter((_name, position) => position % count === index)
        .map((name) => ({ name, start: 0, end: parameters[name]!.length })),
    ),
  );
}

/** @throws ArgumentError when a fragment would be empty, or something is no Float32Array */
export function cutIntoFragments(parameters: Parameters, count: number, pattern: FragmentPattern): FragmentLayout[] {
  for (const [name, array] of Object.entries(parameters)) {
    if (!(array instanceof Float32Array)) {
      throw new ArgumentError(`Parameter ${JSON.stringify(name)} is not a Float32Array.`);
    }
  }
  const fragments = pattern === 'strided' ? strided(parameters, count) : sequential(parameters, count);
  const empty = fragments.findIndex((fragment) => fragment.count === 0);
  if (empty >= 0) {
    throw new ArgumentError(`Fragment ${empty} of ${count} would be empty: use fewer fragments, or another pattern.`);
  }
  return fragments;
}

/** The fragment's elements one after the other. */
export function gather(parameters: Parameters, layout: FragmentLayout, into: Float32Array): void {
  let at = 0;
  for (const { name, start, end } of layout.pieces) {
    into.set(parameters[name]!.subarray(start, end), at);
    at += end - start;
  }
}

/** Puts elements back where `gather` took them from. */
export function spread(from: Float32Array, layout: FragmentLayout, parameters: Parameters): void {
  let at = 0;
  for (const { name, start, end } of layout.pieces) {
    parameters[name]!.set(from.subarray(at, at + end - start), start);
    at += end - start;
  }
}
