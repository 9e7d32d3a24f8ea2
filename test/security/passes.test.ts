import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { fileStore, memoryStore } from '../../src/engine/store.ts';
import { keyOfClaims, MAX_USED_PASSES, makePass, readClaims, UsedPasses } from '../../src/engine/token.ts';
import { tokenKey } from '../../src/engine/token-key.ts';
import { ArgumentError } from '../../src/errors.ts';

const SECRET = 'of the coordinator';
const NOW = Date.UTC(2026, 0, 1);

function claimsOf(pass: string) {
  return readClaims(tokenKey(pass).claims)!;
}

describe('a pass', () => {
  test('holds a key that follows from its claims and the secret', () => {
    const pass = makePass(SECRET, { role: 'peer', run: 'lm', validMs: 60_000, once: true }, NOW);
    const { claims, key } = tokenKey(pass);
    expect(keyOfClaims(SECRET, claims)).toEqual(key);
    expect(keyOfClaims('another secret', claims)).not.toEqual(key);
    expect(readClaims(claims)).toMatchObject({ role: 'peer', run: 'lm', expires: NOW / 1_000 + 60, once: true });
  });

  test('can not be changed by its bearer', () => {
    const { claims, key } = tokenKey(makePass(SECRET, { role: 'observer' }, NOW));
    const read = JSON.parse(Buffer.from(claims, 'base64url').toString()) as object;
    const changed = Buffer.from(JSON.stringify({ ...read, role: 'peer' })).toString('base64url');
    expect(readClaims(changed)).toMatchObject({ role: 'peer' });
    expect(keyOfClaims(SECRET, changed)).not.toEqual(key);
  });

  test('is told from a secret, whatever that looks like', () => {
    for (const secret of ['', 'plain', 'a.b.c', 'skein1', 'skein1.x', 'skein1.a.b.c'])
      expect(tokenKey(secret)).toEqual({ claims: '', key: secret });
    expect(keyOfClaims('plain', '')).toBe('plain');
  });

  test.each(['', 'x', 'bnVsbA', Buffer.from('{"role":"peer"}').toString('base64url'), 'A'.repeat(5_000)])(
    'that says nothing is not believed: %.20s',
    (claims) => {
      expect(readClaims(claims)).toBeNull();
    },
  );

  test('is not made from nothing, nor for what can not be', () => {
    expect(() => makePass('', {}, NOW)).toThrow(/token/);
    expect(() => makePass(SECRET, { run: '' }, NOW)).toThrow(ArgumentError);
    expect(() => makePass(SECRET, { validMs: Number.NaN }, NOW)).toThrow(ArgumentError);
  });
});

describe('who may take part', () => {
  test('a pass is good until it expires, for its run and its role', () => {
    const used = new UsedPasses(memoryStore());
    const claims = claimsOf(makePass(SECRET, { run: 'lm', validMs: 60_000 }, NOW));
    expect(used.refusal(claims, 'lm', null, NOW + 59_999)).toBeNull();
    expect(used.refusal(claims, 'lm', null, NOW + 60_000)).toMatch(/good until 2026-01-01T00:01:00/);
    expect(used.refusal(claims, 'other', null, NOW)).toMatch(/for the run lm, not for other/);
    const observer = claimsOf(makePass(SECRET, { role: 'observer' }, NOW));
    expect(used.refusal(observer, 'lm', null, NOW)).toMatch(/role observer/);
  });

  test('a pass for one peer is used up, but lets that one come back', () => {
    const used = new UsedPasses(memoryStore());
    const claims = claimsOf(makePass(SECRET, { once: true }, NOW));
    expect(used.refusal(claims, 'lm', null, NOW)).toBeNull();
    used.use(claims, 'p3', NOW);
    expect(used.refusal(claims, 'lm', null, NOW)).toMatch(/was used/);
    expect(used.refusal(claims, 'lm', 'p4', NOW)).toMatch(/was used/);
    expect(used.refusal(claims, 'lm', 'p3', NOW)).toBeNull();
  });

  test('a pass for many is never used up', () => {
    const used = new UsedPasses(memoryStore());
    const claims = claimsOf(makePass(SECRET, {}, NOW));
    used.use(claims, 'p3', NOW);
    expect(used.refusal(claims, 'lm', null, NOW)).toBeNull();
  });
});

describe('what a coordinator remembers of used passes', () => {
  function storePath(): string {
    const folder = mkdtempSync(join(tmpdir(), 'skein-passes-'));
    onTestFinished(() => rmSync(folder, { recursive: true }));
    return join(folder, 'store.json');
  }

  test('is known to the next one, until they expire', () => {
    const path = storePath();
    const claims = claimsOf(makePass(SECRET, { once: true, validMs: 60_000 }, NOW));
    const later = claimsOf(makePass(SECRET, { once: true, validMs: 600_000 }, NOW));
    new UsedPasses(fileStore(path)).use(claims, 'p3', NOW);
    const next = new UsedPasses(fileStore(path));
    expect(next.refusal(claims, 'lm', null, NOW)).toMatch(/was used/);
    expect(next.refusal(claims, 'lm', 'p3', NOW)).toBeNull();
    next.use(later, 'p4', NOW + 60_000);
    expect(fileStore(path).loadUsedPasses()).toEqual([{ id: later.id, by: 'p4', expires: later.expires }]);
  });

  test('stands beside the runs in a file, and a file of runs alone is read as well', () => {
    const path = storePath();
    const run = { term: 2, epoch: 7, members: ['p0'] };
    writeFileSync(path, JSON.stringify({ lm: run, runs: run }));
    const store = fileStore(path);
    expect([store.load('lm'), store.load('runs'), store.loadUsedPasses()]).toEqual([run, run, []]);
    new UsedPasses(store).use(claimsOf(makePass(SECRET, { once: true }, NOW)), 'p1', NOW);
    store.save('other', run);
    const again = fileStore(path);
    expect([again.load('lm'), again.load('runs'), again.load('other')]).toEqual([run, run, run]);
    expect(again.loadUsedPasses()).toHaveLength(1);
    writeFileSync(path, JSON.stringify({ runs: {}, usedPasses: [{ id: 1 }] }));
    expect(() => fileStore(path)).toThrow(ArgumentError);
    expect(readFileSync(path, 'utf8')).toContain('usedPasses');
  });

  test('is bounded: more are not let in, and none is forgotten for others', () => {
    const expires = NOW / 1_000 + 60;
    const full = Array.from({ length: MAX_USED_PASSES }, (_, index) => ({ id: `pass ${index}`, by: 'p', expires }));
    const store = memoryStore();
    store.saveUsedPasses(full);
    const used = new UsedPasses(store);
    const claims = claimsOf(makePass(SECRET, { once: true, validMs: 600_000 }, NOW));
    expect(used.refusal(claims, 'lm', null, NOW)).toMatch(/no more than 16384/);
    expect(used.refusal(claimsOf(makePass(SECRET, {}, NOW)), 'lm', null, NOW)).toBeNull();
    expect(used.refusal(claims, 'lm', null, NOW + 60_000)).toBeNull();
  });
});
