import { describe, expect, test } from 'vitest';
import { Link, type LinkEvents } from '../../src/transport/link.ts';
import { type Connection, NO_BINDING } from '../../src/transport/transport.ts';
import { MAX_STRIPES } from '../../src/wire/limits.ts';

const EVENTS: LinkEvents = {
  openSink: () => ({ onFrame: () => null, onPayload: () => null, onFrameEnd: () => null, close: () => {} }),
  takeCarry: () => new Uint8Array(64),
  giveCarry: () => {},
  onUp: () => {},
  onFlushed: () => {},
  onLaneClosed: () => {},
};

/** A connection that does nothing but be closed. */
class Idle implements Connection {
  readonly binding: Uint8Array = NO_BINDING;
  readonly remote = 'idle';
  readonly queuedBytes = 0;
  closed = false;
  handler = { onData: () => {}, onEnd: () => {}, onClose: () => {} };
  write(): void {}
  cork(): void {}
  uncork(): void {}
  pause(): void {}
  resume(): void {}
  end(): void {}
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
