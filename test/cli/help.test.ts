/** A user who knows nothing yet, or makes a mistake, is told what to do. */
import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { launchEnvironment } from '../../src/launch/environment.ts';
import { Command } from './command.ts';

const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as {
  version: string;
};

async function run(
  args: readonly string[],
  environment: NodeJS.ProcessEnv = {},
): Promise<{ code: number | string; stdout: string; stderr: string }> {
  await using command = Command.skein(args, environment);
  const code = await command.ended;
  return { code, stdout: command.stdout, stderr: command.stderr };
}

describe('help', () => {
  test.each([
    [['--help'], ['coordinator', 'launch', '$ skein launch -n 4 -- node train.js']],
    [
      ['launch', '--help'],
      ['Usage: skein launch -n <N> [options] -- <command>', '$ skein launch -n 4', 'Exit code:', '(default: 10)'],
    ],
    [
      ['help', 'launch'],
      ['Usage: skein launch -n <N>', '$ skein launch -n 4'],
    ],
    [
      ['coordinator', '--help'],
      ['Usage: skein coordinator', 'SIGINT or SIGTERM', '$ skein coordinator', 'SKEIN_TOKEN=', 'default: 7400'],
    ],
  ])('skein %j teaches by example, on stdout', async (args, texts) => {
    const { code, stdout, stderr } = await run(args);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(stdout).toContain('Examples:');
    for (const text of texts) expect(stdout).toContain(text);
  });

  test('explains each variable that launched processes get, and no other', async () => {
    const { stdout } = await run(['launch', '--help']);
    const explained = [...stdout.matchAll(/^ {2}(SKEIN_\w+) /gm)].map((match) => match[1]);
    const launched = { coordinator: '', run: '', token: '', processes: 1, minWorldSize: 1 };
    expect(explained.sort()).toEqual(Object.keys(launchEnvironment(launched, 0, 0)).sort());
  });

  test("skein --version is the package's", async () => {
    expect(await run(['--version'])).toEqual({ code: 0, stdout: `${version}\n`, stderr: '' });
  });

  test('skein alone shows what there is, as for a mistake', async () => {
    const { code, stderr } = await run([]);
    expect(code).toBe(2);
    expect(stderr).toContain('Usage: skein');
  });
});

describe('a mistake', () => {
  const launch = (...args: string[]) => ['launch', ...args];
  test.each([
    [['bogus'], "unknown command 'bogus'", 'skein --help'],
    [['--bogus'], "unknown option '--bogus'", 'skein --help'],
    [launch('--', 'node'), "required option '-n, --processes <N>' not specified", 'skein launch --help'],
    [launch('-n', '2'), "missing required argument 'command'", 'skein launch --help'],
    [launch('-n', '2', '--'), "missing required argument 'command'", 'skein launch --help'],
    [launch('-n', '2', '--', ''), 'there is no command to launch', 'skein launch --help'],
    [launch('-n', '0', '--', 'node'), 'Give a whole number from 1 to 1024.', 'skein launch --help'],
    [launch('-n', '2', '--bogus', '--', 'node'), "unknown option '--bogus'", 'skein launch --help'],
    [launch('-n', '2', '--grace', 'long', '--', 'node'), 'Give a number of seconds', 'skein launch --help'],
    [launch('-n', '2', '--run', '', '--', 'node'), 'It must not be empty.', 'skein launch --help'],
    [
      launch('-n', '2', '--min-world-size', '3', '--', 'node'),
      '--min-world-size 3 is more than the 2 processes',
      'skein launch --help',
    ],
    [launch('-n', '2', '--coordinator', 'here', '--', 'node'), 'Give an address like tcp://', 'skein launch --help'],
    [['coordinator', '--port', '65536'], 'Give a whole number from 0 to 65535.', 'skein coordinator --help'],
    [['coordinator', 'extra'], 'too many arguments', 'skein coordinator --help'],
  ])('skein %j ends with 2 and says what is wrong, and where help is', async (args, complaint, help) => {
    const { code, stdout, stderr } = await run(args);
    expect({ code, stdout }).toEqual({ code: 2, stdout: '' });
    expect(stderr).toContain(complaint);
    expect(stderr).toContain(`See: ${help}`);
    expect(stderr, 'a user has no use for our stack').not.toMatch(/^ +at /m);
  });

  test('a bad value in the environment is told from one on the command line', async () => {
    const { code, stderr } = await run(launch('-n', '2', '--', 'node'), { SKEIN_MIN_WORLD_SIZE: 'many' });
    expect(code).toBe(2);
    expect(stderr).toContain('SKEIN_MIN_WORLD_SIZE');
  });

  test('a coordinator without a token is not shown to other machines', async () => {
    const { code, stderr } = await run(['coordinator', '--host', '0.0.0.0', '--port', '0']);
    expect(code).toBe(2);
    expect(stderr).toContain('give it a `token`, or listen on 127.0.0.1');
  });
});
