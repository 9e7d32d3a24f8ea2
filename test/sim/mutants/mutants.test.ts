import { expect, test } from 'vitest';
import { hunt } from './hunt.ts';
import { MUTANTS } from './mutants.ts';

test.each(MUTANTS)(
  'the simulator finds that $title',
  async (mutant) => {
    const { caught, report } = await hunt(mutant);
    expect(caught, report).toBe(true);
  },
  300_000,
);
