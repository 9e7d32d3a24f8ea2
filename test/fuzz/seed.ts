/** Every choice of a fuzzer comes from one seed, which is told at its start and in each failure. */
import { Random } from '../sim/random.ts';

const VARIABLE = 'SKEIN_FUZZ_SEED';

/** The seed of this run: what `SKEIN_FUZZ_SEED` says, or one that nobody has seen before. */
export function fuzzSeed(what: string): number {
  const given = process.env[VARIABLE];
  const seed = given === undefined || given === '' ? Date.now() % 1_000_000_000 : Number(given);
  console.log(`${what}: seed ${seed} (${VARIABLE}=${seed} repeats it)`);
  return seed;
}

/** Runs one round of a fuzzer; what it throws says how to repeat it. */
export function round<T>(seed: number, number: number, body: (random: Random) => T): T {
  try {
    return body(new Random((seed + 7_919 * number) | 0));
  } catch (error) {
    throw new Error(`${VARIABLE}=${seed}, round ${number}: ${error instanceof Error ? error.message : error}`, {
      cause: error,
    });
  }
}
