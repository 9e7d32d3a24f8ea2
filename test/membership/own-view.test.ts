/** What a member makes of what the coordinator tells it of the view. */
import { describe, expect, test } from 'vitest';
import { UNMEASURED } from '../../src/costs.ts';
import { OwnView } from '../../src/membership/own-view.ts';
import type { Pair } from '../../src/membership/ways.ts';
import type { WireView } from '../../src/wire/parts.ts';

function view(generation: number, members: string): WireView {
  return {
    generation,
    epoch: generation,
    boundary: generation,
    members: [...members].map((peerId, place) => ({ peerId, site: '', place })),
    cuts: [],
    costs: UNMEASURED,
  };
}

function loss(epoch: number, lost: string, broken: Pair | null = null, cuts: readonly Pair[] = []) {
  return {
    type: 'loss' as const,
    epoch,
    lost: [...lost].map((peerId) => ({ peerId, reason: '' })),
    broken: broken === null ? null : ([...broken] as [string, string]),
    cuts: cuts.map(([one, other]): [string, string] => [one, other]),
    resumed: false,
  };
}

const letters = (one: WireView | null | undefined) => one?.members.map(({ peerId }) => peerId).join('');

describe('the view of a member', () => {
  test('is refused where no program could be made of it', () => {
    const own = new OwnView('a');
    expect(own.refusal(view(1, 'bc'))).toMatch(/without this peer/);
    expect(own.refusal(view(1, 'abb'))).toMatch(/the same member twice/);
    expect(own.refusal(view(1, 'ab'))).toBeNull();
    own.install(view(1, 'ab'));
    expect(own.refusal(view(1, 'abc'))).toMatch(/not new/);
  });

  test('shrinks by the lost, who are told of once', () => {
    const own = new OwnView('a');
    own.install(view(1, 'abcd'));
    own.onLoss(loss(2, 'c'));
    own.onLoss(loss(3, 'd'));
    expect([letters(own.current), own.epoch, own.lossEpoch]).toEqual(['ab', 3, 3]);
    expect([own.includes('b'), own.includes('c')]).toEqual([true, false]);
    expect(own.takeLeft()).toEqual(['c', 'd']);
    expect(own.takeLeft()).toEqual([]);
  });

  test('keeps the epoch of a later loss when it comes late to a boundary, and reports the view as it was made', () => {
    const own = new OwnView('a');
    own.install(view(1, 'ab'));
    own.onLoss(loss(5, 'b'));
    expect(own.install(view(3, 'ac'))).toBe(5);
    expect(own.history.map((one) => [one.generation, one.epoch, letters(one)])).toEqual([
      [1, 5, 'a'],
      [3, 3, 'ac'],
    ]);
  });

  test('names the peer to which its way is cut, once for each time', () => {
    const own = new OwnView('b');
    own.install(view(1, 'abc'));
    const cut: Pair = ['a', 'b'];
    expect(own.onLoss(loss(2, '', cut))).toBeNull(); // only closed
    expect(own.onLoss(loss(3, '', cut, [cut]))).toBe('a');
    expect(own.onLoss(loss(4, '', cut, [cut]))).toBeNull();
    expect(own.onLoss(loss(5, '', ['a', 'c'], [['a', 'c']]))).toBeNull(); // of others
    expect(own.onLoss(loss(6, '', cut, [cut]))).toBe('a'); // it was open in between
  });
});
