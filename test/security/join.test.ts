/** Who gets in by which token, at a live coordinator. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join as joinPath } from 'node:path';
import { Coordinator, type JoinOptions, join, makePass, type PassOptions, UnauthorizedError } from 'skein';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

const SECRET = 'of the coordinator';
const HOUR_MS = 3_600_000;

let coordinator: Coordinator;

beforeAll(async () => {
  coordinator = await Coordinator.listen({ port: 0, token: SECRET });
});
afterAll(() => coordinator.close());

function enter(token: string, options: JoinOptions = {}) {
  return join(coordinator.address, { token, engine: 'inline', timeout: 10_000, ...options });
}

function pass(options: PassOptions, nowMs?: number): string {
  return makePass(SECRET, options, nowMs);
}

/** A pass with other claims, and the key that it had. */
function forged(token: string, change: object): string {
  const [prefix, claims, key] = token.split('.') as [string, string, string];
  const read = JSON.parse(Buffer.from(claims, 'base64url').toString()) as object;
  return [prefix, Buffer.from(JSON.stringify({ ...read, ...change })).toString('base64url'), key].join('.');
}

describe('is let in', () => {
  test.each([
    ['the token itself', () => SECRET],
    ['a pass', () => pass({})],
    ['a pass for its run', () => pass({ run: 'lm' })],
    ['a pass for one peer', () => pass({ once: true })],
  ])('by %s', async (_, make) => {
    const group = await enter(make(), { run: 'lm' });
    expect(group.worldSize).toBe(1);
    await group.leave();
  });
});

describe('is refused, and told why', () => {
  test.each([
    ['no token', () => '', /does not know this token/],
    ['another token', () => 'guessed', /does not know this token/],
    ['a pass from another secret', () => makePass('guessed'), /does not know this token/],
    ['a pass that has expired', () => pass({}, Date.now() - 2 * HOUR_MS), /was good until/],
    ['a pass that would not expire', () => forged(pass({}), { expires: 2 ** 40 }), /does not know this token/],
    ['an observer', () => pass({ role: 'observer' }), /role observer/],
    [
      'an observer who calls itself a peer',
      () => forged(pass({ role: 'observer' }), { role: 'peer' }),
      /does not know this token/,
    ],
    ['a pass for another run', () => pass({ run: 'other' }), /for the run other/],
    ['a pass cut short', () => pass({}).slice(0, -4), /does not know this token/],
  ])('%s', async (_, make, reason) => {
    const attempt = enter(make(), { run: 'lm' });
    await expect(attempt).rejects.toThrow(UnauthorizedError);
    await expect(attempt).rejects.toThrow(reason);
  });

  test('the second who comes with a pass for one, while the first goes on', async () => {
    const token = pass({ once: true });
    const first = await enter(token, { run: 'once' });
    await expect(enter(token, { run: 'once' })).rejects.toThrow(/was used/);
    const tensor = Float32Array.of(3);
    await first.allReduce(tensor);
    expect(tensor[0]).toBe(3);
    await first.leave();
    await expect(enter(token, { run: 'once' })).rejects.toThrow(/was used/);
  });

  test('two who come at once with a pass for one: one of them', async () => {
    const token = pass({ once: true });
    const attempts = await Promise.allSettled([1, 2, 3, 4].map(() => enter(token, { run: 'race' })));
    const entered = attempts.filter((attempt) => attempt.status === 'fulfilled');
    expect(entered).toHaveLength(1);
    await entered[0]!.value.leave();
  });
});

test('a pass is enough for a coordinator that speaks TLS, and no more than that', async () => {
  await using encrypted = await Coordinator.listen({ port: 0, token: SECRET, encryption: 'always' });
  const come = (token: string) =>
    join(encrypted.address, { token, encryption: 'always', transports: ['tcp'], engine: 'inline', timeout: 10_000 });
  const group = await come(pass({ run: 'default' }));
  expect(group.worldSize).toBe(1);
  await group.leave();
  await expect(come(makePass('guessed'))).rejects.toThrow(UnauthorizedError);
  await expect(come(forged(pass({ role: 'observer' }), { role: 'peer' }))).rejects.toThrow(UnauthorizedError);
  await expect(come(pass({ role: 'observer' }))).rejects.toThrow(/role observer/);
});

test('a coordinator that was restarted knows which passes were used, and lets their bearers come back', async () => {
  const folder = mkdtempSync(joinPath(tmpdir(), 'skein-join-'));
  try {
    const store = joinPath(folder, 'store.json');
    const first = await Coordinator.listen({ port: 0, token: SECRET, store });
    const [gone, staying] = [pass({ once: true }), pass({ once: true })];
    const come = (token: string) => join(first.address, { token, engine: 'inline', timeout: 10_000 });
    await (await come(gone)).leave();
    const group = await come(staying);
    const back = new Promise((resolve) => group.on('coordinator-back', resolve));
    await first.close();
    await using second = await Coordinator.listen({ port: Number(new URL(first.address).port), token: SECRET, store });
    await back;
    await expect(come(gone)).rejects.toThrow(/was used/);
    await expect(come(staying)).rejects.toThrow(/was used/);
    expect(second.status()['default']?.members).toEqual([group.peerId]);
    await group.leave();
  } finally {
    rmSync(folder, { recursive: true });
  }
});
