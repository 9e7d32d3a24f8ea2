/** Every choice of a fuzzer comes from one seed, which is told at its start and in each failure. */

import { Random } from '../sim/random.ts';
import { type Corpus, keepCorpus } from './corpus.ts';

const VARIABLE = 'SKEIN_FUZZ_SEED';

/** The seed of this run: what `SKEIN_FUZZ_SEED` says, or one that nobody has seen before. */
export function fuzzSeed(what: string): number {
  const given = process.env[VARIABLE];
  const seed = given === undefined || given === '' ? Date.now() % 1_000_000_000 : Number(given);
  console.log(`${what}: seed ${seed} (${VARIABLE}=${seed} repeats it)`);
  return seed;
}

/** Runs one round of a fuzzer; what it throws says how to repeat it. */
export function round(seed: number, number: number, corpus: Corpus, body: (random: Random) => void): void {
  try {
    body(new Random((seed + 7_919 * number) | 0));
  } catch (error) {
    const repeat = `${VARIABLE}=${seed} ${keepCorpus(corpus, seed)}`;
    const text = error instanceof Error ? error.message : String(error);
    throw new Error(`round ${number}: ${text} (${repeat} repeats it)`, { cause: error });
  }
}
