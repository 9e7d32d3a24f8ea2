import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { appendFileSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { describe, expect, onTestFinished, test } from 'vitest';
import { Ledger } from '../../src/engine/ledger.ts';
import { ArgumentError } from '../../src/errors.ts';
import { fileStore } from '../../src/store/file.ts';
import { type Change, type Store, StoreError } from '../../src/store/store.ts';
import { built } from '../harness/built.ts';
import { Random } from '../sim/random.ts';
import { Crash, CrashFiles } from './crash-files.ts';

const PATH = '/store';

/** What a store says, to be compared. */
async function textOf(store: Store): Promise<string> {
  return JSON.stringify((await store.list('')).map(({ key, value }) => [key, value]));
}

/** Long enough that the journal is begun anew now and then. */
const CHANGES: readonly (readonly Change[])[] = Array.from({ length: 60 }, (_, index) => {
  const put = { put: `runs/${index % 7}`, value: `${index} ${'x'.repeat((index * 977) % 9_000)}` };
  return index % 5 === 4 ? [put, { delete: `runs/${(index + 3) % 7}` }] : [put];
});

/** Writes all, and says how far it came. */
async function writeAll(files: CrashFiles, from: number): Promise<number> {
  let acknowledged = from;
  try {
    const store = await fileStore(PATH, files);
    for (const changes of CHANGES.slice(from)) {
      await store.commit([], changes);
      acknowledged += 1;
    }
  } catch (error) {
    if (!(error instanceof Crash) && !(error instanceof StoreError && error.cause instanceof Crash)) throw error;
  }
  return acknowledged;
}

describe('a file', () => {
  test('whose process or machine ends at any write holds what was acknowledged, and at most what was begun', async () => {
    const states = ['[]'];
    const whole = new CrashFiles(new Random(1), Number.POSITIVE_INFINITY);
    const store = await fileStore(PATH, whole);
    for (const changes of CHANGES) {
      await store.commit([], changes);
      states.push(await textOf(store));
    }
    expect(whole.operations).toBeGreaterThan(2 * CHANGES.length + 8);
    const seed = Number(process.env['SKEIN_SEED'] ?? Date.now() % 1_000_000);
    const random = new Random(seed);
    for (let at = 0; at < whole.operations; at++) {
      for (const power of [false, true, true, true]) {
        const files = new CrashFiles(random, at);
        const acknowledged = await writeAll(files, 0);
        // And once more while it is repaired, and a few writes later.
        const again = files.after(power, random.integer(0, 6));
        const found = states.indexOf(await textOf(await fileStore(PATH, again.after(false))));
        const context = `SKEIN_SEED=${seed}, operation ${at}, ${power ? 'power' : 'kill'}`;
        expect([acknowledged, acknowledged + 1], context).toContain(found);
        const further = await writeAll(again, found);
        const last = states.indexOf(await textOf(await fileStore(PATH, again.after(power))));
        expect([further, further + 1], `${context}, twice`).toContain(last);
      }
    }
  });

  function path(): string {
    const folder = mkdtempSync(`${tmpdir()}/skein-file-`);
    onTestFinished(() => rmSync(folder, { recursive: true }));
    return `${folder}/store`;
  }

  test('whose process is killed in the middle of its writes goes on where it was', async () => {
    const file = path();
    let least = 0;
    for (let round = 0; round < 4; round++) {
      const child = spawn(process.execPath, [built('test/store/writer.ts'), file], {
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      const deadline = setTimeout(() => child.kill('SIGKILL'), 20_000);
      let text = '';
      child.stdout.on('data', (bytes: Buffer) => {
        text += bytes.toString();
      });
      await once(child.stdout, 'data');
      await delay(50 + 37 * round);
      child.kill('SIGKILL');
      await once(child, 'close');
      clearTimeout(deadline);
      const acknowledged = Number(text.trimEnd().split('\n').at(-1));
      expect(acknowledged).toBeGreaterThan(least);
      const store = await fileStore(file);
      least = Number((await store.get('count'))!.value);
      await store.close();
      expect(least).toBeGreaterThanOrEqual(acknowledged);
    }
  });

  test('that is damaged in its middle, or holds something else, is refused', async () => {
    const file = path();
    const store = await fileStore(file);
    for (const value of ['1', '2', '3']) await store.commit([], [{ put: 'a', value }]);
    await store.close();
    const text = readFileSync(file, 'utf8');
    appendFileSync(file, text.split('\n')[1]!.slice(0, 30));
    const mended = await fileStore(file);
    expect((await mended.get('a'))!.value).toBe('3'); // only the end was half-written
    await mended.close();
    expect(readFileSync(file, 'utf8')).toBe(text);
    for (const wrong of [
      text.replace('"1"', '"7"'),
      text.replace('skein store 1', 'skein store 2'),
      'hello\n',
      '{"a":1}',
    ]) {
      writeFileSync(file, wrong);
      await expect(fileStore(file)).rejects.toThrow(ArgumentError);
    }
  });

  test('has one coordinator at a time: a second one, here or in another process, is refused', async () => {
    const file = path();
    const other = spawn(process.execPath, [built('test/store/writer.ts'), file], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const deadline = setTimeout(() => other.kill('SIGKILL'), 20_000);
    await once(other.stdout, 'data');
    await expect(fileStore(file)).rejects.toThrow(/is the store of a coordinator that runs/);
    other.kill('SIGSTOP');
    await expect(fileStore(file)).rejects.toThrow(ArgumentError);
    other.kill('SIGKILL');
    await once(other, 'close');
    clearTimeout(deadline);
    for (let round = 0; round < 5; round++) {
      // Of many that come after it, one gets what it left.
      const attempts = await Promise.allSettled(Array.from({ length: 8 }, () => fileStore(file)));
      const opened = attempts.filter((attempt) => attempt.status === 'fulfilled');
      expect(opened).toHaveLength(1);
      await opened[0]!.value.close();
    }
    expect(readdirSync(dirname(file))).toEqual(['store']);
    await (await fileStore(file)).close();
  });

  test('of an earlier release is read, with its passes or without', async () => {
    const file = path();
    const run = { term: 2, epoch: 7, members: ['p0'] };
    const pass = { id: 'of a pass', by: 'p0', expires: 12 };
    for (const text of [
      { 'l m': run, runs: run },
      { runs: { 'l m': run, runs: run }, usedPasses: [pass] },
    ]) {
      writeFileSync(file, JSON.stringify(text));
      for (let opened = 0; opened < 2; opened++) {
        const store = await fileStore(file);
        const ledger = await Ledger.open(store, null);
        expect([ledger.load('l m'), ledger.load('runs'), ledger.load('x')]).toEqual([run, run, null]);
        expect(ledger.usedPasses).toEqual('usedPasses' in text ? [pass] : []);
        await store.close();
      }
    }
  });
});
