/** `skein chaos`: the user's own script under faults that a seed draws, and a verdict on what came of it. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { fileURLToPath } from 'node:url';
import Table from 'cli-table3';
import { Command, InvalidArgumentError } from 'commander';
import pc from 'picocolors';
import { MAX_NAMESPACED_PEERS, Namespaces, namespacesMissing } from '../chaos/namespaces.ts';
import { FAULT_KINDS, type FaultKind, NETWORK_FAULTS, planFaults } from '../chaos/plan.ts';
import { chaosHtml, type Summary, summarizeRecoveries } from '../chaos/report.ts';
import { type ChaosOutcome, type ChaosRun, runChaos } from '../chaos/run.ts';
import { judge } from '../chaos/verdict.ts';
import { peerName } from '../launch/environment.ts';
import { nonEmpty, seconds, wholeNumber } from './arguments.ts';

interface ChaosOptions {
  readonly processes: number;
  readonly seed: number;
  readonly minutes: number;
  readonly faults: readonly FaultKind[];
  readonly every: number;
  readonly calm?: number;
  readonly json?: string;
  readonly html?: string;
  readonly quiet?: true;
}

const SKEIN = fileURLToPath(new URL('./main.js', import.meta.url));

/** Share of the time that is calm at the end, and its bounds (ms): whoever was cut off must be able to come back. */
const TAIL_SHARE = 0.25;
const SHORTEST_TAIL_MS = 6_000;
const LONGEST_TAIL_MS = 30_000;

/** Share of the time for which the script runs without faults before, at most so long (ms). */
const CALM_SHARE = 0.2;
const LONGEST_CALM_MS = 60_000;

/** So long after a fault its victim may still fail by it (ms): it finds out when it next needs the others. */
const BLAME_MS = 20_000;

const HELP = `
The script is started as by skein launch --restart: it calls join(), and is started again when it fails. Meanwhile peers are
killed (kill), stopped and continued (stop), and the coordinator is killed and started again (coordinator). As root on
Linux each peer gets a network namespace of its own, in which it can be parted from others (partition), have a narrow
link (slow) or lose packets (loss). What happens is drawn from the seed, at random times and at delicate moments.

Then it is checked from what every process wrote down while it ran: that all peers that completed a collective agree on its
result, epoch and contributors; that epochs only grow; that no process failed to which nothing was done; that all went on
when the faults were over; and that they ended with the same result.

Exit code: 0 when no invariant was broken, 1 when one was, 2 for a mistake on this command line.

Examples:
  Five minutes of everything that needs no privileges, with eight processes:
    $ skein chaos -n 8 --minutes 5 -- node train.js

  With a network of their own, and a page that shows what happened:
    # skein chaos -n 4 --seed 7 --faults kill,stop,partition,slow,coordinator --html chaos.html -- node train.js`;

function kinds(text: string): readonly FaultKind[] {
  return text.split(',').map((name) => {
    const kind = FAULT_KINDS.find((one) => one === name.trim());
    if (kind === undefined) throw new InvalidArgumentError(`Give some of ${FAULT_KINDS.join(', ')}.`);
    return kind;
  });
}

function minutes(text: string): number {
  const value = Number(text);
  if (/^\d+(\.\d+)?$/.test(text) && value > 0 && value <= 10_000) return value * 60_000;
  throw new InvalidArgumentError('Give a number of minutes, for example 5 or 0.5.');
}

function say(text: string): void {
  process.stderr.write(`${pc.dim('[chaos]')} ${text}\n`);
}

function seconds1(ms: number): string {
  return `${(ms / 1_000).toFixed(1)} s`;
}

/** Runs without faults, in calm weather; completed collectives per second, or null when the script ends too soon to tell. */
async function calmRate(base: Omit<ChaosRun, 'faults' | 'forMs' | 'folder'>, folder: string, ms: number) {
  if (ms <= 0) return null;
  say(`calm run of ${seconds1(ms)}`);
  const outcome = await runChaos({ ...base, faults: [], forMs: ms, folder });
  const { rate } = verdictOf(outcome, outcome.stoppedAt);
  return rate > 0 ? rate : null;
}

function verdictOf({ lives, inflicted, ended, startedAt, stoppedAt }: ChaosOutcome, calmFrom: number) {
  return judge({ lives, inflicted, ended, from: startedAt, calmFrom, to: stoppedAt, blameMs: BLAME_MS });
}

function show(summary: Summary): void {
  const { verdict, recoveries, calmRate: calm } = summary;
  const table = new Table({
    head: ['fault', 'times', 'median pause', 'p99', 'longest'],
    style: { head: [], border: [] },
  });
  for (const { kind, count, medianMs, p99Ms, maxMs } of recoveries)
    table.push([kind, count, ...[medianMs, p99Ms, maxMs].map((ms) => `${ms.toFixed(0)} ms`)]);
  console.log(table.toString());
  const failed = Object.entries(verdict.failed).map(([code, count]) => `${count} × ${code}`);
  console.log(`collectives: ${verdict.collectives} completed, ${verdict.redone} of them begun anew`);
  console.log(`calls that failed: ${failed.length === 0 ? 'none' : failed.join(', ')}`);
  const kept =
    calm === null ? '' : `, ${((verdict.rate / calm) * 100).toFixed(0)} % of the calm run's ${calm.toFixed(1)}`;
  console.log(`collectives per second: ${verdict.rate.toFixed(1)}${kept}`);
  const equal = verdict.equalState === null ? 'unknown: nobody was left' : verdict.equalState ? 'yes' : 'NO';
  console.log(`equal results at the end: ${equal}`);
  for (const text of verdict.broken) console.log(`${pc.red('BROKEN')} ${text}`);
  console.log(verdict.broken.length === 0 ? 'no invariant was broken' : `${verdict.broken.length} broken`);
}

async function chaos(command: readonly string[], options: ChaosOptions, self: Command): Promise<void> {
  const { processes: peers, seed, minutes: totalMs, faults: wanted, every: everyMs } = options;
  const [program, ...args] = command;
  if (program === undefined || program === '') self.error('error: there is no command to run');
  const needsNetwork = wanted.filter((kind) => NETWORK_FAULTS.has(kind));
  const missing = needsNetwork.length === 0 ? null : namespacesMissing();
  if (missing !== null) self.error(`error: ${needsNetwork.join(', ')} can't be had: ${missing}`);

  const tailMs = Math.min(LONGEST_TAIL_MS, Math.max(SHORTEST_TAIL_MS, totalMs * TAIL_SHARE));
  const stormMs = totalMs - tailMs;
  if (stormMs <= everyMs)
    self.error(`error: there is no time for faults: give more than ${seconds1(tailMs + everyMs)}`);
  const faults = planFaults({ seed, kinds: wanted, peers, forMs: stormMs, everyMs });
  const folder = mkdtempSync(join(tmpdir(), 'skein-chaos-'));
  const stop = new AbortController();
  const onSignal = () => stop.abort();
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.once(name, onSignal);
  let namespaces: Namespaces | null = null;
  try {
    if (needsNetwork.length > 0) namespaces = new Namespaces(peers);
    const silent = new PassThrough().resume();
    const base = {
      command: [program, ...args] as const,
      skein: [process.execPath, SKEIN] as const,
      peers,
      namespaces,
      stdout: options.quiet === true ? silent : process.stdout,
      stderr: options.quiet === true ? silent : process.stderr,
      prefix: (index: number) => `[${peerName(index)}] `,
      say: options.quiet === true ? () => {} : say,
      signal: stop.signal,
    };
    say(`seed ${seed}: ${faults.length} faults in ${seconds1(stormMs)}, then ${seconds1(tailMs)} of calm`);
    const calmMs = options.calm ?? Math.min(LONGEST_CALM_MS, totalMs * CALM_SHARE);
    const calm = await calmRate(base, join(folder, 'calm'), calmMs);
    const outcome = await runChaos({ ...base, say, faults, forMs: totalMs, folder: join(folder, 'storm') });
    const calmFrom = Math.max(outcome.startedAt + stormMs, ...outcome.inflicted.map((one) => one.until));
    const verdict = verdictOf(outcome, calmFrom);
    const recoveries = summarizeRecoveries(verdict);
    const summary: Summary = { command: command.join(' '), seed, peers, calmRate: calm, verdict, recoveries };
    show(summary);
    const { lives, inflicted, ended, startedAt: from, stoppedAt: to } = outcome;
    if (options.json !== undefined)
      writeFileSync(options.json, `${JSON.stringify({ ...summary, inflicted, ended, from, to }, null, 1)}\n`);
    if (options.html !== undefined)
      writeFileSync(options.html, chaosHtml(summary, { lives, inflicted, ended, from, to }));
    if (verdict.broken.length > 0) process.exitCode = 1;
  } finally {
    namespaces?.remove();
    rmSync(folder, { recursive: true, force: true });
    for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.off(name, onSignal);
  }
}

export function chaosCommand(): Command {
  return new Command('chaos')
    .summary('run a script under faults, and check that nothing broke')
    .description('Run N processes of one command, disturb them, and check every invariant from outside.')
    .usage('-n <N> [options] -- <command> [arguments…]')
    .requiredOption('-n, --processes <N>', 'how many processes', wholeNumber(1, MAX_NAMESPACED_PEERS))
    .option('--seed <seed>', 'which faults, and when', wholeNumber(0, 2 ** 31 - 1), Date.now() % 1_000_000)
    .option('--minutes <m>', 'how long, the calm at the end included', minutes, 5 * 60_000)
    .option('--faults <kinds>', `some of ${FAULT_KINDS.join(', ')}`, kinds, ['kill', 'stop', 'coordinator'] as const)
    .option('--every <seconds>', 'time between faults, on average', seconds, 4_000)
    .option(
      '--calm <seconds>',
      'run without faults before, to compare with; 0 for none (default: a fifth of the time)',
      seconds,
    )
    .option('--json <file>', 'write the report as JSON', nonEmpty)
    .option('--html <file>', 'write the report as a page with a timeline', nonEmpty)
    .option('--quiet', 'do not show what the processes write')
    .argument('<command...>', 'program and its arguments, after --')
    .passThroughOptions()
    .addHelpText('after', HELP)
    .action(chaos);
}
