import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { Link } from '../../src/transport/link.ts';
import { STRIPE_FLIGHT_BYTES, SustainedRate, stripesFor } from '../../src/transport/stripes.ts';
import { type Connection, NO_BINDING } from '../../src/transport/transport.ts';
import { HEADER_BYTES } from '../../src/wire/frame.ts';
import { MAX_STRIPES } from '../../src/wire/limits.ts';

const NOTHING = new Uint8Array(0);

/** A connection that keeps what it is given. */
class Full implements Connection {
  readonly binding: Uint8Array = NO_BINDING;
  readonly remote = 'full';
  readonly closed = false;
  readonly roundTripMs?: number;
  queuedBytes = 0;
  given = 0;
  handler = { onData: () => {}, onEnd: () => {}, onClose: () => {} };

  constructor(roundTripMs?: number) {
    if (roundTripMs !== undefined) this.roundTripMs = roundTripMs;
  }

  write(head: Uint8Array, body: Uint8Array | null): void {
    this.given += head.length + (body?.length ?? 0);
    this.queuedBytes += head.length + (body?.length ?? 0);
  }
  cork(): void {}
  uncork(): void {}
  pause(): void {}
  resume(): void {}
  end(): void {}
  destroy(): void {}
}

function linkOf(stripes: readonly Connection[]): Link {
  const link = new Link({
    openSink: () => ({ onFrame: () => null, onPayload: () => null, onFrameEnd: () => null, close: () => {} }),
    takeCarry: () => new Uint8Array(HEADER_BYTES),
    giveCarry: () => {},
    onUp: () => {},
    onFlushed: () => {},
    onLaneClosed: () => {},
  });
  for (const stripe of stripes) link.accept(stripe, 7, NOTHING);
  return link;
}

/** Stripes that a way ends up with, whose every connection carries as much as it can, up to what the way does. */
function settled(bytesPerSecond: number, roundTripMs: number, flightOfOne: number): number {
  for (let stripes = 2; ; ) {
    const rate = Math.min(bytesPerSecond, (1_000 * stripes * flightOfOne) / roundTripMs);
    const wanted = stripesFor(rate, roundTripMs, stripes);
    if (wanted === stripes) return stripes;
    expect(wanted).toBeGreaterThan(stripes);
    stripes = wanted;
  }
}

describe('the stripes of a way', () => {
  test.each([
    ['1 Gbit/s, 25 ms', 125e6, 25, 12],
    ['1 Gbit/s, 50 ms', 125e6, 50, MAX_STRIPES],
    ['1 Gbit/s, 0.3 ms', 125e6, 0.3, 2],
    ['10 Gbit/s, 0.1 ms', 1_250e6, 0.1, 2],
    ['100 Mbit/s, 20 ms', 12.5e6, 20, 2],
    ['100 Mbit/s, 100 ms', 12.5e6, 100, 5],
    ['10 Gbit/s, 100 ms', 1_250e6, 100, MAX_STRIPES],
  ])('are as many as its bandwidth-delay product needs: %s', (_, rate, roundTrip, stripes) => {
    expect(settled(rate, roundTrip, 3 * 1024 * 1024)).toBe(stripes);
  });

  test('fill it, wherever a connection keeps more on the way than it is trusted to, or all there may be are in use', () => {
    const way = fc.record({
      rate: fc.double({ min: 1e4, max: 1e10, noNaN: true }),
      roundTripMs: fc.double({ min: 0.01, max: 500, noNaN: true }),
      flightOfOne: fc.double({ min: 1.001 * STRIPE_FLIGHT_BYTES, max: 16 * STRIPE_FLIGHT_BYTES, noNaN: true }),
    });
    fc.assert(
      fc.property(way, ({ rate, roundTripMs, flightOfOne }) => {
        const stripes = settled(rate, roundTripMs, flightOfOne);
        const carried = (1_000 * stripes * flightOfOne) / roundTripMs;
        expect(carried >= rate * 0.999 || stripes === MAX_STRIPES).toBe(true);
        const needed = Math.ceil((rate * roundTripMs) / 1_000 / STRIPE_FLIGHT_BYTES);
        expect(stripes).toBeLessThanOrEqual(Math.max(2, needed));
      }),
    );
  });

  test('are never fewer than there are, nor more than twice as many at once, nor more than a lane may have', () => {
    const count = fc.integer({ min: 1, max: MAX_STRIPES });
    fc.assert(
      fc.property(
        fc.double({ min: 0, max: 1e12, noNaN: true }),
        fc.double({ min: 0, max: 1e4, noNaN: true }),
        count,
        (rate, ms, present) => {
          const wanted = stripesFor(rate, ms, present);
          expect(wanted).toBeGreaterThanOrEqual(present);
          expect(wanted).toBeLessThanOrEqual(Math.min(2 * present, MAX_STRIPES));
        },
      ),
    );
  });
});

describe('the rate of a lane', () => {
  /** Looks every 25 ms at what has gone by; `parts`: for how long (ms), and how many bytes between two looks. */
  function best(...parts: readonly (readonly [number, number])[]): number {
    const rate = new SustainedRate();
    let now = 100;
    let bytes = 5_000;
    for (const [ms, step] of parts) {
      for (const end = now + ms; now < end; now += 25) {
        rate.look(now, bytes);
        bytes += step;
      }
    }
    return rate.best;
  }

  test('is the best that was kept up: idleness says nothing', () => {
    expect(best([2_000, 1_000])).toBeCloseTo(40_000, 5);
    expect(best([2_000, 1_000], [2_000, 0], [2_000, 500])).toBeCloseTo(40_000, 5);
    expect(best([2_000, 1_000], [2_000, 0], [2_000, 1_500])).toBeCloseTo(60_000, 5);
  });

  test('is not what buffers give at once after a pause', () => {
    expect(best([1_000, 1_000], [1_000, 0], [25, 40_000], [2_000, 1_000])).toBeLessThan(41_000);
  });
});

describe('a frame goes to the emptiest stripe', () => {
  const queues = fc.array(fc.integer({ min: 0, max: 4 }), { minLength: 1, maxLength: MAX_STRIPES });

  test('whatever waits on each', () => {
    fc.assert(
      fc.property(queues, fc.array(queues, { maxLength: 10 }), (first, later) => {
        const stripes = first.map(() => new Full());
        const link = linkOf(stripes);
        for (const round of [first, ...later]) {
          for (const [index, stripe] of stripes.entries()) stripe.queuedBytes = (round[index] ?? 0) * HEADER_BYTES;
          const before = stripes.map(({ queuedBytes }) => queuedBytes);
          link.send(new Uint8Array(HEADER_BYTES), null, null, false);
          const chosen = stripes.findIndex(({ queuedBytes }, index) => queuedBytes !== before[index]);
          expect(before[chosen]).toBe(Math.min(...before));
        }
      }),
    );
  });

  test('and to each in its turn where the kernel takes everything at once', () => {
    const stripes = [new Full(), new Full(), new Full()];
    const link = linkOf(stripes);
    for (let frame = 0; frame < 9; frame++) {
      link.send(new Uint8Array(HEADER_BYTES), null, null, false);
      for (const stripe of stripes) stripe.queuedBytes = 0;
    }
    expect(stripes.map(({ given }) => given)).toEqual([3, 3, 3].map((frames) => frames * HEADER_BYTES));
  });

  test('unless it has a place among others: all those go by the first', () => {
    const stripes = [new Full(), new Full(), new Full()];
    const link = linkOf(stripes);
    for (let frame = 0; frame < 5; frame++) link.send(new Uint8Array(HEADER_BYTES), null, null, true);
    expect(stripes.map(({ given }) => given)).toEqual([5 * HEADER_BYTES, 0, 0]);
  });
});

describe('a lane that we have dialled', () => {
  test('tells the shortest round trip of its stripes', () => {
    const link = linkOf([]);
    link.dialled([new Full(51), new Full(), new Full(50.5)], 9);
    expect(link.dialledLane('inbound')).toEqual({ session: 9, stripes: 3, roundTripMs: 50.5, bytes: 0 });
    expect(link.dialledLane('outbound')).toBe(null);
  });

  test('tells none where no stripe does', () => {
    const link = linkOf([]);
    link.dialledReversed([new Full()], 9);
    link.send(new Uint8Array(HEADER_BYTES), null, null, false);
    expect(link.dialledLane('outbound')).toEqual({ session: 9, stripes: 1, roundTripMs: null, bytes: 0 });
  });

  test('is not one that the other has dialled', () => {
    const link = linkOf([new Full(50)]);
    expect([link.dialledLane('inbound'), link.dialledLane('outbound')]).toEqual([null, null]);
  });
});

describe('a stripe that comes late', () => {
  test('is added to its lane, on either side', () => {
    const link = linkOf([new Full()]);
    link.acceptMore('inbound-more', new Full(), 7, NOTHING);
    expect(link.stripes).toBe(2);
  });

  test('of a lane that is gone makes no new one', () => {
    const link = linkOf([new Full()]);
    link.acceptMore('inbound-more', new Full(), 8, NOTHING);
    link.acceptMore('outbound-more', new Full(), 7, NOTHING);
    expect([link.stripes, link.up, link.receives]).toEqual([1, true, false]);
  });

  test('that can not be dialled leaves the lane as it is', async () => {
    const link = linkOf([]);
    link.dialled([new Full()], 9);
    const refused = link.addStripe('inbound', 9, () => Promise.reject(new Error('refused')));
    await expect(refused).rejects.toThrow('refused');
    expect(link.dialledLane('inbound')?.stripes).toBe(1);
    await link.addStripe('inbound', 8, () => Promise.reject(new Error('of another lane, so it is not dialled')));
  });
});
