/**
 * `npm run example:text -- sweep`: learning rates of both sides, by one seed. The record that it writes is why the settings of `run.ts` are
 * what they are.
 */
import { writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describeMachine } from '../../bench/harness/machine.ts';
import { type Outcome, runAll } from './runs.ts';
import { dataParallel, diloco } from './settings.ts';
import type { Setting } from './task.ts';

const RECORD = fileURLToPath(new URL('../../../bench/results/diloco-text-sweep.json', import.meta.url));
const SEED = 1;

const SETTINGS: readonly Setting[] = [
  ...[2e-3, 4e-3, 8e-3, 16e-3].map((rate) => dataParallel({ rate })),
  ...[2e-3, 4e-3, 8e-3].flatMap((rate) => [0.6, 0.9].map((momentum) => diloco({ rate, momentum }))),
];

const outcomes: Omit<Outcome, 'curve'>[] = [];
for await (const { curve: _, ...outcome } of runAll(SETTINGS, [SEED])) {
  outcomes.push(outcome);
  console.log(JSON.stringify(outcome));
  const record = { machine: describeMachine(), date: new Date().toISOString(), seed: SEED, outcomes };
  writeFileSync(RECORD, `${JSON.stringify(record, null, 1)}\n`);
}
