/** `skein chaos`: the user's own script under faults that a seed draws, and a verdict on what came of it. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { fileURLToPath } from 'node:url';
import Table from 'cli-table3';
import { Command, InvalidArgumentError, Option } from 'commander';
import pc from 'picocolors';
import { namespacesMissing } from '../chaos/namespace-set.ts';
import { MAX_NAMESPACED_PEERS, relayMissing } from '../chaos/namespaces.ts';
import { Network } from '../chaos/network.ts';
import { chaosHtml } from '../chaos/page.ts';
import { FAULT_KINDS, type FaultKind, NETWORK_FAULTS, planFaults, RELAY_FAULTS } from '../chaos/plan.ts';
import { figures, type Summary, summarizeMoments, summarizeRecoveries } from '../chaos/report.ts';
import { type ChaosOutcome, runChaos } from '../chaos/run.ts';
import { judge, longestPause, type Verdict } from '../chaos/verdict.ts';
import { peerName } from '../launch/environment.ts';
import { exitCodeOfSignal } from '../launch/exit.ts';
import { nonEmpty, seconds, wholeNumber } from './arguments.ts';

interface ChaosOptions {
  readonly processes: number;
  readonly seed: number;
  readonly minutes: number;
  readonly faults: readonly FaultKind[];
  readonly every: number;
  readonly calm?: number;
  readonly patience: number;
  readonly json?: string;
  readonly html?: string;
  readonly quiet?: true;
}

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

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

/** Who goes on completes something at least so often (ms), or at least once in so many of the calm run's longest pauses. */
const LEAST_PAUSE_MS = 5_000;
const PAUSES = 4;

const DEFAULT_FAULTS: readonly FaultKind[] = ['kill', 'restart', 'stop', 'coordinator'];

const HELP = `
The script is started as by skein launch --restart: it calls join(), and is started again when it fails. Meanwhile peers are
killed (kill), asked to end by SIGTERM (restart), stopped and continued (stop), and the coordinator is killed and started
again (coordinator). As root on Linux each peer gets a network namespace of its own, in which it can be parted from others
(partition), have a narrow link (slow) or lose packets (loss). With socat besides, its packets can be late (delay), overtake
one another (reorder) or be damaged (corrupt): a process of ours passes them on, and TCP itself sees what becomes of them.

What happens is drawn from the seed. Faults come at random times and at delicate moments: when a collective has just begun
or ended on some peer, when a view was just formed, while the others recover from the fault before, and when the
coordinator has just come back.

Then it is checked from what every process wrote down while it ran: that all peers that completed a collective agree on its
result, epoch and contributors; that epochs only grow; that no process failed or was evicted unless a fault ended it, or kept
the coordinator from hearing it for too long; that no call failed by a mistake in the protocol; that all went on when the faults
were over, until the end; and that they ended together, with the same result. Who goes on completes something every 5 s, or in
four times the calm run's longest pause.

A step is what lies between two boundaries. It is lost when nobody got through it; a peer's share of a step is lost when the
peer was killed or failed in it.

Exit code: 0 when no invariant was broken, 1 when one was, 2 for a mistake on this command line. A run that a signal ends is not
judged: 128 + the signal's number.

Examples:
  Five minutes of what needs no privileges, with eight processes:
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

/** What ends a run early: a signal, or the failure of something that the run needs. Only the first counts. */
class Interruption {
  readonly #controller: AbortController = new AbortController();
  #cause: NodeJS.Signals | Error | null = null;

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  get hasCome(): boolean {
    return this.#cause !== null;
  }

  readonly come = (cause: NodeJS.Signals | Error): void => {
    this.#cause ??= cause;
    this.#controller.abort();
  };

  /** Tells the user, and leaves the exit code of commands that a signal ended. */
  tell(): void {
    if (this.#cause instanceof Error) throw this.#cause;
    if (this.#cause === null) return;
    say(`interrupted by ${this.#cause}: the run is not judged`);
    process.exitCode = exitCodeOfSignal(this.#cause);
  }
}

function verdictOf({ startedAt, stoppedAt, ...seen }: ChaosOutcome, pauseMs: number) {
  return judge({ ...seen, from: startedAt, to: stoppedAt, blameMs: BLAME_MS, pauseMs });
}

function show(summary: Summary): void {
  const table = new Table({
    head: ['fault', 'times', 'median pause', 'p99', 'longest'],
    style: { head: [], border: [] },
  });
  for (const { kind, count, medianMs, p99Ms, maxMs } of summary.recoveries)
    table.push([kind, count, ...[medianMs, p99Ms, maxMs].map((ms) => `${ms.toFixed(0)} ms`)]);
  console.log(table.toString());
  for (const [name, value] of figures(summary)) console.log(`${name}: ${value}`);
  const { broken } = summary.verdict;
  for (const text of broken) console.log(`${pc.red('BROKEN')} ${text}`);
  console.log(broken.length === 0 ? 'no invariant was broken' : `${broken.length} broken`);
}

/** Why some of these faults can't be had here, in words; null when all can. */
function whatIsMissing(wanted: readonly FaultKind[]): string | null {
  for (const [group, missing] of [
    [NETWORK_FAULTS, namespacesMissing],
    [RELAY_FAULTS, relayMissing],
  ] as const) {
    const concerned = wanted.filter((kind) => group.has(kind));
    const reason = concerned.length === 0 ? null : missing();
    if (reason !== null) return `${concerned.join(', ')} can't be had: ${reason}`;
  }
  return null;
}

async function chaos(command: readonly string[], options: ChaosOptions, self: Command): Promise<void> {
  const { processes: peers, seed, minutes: totalMs, faults: wanted, every: everyMs } = options;
  const [program, ...args] = command;
  if (program === undefined || program === '') self.error('error: there is no command to run');
  const missing = whatIsMissing(wanted);
  if (missing !== null) self.error(`error: ${missing}`);

  const tailMs = Math.min(LONGEST_TAIL_MS, Math.max(SHORTEST_TAIL_MS, totalMs * TAIL_SHARE));
  const stormMs = totalMs - tailMs;
  if (stormMs <= everyMs)
    self.error(`error: there is no time for faults: give more than ${seconds1(tailMs + everyMs)}`);
  const faults = planFaults({ seed, kinds: wanted, peers, forMs: stormMs, everyMs });
  const calmMs = options.calm ?? Math.min(LONGEST_CALM_MS, totalMs * CALM_SHARE);
  const folder = mkdtempSync(join(tmpdir(), 'skein-chaos-'));
  const interruption = new Interruption();
  for (const name of SIGNALS) process.on(name, interruption.come);
  let network: Network | null = null;
  try {
    if (wanted.some((kind) => NETWORK_FAULTS.has(kind))) {
      const relay = wanted.some((kind) => RELAY_FAULTS.has(kind));
      network = await Network.open({ peers, relay, seed, onFailure: interruption.come });
    }
    const silent = new PassThrough().resume();
    const base = {
      command: [program, ...args] as const,
      skein: [process.execPath, SKEIN] as const,
      peers,
      network,
      patienceMs: options.patience,
      stdout: options.quiet === true ? silent : process.stdout,
      stderr: options.quiet === true ? silent : process.stderr,
      prefix: (index: number) => `[${peerName(index)}] `,
      signal: interruption.signal,
    };
    say(`seed ${seed}: ${faults.length} faults in ${seconds1(stormMs)}, then ${seconds1(tailMs)} of calm`);
    let calm: ChaosOutcome | null = null;
    if (calmMs > 0) {
      say(`calm run of ${seconds1(calmMs)}`);
      const quiet = { ...base, say: options.quiet === true ? () => {} : say };
      calm = await runChaos({ ...quiet, faults: [], stormMs: 0, tailMs: calmMs, folder: join(folder, 'calm') });
    }
    if (interruption.hasCome) return interruption.tell();
    // What does nothing in calm weather need not be disturbed.
    const storm =
      calm?.began === false
        ? calm
        : await runChaos({ ...base, say, faults, stormMs, tailMs, folder: join(folder, 'storm') });
    if (interruption.hasCome) return interruption.tell();
    const packets = (await network?.close()) ?? null;
    const verdict = report({ command: command.join(' '), seed, peers, packets }, calm, storm, options);
    if (verdict.broken.length > 0) process.exitCode = 1;
  } finally {
    await network?.close();
    rmSync(folder, { recursive: true, force: true });
    for (const name of SIGNALS) process.off(name, interruption.come);
  }
}

/** Judges both runs, tells of them, and writes what was asked for. */
function report(
  run: Pick<Summary, 'command' | 'seed' | 'peers' | 'packets'>,
  calm: ChaosOutcome | null,
  storm: ChaosOutcome,
  options: ChaosOptions,
): Verdict {
  const pauseMs = Math.max(LEAST_PAUSE_MS, PAUSES * longestPause(calm?.lives ?? []));
  const inCalm = calm === null || calm === storm ? null : verdictOf(calm, pauseMs);
  const inStorm = verdictOf(storm, pauseMs);
  const calmBroken = inCalm?.broken.map((text) => `${text} (in the calm run)`) ?? [];
  const verdict = { ...inStorm, broken: [...calmBroken, ...inStorm.broken] };
  const [recoveries, moments] = [summarizeRecoveries(verdict), summarizeMoments(storm.inflicted)];
  const calmRate = inCalm === null || inCalm.rate === 0 ? null : inCalm.rate;
  const summary: Summary = { ...run, calmRate, verdict, recoveries, moments };
  show(summary);
  writeReports(summary, storm, options);
  return verdict;
}

function writeReports(summary: Summary, outcome: ChaosOutcome, { json, html }: ChaosOptions): void {
  const { lives, inflicted, ended, startedAt: from, stoppedAt: to } = outcome;
  if (json !== undefined)
    writeFileSync(json, `${JSON.stringify({ ...summary, inflicted, ended, from, to }, null, 1)}\n`);
  if (html !== undefined) writeFileSync(html, chaosHtml(summary, { lives, inflicted, ended, from, to }));
}

export function chaosCommand(): Command {
  return new Command('chaos')
    .summary('run a script under faults, and check that nothing broke')
    .description('Run N processes of one command, disturb them, and check every invariant from outside.')
    .usage('-n <N> [options] -- <command> [arguments…]')
    .requiredOption('-n, --processes <N>', 'how many processes', wholeNumber(1, MAX_NAMESPACED_PEERS))
    .option('--seed <seed>', 'which faults, and when', wholeNumber(0, 2 ** 31 - 1), Date.now() % 1_000_000)
    .addOption(
      new Option('--minutes <m>', 'how long, the calm at the end included').default(5 * 60_000, '5').argParser(minutes),
    )
    .option('--faults <kinds>', `some of ${FAULT_KINDS.join(', ')}`, kinds, DEFAULT_FAULTS)
    .addOption(
      new Option('--every <seconds>', 'time between faults, on average').default(4_000, '4').argParser(seconds),
    )
    .option(
      '--calm <seconds>',
      'run without faults before, to compare with; 0 for none (default: a fifth of the time)',
      seconds,
    )
    .addOption(
      new Option('--patience <seconds>', 'how soon some peer must have completed a collective, or the run is given up')
        .default(60_000, '60')
        .argParser(seconds),
    )
    .option('--json <file>', 'write the report as JSON', nonEmpty)
    .option('--html <file>', 'write the report as a page with a timeline', nonEmpty)
    .option('--quiet', 'do not show what the processes write')
    .argument('<command...>', 'program and its arguments, after --')
    .passThroughOptions()
    .addHelpText('after', HELP)
    .action(chaos);
}
