/** What members make of one another's rows. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { makePlan, ROW_BYTES, type Row, readRow, type SyncPlan, writeRow } from '../../src/state/census.ts';
import { HASH_BYTES } from '../../src/state/digest.ts';
import { STRATEGIES, type SyncStrategy } from '../../src/state/strategy.ts';

const hash = (value: number): Uint8Array => new Uint8Array(HASH_BYTES).fill(value);

/** `a5*`: holds a, of revision 5, and was in step (`*`). A `-` before it: parts of two revisions. `>b`: has b ready. `a5 receive-only`: how. */
function rowOf(text: string): Row {
  const [, torn, held, revision, synced, ready, strategy] = /^(-?)(\w)(\d+)(\*?)(?:>(\w))?(?: ([\w-]+))?$/.exec(text)!;
  return {
    revision: Number(revision),
    isWhole: torn === '',
    isSynced: synced === '*',
    strategy: (strategy ?? 'majority') as SyncStrategy, // of those below
    shape: hash(0),
    hash: hash(held!.charCodeAt(0)),
    ready: ready === undefined ? null : hash(ready.charCodeAt(0)),
  };
}

/** Members 0, 1, 2… */
function planOf(...texts: readonly string[]) {
  const plan = makePlan(new Map(texts.map((text, rank) => [String(rank), rowOf(text)])));
  if ('code' in plan) return plan.code;
  const { revision, behind, diverged, isSettled } = plan;
  const held = String.fromCharCode(plan.hash[0]!);
  return `${held}${revision}, behind ${behind.join('') || 'nobody'}${diverged.length > 0 ? `, diverged ${diverged.join('')}` : ''}${isSettled ? ', settled' : ''}`;
}

describe('the plan', () => {
  test.each([
    [['a5*', 'a5*', 'a5*'], 'a5, behind nobody, settled'],
    [['a5*', 'b5*', 'b5*'], 'b5, behind 0, diverged 0'],
    [['a5*', 'b5*>a', 'c5*'], 'a5, behind 2, diverged 12'], // as frequent and as high: the lowest rank's
    [['a4*', 'b5*', 'c3*'], 'b5, behind 02'],
    [['x0', 'x0', 'x0', 'a5*'], 'a5, behind 012'], // newcomers have no say
    [['x0', 'y0', 'y0'], 'y0, behind 0'], // but at the start
    [['-a5*', 'b5*'], 'b5, behind 0'],
    [['a5*', 'b4>a'], 'a5, behind nobody, settled'],
    [['a5*', 'a4'], 'a5, behind nobody, settled'], // only the number is behind
    [['-a0', '-b0'], 'lost'],
    [['a9 highest-revision', 'b7 highest-revision', 'b7 highest-revision'], 'a9, behind 12'],
    [['a9 highest-revision', 'b9* highest-revision', 'b9* highest-revision'], 'b9, behind 0'],
    [['a9 highest-revision', 'a9 majority'], 'mismatch'],
    [['a1 send-only', 'b9*', 'b9*'], 'a1, behind 12'],
    [['a1 send-only', 'a3 send-only', 'b9*'], 'a3, behind 2'],
    [['a1 send-only', 'b1 send-only'], 'mismatch'],
    [['a9* receive-only', 'b2'], 'b2, behind 0'],
    [['a9 receive-only', 'b2 receive-only'], 'lost'],
  ])('of %j: %s', (rows, plan) => {
    expect(planOf(...rows)).toBe(plan);
  });

  test('there is none where entries differ, and it says whose', () => {
    const odd = { ...rowOf('a5*'), shape: hash(1) };
    const plan = makePlan(
      new Map([
        ['p', rowOf('a5*')],
        ['q', odd],
        ['r', rowOf('b4')],
      ]),
    );
    expect(plan).toMatchObject({ code: 'mismatch', reason: expect.stringContaining('of q have') });
  });
});

test('a newcomer that does not fit in stops nobody who is in step', () => {
  const odd = { ...rowOf('x9'), shape: hash(1) };
  const wilful = rowOf('y9 highest-revision');
  const rows = new Map([
    ['p', rowOf('a5*')],
    ['q', odd],
    ['r', rowOf('b5*')],
    ['s', wilful],
    ['t', rowOf('z0')],
  ]);
  const plan = makePlan(rows);
  expect(plan).toMatchObject({ revision: 5, holders: ['p'], behind: ['r', 't'], diverged: ['r'], isSettled: false });
  expect([...(plan as SyncPlan).outsiders]).toEqual([
    ['q', expect.stringContaining('of q have')],
    ['s', expect.stringContaining('s the highest revision')],
  ]);
});

const rows: fc.Arbitrary<Row> = fc.record({
  revision: fc.integer({ min: 0, max: 3 }),
  isWhole: fc.boolean(),
  isSynced: fc.boolean(),
  strategy: fc.constantFrom(...STRATEGIES),
  shape: fc.constant(hash(0)),
  hash: fc.integer({ min: 1, max: 3 }).map(hash),
  ready: fc.option(fc.integer({ min: 1, max: 3 }).map(hash)),
});

test('a row is read as it was written, and nothing is read of what is none', () => {
  fc.assert(
    fc.property(rows, fc.uint8Array({ minLength: ROW_BYTES, maxLength: ROW_BYTES }), (row, noise) => {
      expect(readRow(writeRow(row))).toEqual(row);
      const read = readRow(noise);
      if (read !== null) expect(Number.isSafeInteger(read.revision)).toBe(true);
    }),
  );
});

test('whoever can be followed holds all of it, nobody is forgotten, and it settles when those behind are ready', () => {
  fc.assert(
    fc.property(fc.array(rows, { minLength: 1, maxLength: 6 }), (list) => {
      const told = new Map(list.map((row, rank) => [String(rank), row]));
      const plan = makePlan(told);
      if ('code' in plan) return;
      expect(plan.holders.some((peerId) => told.get(peerId)!.isWhole)).toBe(true);
      expect(plan.isSettled).toBe(plan.behind.length === 0);
      for (const peerId of plan.holders) expect(told.get(peerId)!.hash).toEqual(plan.hash);
      // They fetch: the next plan is the same, and settled.
      const later = new Map(told);
      for (const peerId of plan.behind) later.set(peerId, { ...told.get(peerId)!, ready: plan.hash });
      expect(makePlan(later)).toEqual({ ...plan, behind: [], isSettled: true });
      // Any of those that hold it may be lost, as long as one is left: it is followed as before, or another plan is made.
      const [first] = plan.holders;
      later.delete(first!);
      if (later.size > 0) expect(() => makePlan(later)).not.toThrow();
    }),
  );
});
