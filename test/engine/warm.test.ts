import { describe, expect, it } from 'vitest';
import { warmMs } from '../../src/engine/warming.ts';
import { MAX_WORLD_SIZE } from '../../src/wire/limits.ts';

describe('the time that a newcomer has for its links', () => {
  it('is the same in small runs, and grows with the peers of large ones', () => {
    expect(warmMs(0)).toBe(warmMs(100));
    expect(warmMs(MAX_WORLD_SIZE)).toBeGreaterThan(2 * warmMs(100));
    expect(warmMs(MAX_WORLD_SIZE)).toBe(2 * warmMs(MAX_WORLD_SIZE / 2));
  });

  it('is never less than what paths through NATs take', () => {
    expect(warmMs(1, 10_000)).toBe(10_000);
    expect(warmMs(MAX_WORLD_SIZE, 10_000)).toBe(warmMs(MAX_WORLD_SIZE));
  });
});
