/** `skein token`: passes for others, made from the coordinator's token. */
import { Command, Option } from 'commander';
import { makePass, type Role } from '../index.ts';
import { nonEmpty, seconds } from './arguments.ts';

const ROLES = ['peer', 'observer', 'admin'] satisfies Role[];

interface TokenOptions {
  readonly token: string;
  readonly role: Role;
  readonly run?: string;
  readonly valid: number;
  readonly once?: boolean;
}

const HELP = `
Whoever has a pass proves that by a key in it, and can't make another one from it. It is shown once, here.

Examples:
  For one more machine in one run, within the hour:
    $ SKEIN_TOKEN=… skein token --run my-run --once
    $ SKEIN_TOKEN=skein1.… node train.js`;

export function tokenCommand(): Command {
  return new Command('token')
    .summary('make a pass: a token for one role, run, time or peer')
    .description("Make a pass from the coordinator's token.")
    .addOption(
      new Option('--token <token>', "the coordinator's").env('SKEIN_TOKEN').argParser(nonEmpty).makeOptionMandatory(),
    )
    .addOption(new Option('--role <role>', 'what its bearer may do').choices(ROLES).default('peer'))
    .option('--run <run>', 'the only run that it is for', nonEmpty)
    .option('--valid <seconds>', 'for how long it is good', seconds, 3_600_000)
    .option('--once', 'for one peer')
    .addHelpText('after', HELP)
    .action(({ token, role, run, valid, once = false }: TokenOptions) => {
      console.log(makePass(token, { role, validMs: valid, once, ...(run === undefined ? {} : { run }) }));
    });
}
