/** Snapshots of a group: what is kept, by whom, and when there is none. */
import { createHash } from 'node:crypto';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join as joinPath } from 'node:path';
import {
  ArgumentError,
  Coordinator,
  type Group,
  join,
  MismatchError,
  type SharedEntry,
  type SharedState,
  SnapshotError,
  sharedTensor,
} from 'skein';
import { describe, expect, onTestFinished, test } from 'vitest';
import { type EngineKind, Members } from '../group/members.ts';
import { readSafetensors } from './safetensors-reader.ts';

function folder(): string {
  const path = mkdtempSync(joinPath(tmpdir(), 'skein-snapshots-'));
  onTestFinished(() => rmSync(path, { recursive: true }));
  return path;
}

function stateOf(fill: number, revision = 0): SharedState {
  const weights = sharedTensor('f32', 300_003).fill(fill);
  const half = { dtype: 'bf16' as const, data: new Uint16Array(5).fill(fill) };
  return {
    revision,
    entries: { weights, half, rate: 0.1 * fill, step: BigInt(-fill), warm: fill % 2 === 1, none: new Float64Array(0) },
  };
}

/** As a comparison of large arrays, element by element, takes its time. */
function plain({ revision, entries }: SharedState): unknown {
  const text = (value: SharedEntry) => {
    if (typeof value !== 'object') return value;
    const array = 'dtype' in value ? value.data : value;
    const bytes = new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
    return [array.constructor.name, array.length, createHash('sha256').update(bytes).digest('hex')];
  };
  return [revision, Object.entries(entries).map(([name, value]) => [name, text(value)])];
}

function expectSame(state: SharedState, expected: SharedState): void {
  expect(plain(state)).toEqual(plain(expected));
}

function ownOf(rank: number): SharedState {
  return {
    revision: 0,
    entries: { residual: new Float32Array(300_000).fill(rank + 0.5), position: 10 * rank, last: rank === 1 },
  };
}

describe.each<EngineKind>(['worker', 'inline'])('engine %s', (engine) => {
  test('a snapshot goes to disk in the background, and is put back, bit for bit', async () => {
    const path = folder();
    await using members = await Members.form(2, { engine });
    const states = await members.all(async (group, rank) => {
      const state = stateOf(rank + 1, 4);
      await group.syncState(state, { strategy: 'highest-revision' });
      return state;
    });
    const reports = await members.all((group, rank) => group.snapshot(rank === 0 ? { directory: path } : {}));
    expect(reports[1]).toEqual({ revision: 4, hash: reports[0]!.hash, keptBy: null, written: null });
    // It is the state as it was: what is changed now does not count.
    for (const state of states) {
      (state.entries['weights'] as Float32Array).fill(99);
      Object.assign(state.entries, { rate: 7, step: 7n, warm: false });
      state.revision += 1;
    }
    const manifest = await reports[0]!.written!;
    expect(manifest).toBe(joinPath(path, '000001.json'));
    const { metadata, tensors } = readSafetensors(readFileSync(manifest.replace('.json', '.safetensors')));
    expect(metadata).toMatchObject({ run: 'default', revision: '4', hash: reports[0]!.hash });
    expect([...tensors].map(([name, { dtype, shape }]) => [name, dtype, shape]).sort()).toEqual([
      ['half', 'BF16', [5]],
      ['none', 'F64', [0]],
      ['rate', 'F64', []],
      ['step', 'I64', []],
      ['warm', 'BOOL', []],
      ['weights', 'F32', [300_003]],
    ]);
    await members.all((group, rank) => group.restore(states[rank]!));
    for (const state of states) expectSame(state, stateOf(1, 4));
    const again = await members.all((group, rank) => group.syncState(states[rank]!));
    expect(again).toMatchObject([{ received: 0, hash: reports[0]!.hash }, { received: 0 }]);
    // From the folder, into a state of other contents.
    await using resumed = await Members.form(1, { engine, state: stateOf(3), resumeFrom: path });
    expect(resumed.groups).toHaveLength(1);
    const state = stateOf(3);
    const other = await join(resumed.coordinator.address, { engine, run: 'again', state, resumeFrom: path });
    onTestFinished(() => other.leave());
    expectSame(state, stateOf(1, 4));
  });

  test('what is of a peer goes to the next one, and comes back to who joins again by its name', async () => {
    await using coordinator = await Coordinator.listen({ port: 0 });
    const names = new Map<Group, string>();
    const open = (name: string) =>
      join(coordinator.address, { engine, timeout: 20_000, name, startWorldSize: 3 }).then((group) => {
        onTestFinished(() => group.leave());
        names.set(group, name);
        return group;
      });
    const groups = (await Promise.all(['a', 'b', 'c'].map(open))).sort((left, right) => left.rank - right.rank);
    const all = <T>(action: (group: Group, rank: number) => Promise<T>) =>
      Promise.all(groups.map((group, rank) => action(group, rank)));
    const states = groups.map(() => stateOf(1, 1));
    const owns = groups.map((_, rank) => ownOf(rank));
    const snapshot = async (round: number) => {
      await all((group, rank) => group.syncState(states[rank]!));
      for (const own of owns) (own.entries['residual'] as Float32Array)[7] = round;
      return all((group, rank) => group.snapshot({ own: owns[rank]! }));
    };
    for (const round of [1, 2]) {
      const reports = await snapshot(round);
      const ids = groups.map(({ peerId }) => peerId);
      expect(reports.map(({ keptBy }) => keptBy)).toEqual([ids[1], ids[2], ids[0]]);
      for (const state of states) state.revision += 1;
    }
    // What it changes afterwards is not in it.
    (owns[1]!.entries['residual'] as Float32Array).fill(-1);
    const name = names.get(groups[1]!)!;
    await groups[1]!.leave();
    const [first, , third] = groups;
    const meet = () => Promise.all([first!.admit(), third!.admit()]);
    // They may not have been told yet that it has gone.
    while (first!.worldSize > 2) await meet();
    const back = open(name);
    while (first!.worldSize < 3) await meet();
    const returned = await back;
    const own = ownOf(9);
    expect(await returned.recall(own)).toEqual({ revision: 2, from: third!.peerId });
    const expected = ownOf(1);
    (expected.entries['residual'] as Float32Array)[7] = 2;
    expectSame(own, { ...expected, revision: 2 });
    // Of another shape there is nothing.
    expect(await returned.recall({ revision: 0, entries: { other: 1 } })).toBeNull();
    // What the one that left has kept is gone with it; what the first one keeps is there.
    expect(await first!.recall(ownOf(3))).toBeNull();
    expect(await third!.recall(ownOf(3))).toEqual({ revision: 2, from: first!.peerId });
  });
});

test('there is none of a state that was changed, on any member; nor without a sync', async () => {
  await using members = await Members.form(2, { engine: 'inline' });
  const states = members.groups.map(() => stateOf(1, 1));
  await expect(members.groups[0]!.snapshot()).rejects.toThrow(ArgumentError);
  await members.all((group, rank) => group.syncState(states[rank]!));
  (states[1]!.entries['weights'] as Float32Array)[5] = 2;
  const [other, changed] = await members.all((group) => group.snapshot().catch((error: unknown) => error));
  expect(changed).toBeInstanceOf(SnapshotError);
  expect(String(changed)).toContain('The state was changed since it was in step at revision 1');
  expect(other).toBeInstanceOf(MismatchError);
  expect(String(other)).toContain(`${members.groups[1]!.peerId} has changed its state since the last sync`);
  await expect(members.groups[1]!.restore(states[1]!)).rejects.toThrow(SnapshotError);
  states[0]!.revision = 2;
  await expect(members.groups[0]!.snapshot()).rejects.toThrow(/has revision 2, and was in step at revision 1/);
  await expect(members.groups[0]!.snapshot({ own: ownOf(0) })).rejects.toThrow(ArgumentError);
});

test('one that can not be written is told of by the next one, and what is damaged is passed over', async () => {
  const path = folder();
  const state = stateOf(1, 1);
  await using members = await Members.form(1, { engine: 'inline', state, resumeFrom: joinPath(path, 'new') });
  const [group] = members.groups;
  await group!.syncState(state);
  writeFileSync(joinPath(path, 'file'), '');
  const failed = await group!.snapshot({ directory: joinPath(path, 'file') });
  await expect(failed.written).rejects.toThrow(SnapshotError);
  await expect(group!.snapshot({ directory: joinPath(path, 'new') })).rejects.toThrow(SnapshotError);
  for (let revision = 1; revision <= 3; revision++) {
    await (await group!.snapshot({ directory: joinPath(path, 'new') })).written;
    state.revision += 1;
    await group!.syncState(state);
  }
  const names = readdirSync(joinPath(path, 'new')).filter((name) => name !== 'lock');
  expect(names.sort()).toEqual(['000002.json', '000002.safetensors', '000003.json', '000003.safetensors']);
  const target = joinPath(path, 'new', '000003.safetensors');
  const bytes = readFileSync(target);
  bytes[bytes.length - 9]! ^= 1;
  writeFileSync(target, bytes);
  const warnings: Error[] = [];
  process.on('warning', (warning) => warnings.push(warning));
  const resumed = stateOf(5);
  const other = await join(members.coordinator.address, {
    engine: 'inline',
    run: 'b',
    state: resumed,
    resumeFrom: joinPath(path, 'new'),
  });
  onTestFinished(() => other.leave());
  expectSame(resumed, stateOf(1, 2));
  await new Promise((done) => setTimeout(done, 0));
  expect(warnings.map(({ name, message }) => [name, message])).toEqual([
    [
      'SkeinWarning',
      expect.stringMatching(/^Snapshot 3 in .* is damaged and is passed over: "\w+" is not what was written/),
    ],
  ]);
  const wrong = { revision: 0, entries: { weights: new Float32Array(3) } };
  const options = { engine: 'inline' as const, run: 'c', resumeFrom: joinPath(path, 'new') };
  await expect(join(members.coordinator.address, { ...options, state: wrong })).rejects.toThrow(
    /has other entries than the state/,
  );
  await expect(join(members.coordinator.address, options)).rejects.toThrow(ArgumentError);
});
