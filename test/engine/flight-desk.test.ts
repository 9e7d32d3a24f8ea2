import { expect, test } from 'vitest';
import { ANSWER_MS, FlightDesk } from '../../src/engine/flight-desk.ts';
import { FlightInquiry } from '../../src/engine/flight-inquiry.ts';
import { VirtualClock } from '../../src/transport/clock.ts';
import type { CoordinatorMessage } from '../../src/wire/coordinator-messages.ts';
import { MAX_FLIGHT_ASKERS, MAX_FLIGHTS_AT_ONCE } from '../../src/wire/limits.ts';
import { done, run } from '../doctor/dumps.ts';

const SIZE = 40;

function desk(size = SIZE) {
  const clock = new VirtualClock();
  const sent: { to: string; message: CoordinatorMessage }[] = [];
  const away = new Set<string>();
  const ids = ['doctor', 'other', ...Array.from({ length: size }, (_, rank) => `p${rank}`)];
  const made = new FlightDesk({
    clock,
    peers: () => ids,
    isConnected: (peerId) => !away.has(peerId),
    send: (to, message) => void sent.push({ to, message }),
  });
  const take = (type: CoordinatorMessage['type']) => {
    const found = sent.filter(({ message }) => message.type === type);
    for (const one of found) sent.splice(sent.indexOf(one), 1);
    return found;
  };
  const wait = (ms: number) => {
    let isOver = false;
    clock.schedule(ms, () => {
      isOver = true;
    });
    while (!isOver) clock.step();
  };
  const answer = (from: string, to: string) =>
    made.onMessage(from, { type: 'flight', to, dump: new TextEncoder().encode(from) });
  return { made, away, take, wait, answer };
}

test('only so many are asked at once, and each answer goes to the one who asked, once', () => {
  const { made, away, take, answer } = desk();
  away.add('p3');
  made.onMessage('doctor', { type: 'ask-flights', calls: 7 });
  const [asked] = take('flights-asked');
  expect(asked).toMatchObject({ to: 'doctor', message: { absent: ['p3'] } });
  const answered: string[] = [];
  for (let wanted = take('flight-wanted'); wanted.length > 0; wanted = take('flight-wanted')) {
    expect(wanted.length).toBeLessThanOrEqual(MAX_FLIGHTS_AT_ONCE);
    for (const { to, message } of wanted) {
      expect(message).toEqual({ type: 'flight-wanted', by: 'doctor', calls: 7 });
      answer(to, 'doctor');
      answer(to, 'doctor');
      answered.push(to);
    }
  }
  expect(answered).toHaveLength(SIZE); // all but p3, and the other visitor
  expect(take('flight-of').map(({ to, message }) => [to, 'from' in message ? message.from : ''])).toEqual(
    answered.map((from) => ['doctor', from]),
  );
});

test('what nobody asked for goes nowhere; too many askers, and one that asks again meanwhile, get nothing', () => {
  const { made, take, answer } = desk();
  answer('p1', 'p2');
  expect(take('flight-of')).toEqual([]);
  for (let asker = 0; asker < 2 * MAX_FLIGHT_ASKERS; asker++) {
    made.onMessage(`p${asker}`, { type: 'ask-flights', calls: 0 });
    made.onMessage(`p${asker}`, { type: 'ask-flights', calls: 0 });
  }
  expect(take('flights-asked').map(({ to }) => to)).toEqual(['p0', 'p1', 'p2', 'p3']);
  expect(take('flight-wanted')).toHaveLength(MAX_FLIGHT_ASKERS * MAX_FLIGHTS_AT_ONCE);
  // Those who leave make room.
  made.left('p0');
  made.onMessage('p5', { type: 'ask-flights', calls: 0 });
  expect(take('flights-asked')).toHaveLength(1);
});

test('peers that stand still hold up nobody, and an inquiry ends', () => {
  const { made, take, wait } = desk();
  made.onMessage('doctor', { type: 'ask-flights', calls: 0 });
  const asked = new Set<string>();
  for (let turn = 0; turn < 10; turn++) {
    for (const { to } of take('flight-wanted')) asked.add(to);
    wait(ANSWER_MS);
  }
  expect(asked.size).toBe(SIZE + 1);
  made.onMessage('doctor', { type: 'ask-flights', calls: 0 });
  expect(take('flights-asked')).toHaveLength(2);
});

test('who asks believes only what can be read, and of the peer that says it', async () => {
  const clock = new VirtualClock();
  const inquiry = new FlightInquiry(3, clock, 1_000);
  const sent: unknown[] = [];
  inquiry.ask((message) => void sent.push(message));
  expect(sent).toEqual([{ type: 'ask-flights', calls: 3 }]);
  expect(inquiry.flights.unanswered).toBe(true);
  inquiry.onMessage({ type: 'flights-asked', peers: ['p0', 'p1', 'p2', 'p3'], absent: ['p4'] });
  const [own, others] = run(2, () => [done(0, 1)]).map((dump) => new TextEncoder().encode(JSON.stringify(dump)));
  inquiry.onMessage({ type: 'flight-of', from: 'p0', dump: own! });
  inquiry.onMessage({ type: 'flight-of', from: 'p1', dump: own! });
  inquiry.onMessage({ type: 'flight-of', from: 'p2', dump: new Uint8Array([0xff]) });
  inquiry.onMessage({ type: 'flight-of', from: 'stranger', dump: others! });
  let ended = false;
  void inquiry.ended.then(() => {
    ended = true;
  });
  while (clock.step());
  await Promise.resolve();
  expect(ended).toBe(true);
  const { dumps, silent, absent, unreadable, unanswered } = inquiry.flights;
  expect(dumps.map(({ peerId }) => peerId)).toEqual(['p0']);
  expect({ silent, absent, unanswered }).toEqual({ silent: ['p3'], absent: ['p4'], unanswered: false });
  expect(unreadable.map(({ peerId }) => peerId)).toEqual(['p1', 'p2']);
});
