/** `skein top`: the runs of a coordinator in a terminal. */
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Coordinator, type JoinOptions, makePass } from 'skein';
import { describe, expect, test } from 'vitest';
import { Members } from '../group/members.ts';
import { Command } from './command.ts';

const TOKEN = 'of this test';
const PEER: JoinOptions = { engine: 'inline', transports: ['tcp'], run: 'lm', token: TOKEN };

async function top(
  args: readonly string[],
  environment: NodeJS.ProcessEnv = {},
): Promise<{ code: unknown; stdout: string; stderr: string }> {
  await using command = Command.skein(['top', ...args], environment);
  const code = await command.ended;
  return { code, stdout: command.stdout, stderr: command.stderr };
}

test('shows a run once, as text and as JSON, of all runs or one', async () => {
  await using members = await Members.form(2, { ...PEER, site: 'oslo' }, { token: TOKEN, http: { port: 0 } });
  const where = ['--coordinator', members.coordinator.httpAddress!];
  await members.all((group) => group.allReduce(new Float32Array(10)));
  const environment = { SKEIN_TOKEN: makePass(TOKEN, { role: 'observer' }) };
  const [text, json, other] = await Promise.all([
    top([...where, '--once', '--rows', '1'], environment),
    top([...where, '--json', '--run', 'lm'], environment),
    top([...where, '--once', '--run', 'other'], environment),
  ]);
  expect(text).toMatchObject({ code: 0, stderr: '' });
  expect(text.stdout).toMatch(/lm {2}2 members, epoch 1, generation 1/);
  expect(text.stdout).toMatch(new RegExp(`${members.groups[0]!.peerId}.*oslo`));
  expect(text.stdout).toContain('and 1 more members');
  const runs = [{ run: 'lm', members: [{}, {}] }];
  expect(JSON.parse(json.stdout)).toMatchObject({ coordinator: { leads: true }, runs });
  expect(other.stdout).toContain('There is no run other.');
});

describe('says what is wrong', () => {
  test('where the token is missing or wrong', async () => {
    await using coordinator = await Coordinator.listen({ port: 0, token: TOKEN, http: { port: 0 } });
    const where = ['--coordinator', coordinator.httpAddress!, '--once'];
    expect(await top(where)).toMatchObject({
      code: 1,
      stdout: '',
      stderr: expect.stringContaining('Authorization: Bearer'),
    });
    expect(await top(where, { SKEIN_TOKEN: 'guessed' })).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('token is wrong'),
    });
  });

  test('where nobody answers, something else does, or this is no terminal', async () => {
    const server = createServer((_, response) => response.end('{}')).listen(0, '127.0.0.1');
    await new Promise((resolve) => server.once('listening', resolve));
    const { port } = server.address() as AddressInfo; // it listens on TCP
    const other = ['--coordinator', `http://127.0.0.1:${port}`];
    expect(await top([...other, '--once'])).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('no coordinator of this release'),
    });
    await new Promise((resolve) => server.close(resolve));
    expect(await top([...other, '--once'])).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('Is it started with --http-port'),
    });
    expect(await top(other)).toMatchObject({ code: 2, stderr: expect.stringContaining('use --once') });
    expect(await top(['--coordinator', 'tcp://127.0.0.1:1'])).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('http://'),
    });
  });
});
