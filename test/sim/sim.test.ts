import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { describe, expect, it } from 'vitest';
import { countSteps } from '../../src/lifecycle.ts';
import { runCampaign, type SeedFailure } from './campaign.ts';
import { RARE } from './rare.ts';
import { REGRESSIONS } from './regressions.ts';
import { drawScenario } from './scenario.ts';
import { shrink } from './shrink.ts';
import { simulate } from './world.ts';

const FIXED_SEEDS = 300;
const FRESH_SEEDS = 100;
const STREAM_SEEDS = 40;

function told({ seed, failure, trace }: SeedFailure): string {
  return `seed ${seed} (npm run sim -- --seed ${seed}): ${failure}\n${trace.slice(-30).join('\n')}`;
}

describe('simulated weather', () => {
  it('breaks no invariant on the fixed seeds', async () => {
    const result = await runCampaign({ first: 1, count: FIXED_SEEDS, faults: null });
    const { failures, runs, succeeded, retried, salvaged, failed, synced, healed } = result;
    expect(failures.map(told).join('\n\n')).toBe('');
    expect(runs).toBe(FIXED_SEEDS);
    // It is weather in which calls succeed after a loss, and in which others fail.
    expect(succeeded).toBeGreaterThan(10_000);
    expect(retried).toBeGreaterThan(100);
    expect(salvaged).toBeGreaterThan(5);
    expect(failed).toBeGreaterThan(500);
    expect(synced).toBeGreaterThan(150);
    expect(healed).toBeGreaterThan(5);
  }, 180_000);

  it('breaks no invariant on seeds that nobody has seen before', async () => {
    const first = Number(process.env['SKEIN_SIM_SEED'] ?? Date.now() % 1_000_000_000);
    console.log(`simulator: ${FRESH_SEEDS} fresh seeds from ${first} (SKEIN_SIM_SEED=${first} repeats them)`);
    const { failures } = await runCampaign({ first, count: FRESH_SEEDS, faults: null });
    expect(failures.map(told).join('\n\n')).toBe('');
  }, 180_000);

  it('breaks none where all-reduces are streams, whose inputs come in parts and whose results are used as they come', async () => {
    const sums = { succeeded: 0, retried: 0, salvaged: 0 };
    for (let seed = 1; seed <= STREAM_SEEDS; seed++) {
      const { failure, trace, ...counts } = await simulate({ ...drawScenario(seed), streams: true });
      const how = `seed ${seed} (npm run sim -- --streams --seed ${seed}): ${failure}`;
      expect(failure, `${how}\n${trace.slice(-30).join('\n')}`).toBeNull();
      for (const key of ['succeeded', 'retried', 'salvaged'] as const) sums[key] += counts[key];
    }
    expect(sums.succeeded).toBeGreaterThan(500);
    expect(sums.retried).toBeGreaterThan(5);
    expect(sums.salvaged).toBeGreaterThan(0);
  }, 180_000);

  it.each(REGRESSIONS)('does not find again: $title', async ({ scenario }) => {
    const { failure, trace } = await simulate(scenario);
    expect(failure, trace.slice(-30).join('\n')).toBeNull();
  });
});

describe('the simulator', () => {
  it('repeats a seed exactly, to the last event', async () => {
    const scenario = drawScenario(1_048_583);
    const first = await simulate(scenario);
    expect(await simulate(scenario)).toEqual(first);
    const other = await simulate(drawScenario(1_048_584));
    expect(other.trace).not.toEqual(first.trace);
  });

  it.each(RARE)('comes to the rare step $step', async ({ step, scenario }) => {
    const taken = () => countSteps().find((one) => one.step === step)?.count;
    const before = taken();
    const { failure, trace } = await simulate(scenario);
    expect(failure, trace.slice(-30).join('\n')).toBeNull();
    expect(taken()).not.toBe(before);
  });

  it('comes to every part of the protocol', async () => {
    const command = ['dist/test/sim/run.js', '--seeds', '120', '--coverage'];
    const { stdout } = await promisify(execFile)(process.execPath, command, { timeout: 240_000 }).catch(
      (error: { readonly stdout: string }) => error, // exit code 1: something was never visited
    );
    expect(stdout).toMatch(/(\d+) of \1 parts of the protocol were visited/);
    expect(stdout).toMatch(/(\d+) of \1 steps of the protocol's machines were taken/);
  }, 250_000);

  it('leaves what a failure does not need out of its scenario', async () => {
    const scenario = drawScenario(12);
    const fault = { at: 10, kind: 'join', count: 1 } as const;
    const crowded = { ...scenario, machines: 3, faults: [fault, { ...fault, at: 20 }, { ...fault, at: 30 }] };
    const smallest = await shrink(crowded, 'progress: x', async ({ faults }) =>
      faults.some(({ at }) => at === 20) ? 'progress: it is the second' : null,
    );
    expect(smallest.faults).toEqual([{ ...fault, at: 20 }]);
    expect(smallest.machines).toBe(1);
  });
});
