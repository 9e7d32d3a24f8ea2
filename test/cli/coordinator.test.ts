/** `skein coordinator` as a process. */
import { connect } from 'node:net';
import { Coordinator, join, makePass } from 'skein';
import { expect, test } from 'vitest';
import { Command } from './command.ts';

const LISTENING = /^Coordinator listening at (tcp:\/\/\S+)$/m;

async function addressOf(command: Command): Promise<string> {
  await command.says(/Ctrl-C ends it/);
  return LISTENING.exec(command.stdout)?.[1] ?? 'none was printed';
}

test.each(['SIGTERM', 'SIGINT'] as const)('prints its address, and ends with 0 on %s', async (signal) => {
  await using command = Command.skein(['coordinator', '--port', '0']);
  expect(await addressOf(command)).toMatch(/^tcp:\/\/127\.0\.0\.1:[1-9]\d*$/);
  command.child.kill(signal);
  expect(await command.ended).toBe(0);
  expect(command.stderr).toBe('');
  await command.leaves([]);
});

test('serves a run at the address that it prints, and ends although peers are there', async () => {
  await using command = Command.skein(['coordinator', '--port', '0', '--host', '::1']);
  const address = await addressOf(command);
  expect(address).toMatch(/^tcp:\/\/\[::1\]:\d+$/);
  const group = await join(address, { run: 'cli', engine: 'inline', timeout: 20_000 });
  expect(group.worldSize).toBe(1);
  const lost = new Promise((resolve) => group.on('coordinator-lost', resolve));
  command.child.kill('SIGTERM');
  expect(await command.ended).toBe(0);
  await lost;
  await group.leave();
});

test('takes the token from the environment, does not show it, and lets in only who knows it', async () => {
  const token = 'a-secret-of-this-test';
  await using command = Command.skein(['coordinator', '--port', '0'], { SKEIN_TOKEN: token });
  const address = await addressOf(command);
  await expect(join(address, { token: 'another', engine: 'inline', timeout: 20_000 })).rejects.toMatchObject({
    code: 'SKEIN_UNAUTHORIZED',
  });
  const group = await join(address, { token, engine: 'inline', timeout: 20_000 });
  await group.leave();
  expect(command.stdout + command.stderr).not.toContain(token);
});

test('listens on HTTP and serves its page where it is asked to', async () => {
  await using command = Command.skein(['coordinator', '--port', '0', '--http-port', '0', '--serve-page']);
  await addressOf(command);
  const address =
    /^Peers in browsers join it by (ws:\/\/127\.0\.0\.1:\d+)$/m.exec(command.stdout)?.[1] ?? 'none was printed';
  const link = /^Visitors of (http:\S+) join the run of that name\.$/m.exec(command.stdout)?.[1] ?? 'none was printed';
  expect(link).toBe(`${address.replace(/^ws/, 'http')}/#run=picture`);
  const page = await fetch(link);
  expect(await page.text()).toContain('<title>Skein</title>');
  for (const name of ['page.js', 'skein.js', 'kernels.wasm']) {
    expect((await fetch(new URL(name, link))).status, name).toBe(200);
  }
  const group = await join(address, { engine: 'inline', timeout: 20_000 });
  expect(group.worldSize).toBe(1);
  await group.leave();
});

test('says that its port is taken, and ends with 1', async () => {
  const other = await Coordinator.listen({ port: 0 });
  try {
    const { port } = new URL(other.address);
    await using command = Command.skein(['coordinator', '--port', port]);
    expect(await command.ended).toBe(1);
    expect(command.stderr).toMatch(new RegExp(`^error: .*${port}`));
    expect(command.stderr, 'a user has no use for our stack').not.toMatch(/^ +at /m);
  } finally {
    await other.close();
  }
});

test('prints one line for whoever joins, goes, or is turned away', async () => {
  const token = 'a-secret-of-this-test';
  await using command = Command.skein(['coordinator', '--port', '0'], { SKEIN_TOKEN: token });
  const address = await addressOf(command);
  const options = { run: 'lm', engine: 'inline', timeout: 20_000, transports: ['tcp'] } as const;
  const stamp = String.raw`^\d{4}-\d\d-\d\dT[\d:.]+Z`;
  const from = String.raw`tcp 127\.0\.0\.1:\d+`;
  const group = await join(address, { ...options, token });
  await command.says(new RegExp(`${stamp} run lm: boundary 1: epoch 1, 1 members, joined ${group.peerId}$`));
  await group.leave();
  await command.says(new RegExp(`${stamp} run lm: ${group.peerId} is gone: left$`));
  const once = makePass(token, { once: true });
  await (await join(address, { ...options, token: once })).leave();
  const refused: readonly (readonly [string, string])[] = [
    ['another', 'did not get in: it left without a proof that it knows the token'],
    [once, 'was refused: This pass is good for one peer, and was used'],
    [makePass(token, { role: 'observer' }), 'was refused: This pass is for the role observer'],
    [makePass(token, { run: 'other' }), 'was refused: This pass is for the run other, not for lm'],
    [makePass(token, { validMs: -5_000 }), 'was refused: This pass was good until'],
  ];
  for (const [bad, why] of refused) {
    await expect(join(address, { ...options, token: bad })).rejects.toMatchObject({ code: 'SKEIN_UNAUTHORIZED' });
    await command.says(new RegExp(`${stamp} ${from} ${why}`));
  }
  const stranger = connect(Number(new URL(address).port), '127.0.0.1');
  // As long as a greeting may be, with a sequence that clears a terminal.
  const text = Buffer.from('\x1b[2J\n');
  stranger.write(
    Buffer.concat([
      Buffer.from([3 + text.length, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x81, 0xa0]),
      Buffer.from([0xa0 | text.length]),
      text,
    ]),
  );
  stranger.on('error', () => {}).resume();
  await command.says(new RegExp(`${stamp} ${from} did not get in: a control message is not valid`));
  expect(command.stdout).not.toContain('\x1b');
  expect(command.stdout.match(/ (did not get in|was refused): /g)).toHaveLength(refused.length + 1);
});
