// Makes the pictures of README.md anew, from a real run in a real Chromium: `npm run pictures`, after a build. Six peers of three sites
// train; one is killed, one is slow and one comes late.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { chromium } from 'playwright-core';
import { Coordinator, join } from '../dist/src/index.js';

const SELF = fileURLToPath(import.meta.url);
const FOLDER = fileURLToPath(new URL('../docs/images/', import.meta.url));
const SITES = ['zürich', 'zürich', 'oslo', 'oslo', 'lisbon', 'lisbon'];

/** One peer: a step takes as long as it says, and ends with an all-reduce. */
async function train() {
  setTimeout(() => process.exit(), 300_000).unref();
  const { WHERE, SITE, SLOW } = process.env;
  const group = await join(WHERE, { run: 'language-model', site: SITE, startWorldSize: SITES.length - 1 });
  const gradients = new Float32Array(1 << 18);
  for (let step = 0; ; step++) {
    await group.admit();
    await delay(SLOW !== '' && step > 60 ? 1_200 : 60 + 40 * Math.random());
    await group.allReduce(gradients);
  }
}

const children = new Set();

function start(where, site, slow) {
  const env = { ...process.env, WHERE: where, SITE: site, SLOW: slow ? 'yes' : '' };
  const child = spawn(process.execPath, [SELF, 'peer'], { env, stdio: ['ignore', 'ignore', 'inherit'] });
  children.add(child);
  child.once('exit', () => children.delete(child));
  return child;
}

async function picture(page, name, scheme, clip) {
  await page.emulateMedia({ colorScheme: scheme, reducedMotion: 'reduce' });
  await delay(1_200);
  await page.screenshot({ path: `${FOLDER}${name}-${scheme}.png`, ...(clip === undefined ? {} : { clip }) });
}

async function make() {
  const coordinator = await Coordinator.listen({ port: 0, http: { port: 0 } });
  const browser = await chromium.launch({
    executablePath: process.env.SKEIN_CHROMIUM ?? '/usr/bin/chromium',
    args: ['--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking'],
  });
  try {
    await mkdir(FOLDER, { recursive: true });
    const page = await browser.newPage({ viewport: { width: 1360, height: 1000 } });
    const complaints = [];
    page.on('console', (message) => complaints.push(message.text()));
    page.on('pageerror', (error) => complaints.push(error.stack));
    await page.goto(`${coordinator.httpAddress}/dashboard`);
    const peers = SITES.slice(0, -1).map((site, index) => start(coordinator.address, site, index === 3));
    await page
      .locator('#peers-body tr')
      .nth(SITES.length - 2)
      .waitFor({ timeout: 90_000 });
    await delay(12_000);
    start(coordinator.address, SITES.at(-1), false);
    await page
      .locator('#peers-body tr')
      .nth(SITES.length - 1)
      .waitFor({ timeout: 60_000 });
    await delay(5_000);
    await picture(page, 'dashboard', 'light');
    peers[1].kill('SIGKILL');
    await page.locator('#log .loss').first().waitFor();
    await delay(400);
    await picture(page, 'dashboard', 'dark');
    if (complaints.length > 0) throw new Error(`The page complains: ${complaints.join('\n')}`);
  } finally {
    await browser.close();
    for (const child of children) {
      child.kill('SIGKILL');
      await once(child, 'exit');
    }
    await coordinator.close();
  }
}

await (process.argv[2] === 'peer' ? train() : make());
