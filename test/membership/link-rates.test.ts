import { describe, expect, test } from 'vitest';
import { type FlowSight, LinkRates } from '../../src/membership/link-rates.ts';
import { MAX_TOLD_LINKS } from '../../src/wire/limits.ts';

const TICK_MS = 25;
const WAITING = 300_000;

/** Links on which bytes leave at these rates (bytes per ms) while so many wait. */
class Flows {
  readonly rates: LinkRates = new LinkRates();
  now = 0;
  readonly #sent: Map<string, number> = new Map();

  pass(ms: number, flows: Readonly<Record<string, { rate: number; queued?: number }>>, everyMs = TICK_MS): void {
    for (const end = this.now + ms; this.now < end; ) {
      this.now += everyMs;
      const sights: FlowSight[] = Object.entries(flows).map(([peerId, { rate, queued = WAITING }]) => {
        const left = (this.#sent.get(peerId) ?? 0) + rate * everyMs;
        this.#sent.set(peerId, left);
        return { peerId, sent: left + queued, queued };
      });
      this.rates.look(this.now, sights);
    }
  }
}

describe('the rate of a way', () => {
  test('is what leaves while bytes wait all the time', () => {
    const flows = new Flows();
    flows.pass(1_000, { a: { rate: 5_000 } });
    expect(flows.rates.take(flows.now)).toEqual([{ peerId: 'a', bytesPerSecond: 5_000_000, delayMs: null }]);
    flows.pass(1_000, { a: { rate: 5_100 } });
    expect(flows.rates.take(flows.now)).toEqual([]); // no news
    flows.pass(1_000, { a: { rate: 2_000 } });
    expect(flows.rates.take(flows.now)[0]!.bytesPerSecond).toBeCloseTo(2e6, -4);
  });

  test('is not known of a link on which little waits, of several at once, after a short burst, and after a pause', () => {
    const flows = new Flows();
    flows.pass(1_000, { a: { rate: 5_000, queued: 1_000 } });
    flows.pass(1_000, { a: { rate: 5_000 }, b: { rate: 1_000 } });
    flows.pass(150, { a: { rate: 5_000 } });
    flows.pass(1_000, { a: { rate: 5_000 } }, 500);
    expect(flows.rates.take(flows.now)).toEqual([]);
    expect(flows.rates.of('a')).toEqual({ bytesPerSecond: null, delayMs: null });
    expect(flows.rates.of('nobody')).toBeNull();
  });

  test('is forgotten with the link, and told again to whoever may have forgotten', () => {
    const flows = new Flows();
    flows.pass(1_000, { a: { rate: 5_000 }, b: { rate: 0, queued: 0 } });
    const told = flows.rates.take(flows.now);
    expect(told).toHaveLength(1);
    flows.rates.tellAgain();
    expect(flows.rates.take(flows.now)).toEqual(told);
    flows.pass(TICK_MS, { b: { rate: 0 } });
    flows.rates.tellAgain();
    expect(flows.rates.take(flows.now)).toEqual([]);
  });
});

test('the delay of a way is half of the shortest of the last round trips', () => {
  const flows = new Flows();
  flows.pass(TICK_MS, { a: { rate: 0 } });
  for (const took of [80, 40, 90]) {
    flows.rates.onAsked('a', 1_000);
    flows.rates.onAnswered('a', 1_000 + took);
  }
  expect(flows.rates.take(2_000)).toEqual([{ peerId: 'a', bytesPerSecond: null, delayMs: 20 }]);
  // Answers come in the order of the questions; those that were lost with a connection never come.
  flows.rates.onAsked('a', 3_000);
  flows.rates.onClosed('a');
  flows.rates.onAsked('a', 5_000);
  flows.rates.onAnswered('a', 5_010);
  flows.rates.onAnswered('a', 5_010);
  expect(flows.rates.of('a')).toEqual({ bytesPerSecond: null, delayMs: 5 });
});

test('no message tells of more ways than one may', () => {
  const flows = new Flows();
  const ids = Array.from({ length: MAX_TOLD_LINKS + 5 }, (_, index) => `p${index}`);
  flows.pass(TICK_MS, Object.fromEntries(ids.map((peerId) => [peerId, { rate: 0 }])));
  for (const peerId of ids) flows.rates.onProbed(peerId, 1_000);
  expect(flows.rates.take(flows.now)).toHaveLength(MAX_TOLD_LINKS);
  expect(flows.rates.take(flows.now)).toHaveLength(5);
});
