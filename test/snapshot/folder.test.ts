import { createHash } from 'node:crypto';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { readSnapshot, SnapshotFolder } from '../../src/snapshot/folder.ts';
import { type Snapshot, type SnapshotEntry, SnapshotError } from '../../src/snapshot/snapshot.ts';
import type { EntryType } from '../../src/state/layout.ts';
import { DTYPE_BYTES, DTYPES } from '../../src/tensor.ts';
import { Random } from '../sim/random.ts';
import { Crash, CrashFiles } from '../store/crash-files.ts';
import { readSafetensors } from './safetensors-reader.ts';

const SEED = Number(process.env['SKEIN_SEED'] ?? Date.now() % 1_000_000);
const PATH = '/snapshots';
const WRITER = { goesOn: false };
const KEEP = 2;

function noise(seed: number, length: number): Uint8Array {
  const random = new Random(seed);
  return Uint8Array.from({ length }, () => random.integer(0, 255));
}

function entry(name: string, type: EntryType, bytes: Uint8Array, revision = 1): SnapshotEntry {
  return { name, type, revision, bytes };
}

function numberEntry(name: string, value: number): SnapshotEntry {
  return entry(name, 'number', new Uint8Array(Float64Array.of(value).buffer));
}

/** A small state at a revision: all dtypes, scalars, and what is empty. */
function stateAt(revision: number): Snapshot {
  const tensors = DTYPES.map((dtype, index) =>
    entry(`layer.${index}.${dtype}`, dtype, noise(revision * 100 + index, DTYPE_BYTES[dtype] * (3 + index)), revision),
  );
  return {
    ...{ run: 'lm "ü"', epoch: 7, revision, hash: `${revision}`.padStart(32, 'a') },
    shared: [...tensors, numberEntry('rate', 0.1 * revision), entry('empty', 'f32', new Uint8Array(0))],
    own: [entry('residual', 'f32', noise(revision, 16)), numberEntry('position', revision)],
  };
}

function plain({ shared, own, ...rest }: Snapshot): unknown {
  const texts = (entries: readonly SnapshotEntry[]) =>
    entries.map((one) => [one.name, one.type, one.revision, Buffer.from(one.bytes).toString('hex')]);
  return { ...rest, shared: texts(shared), own: texts(own) };
}

function folder(): string {
  const path = mkdtempSync(join(tmpdir(), 'skein-snapshot-'));
  onTestFinished(() => rmSync(path, { recursive: true }));
  return join(path, 'of', 'a run');
}

function silent(text: string): void {
  throw new Error(`unexpected: ${text}`);
}

/** Writes the revisions that are there not yet, and says which was acknowledged last. */
async function writeUpTo(files: CrashFiles, first: number, last: number): Promise<number> {
  let acknowledged = first - 1;
  try {
    const writer = await SnapshotFolder.open(PATH, WRITER, files);
    for (let revision = first; revision <= last; revision++) {
      await writer.write(stateAt(revision), KEEP);
      acknowledged = revision;
    }
  } catch (error) {
    if (!(error instanceof Crash) && !(error instanceof SnapshotError && error.cause instanceof Crash)) throw error;
  }
  return acknowledged;
}

describe('a folder of snapshots', () => {
  test('whose process or machine ends at any write holds the old snapshot or the new one, whole', async () => {
    const REVISIONS = 3;
    const calm = new CrashFiles(new Random(1), Number.POSITIVE_INFINITY);
    expect(await writeUpTo(calm, 1, REVISIONS)).toBe(REVISIONS);
    expect(calm.operations).toBeGreaterThan(REVISIONS * 20);
    const random = new Random(SEED);
    for (let at = 0; at < calm.operations; at++) {
      for (const power of [false, true]) {
        const context = `SKEIN_SEED=${SEED}, operation ${at}, ${power ? 'power' : 'kill'}`;
        const files = new CrashFiles(random, at);
        const acknowledged = await writeUpTo(files, 1, REVISIONS);
        // And once more, while what was left behind is cleared away.
        const again = files.after(power, random.integer(0, 60));
        const found = await readSnapshot(PATH, silent, again);
        expect([acknowledged, acknowledged + 1], context).toContain(found?.revision ?? 0);
        if (found !== null) expect(plain(found), context).toEqual(plain(stateAt(found.revision)));
        const from = (found?.revision ?? 0) + 1;
        const further = await writeUpTo(again, from, from + 1);
        const last = await readSnapshot(PATH, silent, again.after(power));
        expect([further, further + 1], `${context}, twice`).toContain(last?.revision ?? 0);
        if (last !== null) expect(plain(last), `${context}, twice`).toEqual(plain(stateAt(last.revision)));
      }
    }
  });

  test('is of files that another reader of safetensors takes, with every dtype, scalars and marks', async () => {
    const path = folder();
    const writer = await SnapshotFolder.open(path, WRITER);
    const state = stateAt(3);
    await writer.write(state, KEEP);
    await writer.close();
    expect(readdirSync(path).sort()).toEqual(['000001.json', '000001.own.safetensors', '000001.safetensors']);
    const { metadata, tensors } = readSafetensors(readFileSync(join(path, '000001.safetensors')));
    expect(tensors.size).toBe(state.shared.length);
    for (const { name, type, bytes } of state.shared) {
      const tensor = tensors.get(name)!;
      const isScalar = type === 'number';
      expect(tensor.dtype).toBe(isScalar ? 'F64' : type.toUpperCase());
      expect(tensor.shape).toEqual(isScalar ? [] : [bytes.length / DTYPE_BYTES[type as keyof typeof DTYPE_BYTES]]);
      expect(tensor.data.equals(bytes)).toBe(true);
    }
    const { sha256, ...marks } = metadata;
    const expected = { format: 'skein snapshot 1', run: state.run, epoch: '7', revision: '3' };
    expect(marks).toEqual({ ...expected, hash: state.hash });
    // Each of these entries is one piece.
    const sums = state.shared.filter(({ bytes }) => bytes.length > 0).map(({ bytes }) => sha(bytes));
    expect(sha256).toBe(sha(sums.join('')));
    expect(plain((await readSnapshot(path, silent))!)).toEqual(plain(state));
  });

  test('keeps the last few, and clears away what was never finished', async () => {
    const path = folder();
    const writer = await SnapshotFolder.open(path, WRITER);
    for (let revision = 1; revision <= 3; revision++) await writer.write(stateAt(revision), 3);
    writeFileSync(join(path, '000004.safetensors.new'), 'half');
    writeFileSync(join(path, '000009.safetensors'), 'no manifest');
    writeFileSync(join(path, 'notes.txt'), 'of the user');
    await writer.write(stateAt(4), 3);
    await writer.write({ ...stateAt(5), own: [] }, 3);
    await writer.close();
    const manifests = readdirSync(path).filter((name) => name.endsWith('.json'));
    expect(manifests).toEqual(['000003.json', '000004.json', '000005.json']);
    expect(readdirSync(path)).toHaveLength(3 * 3 - 1 + 1);
    expect((await readSnapshot(path, silent))!.revision).toBe(5);
  });

  test('of which the latest is damaged gives the one before, and says so', async () => {
    const path = folder();
    const writer = await SnapshotFolder.open(path, WRITER);
    for (const revision of [1, 2]) await writer.write(stateAt(revision), KEEP);
    await writer.close();
    const random = new Random(SEED);
    const names = ['000002.json', '000002.safetensors', '000002.own.safetensors'];
    const whole = new Map(names.map((name) => [name, readFileSync(join(path, name))]));
    for (const [name, bytes] of whole) {
      const flipped = (at: number) =>
        Buffer.from(bytes.map((byte, index) => (index === at ? byte ^ (1 << random.integer(0, 7)) : byte)));
      const damaged = [
        ...Array.from({ length: 12 }, () => flipped(random.integer(0, bytes.length - 2))),
        ...[flipped(0), bytes.subarray(0, random.integer(0, bytes.length - 2)), Buffer.concat([bytes, bytes])],
      ];
      for (const one of damaged) {
        writeFileSync(join(path, name), one);
        const told: string[] = [];
        const found = await readSnapshot(path, (text) => told.push(text));
        const context = `SKEIN_SEED=${SEED}, ${name}`;
        expect(plain(found!), context).toEqual(plain(stateAt(1)));
        expect(told, context).toEqual([expect.stringMatching(/^Snapshot 2 in .* is damaged and is passed over: /)]);
      }
      rmSync(join(path, name));
      expect((await readSnapshot(path, () => {}))!.revision).toBe(1);
      writeFileSync(join(path, name), bytes);
    }
    expect((await readSnapshot(path, silent))!.revision).toBe(2);
    for (const name of ['000001.safetensors', '000002.safetensors']) writeFileSync(join(path, name), 'x');
    await expect(readSnapshot(path, () => {})).rejects.toThrow(/All 2 snapshots in .* are damaged/);
  });

  test('is written by one process at a time, and never loses what is later than the run that writes', async () => {
    const path = folder();
    expect(await readSnapshot(path, silent)).toBeNull();
    const writer = await SnapshotFolder.open(path, WRITER);
    await writer.write(stateAt(5), KEEP);
    await expect(SnapshotFolder.open(path, WRITER)).rejects.toThrow(/Another process writes its snapshots/);
    await writer.close();
    const forgetful = await SnapshotFolder.open(path, WRITER);
    await expect(forgetful.write(stateAt(4), KEEP)).rejects.toThrow(/holds revision 5 of run .*resumeFrom/);
    await forgetful.close();
    const resumed = await SnapshotFolder.open(path, { goesOn: true });
    await resumed.write(stateAt(4), KEEP);
    await resumed.close();
    expect((await readSnapshot(path, silent))!.revision).toBe(4);
  });
});

function sha(data: Uint8Array | string): string {
  return createHash('sha256').update(data).digest('hex');
}
