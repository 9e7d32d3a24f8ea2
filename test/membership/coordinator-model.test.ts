/**
 * Runs of random events: what the machine promises holds whatever happens, and in whatever order. `World` watches; here is
 * only what may happen.
 */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { type Seat, World } from './world.ts';

/** Things that happen, with their share. */
const SHARES = {
  step: 14,
  hold: 10,
  up: 14,
  down: 14,
  deliverAll: 4,
  pass: 6,
  join: 4,
  ready: 6,
  linkClosed: 3,
  crash: 2,
  leave: 1,
  withdraw: 3,
  mismatch: 1,
  stall: 1,
  impatience: 2,
} as const;

type What = keyof typeof SHARES;

interface Happening {
  readonly what: What;
  readonly who: number;
  readonly whom: number;
  readonly much: number;
}

const MAX_PEERS = 8;

/** The longest makes the coordinator believe that it was asleep, and is longer than a silence it bears. */
const PAUSES_MS = [10, 25, 100, 200, 300, 900, 900, 8_000];

const happening: fc.Arbitrary<Happening> = fc.record({
  what: fc.oneof(
    ...(Object.keys(SHARES) as What[]).map((what) => ({ weight: SHARES[what], arbitrary: fc.constant(what) })),
  ),
  who: fc.nat(MAX_PEERS - 1),
  whom: fc.nat(MAX_PEERS - 1),
  much: fc.nat(7),
});

function happen(world: World, { what, who, whom, much }: Happening): void {
  if (what === 'join') {
    if (world.seats.length < MAX_PEERS) world.join(1 + (much % 3));
    return;
  }
  if (what === 'deliverAll') {
    world.deliverAll();
    return;
  }
  if (what === 'pass') {
    world.pass(PAUSES_MS[much]!);
    return;
  }
  if (world.seats.length === 0) return;
  const seat = world.seats[who % world.seats.length]!;
  const other = world.seats[whom % world.seats.length]!;
  happenTo(world, seat, other, what, much);
}

function happenTo(
  world: World,
  seat: Seat,
  other: Seat,
  what: Exclude<What, 'join' | 'deliverAll' | 'pass'>,
  much: number,
): void {
  const { member } = seat;
  const calls = member.openCalls();
  const call = calls[much % Math.max(1, calls.length)];
  switch (what) {
    case 'step':
      member.step(1 + (much % 3));
      break;
    case 'hold':
      if (call !== undefined) member.hold(call);
      break;
    case 'up':
      world.deliverUp(seat, 1 + much);
      break;
    case 'down':
      world.deliverDown(seat, 1 + much);
      break;
    case 'ready':
      member.ready();
      break;
    case 'linkClosed':
      world.linkClosed(seat, other);
      break;
    case 'crash':
      world.crash(seat, much);
      break;
    case 'leave':
      member.leave();
      break;
    case 'withdraw':
      if (call !== undefined) member.withdraw(call);
      break;
    case 'mismatch':
      if (call !== undefined) member.mismatch(call, other.member.peerId);
      break;
    case 'stall':
      seat.stalled = !seat.stalled;
      break;
    case 'impatience':
      if (member.asking) member.ask(1 + (much % 3));
      break;
  }
}

/** A world in which so many members have formed their first view. */
function begin(members: number): World {
  const world = new World();
  for (let index = 0; index < members; index++) world.join(members);
  world.deliverAll();
  for (const { member } of world.seats) member.ready();
  world.deliverAll();
  return world;
}

const story = fc.tuple(
  fc.integer({ min: 0, max: 4 }),
  fc.array(happening, { minLength: 10, maxLength: 150, size: 'max' }),
);

describe('coordinator under random events', () => {
  test('members agree on every view and every outcome, and everything comes to an end', () => {
    const reached = new Map<string, number>();
    fc.assert(
      fc.property(story, ([members, happenings]) => {
        const world = begin(members);
        for (const one of happenings) happen(world, one);
        world.settle();
        for (const [what, count] of world.counts) reached.set(what, (reached.get(what) ?? 0) + count);
      }),
      { numRuns: 5_000 },
    );
    // Schedules that never come to a decision would prove nothing.
    const wanted = [
      'boundary',
      'loss',
      'repair',
      'decide',
      'decide to commit',
      'commit',
      'fail',
      'evicted',
      'begun again',
      'committed',
    ];
    expect(wanted.filter((what) => (reached.get(what) ?? 0) < 50)).toEqual([]);
  });
});
