import { describe, expect, test } from 'vitest';
import { Link, type LinkEvents } from '../../src/transport/link.ts';
import { type Connection, type ConnectionHandler, NO_BINDING } from '../../src/transport/transport.ts';
import {
  emptyHeader,
  FRAME_LAST,
  FRAME_PING,
  FRAME_TAKE,
  HEADER_BYTES,
  PING_ANSWERS,
  PING_ASKS,
  PING_SHOWS,
  readHeader,
  writeHeader,
} from '../../src/wire/frame.ts';
import { MAX_STRIPES } from '../../src/wire/limits.ts';

const EVENTS: LinkEvents = {
  openSink: () => ({ onFrame: () => null, onPayload: () => null, onFrameEnd: () => null, close: () => {} }),
  takeCarry: () => new Uint8Array(64),
  giveCarry: () => {},
  onUp: () => {},
  onFlushed: () => {},
  onLaneClosed: () => {},
};

/** A connection that does nothing but be ended and closed, and remember what was written. */
class Idle implements Connection {
  readonly binding: Uint8Array = NO_BINDING;
  readonly remote = 'idle';
  readonly queuedBytes = 0;
  closed = false;
  ended = false;
  readonly written: number[] = [];
  handler = { onData: () => {}, onEnd: () => {}, onClose: () => {} };
  write(head: Uint8Array): void {
    this.written.push(...head);
  }
  cork(): void {}
  uncork(): void {}
  pause(): void {}
  resume(): void {}
  end(): void {
    this.ended = true;
  }
  destroy(): void {
    this.closed = true;
  }
}

test('a peer that dials without end gets no more stripes than a lane may have', () => {
  const link = new Link(EVENTS);
  const dialled = Array.from({ length: MAX_STRIPES + 3 }, () => new Idle());
  for (const connection of dialled) link.accept(connection, 7, new Uint8Array(0));
  expect(dialled.map(({ closed }) => closed)).toEqual(dialled.map((_, index) => index >= MAX_STRIPES));
  expect(link.up).toBe(true);
});

describe('a stripe that falls silent', () => {
  test('is not hidden by the others, on which something comes', () => {
    const link = new Link(EVENTS);
    const [one, other] = [new Idle(), new Idle()];
    link.dialled([one, other], 7);
    const ping = new Uint8Array(HEADER_BYTES);
    writeHeader(new DataView(ping.buffer), 0, { ...emptyHeader(), type: FRAME_PING });
    const comes = (connection: Idle) => (connection.handler as ConnectionHandler).onData(ping); // the link's own by now
    comes(one);
    comes(one);
    expect(link.heard).toBe(0);
    comes(other);
    expect(link.heard).toBe(1);
    comes(other);
    expect(link.heard).toBe(1);
    comes(one);
    expect([link.heard, link.received]).toEqual([2, 5 * HEADER_BYTES]);
    // A new lane goes on counting.
    link.dropInbound(new Error('it was silent'));
    const next = new Idle();
    link.dialled([next], 8);
    comes(next);
    expect(link.heard).toBe(3);
  });

  test('gets signs like all others, of which the first asks or answers', () => {
    const link = new Link(EVENTS);
    const stripes = [new Idle(), new Idle(), new Idle()];
    for (const stripe of stripes) link.accept(stripe, 7, new Uint8Array(0));
    const came = () =>
      stripes.map(({ written }) => {
        const pings = [];
        for (let at = 0; at < written.length; at += HEADER_BYTES) {
          const header = emptyHeader();
          expect(readHeader(new DataView(Uint8Array.from(written).buffer), at, header)).toBeNull();
          expect(header.type).toBe(FRAME_PING);
          pings.push(header.segment);
        }
        return pings;
      });
    link.ask();
    expect(came()).toEqual([[PING_ASKS], [PING_SHOWS], [PING_SHOWS]]);
    link.answer(false);
    expect(came()).toEqual([[PING_ASKS, PING_ANSWERS], [PING_SHOWS], [PING_SHOWS]]);
    link.answer(true);
    link.sign();
    const both = [PING_SHOWS, PING_SHOWS, PING_SHOWS];
    expect(came()).toEqual([[PING_ASKS, PING_ANSWERS, PING_ANSWERS, PING_SHOWS], both, both]);
    expect(link.sent).toBe(10 * HEADER_BYTES);
  });
});

test.each([
  [true, ['outbound']],
  [false, []],
])('a lane that its reader has given up for another is lost, with what was written to it (%j)', (isUsed, told) => {
  const lost: string[] = [];
  const link = new Link({ ...EVENTS, onLaneClosed: (lane) => lost.push(lane) });
  const [half, next] = [new Idle(), new Idle()];
  link.accept(half, 7, new Uint8Array(0));
  if (isUsed) link.send(new Uint8Array(HEADER_BYTES), null, null, true);
  link.accept(next, 8, new Uint8Array(0));
  expect([half.closed, next.closed, link.up]).toEqual([true, false, true]);
  expect(lost).toEqual(told);
});

describe('a lane that is dialled by who writes to it', () => {
  const NOTHING = new Uint8Array(0);

  test('is read by the one who accepts it, unless that one reads already', () => {
    const link = new Link(EVENTS);
    const [one, other, later] = [new Idle(), new Idle(), new Idle()];
    link.acceptReversed(one, 7, NOTHING);
    link.acceptReversed(other, 7, NOTHING);
    expect([link.receives, link.up]).toEqual([true, false]);
    link.acceptReversed(later, 8, NOTHING);
    expect([one.closed, other.closed, later.closed]).toEqual([false, false, true]);
  });

  test('gives way to one that the reader could dial after all, and its owner learns what was lost', () => {
    const lost: string[] = [];
    const link = new Link({ ...EVENTS, onLaneClosed: (lane) => lost.push(lane) });
    const [reversed, dialled] = [new Idle(), new Idle()];
    link.acceptReversed(reversed, 7, NOTHING);
    expect(link.dialled([dialled], 8)).toBe(true);
    expect([reversed.closed, dialled.closed]).toEqual([true, false]);
    expect(lost).toEqual(['inbound']);
  });

  test('is written to by the one who dialled it, unless the other has dialled meanwhile', () => {
    const link = new Link(EVENTS);
    expect(link.dialledReversed([new Idle()], 7)).toBe(true);
    expect([link.receives, link.up]).toEqual([false, true]);
    const late = new Idle();
    expect(link.dialledReversed([late], 8)).toBe(true);
    expect(late.closed).toBe(true);
    const dead = new Idle();
    dead.destroy();
    expect(new Link(EVENTS).dialledReversed([dead], 9)).toBe(false);
  });
});

test('a stripe that comes when its lane has been succeeded is told that nothing comes on it', () => {
  const frame = (type: number) => {
    const bytes = new Uint8Array(HEADER_BYTES);
    writeHeader(new DataView(bytes.buffer), 0, { ...emptyHeader(), type });
    return bytes;
  };
  const link = new Link({ ...EVENTS, takeCarry: () => new Uint8Array(HEADER_BYTES) });
  const [old, successor, late, later] = [new Idle(), new Idle(), new Idle(), new Idle()];
  link.accept(old, 7, new Uint8Array(0));
  link.acceptSuccessor(successor, 8, frame(FRAME_TAKE)); // which came along with the proof
  link.accept(late, 7, new Uint8Array(0));
  link.acceptSuccessor(later, 8, new Uint8Array(0));
  const last = [...frame(FRAME_LAST)];
  expect([old, late].map(({ written, ended }) => [written, ended])).toEqual([
    [last, true],
    [last, true],
  ]);
  link.send(Uint8Array.of(1), null, null, true);
  expect([successor.written, successor.ended, later.ended]).toEqual([[1], false, false]);
});
