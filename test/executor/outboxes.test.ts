import { describe, expect, test } from 'vitest';
import { Outboxes } from '../../src/collectives/outboxes.ts';
import type { Algorithm, Rank } from '../../src/collectives/program.ts';

/** Peers 1 and 2, whose links take so many segments more. */
function peers(algorithm: Algorithm) {
  const room = new Map<Rank, number>();
  const sent: string[] = [];
  const stuck = new Set<number>();
  const port = (rank: Rank) => ({
    get writable() {
      return (room.get(rank) ?? 0) > 0;
    },
    send: () => undefined,
  });
  const outboxes = new Outboxes({ port, plan: { algorithm, chunks: [] }, op: 'sum' }, (rank, _, segment) => {
    if (stuck.has(segment)) return false;
    room.set(rank, room.get(rank)! - 1);
    sent.push(`${segment} → ${rank}`);
    return true;
  });
  for (const rank of [1, 2]) for (let index = 0; index < 4; index++) outboxes.begin(rank, 10 * rank + index);
  /** Gives links room, and tells what was sent. */
  const pump = (more: Readonly<Record<Rank, number>>): string[] => {
    for (const [rank, segments] of Object.entries(more)) room.set(Number(rank), segments);
    outboxes.pump();
    return sent.splice(0);
  };
  return { outboxes, pump, stuck };
}

test('what has arrived goes on before anything new is begun', () => {
  const { outboxes, pump } = peers('ring');
  expect(pump({ 1: 1 })).toEqual(['10 → 1']);
  outboxes.forward(1, 30);
  outboxes.forward(1, 31);
  expect(pump({ 1: 3 })).toEqual(['30 → 1', '31 → 1', '11 → 1']);
});

test('what had to wait for a slot is sent before anything new, and nothing overtakes it', () => {
  const { pump, stuck } = peers('ring');
  stuck.add(10);
  expect(pump({ 1: 4 })).toEqual([]);
  stuck.clear();
  expect(pump({ 1: 4 })).toEqual(['10 → 1', '11 → 1', '12 → 1', '13 → 1']);
});

describe('a link that takes nothing', () => {
  test('holds nobody up in a ring', () => {
    expect(peers('ring').pump({ 1: 4 })).toEqual(['10 → 1', '11 → 1', '12 → 1', '13 → 1']);
  });

  test('keeps others from getting more than two segments ahead, where each peer adds up a chunk', () => {
    const { pump } = peers('direct');
    expect(pump({ 1: 4 })).toEqual(['10 → 1', '11 → 1']);
    expect(pump({ 2: 1 })).toEqual(['20 → 2', '12 → 1']);
    expect(pump({ 2: 9 })).toEqual(['21 → 2', '22 → 2', '23 → 2', '13 → 1']);
  });
});
