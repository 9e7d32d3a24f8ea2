/** The page that a coordinator shows of its runs: in a real browser, of real runs. */
import { existsSync } from 'node:fs';
import type { Page } from 'playwright-core';
import { Coordinator, makePass } from 'skein';
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest';
import { TellingMembers } from '../../bench/harness/telling-members.ts';
import { TestBrowser } from '../harness/chromium.ts';
import { Cluster, type PeerProcess } from '../harness/cluster.ts';
import { CHROMIUM, requireChromium } from '../harness/requirements.ts';

const TOKEN = 'a secret of this test';
const PATIENCE = { timeout: 20_000 };

let launched: TestBrowser | null = null;
const closing: AsyncDisposable[] = [];

beforeAll(async () => {
  if (existsSync(CHROMIUM)) launched = await TestBrowser.launch();
});

afterAll(async () => void (await launched?.[Symbol.asyncDispose]()));

beforeEach((context) => requireChromium(context));

afterEach(async () => {
  for (const one of closing.splice(0).reverse()) await one[Symbol.asyncDispose]();
});

/** The page, which must not complain: of what its policy forbids, for one. */
async function open(coordinator: Coordinator): Promise<{ page: Page; complaints: string[] }> {
  const page = await launched!.browser.newPage(); // there is a browser
  closing.push({ [Symbol.asyncDispose]: () => page.close() });
  const complaints: string[] = [];
  page.on('pageerror', (error) => complaints.push(error.stack ?? error.message));
  page.on('console', (message) => {
    // That it may not look yet is told by the browser, too.
    if (!/401 \(Unauthorized\)/.test(message.text())) complaints.push(message.text());
  });
  await page.goto(`${coordinator.httpAddress}/dashboard`);
  return { page, complaints };
}

/** Steps until it is told to end. */
async function trains(peer: PeerProcess): Promise<void> {
  void peer
    .run(async ({ state, skein }) => {
      const group = state.group!; // it has joined
      const gradients = new Float32Array(20_000);
      try {
        for (;;) {
          await group.admit();
          await group.allReduce(gradients);
          await new Promise((resolve) => setTimeout(resolve, 30));
        }
      } catch (error) {
        if (!(error instanceof skein.SkeinError)) throw error; // dismissed, or the test is over
      }
    })
    .catch(() => {}); // its process was killed
}

const rows = (page: Page) => page.locator('#peers-body tr');

test('a run appears with its peers; one that is killed is shown as lost; an administrator dismisses one by the keyboard', async () => {
  const cluster = await Cluster.start({ token: TOKEN, http: { port: 0 } });
  closing.push(cluster);
  const { page, complaints } = await open(cluster.coordinator);
  // What is protected says so, and takes a token, which appears in no address.
  await page.getByRole('heading', { name: 'This coordinator is protected' }).waitFor(PATIENCE);
  await page.keyboard.type('a guess');
  await page.keyboard.press('Enter');
  await page.getByText('The token is wrong').waitFor(PATIENCE);
  await page.getByLabel('Token or pass').fill(makePass(TOKEN, { role: 'admin' }));
  await page.keyboard.press('Enter');
  await page.locator('#link[data-state=live]').waitFor(PATIENCE);
  expect(page.url()).toBe(`${cluster.coordinator.httpAddress}/dashboard`);

  const peers = await cluster.form(3, { token: TOKEN, run: 'lm', site: 'oslo', engine: 'inline' });
  for (const peer of peers) await trains(peer);
  await expect.poll(() => rows(page).count(), PATIENCE).toBe(3);
  await expect.poll(() => page.locator('#topology .node').count(), PATIENCE).toBe(3);
  // Its figures come to life.
  await page.locator('#topology .link.flowing').first().waitFor(PATIENCE);
  await expect.poll(() => rows(page).first().locator('td').nth(10).textContent(), PATIENCE).toMatch(/^[1-9]/);
  expect(await page.locator('#legend').textContent()).toBe('oslo · 3');
  await page.getByRole('radio', { name: 'Tree 1' }).check();
  await expect.poll(() => page.locator('#topology .node').count(), PATIENCE).toBe(3);
  await page.getByRole('radio', { name: 'Ring' }).check();

  const [first, second, third] = peers;
  const killed = await third!.run(({ state }) => state.group!.peerId);
  const from = performance.now();
  await third!.kill();
  await page.locator(`#topology .ghost[data-peer="${killed}"]`).waitFor(PATIENCE);
  console.info(`a killed peer is shown as lost after ${Math.round(performance.now() - from)} ms`);
  await page.locator('#log li.loss', { hasText: 'its connections closed' }).waitFor(PATIENCE);
  await expect.poll(() => rows(page).count(), PATIENCE).toBe(2);

  const dismissed = await second!.run(({ state }) => state.group!.peerId);
  await page.getByRole('button', { name: `Dismiss ${dismissed}` }).focus();
  await page.keyboard.press('Enter');
  await page.locator('dialog[open]').waitFor(PATIENCE);
  // What has the focus then is the way back.
  await page.keyboard.press('Enter');
  await page.locator('dialog[open]').waitFor({ state: 'hidden', ...PATIENCE });
  expect(await rows(page).count()).toBe(2);
  await page.keyboard.press('Enter'); // the focus is back where it was
  await page.keyboard.press('Tab');
  await page.keyboard.press('Enter');
  await page.locator('#log li.loss', { hasText: 'it was dismissed by an administrator' }).waitFor(PATIENCE);
  await expect.poll(() => rows(page).count(), PATIENCE).toBe(1);
  expect(await first!.run(({ state }) => state.group!.worldSize)).toBe(1);
  expect(complaints).toEqual([]);
});

test('an observer is told that to dismiss takes more', async () => {
  const cluster = await Cluster.start({ token: TOKEN, http: { port: 0 } });
  closing.push(cluster);
  await cluster.form(1, { token: TOKEN, run: 'lm', engine: 'inline' });
  const { page } = await open(cluster.coordinator);
  await page.getByLabel('Token or pass').fill(makePass(TOKEN, { role: 'observer' }));
  await page.keyboard.press('Enter');
  await page.getByRole('button', { name: /^Dismiss p0/ }).click();
  await page.getByRole('button', { name: 'Dismiss', exact: true }).click();
  await page.getByText('takes a pass for the role admin').waitFor(PATIENCE);
  expect(await rows(page).count()).toBe(1);
});

/** From now on the page keeps what gets the focus, and whether that is seen. */
const WATCH_FOCUS = `
  globalThis.reached = [];
  document.addEventListener('focusin', ({ target: at }) => {
    const { outlineStyle, outlineWidth } = getComputedStyle(at.matches('.segments input') ? at.nextElementSibling : at);
    const name = at.id || at.getAttribute('aria-label') || at.value || at.textContent;
    globalThis.reached.push([name, outlineStyle !== 'none' && parseFloat(outlineWidth) >= 2]);
  });`;

/** All that can be operated and is shown: of a group of radio buttons, the one that is chosen is reached, and the others from it. */
const CONTROLS = `[...document.querySelectorAll('a[href], button, select, input, [tabindex="0"]')]
  .filter((one) => one.checkVisibility() && !one.disabled && (one.type !== 'radio' || one.checked))
  .map((one) => one.id || one.getAttribute('aria-label') || one.value || one.textContent)`;

test('100 peers: the keyboard reaches every control, and what changes is shown at once', async () => {
  const coordinator = await Coordinator.listen({ port: 0, http: { port: 0 } });
  closing.push(coordinator);
  const telling = await TellingMembers.join(coordinator.address, 100);
  closing.push({ [Symbol.asyncDispose]: async () => telling[Symbol.dispose]() });

  const from = performance.now();
  const { page, complaints } = await open(coordinator);
  await rows(page).nth(99).waitFor(PATIENCE);
  const drawn = performance.now() - from;
  const paint = await page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime");
  expect(await page.locator('#topology .node').count()).toBe(100);
  // The figures themselves: a number that members tell each second.
  await expect
    .poll(async () => telling.turn - Number(await rows(page).nth(50).locator('td').nth(9).textContent()), PATIENCE)
    .toBeLessThan(3);
  console.info(`100 peers: first paint after ${Math.round(Number(paint))} ms, all drawn after ${Math.round(drawn)} ms`);

  await page.evaluate(WATCH_FOCUS);
  const wanted = new Set((await page.evaluate(CONTROLS)) as string[]);
  for (let step = 0; step < wanted.size + 5; step++) await page.keyboard.press('Tab');
  const reached = new Map((await page.evaluate('globalThis.reached')) as [string, boolean][]);
  expect(wanted.size).toBeGreaterThan(115);
  expect([...wanted].filter((name) => !reached.has(name))).toEqual([]);
  expect([...reached].filter(([, isSeen]) => !isSeen).map(([name]) => name)).toEqual([]);

  const { members } = telling;
  const gone = members[40]!;
  gone.kill();
  members[41]!.sawClose(gone.peerId);
  await page.locator(`#topology .ghost[data-peer="${gone.peerId}"]`).waitFor(PATIENCE);
  await expect.poll(() => rows(page).count(), PATIENCE).toBe(99);
  expect(complaints).toEqual([]);
});

test('takes nothing from elsewhere, and is part of no other page', async () => {
  await using coordinator = await Coordinator.listen({ port: 0, http: { port: 0 } });
  for (const [path, type] of [
    ['/dashboard', 'text/html; charset=utf-8'],
    ['/dashboard/dashboard.js', 'text/javascript; charset=utf-8'],
    ['/dashboard/dashboard.css', 'text/css; charset=utf-8'],
  ]) {
    const response = await fetch(`${coordinator.httpAddress}${path}`);
    expect([response.status, response.headers.get('content-type')]).toEqual([200, type]);
    const policy = response.headers.get('content-security-policy') ?? '';
    expect(policy).toContain("default-src 'none'");
    expect(policy).toContain("frame-ancestors 'none'");
    expect(policy).not.toContain('unsafe');
    expect((await response.text()).replaceAll('http://www.w3.org/2000/svg', '')).not.toMatch(
      /https?:\/\/(?!\w+\.w3\.org)/,
    );
  }
});
