import { describe, expect, test } from 'vitest';
import { Paths } from '../../src/membership/paths.ts';

const BOUND = 1_000;

/** One link, looked at again and again. */
class Watched {
  readonly #paths = new Paths(BOUND);
  heard = 0;
  up = true;
  awaited = true;
  asleep = false;

  /** What is told at each of these times. */
  look(...times: readonly number[]): (string | null)[] {
    return times.map((now) => {
      const link = { peerId: 'b', up: this.up, heard: this.heard };
      const { changed, silent } = this.#paths.look(now, [link], new Set(this.awaited ? ['b'] : []), this.asleep);
      const words = [...changed.map(({ open }) => (open ? 'open' : 'cut')), ...silent.map(() => 'silent')];
      return words.length === 0 ? null : words.join(' ');
    });
  }

  get cuts(): readonly string[] {
    return this.#paths.cuts;
  }
}

describe('a way to a peer', () => {
  test('is cut when its lanes have been down for half the bound, and told once', () => {
    const link = new Watched();
    link.look(0);
    link.up = false;
    expect(link.look(10, 500, 509, 510, 2_000)).toEqual([null, null, null, 'cut', null]);
    expect(link.cuts).toEqual(['b']);
  });

  test('is cut when nothing has arrived for the bound, of which the lanes know nothing', () => {
    const link = new Watched();
    expect(link.look(0, 999)).toEqual([null, null]);
    link.heard = 40;
    expect(link.look(1_000, 1_999, 2_000)).toEqual([null, null, 'cut silent']);
  });

  test('may be silent when nothing is expected of the peer, or when this process stood still', () => {
    const link = new Watched();
    link.awaited = false;
    expect(link.look(0, 5_000)).toEqual([null, null]);
    link.awaited = true;
    link.asleep = true;
    expect(link.look(10_000)).toEqual([null]);
    link.asleep = false;
    expect(link.look(10_999, 11_000)).toEqual([null, 'cut silent']);
  });

  test('is open again only after a while: one that comes and goes is none', () => {
    const link = new Watched();
    link.up = false;
    link.look(0, 500);
    link.up = true;
    link.heard += 1;
    expect(link.look(600, 1_500)).toEqual([null, null]);
    link.up = false;
    link.look(1_510);
    link.up = true;
    link.heard += 1;
    expect(link.look(1_520)).toEqual([null]);
    link.heard += 1;
    expect(link.look(2_400)).toEqual([null]);
    expect(link.look(2_520)).toEqual(['open']);
    expect(link.cuts).toEqual([]);
  });

  test('to a peer that is gone is forgotten', () => {
    const paths = new Paths(BOUND);
    const down = { peerId: 'b', up: false, heard: 0 };
    paths.look(0, [down], new Set(), false);
    paths.look(600, [down], new Set(), false);
    expect(paths.cuts).toEqual(['b']);
    paths.look(700, [], new Set(), false);
    expect(paths.cuts).toEqual([]);
  });
});
