/** One rank of a benchmark, on a group that has joined: every rank runs the same, and each learns the figures. */
import { performance } from 'node:perf_hooks';
import type { Report } from '../index.ts';
import { type Plan, type Row, repetitions, type Timing } from './plan.ts';
import { median } from './statistics.ts';
import { type Benchable, Work } from './work.ts';

const WARM_UP_BYTES = [4 * 1024, 1024 * 1024];

/** The largest of the ranks' values. */
async function most(group: Benchable, value: number): Promise<number> {
  const values = Float64Array.of(value);
  await group.allReduce(values, { op: 'max', tag: 'benchmark' });
  return values[0]!;
}

/** The mean of the ranks' values. */
async function mean(group: Benchable, value: number): Promise<number> {
  const values = Float64Array.of(value);
  await group.allReduce(values, { op: 'avg', tag: 'benchmark' });
  return values[0]!;
}

interface Iteration {
  /** Of the slowest rank. */
  readonly seconds: number;
  readonly report: Report;
}

async function iterate(group: Benchable, work: Work, inPlace: boolean, measureError = false): Promise<Iteration> {
  if (inPlace) work.reset();
  await group.barrier();
  const start = performance.now();
  const report = await work.run(inPlace, measureError);
  return { seconds: await most(group, (performance.now() - start) / 1_000), report };
}

async function timing(group: Benchable, work: Work, inPlace: boolean, plan: Plan): Promise<Timing> {
  const times: number[] = [];
  for (let round = -plan.warmups; round < repetitions(plan.iterations, work.bytes); round++) {
    const { seconds } = await iterate(group, work, inPlace);
    if (round >= 0) times.push(seconds);
  }
  const wrong = await mean(group, isExact(plan) ? work.wrong(inPlace) : 0);
  return { seconds: median(times), wrong: Math.round(wrong * group.worldSize) };
}

function isExact({ codec }: Plan): boolean {
  return codec === 'f32';
}

/** Rank 0 decides when that is enough, so that all stop after the same iteration. */
export async function warmUp(group: Benchable, plan: Plan): Promise<void> {
  const works = WARM_UP_BYTES.map((bytes) => new Work(group, plan, bytes));
  const start = performance.now();
  const goOn = new Uint8Array(1);
  do {
    for (const work of works) await iterate(group, work, false);
    goOn[0] = performance.now() - start < plan.warmUpMs ? 1 : 0;
    await group.broadcast(goOn, { root: 0, tag: 'benchmark' });
  } while (goOn[0] === 1);
}

/** @param onRow called on every rank, size by size */
export async function measure(group: Benchable, plan: Plan, onRow: (row: Row) => void): Promise<void> {
  await warmUp(group, plan);
  for (const bytes of plan.sizes) {
    const work = new Work(group, plan, bytes);
    const before = process.cpuUsage();
    const outOfPlace = await timing(group, work, false, plan);
    const { user, system } = process.cpuUsage(before);
    const moved = (plan.warmups + repetitions(plan.iterations, work.bytes)) * work.bytes;
    const last = await iterate(group, work, false, !isExact(plan));
    onRow({
      bytes: work.bytes,
      count: work.count,
      algorithm: last.report.algorithm,
      outOfPlace,
      inPlace: work.hasInPlace ? await timing(group, work, true, plan) : null,
      error: last.report.error ?? null,
      cpuSecondsPerGb: await mean(group, (user + system) / 1e6 / (moved / 1e9)),
      peakRssBytes: await most(group, process.resourceUsage().maxRSS * 1024),
    });
  }
}
