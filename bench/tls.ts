/**
 * `npm run bench:tls`: what encryption costs: all-reduce between two processes over TCP, in the clear and under TLS 1.3. The two take
 * turns within one run; figures are medians over all rounds. Writes a record to bench/results/.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import Table from 'cli-table3';
import { Command } from 'commander';
import { busbw, formatBytes, formatRate, formatSeconds, median } from '../src/benchmark/statistics.ts';
import { describeMachine } from './harness/machine.ts';
import { type Side, skein } from './harness/sides.ts';

const MIB = 1024 * 1024;
const SIZES = [16 * MIB, 64 * MIB];
const WORLD_SIZE = 2;
const RESULTS = fileURLToPath(new URL('../../bench/results/', import.meta.url));

const SETTINGS = { engine: 'worker', transports: ['tcp'], consistency: 'commit' } as const;
const CREDENTIALS = { token: 'of a benchmark', encryption: 'always' } as const;
const PLAIN = skein('plain', 'TCP', SETTINGS);
const ENCRYPTED = skein('tls', 'TLS 1.3', { ...SETTINGS, credentials: CREDENTIALS });

interface Options {
  readonly rounds: string;
  readonly iterations: string;
}

/** Of one side and size: the median of each round. */
type Samples = Map<string, number[]>;

async function measure(side: Side, iterations: number, samples: Samples): Promise<void> {
  for (const { bytes, seconds } of await side.measure({
    worldSize: WORLD_SIZE,
    sizes: SIZES,
    iterations,
    warmups: 2,
  })) {
    const key = `${side.name} ${bytes}`;
    samples.set(key, [...(samples.get(key) ?? []), median(seconds)]);
  }
}

async function main(options: Options): Promise<void> {
  const samples: Samples = new Map();
  for (let round = 0; round < Number(options.rounds); round++) {
    // Whoever comes first would else always meet the machine as the other one left it.
    const sides = round % 2 === 0 ? [PLAIN, ENCRYPTED] : [ENCRYPTED, PLAIN];
    for (const side of sides) {
      process.stderr.write(`round ${round + 1}/${options.rounds} ${side.label}\n`);
      await measure(side, Number(options.iterations), samples);
    }
  }
  const rows = SIZES.map((bytes) => {
    const [plain, encrypted] = [PLAIN, ENCRYPTED].map(({ name }) => median(samples.get(`${name} ${bytes}`) ?? [])) as [
      number,
      number,
    ];
    return { bytes, plain, encrypted, ratio: encrypted / plain };
  });
  const head = ['size', 'TCP', 'busbw GB/s', 'TLS 1.3', 'busbw GB/s', 'TLS / TCP'];
  const table = new Table({ head, style: { head: [], border: [] } });
  for (const { bytes, plain, encrypted, ratio } of rows) {
    const figures = [plain, encrypted].flatMap((seconds) => [
      formatSeconds(seconds),
      formatRate(busbw(bytes, seconds, WORLD_SIZE)),
    ]);
    table.push([formatBytes(bytes), ...figures, ratio.toFixed(2)]);
  }
  console.log(`All-reduce of f32, ${WORLD_SIZE} processes, medians of ${options.rounds} rounds\n${table.toString()}`);
  mkdirSync(RESULTS, { recursive: true });
  const record = { machine: describeMachine(), date: new Date().toISOString(), command: process.argv.slice(2), rows };
  writeFileSync(join(RESULTS, 'tls.json'), `${JSON.stringify(record, null, 1)}\n`);
}

await new Command('bench:tls')
  .description('Measures all-reduce over TLS beside TCP in the clear.')
  .option('--rounds <n>', 'turns that each side gets', '4')
  .option('--iterations <n>', 'iterations per turn and size', '10')
  .action(main)
  .parseAsync();
