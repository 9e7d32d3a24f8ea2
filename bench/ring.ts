/**
 * `npm run bench:ring`: how long the search for a ring takes, and what it finds, on random matrices of a wide area: the best
 * order of all where members are few, a good one beyond. One line for each size: medians and the worst of all seeds.
 */
import Table from 'cli-table3';
import { median } from '../src/benchmark/statistics.ts';
import { EXACT_SIZE, scoreOf } from '../src/ring/problem.ts';
import { RingSearch } from '../src/ring/search.ts';
import { bestRate, wideArea } from '../test/ring/problems.ts';
import { Random } from '../test/sim/random.ts';

const SIZES = [4, 8, 10, 12, 14, 16, 32, 64];
const SEEDS = 20;

/** Sizes for which the best slowest hop can be had otherwise. */
const LARGEST_CHECKED = 14;

const table = new Table({
  head: [
    'members',
    'search',
    'ms (median)',
    'ms (worst)',
    'operations',
    'slowest hop, of the best (worst)',
    'gain (median)',
  ],
});
for (const size of SIZES) {
  const milliseconds: number[] = [];
  const gains: number[] = [];
  let [operations, share] = [0, 1];
  for (let seed = 1; seed <= SEEDS; seed++) {
    const problem = wideArea(size, new Random(seed));
    const start = Array.from({ length: size }, (_, member) => member);
    const startedAt = performance.now();
    const search = new RingSearch(problem, start);
    search.run(Number.POSITIVE_INFINITY);
    milliseconds.push(performance.now() - startedAt);
    const { rate } = scoreOf(problem, search.best);
    gains.push(rate / scoreOf(problem, start).rate);
    operations = Math.max(operations, search.operations);
    if (size <= LARGEST_CHECKED) share = Math.min(share, rate / bestRate(problem));
  }
  table.push([
    size,
    size <= EXACT_SIZE ? 'exact' : 'local',
    median(milliseconds).toFixed(1),
    Math.max(...milliseconds).toFixed(1),
    operations.toLocaleString('en'),
    size <= LARGEST_CHECKED ? `${(100 * share).toFixed(1)} %` : '',
    `${median(gains).toFixed(1)} ×`,
  ]);
}
console.log(`${table}`);
