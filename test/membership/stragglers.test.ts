import { describe, expect, test } from 'vitest';
import { Stragglers, type Wait } from '../../src/membership/stragglers.ts';

const MEMBERS = ['a', 'b', 'c', 'd'];

type Told = Readonly<Record<string, Readonly<Record<string, number>>>>;

/** Looks once a second, after every member has told whom it waited for; names those that are found slow, with the second. */
function watch(seconds: number, told: (second: number) => Told, blocked: Told = {}): string[] {
  const stragglers = new Stragglers();
  return Array.from({ length: seconds }, (_, second) => {
    const now = second * 1_000;
    for (const [peerId, waits] of Object.entries(told(second))) {
      const list: Wait[] = Object.entries(waits).map(([other, receiveMs]) => ({
        peerId: other,
        receiveMs,
        sendMs: blocked[peerId]?.[other] ?? 0,
        calls: [],
      }));
      stragglers.report(peerId, list, now);
    }
    return stragglers
      .look(MEMBERS, now)
      .filter(({ isNews }) => isNews)
      .map(
        ({ slow }) =>
          `${second} s: ${slow.peerId} for ${slow.waiting.join()} (${slow.blocked.join()}) ${slow.waitedMs}`,
      );
  }).flat();
}

describe('the coordinator names', () => {
  test('the one for whom others wait, not those who wait for a victim', () => {
    // A ring, in which b does nothing: c waits for b, and all after c for the one before them.
    const ring: Told = { c: { b: 900 }, d: { c: 880 }, a: { d: 860 } };
    expect(watch(3, () => ring)).toEqual(['2 s: b for c () 900']);
  });

  test('the one that has not called, for whom both neighbours wait', () => {
    const ring: Told = { a: { b: 900 }, c: { b: 900 }, d: { c: 880 } };
    expect(watch(3, () => ring)).toEqual(['2 s: b for a,c () 900']);
  });

  test('whose data does not leave for it: the way may be the cause', () => {
    const ring: Told = { a: { d: 700, b: 0 }, c: { b: 900 }, d: { c: 880 } };
    expect(watch(3, () => ring, { a: { b: 950 } })).toEqual(['2 s: b for c (a) 900']);
  });

  test('nobody for one slow second, for a short wait, or where all wait for all', () => {
    expect(watch(4, (second): Told => (second % 2 === 0 ? { c: { b: 900 } } : { c: { b: 20 } }))).toEqual([]);
    expect(watch(4, () => ({ c: { b: 400 } }))).toEqual([]);
    expect(watch(4, () => ({ a: { b: 900 }, b: { c: 900 }, c: { a: 900 } }))).toEqual([]);
  });

  test('the same peer once in ten seconds', () => {
    expect(watch(25, () => ({ c: { b: 900 } })).map((line) => line.split(':')[0])).toEqual(['2 s', '12 s', '22 s']);
  });

  test('nobody by reports that are old', () => {
    expect(watch(5, (second): Told => (second === 0 ? { c: { b: 900 } } : {}))).toEqual([]);
  });
});
