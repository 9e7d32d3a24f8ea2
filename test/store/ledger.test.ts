/** That whoever led and was replaced can write nothing: what each of its transactions is guarded by. */
import { expect, test } from 'vitest';
import { LEADER_KEY, Ledger, NotLeader, writeLeader } from '../../src/engine/ledger.ts';
import { MemoryStore } from '../../src/store/memory.ts';
import type { Change, Guard } from '../../src/store/store.ts';
import { VirtualClock } from '../../src/transport/clock.ts';

interface Transaction {
  readonly guards: readonly Guard[];
  readonly changes: readonly Change[];
}

/** Keeps what it was asked for. */
class Recorder extends MemoryStore {
  readonly transactions: Transaction[] = [];

  override commit(guards: readonly Guard[], changes: readonly Change[]): Promise<number | null> {
    this.transactions.push({ guards, changes });
    return super.commit(guards, changes);
  }
}

const RUN = { term: 1, epoch: 1, members: ['p0'] };
const PASS = { pass: { id: 'a', by: 'p0', expires: 9 }, expired: ['b'] };

/** The key is this candidate's. @returns its create revision */
async function lead(store: MemoryStore, id: string): Promise<number> {
  return (await store.commit([{ key: LEADER_KEY, created: 0 }], [{ put: LEADER_KEY, value: writeLeader(id, id) }]))!;
}

function newStore(): Recorder {
  return new Recorder(new VirtualClock(), true);
}

/** All ways in which a ledger writes. */
const WRITES: Readonly<Record<string, (ledger: Ledger) => Promise<void>>> = {
  'a run': (ledger) => ledger.saveRun('lm', RUN),
  'a run that was stored before': (ledger) => ledger.saveRun('old', { ...RUN, epoch: 2 }),
  'a pass': (ledger) => ledger.savePass(PASS),
};

test('each transaction of a leader is guarded by the revision in which its key came to be, and is one', async () => {
  const store = newStore();
  await store.commit([], [{ put: 'runs/old', value: JSON.stringify(RUN) }]);
  const created = await lead(store, 'first');
  store.transactions.length = 0;
  const ledger = await Ledger.open(store, created);
  expect(store.transactions, 'it has written its term').toHaveLength(1);
  for (const [name, write] of Object.entries(WRITES)) {
    const before = store.transactions.length;
    await write(ledger);
    expect(store.transactions.length, name).toBe(before + 1);
  }
  for (const { guards, changes } of store.transactions) {
    expect(guards, JSON.stringify(changes)).toContainEqual({ key: LEADER_KEY, created });
    // And by the last revision of what it puts, so that it is harmless when it comes late.
    for (const change of changes)
      if ('put' in change) expect(guards).toContainEqual({ key: change.put, modified: expect.any(Number) });
  }
});

test.each(Object.entries(WRITES))(
  '%s is not written by a leader whose key has gone, or is another one',
  async (_, write) => {
    for (const hasSuccessor of [false, true]) {
      const store = newStore();
      await store.commit([], [{ put: 'runs/old', value: JSON.stringify(RUN) }]);
      const ledger = await Ledger.open(store, await lead(store, 'first'));
      await store.commit([], [{ delete: LEADER_KEY }]);
      // The successor has written nothing yet: no other guard is in the way.
      if (hasSuccessor) await lead(store, 'second');
      const before = await store.list('');
      await expect(write(ledger)).rejects.toThrow(NotLeader);
      expect(await store.list('')).toEqual(before);
      // Nor later, when it is tried again.
      await expect(write(ledger)).rejects.toThrow(NotLeader);
      expect(await store.list('')).toEqual(before);
    }
  },
);

test('it is that guard that keeps them out: a store that overlooks it has them', async () => {
  class Careless extends Recorder {
    override commit(guards: readonly Guard[], changes: readonly Change[]): Promise<number | null> {
      const kept = guards.filter((guard) => !(guard.key === LEADER_KEY && 'created' in guard && guard.created > 0));
      return super.commit(kept, changes);
    }
  }
  for (const [name, write] of Object.entries(WRITES)) {
    const store = new Careless(new VirtualClock(), true);
    const ledger = await Ledger.open(store, await lead(store, 'first'));
    await store.commit([], [{ delete: LEADER_KEY }]);
    await lead(store, 'second');
    const before = await store.list('');
    await write(ledger);
    expect(await store.list(''), name).not.toEqual(before);
  }
});

test('a term is not written by one that is replaced while it reads', async () => {
  const store = newStore();
  const created = await lead(store, 'first');
  await store.commit([], [{ delete: LEADER_KEY }]);
  await lead(store, 'second');
  const before = await store.list('');
  await expect(Ledger.open(store, created)).rejects.toThrow(NotLeader);
  expect(await store.list('')).toEqual(before);
});
