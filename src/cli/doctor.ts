/** `skein doctor`: how the peers of a run are reached from this machine, and why not better. */
import Table from 'cli-table3';
import { Command, Option } from 'commander';
import { diagnose, type JoinOptions } from '../index.ts';
import { addresses, nonEmpty } from './arguments.ts';

interface DoctorOptions {
  readonly coordinator: string;
  readonly run: string;
  readonly token?: string;
  readonly transports: string;
}

const HELP = `
It comes to the run as a newcomer would and dials every peer, but takes no part: nobody waits for it.

Exit code: 0 when every peer can be reached, 1 when one can't.

Example:
  $ SKEIN_TOKEN=… skein doctor --coordinator tcp://host:7400 --run my-run`;

async function examine({ coordinator, run, token, transports }: DoctorOptions): Promise<void> {
  const links = await diagnose(coordinator, {
    run,
    transports: transports.split(',') as JoinOptions['transports'] & {}, // checked by `diagnose`
    ...(token === undefined ? {} : { token }),
  });
  if (links.length === 0) {
    console.log(`Nobody is in run ${run} at ${coordinator}.`);
    return;
  }
  const table = new Table({ head: ['peer', 'reached by', 'what failed before'], style: { head: [], border: [] } });
  for (const { peerId, path, failures } of links) {
    table.push([
      peerId,
      path ?? 'NOT REACHED',
      failures.map(({ path: way, reason }) => `${way}: ${reason}`).join('\n'),
    ]);
  }
  console.log(table.toString());
  if (links.some(({ path }) => path === null)) process.exitCode = 1;
}

export function doctorCommand(): Command {
  return new Command('doctor')
    .summary('how the peers of a run are reached from here, and why not better')
    .description('Dial the peers of a run, and tell how each is reached.')
    .addOption(
      new Option('--coordinator <address>', 'where the coordinator is; of several all, with commas between')
        .env('SKEIN_COORDINATOR')
        .argParser(addresses)
        .makeOptionMandatory(),
    )
    .addOption(new Option('--run <name>', 'name of the run').env('SKEIN_RUN').default('default'))
    .addOption(new Option('--token <token>', "the coordinator's, or a pass").env('SKEIN_TOKEN').argParser(nonEmpty))
    .addOption(
      new Option('--transports <list>', 'ways to try, best first').env('SKEIN_TRANSPORTS').default('unix,tcp,webrtc'),
    )
    .addHelpText('after', HELP)
    .action(examine);
}
