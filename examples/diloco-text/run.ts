/**
 * `npm run example:text [seed …]`: four processes learn to predict the characters of "Moby Dick", each from its own part of
 * the book. How many bytes does each side need for the loss that data-parallel training ends with? Prints a table, and writes
 * the record and a chart of loss against bytes. The settings were found by `sweep.ts`.
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import Table from 'cli-table3';
import { describeMachine } from '../../bench/harness/machine.ts';
import { chartSvg } from '../../src/benchmark/chart.ts';
import { type Outcome, runAll } from './runs.ts';
import { SIDES } from './settings.ts';

const SEEDS = [1, 2, 3];
const result = (name: string) => fileURLToPath(new URL(`../../../bench/results/${name}`, import.meta.url));
const RECORD = result('diloco-text.json');
const CHART = result('diloco-text.svg');

const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;
const range = (values: readonly number[], digits: number) =>
  `${mean(values).toFixed(digits)} (${Math.min(...values).toFixed(digits)}–${Math.max(...values).toFixed(digits)})`;

/** Outcomes of seeds that are not run now stay in the record. */
function recorded(seeds: readonly number[]): Outcome[] {
  if (!existsSync(RECORD)) return [];
  const { outcomes } = JSON.parse(readFileSync(RECORD, 'utf8')) as { outcomes: Outcome[] }; // written below
  return outcomes.filter(({ seed, name }) => !seeds.includes(seed) && SIDES.some((side) => side.name === name));
}

/** Where the curve first is at the loss that data-parallel training ended with, by the same seed. */
function arrival(outcome: Outcome, baseline: Outcome) {
  const point = outcome.curve.find(({ loss }) => loss <= baseline.loss);
  if (point === undefined) return undefined;
  return { fewer: baseline.bytes / point.bytes, tokens: point.step / baseline.steps };
}

function printTable(outcomes: readonly Outcome[]): void {
  const head = ['', 'final loss', 'MB sent', 'largest burst, kB', 'target reached with', 'after', 'equal bits'];
  const table = new Table({ head, style: { head: [] } });
  const baselines = new Map(outcomes.filter(({ name }) => name === SIDES[0]!.name).map((one) => [one.seed, one]));
  for (const { name } of SIDES) {
    const runs = outcomes.filter((outcome) => outcome.name === name && baselines.has(outcome.seed));
    const arrivals = runs.flatMap((run) => arrival(run, baselines.get(run.seed)!) ?? []);
    const reached =
      arrivals.length < runs.length
        ? [`${arrivals.length} of ${runs.length} runs`, '–']
        : [
            `${range(
              arrivals.map(({ fewer }) => fewer),
              0,
            )}× fewer bytes`,
            `${range(
              arrivals.map(({ tokens }) => tokens),
              2,
            )}× the tokens`,
          ];
    table.push([
      name,
      range(
        runs.map(({ loss }) => loss),
        3,
      ),
      mean(runs.map(({ bytes }) => bytes / 1e6)).toFixed(2),
      mean(runs.map(({ largestBurst }) => largestBurst / 1e3)).toFixed(1),
      ...reached,
      runs.every(({ areEqual }) => areEqual) ? 'yes' : 'no',
    ]);
  }
  console.log(table.toString());
}

const asked = process.argv.slice(2).map(Number);
const seeds = asked.length === 0 ? SEEDS : asked;
const outcomes = recorded(seeds);
for await (const outcome of runAll(SIDES, seeds)) {
  outcomes.push(outcome);
  console.log(`done: ${outcome.name}, seed ${outcome.seed}: ${outcome.loss.toFixed(3)}`);
}
printTable(outcomes);
const record = { machine: describeMachine(), date: new Date().toISOString(), outcomes };
writeFileSync(RECORD, `${JSON.stringify(record)}\n`);
const points = outcomes
  .filter(({ seed }) => seed === outcomes[0]?.seed)
  .flatMap(({ name, curve }) =>
    curve.filter(({ bytes }) => bytes > 0).map(({ bytes, loss }) => ({ series: name, x: bytes, y: loss })),
  );
const axes = {
  x: { title: 'bytes sent by one peer', base: 10 },
  y: { title: 'test loss, nats per character', zero: false },
} as const;
writeFileSync(CHART, await chartSvg({ title: '"Moby Dick": loss against bytes on the wire', ...axes }, points));
console.log(`Written: ${RECORD}, ${CHART}`);
