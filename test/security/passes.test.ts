import { describe, expect, test } from 'vitest';
import { Ledger } from '../../src/engine/ledger.ts';
import { keyOfClaims, MAX_USED_PASSES, makePass, readClaims, UsedPasses } from '../../src/engine/token.ts';
import { tokenKey } from '../../src/engine/token-key.ts';
import { ArgumentError } from '../../src/errors.ts';
import { MemoryStore } from '../../src/store/memory.ts';
import { VirtualClock } from '../../src/transport/clock.ts';

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
    const used = new UsedPasses([]);
    const claims = claimsOf(makePass(SECRET, { run: 'lm', validMs: 60_000 }, NOW));
    expect(used.refusal(claims, 'lm', null, NOW + 59_999)).toBeNull();
    expect(used.refusal(claims, 'lm', null, NOW + 60_000)).toMatch(/good until 2026-01-01T00:01:00/);
    expect(used.refusal(claims, 'other', null, NOW)).toMatch(/for the run lm, not for other/);
    const observer = claimsOf(makePass(SECRET, { role: 'observer' }, NOW));
    expect(used.refusal(observer, 'lm', null, NOW)).toMatch(/role observer/);
  });

  test('a pass for one peer is used up, but lets that one come back', () => {
    const used = new UsedPasses([]);
    const claims = claimsOf(makePass(SECRET, { once: true }, NOW));
    expect(used.refusal(claims, 'lm', null, NOW)).toBeNull();
    used.use(claims, 'p3', NOW);
    expect(used.refusal(claims, 'lm', null, NOW)).toMatch(/was used/);
    expect(used.refusal(claims, 'lm', 'p4', NOW)).toMatch(/was used/);
    expect(used.refusal(claims, 'lm', 'p3', NOW)).toBeNull();
  });

  test('a pass for many is never used up', () => {
    const used = new UsedPasses([]);
    const claims = claimsOf(makePass(SECRET, {}, NOW));
    used.use(claims, 'p3', NOW);
    expect(used.refusal(claims, 'lm', null, NOW)).toBeNull();
  });
});

describe('what a coordinator remembers of used passes', () => {
  test('is known to the next one, until they expire', async () => {
    const store = new MemoryStore(new VirtualClock(), false);
    const claims = claimsOf(makePass(SECRET, { once: true, validMs: 60_000 }, NOW));
    const later = claimsOf(makePass(SECRET, { once: true, validMs: 600_000 }, NOW));
    const first = await Ledger.open(store, null);
    await first.savePass(new UsedPasses(first.usedPasses).use(claims, 'p3', NOW)!);
    const second = await Ledger.open(store, null);
    const next = new UsedPasses(second.usedPasses);
    expect(next.refusal(claims, 'lm', null, NOW)).toMatch(/was used/);
    expect(next.refusal(claims, 'lm', 'p3', NOW)).toBeNull();
    expect(next.use(claims, 'p3', NOW)).toBeNull();
    await second.savePass(next.use(later, 'p4', NOW + 60_000)!);
    expect((await Ledger.open(store, null)).usedPasses).toEqual([{ id: later.id, by: 'p4', expires: later.expires }]);
  });

  test('is bounded: more are not let in, and none is forgotten for others', () => {
    const expires = NOW / 1_000 + 60;
    const full = Array.from({ length: MAX_USED_PASSES }, (_, index) => ({ id: `pass ${index}`, by: 'p', expires }));
    const used = new UsedPasses(full);
    const claims = claimsOf(makePass(SECRET, { once: true, validMs: 600_000 }, NOW));
    expect(used.refusal(claims, 'lm', null, NOW)).toMatch(/no more than 16384/);
    expect(used.refusal(claimsOf(makePass(SECRET, {}, NOW)), 'lm', null, NOW)).toBeNull();
    expect(used.refusal(claims, 'lm', null, NOW + 60_000)).toBeNull();
    // What has expired goes from the store little by little.
    expect(used.use(claims, 'p3', NOW + 60_000)!.expired).toHaveLength(64);
  });
});
