/** Groups whose ways are unlike those of one host: after a while `auto` takes what is best there, and all members the same. */
import { describe, expect, test } from 'vitest';
import type { Algorithm } from '../../src/collectives/program.ts';
import type { WayCosts } from '../../src/costs.ts';
import { Simulation } from './simulation.ts';

const CANDIDATES = ['ring', 'tree', 'doubling', 'halving'] as const;

/** Boundaries at which measured figures must have come. */
const MAX_STEPS = 100;

/** The figures of all members, which must be the same. */
async function costsOf(simulation: Simulation): Promise<WayCosts> {
  const all = await simulation.drive(Promise.all(simulation.groups.map(async (group) => (await group.status()).costs)));
  for (const costs of all) expect(costs).toEqual(all[0]);
  return all[0]!;
}

/** Steps until the members have figures that are good enough. */
async function calibrate(simulation: Simulation, isGood: (costs: WayCosts) => boolean): Promise<void> {
  for (let steps = 0; !isGood(await costsOf(simulation)); steps++) {
    expect(steps, JSON.stringify(await costsOf(simulation))).toBeLessThan(MAX_STEPS);
    await simulation.step(() => {}, 'auto');
    await simulation.sleep(1_000);
  }
}

/** Virtual milliseconds of a step by an algorithm, and what it went by. */
async function time(simulation: Simulation, algorithm: Algorithm | 'auto', elements: number) {
  const { reports, tookMs } = await simulation.step(() => {}, algorithm, elements);
  const travelled = new Set(reports.map((report) => report.algorithm));
  expect(travelled.size).toBe(1);
  return { travelled: reports[0]!.algorithm, tookMs };
}

async function expectBest(simulation: Simulation, elements: number, among: readonly Algorithm[]): Promise<void> {
  const times: [string, number][] = [];
  for (const algorithm of among) times.push([algorithm, (await time(simulation, algorithm, elements)).tookMs]);
  const auto = await time(simulation, 'auto', elements);
  const best = Math.min(...times.map(([, tookMs]) => tookMs));
  const text = `${elements} elements: ${auto.travelled} ${auto.tookMs}, ${JSON.stringify(times)}`;
  console.log(text);
  expect(auto.tookMs, text).toBeLessThanOrEqual(1.1 * best);
}

describe('auto', () => {
  test('takes as few bytes as can be where ways are slow, as few hops where they are long', async () => {
    const slow = await Simulation.start(['', '', '', '']);
    slow.shape(() => ({ bytesPerMs: 500, latencyMs: 0.2 }));
    const before = await time(slow, 'auto', 60_000);
    await calibrate(slow, ({ near, ring }) => near.byteSeconds > 0.5e-6 && ring !== null);
    const after = await time(slow, 'auto', 60_000);
    console.log(before, after, await costsOf(slow));
    for (const elements of [1_000, 60_000, 250_000]) await expectBest(slow, elements, CANDIDATES);
    const long = await Simulation.start(['', '', '', '']);
    long.shape(() => ({ latencyMs: 40, bytesPerMs: 20_000 }));
    await calibrate(long, ({ near, ring }) => near.hopSeconds > 0.03 && ring !== null);
    console.log(await costsOf(long));
    for (const elements of [1_000, 60_000, 250_000]) await expectBest(long, elements, CANDIDATES);
  });

  test('stays within sites where the lines between them are slow', async () => {
    const simulation = await Simulation.start(['eu', 'eu', 'us', 'us']);
    const isFar = (from: number, to: number) => from >> 1 !== to >> 1;
    simulation.shape((from, to) => (isFar(from, to) ? { bytesPerMs: 400, latencyMs: 30 } : { bytesPerMs: 20_000 }));
    await calibrate(simulation, ({ far }) => far.byteSeconds > 0.5e-6 && far.hopSeconds > 0.025);
    console.log(await costsOf(simulation));
    for (const elements of [1_000, 60_000, 250_000])
      await expectBest(simulation, elements, [...CANDIDATES, 'hierarchical']);
  });
});
