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
  expect(auto.tookMs, text).toBeLessThanOrEqual(1.1 * best);
}

describe('auto', () => {
  test('takes as few hops as can be where ways are long', async () => {
    const long = await Simulation.start(['', '', '', '']);
    expect((await time(long, 'auto', 250_000)).travelled).not.toBe('doubling');
    long.shape(() => ({ latencyMs: 40, bytesPerMs: 20_000 }));
    await calibrate(long, ({ near, ring }) => near.hopSeconds > 0.03 && ring !== null);
    for (const elements of [1_000, 60_000, 250_000]) await expectBest(long, elements, CANDIDATES);
  });

  test.each([
    [['eu', 'eu', 'us', 'us'], 'halving'],
    [['eu', 'us', 'eu', 'us'], 'hierarchical'],
  ])('keeps off slow lines between the sites %j', async (sites, large) => {
    const simulation = await Simulation.start(sites);
    const { members } = simulation.groups[0]!;
    const isFar = (from: number, to: number) => members[from]!.site !== members[to]!.site;
    simulation.shape((from, to) => (isFar(from, to) ? { bytesPerMs: 400, latencyMs: 30 } : { bytesPerMs: 20_000 }));
    await calibrate(simulation, ({ far }) => far.byteSeconds > 0.5e-6 && far.hopSeconds > 0.025);
    for (const elements of [1_000, 60_000, 250_000])
      await expectBest(simulation, elements, [...CANDIDATES, 'hierarchical']);
    expect((await time(simulation, 'auto', 250_000)).travelled).toBe(large);
  });
});
