/** `skein launch`: several processes of one run on this machine, as torchrun does it. */
import { randomBytes } from 'node:crypto';
import { Command, Option } from 'commander';
import pc from 'picocolors';
import { startCoordinator } from '../launch/coordinator.ts';
import { launchEnvironment, peerName } from '../launch/environment.ts';
import { runProcesses } from '../launch/processes.ts';
import { addresses, nonEmpty, seconds, wholeNumber } from './arguments.ts';

interface LaunchCommandOptions {
  readonly processes: number;
  readonly restart?: true;
  readonly maxRestarts: number;
  readonly minWorldSize?: number;
  readonly run: string;
  readonly coordinator?: string;
  readonly grace: number;
}

const HELP = `
Each process finds in its environment what join() needs, so that a script just calls it: await join()

  SKEIN_COORDINATOR     address of the coordinator, or of several, with commas between
  SKEIN_RUN             name of the run
  SKEIN_TOKEN           secret of the run: a random one, unless --coordinator names a coordinator that has its own
  SKEIN_LOCAL_RANK      0 to N-1: which process of this launch it is, also after a restart (its rank may differ)
  SKEIN_WORLD_SIZE      N: how many processes this launch has
  SKEIN_MIN_WORLD_SIZE  fewest peers with which it makes sense to go on (--min-world-size)
  SKEIN_RESTARTS        how often this process was started before: 0 at first

Each line that a process writes is shown with its name. SIGINT, SIGTERM and SIGHUP go to all processes; those that
still run after the grace period are killed. None outlives the launcher.

Exit code: 0 when all processes ended with 0; otherwise that of the first process that failed (128 + the number of the
signal that killed it); 2 for a mistake on this command line; 127 when there is no such command.

Examples:
  Four processes; the first failure ends all:
    $ skein launch -n 4 -- node train.js --steps 1000

  Go on when one dies, and start it again, five times at most:
    $ skein launch -n 4 --restart --max-restarts 5 -- node train.js

  Two machines in one run (the coordinator runs on the first):
    $ SKEIN_TOKEN=… skein launch -n 2 --coordinator tcp://first:7400 --run digits -- node train.js`;

const COLOURS = [pc.cyan, pc.magenta, pc.yellow, pc.green, pc.blue, pc.red] as const;

function prefix(index: number): string {
  const colour = COLOURS[index % COLOURS.length] ?? pc.cyan;
  // picocolors leaves the text as it is when stdout is no terminal.
  return `${colour(`[${peerName(index)}]`)} `;
}

function say(text: string): void {
  process.stderr.write(`${pc.dim('[skein]')} ${text}\n`);
}

async function launch(command: readonly string[], options: LaunchCommandOptions, self: Command): Promise<void> {
  const { processes, run, grace } = options;
  const [program, ...args] = command;
  if (program === undefined || program === '') self.error('error: there is no command to launch');
  const minWorldSize = options.minWorldSize ?? (options.restart ? 1 : processes);
  if (options.coordinator === undefined && minWorldSize > processes)
    self.error(`error: --min-world-size ${minWorldSize} is more than the ${processes} processes of this launch`);

  const token = options.coordinator === undefined ? randomBytes(32).toString('hex') : undefined;
  const own =
    token === undefined
      ? null
      : await startCoordinator(token, (error) => {
          say(error.message);
          process.kill(process.pid, 'SIGTERM');
        });
  const launched = { coordinator: own?.address ?? options.coordinator ?? '', run, token, processes, minWorldSize };
  process.exitCode = await runProcesses({
    command: [program, ...args],
    policy: { processes, maxRestarts: options.restart ? options.maxRestarts : 0, graceMs: grace },
    environment: (index, restarts) => ({ ...process.env, ...launchEnvironment(launched, index, restarts) }),
    prefix,
    stdout: process.stdout,
    stderr: process.stderr,
    say,
  });
  await own?.close();
}

export function launchCommand(): Command {
  return new Command('launch')
    .summary('start the processes of a run on this machine')
    .description('Start N processes of one command as peers of one run, with a coordinator unless one is named.')
    .usage('-n <N> [options] -- <command> [arguments…]')
    .requiredOption('-n, --processes <N>', 'how many processes', wholeNumber(1, 1024))
    .option('--restart', 'go on when a process fails, and start it again')
    .option('--max-restarts <k>', 'with --restart: restarts that each process may have', wholeNumber(0, 1_000_000), 3)
    .addOption(
      new Option('--min-world-size <m>', 'fewest peers to go on with (default: N, or 1 with --restart)')
        .env('SKEIN_MIN_WORLD_SIZE')
        .argParser(wholeNumber(1, 1024)),
    )
    .addOption(new Option('--run <name>', 'name of the run').env('SKEIN_RUN').default('default').argParser(nonEmpty))
    .addOption(
      new Option('--coordinator <address>', 'use this coordinator instead of starting one')
        .env('SKEIN_COORDINATOR')
        .argParser(addresses),
    )
    .addOption(
      new Option('--grace <seconds>', 'time between asking processes to end and killing them')
        .default(10_000, '10')
        .argParser(seconds),
    )
    .argument('<command...>', 'program and its arguments, after --')
    .passThroughOptions()
    .addHelpText('after', HELP)
    .action(launch);
}
