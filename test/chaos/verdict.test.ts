/** Each invariant, broken by made-up observations: the judge must see it. */
import { describe, expect, test } from 'vitest';
import type { Ended, Life } from '../../src/chaos/observations.ts';
import type { Fault, Inflicted } from '../../src/chaos/plan.ts';
import { type Evidence, judge, longestPause } from '../../src/chaos/verdict.ts';
import type { ObservedLine } from '../../src/observe.ts';

interface Settled {
  readonly id?: string;
  readonly epoch?: number;
  readonly contributors?: readonly string[];
  readonly hash?: string;
  readonly retries?: number;
}

function settled(at: number, changes: Settled = {}): ObservedLine {
  const { id = `1::${at}`, epoch = 1, contributors = ['p0', 'p1'], hash = 'same', retries = 0 } = changes;
  const rest = { algorithm: 'ring', codec: 'f32', error: null, bytesSent: 0, bytesReceived: 0, seconds: 0 } as const;
  return {
    at,
    type: 'settled',
    hash,
    report: { id, epoch, worldSize: contributors.length, contributors, retries, ...rest },
  };
}

function life(index: number, ...lines: readonly ObservedLine[]): Life {
  return { index, restarts: 0, lines: [{ at: 0, type: 'joined', peerId: `p${index}` }, ...lines] };
}

/** Two peers that do one thing a second, for ten seconds; the last two are calm. */
function steady(index: number): Life {
  return life(index, ...Array.from({ length: 10 }, (_, second) => settled(1_000 * second + 500)));
}

function evidence(changes: Partial<Evidence>): Evidence {
  const lives = [steady(0), steady(1)];
  return {
    lives,
    inflicted: [],
    ended: [],
    coordinatorEnds: [],
    from: 0,
    calmFrom: 8_000,
    to: 10_000,
    blameMs: 1_000,
    pauseMs: 2_000,
    ...changes,
  };
}

/** From 2.6 s on, for as long as it says. */
function inflicted(fault: Fault, at = 2_600): Inflicted {
  const until = at + ('forMs' in fault ? fault.forMs : 0);
  return { fault: { ...fault, at, moment: 'now' }, hit: true, at, until };
}

const kill = inflicted({ kind: 'kill', victim: 1 });

function end(index: number, at: number, how: Ended['how'], byFault = false): Ended {
  return { index, restarts: 0, at, how, byFault };
}

const boundary = (at: number, number: number): ObservedLine => ({ at, type: 'boundary', boundary: number, epoch: 1 });
const evicted = (at: number): ObservedLine => ({ at, type: 'evicted', reason: 'it was silent' });
const failure = (at: number, code: string): ObservedLine => ({ at, type: 'failed', code, message: 'so it is' });

describe('the verdict', () => {
  test('finds nothing where nothing is wrong', () => {
    const verdict = judge(evidence({}));
    expect(verdict).toMatchObject({ broken: [], collectives: 10, redone: 0, failed: {}, rate: 1, equalState: true });
  });

  test('compares those that had done their work before the storm was over', () => {
    const ended = [end(0, 3_500, 0), end(1, 3_500, 0)];
    const lives = (last: string) => [
      life(0, settled(500), settled(2_500)),
      life(1, settled(500), settled(2_500, { hash: last })),
    ];
    expect(judge(evidence({ lives: lives('same'), ended })).equalState).toBe(true);
    expect(judge(evidence({ lives: lives('other'), ended })).broken.join()).toContain('parity: the peers ended with');
  });

  test.each<[string, Partial<Evidence>]>([
    [
      'agreement: collective 1::7',
      { lives: [life(0, settled(9_000, { id: '1::7' })), life(1, settled(9_000, { id: '1::7', hash: 'other' }))] },
    ],
    ['is of different epochs', { lives: [life(0, settled(9_000)), life(1, settled(9_000, { epoch: 2 }))] }],
    [
      'has different contributors',
      { lives: [life(0, settled(9_000)), life(1, settled(9_000, { contributors: ['p1'] }))] },
    ],
    ['completed 1::9000 without having contributed', { lives: [life(0, settled(9_000, { contributors: ['p1'] }))] }],
    [
      'epochs: peer 0 went from epoch 5 back to 4',
      {
        lives: [
          life(
            0,
            { at: 1, type: 'view', epoch: 5, members: [] },
            { at: 2, type: 'view', epoch: 4, members: [] },
            settled(9_000),
          ),
        ],
      },
    ],
    ['progress: peer 1 completed nothing', { lives: [steady(0), life(1, settled(7_000))] }],
    [
      'progress: peer 1 went on after the storm, and then completed nothing for 12 s',
      {
        lives: [life(0, settled(8_001), settled(14_000), settled(19_999)), life(1, settled(8_001))],
        to: 20_000,
        pauseMs: 6_000,
      },
    ],
    [
      'progress: peer 1 went on after the storm, and then completed nothing for 7 s',
      { lives: [steady(0), life(1, settled(9_000), settled(16_000), settled(20_000))], to: 20_000, pauseMs: 6_000 },
    ],
    ['progress: no peer ever completed a collective', { lives: [] }],
    ['exit: peer 1 ended with 1', { ended: [end(1, 5_000, 1)] }],
    ['exit: the coordinator ended by itself with SIGABRT', { coordinatorEnds: ['SIGABRT'] }],
    ['exit: peer 0 ended with 1', { ended: [end(0, 3_000, 1)], inflicted: [kill] }],
    ['exit: peer 1 ended with 1', { ended: [end(1, 6_000, 1)], inflicted: [kill] }],
    ['eviction: peer 1 was evicted', { lives: [steady(0), life(1, settled(500), evicted(5_000), settled(9_000))] }],
    [
      'errors: peer 1 got SKEIN_MISMATCH',
      { lives: [steady(0), life(1, failure(2_700, 'SKEIN_MISMATCH'), settled(9_000))], inflicted: [kill] },
    ],
    [
      'errors: peer 1 got SKEIN_PROTOCOL',
      { lives: [steady(0), life(1, failure(2_700, 'SKEIN_PROTOCOL'), settled(9_000))], inflicted: [kill] },
    ],
    [
      'parity: the peers that were left had completed no collective together',
      { lives: [life(0, settled(8_500, { id: 'a' })), life(1, settled(8_500, { id: 'b' }))] },
    ],
    [
      'parity: the peers that were left had completed no collective together',
      {
        lives: [
          life(0, settled(7_500), settled(8_500, { id: 'a' })),
          life(1, settled(7_500), settled(8_500, { id: 'b' })),
        ],
      },
    ],
    [
      'parity: the peers ended with different',
      { lives: [life(0, settled(9_000, { id: 'x' })), life(1, settled(9_000, { id: 'x', hash: 'other' }))] },
    ],
  ])('says: %s', (text, changes) => {
    expect(judge(evidence(changes)).broken.join('\n')).toContain(text);
  });

  test('excuses a victim that fails soon after, and a process that has done its work', () => {
    const ended = [end(1, 3_500, 'SIGKILL')];
    expect(judge(evidence({ ended, inflicted: [kill] })).broken).toEqual([]);
    const done = [steady(0), life(1, settled(7_000))];
    expect(judge(evidence({ lives: done, ended: [end(1, 7_100, 0)] })).broken).toEqual([]);
  });

  test('measures the longest pause of those who were not hit', () => {
    const lives = [life(0, settled(2_500), settled(4_000), settled(4_100), settled(9_000)), life(1, settled(9_000))];
    const [first] = judge(evidence({ lives, inflicted: [kill, { ...kill, at: 4_050, until: 4_050 }] })).recoveries;
    expect(first?.pauseMs).toBe(1_400);
  });

  test('excuses an eviction soon after a fault, and a newcomer of the last second', () => {
    const victim = life(1, settled(2_500), evicted(3_000), settled(8_500));
    expect(judge(evidence({ lives: [steady(0), victim], inflicted: [kill] })).broken).toEqual([]);
    const newcomer = life(2, settled(9_900, { id: 'new', contributors: ['p0', 'p1', 'p2'] }));
    expect(judge(evidence({ lives: [steady(0), steady(1), newcomer] })).broken).toEqual([]);
  });

  describe('of an eviction and the failure by it', () => {
    const judged = (...faults: readonly Inflicted[]) => {
      const lives = [steady(0), life(1, settled(2_500), evicted(7_000), settled(8_500), settled(9_500))];
      return judge(evidence({ lives, ended: [end(1, 7_100, 1)], inflicted: faults })).broken.map(
        (text) => /^\w+/.exec(text)?.[0],
      );
    };
    const away = (victim: number, others: readonly (number | 'coordinator')[], forMs: number): Fault => {
      return { kind: 'partition', victim, others, forMs };
    };
    const [longest, at] = [5_000, 3_500];

    test.each<[string, Fault]>([
      ['a long stop', { kind: 'stop', victim: 1, forMs: longest }],
      ['a long partition from the coordinator', away(1, [0, 'coordinator'], longest)],
      ['heavy loss', { kind: 'loss', victim: 1, percent: 20, forMs: longest }],
    ])('%s is a reason', (_, fault) => {
      expect(judged(inflicted(fault, at))).toEqual([]);
    });

    test.each<[string, Fault]>([
      ['a slow link', { kind: 'slow', victim: 1, megabits: 5, forMs: longest }],
      ['late packets', { kind: 'delay', victim: 1, delayMs: 100, jitterMs: 50, forMs: longest }],
      ['packets out of order', { kind: 'reorder', victim: 1, percent: 50, delayMs: 10, forMs: longest }],
      ['damaged packets', { kind: 'corrupt', victim: 1, percent: 5, forMs: longest }],
      ['some loss', { kind: 'loss', victim: 1, percent: 5, forMs: longest }],
      ['a short stop', { kind: 'stop', victim: 1, forMs: 1_500 }],
      ['a short partition from the coordinator', away(1, [0, 'coordinator'], 300)],
      ['a partition from another peer', away(1, [0], longest)],
      ['the same, of the other', away(0, [1, 'coordinator'], longest)],
      ['what happened to another peer', { kind: 'stop', victim: 0, forMs: longest }],
      ['a coordinator that came back', { kind: 'coordinator', forMs: 2_500 }],
    ])('%s is none', (_, fault) => {
      expect(judged(inflicted(fault, 6_900 - ('forMs' in fault ? fault.forMs : 0)))).toEqual(['exit', 'eviction']);
    });

    test('short stops that follow one another may be one long silence', () => {
      const stop: Fault = { kind: 'stop', victim: 1, forMs: 1_500 };
      expect(judged(inflicted(stop, 3_500), inflicted(stop, 5_200))).toEqual([]);
      expect(judged(inflicted(stop, 2_500), inflicted(stop, 5_200))).toEqual(['exit', 'eviction']);
    });
  });

  test('knows a process that joins again by its new name, and its epochs from then on', () => {
    const again: readonly ObservedLine[] = [
      { at: 2_000, type: 'view', epoch: 5, members: [] },
      evicted(3_000),
      { at: 3_100, type: 'joined', peerId: 'p7' },
      { at: 3_200, type: 'view', epoch: 1, members: [] },
    ];
    const results = [settled(8_500, { contributors: ['p0', 'p7'] }), settled(9_500, { contributors: ['p0', 'p7'] })];
    const other = life(0, ...results);
    expect(judge(evidence({ lives: [other, life(1, ...again, ...results)], inflicted: [kill] })).broken).toEqual([]);
    const asBefore = life(1, ...again, ...results, settled(9_600, { contributors: ['p0', 'p1'] }));
    const { broken } = judge(evidence({ lives: [other, asBefore], inflicted: [kill] }));
    expect(broken).toEqual(['agreement: peer 1 completed 1::9600 without having contributed']);
  });

  test('lets who comes back take the whole calm for it', () => {
    const lives = [life(0, settled(8_100), settled(10_000)), life(1, settled(9_900))];
    const shared = settled(9_900);
    lives[0]!.lines.push(shared);
    expect(judge(evidence({ lives, pauseMs: 1_850 })).broken.join()).toContain('peer 0 went on');
    expect(judge(evidence({ lives, pauseMs: 1_950 })).broken).toEqual([]);
  });

  test('says once what came often', () => {
    const ended = Array.from({ length: 40 }, (_, index) => end(1, index * 100, 1));
    const { broken } = judge(evidence({ lives: [life(1)], ended }));
    expect(broken).toHaveLength(2);
    expect(broken[0]).toBe('exit: peer 1 ended with 1, for which no fault is a reason (40 times)');
    expect(broken[1]).toContain('no peer ever completed a collective');
  });

  test('takes the longest pause of any one process', () => {
    expect(longestPause([steady(0), life(1, settled(0), settled(100), settled(4_000)), life(2, settled(9_000))])).toBe(
      3_900,
    );
    expect(longestPause([])).toBe(0);
  });

  test('blames nobody for the end of a peer that a fault ended', () => {
    expect(judge(evidence({ ended: [end(1, 9_900, 'SIGKILL', true)] })).broken).toEqual([]);
  });

  test('counts what was begun anew and what failed', () => {
    const lives = [
      life(0, settled(9_000, { retries: 1 }), failure(5, 'SKEIN_TIMEOUT')),
      life(1, settled(9_000, { retries: 1 })),
    ];
    expect(judge(evidence({ lives }))).toMatchObject({ redone: 1, collectives: 1, failed: { SKEIN_TIMEOUT: 1 } });
  });
});

describe('steps', () => {
  const counts = (lives: readonly Life[], ended: readonly Ended[] = []) => judge(evidence({ lives, ended })).steps;

  test('are done when somebody got through them; what the end of the run cuts off is neither done nor lost', () => {
    const both = [0, 1].map((index) => life(index, boundary(1, 1), settled(2), boundary(3, 2), settled(9_000)));
    expect(counts(both)).toEqual({ done: 1, lost: 0, sharesDone: 2, sharesLost: 0 });
  });

  test('lose the share of a peer that is killed or fails in it', () => {
    const survivor = life(0, boundary(1, 1), settled(2), boundary(3, 2), settled(4), boundary(5, 3));
    const killed = life(1, boundary(1, 1), settled(2), boundary(3, 2));
    expect(counts([survivor, killed], [end(1, 4, 'SIGKILL', true)])).toEqual({
      done: 2,
      lost: 0,
      sharesDone: 3,
      sharesLost: 1,
    });
    const fails = life(1, boundary(1, 1), settled(2), boundary(3, 2), failure(4, 'SKEIN_TIMEOUT'), boundary(5, 3));
    expect(counts([survivor, fails])).toEqual({ done: 2, lost: 0, sharesDone: 3, sharesLost: 1 });
  });

  test('are lost when nobody got through them', () => {
    const lives = [0, 1].map((index) => life(index, boundary(1, 1), settled(2), boundary(3, 2)));
    const ended = [0, 1].map((index) => end(index, 4, 'SIGKILL', true));
    expect(counts(lives, ended)).toEqual({ done: 1, lost: 1, sharesDone: 2, sharesLost: 2 });
  });

  test('belong to those who take part: who leaves well at a boundary has no share in what follows', () => {
    const leaves = life(1, boundary(1, 1), settled(2), boundary(3, 2));
    expect(counts([leaves], [end(1, 4, 0)])).toEqual({ done: 1, lost: 0, sharesDone: 1, sharesLost: 0 });
    const ends = life(1, boundary(1, 1), settled(2));
    expect(counts([ends], [end(1, 4, 0)])).toEqual({ done: 1, lost: 0, sharesDone: 1, sharesLost: 0 });
  });
});
