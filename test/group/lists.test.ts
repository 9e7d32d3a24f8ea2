/** Several tensors in one call, large and small, on memory of every kind. */
import { sharedTensor, WithdrawnError } from 'skein';
import { describe, expect, test } from 'vitest';
import { type EngineKind, Members } from './members.ts';

/** Large ones stay where they are. */
const SIZES = [5, 300_000, 1, 0, 700, 270_001, 400_000, 3];

function listFor(rank: number): Float32Array[] {
  return SIZES.map((size, index) => {
    const tensor = index % 3 === 0 ? new Float32Array(size) : sharedTensor('f32', size);
    return tensor.map((_, at) => 10 * index + (rank + 1) * (at % 5));
  }).map((filled, index) => {
    // `map` gives ordinary memory.
    if (index % 3 === 0) return filled;
    const shared = sharedTensor('f32', filled.length);
    shared.set(filled);
    return shared;
  });
}

/** Whether each element is `index` times `tens`, and `ones` times what counts the ranks. */
function isSum(list: readonly Float32Array[], tens: number, ones: number): boolean {
  return list.every((tensor, index) => tensor.every((element, at) => element === 10 * index * tens + ones * (at % 5)));
}

describe.each<EngineKind>(['inline', 'worker'])('with an engine that is %s', (engine) => {
  test.each(['ring', 'tree', 'doubling', 'direct'] as const)(
    'lists are summed where they are, by %s',
    async (algorithm) => {
      await using members = await Members.form(3, { engine });
      const lists = members.groups.map((_, rank) => listFor(rank));
      await members.all((group, rank) => group.allReduce(lists[rank]!, { algorithm }));
      for (const list of lists) expect(isSum(list, 3, 6)).toBe(true);
    },
  );

  test('lists have codecs, outputs of another cut, and other collectives', async () => {
    await using members = await Members.form(2, { engine });
    const total = SIZES.reduce((sum, size) => sum + size, 0);
    await members.all(async (group, rank) => {
      const list = listFor(rank);
      const out = [sharedTensor('f32', 280_000), new Float32Array(9), sharedTensor('f32', total - 280_009)] as const;
      await group.allReduce(list, { out: [...out] });
      const flat = new Float32Array(total);
      let at = 0;
      for (const tensor of list) {
        flat.set(tensor, at);
        at += tensor.length;
      }
      await group.allReduce(flat);
      expect(Buffer.concat(out.map((one) => new Uint8Array(one.buffer))).equals(new Uint8Array(flat.buffer))).toBe(
        true,
      );
      expect(isSum(list, 1, rank + 1)).toBe(true);
      const [coded, plain] = [listFor(rank), new Float32Array(total)];
      plain.set(flat);
      await group.allReduce(coded, { codec: 'bf16' });
      for (const tensor of coded) expect(tensor.every(Number.isFinite)).toBe(true);
      const given = listFor(rank);
      await group.broadcast(given, { root: 1 });
      expect(isSum(given, 1, 2)).toBe(true);
    });
  });

  test('a list of which one member thinks better changes on no member', async () => {
    await using members = await Members.form(2, { engine });
    const lists = members.groups.map((_, rank) => listFor(rank));
    const controller = new AbortController();
    const outcomes = await members.all((group, rank) => {
      const options = rank === 0 ? { signal: controller.signal, onProgress: () => controller.abort() } : {};
      return group.allReduce(lists[rank]!, options).catch((error: unknown) => error);
    });
    expect(outcomes[1]).toBeInstanceOf(WithdrawnError);
    for (const [rank, list] of lists.entries()) expect(isSum(list, 1, rank + 1)).toBe(true);
  });
});
