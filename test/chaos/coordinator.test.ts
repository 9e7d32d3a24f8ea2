/** The coordinator of a run of chaos, with a program in its place that listens when it is told to. */
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { MortalCoordinator } from '../../src/chaos/coordinator.ts';

/** Says that it listens when there is a file for it, and ends when there is another; that it lives is told by a third. */
const PROGRAM = `
const fs = require('node:fs');
const [folder] = process.argv.slice(1);
fs.writeFileSync(folder + '/lives', '');
setInterval(() => {
  if (fs.existsSync(folder + '/listens')) console.log('tcp://127.0.0.1:7400');
  if (fs.existsSync(folder + '/ends')) process.exit(3);
}, 10);
setTimeout(() => process.exit(1), 20_000);
`;

let folder = '';
let coordinator: MortalCoordinator | null = null;
const at = (name: string) => join(folder, name);
const listens = (does: boolean) => (does ? writeFileSync(at('listens'), '') : rmSync(at('listens')));
const atOnce = async () => {};

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'skein-mortal-'));
  listens(true);
  const command = [process.execPath, '-e', PROGRAM, folder] as const;
  coordinator = await MortalCoordinator.start({ command, environment: process.env }, 0);
});
afterEach(() => {
  coordinator?.close();
  rmSync(folder, { recursive: true, force: true });
});

test('may be killed again before it says that it listens: peers can know it sooner', async () => {
  listens(false);
  rmSync(at('lives'));
  const first = coordinator!.restart(atOnce);
  await expect.poll(() => existsSync(at('lives')), { timeout: 10_000 }).toBe(true);
  const second = coordinator!.restart(atOnce);
  await first;
  listens(true);
  await second;
  expect(coordinator!.address).toBe('tcp://127.0.0.1:7400');
  expect(coordinator!.ends).toEqual([]);
});

test('one that ends by itself before it listens is told of, with how it ended', async () => {
  listens(false);
  const restarted = coordinator!.restart(async () => writeFileSync(at('ends'), ''));
  await expect(restarted).rejects.toThrow(/ended with exit code 3 before it listened/);
  expect(coordinator!.ends).toEqual([3]);
});
