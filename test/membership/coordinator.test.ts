import { describe, expect, test } from 'vitest';
import { MAX_OPEN_COLLECTIVES } from '../../src/wire/limits.ts';
import type { PeerMessage } from '../../src/wire/peer-messages.ts';
import { BOUNDS, HEARTBEAT_MS, newMachine, Stage } from './stage.ts';

const SILENT = `it gave no sign of life for ${BOUNDS.minimumMs} ms`;
const CLOSED = 'its connections closed';

describe('joining', () => {
  test('peers meet in pairs, each pair with a key of its own', () => {
    const stage = new Stage();
    expect(stage.join(3).lines).toEqual(['a ← welcome, meet nobody']);
    expect(stage.join(3).lines).toEqual(['a ← meet b', 'b ← welcome, meet a']);
    expect(stage.join(3).lines).toEqual(['a ← meet c', 'b ← meet c', 'c ← welcome, meet ab']);
  });

  test('both ends of a pair get the same key', () => {
    const machine = newMachine();
    const join = (connection: number) =>
      machine.step(
        {
          type: 'joined',
          connection,
          description: { hostKey: 'm', site: '', addresses: [], cores: 1 },
          startWorldSize: 2,
          name: '',
        },
        0,
      );
    join(0);
    const messages = join(1).flatMap((effect) => (effect.type === 'send' ? [effect.message] : []));
    const introduced = messages.flatMap((message) => (message.type === 'introduce' ? [message.peer.key] : []));
    const welcomed = messages.flatMap((message) =>
      message.type === 'welcome' ? message.peers.map((peer) => peer.key) : [],
    );
    expect(introduced.map((key) => key.length)).toEqual([32]);
    expect(welcomed).toEqual(introduced);
  });

  test('a newcomer is told whether there is a view, whose members will wait for it', () => {
    const machine = newMachine();
    const welcomeOf = (connection: number) => {
      const description = { hostKey: 'm', site: '', addresses: [], cores: 1 };
      const effects = machine.step({ type: 'joined', connection, description, startWorldSize: 1, name: '' }, 0);
      const welcome = effects.flatMap((effect) =>
        effect.type === 'send' && effect.message.type === 'welcome' ? [effect.message] : [],
      )[0]!;
      return welcome;
    };
    const first = welcomeOf(0);
    expect(first.isUnderWay).toBe(false);
    machine.step({ type: 'message', peerId: first.peerId, message: { type: 'ready' } }, 0);
    expect(welcomeOf(1).isUnderWay).toBe(true);
  });

  test('the first view forms when as many are ready as each of them wants', () => {
    const stage = new Stage();
    stage.join(2);
    stage.join(3);
    stage.join(2);
    expect(stage.say('a', { type: 'ready' })).toEqual([]);
    expect(stage.say('b', { type: 'ready' })).toEqual([]);
    expect(stage.say('c', { type: 'ready' })).toEqual([
      'a ← admitted 1: generation 1 @1 abc, joined abc',
      'b ← admitted 1: generation 1 @1 abc, joined abc',
      'c ← admitted 1: generation 1 @1 abc, joined abc',
    ]);
    expect(stage.snapshot()).toMatchObject({ epoch: 1, generation: 1, members: ['a', 'b', 'c'], ready: [] });
  });

  test('the first view forms when the one that wanted more goes away', () => {
    const stage = new Stage();
    for (const wanted of [2, 2, 4]) stage.join(wanted);
    for (const name of 'cab') expect(stage.say(name, { type: 'ready' })).toEqual([]);
    expect(stage.closed('c')).toEqual([
      'c closed',
      'a ← forget c',
      'b ← forget c',
      'a ← admitted 1: generation 1 @1 ab, joined ab',
      'b ← admitted 1: generation 1 @1 ab, joined ab',
    ]);
  });

  test('a newcomer waits for a boundary, and is let in by all at the same one', () => {
    const stage = Stage.withMembers(2);
    stage.join();
    expect(stage.snapshot()).toMatchObject({ members: ['a', 'b'], warming: ['c'] });
    expect(stage.say('c', { type: 'ready' })).toEqual([]);
    expect(stage.say('c', { type: 'ready' })).toEqual([]);
    expect(stage.boundary('b', 2)).toEqual([
      'c ← admitted 2: generation 2 @2 abc, joined c',
      'b ← boundary 2: generation 2 @2 abc, joined c',
    ]);
    expect(stage.boundary('a', 2)).toEqual(['a ← boundary 2: generation 2 @2 abc, joined c']);
  });

  test('one that still warms up is not let in', () => {
    const stage = Stage.withMembers(1);
    stage.join();
    expect(stage.boundary('a', 2)).toEqual(['a ← boundary 2: unchanged, joined nobody']);
  });

  test('a newcomer that goes away before the boundary is only forgotten', () => {
    const stage = Stage.withMembers(2);
    stage.joinReady();
    expect(stage.closed('c')).toEqual(['c closed', 'a ← forget c', 'b ← forget c']);
    expect(stage.boundary('a', 2)).toEqual(['a ← boundary 2: unchanged, joined nobody']);
    expect(stage.snapshot().epoch).toBe(1);
  });

  test('when all members are gone, those that are ready form a new view, of a later epoch', () => {
    const stage = Stage.withMembers(1);
    stage.joinReady();
    expect(stage.say('a', { type: 'leave' })).toEqual([
      'a closed',
      'b ← forget a',
      'b ← admitted 2: generation 3 @3 b, joined b',
    ]);
  });

  test('a run that everybody has left keeps its epoch', () => {
    const stage = Stage.withMembers(1);
    stage.say('a', { type: 'leave' });
    expect(stage.machine.empty).toBe(true);
    expect(stage.machine.epoch).toBe(2);
    expect(stage.snapshot()).toMatchObject({ members: [], generation: 0, openCollectives: 0 });
  });
});

describe('boundaries', () => {
  test('the first to come decides, and the later ones get the same answer', () => {
    const stage = Stage.withMembers(3);
    expect(stage.boundary('c', 2)).toEqual(['c ← boundary 2: unchanged, joined nobody']);
    stage.joinReady();
    expect(stage.boundary('a', 2)).toEqual(['a ← boundary 2: unchanged, joined nobody']);
    expect(stage.boundary('b', 2)).toEqual(['b ← boundary 2: unchanged, joined nobody']);
    expect(stage.boundary('a', 3)).toEqual([
      'd ← admitted 3: generation 2 @2 abcd, joined d',
      'a ← boundary 3: generation 2 @2 abcd, joined d',
    ]);
  });

  test('one that is far behind gets every answer in its turn', () => {
    const stage = Stage.withMembers(2);
    stage.joinReady();
    stage.boundary('a', 2);
    stage.joinReady();
    stage.boundary('a', 3);
    stage.boundary('a', 4);
    expect(stage.boundary('b', 2)).toEqual(['b ← boundary 2: generation 2 @2 abc, joined c']);
    expect(stage.boundary('b', 3)).toEqual(['b ← boundary 3: generation 3 @3 abcd, joined d']);
    expect(stage.boundary('b', 4)).toEqual(['b ← boundary 4: unchanged, joined nobody']);
  });

  test('a late answer leaves out whom the view has lost meanwhile', () => {
    const stage = Stage.withMembers(2);
    stage.joinReady();
    stage.joinReady();
    stage.boundary('a', 2);
    stage.say('c', { type: 'leave' });
    expect(stage.boundary('b', 2)).toEqual(['b ← boundary 2: generation 2 @3 abd, joined d']);
  });

  test('a boundary waits for its quorum', () => {
    const stage = Stage.withMembers(2);
    expect(stage.boundary('a', 2, 3)).toEqual([]);
    expect(stage.boundary('b', 2, 3)).toEqual([]);
    stage.join();
    expect(stage.say('c', { type: 'ready' })).toEqual([
      'c ← admitted 2: generation 2 @2 abc, joined c',
      'a ← boundary 2: generation 2 @2 abc, joined c',
      'b ← boundary 2: generation 2 @2 abc, joined c',
    ]);
  });

  test('one that wants less decides for those that wait for more', () => {
    const stage = Stage.withMembers(2);
    expect(stage.boundary('a', 2, 3)).toEqual([]);
    expect(stage.boundary('b', 2, 2)).toEqual([
      'a ← boundary 2: unchanged, joined nobody',
      'b ← boundary 2: unchanged, joined nobody',
    ]);
  });

  test('one that is lost while it waits decides nothing', () => {
    const stage = Stage.withMembers(2);
    stage.boundary('a', 2, 3);
    stage.say('a', { type: 'leave' });
    for (let index = 0; index < 3; index++) stage.joinReady();
    expect(stage.snapshot()).toMatchObject({ members: ['b'], ready: ['c', 'd', 'e'] });
  });

  test('one that asks again, having run out of patience, is answered once', () => {
    const stage = Stage.withMembers(2);
    expect(stage.boundary('a', 2, 3)).toEqual([]);
    expect(stage.boundary('a', 2, 3)).toEqual([]);
    expect(stage.boundary('a', 2, 2)).toEqual(['a ← boundary 2: unchanged, joined nobody']);
    expect(stage.boundary('a', 2, 2)).toEqual([]);
    expect(stage.boundary('a', 1, 2)).toEqual([]);
  });

  test('one may ask for the next boundary while it waits for an earlier one', () => {
    const stage = Stage.withMembers(2);
    expect(stage.boundary('a', 2, 3)).toEqual([]);
    expect(stage.boundary('a', 3, 3)).toEqual([]);
    stage.join();
    expect(stage.say('c', { type: 'ready' })).toEqual([
      'c ← admitted 2: generation 2 @2 abc, joined c',
      'a ← boundary 2: generation 2 @2 abc, joined c',
      'a ← boundary 3: unchanged, joined nobody',
    ]);
  });

  test('one that asks for a boundary far ahead of everybody is expelled', () => {
    const stage = Stage.withMembers(2);
    const reason = 'it broke the protocol: it asked for boundary 1000 where 2 is next';
    expect(stage.boundary('a', 1_000)).toEqual([`a ← evicted: ${reason}`, 'a closed', `b ← loss @2: a (${reason})`]);
  });

  test('one that is no member has no boundaries', () => {
    const stage = Stage.withMembers(1);
    stage.join();
    expect(stage.boundary('b', 2)).toEqual([]);
    expect(stage.snapshot().warming).toEqual(['b']);
  });
});

describe('commits', () => {
  test('a collective is committed when all members hold it', () => {
    const stage = Stage.withMembers(3);
    expect(stage.done('b', '1:g:0', 1)).toEqual([]);
    expect(stage.done('b', '1:g:0', 1)).toEqual([]);
    expect(stage.done('a', '1:g:0', 1)).toEqual([]);
    expect(stage.snapshot().openCollectives).toBe(1);
    expect(stage.done('c', '1:g:0', 1)).toEqual(['a ← commit 1:g:0 @1', 'b ← commit 1:g:0 @1', 'c ← commit 1:g:0 @1']);
    expect(stage.snapshot().openCollectives).toBe(0);
  });

  test('those of an older view need its members only', () => {
    const stage = Stage.withMembers(2);
    stage.joinReady();
    stage.boundary('a', 2);
    expect(stage.done('c', '1:g:0', 1)).toEqual([]);
    expect(stage.done('a', '1:g:0', 1)).toEqual([]);
    expect(stage.done('b', '1:g:0', 1)).toEqual(['a ← commit 1:g:0 @1', 'b ← commit 1:g:0 @1']);
    expect(stage.done('a', '2:g:0', 2)).toEqual([]);
    expect(stage.done('b', '2:g:0', 2)).toEqual([]);
    expect(stage.done('c', '2:g:0', 2).length).toBe(3);
  });

  test('the result of an attempt that a loss ended does not count', () => {
    const stage = Stage.withMembers(3);
    stage.done('a', '1:g:0', 1);
    stage.say('c', { type: 'leave' });
    expect(stage.done('b', '1:g:0', 1)).toEqual([]);
    expect(stage.done('a', '1:g:0', 2)).toEqual([]);
    expect(stage.done('b', '1:g:0', 2)).toEqual(['a ← commit 1:g:0 @2', 'b ← commit 1:g:0 @2']);
  });

  test.each(['1:g:0', '7:g:0'])('a result of an epoch or a view that has never been does not count', (id) => {
    const stage = Stage.withMembers(1);
    expect(stage.done('a', id, 7)).toEqual([]);
    expect(stage.snapshot().openCollectives).toBe(0);
  });

  test('one that opens collectives without end is expelled', () => {
    const stage = Stage.withMembers(2);
    for (let index = 0; index < 2 * MAX_OPEN_COLLECTIVES; index++) stage.done('a', `1:g:${index}`, 1);
    expect(stage.snapshot().openCollectives).toBe(2 * MAX_OPEN_COLLECTIVES);
    expect(stage.done('a', '1:g:last', 1)[0]).toBe(
      'a ← evicted: it broke the protocol: it has too many collectives open',
    );
    expect(stage.snapshot().openCollectives).toBe(0);
  });

  test('one that finds no room because another has taken it all is not expelled for that', () => {
    const stage = Stage.withMembers(3);
    stage.done('b', '1:g:0', 1);
    for (let index = 0; index < 2 * MAX_OPEN_COLLECTIVES; index++) stage.done('a', `1:x:${index}`, 1);
    expect(stage.snapshot().members).toEqual(['b', 'c']);
    const again = Stage.withMembers(3);
    for (let index = 0; index < 2 * MAX_OPEN_COLLECTIVES; index++) again.done('a', `1:x:${index}`, 1);
    expect(again.done('b', '1:g:0', 1)[0]).toBe('a ← evicted: it broke the protocol: it has too many collectives open');
    expect(again.snapshot().members).toEqual(['b', 'c']);
  });

  test('views in which nobody has anything open are forgotten', () => {
    const stage = Stage.withMembers(2);
    stage.joinReady();
    for (const name of 'ab') stage.boundary(name, 2, 1, 1);
    for (const name of 'abc') stage.boundary(name, 3, 1, 2);
    stage.done('a', '1:g:0', 1);
    expect(stage.done('b', '1:g:0', 1)).toEqual([]);
  });
});

describe('failed calls', () => {
  const mismatch = (id: string): PeerMessage => ({
    type: 'mismatch',
    id,
    generation: 1,
    mine: 'allReduce(f32 × 3)',
    theirs: 'barrier()',
    with: 'b',
  });
  const withdraw = (id: string): PeerMessage => ({ type: 'withdraw', id, generation: 1, reason: 'it took too long' });

  test('a mismatch fails the call for all members, once', () => {
    const stage = Stage.withMembers(3);
    expect(stage.say('a', mismatch('1:g:0'))).toEqual([
      'a ← fail 1:g:0: mismatch by a',
      'b ← fail 1:g:0: mismatch by a',
      'c ← fail 1:g:0: mismatch by a',
    ]);
    expect(stage.say('b', mismatch('1:g:0'))).toEqual([]);
    expect(stage.say('c', withdraw('1:g:0'))).toEqual([]);
  });

  test('a failed call is not committed any more', () => {
    const stage = Stage.withMembers(2);
    stage.done('a', '1:g:0', 1);
    expect(stage.say('b', withdraw('1:g:0'))).toEqual([
      'a ← fail 1:g:0: withdrawn by b',
      'b ← fail 1:g:0: withdrawn by b',
    ]);
    expect(stage.done('b', '1:g:0', 1)).toEqual([]);
    expect(stage.done('a', '1:g:0', 1)).toEqual([]);
    expect(stage.snapshot().openCollectives).toBe(0);
  });

  test('nor by a decision', () => {
    const stage = Stage.withMembers(3);
    stage.say('c', { type: 'leave' });
    stage.progress('a', 2, '1:g:0', '1:g:1');
    stage.say('b', withdraw('1:g:0'));
    expect(stage.progress('b', 2, '1:g:0', '1:g:1')).toEqual(['a ← decide @2: 1:g:1', 'b ← decide @2: 1:g:1']);
  });

  test('one that has no part in the view can fail nothing in it', () => {
    const stage = Stage.withMembers(2);
    stage.joinReady();
    stage.boundary('a', 2);
    expect(stage.say('c', withdraw('1:g:0'))).toEqual([]);
    expect(stage.done('a', '1:g:0', 1)).toEqual([]);
    expect(stage.done('b', '1:g:0', 1).length).toBe(2);
  });

  test('one that has not passed the boundary yet learns of the failure along with its view', () => {
    const stage = Stage.withMembers(2);
    stage.joinReady();
    stage.boundary('a', 2);
    expect(stage.say('a', { ...withdraw('2:g:0'), generation: 2 } as PeerMessage)).toEqual([
      'a ← fail 2:g:0: withdrawn by a',
      'c ← fail 2:g:0: withdrawn by a',
    ]);
    expect(stage.boundary('b', 2)).toEqual(['b ← boundary 2: generation 2 @2 abc, joined c, failed 2:g:0']);
    expect(stage.boundary('b', 3)).toEqual(['b ← boundary 3: unchanged, joined nobody']);
  });
});

describe('losses', () => {
  test('what all survivors hold is committed, everything else is done again', () => {
    const stage = Stage.withMembers(4);
    stage.linkClosed('a', 'd');
    expect(stage.closed('d')).toEqual([
      'd closed',
      `a ← loss @2: d (${CLOSED})`,
      `b ← loss @2: d (${CLOSED})`,
      `c ← loss @2: d (${CLOSED})`,
    ]);
    expect(stage.progress('b', 2, '1:g:0', '1:g:1', '1:g:2')).toEqual([]);
    expect(stage.progress('a', 2, '1:g:1', '1:g:0')).toEqual([]);
    expect(stage.progress('b', 2)).toEqual([]);
    expect(stage.progress('c', 2, '1:g:0', '1:g:2', '1:g:1')).toEqual([
      'b ← decide @2: 1:g:0 1:g:1',
      'a ← decide @2: 1:g:0 1:g:1',
      'c ← decide @2: 1:g:0 1:g:1',
    ]);
    expect(stage.progress('c', 2)).toEqual([]);
  });

  test('a decision on an older view asks only those that were in it', () => {
    const stage = Stage.withMembers(3);
    stage.joinReady();
    for (const name of 'abc') stage.boundary(name, 2);
    stage.say('c', { type: 'leave' });
    stage.progress('a', 3, '1:g:0', '2:g:0');
    stage.progress('b', 3, '1:g:0', '2:g:0');
    expect(stage.progress('d', 3)).toEqual(['a ← decide @3: 1:g:0', 'b ← decide @3: 1:g:0', 'd ← decide @3: 1:g:0']);
  });

  test('a view that the lost peer was not in goes on at its epoch', () => {
    const stage = Stage.withMembers(2);
    stage.joinReady();
    for (const name of 'ab') stage.boundary(name, 2);
    stage.done('a', '1:g:0', 1);
    stage.say('c', { type: 'leave' });
    expect(stage.done('b', '1:g:0', 1)).toEqual(['a ← commit 1:g:0 @1', 'b ← commit 1:g:0 @1']);
  });

  test('a second loss during a decision begins it anew', () => {
    const stage = Stage.withMembers(4);
    stage.say('d', { type: 'leave' });
    stage.progress('a', 2, '1:g:0', '1:g:1');
    stage.progress('b', 2, '1:g:0');
    expect(stage.say('c', { type: 'leave' })).toEqual(['c closed', 'a ← loss @3: c (left)', 'b ← loss @3: c (left)']);
    expect(stage.progress('a', 2, '1:g:1')).toEqual([]);
    expect(stage.progress('a', 3, '1:g:0', '1:g:1')).toEqual([]);
    expect(stage.progress('b', 3, '1:g:0')).toEqual(['a ← decide @3: 1:g:0', 'b ← decide @3: 1:g:0']);
  });

  test('the last member decides alone', () => {
    const stage = Stage.withMembers(2);
    stage.say('b', { type: 'leave' });
    expect(stage.progress('a', 2, '1:g:0')).toEqual(['a ← decide @2: 1:g:0']);
    expect(stage.snapshot()).toMatchObject({ members: ['a'], epoch: 2, generation: 1 });
  });

  test('a newcomer may come in during a decision, and has no part in it', () => {
    const stage = Stage.withMembers(3);
    stage.joinReady();
    stage.say('c', { type: 'leave' });
    stage.progress('a', 2, '1:g:0');
    expect(stage.boundary('a', 2)).toEqual([
      'd ← admitted 2: generation 3 @3 abd, joined d',
      'a ← boundary 2: generation 3 @3 abd, joined d',
    ]);
    expect(stage.progress('b', 2, '1:g:0')).toEqual(['a ← decide @2: 1:g:0', 'b ← decide @2: 1:g:0']);
  });

  test('two that fall silent together are lost at one epoch', () => {
    const stage = Stage.withMembers(4);
    const lines = stage.pass(BOUNDS.minimumMs + HEARTBEAT_MS, 'ab');
    expect(lines.filter((line) => line.includes('loss'))).toEqual([
      `a ← loss @2: c (${SILENT}), d (${SILENT})`,
      `b ← loss @2: c (${SILENT}), d (${SILENT})`,
    ]);
    expect(stage.snapshot().members).toEqual(['a', 'b']);
  });

  test('warming peers are only told to forget the lost one', () => {
    const stage = Stage.withMembers(2);
    stage.join();
    expect(stage.say('b', { type: 'leave' })).toEqual(['b closed', 'c ← forget b', 'a ← loss @2: b (left)']);
  });
});

describe('links', () => {
  test('one that broke between two live members is repaired after 200 ms, with nobody lost', () => {
    const stage = Stage.withMembers(3);
    stage.pass(1_000, 'abc');
    expect(stage.linkClosed('a', 'b')).toEqual([]);
    expect(stage.linkClosed('b', 'a')).toEqual([]);
    expect(stage.pass(199, 'abc', 1)).toEqual([]);
    expect(stage.pass(1, 'abc', 1)).toEqual([
      'a ← loss @2: link a–b',
      'b ← loss @2: link a–b',
      'c ← loss @2: link a–b',
    ]);
    for (const name of 'ab') stage.progress(name, 2, '1:g:0');
    expect(stage.progress('c', 2, '1:g:0', '1:g:1')).toEqual([
      'a ← decide @2: 1:g:0',
      'b ← decide @2: 1:g:0',
      'c ← decide @2: 1:g:0',
    ]);
    expect(stage.snapshot().members).toEqual(['a', 'b', 'c']);
    expect(stage.pass(1_000, 'abc')).toEqual([]);
  });

  test('a view that only one of its ends is in goes on at its epoch', () => {
    const stage = Stage.withMembers(2);
    stage.joinReady();
    for (const name of 'ab') stage.boundary(name, 2);
    stage.done('a', '1:g:0', 1);
    stage.done('a', '2:g:0', 2);
    stage.linkClosed('a', 'c');
    stage.pass(200, 'abc');
    expect(stage.done('b', '1:g:0', 1)).toEqual(['a ← commit 1:g:0 @1', 'b ← commit 1:g:0 @1']);
    for (const name of 'abc') expect(stage.done(name, '2:g:0', 2)).toEqual([]);
  });

  test('two links that broke are repaired one after the other', () => {
    const stage = Stage.withMembers(3);
    stage.linkClosed('a', 'b');
    stage.linkClosed('c', 'b');
    expect(stage.pass(200, 'abc').filter((line) => line.startsWith('a'))).toEqual([
      'a ← loss @2: link a–b',
      'a ← loss @3: link b–c',
    ]);
  });

  test('one that broke because a peer died is not repaired', () => {
    const stage = Stage.withMembers(3);
    stage.linkClosed('a', 'b');
    expect(stage.closed('b')).toEqual(['b closed', `a ← loss @2: b (${CLOSED})`, `c ← loss @2: b (${CLOSED})`]);
    expect(stage.pass(1_000, 'ac')).toEqual([]);
  });

  test('a closed connection and a closed link together mean a loss at once, whichever comes first', () => {
    const stage = Stage.withMembers(3);
    expect(stage.closed('b')).toEqual([]);
    expect(stage.linkClosed('c', 'b')).toEqual([
      'b closed',
      `a ← loss @2: b (${CLOSED})`,
      `c ← loss @2: b (${CLOSED})`,
    ]);
  });

  test('a closed connection alone means a loss only when it does not come back', () => {
    const stage = Stage.withMembers(3);
    expect(stage.closed('b')).toEqual([]);
    expect(stage.pass(BOUNDS.minimumMs, 'ac')).toEqual([]);
    const reason = 'its connection to the coordinator broke and it did not come back';
    expect(stage.pass(1, 'ac')).toEqual(['b closed', `a ← loss @2: b (${reason})`, `c ← loss @2: b (${reason})`]);
  });

  test('an old report of a closed link is no evidence', () => {
    const stage = Stage.withMembers(3);
    stage.linkClosed('a', 'b');
    stage.pass(5_000, 'abc');
    expect(stage.closed('b')).toEqual([]);
  });

  test('a link to one that is not a member says nothing', () => {
    const stage = Stage.withMembers(2);
    stage.join();
    expect(stage.linkClosed('a', 'c')).toEqual([]);
    expect(stage.linkClosed('c', 'a')).toEqual([]);
    expect(stage.linkClosed('a', 'nobody')).toEqual([]);
    expect(stage.pass(1_000, 'abc')).toEqual([]);
  });

  test('the only member may come back as others may: nobody could see its links', () => {
    const stage = Stage.withMembers(1);
    expect(stage.closed('a')).toEqual([]);
    expect(stage.pass(BOUNDS.minimumMs, '')).toEqual([]);
    expect(stage.pass(25, '')).toEqual(['a closed']);
    expect(stage.machine.empty).toBe(true);
  });
});

describe('silence', () => {
  test('a silent member is lost after the bound, not before, and is told', () => {
    const stage = Stage.withMembers(3);
    expect(stage.pass(BOUNDS.minimumMs, 'ac')).toEqual([]);
    expect(stage.pass(1, 'ac')).toEqual([
      `b ← evicted: ${SILENT}`,
      'b closed',
      `a ← loss @2: b (${SILENT})`,
      `c ← loss @2: b (${SILENT})`,
    ]);
  });

  test('a silent newcomer is sent away', () => {
    const stage = Stage.withMembers(1);
    stage.join();
    expect(stage.pass(BOUNDS.minimumMs + 1, 'a')).toEqual([`b ← evicted: ${SILENT}`, 'b closed', 'a ← forget b']);
  });

  test('every message is a sign of life', () => {
    const stage = Stage.withMembers(2);
    for (let round = 0; round < 20; round++) {
      stage.done('b', `1:g:${round}`, 1);
      expect(stage.pass(BOUNDS.minimumMs / 2, 'a')).toEqual([]);
    }
  });

  test('beats are answered', () => {
    const stage = Stage.withMembers(1);
    expect(stage.say('a', { type: 'beat' })).toEqual(['a ← beat']);
  });

  test('a coordinator that was asleep evicts nobody, and still notices who is silent afterwards', () => {
    const stage = Stage.withMembers(3);
    stage.pass(1_000, 'abc');
    stage.now += 60_000;
    expect(stage.tick()).toEqual([]);
    expect(stage.pass(BOUNDS.minimumMs, 'ab')).toEqual([]);
    expect(stage.pass(1, 'ab').at(-1)).toBe(`b ← loss @2: c (${SILENT})`);
  });

  test('nor does it believe that a connection which broke before its sleep had time to come back', () => {
    const stage = Stage.withMembers(3);
    stage.pass(1_000, 'abc');
    stage.closed('c');
    stage.now += 60_000;
    expect(stage.tick()).toEqual([]);
    expect(stage.pass(1, 'ab').at(-1)).toContain('c (its connection to the coordinator broke');
  });
});

describe('leaving and being expelled', () => {
  test('one that leaves is let go, and the others go on', () => {
    const stage = Stage.withMembers(3);
    expect(stage.say('b', { type: 'leave' })).toEqual(['b closed', 'a ← loss @2: b (left)', 'c ← loss @2: b (left)']);
    expect(stage.snapshot()).toMatchObject({ members: ['a', 'c'], epoch: 2, generation: 1 });
  });

  test.each<PeerMessage>([
    { type: 'hello', version: 1, run: 'default', claims: '', bound: false, nonce: new Uint8Array(32) },
    {
      type: 'prove',
      proof: new Uint8Array(32),
      startWorldSize: 1,
      name: '',
      resume: false,
      hostKey: 'm',
      site: '',
      addresses: [],
      cores: 1,
    },
  ])('one that sends $type again is expelled', (message) => {
    const stage = Stage.withMembers(2);
    const reason = 'it broke the protocol: it greeted twice';
    expect(stage.say('a', message)).toEqual([`a ← evicted: ${reason}`, 'a closed', `b ← loss @2: a (${reason})`]);
  });

  test('one that an administrator dismisses is lost to the others, does not come back, and is not dismissed twice', () => {
    const stage = Stage.withMembers(2);
    const reason = 'it was dismissed by an administrator';
    expect(stage.dismissed('a')).toEqual([`a ← evicted: ${reason}`, 'a closed', `b ← loss @2: a (${reason})`]);
    expect(stage.dismissed('a')).toEqual([]);
    expect(stage.resume('a').slice(0, 2)).toEqual(['a ← evicted: the run went on while it was away', 'a closed']);
    expect(stage.snapshot().members).toEqual(['b']);
  });

  test('what is open, and whom it waits for, is told to whoever looks on', () => {
    const stage = Stage.withMembers(3);
    stage.done('a', '1:g:0', 1);
    stage.done('b', '1:g:0', 1);
    const { collectives, peers, term } = stage.snapshot();
    expect({ collectives, term }).toEqual({
      collectives: [{ id: '1:g:0', held: 2, awaited: [stage.id('c')] }],
      term: 1,
    });
    expect(peers.map(({ peerId, state }) => [peerId, state])).toEqual(
      ['a', 'b', 'c'].map((name) => [stage.id(name), 'member']),
    );
  });

  test('whatever one sends after it was lost is ignored', () => {
    const stage = Stage.withMembers(2);
    stage.say('b', { type: 'hello', version: 1, run: 'default', claims: '', bound: false, nonce: new Uint8Array(32) });
    stage.progress('a', 2);
    const before = stage.snapshot();
    expect([
      stage.say('b', { type: 'ready' }),
      stage.say('b', { type: 'beat' }),
      stage.boundary('b', 2),
      stage.done('b', '1:g:0', 2),
      stage.progress('b', 2, '1:g:0'),
      stage.say('b', { type: 'withdraw', id: '1:g:0', generation: 1, reason: '' }),
      stage.linkClosed('b', 'a'),
      stage.say('b', { type: 'leave' }),
      stage.closed('b'),
      stage.closed('b'),
      stage.linkClosed('a', 'b'),
    ]).toEqual(Array.from({ length: 11 }, () => []));
    expect(stage.snapshot()).toEqual(before);
  });
});

describe('two members that can’t reach one another', () => {
  test('are gone round from one epoch on; that their link closes and opens again then needs no repair', () => {
    const stage = Stage.withMembers(3);
    const path = (name: string, to: string, open: boolean) =>
      stage.say(name, { type: 'path', peerId: stage.id(to), open });
    path('a', 'b', false);
    path('b', 'a', false);
    expect(stage.pass(300, 'abc')).toEqual([...'abc'].map((name) => `${name} ← loss @2: link a–b`));
    for (const name of 'abc') stage.progress(name, 2);
    stage.linkClosed('a', 'b');
    stage.linkClosed('b', 'a');
    expect(stage.pass(1_000, 'abc')).toEqual([]);
    // Other links are repaired as ever.
    stage.linkClosed('a', 'c');
    expect(stage.pass(300, 'abc')).toHaveLength(3);
    for (const name of 'abc') stage.progress(name, 3);
    // A way that is open again is used from the next boundary on, and then matters again.
    path('a', 'b', true);
    path('b', 'a', true);
    expect(stage.boundary('a', 2)).toEqual(['a ← boundary 2: generation 4 @4 abc, joined nobody']);
    for (const name of 'bc') stage.boundary(name, 2);
    stage.linkClosed('b', 'a');
    expect(stage.pass(300, 'abc')).toEqual([...'abc'].map((name) => `${name} ← loss @5: link a–b`));
  });
});
