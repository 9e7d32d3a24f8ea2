import { describe, expect, test } from 'vitest';
import { findCulprits, type Verdict } from '../../src/doctor/verdicts.ts';
import type { FlightDump } from '../../src/wire/flight.ts';
import { parseFlight } from '../../src/wire/flight.ts';
import { called, done, failed, linkTo, NOW, run } from './dumps.ts';

const PATIENCE_MS = 5_000;

function only(verdicts: readonly Verdict[]): Verdict {
  expect(verdicts.map(({ text }) => text)).toHaveLength(1);
  return verdicts[0]!;
}

const verdictOf = (dumps: readonly FlightDump[]) => only(findCulprits({ dumps }, PATIENCE_MS));

describe('a member that did not call', () => {
  const dumps = run(4, (rank) =>
    rank === 3
      ? [done(811, 41.5, { kind: 'broadcast' })]
      : [done(811, 41.5, { kind: 'broadcast' }), called(812, 41, { awaits: ['p3'] })],
  );

  test('is named, with who waits, since when, and what it did last', () => {
    expect(verdictOf(dumps)).toEqual({
      kind: 'never-entered',
      culprits: ['p3'],
      call: '3:grad:812',
      text: 'rank 3 (p3) never entered all-reduce #812 (tag "grad"); ranks 0–2 wait for it since 41 s; its last call was broadcast #811 (tag "grad"), done 41 s ago',
    });
  });

  test('is named once, however many calls wait for it, and as being behind', () => {
    const more = dumps.map((dump) =>
      dump.peerId === 'p3' ? dump : { ...dump, calls: [...dump.calls, called(813, 40), called(814, 39)] },
    );
    const verdict = verdictOf(more);
    expect(verdict).toMatchObject({ kind: 'behind', culprits: ['p3'], call: '3:grad:812' });
    expect(verdict.text).toMatch(/^desynchronised: rank 3 \(p3\) is 3 calls behind under tag "grad"/);
  });

  test('and does not answer stands still; one that is away is away; one of which nothing is known may be anything', () => {
    const rest = dumps.filter(({ peerId }) => peerId !== 'p3');
    const kinds = [{ silent: ['p3'] }, { absent: ['p3'] }, {}].map(
      (more) => only(findCulprits({ dumps: rest, ...more }, PATIENCE_MS)).kind,
    );
    expect(kinds).toEqual(['silent', 'absent', 'unknown']);
  });

  test('is not blamed by a record that it wrote before', () => {
    const early = dumps.map((dump) => (dump.peerId === 'p3' ? { ...dump, takenAt: NOW - 100_000 } : dump));
    expect(verdictOf(early)).toMatchObject({ kind: 'unknown', culprits: ['p3'] });
  });

  test('and has not come to the boundary is behind', () => {
    const late = dumps.map((dump) => (dump.peerId === 'p3' ? { ...dump, generation: 2, boundary: 6 } : dump));
    const verdict = verdictOf(late);
    expect(verdict).toMatchObject({ kind: 'behind', culprits: ['p3'] });
    expect(verdict.text).toContain('has passed boundary 6, the others boundary 7');
  });

  test('is named when the call has failed on the others for that', () => {
    const over = dumps.map((dump) =>
      dump.peerId === 'p3'
        ? dump
        : { ...dump, calls: [failed(812, 41, dump.peerId === 'p0' ? 'SKEIN_TIMEOUT' : 'SKEIN_WITHDRAWN', 'no time')] },
    );
    expect(verdictOf(over)).toMatchObject({ kind: 'never-entered', culprits: ['p3'] });
    // A call that succeeds afterwards shows that it is over.
    const healed = over.map((dump) => ({ ...dump, calls: [...dump.calls, done(813, 0.5)] }));
    expect(findCulprits({ dumps: healed }, PATIENCE_MS)).toEqual([]);
  });
});

test('a run that works, and calls that are young, are no reason to worry', () => {
  const young = run(4, (rank) => (rank === 3 ? [done(5, 2)] : [done(5, 2), called(6, 1)]));
  expect(findCulprits({ dumps: young }, PATIENCE_MS)).toEqual([]);
  expect(findCulprits({ dumps: [] }, PATIENCE_MS)).toEqual([]);
  expect(only(findCulprits({ dumps: young }, 500)).culprits).toEqual(['p3']);
});

describe('calls that do not go together', () => {
  test('of another size: the one that differs', () => {
    const dumps = run(3, (rank) => [
      failed(57, 1, 'SKEIN_MISMATCH', 'called differently', { tag: '', count: rank === 2 ? 1_024 : 2_048 }),
    ]);
    expect(verdictOf(dumps)).toEqual({
      kind: 'mismatch',
      culprits: ['p2'],
      call: '3::57',
      text: 'rank 2 (p2) called all-reduce #57 with 1,024 f32, the others with 2,048 f32',
    });
  });

  test('of two, each says something else: both', () => {
    const verdict = verdictOf(run(2, (rank) => [called(0, 10, { op: rank === 0 ? 'sum' : 'max' })]));
    expect(verdict.culprits.toSorted()).toEqual(['p0', 'p1']);
    expect(verdict.text).toBe('rank 1 (p1) called all-reduce #0 (tag "grad") with op max, rank 0 (p0) with op sum');
  });

  test('in another order, or under other tags: those who are fewer, once', () => {
    const dumps = run(3, (rank) => [called(0, 20, { tag: rank === 2 ? 'b' : 'a' })]);
    const verdict = verdictOf(dumps);
    expect(verdict).toMatchObject({ kind: 'order', culprits: ['p2'] });
    expect(verdict.text).toContain(
      'rank 2 (p2) waits in all-reduce #0 (tag "b"), ranks 0 and 1 wait in all-reduce #0 (tag "a")',
    );
  });

  test('one that is in an older call that others wait for, too, is only late', () => {
    // p2 streams #4 and has not filled it; p0 and p1 have made #5 as well.
    const dumps = run(3, (rank) =>
      rank === 2 ? [called(4, 30, { awaits: ['p2'] })] : [called(4, 30, { awaits: ['p2'] }), called(5, 29)],
    );
    const kinds = findCulprits({ dumps }, PATIENCE_MS).map(({ kind, culprits }) => [kind, culprits]);
    expect(kinds).toEqual([
      ['stream', ['p2']],
      ['never-entered', ['p2']],
    ]);
  });
});

describe('a way that is dead', () => {
  const entered = (size: number) => run(size, () => [called(3, 12, { awaits: ['p0'] })]);
  const withLink = (dumps: FlightDump[], at: string, to: string, rest: Parameters<typeof linkTo>[1]) =>
    dumps.map((dump) =>
      dump.peerId === at
        ? { ...dump, links: dump.links.map((link) => (link.peerId === to ? linkTo(to, rest) : link)) }
        : dump,
    );

  test('is named by both its ends, with the direction in which nothing comes', () => {
    expect(verdictOf(withLink(entered(4), 'p1', 'p3', { silentMs: 12_000 }))).toMatchObject({
      kind: 'cut',
      culprits: ['p1', 'p3'],
      text: 'nothing arrives from rank 3 (p3) at rank 1 (p1) since 12 s, while both are in touch with the coordinator: the link is cut',
    });
    const mutual = withLink(withLink(entered(2), 'p0', 'p1', { cut: true }), 'p1', 'p0', {
      silentMs: 9_000,
      cut: true,
    });
    expect(verdictOf(mutual).text).toContain('nothing passes between rank 0 (p0) and rank 1 (p1)');
  });

  test('one that nobody can reach is to blame alone', () => {
    let dumps = entered(4);
    for (const other of ['p0', 'p1', 'p3']) dumps = withLink(dumps, other, 'p2', { silentMs: 8_000, cut: true });
    const verdict = verdictOf(dumps);
    expect(verdict).toMatchObject({ kind: 'cut', culprits: ['p2'] });
    expect(verdict.text).toContain('rank 2 (p2) is cut off');
  });

  test('a silence below the bound is none', () => {
    const { kind } = verdictOf(withLink(entered(4), 'p1', 'p3', { silentMs: 2_000 }));
    expect(kind).not.toBe('cut');
  });
});

describe('all have called', () => {
  test('and hold the result: the coordinator', () => {
    const verdict = verdictOf(run(3, () => [called(3, 12, { state: 'held' })]));
    expect(verdict).toMatchObject({ kind: 'coordinator', culprits: [] });
  });

  test('and one waits for nobody, but is waited for: that one is slow', () => {
    const dumps = run(3, (rank) => [called(3, 12, { awaits: rank === 1 ? [] : ['p1'] })]);
    expect(verdictOf(dumps)).toMatchObject({ kind: 'slow', culprits: ['p1'] });
  });

  test('and too few are left: more are needed', () => {
    const dumps = run(2, () => [called(3, 12, { state: 'waiting', waitsFor: '3 members' })]);
    expect(verdictOf(dumps)).toMatchObject({ kind: 'quorum', culprits: [] });
  });
});

test('peers that have lost the coordinator say so, whatever they do', () => {
  const dumps = run(3, () => [done(3, 12)]).map((dump, rank) =>
    rank === 1 ? { ...dump, coordinator: { connected: false, silentMs: 7_000 } } : dump,
  );
  expect(verdictOf(dumps)).toMatchObject({ kind: 'coordinator', culprits: ['p1'] });
});

test('records are read back as they were written, and what is none is refused in a line', () => {
  const [dump] = run(2, () => [called(3, 12)]);
  expect(parseFlight(JSON.stringify(dump))).toEqual(dump);
  for (const wrong of [
    '',
    '[]',
    'null',
    '{"version":2}',
    JSON.stringify({ ...dump, calls: [{}] }),
    '['.repeat(100_000),
  ])
    expect(parseFlight(wrong)).toMatch(/^it is /);
  const huge = { ...dump, members: Array.from({ length: 2_000 }, () => 'p') };
  expect(parseFlight(JSON.stringify(huge))).toMatch(/members/);
});
