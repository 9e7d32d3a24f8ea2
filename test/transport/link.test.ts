import { expect, test } from 'vitest';
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
