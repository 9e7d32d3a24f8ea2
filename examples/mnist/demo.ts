/**
 * `npm run demo`: four processes train on real digits under `skein launch`, twice. The second time one of them is killed with
 * SIGKILL in the middle of an all-reduce, is started again, and joins. Ends with a table, and with an error when the
 * peers' weights differ, the accuracy suffered, or nothing happened that should have.
 */
import { spawn } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import Table from 'cli-table3';
import pc from 'picocolors';
import type { PeerResult } from './train.ts';

const PEERS = 4;
const FIRST_KILL_STEP = 60;
const LAST_KILL_STEP = 120;
/** No run takes longer than this (ms). */
const DEADLINE_MS = 120_000;
const TOLERANCE = 0.01;

interface Progress {
  readonly type: 'progress';
  readonly step: number;
  readonly of: number;
  readonly loss: number;
  readonly worldSize: number;
  readonly epoch: number;
}

interface Run {
  readonly exitCode: number | null;
  readonly results: readonly PeerResult[];
  readonly seconds: number;
}

const file = (path: string) => fileURLToPath(new URL(path, import.meta.url));

/** Lines of peers that carry a message: `[peer 2] {…}`. */
function messageIn(line: string): Progress | PeerResult | null {
  const start = line.indexOf('{"type":');
  if (start < 0) return null;
  return JSON.parse(line.slice(start)) as Progress | PeerResult; // written by train.ts
}

function run(title: string, environment: Record<string, string>): Promise<Run> {
  const startedAt = performance.now();
  const results: PeerResult[] = [];
  const command = [
    file('../../src/cli/main.js'),
    'launch',
    '-n',
    String(PEERS),
    '--restart',
    '--',
    process.execPath,
    file('train.js'),
  ];
  const launch = spawn(process.execPath, command, {
    env: { ...process.env, ...environment },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const deadline = setTimeout(() => launch.kill('SIGTERM'), DEADLINE_MS);
  const show = (text: string) => process.stdout.write(process.stdout.isTTY ? `\r\x1b[K${text}` : `${text}\n`);
  createInterface({ input: launch.stdout }).on('line', (line) => {
    const message = messageIn(line);
    if (message?.type === 'result') results.push(message);
    else if (message?.type === 'progress') {
      const { step, of, loss, worldSize, epoch } = message;
      const bar = '█'.repeat(Math.round((24 * step) / of)).padEnd(24, '·');
      show(`${title} ${bar} step ${step}/${of}  loss ${loss.toFixed(3)}  world size ${worldSize}  epoch ${epoch}`);
    } else {
      show(`${line}\n`);
    }
  });
  createInterface({ input: launch.stderr }).on('line', (line) =>
    show(`${pc.dim(line)}${process.stdout.isTTY ? '\n' : ''}`),
  );
  return new Promise((resolve) => {
    launch.on('close', (exitCode) => {
      clearTimeout(deadline);
      if (process.stdout.isTTY) process.stdout.write('\n');
      resolve({ exitCode, results, seconds: (performance.now() - startedAt) / 1_000 });
    });
  });
}

const percent = (share: number) => `${(100 * share).toFixed(2)} %`;
const milliseconds = (values: readonly number[]) =>
  values.length === 0 ? 'none' : values.map((value) => `${value.toFixed(1)} ms`).join(', ');

/** What is wrong with the two runs; empty when all is well. */
function faults(calm: Run, disturbed: Run): string[] {
  const found: string[] = [];
  for (const [name, one] of [
    ['undisturbed', calm],
    ['disturbed', disturbed],
  ] as const) {
    if (one.exitCode !== 0) found.push(`the ${name} run ended with exit code ${one.exitCode}`);
    if (one.results.length !== PEERS) found.push(`${one.results.length} of ${PEERS} peers finished the ${name} run`);
    if (new Set(one.results.map((result) => result.hash)).size > 1)
      found.push(`the peers of the ${name} run differ in their weights`);
  }
  const [before, after] = [calm.results[0], disturbed.results[0]];
  if (before === undefined || after === undefined) return found;
  if (Math.abs(before.accuracy - after.accuracy) > TOLERANCE)
    found.push('the accuracies differ by more than one point');
  if (!disturbed.results.some((result) => result.retried.length > 0)) found.push('the kill did not hit an all-reduce');
  if (!disturbed.results.some((result) => result.admissions.length > 0)) found.push('no newcomer was admitted');
  return found;
}

function printTable(calm: Run, disturbed: Run): void {
  const table = new Table({ head: ['', 'undisturbed', 'one peer killed'], style: { head: [] } });
  const survivor = disturbed.results.find((result) => result.retried.length > 0);
  const history = (one: Run) => {
    const longest = [...one.results].sort((left, right) => right.history.length - left.history.length)[0];
    return (
      longest?.history
        .map(({ step, epoch, worldSize }) => `epoch ${epoch}: ${worldSize} peers from step ${step}`)
        .join('\n') ?? ''
    );
  };
  const hashes = (one: Run) => one.results.map(({ peerId, hash }) => `${peerId}  ${hash.slice(0, 16)}`).join('\n');
  const accuracy = (one: Run) => (one.results[0] === undefined ? '–' : percent(one.results[0].accuracy));
  table.push(
    ['test accuracy', accuracy(calm), accuracy(disturbed)],
    ['epochs', history(calm), history(disturbed)],
    ['time lost to the kill', '–', milliseconds(survivor?.retried.map((one) => one.lostMs) ?? [])],
    ['cost of the admission', '–', milliseconds(survivor?.admissions.map((one) => one.costMs) ?? [])],
    ['weights (SHA-256)', hashes(calm), hashes(disturbed)],
    ['duration', `${calm.seconds.toFixed(1)} s`, `${disturbed.seconds.toFixed(1)} s`],
  );
  console.log(table.toString());
}

const seed = Number(process.env['DEMO_SEED'] ?? randomInt(1_000_000));
const killStep = FIRST_KILL_STEP + (seed % (LAST_KILL_STEP - FIRST_KILL_STEP));
const killRank = 1 + (Math.floor(seed / 1_000) % (PEERS - 1));
console.log(
  `Four peers train a perceptron on handwritten digits. In the second run rank ${killRank} is killed in the all-reduce`,
);
console.log(`of step ${killStep} (repeat with DEMO_SEED=${seed}).\n`);
const calm = await run('undisturbed', {});
const disturbed = await run('disturbed  ', { DEMO_KILL_STEP: String(killStep), DEMO_KILL_RANK: String(killRank) });
printTable(calm, disturbed);
const wrong = faults(calm, disturbed);
for (const fault of wrong) console.error(pc.red(`✗ ${fault}`));
if (wrong.length === 0) console.log(pc.green('✓ All peers hold the same weights, and the kill cost no accuracy.'));
process.exitCode = wrong.length === 0 ? 0 : 1;
