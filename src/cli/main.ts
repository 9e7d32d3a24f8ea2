#!/usr/bin/env node
/** The `skein` command. Each subcommand has a file of its own; here is what they share: help and exit codes. */
import { readFileSync } from 'node:fs';
import { Command, CommanderError } from 'commander';
import pc from 'picocolors';
import { ArgumentError, SkeinError } from '../errors.ts';
import { benchCommand } from './bench.ts';
import { chaosCommand } from './chaos.ts';
import { coordinatorCommand } from './coordinator.ts';
import { doctorCommand } from './doctor.ts';
import { launchCommand } from './launch.ts';
import { tokenCommand } from './token.ts';
import { topCommand } from './top.ts';

const FAILURE = 1;
const USAGE = 2;

function version(): string {
  const text = readFileSync(new URL('../../../package.json', import.meta.url), 'utf8');
  return (JSON.parse(text) as { version: string }).version; // our own file
}

/** An error that the user can act on is shown as text; any other is a fault of ours, and keeps its stack. */
function explain(error: unknown): string {
  if (error instanceof SkeinError) return error.message;
  if (error instanceof Error && 'syscall' in error) return error.message;
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}

const skein = new Command('skein')
  .description('Fault-tolerant collective communication: processes that join, die and come back, and train as one.')
  .version(version())
  .enablePositionalOptions()
  .addHelpText(
    'after',
    `
Examples:
  Train with four processes on this machine:
    $ skein launch -n 4 -- node train.js

  Serve peers on other machines:
    $ SKEIN_TOKEN=… skein coordinator --host 0.0.0.0

  What a command can do:
    $ skein help launch`,
  );

for (const command of [
  coordinatorCommand(),
  tokenCommand(),
  launchCommand(),
  doctorCommand(),
  topCommand(),
  chaosCommand(),
  benchCommand(),
])
  skein.addCommand(command);
for (const command of [skein, ...skein.commands])
  command.exitOverride().showHelpAfterError(`\nSee: ${command === skein ? '' : 'skein '}${command.name()} --help`);

try {
  await skein.parseAsync();
} catch (error) {
  if (error instanceof CommanderError) {
    process.exitCode = error.exitCode === 0 ? 0 : USAGE;
  } else {
    console.error(`${pc.red('error:')} ${explain(error)}`);
    process.exitCode = error instanceof ArgumentError ? USAGE : FAILURE;
  }
}
