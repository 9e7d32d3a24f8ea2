/** Makes a failing scenario smaller while it fails in the same way: fewer faults, fewer peers, fairer weather. */
import type { Scenario } from './scenario.ts';
import { simulate } from './world.ts';

/** What kind of failure it is: the text up to its first colon. */
function kindOf(failure: string): string {
  return failure.slice(0, failure.indexOf(':'));
}

/** Smaller scenarios, the smallest first. */
function* simpler(scenario: Scenario): Generator<Scenario> {
  const { faults } = scenario;
  if (faults.length > 3) {
    yield { ...scenario, faults: faults.slice(0, faults.length >> 1) };
    yield { ...scenario, faults: faults.slice(faults.length >> 1) };
  }
  if (scenario.state !== undefined) {
    const { state, ...rest } = scenario;
    yield rest;
    if (state.counts.length > 1) yield { ...rest, state: { ...state, counts: state.counts.slice(0, -1) } };
    if (state.every > 1) yield { ...rest, state: { ...state, every: 1 } };
    for (const key of ['joins', 'keeps', 'flips'] as const)
      if (state[key]) yield { ...rest, state: { ...state, [key]: false } };
  }
  for (let index = 0; index < faults.length; index++) yield { ...scenario, faults: faults.toSpliced(index, 1) };
  if (scenario.machines > 1) yield { ...scenario, machines: scenario.machines - 1 };
  if (scenario.stripes > 1) yield { ...scenario, stripes: 1 };
  if (scenario.minWorldSize > 1) yield { ...scenario, minWorldSize: 1 };
  if (scenario.weather.cutChance !== 0) yield { ...scenario, weather: { ...scenario.weather, cutChance: 0 } };
  if (scenario.weather.jitterMs !== 0) yield { ...scenario, weather: { ...scenario.weather, jitterMs: 0 } };
  const last = faults.at(-1);
  if (last !== undefined && scenario.stormMs > last.at + 500) yield { ...scenario, stormMs: last.at + 500 };
}

/** At most so many runs are tried. */
const MAX_ATTEMPTS = 60;

/** @param run what the failure of a scenario is, or null */
export async function shrink(
  scenario: Scenario,
  failure: string,
  run: (candidate: Scenario) => Promise<string | null> = async (candidate) => (await simulate(candidate)).failure,
): Promise<Scenario> {
  const wanted = kindOf(failure);
  let smallest = scenario;
  let attempts = 0;
  for (let improved = true; improved; ) {
    improved = false;
    for (const candidate of simpler(smallest)) {
      if (++attempts > MAX_ATTEMPTS) return smallest;
      const found = await run(candidate);
      if (found === null || kindOf(found) !== wanted) continue;
      smallest = candidate;
      improved = true;
      break;
    }
  }
  return smallest;
}
