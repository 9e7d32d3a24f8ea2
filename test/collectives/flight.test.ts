import { expect, test } from 'vitest';
import { FlightRecorder } from '../../src/collectives/flight.ts';
import type { Operation } from '../../src/collectives/operation.ts';
import { encodeFlight } from '../../src/engine/flight-dump.ts';
import { TimeoutError } from '../../src/errors.ts';
import { parseFlight } from '../../src/wire/flight.ts';
import { MAX_FLIGHT_BYTES, MAX_FLIGHT_CALLS } from '../../src/wire/limits.ts';
import { called, run } from '../doctor/dumps.ts';

/** As much of a call as is recorded. */
function operation(sequence: number, startedAt: number): Operation {
  const call = { kind: 'allReduce', tag: 'a', dtype: 'f32', count: 8, op: 'sum', codec: 'f32', root: null };
  const made = { call, sequence, startedAt, id: `1:a:${sequence}`, context: { generation: 1 }, retries: 0 };
  const live = { state: 'running', awaits: () => ['p1'], waitsFor: () => 'data from p1', tagState: null };
  return { ...made, ...live } as unknown as Operation; // the recorder reads nothing else
}

test('of a call everything is remembered with its time, also when it has ended; times are told as those of the wall', () => {
  let now = 10;
  const recorder = new FlightRecorder(() => now);
  const entry = recorder.open(operation(5, now));
  now = 20;
  entry.begin(3, 'ring', 4);
  for (const rank of [1, 3]) entry.neighbour(rank, `p${rank}`);
  entry.announced(1);
  now = 30;
  entry.called(3);
  for (const bytes of [100, 50]) {
    entry.sent(1, bytes);
    now += 10;
  }
  entry.received(3, 70);
  now = 60;
  entry.receivedWhole(3);
  entry.sent(2, 1_000); // no neighbour: nobody is told anything wrong
  expect(recorder.tell([entry], 10, 1_000, 'p0')).toMatchObject([{ state: 'running', awaits: ['p1'], endedAt: null }]);
  entry.done();
  now = 70;
  entry.end(null);
  const nothing = { calledAt: null, announcedAt: null, firstSentAt: null, lastSentAt: null, bytesSent: 0 };
  const none = { firstReceivedAt: null, lastReceivedAt: null, bytesReceived: 0 };
  expect(recorder.tell([], 10, 1_000, 'p0')).toEqual([
    {
      ...{ id: '1:a:5', kind: 'allReduce', tag: 'a', sequence: 5, generation: 1, epoch: 3, dtype: 'f32', count: 8 },
      ...{ op: 'sum', codec: 'f32', root: null, algorithm: 'ring', description: '', state: 'committed' },
      ...{ waitsFor: null, awaits: [], worldSize: 4, retries: 0, error: null },
      ...{ calledAt: 1_010, begunAt: 1_020, doneAt: 1_060, endedAt: 1_070 },
      neighbours: [
        {
          peerId: 'p1',
          ...nothing,
          ...none,
          announcedAt: 1_020,
          firstSentAt: 1_030,
          lastSentAt: 1_040,
          bytesSent: 150,
        },
        { peerId: 'p3', ...nothing, calledAt: 1_030, firstReceivedAt: 1_050, lastReceivedAt: 1_060, bytesReceived: 70 },
      ],
    },
  ]);
});

test('the last thousand are kept in order; an open one outlives its place, and entries are used again', () => {
  const recorder = new FlightRecorder(() => 0);
  const open = recorder.open(operation(0, 0));
  const entries = new Set([open]);
  const total = 3 * MAX_FLIGHT_CALLS;
  for (let sequence = 1; sequence <= total; sequence++) {
    const entry = recorder.open(operation(sequence, sequence));
    entries.add(entry);
    entry.end(sequence % 2 === 0 ? null : new TimeoutError('no time'));
  }
  expect(entries.size).toBe(MAX_FLIGHT_CALLS + 1);
  const sequences = (limit: number) => recorder.tell([open], limit, 0, 'p0').map(({ sequence }) => sequence);
  expect(sequences(3)).toEqual([total - 2, total - 1, total, 0]);
  expect(sequences(0)).toEqual([0]);
  expect(sequences(10_000)).toHaveLength(MAX_FLIGHT_CALLS + 1);
  expect(recorder.tell([open], 2, 0, 'p0').map(({ state }) => state)).toEqual(['failed', 'committed', 'running']);
});

test('of many neighbours those that came last are kept when the call has ended', () => {
  let now = 0;
  const recorder = new FlightRecorder(() => now);
  const entry = recorder.open(operation(0, 0));
  entry.begin(1, 'direct', 200);
  for (let rank = 1; rank < 200; rank++) entry.neighbour(rank, `p${rank}`);
  for (let rank = 1; rank < 199; rank++) {
    now = rank === 7 ? 1_000 : rank;
    entry.received(rank, 1);
  }
  entry.end(null);
  const kept = recorder.tell([], 1, 0, 'p0')[0]!.neighbours.map(({ peerId }) => peerId);
  expect(kept).toHaveLength(16);
  // Of the first nothing came at all.
  expect(kept.slice(0, 3)).toEqual(['p199', 'p7', 'p198']);
  const again = recorder.open(operation(1, now));
  again.begin(1, 'direct', 200);
  for (let rank = 1; rank < 200; rank++) again.neighbour(rank, `p${rank}`);
  again.received(150, 9);
  expect(again.tell(0, 'p0').neighbours.find(({ peerId }) => peerId === 'p150')!.bytesReceived).toBe(9);
});

test('a record that is too long is sent without its first calls', () => {
  const long = run(2, () =>
    Array.from({ length: 2_000 }, (_, sequence) => called(sequence, 1, { tag: 'x'.repeat(200) })),
  );
  const bytes = encodeFlight(long[0]!);
  expect(bytes.length).toBeLessThanOrEqual(MAX_FLIGHT_BYTES);
  const read = parseFlight(new TextDecoder().decode(bytes));
  expect(read).toMatchObject({ peerId: 'p0', next: [{ sequence: 2_000 }] });
  if (typeof read === 'string') throw new Error(read);
  expect(read.calls.length).toBeGreaterThan(100);
  expect(read.calls.at(-1)!.sequence).toBe(1_999);
});
