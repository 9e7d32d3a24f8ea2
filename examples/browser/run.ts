/**
 * `npm run example:browser`: a tab of a headless Chromium and three Node processes train on digits together; the tab is closed in
 * the middle, and the processes go on. Ends with an error when something did not happen that should have.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { copyFileSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import Table from 'cli-table3';
import pc from 'picocolors';
import { type Browser, chromium } from 'playwright-core';
import { Coordinator } from '../../src/index.ts';
import { loadDigits } from '../mnist/data.ts';
import { packImages } from './digits.ts';
import type { PeerReport } from './peer.ts';
import type { Progress } from './training.ts';

const PROCESSES = 3;
const RUN = 'digits';
const STEPS = Number(process.env['EXAMPLE_STEPS'] ?? 150);
const CLOSE_STEP: number = Math.floor(STEPS / 3);
/** The whole example takes no longer (ms). */
const DEADLINE_MS = 150_000;
const BROWSER = process.env['SKEIN_CHROMIUM'] ?? '/usr/bin/chromium';
const FLAGS = ['--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking', '--disable-sync'];

const file = (path: string): string => fileURLToPath(new URL(path, import.meta.url));

type Result = Extract<PeerReport, { type: 'result' }>;
type StepReport = Extract<PeerReport, { type: 'step' }>;

class Peer {
  readonly steps: StepReport[] = [];
  readonly result: Promise<Result>;
  readonly #child: ChildProcess;

  constructor(address: string, onStep: (report: StepReport) => void) {
    this.#child = fork(file('peer.js'), [address, RUN, String(PROCESSES + 1), String(STEPS)]);
    this.result = new Promise((resolve, reject) => {
      this.#child.on('message', (report: PeerReport) => {
        if (report.type === 'result') resolve(report);
        else {
          this.steps.push(report);
          onStep(report);
        }
      });
      this.#child.once('exit', (code, signal) => reject(new Error(`a process ended early (${signal ?? code})`)));
    });
  }

  /** How it reached the others when it last reached all of them: of the last step with the tab it may tell when the tab has gone. */
  get paths(): StepReport['paths'] {
    const isWhole = ({ worldSize, paths }: StepReport) => worldSize > PROCESSES && !paths.includes(null);
    return this.steps.findLast(isWhole)?.paths ?? [];
  }

  end(): void {
    this.#child.kill('SIGKILL');
  }
}

/** What the page loads: the bundle, and the digits. */
function makeFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'skein-example-'));
  for (const name of readdirSync(file('page'))) copyFileSync(join(file('page'), name), join(folder, name));
  const { training } = loadDigits();
  writeFileSync(join(folder, 'images.bin'), packImages(training));
  writeFileSync(
    join(folder, 'labels.bin'),
    Uint8Array.from(training, ({ label }) => label),
  );
  return folder;
}

/** Opens the tab, and closes it at its step `CLOSE_STEP`, or the first later one by which all processes reach it; resolves when it is gone. */
async function visit(browser: Browser, httpAddress: string, isReached: () => boolean): Promise<void> {
  const page = await browser.newPage();
  const mayClose = new Promise<number>((resolve, reject) => {
    page.on('pageerror', reject);
    page.on('console', (message) => {
      const text = message.text();
      if (!text.startsWith('{')) return;
      const told = JSON.parse(text) as { type: string; message?: string; peerId?: string; step?: number }; // by tab.ts
      if (told.type === 'failed') reject(new Error(`the tab failed: ${told.message}`));
      if (told.type === 'joined') console.log(`The tab has joined as ${told.peerId}.`);
      if (told.type === 'step' && told.step! >= CLOSE_STEP && isReached()) resolve(told.step!);
    });
  });
  await page.goto(`${httpAddress}/#run=${RUN}&peers=${PROCESSES + 1}&steps=${STEPS}`);
  const step = await mayClose;
  console.log(pc.yellow(`The tab is closed after its step ${step}.`));
  await page.close();
}

const isReachedByWebRtc = ({ paths }: Peer): boolean => paths.includes('webrtc');

function median(values: readonly number[]): number {
  return [...values].sort((left, right) => left - right)[values.length >> 1] ?? 0;
}

const milliseconds = (ms: number): string => `${ms.toFixed(0)} ms`;

function printTable(results: readonly Result[], steps: readonly Progress[]): void {
  const change = steps.findIndex(({ worldSize }) => worldSize === PROCESSES);
  const table = new Table({ style: { head: [] } });
  table.push(
    ['test accuracy', `${(100 * results[0]!.accuracy).toFixed(2)} %`],
    ['loss, first and last step', `${steps[0]!.loss.toFixed(3)}, ${steps.at(-1)!.loss.toFixed(3)}`],
    ['steps with the tab, without', `${change}, ${steps.length - change}`],
    [
      'a step with the tab, without',
      [steps.slice(1, change), steps.slice(change + 1)]
        .map((some) => milliseconds(median(some.map((step) => step.elapsed))))
        .join(', '),
    ],
    ['the step in which it was closed', milliseconds(steps[change]?.elapsed ?? 0)],
    ['ways to the others', peers[0]!.paths.join(', ')],
    ['weights (SHA-256)', results.map(({ hash }) => hash.slice(0, 16)).join('\n')],
  );
  console.log(table.toString());
}

/** What is wrong; empty when all is well. */
function faults(results: readonly Result[], steps: readonly Progress[]): string[] {
  const found: string[] = [];
  if (new Set(results.map(({ hash }) => hash)).size > 1) found.push('the processes differ in their weights');
  if (steps.length !== STEPS) found.push(`${steps.length} of ${STEPS} steps were made`);
  if (steps[0]?.worldSize !== PROCESSES + 1) found.push('the tab did not train along');
  if (steps.at(-1)?.worldSize !== PROCESSES) found.push('the tab was not closed');
  if (!peers.every(isReachedByWebRtc)) found.push('the tab was not reached by WebRTC');
  if (!(steps.at(-1)!.loss < steps[0]!.loss / 2)) found.push('nothing was learnt');
  return found;
}

const folder = makeFolder();
const coordinator = await Coordinator.listen({ port: 0, http: { port: 0, folder } });
const peers: Peer[] = [];
const deadline = setTimeout(() => {
  console.error(`The example took longer than ${DEADLINE_MS / 1_000} s.`);
  process.exit(1);
}, DEADLINE_MS);
process.once('exit', () => {
  for (const peer of peers) peer.end();
  rmSync(folder, { recursive: true, force: true });
});
const browser = await chromium.launch({ executablePath: BROWSER, args: FLAGS }).catch((error: unknown) => {
  throw new Error(`Chromium could not be started (scripts/setup-system.sh installs it): ${error}`);
});
console.log(`A tab and ${PROCESSES} processes train on digits.`);
for (let index = 0; index < PROCESSES; index++) {
  peers.push(
    new Peer(coordinator.address, ({ step, loss, worldSize, epoch }) => {
      if (index > 0 || step % Math.ceil(STEPS / 15) !== 0) return;
      console.log(`step ${step}/${STEPS}  loss ${loss.toFixed(3)}  world size ${worldSize}  epoch ${epoch}`);
    }),
  );
}
const [results] = await Promise.all([
  Promise.all(peers.map((peer) => peer.result)),
  visit(browser, coordinator.httpAddress!, () => peers.every(isReachedByWebRtc)), // its address was asked for
]);
const { steps } = peers[0]!;
printTable(results, steps);
const wrong = faults(results, steps);
for (const fault of wrong) console.error(pc.red(`✗ ${fault}`));
if (wrong.length === 0)
  console.log(pc.green('✓ The tab trained along and went, and the processes hold the same weights.'));
process.exitCode = wrong.length === 0 ? 0 : 1;
clearTimeout(deadline);
await browser.close();
await coordinator.close();
