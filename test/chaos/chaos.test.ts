/** `skein chaos` as a user runs it, on scripts as users write them. */
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import type { Ended } from '../../src/chaos/observations.ts';
import type { Summary } from '../../src/chaos/report.ts';
import { Command } from '../cli/command.ts';
import { ScriptFolder } from '../cli/scripts.ts';
import { requireNamespaces, requireRelay } from '../harness/requirements.ts';

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

/** The same, telling when it is at work. */
const TELLING = TRAIN.replace(
  'await group.allReduce',
  "if (step.boundary === 3) console.log('goes on'); await group.allReduce",
);

/** The same, by somebody who thinks of those that take the machine away. */
const POLITE = `
let leaving = false;
process.once('SIGTERM', () => { leaving = true; });
${TRAIN.replace(/\}\s*$/, '  if (leaving) break;\n}')}
await group.leave();
process.exit();
`;

const BRIEF = ['--minutes', '0.2', '--every', '1', '--calm', '1', '--quiet'];

/** Of runs that this command makes. */
function namespacesOf(chaos: Command): readonly string[] {
  const folder = '/run/netns';
  if (!existsSync(folder)) return [];
  return readdirSync(folder).filter((name) => name.startsWith(`skein${chaos.child.pid}`));
}

/** The process among those that the command started whose command line has this in it. */
function memberOf(chaos: Command, text: string): number {
  const has = (pid: number) => readFileSync(`/proc/${pid}/cmdline`, 'latin1').includes(text);
  return chaos.family().find(has)!; // it must run
}

/** What the command writes as JSON. */
type Report = Summary & { readonly ended: readonly Ended[] };

function readReport(path: string): Report {
  return JSON.parse(readFileSync(path, 'utf8')) as Report; // written by the command
}

describe('skein chaos', () => {
  test('disturbs a script, finds nothing broken, and reports', { timeout: 60_000 }, async () => {
    const [json, html] = [join(folder, 'report.json'), join(folder, 'report.html')];
    const faults = ['--seed', '3', '--faults', 'kill,stop,coordinator', '--json', json, '--html', html];
    await using chaos = Command.skein(['chaos', '-n', '3', ...BRIEF, ...faults, '--', 'node', scripts.write(TRAIN)]);
    expect(`${await chaos.ended} ${chaos.stderr}`).toMatch(/^0 /);
    const { verdict, recoveries, calmRate } = readReport(json);
    expect(verdict).toMatchObject({ broken: [], equalState: true });
    expect(verdict.collectives).toBeGreaterThan(50);
    expect(recoveries.length).toBeGreaterThan(0);
    expect(calmRate).toBeGreaterThan(0);
    expect(readFileSync(html, 'utf8')).toContain('<svg');
    expect(chaos.stdout).toContain('no invariant was broken');
    await chaos.leaves([]);
  });

  test('parts, slows and loses packets in a network of its own, and leaves nothing of it', {
    timeout: 60_000,
  }, async (context) => {
    requireNamespaces(context);
    const json = join(folder, 'network.json');
    const faults = ['--seed', '35', '--faults', 'partition,slow,loss', '--json', json];
    await using chaos = Command.skein(['chaos', '-n', '3', ...BRIEF, ...faults, '--', 'node', scripts.write(TRAIN)]);
    expect(`${await chaos.ended} ${chaos.stderr}`).toMatch(/^0 /);
    expect(readReport(json).verdict).toMatchObject({ broken: [], equalState: true });
    expect(namespacesOf(chaos)).toEqual([]);
    await chaos.leaves([]);
  });

  test('asks peers to end, who leave in good order and come back', { timeout: 60_000 }, async () => {
    const json = join(folder, 'restart.json');
    const faults = ['--seed', '2', '--faults', 'restart', '--json', json];
    await using chaos = Command.skein(['chaos', '-n', '3', ...BRIEF, ...faults, '--', 'node', scripts.write(POLITE)]);
    expect(`${await chaos.ended} ${chaos.stderr}`).toMatch(/^0 /);
    const report = readReport(json);
    expect(report.verdict).toMatchObject({ broken: [], failed: {}, equalState: true });
    const left = report.ended.filter((end) => end.byFault && end.how === 0);
    expect(left.length).toBeGreaterThan(0);
    expect(report.verdict.steps.lost).toBe(0);
    expect(report.verdict.steps.done).toBeGreaterThan(50);
    expect(chaos.stdout).toMatch(/^steps: \d+ done, 0 lost$/m);
  });

  test('slows, delays, re-orders and damages packets, of which no peer is lost and no call fails, and counts them', {
    timeout: 60_000,
  }, async (context) => {
    requireRelay(context);
    const json = join(folder, 'relay.json');
    const faults = ['--seed', '2736', '--faults', 'slow,delay,reorder,corrupt', '--json', json];
    await using chaos = Command.skein(['chaos', '-n', '3', ...BRIEF, ...faults, '--', 'node', scripts.write(TRAIN)]);
    expect(`${await chaos.ended} ${chaos.stderr}`).toMatch(/^0 /);
    const { verdict, packets, ended, recoveries } = readReport(json);
    expect(verdict).toMatchObject({ broken: [], failed: {}, equalState: true });
    // Who is evicted fails, and is started again.
    expect(ended).toEqual([]);
    expect(recoveries.map((one) => one.kind)).toContain('slow');
    expect(packets?.overtook).toBeGreaterThan(0);
    expect(packets?.corrupted).toBeGreaterThan(0);
    expect(namespacesOf(chaos)).toEqual([]);
    await chaos.leaves([]);
  });

  for (const signal of ['SIGINT', 'SIGKILL'] as const)
    test(`leaves nothing behind after ${signal}`, { timeout: 60_000 }, async (context) => {
      requireRelay(context);
      const options = ['--minutes', '1', '--calm', '0', '--seed', '1', '--faults', 'kill,coordinator,corrupt'];
      await using chaos = Command.skein(['chaos', '-n', '2', ...options, '--', 'node', scripts.write(TRAIN)]);
      await expect.poll(() => chaos.stderr, { timeout: 20_000 }).toMatch(/SIGKILL of|are damaged/);
      expect(namespacesOf(chaos)).toHaveLength(4);
      chaos.child.kill(signal);
      if (signal === 'SIGKILL') expect(await chaos.ended).toBe('SIGKILL');
      await chaos.leaves([]);
      await expect.poll(() => namespacesOf(chaos), { timeout: 10_000 }).toEqual([]);
    });

  test.each([
    ['SIGTERM', 143],
    ['SIGINT', 130],
  ] as const)('a %s in the calm run ends all, and judges nothing', { timeout: 60_000 }, async (signal, code) => {
    const json = join(folder, `${signal}.json`);
    const options = ['--minutes', '1', '--calm', '30', '--faults', 'kill', '--json', json];
    await using chaos = Command.skein(['chaos', '-n', '2', ...options, '--', 'node', scripts.write(TELLING)]);
    await chaos.says(/goes on/, 2);
    chaos.child.kill(signal);
    expect(await chaos.ended).toBe(code);
    expect(chaos.stderr).toContain(`interrupted by ${signal}: the run is not judged`);
    expect(chaos.stdout).not.toMatch(/BROKEN|no invariant/);
    expect(existsSync(json)).toBe(false);
    await chaos.leaves([]);
  });

  test('ends when its relay dies in the calm run', { timeout: 60_000 }, async (context) => {
    requireRelay(context);
    const options = ['--minutes', '1', '--calm', '30', '--faults', 'delay'];
    await using chaos = Command.skein(['chaos', '-n', '2', ...options, '--', 'node', scripts.write(TELLING)]);
    await chaos.says(/goes on/, 2);
    process.kill(memberOf(chaos, 'socat'), 'SIGKILL');
    expect(await chaos.ended).toBe(1);
    expect(chaos.stderr).toContain('The relay of packets ended by itself');
    expect(chaos.stdout).not.toMatch(/BROKEN|no invariant/);
    expect(namespacesOf(chaos)).toEqual([]);
    await chaos.leaves([]);
  });

  test.each([
    ['fails at once', 'process.exit(1);', '1'],
    ['never calls', 'await join(); stayAlive();', '1'],
    ['never calls, without a calm run', 'await join(); stayAlive();', '0'],
  ])('gives up a script that %s', { timeout: 60_000 }, async (_, script, calm) => {
    const options = ['--minutes', '10', '--patience', '3', '--calm', calm];
    await using chaos = Command.skein(['chaos', '-n', '2', ...options, '--', 'node', scripts.write(script)]);
    expect(await chaos.ended).toBe(1);
    expect(chaos.stderr.match(/no peer completed a collective within 3 s: given up/g)).toHaveLength(1);
    expect(chaos.stdout).toContain('BROKEN progress: no peer ever completed a collective');
    await chaos.leaves([]);
  });

  test('goes on to its end when the coordinator has died by itself, and tells of it', { timeout: 60_000 }, async () => {
    const options = ['--minutes', '0.2', '--every', '1', '--calm', '0', '--seed', '1', '--faults', 'coordinator'];
    await using chaos = Command.skein(['chaos', '-n', '2', ...options, '--', 'node', scripts.write(TELLING)]);
    await chaos.says(/goes on/, 2);
    process.kill(memberOf(chaos, 'coordinator.json'), 'SIGKILL');
    expect(await chaos.ended).toBe(1);
    expect(chaos.stderr).toContain('SIGKILL of the coordinator');
    expect(chaos.stdout).toContain('the coordinator ended by itself with SIGKILL');
    await chaos.leaves([]);
  });

  test('says what is missing for a fault', async () => {
    const environment = { PATH: '/nonexistent' }; // where system programs are is known without it
    await using chaos = Command.skein(
      ['chaos', '-n', '2', '--faults', 'kill,delay', '--', 'node', 'train.js'],
      environment,
    );
    expect(await chaos.ended).toBe(2);
    expect(chaos.stderr).toMatch(/delay can't be had: (network namespaces need|there is no|the kernel has no)/);
  });

  test('says which invariant a script breaks, and fails', { timeout: 60_000 }, async () => {
    // Never in the run without faults that comes first.
    const falters = TRAIN.replace(
      '\nfor await',
      "\nlet faltering = false; group.on('coordinator-lost', () => { faltering = true; });$&",
    ).replace('await group.allReduce', "if (index === 1 && faltering) throw new Error('a bug of the script'); $&");
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
    expect(await chaos.ended, chaos.stderr).toBe(1);
    expect(chaos.stdout).toContain('BROKEN exit: peer 1 ended with 1, for which no fault is a reason');
  });

  test.each([
    ['an unknown fault', ['--faults', 'kill,flood'], 'kill, restart, stop, coordinator'],
    ['too little time', ['--minutes', '0.05'], 'there is no time for faults'],
  ])('refuses %s', async (_, options, text) => {
    await using chaos = Command.skein(['chaos', '-n', '2', ...options, '--', 'node', 'train.js']);
    expect(await chaos.ended).toBe(2);
    expect(chaos.stderr).toContain(text);
  });
});
