/** `npm run sim -- --seeds 10000`: the simulator from the command line. */
import { readFileSync, writeFileSync } from 'node:fs';
import { Command } from 'commander';
import pc from 'picocolors';
import { countSteps, type StepCount } from '../../src/lifecycle.ts';
import { runModel } from '../store/leadership.ts';
import { runCampaign, type SeedFailure } from './campaign.ts';
import { findVisits } from './coverage.ts';
import { RARE } from './rare.ts';
import { drawScenario, FAULT_KINDS, type FaultKind, type Scenario } from './scenario.ts';
import { shrink } from './shrink.ts';
import { type Outcome, simulate } from './world.ts';

interface Options {
  readonly seeds: string;
  readonly from: string;
  readonly seed?: string;
  readonly streams?: boolean;
  readonly scenario?: string;
  readonly faults?: string;
  readonly first?: boolean;
  readonly coverage?: boolean;
  readonly find?: string;
}

const TRACE_LINES = 40;

/** Steps that are told as the rarest. */
const RAREST = 3;

/** So many seeds of all weather must come to every step. */
const TELLING_SEEDS = 5_000;

function showTrace(trace: readonly string[], lines: number): void {
  console.log(trace.slice(-lines).join('\n'));
}

async function runOne(scenario: Scenario): Promise<number> {
  const outcome: Outcome = await simulate(scenario);
  console.log(JSON.stringify(scenario));
  showTrace(outcome.trace, outcome.trace.length);
  if (outcome.failure === null) {
    console.log(pc.green(`passed: ${outcome.succeeded} calls succeeded, ${outcome.failed} failed as they may`));
    return 0;
  }
  console.log(pc.red(outcome.failure));
  return 1;
}

function showFailure({ seed, failure, smallest, trace }: SeedFailure): void {
  const file = `sim-${seed}.json`;
  writeFileSync(file, JSON.stringify(smallest));
  console.log(pc.red(`\nseed ${seed}: ${failure}`));
  showTrace(trace, TRACE_LINES);
  console.log(`The smallest scenario that fails this way is in ${file}: npm run sim -- --scenario ${file}`);
}

/** Storms over the election of a leader, which the scenarios' one coordinator has no part in. */
const LEADERSHIP_STORMS = 40;

async function simulateElections(): Promise<void> {
  for (let seed = 1; seed <= LEADERSHIP_STORMS; seed++) {
    const { failure } = await runModel(seed);
    if (failure !== null) throw new Error(`storm ${seed} over the election: ${failure}`);
  }
}

/** What no campaign draws. */
async function simulateOthers(): Promise<void> {
  await simulateElections();
  for (const { scenario } of RARE) await simulate(scenario); // the tests see to what becomes of them
}

/** Which parts of the protocol the seeds come to, and how often they take each step of its machines; none may be left out. */
async function showCoverage(first: number, count: number, faults: readonly FaultKind[] | null): Promise<number> {
  const visits = await findVisits(async () => {
    await simulateElections();
    for (const { scenario } of RARE) await simulate(scenario);
    // Cuts that leave a ring are rare among all faults.
    for (let seed = first; seed < first + count / 4; seed++) await simulate(drawScenario(seed, faults ?? ['block']));
    for (let seed = first; seed < first + count; seed++) await simulate(drawScenario(seed, faults ?? undefined));
    for (let seed = first; seed < first + count / 8; seed++)
      await simulate({ ...drawScenario(seed, faults ?? undefined), streams: true });
  });
  for (const { place, visited } of visits) console.log(`${visited ? 'visited' : '      –'}  ${place}`);
  const steps = countSteps();
  for (const { step, count: taken } of steps) console.log(`${String(taken).padStart(10)}  ${step}`);
  const blind = visits.filter(({ visited }) => !visited);
  console.log(`${visits.length - blind.length} of ${visits.length} parts of the protocol were visited`);
  for (const { place } of blind) console.log(pc.red(`never visited: ${place}`));
  return showSteps(steps) && blind.length === 0 ? 0 : 1;
}

function addUp(left: readonly StepCount[], right: readonly StepCount[]): readonly StepCount[] {
  return left.map(({ step, count }) => ({ step, count: count + (right.find((one) => one.step === step)?.count ?? 0) }));
}

/** Whether all steps were taken. */
function showSteps(steps: readonly StepCount[]): boolean {
  const taken = steps.filter(({ count }) => count > 0).sort((left, right) => left.count - right.count);
  const rarest = taken.slice(0, RAREST).map(({ step, count }) => `${step} ${count}`);
  console.log(
    `${taken.length} of ${steps.length} steps of the protocol's machines were taken; the rarest: ${rarest.join(', ')}`,
  );
  for (const { step, count } of steps) if (count === 0) console.log(pc.red(`never taken: ${step}`));
  return taken.length === steps.length;
}

/** The first seed that takes a step of the protocol, as small as it can be made: for `rare.ts`. */
async function findStep(step: string, first: number, count: number, faults: readonly FaultKind[] | null) {
  const taken = () => countSteps().find((one) => one.step === step)?.count;
  const takes = async (scenario: Scenario) => {
    const before = taken();
    await simulate(scenario);
    return taken() === before ? null : step;
  };
  for (let seed = first; seed < first + count; seed++) {
    const scenario = drawScenario(seed, faults ?? undefined);
    if ((await takes(scenario)) === null) continue;
    console.log(JSON.stringify(await shrink(scenario, step, takes)));
    return 0;
  }
  console.log(pc.red(`No seed from ${first} to ${first + count - 1} takes the step ${JSON.stringify(step)}.`));
  return 1;
}

function faultList(text: string | undefined): readonly FaultKind[] | null {
  if (text === undefined) return null;
  const wanted = text.split(',');
  for (const kind of wanted) {
    if (!FAULT_KINDS.some((one) => one === kind))
      throw new Error(`There is no fault ${kind}; there are ${FAULT_KINDS.join(', ')}.`);
  }
  return FAULT_KINDS.filter((kind) => wanted.includes(kind));
}

async function main(options: Options): Promise<number> {
  const faults = faultList(options.faults);
  if (options.scenario !== undefined) {
    return runOne(JSON.parse(readFileSync(options.scenario, 'utf8')) as Scenario); // written by showFailure
  }
  if (options.seed !== undefined) {
    const scenario = drawScenario(Number(options.seed), faults ?? undefined);
    return runOne(options.streams === true ? { ...scenario, streams: true } : scenario);
  }
  const first = Number(options.from);
  const count = Number(options.seeds);
  if (options.find !== undefined) return findStep(options.find, first, count, faults);
  if (options.coverage === true) return showCoverage(first, count, faults);
  const startedAt = performance.now();
  const campaign = runCampaign({ first, count, faults, onlyFirst: options.first === true }, (runs) => {
    if (process.stderr.isTTY) process.stderr.write(`\r${runs} of ${count} seeds`);
  });
  const [result] = await Promise.all([campaign, faults === null ? simulateOthers() : null]);
  if (process.stderr.isTTY) process.stderr.write('\r');
  for (const failure of result.failures) showFailure(failure);
  const seconds = (performance.now() - startedAt) / 1_000;
  const hours = result.virtualMs / 3_600_000;
  console.log(
    `${result.runs} seeds from ${first}: ${result.failures.length} failed; ${seconds.toFixed(1)} s for ${hours.toFixed(1)} simulated hours, ` +
      `${result.events} events, ${result.succeeded} calls succeeded (${result.retried} after a loss, ${result.salvaged} in part), ${result.failed} failed as they may (${result.excluded} as the others went on without them), ` +
      `${result.synced} syncs of shared state succeeded (${result.healed} moved something)`,
  );
  const isComplete = showSteps(addUp(result.steps, countSteps()));
  const mustBe = faults === null && result.runs >= TELLING_SEEDS;
  return result.failures.length === 0 && (isComplete || !mustBe) ? 0 : 1;
}

const program = new Command('sim')
  .description('Runs real coordinators and peers in simulated weather, and checks every invariant.')
  .option('--seeds <n>', 'how many seeds', '1000')
  .option('--from <seed>', 'the first of them', '1')
  .option('--seed <seed>', 'runs this one alone and shows its trace')
  .option('--streams', 'with --seed: its all-reduces are streams, whose inputs come in parts')
  .option('--scenario <file>', 'runs a scenario that an earlier failure wrote')
  .option('--first', 'stops at the first failure, and does not shrink it')
  .option('--find <step>', 'looks for a small scenario that takes this step, for example "call: held → running"')
  .option('--coverage', 'tells which parts of the protocol the seeds come to, and how often they take each step')
  .option('--faults <kinds>', `only these kinds of fault, of ${FAULT_KINDS.join(', ')}`)
  .addHelpText('after', '\nA seed repeats exactly. A failing one is shrunk, and the result written to a file.');
program.parse();
process.exitCode = await main(program.opts());
