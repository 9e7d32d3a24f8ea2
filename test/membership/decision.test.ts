/** What is decided when all survivors of a loss have told what they hold. */
import { describe, expect, test } from 'vitest';
import { Decision } from '../../src/membership/decision.ts';

interface Told {
  readonly held?: Readonly<Record<string, number>>;
  readonly returned?: string[];
  readonly finished?: Readonly<Record<string, readonly [start: number, end: number, epoch: number]>>;
}

const EPOCH = 7;

function say(decision: Decision, peerId: string, { held = {}, returned = [], finished = {} }: Told): boolean {
  return decision.onProgress(peerId, {
    type: 'progress',
    epoch: EPOCH,
    held: Object.entries(held).map(([id, epoch]) => ({ id, epoch })),
    returned,
    finished: Object.entries(finished).map(([id, [start, end, epoch]]) => ({ id, ranges: [{ start, end, epoch }] })),
  });
}

/** Of a and b, which are all whom a collective counts on, unless it is said otherwise. */
function decide(a: Told, b: Told, known: { committed?: string; impossible?: string; onlyA?: string } = {}) {
  const decision = new Decision(EPOCH, false, ['a', 'b']);
  expect([say(decision, 'a', a), say(decision, 'b', b)]).toEqual([false, true]);
  const { committed, kept } = decision.conclude({
    awaitedFor: (id) => (id === known.impossible ? null : id === known.onlyA ? ['a'] : ['a', 'b']),
    isCommitted: (id) => id === known.committed,
  });
  return {
    committed: committed.map(({ id, epoch }) => `${id} @${epoch}`),
    kept: kept.map(({ id, ranges }) => `${id} ${ranges.map(({ start, end }) => `${start}–${end}`).join(' ')}`),
    half: decision.halfReturned(() => ['a', 'b']).map(({ id, by }) => `${id} by ${by}`),
  };
}

describe('a decision', () => {
  test('waits for each survivor once, and hears nothing that is said of another epoch', () => {
    const decision = new Decision(EPOCH, false, ['a', 'b']);
    const early = { type: 'progress' as const, epoch: EPOCH - 1, held: [], returned: [], finished: [] };
    expect(decision.onProgress('a', early)).toBe(false);
    expect(say(decision, 'c', {})).toBe(false);
    expect(say(decision, 'a', {})).toBe(false);
    expect(say(decision, 'a', {})).toBe(false);
    expect(say(decision, 'b', {})).toBe(true);
    expect([...decision.survivors]).toEqual(['a', 'b']);
  });

  test('commits what all hold of the same attempt, and nothing else', () => {
    const a = { held: { both: 3, mine: 3, other: 3 } };
    const b = { held: { both: 3, other: 5 } };
    expect(decide(a, b).committed).toEqual(['both @3']);
  });

  test('does not count on who was left out, and keeps to what was committed or has failed', () => {
    const a = { held: { x: 3 } };
    expect(decide(a, {}, { onlyA: 'x' }).committed).toEqual(['x @3']);
    expect(decide(a, {}, { committed: 'x' }).committed).toEqual(['x @3']);
    expect(decide(a, a, { impossible: 'x' }).committed).toEqual([]);
  });

  test('keeps what all have finished by the same attempt, unless all of it is committed', () => {
    const finished = (end: number, epoch: number): Told => ({ finished: { x: [0, end, epoch] } });
    expect(decide(finished(10, 3), finished(6, 3)).kept).toEqual(['x 0–6']);
    expect(decide(finished(10, 3), finished(6, 4)).kept).toEqual([]);
    expect(decide(finished(10, 3), {}).kept).toEqual([]);
    expect(decide(finished(10, 3), {}, { onlyA: 'x' }).kept).toEqual(['x 0–10']);
    const whole = { ...finished(10, 3), held: { x: 3 } };
    expect(decide(whole, whole)).toMatchObject({ committed: ['x @3'], kept: [] });
  });

  test('names eager calls from which only some have returned', () => {
    expect(decide({ returned: ['x', 'y'] }, { returned: ['y'] }).half).toEqual(['x by a']);
  });
});
