/** `skein top`: what the runs of a coordinator do, in a terminal. */
import Table from 'cli-table3';
import { Command, Option } from 'commander';
import { createLogUpdate } from 'log-update';
import pc from 'picocolors';
import type { CoordinatorState } from '../eyes/coordinator-state.ts';
import { bytes, count, milliseconds, rate } from '../eyes/format.ts';
import type { MemberState, RunState } from '../eyes/run-state.ts';
import { ArgumentError, ConnectError, UnauthorizedError } from '../index.ts';
import { httpAddress, nonEmpty, seconds, wholeNumber } from './arguments.ts';

interface TopOptions {
  readonly coordinator: string;
  readonly run?: string;
  readonly token?: string;
  readonly once?: boolean;
  readonly json?: boolean;
  readonly every: number;
  readonly rows?: number;
}

interface State {
  readonly coordinator: CoordinatorState;
  readonly runs: readonly RunState[];
}

/** A coordinator that does not answer within this is told of (ms). */
const PATIENCE_MS = 5_000;

/** Lines that are no rows of peers. */
const OTHER_LINES = 9;

const HELP = `
It asks the HTTP port of a coordinator (skein coordinator --http-port 7401) for /api/state, again and again. The same, with a history, is
at /dashboard there.

Where the coordinator has a token, give it, or a pass for the role observer: SKEIN_TOKEN=$(skein token --role observer).

Exit code: 0, or 1 when the coordinator can't be reached or refuses.

Examples:
  $ skein top --coordinator http://127.0.0.1:7401
  $ skein top --coordinator https://host:7401 --run my-run --once
  $ skein top --coordinator http://127.0.0.1:7401 --json | jq '.runs[].members[].lagMs'`;

/** @throws ConnectError, UnauthorizedError, ArgumentError: each says what to do about it */
async function ask({ coordinator, token }: TopOptions): Promise<State> {
  const url = new URL('api/state', coordinator.endsWith('/') ? coordinator : `${coordinator}/`);
  let response: Response;
  try {
    response = await fetch(url, {
      headers: token === undefined ? {} : { Authorization: `Bearer ${token}` },
      signal: AbortSignal.timeout(PATIENCE_MS),
    });
  } catch (error) {
    const { cause, message, name } = error as Error; // fetch throws nothing else
    const reason =
      name === 'TimeoutError'
        ? `it said nothing for ${PATIENCE_MS / 1_000} s`
        : cause instanceof Error
          ? cause.message
          : message;
    throw new ConnectError(
      `No coordinator answers at ${url.origin} (${reason}). Is it started with --http-port, and is this its HTTP port?`,
      { op: 'top', cause: error },
    );
  }
  const body: unknown = await response.json().catch(() => null);
  if (response.ok && isState(body)) return body;
  const error =
    typeof body === 'object' && body !== null && 'error' in body
      ? String(body.error)
      : `it answered ${response.status}`;
  if (response.status === 401 || response.status === 403)
    throw new UnauthorizedError(`The coordinator at ${url.origin} tells nothing: ${error}`, { op: 'top' });
  throw new ConnectError(`What answers at ${url.origin} is no coordinator of this release (${error}).`, { op: 'top' });
}

function isState(body: unknown): body is State {
  return (
    typeof body === 'object' && body !== null && 'runs' in body && Array.isArray(body.runs) && 'coordinator' in body
  );
}

function lagText({ lagMs, slow }: MemberState): string {
  const text = lagMs === 0 ? '' : milliseconds(lagMs);
  return slow ? pc.yellow(`${text} slow`) : text;
}

function peersTable({ members, joining }: RunState, rows: number): string {
  const head = [
    'rank',
    'peer',
    'site',
    'path',
    'round trip',
    'sends',
    'receives',
    'lag',
    'steps',
    'calls',
    'failed',
    'sent',
  ];
  const table = new Table({
    head,
    style: { head: [], border: [], compact: true },
    colAligns: head.map((title) => (['peer', 'site', 'path'].includes(title) ? 'left' : 'right')),
    chars: { mid: '', 'left-mid': '', 'mid-mid': '', 'right-mid': '' },
  });
  for (const member of members.slice(0, rows)) {
    const {
      rank,
      peerId,
      site,
      ways,
      path,
      roundTripMs,
      sentPerSecond,
      receivedPerSecond,
      steps,
      calls,
      failed,
      sentBytes,
    } = member;
    table.push([
      rank,
      path === null ? pc.red(peerId) : peerId,
      site,
      ways.join(', '),
      milliseconds(roundTripMs),
      rate(sentPerSecond),
      rate(receivedPerSecond),
      lagText(member),
      count(steps),
      count(calls),
      failed > 0 ? pc.red(count(failed)) : '0',
      bytes(sentBytes),
    ]);
  }
  const lines = [table.toString()];
  if (members.length > rows) lines.push(pc.dim(`… and ${members.length - rows} more members`));
  for (const { peerId, site, state } of joining.slice(0, 8))
    lines.push(
      pc.dim(`${peerId} ${site} ${state === 'ready' ? 'comes in at the next boundary' : 'connects to the members'}`),
    );
  return lines.join('\n');
}

function runText(run: RunState, rows: number): string {
  const { totals, members, recent, cuts } = run;
  const lost = Object.entries(totals.losses).map(([cause, times]) => `${times} ${cause}`);
  const slow = members.filter((member) => member.slow).map(({ peerId }) => peerId);
  const inSeconds = (value: number | null) => milliseconds(value === null ? null : 1_000 * value);
  const lines = [
    `${pc.bold(run.run)}  ${members.length} members, epoch ${run.epoch}, generation ${run.generation}, boundary ${totals.boundary}${run.recovering ? pc.yellow('  recovering') : ''}`,
    `${pc.cyan(rate(run.sentPerSecond))}  ${count(totals.committed)} collectives, ${totals.aborted} failed  p50 ${inSeconds(recent.p50)}, p99 ${inSeconds(recent.p99)}`,
    pc.dim(`${totals.joins} came${lost.length > 0 ? `; went: ${lost.join(', ')}` : ''}`),
  ];
  if (slow.length > 0) lines.push(pc.yellow(`${slow.join(', ')} holds the others up`));
  for (const { between, through } of cuts.slice(0, 4))
    lines.push(
      pc.red(
        `${between.join(' and ')} can't reach one another${through.length > 0 ? `: through ${through.join(', ')}` : ''}`,
      ),
    );
  return [...lines, peersTable(run, rows)].join('\n');
}

function stateText({ coordinator, runs }: State, options: TopOptions, height: number): string {
  const { leads, leader, term, connections } = coordinator;
  const role = leads ? 'leads' : `stands by${leader === null ? '' : `, ${leader} leads`}`;
  const head = `${pc.dim(options.coordinator)}  ${role}, term ${term}, ${connections} connections, ${runs.length} runs`;
  const shown = options.run === undefined ? runs : runs.filter(({ run }) => run === options.run);
  const rows = options.rows ?? Math.max(3, Math.floor(height / Math.max(1, shown.length)) - OTHER_LINES);
  const texts = shown.map((run) => runText(run, rows));
  if (texts.length === 0)
    texts.push(options.run === undefined ? 'No run has begun.' : `There is no run ${options.run}.`);
  return [head, '', texts.join('\n\n')].join('\n');
}

async function top(options: TopOptions): Promise<void> {
  if (options.json === true) {
    const { coordinator, runs } = await ask(options);
    const shown = runs.filter(({ run }) => options.run === undefined || run === options.run);
    console.log(JSON.stringify({ coordinator, runs: shown }));
    return;
  }
  if (options.once === true) {
    console.log(stateText(await ask(options), options, Number.POSITIVE_INFINITY));
    return;
  }
  if (!process.stdout.isTTY)
    throw new ArgumentError('This is no terminal: use --once for one look, or --json for programs.');
  const log = createLogUpdate(process.stdout);
  let isOver = false;
  let wake = () => {};
  for (const signal of ['SIGINT', 'SIGTERM'] as const)
    process.once(signal, () => {
      isOver = true;
      wake();
    });
  let state = await ask(options);
  let trouble = '';
  while (!isOver) {
    const height = process.stdout.rows;
    const text = `${trouble}${stateText(state, options, height)}`;
    log(
      text
        .split('\n')
        .slice(0, height - 1)
        .join('\n'),
    );
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, options.every);
      wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
    if (isOver) break;
    try {
      state = await ask(options);
      trouble = '';
    } catch (error) {
      // It may come back, or another may take over at the same address.
      if (!(error instanceof ConnectError)) throw error;
      trouble = `${pc.red(error.message)}\n\n`;
    }
  }
  log.done();
}

export function topCommand(): Command {
  return new Command('top')
    .summary('what the runs of a coordinator do, in a terminal')
    .description('Show the runs of a coordinator: members, rates, latencies, faults.')
    .addOption(
      new Option('--coordinator <url>', 'HTTP port of the coordinator')
        .env('SKEIN_HTTP')
        .default('http://127.0.0.1:7401')
        .argParser(httpAddress),
    )
    .option('--run <name>', 'only this run', nonEmpty)
    .addOption(
      new Option('--token <token>', "the coordinator's, or a pass for the role observer")
        .env('SKEIN_TOKEN')
        .argParser(nonEmpty),
    )
    .option('--once', 'show it once, and end')
    .option('--json', 'print it once as JSON, and end')
    .addOption(new Option('--every <seconds>', 'between two looks').argParser(seconds).default(1_000, '1'))
    .option('--rows <count>', 'peers of each run that are shown (as many as there is room for)', wholeNumber(1, 1_024))
    .addHelpText('after', HELP)
    .action(top);
}
