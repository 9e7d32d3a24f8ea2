/** Pairs of machines that can't reach one another, for as long as the storm lasts, while everybody reaches the coordinator. */
import { describe, expect, test } from 'vitest';
import { drawScenario, type Scenario, type TimedFault } from './scenario.ts';
import { simulate } from './world.ts';

const BLOCKED_AT = 500;
const LOST_AFTER_MS = 700;

/** Two rounds of detection: where one way is cut, the others are looked at too. */
const DETECTED_BY = BLOCKED_AT + 2 * (LOST_AFTER_MS + 500);

type Pairs = readonly (readonly [number, number])[];

function scenario(seed: number, machines: number, pairs: Pairs): Scenario {
  const drawn = drawScenario(seed);
  const faults: TimedFault[] = pairs.map(([one, other]) => ({
    kind: 'block',
    one,
    other,
    at: BLOCKED_AT,
    forMs: 1_000_000,
  }));
  return {
    ...drawn,
    machines,
    faults,
    minWorldSize: 1,
    lostAfterMs: LOST_AFTER_MS,
    callTimeoutMs: 6_000,
    stormMs: 9_000,
    weather: { ...drawn.weather, cutChance: 0, bytesPerMs: 100_000 },
  };
}

describe('while some pairs can not reach one another', () => {
  test.each<[string, number, Pairs]>([
    ['three, no ring is left: everything is relayed', 3, [[0, 1]]],
    ['four in a ring without diagonals', 4, [[0, 2], [1, 3]]], // biome-ignore format: pairs
    ['four in a chain: relayed through two', 4, [[0, 2], [1, 3], [0, 3]]], // biome-ignore format: pairs
    ['five, one of whom reaches only one other', 5, [[0, 1], [0, 2], [0, 3]]], // biome-ignore format: pairs
    ['six', 6, [[0, 1], [1, 2], [3, 4]]], // biome-ignore format: pairs
  ])('%s', async (_, machines, pairs) => {
    for (let seed = 1; seed <= 4; seed++) {
      const outcome = await simulate(scenario(seed, machines, pairs));
      const { failure, trace, succeeded } = outcome;
      expect({ seed, failure }).toEqual({ seed, failure: null });
      expect(succeeded).toBeGreaterThan(100);
      const calm = trace.indexOf(trace.find((line) => line.includes('CALM')) ?? '');
      const failed = trace.slice(0, calm).filter((line) => line.includes(' failed: '));
      // Calls that were open when the ways were cut may have asked not to be redone.
      const inVain = failed.filter((line) => Number.parseFloat(line) > DETECTED_BY || !line.includes('lost a link'));
      expect({ seed, inVain }).toEqual({ seed, inVain: [] });
      expect(trace.filter((line) => line.includes('EVICTED'))).toEqual([]);
    }
  });
});
