/** `skein chaos` as a user runs it, on scripts as users write them. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import type { Summary } from '../../src/chaos/report.ts';
import { Command } from '../cli/command.ts';
import { ScriptFolder } from '../cli/scripts.ts';
import { requireNamespaces } from '../harness/requirements.ts';

const scripts = new ScriptFolder();
const folder = mkdtempSync(join(tmpdir(), 'skein-chaos-test-'));
afterAll(() => {
  scripts.remove();
  rmSync(folder, { recursive: true, force: true });
});

const TRAIN = `
const group = await join();
for await (const step of group.steps()) {
  await group.allReduce(new Float32Array(10_000).fill(1));
  await new Promise((resolve) => setTimeout(resolve, 5));
}
`;

const BRIEF = ['--minutes', '0.2', '--every', '1', '--calm', '1', '--quiet'];

function readSummary(path: string): Summary {
  return JSON.parse(readFileSync(path, 'utf8')) as Summary; // written by the command
}

describe('skein chaos', () => {
  test('disturbs a script, finds nothing broken, and reports', { timeout: 60_000 }, async () => {
    const [json, html] = [join(folder, 'report.json'), join(folder, 'report.html')];
    const faults = ['--seed', '3', '--faults', 'kill,stop,coordinator', '--json', json, '--html', html];
    await using chaos = Command.skein(['chaos', '-n', '3', ...BRIEF, ...faults, '--', 'node', scripts.write(TRAIN)]);
    expect(`${await chaos.ended} ${chaos.stderr}`).toMatch(/^0 /);
    const { verdict, recoveries, calmRate } = readSummary(json);
    expect(verdict).toMatchObject({ broken: [], equalState: true });
    expect(verdict.collectives).toBeGreaterThan(50);
    expect(recoveries.length).toBeGreaterThan(0);
    expect(calmRate).toBeGreaterThan(0);
    expect(readFileSync(html, 'utf8')).toContain('<svg');
    expect(chaos.stdout).toContain('no invariant was broken');
    expect(chaos.family()).toEqual([]);
  });

  test('parts, slows and loses packets in a network of its own, and leaves nothing of it', {
    timeout: 60_000,
  }, async (context) => {
    requireNamespaces(context);
    const json = join(folder, 'network.json');
    const faults = ['--seed', '5', '--faults', 'partition,slow,loss', '--json', json];
    await using chaos = Command.skein(['chaos', '-n', '3', ...BRIEF, ...faults, '--', 'node', scripts.write(TRAIN)]);
    expect(`${await chaos.ended} ${chaos.stderr}`).toMatch(/^0 /);
    expect(readSummary(json).verdict).toMatchObject({ broken: [], equalState: true });
  });

  test('says which invariant a script breaks, and fails', { timeout: 60_000 }, async () => {
    const falters = `${TRAIN.replace('await group.allReduce', "if (index === 1 && step.boundary > 30) throw new Error('a bug of the script'); await group.allReduce")}`;
    await using chaos = Command.skein([
      'chaos',
      '-n',
      '2',
      ...BRIEF,
      '--seed',
      '1',
      '--faults',
      'coordinator',
      '--',
      'node',
      scripts.write(falters),
    ]);
    expect(await chaos.ended).toBe(1);
    expect(chaos.stdout).toContain('BROKEN exit: peer 1 ended with 1, and no fault had hit it');
  });

  test.each([
    ['an unknown fault', ['--faults', 'kill,flood'], 'kill, stop, coordinator'],
    ['too little time', ['--minutes', '0.05'], 'there is no time for faults'],
  ])('refuses %s', async (_, options, text) => {
    await using chaos = Command.skein(['chaos', '-n', '2', ...options, '--', 'node', 'train.js']);
    expect(await chaos.ended).toBe(2);
    expect(chaos.stderr).toContain(text);
  });
});
