/**
 * `npm run bench:codecs`: what the codecs cost, save and drop.
 *
 *     cost    encoding and decoding a segment, beside copying it in the same run
 *     bytes   what leaves the network device of a peer in an all-reduce, all headers included, as a share of f32's
 *     error   relative RMS error of an all-reduce of Gaussian values, going straight and round the ring, by number of ranks
 *     link    an all-reduce over links of 100 Mbit/s, beside f32's
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join as joinPath } from 'node:path';
import { fileURLToPath } from 'node:url';
import Table from 'cli-table3';
import { Command } from 'commander';
import { Bench } from 'tinybench';
import { formatBytes, formatSeconds, median } from '../src/benchmark/statistics.ts';
import { namespacesMissing } from '../src/chaos/namespace-set.ts';
import { CODECS } from '../src/collectives/codec.ts';
import { SEGMENT_BYTES } from '../src/collectives/workspace.ts';
import { type Codec, Coordinator, type Group, join } from '../src/index.ts';
import type { LossyCodec } from '../src/kernels/kernels.ts';
import { loadKernels } from '../src/kernels/load.ts';
import { describeMachine } from './harness/machine.ts';
import { OrderedSwarm, type Place } from './harness/ordered-swarm.ts';
import type { CodecOrder, CodecReport } from './peers/codec-peer.ts';

const MIB = 1024 * 1024;
const RESULTS = fileURLToPath(new URL('../../bench/results/', import.meta.url));
const SECTIONS = ['cost', 'bytes', 'error', 'link'] as const;
const LOSSY = CODECS.filter((codec) => codec !== 'f32') as LossyCodec[];

/** Wanted: nanoseconds per element for int8 and int4, shares of f32's bytes, errors at sixteen ranks, and of f32's time. */
const BARS = {
  nanoseconds: 0.5,
  bytes: { int8: 0.26, int4: 0.14 } as Partial<Record<Codec, number>>,
  error: { int8: 0.009, int4: 0.13 } as Partial<Record<Codec, number>>,
  link: 0.29,
};

const WORLD_SIZE = 4;
const BYTES_COUNT: number = (8 * MIB) / 4;
const LINK_WORLDS = [2, 4];
const LINK_COUNT: number = (64 * MIB) / 4;
const LINK_MEGABITS = 100;
const LINK_ROUNDS = 3;
const ERROR_COUNT = 64 * 1_024;
const ERROR_WORLDS = [2, 4, 8, 16];

function gaussian(): number {
  return Math.sqrt(-2 * Math.log(1 - Math.random())) * Math.cos(2 * Math.PI * Math.random());
}

function verdict(value: number, bar: number | undefined): string {
  if (bar === undefined) return '';
  return value <= bar ? `≤ ${bar}: met` : `≤ ${bar}: NOT MET`;
}

function table(head: readonly string[]): InstanceType<typeof Table> {
  return new Table({ head: [...head], style: { head: [], border: [] } });
}

async function nanosecondsOf(work: () => void): Promise<number> {
  const bench = new Bench({ time: 400, warmupTime: 200 });
  bench.add('work', work);
  const [task] = await bench.run();
  if (task === undefined || !('latency' in task.result)) throw new Error('it was not measured');
  return (task.result.latency.p50 * 1e6) / (SEGMENT_BYTES / 4);
}

/** Nanoseconds per element over one segment, which stays in the cache, as in a collective. */
async function cost() {
  const kernels = await loadKernels(4 * SEGMENT_BYTES);
  const [values, wire, decoded] = [0, 0, 0].map(() => kernels.reserve(SEGMENT_BYTES)) as [number, number, number];
  const count = SEGMENT_BYTES / 4;
  new Float32Array(kernels.bytes.buffer, values, count).forEach((_, index, array) => {
    array[index] = gaussian();
  });
  const copy = await nanosecondsOf(() => kernels.bytes.copyWithin(decoded, values, values + SEGMENT_BYTES));
  const rows = table(['ns per element', 'encode', 'decode', 'both', '× copy', 'by chance', '']);
  rows.push(['copy', '', '', copy.toFixed(3), '1.0', '', '']);
  const figures: Record<string, unknown> = { copy };
  for (const codec of LOSSY) {
    const encode = await nanosecondsOf(() => kernels.encode(codec, wire, values, count));
    const decode = await nanosecondsOf(() => kernels.decode(codec, decoded, wire, count));
    const byChance =
      codec === 'int8' || codec === 'int4' || codec === 'e3m0'
        ? await nanosecondsOf(() => kernels.encodeByChance(codec, wire, values, count, 7, 0))
        : null;
    const both = encode + decode;
    const bar = codec === 'int8' || codec === 'int4' ? BARS.nanoseconds : undefined;
    const shown = [encode, decode, both].map((one) => one.toFixed(3));
    rows.push([codec, ...shown, (both / copy).toFixed(1), byChance?.toFixed(3) ?? '', verdict(both, bar)]);
    figures[codec] = { encode, decode, byChance };
  }
  console.log(`\nOver ${formatBytes(SEGMENT_BYTES)} of f32:\n${rows.toString()}`);
  return figures;
}

function startSwarm(worldSize: number, count: number, place: Place): Promise<OrderedSwarm<CodecOrder, CodecReport>> {
  return OrderedSwarm.start('codec-peer', worldSize, { count }, place);
}

async function bytes(namespaced: boolean) {
  const swarm = await startSwarm(WORLD_SIZE, BYTES_COUNT, { namespaced, megabits: null });
  const where = namespaced ? 'that left the network device' : 'of data frames';
  const rows = table(['codec', `MiB per rank ${where}`, '× f32', '']);
  const figures: Record<string, number> = {};
  try {
    for (const codec of CODECS) {
      const algorithm = codec === 'topk' ? 'direct' : codec === 'f32' ? 'ring' : 'auto';
      const reports = await swarm.order({
        codec,
        algorithm,
        ...(codec === 'topk' ? { errorFeedback: false } : {}),
      });
      const sent = reports.reduce((sum, one) => sum + (namespaced ? one.deviceBytes : one.bytesSent), 0) / WORLD_SIZE;
      figures[codec] = sent;
      const share = sent / figures['f32']!; // f32 comes first
      rows.push([codec, (sent / MIB).toFixed(3), share.toFixed(4), verdict(share, BARS.bytes[codec])]);
    }
  } finally {
    swarm.close();
  }
  console.log(`\n${WORLD_SIZE} ranks, all-reduce of ${formatBytes(4 * BYTES_COUNT)}:\n${rows.toString()}`);
  return figures;
}

/** Of one all-reduce; fails if ranks have different bits. */
async function errorOf(
  groups: readonly Group[],
  inputs: readonly Float32Array[],
  codec: Codec,
  algorithm: 'ring' | 'direct',
) {
  const tensors = inputs.map((input) => input.slice());
  await Promise.all(groups.map((group, rank) => group.allReduce(tensors[rank]!, { codec, algorithm })));
  const result = tensors[0]!;
  for (const tensor of tensors) {
    if (Buffer.compare(Buffer.from(tensor.buffer), Buffer.from(result.buffer)) !== 0) throw new Error('ranks differ');
  }
  let dropped = 0;
  let energy = 0;
  for (let index = 0; index < result.length; index++) {
    const exact = inputs.reduce((sum, input) => sum + input[index]!, 0);
    dropped += (result[index]! - exact) ** 2;
    energy += exact ** 2;
  }
  return Math.sqrt(dropped / energy);
}

async function error() {
  const codecs = ['bf16', 'int8', 'int4', 'e3m0'] as const;
  const rows = table(['error %', ...ERROR_WORLDS.map((size) => `N = ${size}`), '']);
  const figures: Record<string, number[]> = {};
  for (const worldSize of ERROR_WORLDS) {
    const coordinator = await Coordinator.listen({ port: 0 });
    const options = { startWorldSize: worldSize, engine: 'inline', timeout: 60_000 } as const;
    const groups = await Promise.all(Array.from({ length: worldSize }, () => join(coordinator.address, options)));
    const inputs = groups.map(() => Float32Array.from({ length: ERROR_COUNT }, gaussian));
    for (const codec of codecs) {
      for (const algorithm of ['direct', 'ring'] as const) {
        const key = `${codec} ${algorithm}`;
        figures[key] = [...(figures[key] ?? []), await errorOf(groups, inputs, codec, algorithm)];
      }
    }
    await Promise.all(groups.map((group) => group.leave()));
    await coordinator.close();
  }
  for (const [key, errors] of Object.entries(figures)) {
    const [codec, algorithm] = key.split(' ') as [Codec, string]; // as put together above
    const bar = algorithm === 'direct' ? BARS.error[codec] : undefined;
    rows.push([key, ...errors.map((one) => (100 * one).toFixed(3)), verdict(errors.at(-1)!, bar)]);
  }
  console.log(`\nIndependent Gaussian values, ${ERROR_COUNT} on each rank; the same bits on all:\n${rows.toString()}`);
  return figures;
}

/** Seconds of each round, of the slowest rank. */
async function linkOf(worldSize: number): Promise<Readonly<Record<string, readonly number[]>>> {
  const figures: Record<string, number[]> = {};
  const swarm = await startSwarm(worldSize, LINK_COUNT, { namespaced: true, megabits: LINK_MEGABITS });
  try {
    await swarm.order({ codec: 'int4' }); // brings the memory in
    for (let round = 0; round < LINK_ROUNDS; round++) {
      for (const codec of ['f32', 'int8', 'int4'] as const) {
        const reports = await swarm.order({ codec });
        const seconds = Math.max(...reports.map((one) => one.seconds));
        figures[codec] = [...(figures[codec] ?? []), seconds];
        process.stderr.write(`N = ${worldSize}, ${codec}, ${round + 1}/${LINK_ROUNDS}: ${formatSeconds(seconds)}\n`);
      }
    }
  } finally {
    swarm.close();
  }
  return figures;
}

async function link() {
  const rows = table(['', 'median', '× f32', '']);
  const figures: Record<string, unknown> = {};
  for (const worldSize of LINK_WORLDS) {
    const measured = await linkOf(worldSize);
    figures[`n${worldSize}`] = measured;
    const base = median(measured['f32']!);
    for (const [codec, seconds] of Object.entries(measured)) {
      const ratio = median(seconds) / base;
      const bar = codec === 'int8' ? BARS.link : undefined;
      rows.push([`N = ${worldSize}, ${codec}`, formatSeconds(median(seconds)), ratio.toFixed(3), verdict(ratio, bar)]);
    }
  }
  console.log(
    `\nAll-reduce of ${formatBytes(4 * LINK_COUNT)} over links of ${LINK_MEGABITS} Mbit/s:\n${rows.toString()}`,
  );
  return figures;
}

async function main({ only }: { readonly only?: string }): Promise<void> {
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(1));
  const missing = namespacesMissing();
  if (missing !== null)
    console.log(`No namespaces (${missing}): bytes are those of data frames, and there is no link.`);
  const wanted = (section: (typeof SECTIONS)[number]) => only === undefined || only.split(',').includes(section);
  const figures: Record<string, unknown> = {};
  if (wanted('cost')) figures['cost'] = await cost();
  if (wanted('bytes')) figures['bytes'] = await bytes(missing === null);
  if (wanted('error')) figures['error'] = await error();
  if (wanted('link') && missing === null) figures['link'] = await link();
  if (only !== undefined) return;
  const record = { machine: describeMachine(), date: new Date().toISOString(), bars: BARS, figures };
  mkdirSync(RESULTS, { recursive: true });
  writeFileSync(joinPath(RESULTS, 'codecs.json'), `${JSON.stringify(record, null, 1)}\n`);
}

await new Command('bench:codecs')
  .description('Measures what the codecs cost, save and drop.')
  .option('--only <names>', `some of ${SECTIONS.join(', ')}; writes no record`)
  .action(main)
  .parseAsync();
