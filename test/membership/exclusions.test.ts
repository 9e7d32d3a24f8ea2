/** The coordinator lets a collective go on without a member for which the others wait. */
import { describe, expect, test } from 'vitest';
import { UNMEASURED } from '../../src/costs.ts';
import { Stage } from './stage.ts';

const CALL = { id: '1:g:0', epoch: 1, spare: 1 };

/** For so many seconds all but the last member wait for it; returns what came of that. */
function wait(stage: Stage, seconds: number, slow: string, waiting: string, call = CALL): string[] {
  const lines: string[] = [];
  for (let second = 0; second < seconds; second++) {
    for (const name of waiting) lines.push(...stage.waits(name, slow, call));
    lines.push(...stage.pass(1_000, `${waiting}${slow}`));
  }
  return lines.filter((line) => !line.includes('is slow'));
}

describe('a collective that could do without some', () => {
  test('goes on without the one for whom the others wait, in an epoch of its own, and is committed among them', () => {
    const stage = Stage.withMembers(3);
    expect(wait(stage, 3, 'c', 'ab')).toEqual([...'abc'].map((name) => `${name} ← 1:g:0 without c @2`));
    expect(stage.snapshot()).toMatchObject({ epoch: 2, generation: 1, members: ['a', 'b', 'c'] });
    // Of the attempt with all three, which can't be committed any more.
    for (const name of 'abc') expect(stage.done(name, '1:g:0', 1)).toEqual([]);
    expect(stage.done('a', '1:g:0', 2)).toEqual([]);
    expect(stage.done('c', '1:g:0', 2)).toEqual([]);
    expect(stage.done('b', '1:g:0', 2)).toEqual(['a ← commit 1:g:0 @2', 'b ← commit 1:g:0 @2']);
    // Other collectives count on it as before.
    for (const name of 'ab') expect(stage.done(name, '1:g:1', 1)).toEqual([]);
    expect(stage.done('c', '1:g:1', 1)).toHaveLength(3);
  });

  test('goes on without one that does not take what it needs, when all others hold the result', () => {
    const stage = Stage.withMembers(3);
    stage.done('a', '1:g:0', 1, 1);
    stage.done('b', '1:g:0', 1, 1);
    expect(stage.pass(2_000, 'abc')).toEqual([]);
    expect(stage.pass(2_000, 'abc')).toEqual([...'abc'].map((name) => `${name} ← 1:g:0 without c @2`));
  });

  test('waits for a victim, for one more than it could do without, and where nobody said otherwise', () => {
    const stage = Stage.withMembers(4);
    stage.done('a', '1:g:0', 1, 1);
    expect(stage.pass(5_000, 'abcd')).toEqual([]); // three are missing
    stage.done('b', '1:g:0', 1, 2);
    const lines: string[] = [];
    for (let second = 0; second < 5; second++) {
      stage.waits('c', 'a');
      lines.push(...stage.pass(1_000, 'abcd'));
    }
    expect(lines.filter((line) => line.includes('without'))).toEqual([]); // c waits for a
    const strict = Stage.withMembers(3);
    strict.done('a', '1:g:0', 1, 0);
    strict.done('b', '1:g:0', 1, 0);
    expect(strict.pass(10_000, 'abc')).toEqual([]);
    expect(wait(Stage.withMembers(3), 5, 'c', 'ab', { ...CALL, spare: 0 })).toEqual([]);
  });

  test('stays without it when another one is lost, or the coordinator dies', () => {
    const stage = Stage.withMembers(4);
    wait(stage, 3, 'd', 'abc');
    stage.linkClosed('a', 'b');
    stage.closed('b');
    for (const name of 'acd') stage.progress(name, 3);
    for (const name of 'ad') stage.done(name, '1:g:0', 3);
    expect(stage.done('c', '1:g:0', 3)).toEqual(['a ← commit 1:g:0 @3', 'c ← commit 1:g:0 @3']);

    const views = [
      {
        epoch: 1,
        generation: 1,
        boundary: 1,
        members: [...'abc'].map((peerId) => ({ peerId, site: '', place: 0 })),
        cuts: [],
        costs: UNMEASURED,
      },
    ];
    const successor = new Stage();
    successor.resume('a', { views, epoch: 2, excluded: [{ id: '1:g:0', epoch: 2, peers: ['c'] }] });
    successor.resume('b', { views });
    const lines = successor.resume('c', { views });
    expect(lines.filter((line) => line.includes('without'))).toEqual(
      [...'abc'].map((name) => `${name} ← 1:g:0 without c @2`),
    );
  });

  test('goes on with one that came at last, though others still seem to wait for it', () => {
    const stage = Stage.withMembers(3);
    wait(stage, 2, 'c', 'ab');
    for (const name of 'ab') stage.done(name, '1:g:0', 1, 1);
    expect(stage.done('c', '1:g:0', 1, 1)).toHaveLength(3); // commits
    expect(wait(stage, 1, 'c', 'ab')).toEqual([]);
  });

  test('waits for each of its calls as long, however long others have waited for the same member', () => {
    const stage = Stage.withMembers(3);
    wait(stage, 4, 'c', 'ab', { ...CALL, spare: 0 });
    const next = { ...CALL, id: '1:g:1' };
    expect(wait(stage, 2, 'c', 'ab', next)).toEqual([]);
    expect(wait(stage, 1, 'c', 'ab', next)).toHaveLength(3);
  });

  test('can’t be failed for the others by one that did not know yet, when the coordinator comes back', () => {
    const successor = new Stage();
    const members = [...'abc'].map((peerId) => ({ peerId, site: '', place: 0 }));
    const views = [{ epoch: 1, generation: 1, boundary: 1, members, cuts: [], costs: UNMEASURED }];
    const failed = [{ id: '1:g:0', generation: 1, code: 'withdrawn' as const, message: 'it ran out of time' }];
    successor.resume('c', { views, failed });
    successor.resume('a', { views, excluded: [{ id: '1:g:0', epoch: 2, peers: ['c'] }] });
    expect(successor.resume('b', { views }).filter((line) => line.includes('fail'))).toEqual([]);
  });

  test('can’t be failed by the one that is out of it', () => {
    const stage = Stage.withMembers(3);
    wait(stage, 3, 'c', 'ab');
    expect(stage.say('c', { type: 'withdraw', id: '1:g:0', generation: 1, reason: 'it ran out of time' })).toEqual([]);
  });

  test('tells a member that comes late to the view along with it', () => {
    const stage = Stage.withMembers(2);
    const late = stage.joinReady();
    stage.boundary('a', 2);
    wait(stage, 3, late, 'a', { id: '2:g:0', epoch: 2, spare: 2 });
    expect(stage.boundary('b', 2).at(-1)).toContain(`2:g:0 without ${late}`);
  });

  test('believes nothing of attempts that are past, nor of those who have no part', () => {
    const stage = Stage.withMembers(3);
    expect(wait(stage, 4, 'c', 'ab', { ...CALL, epoch: 7 })).toEqual([]);
    expect(wait(Stage.withMembers(3), 4, 'c', 'ab', { ...CALL, id: '5:g:0' })).toEqual([]);
  });
});
