/** Each invariant, broken by made-up observations: the judge must see it. */
import { describe, expect, test } from 'vitest';
import type { Life } from '../../src/chaos/observations.ts';
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
  const rest = { algorithm: 'ring', codec: 'f32', bytesSent: 0, bytesReceived: 0, seconds: 0 } as const;
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
  return { lives, inflicted: [], ended: [], from: 0, calmFrom: 8_000, to: 10_000, blameMs: 1_000, ...changes };
}

const kill = { fault: { kind: 'kill', victim: 1 }, at: 2_600, until: 2_600 } as const;

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
    ['exit: peer 1 ended with 1', { ended: [{ index: 1, at: 5_000, how: 1 }] }],
    ['exit: peer 0 ended with 1', { ended: [{ index: 0, at: 3_000, how: 1 }], inflicted: [kill] }],
    ['exit: peer 1 ended with 1', { ended: [{ index: 1, at: 6_000, how: 1 }], inflicted: [kill] }],
    ['parity', { lives: [life(0, settled(9_000, { id: 'x' })), life(1, settled(9_000, { id: 'x', hash: 'other' }))] }],
  ])('says: %s', (text, changes) => {
    expect(judge(evidence(changes)).broken.join('\n')).toContain(text);
  });

  test('excuses a victim that fails soon after, and a process that has done its work', () => {
    const ended = [{ index: 1, at: 3_500, how: 'SIGKILL' }];
    expect(judge(evidence({ ended, inflicted: [kill] })).broken).toEqual([]);
    const done = [steady(0), life(1, settled(7_000))];
    expect(judge(evidence({ lives: done, ended: [{ index: 1, at: 7_100, how: 0 }] })).broken).toEqual([]);
  });

  test('measures the longest pause of those who were not hit', () => {
    const lives = [life(0, settled(2_500), settled(4_000), settled(4_100), settled(9_000)), life(1, settled(9_000))];
    const [first] = judge(evidence({ lives, inflicted: [kill, { ...kill, at: 4_050, until: 4_050 }] })).recoveries;
    expect(first?.pauseMs).toBe(1_400);
  });

  test('counts what was begun anew and what failed', () => {
    const failure: ObservedLine = { at: 5, type: 'failed', code: 'SKEIN_TIMEOUT', message: '' };
    const lives = [life(0, settled(9_000, { retries: 1 }), failure), life(1, settled(9_000, { retries: 1 }))];
    expect(judge(evidence({ lives }))).toMatchObject({ redone: 1, collectives: 1, failed: { SKEIN_TIMEOUT: 1 } });
  });
});
