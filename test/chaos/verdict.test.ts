/** Each invariant, broken by made-up observations: the judge must see it. */
import { describe, expect, test } from 'vitest';
import type { Ended, Life } from '../../src/chaos/observations.ts';
import { type Evidence, judge } from '../../src/chaos/verdict.ts';
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
    ...changes,
  };
}

const kill = {
  fault: { kind: 'kill', victim: 1, at: 2_600, moment: 'now' },
  hit: true,
  at: 2_600,
  until: 2_600,
} as const;

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
