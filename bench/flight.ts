/**
 * What the flight recorder costs: small all-reduces between two groups in this process, in batches with and without it in turns, so that
 * whatever else the machine does meets both alike. Prints the median of the ratios of neighbouring batches.
 *
 *     npm run build && node dist/bench/flight.js [batches]
 */
import { median } from '../src/benchmark/statistics.ts';
import { FlightRecorder } from '../src/collectives/flight.ts';
import { Coordinator, join } from '../src/index.ts';

const BATCHES = Number(process.argv[2] ?? 200);
const CALLS = 100;
const ELEMENTS = 256;

const coordinator = await Coordinator.listen({ port: 0 });
const options = { engine: 'inline', startWorldSize: 2 } as const;
const groups = await Promise.all([join(coordinator.address, options), join(coordinator.address, options)]);
const tensors = groups.map(() => new Float32Array(ELEMENTS));
const open = FlightRecorder.prototype.open;
// Calls without an entry are not recorded.
const openNothing = (() => null) as unknown as typeof open;

async function batch(): Promise<number> {
  const start = performance.now();
  for (let call = 0; call < CALLS; call++)
    await Promise.all(groups.map((group, rank) => group.allReduce(tensors[rank]!)));
  return (1_000 * (performance.now() - start)) / CALLS;
}

const taken: { readonly with: number[]; readonly without: number[] } = { with: [], without: [] };
for (let turn = 0; turn < BATCHES + 20; turn++) {
  for (const side of turn % 2 === 0 ? (['with', 'without'] as const) : (['without', 'with'] as const)) {
    FlightRecorder.prototype.open = side === 'with' ? open : openNothing;
    const micros = await batch();
    if (turn >= 20) taken[side].push(micros); // the first ones warm up
  }
}
const ratios = taken.with.map((micros, turn) => micros / taken.without[turn]!); // as many
const [recorded, bare] = [median(taken.with), median(taken.without)].map((micros) => `${micros.toFixed(1)} µs`);
console.log(`with ${recorded}, without ${bare} per call (medians); median ratio ${median(ratios).toFixed(3)}`);
await Promise.all(groups.map((group) => group.leave()));
await coordinator.close();
