/**
 * `npm run example:mnist`: four processes learn handwritten digits in several ways. Prints accuracy and the bytes that really went over
 * the sockets, and writes a chart of loss against bytes.
 */
import { writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import Table from 'cli-table3';
import { chartSvg } from '../../src/benchmark/chart.ts';
import { compare } from './compare.ts';

const CHART = fileURLToPath(new URL('../../../bench/results/diloco-mnist.svg', import.meta.url));

const { rows, worldSizes } = await compare((row) => console.log(`done: ${row.name}`));
const [baseline] = rows;
const table = new Table({
  head: ['', 'test accuracy', 'test loss', 'MB sent', 'fewer bytes', 'equal bits'],
  style: { head: [] },
});
for (const row of rows) {
  const ratio = row.bytes === 0 ? '–' : `${(baseline!.bytes / row.bytes).toFixed(0)}×`;
  const accuracy = `${(100 * row.accuracy).toFixed(2)} %`;
  table.push([
    row.name,
    accuracy,
    row.loss.toFixed(3),
    (row.bytes / 1e6).toFixed(2),
    ratio,
    row.areEqual ? 'yes' : 'no',
  ]);
}
console.log(table.toString());
console.log(`World size after each round under churn: ${worldSizes.join(' ')}`);
const points = rows.flatMap(({ name, curve }) =>
  curve.filter((point) => point.bytes > 0).map((point) => ({ series: name, x: point.bytes, y: point.loss })),
);
const axes = { x: { title: 'bytes sent by one peer', base: 10 }, y: { title: 'test loss', zero: false } } as const;
writeFileSync(CHART, await chartSvg({ title: 'Digits: loss against bytes on the wire', ...axes }, points));
console.log(`Written: ${CHART}`);
