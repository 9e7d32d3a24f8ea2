/** What peers tell of themselves, and what a coordinator believes of it. */
import { readdirSync, readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { Report } from '../../src/collectives/call.ts';
import { bucketOf, emptyBuckets, LATENCY_BOUNDS, percentile } from '../../src/eyes/latency.ts';
import { causeOf } from '../../src/eyes/losses.ts';
import { RunWatch } from '../../src/eyes/run-watch.ts';
import { Tally } from '../../src/eyes/tally.ts';
import { Timeline } from '../../src/eyes/timeline.ts';
import type { CoordinatorEffect } from '../../src/membership/events.ts';
import { LATENCY_BUCKETS } from '../../src/wire/limits.ts';
import { packBody, parseBody } from '../../src/wire/messages.ts';
import { type Figures, PEER_MESSAGES } from '../../src/wire/peer-messages.ts';
import { PEER_EXAMPLES } from '../wire/examples.ts';

const QUIET = { open: 0, boundary: 0, roundTripMs: null };

function reported(seconds: number): Report {
  const sizes = { bytesSent: 1_000, bytesReceived: 2_000, seconds, retries: 1 };
  const names = { id: '1:a:0', epoch: 1, worldSize: 2, contributors: [], ranges: [], error: null };
  return { ...names, ...sizes, algorithm: 'ring', codec: 'f32' };
}

describe('latencies', () => {
  test('have as many buckets as one message tells', () => {
    expect(LATENCY_BOUNDS).toHaveLength(LATENCY_BUCKETS - 1);
    expect([...LATENCY_BOUNDS].sort((left, right) => left - right)).toEqual(LATENCY_BOUNDS);
    expect(emptyBuckets()).toHaveLength(LATENCY_BUCKETS);
  });

  test('tell percentiles to within a bucket', () => {
    fc.assert(
      fc.property(
        fc.array(fc.double({ min: 1e-4, max: 99, noNaN: true }), { minLength: 1, maxLength: 200 }),
        fc.constantFrom(0.5, 0.9, 0.99, 1),
        (times, share) => {
          const buckets = emptyBuckets();
          for (const time of times) buckets[bucketOf(time)]! += 1; // one of them
          const exact = [...times].sort((left, right) => left - right)[Math.ceil(share * times.length) - 1]!; // within
          const told = percentile(buckets, share)!; // there are some
          expect(Math.max(told / exact, exact / told)).toBeLessThanOrEqual(1.61);
        },
      ),
    );
    expect(percentile(emptyBuckets(), 0.5)).toBeNull();
    expect(bucketOf(1_000)).toBe(LATENCY_BUCKETS - 1);
  });
});

describe('a peer', () => {
  test('tells what its calls came to once, and again to a coordinator that asks again', () => {
    const tally = new Tally();
    expect(tally.isWatched).toBe(false);
    tally.onSettled('allReduce', reported(0.01));
    tally.watch();
    tally.onSettled('allReduce', null);
    const told = tally.take(1_000, [], QUIET);
    const one = { kind: 'allReduce', failed: 1, retries: 1, sentBytes: 1_000, receivedBytes: 2_000, seconds: 0.01 };
    expect(told?.calls).toEqual([{ ...one, buckets: expect.any(Array) }]);
    expect(told?.calls[0]?.buckets[bucketOf(0.01)]).toBe(1);
    for (let second = 2; second < 9; second++) expect(tally.take(1_000 * second, [], QUIET)).toBeNull();
    tally.onSettled('barrier', reported(0.001));
    expect(tally.take(9_000, [], QUIET)?.calls.map(({ kind }) => kind)).toEqual(['barrier']);
    tally.watch();
    expect(tally.take(10_000, [], QUIET)?.calls.map(({ kind }) => kind)).toEqual(['allReduce', 'barrier']);
  });

  test('tells what its links carry while they do, then once that they do not, and of signs of life nothing', () => {
    const tally = new Tally();
    tally.watch();
    tally.onPath('a', 'tcp');
    let sent = 0;
    const take = (second: number, bytes: number) => {
      sent += bytes;
      return tally.take(1_000 * second, [{ peerId: 'a', sent, received: 3 * sent, queuedBytes: 7 }], QUIET);
    };
    take(0, 0);
    expect(take(1, 5_000_000)).toMatchObject({
      sentPerSecond: 5_000_000,
      receivedPerSecond: 15_000_000,
      queuedBytes: 7,
      flows: [{ peerId: 'a', path: 'tcp', bytesPerSecond: 5_000_000, queuedBytes: 7 }],
    });
    expect(take(2, 5_000_000)).not.toBeNull(); // goes on
    expect(take(3, 100)).toMatchObject({ sentPerSecond: 100 });
    for (let second = 4; second < 9; second++) expect(take(second, 100)).toBeNull();
    tally.onPath('a', 'unix');
    expect(take(9, 0)?.flows).toMatchObject([{ path: 'unix' }]);
  });

  test('tells no more links than a message may name, the busiest of them, and passes its own checks', () => {
    const tally = new Tally();
    tally.watch();
    const links = (second: number) =>
      Array.from({ length: 100 }, (_, index) => {
        tally.onPath(`p${index}`, 'unix');
        return { peerId: `p${index}`, sent: index * 1_000 * second, received: 0, queuedBytes: 0 };
      });
    tally.take(0, links(0), QUIET);
    const told = tally.take(1_000, links(1), QUIET)!; // there is something
    expect(told.flows).toHaveLength(32);
    expect(told.flows[0]).toMatchObject({ peerId: 'p99', bytesPerSecond: 99_000 });
    expect(parseBody(PEER_MESSAGES, packBody({ type: 'figures', ...told })).ok).toBe(true);
  });
});

describe('a message of figures is refused', () => {
  const good = PEER_EXAMPLES.figures;
  const withCalls = (change: object) => ({ ...good, calls: [{ ...good.calls[0], ...change }] });
  const withFlow = (change: object) => ({ ...good, flows: [{ ...good.flows[0], ...change }] });

  test.each<[string, object]>([
    ['that counts less than nothing', withCalls({ failed: -1 })],
    ['that counts halves', withCalls({ retries: 0.5 })],
    ['with more bytes than can be counted', withCalls({ sentBytes: 2 ** 53 })],
    ['with a time that is none', withCalls({ seconds: Number.NaN })],
    ['with an endless time', withCalls({ seconds: Number.POSITIVE_INFINITY })],
    ['with a bucket too few', withCalls({ buckets: [1, 2, 3] })],
    ['with a bucket below 0', withCalls({ buckets: new Array(32).fill(-1) })],
    ['of a kind that there is not', withCalls({ kind: 'everything{le="1"} 1\n' })],
    ['by a path that there is not', withFlow({ path: 'tcp"} 1\n' })],
    ['with a rate below 0', withFlow({ bytesPerSecond: -1 })],
    ['with an endless rate', { ...good, sentPerSecond: Number.POSITIVE_INFINITY }],
    ['with a round trip that is none', { ...good, roundTripMs: Number.NaN }],
    ['of too many links', { ...good, flows: new Array(33).fill(good.flows[0]) }],
    ['of too many kinds', { ...good, calls: new Array(17).fill(good.calls[0]) }],
    ['with something else in it', { ...good, more: 1 }],
  ])('%s', (_, message) => {
    expect(parseBody(PEER_MESSAGES, packBody(good)).ok).toBe(true);
    expect(parseBody(PEER_MESSAGES, packBody(message))).toMatchObject({ ok: false });
  });
});

/** One that `a` and `b` have joined. */
function watchOf(): {
  watch: RunWatch;
  say: (peerId: string, change?: Partial<Figures>, now?: number) => string | null;
} {
  const watch = new RunWatch(() => 5_000);
  const joined = ['a', 'b'].map((peerId, connection): CoordinatorEffect => ({ type: 'assign', connection, peerId }));
  watch.onEffects(joined, 1, 0);
  const { type, ...example } = PEER_EXAMPLES.figures;
  return {
    watch,
    say: (peerId, change = {}, now = 0) => watch.onMessage(peerId, { type, ...example, ...change }, now),
  };
}

describe('a coordinator', () => {
  const one = (done: number, failed = 0) => {
    const buckets = emptyBuckets();
    buckets[5] = done;
    const { kind } = PEER_EXAMPLES.figures.calls[0]!; // there is one
    return { kind, failed, retries: 0, sentBytes: 10 * done, receivedBytes: done, seconds: done / 100, buckets };
  };

  test('adds up what peers have counted, also those that have gone', () => {
    const { watch, say } = watchOf();
    expect(say('a', { calls: [one(3)] })).toBeNull();
    expect(say('b', { calls: [one(2, 1)] })).toBeNull();
    expect(say('a', { calls: [one(7)] })).toBeNull();
    expect(say('a', { calls: [one(7)] })).toBeNull(); // told again
    expect(watch.calls).toMatchObject([{ done: 9, failed: 1, sentBytes: 90 }]);
    watch.onEffects([{ type: 'close', peerId: 'a', reason: 'left' }], 2, 0);
    expect(watch.calls).toMatchObject([{ done: 9 }]);
    expect(watch.figuresOf('a', 0)).toBeNull();
    expect(watch.totals).toMatchObject({ epochs: 2 });
    expect([...watch.totals.losses]).toEqual([['left', 1]]);
  });

  test('believes no peer that counts backwards or twice, and keeps what it knew', () => {
    const { watch, say } = watchOf();
    say('a', { calls: [one(5)] });
    expect(say('a', { calls: [one(4)] })).toMatch(/smaller than before/);
    expect(say('a', { calls: [{ ...one(5), sentBytes: 0 }] })).toMatch(/smaller than before/);
    expect(say('a', { calls: [one(6), one(7)] })).toMatch(/twice/);
    const huge = { ...one(5), buckets: new Array<number>(LATENCY_BUCKETS).fill(Number.MAX_SAFE_INTEGER) };
    expect(say('a', { calls: [huge] })).toMatch(/too large/);
    expect(watch.calls).toMatchObject([{ done: 5 }]);
  });

  test('takes rates for 0 when a peer has said nothing for a while, and keeps nothing of who is not here', () => {
    const { watch, say } = watchOf();
    say('a', { sentPerSecond: 5 }, 1_000);
    expect(watch.figuresOf('a', 2_000)?.sentPerSecond).toBe(5);
    expect(watch.figuresOf('a', 9_000)).toMatchObject({ sentPerSecond: 0, flows: [{ bytesPerSecond: 0 }] });
    const wait = { receiveMs: 700, sendMs: 0, calls: [] };
    watch.onMessage('a', { type: 'waits', waits: ['a', 'b', 'nobody'].map((peerId) => ({ peerId, ...wait })) }, 0);
    expect(['a', 'b', 'nobody'].map((peerId) => watch.lagOf(peerId, 100))).toEqual([0, 700, 0]);
    expect(watch.lagOf('b', 5_000)).toBe(0);
  });

  test('has a cause for each reason that its machine gives', () => {
    const folder = new URL('../../src/membership/', import.meta.url);
    const source = readdirSync(folder)
      .map((file) => readFileSync(new URL(file, folder), 'utf8'))
      .join('\n');
    const reasons = [...source.matchAll(/\breason[:=] ?(['`])((?:(?!\1).)+)\1/g)].map((match) => match[2]!);
    const others = [...source.matchAll(/const reason = (['`])((?:(?!\1).)+)\1/g)].map((match) => match[2]!);
    expect(reasons.length + others.length).toBeGreaterThan(10);
    expect([...reasons, ...others].filter((reason) => causeOf(reason) === 'other')).toEqual([]);
    expect(causeOf('something new')).toBe('other');
  });
});

test('a timeline keeps the last, and what repeats only now and then', () => {
  const timeline = new Timeline();
  const base = { peerId: 'a', text: '', epoch: 1 };
  for (let at = 0; at < 5_000; at++) timeline.add({ ...base, kind: 'abort', at });
  expect(timeline.happenings.map(({ at }) => at)).toEqual([0, 1_000, 2_000, 3_000, 4_000]);
  for (let at = 0; at < 1_000; at++) timeline.add({ ...base, kind: 'join', at });
  expect(timeline.happenings).toHaveLength(256);
  expect(timeline.last).toBe(1_005);
  expect(timeline.since(1_003).map(({ number }) => number)).toEqual([1_004, 1_005]);
  const second = { members: 1, bytesPerSecond: 0, committed: 0, p50: null, p99: null };
  for (let at = 0; at < 2_000; at++) timeline.addSecond({ at, ...second });
  expect(timeline.seconds).toHaveLength(600);
});
