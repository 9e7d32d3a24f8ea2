/** `skein doctor`: why a run stands still, and how its peers are reached from this machine. */
import Table from 'cli-table3';
import { Command, Option } from 'commander';
import { readFlights } from '../doctor/read.ts';
import { type Evidence, findCulprits, type Verdict } from '../doctor/verdicts.ts';
import { ArgumentError, type Examination, examine, type JoinOptions } from '../index.ts';
import { addresses, nonEmpty, seconds, wholeNumber } from './arguments.ts';

interface DoctorOptions {
  readonly coordinator?: string;
  readonly run: string;
  readonly token?: string;
  readonly transports: string;
  /** Milliseconds. */
  readonly patience: number;
  readonly calls: number;
  readonly json?: boolean;
}

const HELP = `
Without files it comes to the run as a newcomer would, dials every peer, and asks for their flight records through the coordinator;
it takes no part, so nobody waits for it. Peers answer from the threads of their engines, also where all training threads hang.
With files or folders it reads the flight records that peers have written there (SKEIN_FLIGHT, or the option \`flight\` of join).

Exit code: 0 when nothing is wrong, 1 when somebody is to blame, or a peer can't be reached.

Examples:
  $ SKEIN_TOKEN=… skein doctor --coordinator tcp://host:7400 --run my-run
  $ skein doctor /var/log/flight`;

function linkTable({ links }: Examination): string {
  const table = new Table({ head: ['peer', 'reached by', 'what failed before'], style: { head: [], border: [] } });
  for (const { peerId, path, failures } of links) {
    table.push([
      peerId,
      path ?? 'NOT REACHED',
      failures.map(({ path: way, reason }) => `${way}: ${reason}`).join('\n'),
    ]);
  }
  return table.toString();
}

function tellVerdicts(verdicts: readonly Verdict[], { dumps }: Evidence): string {
  if (verdicts.length > 0) return verdicts.map(({ text }) => `• ${text[0]?.toUpperCase()}${text.slice(1)}.`).join('\n');
  return `Nothing stands still, as far as the flight records of ${dumps.length} ${dumps.length === 1 ? 'peer' : 'peers'} tell.`;
}

/** What could not be found out. */
function gaps({ silent, absent, unreadable, unanswered }: Examination): string[] {
  if (unanswered)
    return [
      'The coordinator did not pass on the question for flight records: it is of an earlier release, or others ask.',
    ];
  return [
    ...silent.map((peerId) => `${peerId} did not answer: its process, or the thread of its engine, stands still.`),
    ...absent.map((peerId) => `${peerId} has no connection to the coordinator.`),
    ...unreadable.map(({ peerId, reason }) => `What ${peerId} answered can't be used: ${reason}.`),
  ];
}

function report(lines: readonly string[], whole: object, { json }: DoctorOptions): void {
  console.log(json === true ? JSON.stringify(whole, null, 2) : lines.join('\n'));
}

function examineFiles(paths: readonly string[], options: DoctorOptions): void {
  const evidence = readFlights(paths);
  if (evidence.run === null) throw new ArgumentError(`There is no flight record in ${paths.join(', ')}.`);
  const verdicts = findCulprits(evidence, options.patience);
  const failures = evidence.dumps.map(({ peerId, reason }) => `${peerId} wrote its record because: ${reason}`);
  report(
    [...failures, '', tellVerdicts(verdicts, evidence)],
    { run: evidence.run, verdicts, flights: evidence.dumps },
    options,
  );
  if (verdicts.length > 0) process.exitCode = 1;
}

async function examineRun(coordinator: string, options: DoctorOptions): Promise<void> {
  const { run, token, transports, calls } = options;
  const examination = await examine(coordinator, {
    run,
    calls,
    transports: transports.split(',') as JoinOptions['transports'] & {}, // checked by `examine`
    ...(token === undefined ? {} : { token }),
  });
  const { links, dumps } = examination;
  const verdicts = findCulprits(examination, options.patience);
  const { silent, absent, unanswered } = examination;
  const whole = { run, verdicts, links, silent, absent, unanswered, flights: dumps };
  if (links.length === 0) report([`Nobody is in run ${run} at ${coordinator}.`], whole, options);
  else report([linkTable(examination), ...gaps(examination), '', tellVerdicts(verdicts, examination)], whole, options);
  if (verdicts.length > 0 || silent.length > 0 || links.some(({ path }) => path === null)) process.exitCode = 1;
}

async function doctor(paths: readonly string[], options: DoctorOptions): Promise<void> {
  if (paths.length > 0) examineFiles(paths, options);
  else if (options.coordinator !== undefined) await examineRun(options.coordinator, options);
  else throw new ArgumentError('Name a coordinator (--coordinator or SKEIN_COORDINATOR), or files of flight records.');
}

export function doctorCommand(): Command {
  return new Command('doctor')
    .summary('why a run stands still, and how its peers are reached from here')
    .description('Ask the peers of a run what they wait for, or read what they have written, and tell who is to blame.')
    .argument('[files...]', 'flight records, or folders of them; without, the run itself is asked')
    .addOption(
      new Option('--coordinator <address>', 'where the coordinator is; of several all, with commas between')
        .env('SKEIN_COORDINATOR')
        .argParser(addresses),
    )
    .addOption(new Option('--run <name>', 'name of the run').env('SKEIN_RUN').default('default'))
    .addOption(new Option('--token <token>', "the coordinator's, or a pass").env('SKEIN_TOKEN').argParser(nonEmpty))
    .addOption(
      new Option('--transports <list>', 'ways to try, best first').env('SKEIN_TRANSPORTS').default('unix,tcp,webrtc'),
    )
    .addOption(
      new Option('--patience <seconds>', 'a call that is open for less is no reason to worry')
        .argParser(seconds)
        .default(5_000, '5'),
    )
    .addOption(
      new Option('--calls <number>', 'calls that have ended of which each peer is to tell')
        .argParser(wholeNumber(0, 1_000))
        .default(64),
    )
    .option('--json', 'verdicts, links and flight records as JSON')
    .addHelpText('after', HELP)
    .action(doctor);
}
