import { expect, test } from 'vitest';
import { hunt, placeOf } from './hunt.ts';
import { MUTANTS } from './mutants.ts';

/** An eighth of them each day, as each is a minute of two cores; all with SKEIN_ALL_MUTANTS. */
const TURNS = 8;
const turn = Math.floor(Date.now() / 86_400_000) % TURNS;
const isAll = (process.env['SKEIN_ALL_MUTANTS'] ?? '') !== '';
const HUNTED = MUTANTS.filter((_, index) => isAll || index % TURNS === turn);

test.each(HUNTED)(
  'the simulator finds that $title',
  async (mutant) => {
    const { caught, report } = await hunt(mutant);
    expect(caught, report).toBe(true);
  },
  300_000,
);

test('every mutant finds its place in the source', () => {
  for (const mutant of MUTANTS) expect(() => placeOf(mutant)).not.toThrow();
});
