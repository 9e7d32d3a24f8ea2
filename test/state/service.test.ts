/** Fetching from peers that die, lie, tear and go on, in virtual time. */
import { createHash } from 'node:crypto';
import { describe, expect, onTestFinished, test, vi } from 'vitest';
import type { Holding } from '../../src/state/asks.ts';
import { answerFrame, askFrame, MAX_ASKS, PIECES, SPARE_PIECES, SUMMARY, TABLE } from '../../src/state/exchange.ts';
import { type EntryShape, wireName } from '../../src/state/layout.ts';
import { Replica } from '../../src/state/replica.ts';
import { hashTag } from '../../src/wire/frame.ts';
import { Circle, type Peer } from './circle.ts';

const MIB = 1024 * 1024;
const SHAPES: readonly EntryShape[] = [
  { name: 'a', type: 'f32', bytes: 6 * MIB + 64 },
  { name: 'b', type: 'f32', bytes: 256 },
  { name: 'c', type: 'f32', bytes: 3 * MIB },
];
const BYTES = 9 * MIB + 320;

const NEW = (entry: number, at: number) => entry * 1_000_003 + at;
const OLD = (entry: number, at: number) => entry * 1_000_003 + at + (at % 300_000 === 0 ? 7 : 0);
const ZERO = () => 0;

/** Peers h0, h1… that hold NEW, of revision 5, and have been through a sync. */
async function holders(circle: Circle, count: number): Promise<{ peers: Peer[]; holding: Holding }> {
  const peers: Peer[] = [];
  let holding: Holding | null = null;
  for (let index = 0; index < count; index++) {
    const peer = await circle.add(`h${index}`);
    circle.attach(peer, SHAPES, 5, NEW);
    holding = await begin(circle, peer, 5);
    peers.push(peer);
  }
  return { peers, holding: holding! };
}

function begin(
  circle: Circle,
  { service }: Peer,
  revision: number,
  changed: readonly string[] | null = null,
): Promise<Holding> {
  return circle.drive(service.ask({ type: 'begin', tag: '', revision, changed })) as Promise<Holding>;
}

function fetching(circle: Circle, { service }: Peer, { hash }: Holding, from: readonly Peer[], timeoutMs = 60_000) {
  const ids = from.map(({ id }) => id);
  return circle.drive(
    service.ask({ type: 'fetch', tag: '', revision: 5, hash, holders: ids, timeoutMs }),
  ) as Promise<Holding>;
}

function settle(circle: Circle, { service }: Peer, { hash }: Holding) {
  return circle.drive(service.ask({ type: 'settle', tag: '', revision: 5, hash, diverged: 0 }));
}

/** What a peer holds, in short. */
const copyOf = ({ memory }: Peer): string[] => memory.map((bytes) => hashOf(bytes));

function hashOf(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

test('only what differs is moved, from all that have it, and nothing is changed before all is here', async () => {
  const circle = new Circle();
  const { peers, holding } = await holders(circle, 3);
  const behind = await circle.add('n');
  circle.attach(behind, SHAPES, 3, OLD);
  const before = copyOf(behind);
  expect((await begin(circle, behind, 3)).hash).not.toEqual(holding.hash);
  const fetched = await fetching(circle, behind, holding, peers);
  expect(fetched.ready).toEqual(holding.hash);
  expect(copyOf(behind)).toEqual(before);
  const settlement = await settle(circle, behind, holding);
  expect(copyOf(behind)).toEqual(copyOf(peers[0]!));
  // Of `a` six pieces differ and one does not, `b` does, and all of `c`.
  expect(settlement).toMatchObject({ received: 9 * MIB + 256, sent: 0, isChanged: true });
  for (const peer of peers) expect(peer.sent).toBeGreaterThan(0);
  for (const peer of peers) expect(peer.mostOnTheWay).toBeLessThanOrEqual(2 * MIB);
});

test('a sync that fails leaves everything as it was', async () => {
  const circle = new Circle();
  const { peers, holding } = await holders(circle, 1);
  const behind = await circle.add('n');
  circle.attach(behind, SHAPES, 3, OLD);
  const before = copyOf(behind);
  await begin(circle, behind, 3);
  circle.clock.schedule(6, () => circle.kill(peers[0]!));
  const fetched = await fetching(circle, behind, holding, peers);
  expect(fetched.ready).toBe(null);
  await circle.drive(behind.service.ask({ type: 'abandon', tag: '' }));
  expect(copyOf(behind)).toEqual(before);
  expect((await begin(circle, behind, 3)).isWhole).toBe(true);
});

describe('while it is fetched', () => {
  test('sources may die, as long as one is left', async () => {
    const circle = new Circle();
    const { peers, holding } = await holders(circle, 3);
    const behind = await circle.add('n');
    circle.attach(behind, SHAPES, 0, ZERO);
    await begin(circle, behind, 0);
    circle.clock.schedule(4, () => circle.kill(peers[0]!));
    circle.clock.schedule(6, () => circle.kill(peers[2]!));
    expect((await fetching(circle, behind, holding, peers)).ready).toEqual(holding.hash);
    await settle(circle, behind, holding);
    expect(copyOf(behind)).toEqual(copyOf(peers[1]!));
  });

  test('what is damaged or forged on the way never gets to its place', async () => {
    const circle = new Circle();
    const { peers, holding } = await holders(circle, 2);
    const [liar] = peers;
    liar!.forge = (body) => {
      body[17]! ^= 1;
      return body;
    };
    const behind = await circle.add('n');
    circle.attach(behind, SHAPES, 0, ZERO);
    await begin(circle, behind, 0);
    expect((await fetching(circle, behind, holding, peers)).ready).toEqual(holding.hash);
    await settle(circle, behind, holding);
    expect(copyOf(behind)).toEqual(copyOf(peers[1]!));
    // Of a liar alone nothing comes, and it ends all the same.
    const alone = await circle.add('m');
    circle.attach(alone, SHAPES, 0, ZERO);
    await begin(circle, alone, 0);
    expect((await fetching(circle, alone, holding, [liar!])).ready).toBe(null);
  });

  test('nobody waits long for a source that is silent, or longer than allowed where it is the only one', async () => {
    const circle = new Circle();
    const { peers, holding } = await holders(circle, 2);
    const behind = await circle.add('n');
    circle.attach(behind, SHAPES, 0, ZERO);
    await begin(circle, behind, 0);
    peers[0]!.isMute = true;
    const since = circle.clock.now();
    expect((await fetching(circle, behind, holding, peers)).ready).toEqual(holding.hash);
    expect(circle.clock.now() - since).toBeLessThan(10_000);
    const other = await circle.add('m');
    circle.attach(other, SHAPES, 0, ZERO);
    await begin(circle, other, 0);
    const from = circle.clock.now();
    expect((await fetching(circle, other, holding, [peers[0]!], 2_000)).ready).toBe(null);
    expect(circle.clock.now() - from).toBeLessThan(3_000);
  });
});

describe('a newcomer', () => {
  async function members(circle: Circle): Promise<Peer[]> {
    const { peers, holding } = await holders(circle, 3);
    for (const peer of peers) await settle(circle, peer, holding);
    return peers;
  }

  /** All members write something else every so often, and make it known. */
  function keepStepping(
    circle: Circle,
    peers: readonly Peer[],
    everyMs: number,
    write: (peer: Peer, revision: number) => void,
  ): { end(): Promise<number> } {
    let revision = 5;
    let isOver = false;
    let stepping = Promise.resolve();
    const step = async () => {
      revision += 1;
      for (const peer of peers) write(peer, revision);
      for (const { service } of peers) {
        const { hash } = (await service.ask({ type: 'begin', tag: '', revision, changed: null })) as Holding;
        await service.ask({ type: 'settle', tag: '', revision, hash, diverged: 0 });
      }
      schedule();
    };
    const schedule = () =>
      circle.clock.schedule(everyMs, () => {
        if (!isOver) stepping = step();
      });
    schedule();
    return {
      end: async () => {
        isOver = true;
        await circle.drive(stepping);
        return revision;
      },
    };
  }

  const wait = (circle: Circle, ms: number) =>
    circle.drive(new Promise<void>((resolve) => void circle.clock.schedule(ms, resolve)));

  function prefetch(circle: Circle, { service }: Peer, from: readonly Peer[]) {
    const ids = from.map(({ id }) => id);
    return circle.drive(service.prefetch('', ids, () => true));
  }

  /** Members, and a newcomer that has fetched what they hold. */
  async function prefetched(): Promise<{ circle: Circle; peers: Peer[]; newcomer: Peer }> {
    const circle = new Circle();
    const peers = await members(circle);
    const newcomer = await circle.add('n');
    circle.attach(newcomer, SHAPES, 0, ZERO);
    await prefetch(circle, newcomer, peers);
    return { circle, peers, newcomer };
  }

  test('fetches what members hold at the rate that they can spare, and knows the revision', async () => {
    const circle = new Circle();
    const peers = await members(circle);
    const newcomer = await circle.add('n');
    circle.attach(newcomer, SHAPES, 0, ZERO);
    const since = circle.clock.now();
    expect(await prefetch(circle, newcomer, peers)).toEqual({ bytes: BYTES, revision: 5 });
    expect(copyOf(newcomer)).toEqual(copyOf(peers[0]!));
    // Three holders of 16 MiB/s each, as no steps are made, and what each may give at once.
    const elapsed = circle.clock.now() - since;
    expect(elapsed).toBeGreaterThan((1_000 * (BYTES - 3 * 2 * MIB)) / (3 * 16 * MIB));
    // Members that wait for one another for a while have no step that could be slowed down.
    for (const peer of peers) peer.isResting = true;
    const took: number[] = [];
    for (const id of ['l', 'm']) {
      const other = await circle.add(id);
      circle.attach(other, SHAPES, 0, ZERO);
      const from = circle.clock.now();
      await prefetch(circle, other, peers);
      took.push(circle.clock.now() - from);
      await circle.drive(new Promise<void>((resolve) => void circle.clock.schedule(1_000, resolve)));
    }
    expect(took[0]).toBeGreaterThan(elapsed);
    expect(took[1]).toBeLessThan(elapsed - 50);
  });

  test('gets what members change meanwhile, and nothing that is torn', async () => {
    const circle = new Circle();
    const peers = await members(circle);
    const newcomer = await circle.add('n');
    circle.attach(newcomer, SHAPES, 0, ZERO);
    // Steps of 50 ms: in each some of `b` and one piece of `c` change, at once in memory, and for the others with the sync.
    const steps = keepStepping(circle, peers, 50, ({ memory }, revision) => {
      memory[1]!.fill(revision);
      memory[2]!.fill(revision, 0, 1_000);
    });
    const { bytes } = await prefetch(circle, newcomer, peers);
    await steps.end();
    expect(bytes).toBeGreaterThanOrEqual(BYTES - 2 * MIB);
    const [[a, , c], now] = [newcomer.memory, peers[0]!.memory];
    expect(hashOf(a!)).toEqual(hashOf(now[0]!));
    expect(hashOf(c!.subarray(MIB))).toEqual(hashOf(now[2]!.subarray(MIB)));
    // Of one step, or of none.
    const changing = c!.subarray(0, 1_000);
    const isUntouched = new Uint32Array(changing.buffer, 0, 250).every((word, at) => word === NEW(2, at));
    expect(isUntouched || new Set(changing).size === 1).toBe(true);
  });

  test('does not wait for a state that changes as fast as it comes', async () => {
    const circle = new Circle();
    const peers = await members(circle);
    const newcomer = await circle.add('n');
    circle.attach(newcomer, SHAPES, 0, ZERO);
    const steps = keepStepping(circle, peers, 20, ({ memory }, revision) => {
      for (const bytes of memory) bytes.fill(revision);
    });
    const since = circle.clock.now();
    expect((await prefetch(circle, newcomer, peers)).revision).toBe(null);
    await steps.end();
    expect(circle.clock.now() - since).toBeLessThan(10_000);
  });

  test('keeps a checkpoint until all has come, and one that is newer altogether', async () => {
    const circle = new Circle();
    const peers = await members(circle);
    const newcomer = await circle.add('n');
    circle.attach(newcomer, SHAPES, 2, OLD);
    const before = copyOf(newcomer);
    expect((await prefetch(circle, newcomer, peers)).bytes).toBe(9 * MIB + 256);
    expect(copyOf(newcomer)).toEqual(before);
    const { hash } = await begin(circle, peers[0]!, 5);
    expect((await begin(circle, newcomer, 2)).ready).toEqual(hash);
    await settle(circle, newcomer, { hash } as Holding);
    expect(copyOf(newcomer)).toEqual(copyOf(peers[0]!));
    const newer = await circle.add('m');
    circle.attach(newer, SHAPES, 6, OLD);
    expect(await prefetch(circle, newer, peers)).toEqual({ bytes: 0, revision: null });
  });

  test('has what changed last when its owner makes the first sync, without being told of it there', async () => {
    const { circle, peers, newcomer } = await prefetched();
    // It is taken in before the members have made their last step known.
    newcomer.service.follow('');
    for (const { memory } of peers) memory[2]!.fill(6, 0, 2 * MIB);
    for (let passed = 0; passed < 20; passed++) circle.clock.advance(1);
    const holdings = await Promise.all(peers.map((peer) => begin(circle, peer, 6)));
    const holding = await begin(circle, newcomer, 5);
    expect(holding.ready).toEqual(holdings[0]!.hash);
    expect(await settle(circle, newcomer, holdings[0]!)).toMatchObject({ received: 2 * MIB, prefetched: BYTES });
    expect(copyOf(newcomer)).toEqual(copyOf(peers[0]!));
  });

  test('does not wait for the last of the members, where most of them bring the same', async () => {
    const { circle, peers, newcomer } = await prefetched();
    newcomer.service.follow('');
    for (const { memory } of peers) memory[2]!.fill(6, 0, 2 * MIB);
    const [last, ...others] = peers;
    expect(others.length).toBeGreaterThan(peers.length / 2);
    const [holding] = await Promise.all(others.map((peer) => begin(circle, peer, 6)));
    const since = circle.clock.now();
    expect((await begin(circle, newcomer, 5)).ready).toEqual(holding!.hash);
    expect(circle.clock.now() - since).toBeLessThan(500); // whoever does not tell what it brings is awaited for two seconds
    await begin(circle, last!, 6);
  });

  test('does not look at what comes to its place in its first sync, where there is little else to look at', async () => {
    const circle = new Circle();
    const peers = await members(circle);
    const newcomer = await circle.add('n');
    circle.attach(newcomer, SHAPES, 0, ZERO);
    // A piece of `c` is another one after each step: it is left to the sync.
    const steps = keepStepping(circle, peers, 50, ({ memory }, revision) => memory[2]!.fill(revision, 0, 1_000));
    await prefetch(circle, newcomer, peers);
    const revision = await steps.end();
    newcomer.service.follow('');
    // Its owner has written there, too.
    newcomer.memory[2]!.fill(99, 0, 2_000);
    for (const { memory } of peers) memory[2]!.fill(77, 0, 3_000);
    const looks = vi.spyOn(Replica.prototype, 'look');
    onTestFinished(() => looks.mockRestore());
    const beginning = begin(circle, newcomer, revision, ['c']);
    await wait(circle, 20);
    const [holding] = await Promise.all(peers.map((peer) => begin(circle, peer, revision + 1, ['c'])));
    expect((await beginning).ready).toEqual(holding!.hash);
    // Two MiB of `c` are as they were, and `b` is small.
    expect(await looks.mock.results.at(-1)!.value).toBe(2 * MIB + 256);
    await settle(circle, newcomer, holding!);
    expect(copyOf(newcomer)).toEqual(copyOf(peers[0]!));
  });

  test('is not kept waiting while members look at what has not changed', async () => {
    const { circle, peers, newcomer } = await prefetched();
    const looks = vi.spyOn(Replica.prototype, 'look');
    onTestFinished(() => looks.mockRestore());
    const sync = async () => {
      looks.mockClear();
      const [holding] = await Promise.all(peers.map((peer) => begin(circle, peer, 5, ['b'])));
      await Promise.all(peers.map((peer) => settle(circle, peer, holding!)));
      return Promise.all(looks.mock.results.map(({ value }) => value));
    };
    newcomer.service.follow('');
    await wait(circle, 20);
    expect(await sync()).toEqual(peers.map(() => 256));
    for (const bytes of await sync()) expect(bytes).toBeGreaterThan(MIB);
  });

  test('need not wait for what it asked for at leisure before', async () => {
    const circle = new Circle();
    const { peers, holding } = await holders(circle, 1);
    const [holder] = peers;
    await settle(circle, holder!, holding);
    const newcomer = await circle.add('n');
    circle.attach(newcomer, SHAPES, 0, ZERO);
    await begin(circle, newcomer, 0);
    const ask = { kind: SPARE_PIECES, tag: hashTag(wireName('', holding.shape)), first: 0, count: 1 };
    for (let asked = 0; asked < 16; asked++) circle.deliver(newcomer, holder!, askFrame(1_000 + asked, ask), null);
    await begin(circle, holder!, 5);
    const since = circle.clock.now();
    expect((await fetching(circle, newcomer, holding, peers)).ready).toEqual(holding.hash);
    expect(circle.clock.now() - since).toBeLessThan(300); // 16 MiB at 16 MiB/s would take a second
  });

  test('is not kept from its first sync by members that begin none, or are gone', async () => {
    const { circle, peers, newcomer } = await prefetched();
    newcomer.service.follow('');
    circle.kill(peers[0]!);
    const since = circle.clock.now();
    expect((await begin(circle, newcomer, 5)).ready).toBe(null);
    expect(circle.clock.now() - since).toBeLessThan(3_000);
  });

  test('ends when its peer is a member: what comes later does not get into what the first sync has fetched', async () => {
    const circle = new Circle();
    const peers = await members(circle);
    const [slow, ...others] = peers;
    const newcomer = await circle.add('n');
    circle.attach(newcomer, SHAPES, 0, ZERO);
    let isWanted = true;
    const ids = peers.map(({ id }) => id);
    const prefetching = newcomer.service.prefetch('', ids, () => isWanted);
    slow!.onTheWay = 400 * MIB; // what it sends is late
    const before = slow!.sent;
    while (slow!.sent < before + 2 * MIB) await wait(circle, 10);
    // All go on by a step, the newcomer comes in, and syncs with the others before the rest of what it asked for has come.
    let holding: Holding | null = null;
    for (const peer of peers) {
      for (const bytes of peer.memory) bytes.fill(6);
      holding = await begin(circle, peer, 6);
      await settle(circle, peer, holding);
    }
    isWanted = false;
    await begin(circle, newcomer, 0);
    expect((await fetching(circle, newcomer, holding!, others)).ready).toEqual(holding!.hash);
    await wait(circle, 1_000);
    await settle(circle, newcomer, holding!);
    expect(copyOf(newcomer)).toEqual(copyOf(others[0]!));
    await circle.drive(prefetching);
    expect(copyOf(newcomer)).toEqual(copyOf(others[0]!));
  });

  test('fetches nothing where nobody holds anything, or something else', async () => {
    const circle = new Circle();
    const peers = await members(circle);
    const newcomer = await circle.add('n');
    circle.attach(newcomer, [{ name: 'a', type: 'f32', bytes: 64 }], 0, ZERO);
    expect(await prefetch(circle, newcomer, peers)).toEqual({ bytes: 0, revision: null });
    expect(await prefetch(circle, newcomer, [])).toEqual({ bytes: 0, revision: null });
  });
});

describe('a hostile peer', () => {
  test('that asks for anything, gets what there is and no more; for too much at once, it is told off', async () => {
    const circle = new Circle();
    const { peers, holding } = await holders(circle, 1);
    const [holder] = peers as [Peer];
    const hostile = await circle.add('x');
    const numbers = [0, 1, 7, 10, 11, 12, 4_097, 2 ** 31, 2 ** 32 - 1];
    const tag = hashTag(wireName('', holding.shape));
    for (const kind of [0, SUMMARY, TABLE, PIECES, 4, 2 ** 32 - 1])
      for (const first of numbers)
        for (const count of numbers) {
          circle.deliver(hostile, holder, askFrame(1, { kind, tag, first, count }), null);
          while (circle.clock.step());
        }
    expect(holder.mostOnTheWay).toBe(MIB);
    expect(hostile.faults).toEqual([]);
    for (let asks = 0; asks <= MAX_ASKS; asks++)
      circle.deliver(hostile, holder, askFrame(asks, { kind: PIECES, tag, first: 0, count: 1 }), null);
    expect(hostile.faults).toEqual(['it asked for more than it may at once']);
    expect(holder.mostOnTheWay).toBeLessThanOrEqual(2 * MIB);
  });

  test('that answers what it was not asked, or something else, is told off, and nothing of it is kept', async () => {
    const circle = new Circle();
    const { peers, holding } = await holders(circle, 1);
    const [holder] = peers as [Peer];
    const newcomer = await circle.add('n');
    circle.attach(newcomer, SHAPES, 0, ZERO);
    await begin(circle, newcomer, 0);
    const tag = hashTag(wireName('', holding.shape));
    const bytes = new Uint8Array(64);
    // Nobody asked.
    circle.deliver(holder, newcomer, answerFrame(1, { kind: PIECES, tag, first: 0, count: 1 }, 64), bytes);
    expect(holder.faults).toEqual([]);
    holder.isMute = true;
    const fetched = fetching(circle, newcomer, holding, peers, 5_000);
    // The first number is that of the ask for the table, whose length follows from the layout.
    for (const kind of [PIECES, TABLE])
      circle.deliver(holder, newcomer, answerFrame(1, { kind, tag, first: 0, count: 0 }, 64), bytes);
    expect(holder.faults.length).toBe(2);
    expect((await fetched).ready).toBe(null);
  });
});
