import { describe, expect, test } from 'vitest';
import { Election, type ElectionEffect, type ElectionEvent } from '../../src/membership/election.ts';

const LEASE_MS = 1_000;
const OTHER = { created: 3, id: 'b', address: 'tcp://b:7400' };

/** Steps an election, and keeps what it wants. */
function stage() {
  const election = new Election(LEASE_MS);
  const step = (event: ElectionEvent, now: number): readonly ElectionEffect[] => election.step(event, now);
  return { election, step };
}

/** Until it leads, by a lease that was asked for at 100. */
function leading() {
  const { election, step } = stage();
  expect(step({ type: 'tick' }, 100)).toEqual([{ type: 'look' }]);
  expect(step({ type: 'seen', leader: null }, 100)).toEqual([{ type: 'grant' }]);
  expect(step({ type: 'granted', lease: 'x', askedAt: 100, ms: LEASE_MS }, 150)).toEqual([
    { type: 'campaign', lease: 'x' },
  ]);
  expect(election.mayLead(150)).toBe(false);
  expect(step({ type: 'campaigned', lease: 'x', created: 7 }, 200)).toEqual([{ type: 'lead', created: 7 }]);
  return { election, step };
}

describe('a candidate', () => {
  test('leads until a tenth before its lease could end, counted from before it was asked for', () => {
    const { election, step } = leading();
    expect([election.mayLead(200), election.mayLead(999), election.mayLead(1_000)]).toEqual([true, true, false]);
    expect(step({ type: 'tick' }, 449)).toEqual([]);
    expect(step({ type: 'tick' }, 450)).toEqual([{ type: 'renew', lease: 'x' }]);
    expect(step({ type: 'tick' }, 500)).toEqual([]); // one at a time
    step({ type: 'renewed', lease: 'x', askedAt: 450, ms: LEASE_MS }, 700);
    expect([election.mayLead(1_349), election.mayLead(1_350)]).toEqual([true, false]);
  });

  test('yields when it was not renewed in time, and gives the lease back', () => {
    const { election, step } = leading();
    const reason = 'it could not renew its lease in time';
    expect(step({ type: 'tick' }, 1_000)).toEqual([
      { type: 'yield', reason },
      { type: 'revoke', lease: 'x' },
    ]);
    expect(step({ type: 'renewed', lease: 'x', askedAt: 990, ms: LEASE_MS }, 1_001)).toEqual([]);
    expect(election.mayLead(1_001)).toBe(false);
    expect(step({ type: 'tick' }, 1_049)).toEqual([]);
    expect(step({ type: 'tick' }, 1_050)).toEqual([{ type: 'look' }]);
  });

  test('that was stopped yields, though its renewal went through meanwhile', () => {
    const { election, step } = leading();
    step({ type: 'tick' }, 450);
    const effects = step({ type: 'renewed', lease: 'x', askedAt: 450, ms: LEASE_MS }, 5_000);
    expect(effects[0]).toMatchObject({ type: 'yield' });
    expect(election.mayLead(5_000)).toBe(false);
  });

  test.each<[string, ElectionEvent]>([
    ['its lease has ended', { type: 'lapsed', lease: 'x' }],
    ['a write was refused', { type: 'refused' }],
    ['its predecessor left what it can not read', { type: 'failed', asked: 'lead', reason: '' }],
    ['it is closed', { type: 'resign' }],
  ])('yields at once when %s', (_, event) => {
    const { step } = leading();
    expect(step(event, 300).map(({ type }) => type)).toEqual(['yield', 'revoke']);
    expect(step({ type: 'refused' }, 300)).toEqual([]);
  });

  test('tries again to renew when the store did not answer, as long as there is time', () => {
    const { step } = leading();
    step({ type: 'tick' }, 450);
    expect(step({ type: 'failed', asked: 'renew', reason: '' }, 600)).toEqual([]);
    expect(step({ type: 'tick' }, 649)).toEqual([]);
    expect(step({ type: 'tick' }, 650)).toEqual([{ type: 'renew', lease: 'x' }]);
  });

  test('follows another one until its key is gone', () => {
    const { election, step } = stage();
    step({ type: 'tick' }, 0);
    expect(step({ type: 'seen', leader: OTHER }, 5)).toEqual([{ type: 'follow', leader: OTHER }]);
    expect(election.leader).toEqual(OTHER);
    expect(step({ type: 'tick' }, 10_000)).toEqual([]);
    expect(step({ type: 'changed' }, 10_000)).toEqual([{ type: 'look' }]);
    expect(step({ type: 'seen', leader: null }, 10_001)).toEqual([{ type: 'grant' }]);
    expect(election.leader).toBeNull();
  });

  test('that was beaten, or does not know whether it has won, gives its lease back', () => {
    for (const [event, next] of [
      [{ type: 'campaigned', lease: 'x', created: null }, 'look'],
      [{ type: 'failed', asked: 'campaign', reason: '' }, undefined],
      [{ type: 'campaigned', lease: 'x', created: 9 }, undefined], // too late
    ] as const) {
      const { election, step } = stage();
      step({ type: 'tick' }, 0);
      step({ type: 'seen', leader: null }, 0);
      step({ type: 'granted', lease: 'x', askedAt: 0, ms: LEASE_MS }, 0);
      const effects = step(event, 950);
      expect(effects.map(({ type }) => type)).toEqual(next === undefined ? ['revoke'] : ['revoke', next]);
      expect(election.mayLead(951)).toBe(false);
    }
  });

  test('gives back a lease that came too late, and begins nothing more once it has resigned', () => {
    const { step } = stage();
    step({ type: 'tick' }, 0);
    step({ type: 'seen', leader: null }, 0);
    step({ type: 'failed', asked: 'grant', reason: '' }, 250);
    expect(step({ type: 'granted', lease: 'late', askedAt: 0, ms: LEASE_MS }, 260)).toEqual([
      { type: 'revoke', lease: 'late' },
    ]);
    step({ type: 'resign' }, 270);
    expect(step({ type: 'tick' }, 9_999)).toEqual([]);
  });
});
