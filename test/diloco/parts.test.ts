/** Pieces of DiLoCo that compute: fragments, step counts, plans, fingerprints. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { type Entry, makePlan, NEWCOMER } from '../../src/diloco/census.ts';
import { fingerprint } from '../../src/diloco/fingerprint.ts';
import { cutIntoFragments, gather, spread } from '../../src/diloco/layout.ts';
import { resolveDiloco } from '../../src/diloco/options.ts';
import { Stopwatch, stepCounts } from '../../src/diloco/pace.ts';
import { ArgumentError } from '../../src/errors.ts';

const anyModel = fc
  .array(fc.integer({ min: 1, max: 30 }), { minLength: 1, maxLength: 8 })
  .map((lengths) => Object.fromEntries(lengths.map((length, at) => [`p${at}`, new Float32Array(length)])));

describe('fragments', () => {
  test.each(['sequential', 'strided'] as const)(
    '%s: every element is in exactly one fragment, and comes back',
    (pattern) => {
      fc.assert(
        fc.property(anyModel, fc.integer({ min: 1, max: 8 }), (parameters, wanted) => {
          const total = Object.values(parameters).reduce((sum, array) => sum + array.length, 0);
          const count = Math.min(wanted, pattern === 'strided' ? Object.keys(parameters).length : total);
          let next = 0;
          for (const array of Object.values(parameters)) for (let at = 0; at < array.length; at++) array[at] = next++;
          const copies = Object.fromEntries(
            Object.entries(parameters).map(([name, array]) => [name, new Float32Array(array.length).fill(-1)]),
          );
          const seen: number[] = [];
          for (const layout of cutIntoFragments(parameters, count, pattern)) {
            const flat = new Float32Array(layout.count);
            gather(parameters, layout, flat);
            seen.push(...flat);
            spread(flat, layout, copies);
          }
          expect(seen.sort((left, right) => left - right)).toEqual(Array.from({ length: total }, (_, at) => at));
          expect(copies).toEqual(parameters);
        }),
      );
    },
  );

  test('sequential fragments differ by one element at most', () => {
    const sizes = cutIntoFragments({ a: new Float32Array(7), b: new Float32Array(95) }, 4, 'sequential').map(
      (layout) => layout.count,
    );
    expect(sizes).toEqual([25, 26, 25, 26]);
  });

  test('strided fragments take every n-th array', () => {
    const parameters = { a: new Float32Array(1), b: new Float32Array(2), c: new Float32Array(3) };
    const names = cutIntoFragments(parameters, 2, 'strided').map(({ pieces }) => pieces.map((piece) => piece.name));
    expect(names).toEqual([['a', 'c'], ['b']]);
  });
});

describe('step counts', () => {
  test('are in proportion to speed, so that unequal peers arrive together', () => {
    expect(stepCounts(100, [10, 10, 20], 1, 1_000)).toEqual([75, 75, 150]);
  });

  test('stay within their bounds', () => {
    expect(stepCounts(100, [1, 10, 100], 50, 150)).toEqual([50, 50, 150]);
  });

  test('a peer whose speed is not known yet counts as one of mean speed', () => {
    expect(stepCounts(100, [0, 10, 30], 1, 1_000)).toEqual([100, 50, 150]);
    expect(stepCounts(100, [0, 0], 1, 1_000)).toEqual([100, 100]);
  });

  test('the watch counts inner steps, and not the waits between them', () => {
    let now = 0;
    const watch = new Stopwatch(() => now);
    for (let step = 0; step < 5; step++) {
      watch.start();
      now += 20;
      watch.stop();
      now += 1_000;
    }
    expect(watch.take()).toBe(50);
    expect(watch.take()).toBe(0);
  });
});

describe('a plan', () => {
  const entry = (changes: Partial<Entry> = {}): Entry => ({
    version: 5,
    hash: 1,
    round: 5,
    samples: 8,
    speed: 0,
    ...changes,
  });
  const plan = (entries: Record<string, Entry>) =>
    makePlan(new Map(Object.entries(entries)), () => ({ every: 10, fewest: 1, most: 100 }));

  test('weighs by samples', () => {
    const { weights, steps } = plan({ a: entry({ speed: 1 }), b: entry({ speed: 3, samples: 4 }) });
    expect([...steps]).toEqual([
      ['a', 5],
      ['b', 15],
    ]);
    expect([...weights]).toEqual([
      ['a', 40],
      ['b', 60],
    ]);
  });

  test('gives newcomers weight zero, and the state of the lowest-ranked old member', () => {
    const { leader, behind, weights } = plan({ a: entry({ version: NEWCOMER }), b: entry(), c: entry() });
    expect(leader).toBe('b');
    expect([...behind]).toEqual(['a']);
    expect([...weights.values()]).toEqual([0, 80, 80]);
  });

  test('counts all where all are new', () => {
    const { behind, weights } = plan({ a: entry({ version: NEWCOMER }), b: entry({ version: NEWCOMER }) });
    expect([behind.size, ...weights.values()]).toEqual([0, 80, 80]);
  });

  test('finds whoever missed a round, or differs by a bit; their steps still count', () => {
    const { leader, behind, weights } = plan({ a: entry({ version: 4 }), b: entry(), c: entry({ hash: 2 }) });
    expect(leader).toBe('b');
    expect([...behind]).toEqual(['a', 'c']);
    expect([...weights.values()]).toEqual([80, 80, 80]);
  });
});

describe('the fingerprint', () => {
  test('changes with every bit', () => {
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 0, max: 0xffffffff }), { minLength: 1, maxLength: 50 }),
        fc.nat(),
        fc.integer({ min: 0, max: 31 }),
        (words, where, bit) => {
          const bits = Uint32Array.from(words);
          const before = fingerprint([new Float32Array(bits.buffer)]);
          bits[where % words.length]! ^= 1 << bit;
          expect(fingerprint([new Float32Array(bits.buffer)])).not.toBe(before);
          expect(Number.isSafeInteger(before)).toBe(true);
        },
      ),
    );
  });

  test('tells 0 from −0, the order of arrays, and where one ends', () => {
    const one = Float32Array.of(1);
    const two = Float32Array.of(2);
    expect(fingerprint([Float32Array.of(0)])).not.toBe(fingerprint([Float32Array.of(-0)]));
    expect(fingerprint([one, two])).not.toBe(fingerprint([two, one]));
    expect(fingerprint([one, two])).not.toBe(fingerprint([Float32Array.of(1, 2)]));
  });
});

describe('eager updates', () => {
  test.each([{ clip: 1 }, { dampening: 0.5 }])('are refused with an outer step that is not linear: %j', (outer) => {
    expect(() => resolveDiloco({ apply: 'eager', outer })).toThrow(ArgumentError);
    expect(() => resolveDiloco({ apply: 'later', outer })).not.toThrow();
  });
});
