import { expect, test } from 'vitest';
import { runModel } from './leadership.ts';

/** `SKEIN_LEADERSHIP_SEEDS=10000 npx vitest run test/store/leadership.test.ts` for a long one. */
const SEEDS = Number(process.env['SKEIN_LEADERSHIP_SEEDS'] ?? 80);

test(`in ${SEEDS} storms never two lead at once, nothing that was said is forgotten, and somebody leads in the end`, async () => {
  const first = Number(process.env['SKEIN_SEED'] ?? 1);
  let terms = 0;
  let said = 0;
  let refused = 0;
  for (let seed = first; seed < first + SEEDS; seed++) {
    const result = await runModel(seed);
    expect(result.failure, `SKEIN_SEED=${seed}:\n${result.trace.slice(-40).join('\n')}`).toBeNull();
    terms += result.terms;
    said += result.said;
    refused += result.refused;
  }
  console.log(`${SEEDS} storms: ${terms} terms, ${said} epochs said, ${refused} writes refused`);
  // The storms are worth something.
  expect(terms).toBeGreaterThan(2 * SEEDS);
  expect(said).toBeGreaterThan(20 * SEEDS);
}, 1_800_000);
