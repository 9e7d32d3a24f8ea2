/**
 * `node dist/examples/diloco-text/sweep.js data-parallel` (or `diloco`): inner learning rates, and outer momentum, of one side by one seed. The
 * records that it writes are why the settings of `run.ts` are what they are.
 */
import { writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describeMachine } from '../../bench/harness/machine.ts';
import { type Outcome, runAll } from './runs.ts';
import { dataParallel, diloco } from './settings.ts';
import type { Setting } from './task.ts';

const SEED = 1;

const SIDES: Readonly<Record<string, readonly Setting[]>> = {
  'data-parallel': [2e-3, 4e-3, 8e-3, 16e-3, 32e-3].map((rate) => dataParallel({ rate })),
  diloco: [
    ...[0.6, 0.9].flatMap((momentum) => [2e-3, 4e-3, 8e-3, 16e-3].map((rate) => diloco({ rate, momentum }))),
    ...[4e-3, 8e-3].map((rate) => diloco({ rate, momentum: 0.6, errorFeedback: false })),
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
