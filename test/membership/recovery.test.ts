import { describe, expect, test } from 'vitest';
import { UNMEASURED } from '../../src/costs.ts';
import { concernedBy, ViewHistory } from '../../src/membership/history.ts';
import { newestMembers, rebuild } from '../../src/membership/recovery.ts';
import { MAX_REPORTED_VIEWS } from '../../src/wire/limits.ts';
import type { WireView } from '../../src/wire/parts.ts';
import type { RunReport } from '../../src/wire/peer-messages.ts';
import { BOUNDS, Stage } from './stage.ts';

/** A view of peers called by one letter each. */
function view(generation: number, epoch: number, members: string, boundary: number = generation): WireView {
  return {
    generation,
    epoch,
    boundary,
    members: [...members].map((peerId) => ({ peerId, site: '', place: 0 })),
    cuts: [],
    costs: UNMEASURED,
  };
}

function report(peerId: string, changes: Partial<RunReport>): RunReport {
  const empty = {
    term: 1,
    epoch: 1,
    state: 'member' as const,
    boundary: 1,
    views: [],
    peers: [],
    failed: [],
    excluded: [],
  };
  return { peerId, ...empty, ...changes };
}

const letters = ({ members }: WireView) => members.map((member) => member.peerId).join('');

describe('what a run is rebuilt from', () => {
  test('of one generation the newest report counts: losses only shrink it', () => {
    const reports = [
      report('a', { epoch: 5, boundary: 4, views: [view(1, 1, 'abc'), view(3, 5, 'ac')] }),
      report('c', { epoch: 3, boundary: 2, views: [view(1, 4, 'ac')] }),
    ];
    const { epoch, boundary, views } = rebuild(reports);
    expect([epoch, boundary]).toEqual([5, 4]);
    expect(views.map((one) => [one.generation, one.epoch, letters(one)])).toEqual([
      [1, 4, 'ac'],
      [3, 5, 'ac'],
    ]);
    expect(newestMembers(reports)).toEqual(['a', 'c']);
  });

  test('an epoch that somebody has heard of is never given again, even if no view bears it', () => {
    expect(rebuild([report('a', { epoch: 9, views: [view(1, 1, 'ab')] })]).epoch).toBe(9);
  });

  test('nobody has reported: nothing', () => {
    expect(rebuild([])).toEqual({ epoch: 0, boundary: 0, views: [] });
    expect(newestMembers([])).toEqual([]);
  });
});

describe('the history of a peer', () => {
  test('keeps the last views, with what was lost since', () => {
    const history = new ViewHistory();
    for (let generation = 1; generation <= MAX_REPORTED_VIEWS + 2; generation++)
      history.add(view(generation, generation, generation < 10 ? 'ab' : 'abc'));
    history.onLoss(99, ['c'], concernedBy(['c'], null, false));
    expect(history.views).toHaveLength(MAX_REPORTED_VIEWS);
    expect(history.views[0]!.generation).toBe(3);
    expect(history.views.map((one) => `${letters(one)}@${one.epoch}`)).toEqual(
      history.views.map(({ generation }) => `ab@${generation < 10 ? generation : 99}`),
    );
  });

  test.each([
    ['the lost', ['b'], null, false, true],
    ['nobody lost', ['x'], null, false, false],
    ['both ends of a link', [], ['a', 'b'], false, true],
    ['one end of a link', [], ['a', 'x'], false, false],
    ['everybody, after a return', [], null, true, true],
  ] as const)('a view of %s', (_, lost, broken, resumed, expected) => {
    expect(concernedBy(lost, broken === null ? null : [broken[0], broken[1]], resumed)(view(1, 1, 'ab'))).toBe(
      expected,
    );
  });
});

describe('a coordinator that was restarted', () => {
  const views = [view(1, 1, 'abc')];

  test('waits for all members of the newest view, then decides what is open anew, in an epoch above theirs', () => {
    const stage = new Stage();
    const peers = [...'abc'].map((peerId) => ({ peerId, pair: 0 }));
    expect(stage.resume('a', { views, peers })).toEqual(['a ← welcome back']);
    expect(stage.snapshot()).toMatchObject({ recovering: true, members: [] });
    expect(stage.resume('b', { views, peers })).toEqual(['b ← welcome back']);
    expect(stage.resume('c', { views, peers })).toEqual([
      'c ← welcome back',
      ...[...'abc'].map((name) => `${name} ← loss @2: everything anew`),
    ]);
    expect(stage.machine.term).toBe(2);
    expect(stage.snapshot()).toMatchObject({ recovering: false, members: ['a', 'b', 'c'], epoch: 2, generation: 1 });
    stage.progress('a', 2, '1:g:0');
    stage.progress('b', 2, '1:g:0');
    expect(stage.progress('c', 2, '1:g:0')).toEqual([...'abc'].map((name) => `${name} ← decide @2: 1:g:0`));
  });

  test('fails for all what a member withdraws from while the others are still awaited', () => {
    const stage = new Stage();
    const peers = [...'abc'].map((peerId) => ({ peerId, pair: 0 }));
    stage.resume('a', { views, peers });
    stage.say('a', { type: 'withdraw', id: '1:g:0', generation: 1, reason: 'its caller cancelled it' });
    stage.resume('b', { views, peers });
    expect(stage.resume('c', { views, peers })).toEqual([
      'c ← welcome back',
      ...[...'abc'].map((name) => `${name} ← fail 1:g:0: withdrawn by a`),
      ...[...'abc'].map((name) => `${name} ← loss @2: everything anew`),
    ]);
  });

  test('goes on as soon as they are back: a grace is for those who might still come', () => {
    const stage = new Stage(null, 1_000);
    const peers = [...'abc'].map((peerId) => ({ peerId, pair: 0 }));
    for (const name of 'abc') stage.resume(name, { views, peers });
    expect(stage.boundary('a', 2)).toEqual(['a ← boundary 2: unchanged, joined nobody']);
  });

  test('loses who does not come back in time, and lets nobody in before', () => {
    const stage = new Stage();
    stage.resume('a', { views });
    stage.resume('b', { views });
    const newcomer = stage.joinReady();
    expect(stage.pass(BOUNDS.minimumMs - 25, `ab${newcomer}`)).toEqual([]);
    const lost = 'c (it did not come back to the coordinator)';
    expect(stage.pass(25, `ab${newcomer}`)).toEqual([
      `a ← loss @2: ${lost}, everything anew`,
      `b ← loss @2: ${lost}, everything anew`,
    ]);
    expect(stage.boundary('a', 2).at(-1)).toContain('joined');
  });

  test('introduces who was given up and comes back as a newcomer to those, too, that are still to be let in', () => {
    const stage = new Stage();
    const members = [view(1, 1, 'a'), view(2, 2, 'abc')];
    stage.resume('a', { views: members, boundary: 2, epoch: 2 });
    stage.resume('b', { state: 'ready', boundary: 0, peers: ['a', 'c'].map((peerId) => ({ peerId, pair: 0 })) });
    expect(stage.pass(BOUNDS.minimumMs + 25, 'ab')).toContain('b ← forget c');
    const back = stage.resume('c', {
      state: 'ready',
      boundary: 0,
      peers: ['a', 'b'].map((peerId) => ({ peerId, pair: 0 })),
    });
    expect(back).toEqual(expect.arrayContaining(['b ← meet c', 'c ← meet b', 'a ← meet c', 'c ← meet a']));
  });

  test('tells newcomers who of those they met did not come back, though there were no members', () => {
    const stage = new Stage(null, 1_000);
    stage.resume('a', { state: 'ready', boundary: 0, peers: [{ peerId: 'x', pair: 0 }] });
    const lines = stage.pass(1_000, 'a');
    expect(lines).toEqual(['a ← forget x', 'a ← admitted 1: generation 2 @2 a, joined a']);
  });

  test('with a store, sends away a member that was lost before, whoever else comes back', () => {
    const stage = new Stage({ term: 1, epoch: 3, members: ['a'] });
    const away = ['b ← evicted: the run went on while it was away', 'b closed'];
    expect(stage.resume('b', { views: [view(1, 1, 'ab')], epoch: 2 })).toEqual(away);
    stage.resume('a', { views: [view(1, 3, 'a')], epoch: 3 });
    expect(stage.snapshot().members).toEqual(['a']);
    // A store that is older than what a member has heard says nothing of it.
    const older = new Stage({ term: 1, epoch: 3, members: ['a'] });
    expect(older.resume('b', { views: [view(1, 4, 'ab')], epoch: 4 })).toEqual(['b ← welcome back']);
  });

  test('sends away a member that comes back after it was given up', () => {
    const stage = new Stage();
    stage.resume('a', { views });
    stage.pass(BOUNDS.minimumMs + 25, 'a');
    expect(stage.resume('b', { views })).toEqual(['b ← evicted: the run went on while it was away', 'b closed']);
  });

  test('sends away a member that an earlier coordinator had lost, as the others report', () => {
    const stage = new Stage();
    stage.resume('b', { views });
    stage.resume('a', { views: [view(1, 3, 'ac')], epoch: 3 });
    expect(stage.resume('c', { views: [view(1, 3, 'ac')], epoch: 3 })).toContain(
      'b ← evicted: the run went on while it was away',
    );
    expect(stage.snapshot().members).toEqual(['a', 'c']);
  });

  test('sends away one that was let in and lost before it knew, as the others report', () => {
    const stage = new Stage();
    const known = [view(1, 1, 'abc'), view(2, 3, 'ab', 2)];
    stage.resume('a', { views: known, boundary: 2, epoch: 3 });
    stage.resume('b', { views: known, boundary: 2, epoch: 3 });
    expect(stage.snapshot().members).toEqual(['a', 'b']);
    expect(stage.resume('c', { state: 'ready', boundary: 0 })).toEqual([
      'c ← evicted: the run went on while it was away',
      'c closed',
    ]);
  });

  test('tells a member that is behind the boundaries that it missed', () => {
    const stage = new Stage();
    stage.resume('a', { views: [view(1, 1, 'ab'), view(2, 2, 'abc', 3)], boundary: 4, epoch: 2 });
    stage.resume('b', { views: [view(1, 1, 'ab')], boundary: 1 });
    stage.resume('c', { views: [view(2, 2, 'abc', 3)], boundary: 3, epoch: 2 });
    expect(stage.boundary('b', 2)).toEqual(['b ← boundary 2: unchanged, joined nobody']);
    expect(stage.boundary('b', 3)).toEqual(['b ← boundary 3: generation 2 @3 abc, joined c']);
    expect(stage.boundary('b', 4)).toEqual(['b ← boundary 4: unchanged, joined nobody']);
  });

  test('with a store, waits for the members it knew, and gives no epoch twice', () => {
    const stage = new Stage({ term: 4, epoch: 7, members: ['a', 'b'] });
    expect(stage.machine.term).toBe(5);
    stage.resume('a', { views: [view(1, 3, 'ab')] });
    expect(stage.snapshot().recovering).toBe(true);
    expect(stage.resume('b', { views: [view(1, 3, 'ab')] })).toContain('a ← loss @8: everything anew');
  });

  test('with a store, begins a new run when nobody comes back', () => {
    const stage = new Stage({ term: 1, epoch: 7, members: ['x'] });
    const newcomer = stage.joinReady();
    expect(stage.pass(BOUNDS.minimumMs - 25, newcomer)).toEqual([]);
    expect(stage.pass(25, newcomer)).toEqual([
      `${newcomer} ← admitted 1: generation 8 @8 ${newcomer}, joined ${newcomer}`,
    ]);
  });
});

test('a report of a view without its own peer is refused, and does no harm', () => {
  const stage = new Stage();
  const members = [{ peerId: 'z', site: '', place: 0 }];
  const lines = stage.resume('a', {
    views: [{ epoch: 1, generation: 1, boundary: 1, members, cuts: [], costs: UNMEASURED }],
  });
  expect(lines.join()).toContain('evicted');
  expect(stage.snapshot()).toMatchObject({ epoch: 0, members: [] });
});

describe('a member whose connection broke', () => {
  test('comes back, and what was open is decided anew', () => {
    const stage = Stage.withMembers(2);
    stage.closed('a');
    expect(stage.resume('a', { views: [] }).filter((line) => line.includes('loss'))).toEqual([
      'a ← loss @2: everything anew',
      'b ← loss @2: everything anew',
    ]);
    expect(stage.snapshot().members).toEqual(['a', 'b']);
  });

  test('results of different attempts are not committed, though all hold one', () => {
    const stage = Stage.withMembers(2);
    stage.closed('a');
    stage.resume('a');
    stage.say('a', { type: 'progress', epoch: 2, held: [{ id: '1:g:0', epoch: 1 }], returned: [], finished: [] });
    const decided = stage.say('b', {
      type: 'progress',
      epoch: 2,
      held: [{ id: '1:g:0', epoch: 2 }],
      returned: [],
      finished: [],
    });
    expect(decided).toEqual(['a ← decide @2: nothing', 'b ← decide @2: nothing']);
  });

  test('learns which members were lost meanwhile, and is introduced again to whom it missed', () => {
    const stage = Stage.withMembers(3);
    stage.closed('a');
    stage.say('c', { type: 'leave' });
    const newcomer = stage.joinReady();
    const c = stage.id('c');
    const lines = stage.resume('a', {
      views: [
        {
          ...view(1, 1, ''),
          members: [stage.id('a'), stage.id('b'), c].map((peerId) => ({ peerId, site: '', place: 0 })),
        },
      ],
      peers: [],
    });
    expect(lines).toContain(`a ← meet ${newcomer}`);
    expect(lines).toContain(`${newcomer} ← meet a`);
    expect(lines.find((line) => line.startsWith('a ← loss'))).toContain('c (it was lost while this peer was away)');
  });

  test('so does a newcomer', () => {
    const stage = Stage.withMembers(1);
    const [left, stays] = [stage.joinReady(), stage.joinReady()];
    stage.closed(stays);
    stage.say(left, { type: 'leave' });
    const peers = [stage.id('a'), stage.id(left)].map((peerId) => ({ peerId, pair: 0 }));
    expect(stage.resume(stays, { state: 'warming', boundary: 0, peers })).toContain(`${stays} ← forget ${left}`);
  });

  test('gets the answer again that was lost on the way', () => {
    const stage = Stage.withMembers(2);
    stage.boundary('b', 2);
    stage.boundary('a', 2);
    stage.closed('a');
    stage.resume('a', { boundary: 1 });
    expect(stage.boundary('a', 2)).toEqual(['a ← boundary 2: unchanged, joined nobody']);
  });
});
