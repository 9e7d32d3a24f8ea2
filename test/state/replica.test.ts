import { describe, expect, test } from 'vitest';
import { Hasher } from '../../src/state/hash.ts';
import { layOut } from '../../src/state/layout.ts';
import { Replica, type Target } from '../../src/state/replica.ts';

const SHAPES = [{ name: 'weights', type: 'u8', bytes: 300_000 }] as const;
const turn = () => Promise.resolve();

/** What a peer tells that holds so many bytes of one kind. */
async function targetOf(hasher: Hasher, revision: number, content: Uint8Array): Promise<Target> {
  const held = new Replica(layOut(SHAPES), [content], revision, hasher);
  await held.look(revision, null, turn);
  return { revision, hash: held.hash!, table: held.table, revisions: held.revisions };
}

/** A newcomer that has looked at its memory, and holds nothing of value. */
async function newcomer(hasher: Hasher): Promise<{ replica: Replica; memory: Uint8Array }> {
  const memory = new Uint8Array(300_000);
  const replica = new Replica(layOut(SHAPES), [memory], 0, hasher);
  await replica.look(0, null, turn);
  replica.isWhole = false;
  return { replica, memory };
}

describe('what comes to its place', () => {
  test('is not looked at again when its owner has let go of the memory before', async () => {
    const hasher = await Hasher.load();
    const content = new Uint8Array(300_000).fill(7);
    const target = await targetOf(hasher, 3, content);
    const { replica, memory } = await newcomer(hasher);
    replica.letGo();
    replica.put(target, 0, content.slice());
    replica.complete(target);
    expect(await replica.look(0, null, turn)).toBe(0);
    expect(memory).toEqual(content);
    expect(replica.hash).toEqual(target.hash);
    // From then on it is anybody's.
    memory[5] = 1;
    expect(await replica.look(0, null, turn)).toBe(300_000);
    expect(replica.hash).not.toEqual(target.hash);
  });

  test('is looked at when it came before, as its owner may have written there', async () => {
    const hasher = await Hasher.load();
    const content = new Uint8Array(300_000).fill(7);
    const target = await targetOf(hasher, 3, content);
    const { replica, memory } = await newcomer(hasher);
    replica.put(target, 0, content.slice());
    replica.complete(target);
    memory[5] = 1;
    replica.letGo();
    await replica.look(0, null, turn);
    expect(replica.hash).not.toEqual(target.hash);
    expect(replica.ready).toBeNull();
  });

  test('is looked at after a sync that failed', async () => {
    const hasher = await Hasher.load();
    const content = new Uint8Array(300_000).fill(7);
    const target = await targetOf(hasher, 3, content);
    const { replica, memory } = await newcomer(hasher);
    replica.letGo();
    replica.put(target, 0, content.slice());
    replica.forget();
    memory[5] = 1;
    await replica.look(0, null, turn);
    expect(replica.hash).not.toEqual(target.hash);
  });
});
