/**
 * `node dist/examples/diloco-text/sweep.js data-parallel` (or `diloco`): inner learning rates of one side by one seed, and of
 * DiLoCo outer momentum, error feedback and mixing. The records that it writes are why the settings of `run.ts` are what
 * they are.
 */
import { writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describeMachine } from '../../bench/harness/machine.ts';
import { type Outcome, runAll } from './runs.ts';
import { dataParallel, diloco } from './settings.ts';
import type { Setting } from './task.ts';

const SEED = 1;

const PLAIN = { rate: 8e-3, momentum: 0.6, errorFeedback: false } as const;

const SIDES: Readonly<Record<string, readonly Setting[]>> = {
  'data-parallel': [4e-3, 8e-3, 16e-3].map((rate) => dataParallel({ rate })),
  diloco: [
    ...[4e-3, 8e-3, 16e-3].map((rate) => diloco({ ...PLAIN, rate })),
    ...[2e-3, 4e-3].map((rate) => diloco({ ...PLAIN, rate, momentum: 0.9 })),
    diloco({ ...PLAIN, errorFeedback: true }),
    ...[0, 0.5].map((mixing) => diloco({ ...PLAIN, fragments: { count: 4, overlap: 5, mixing } })),
  ],
};

const [side = 'diloco'] = process.argv.slice(2);
const settings = SIDES[side];
if (settings === undefined) throw new Error(`There is no side ${side}: use ${Object.keys(SIDES).join(' or ')}.`);
const record = fileURLToPath(new URL(`../../../bench/results/diloco-text-sweep-${side}.json`, import.meta.url));
const outcomes: Omit<Outcome, 'curve'>[] = [];
for await (const { curve: _, ...outcome } of runAll(settings, [SEED])) {
  outcomes.push(outcome);
  console.log(JSON.stringify(outcome));
  const text = JSON.stringify({ machine: describeMachine(), date: new Date().toISOString(), outcomes }, null, 1);
  writeFileSync(record, `${text}\n`);
}
