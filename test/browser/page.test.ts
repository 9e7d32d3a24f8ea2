/** The page of `skein coordinator --serve-page`. */
import { afterEach, beforeEach, expect, test } from 'vitest';
import { Command } from '../cli/command.ts';
import { TestBrowser } from '../harness/chromium.ts';
import { requireChromium } from '../harness/requirements.ts';

const TOKEN = 'a-secret-of-this-test';

const closing: AsyncDisposable[] = [];

beforeEach((context) => requireChromium(context));

afterEach(async () => {
  for (const one of closing.splice(0).reverse()) await one[Symbol.asyncDispose]();
});

/** The page's values by their ids, as code to be run in it. */
const text = (id: string): string => `document.getElementById('${id}').textContent`;

/** From now on the page keeps what it shows of the picture: a hash for each boundary. */
const RECORD = `
  globalThis.pictures = new Map();
  new MutationObserver(() => {
    const [hash, boundary] = ${text('hash')}.split(' at boundary ');
    globalThis.pictures.set(Number(boundary), hash);
  }).observe(document.getElementById('hash'), { childList: true });`;

const PICTURES = '[...globalThis.pictures]';

test('visitors of its link join the run, see one another, and draw one picture', async () => {
  const command = Command.skein(['coordinator', '--port', '0', '--http-port', '0', '--serve-page'], {
    SKEIN_TOKEN: TOKEN,
  });
  closing.push(command);
  await command.says(/Ctrl-C ends it/);
  expect(command.stdout).toMatch(/^Peers in browsers join it by ws:\/\/127\.0\.0\.1:\d+$/m);
  const link = /^Visitors of (http:\S+) join/m.exec(command.stdout)?.[1] ?? '';
  expect(link).toMatch(/#run=picture&token=…$/);
  const launched = await TestBrowser.launch();
  closing.push(launched);
  const { browser } = launched;

  // Who does not know the token is told so.
  const stranger = await browser.newPage();
  await stranger.goto(link.replace('…', 'another'));
  await stranger.waitForFunction("/does not know this token/.test(document.querySelector('output').textContent)");
  await stranger.close();

  const [one, other] = [await browser.newPage(), await browser.newPage()];
  for (const page of [one, other]) await page.goto(link.replace('…', TOKEN));
  for (const page of [one, other]) {
    await page.waitForFunction(
      `${text('members')} === '2' && document.querySelector('tbody').textContent.includes('webrtc')`,
    );
    await page.evaluate(RECORD);
  }
  expect(await one.evaluate('globalThis.crossOriginIsolated')).toBe(true);
  await Promise.all([one, other].map((page) => page.waitForFunction(`${PICTURES}.length > 20`)));
  const seen = new Map((await one.evaluate(PICTURES)) as [number, string][]);
  const alike = ((await other.evaluate(PICTURES)) as [number, string][]).filter(([boundary]) => seen.has(boundary));
  expect(alike.length).toBeGreaterThan(10);
  for (const [boundary, hash] of alike) expect(hash).toBe(seen.get(boundary));
  expect(new Set(seen.values()).size).toBeGreaterThan(10);

  // Whoever leaves is not missed.
  await other.click('button[name=leave]');
  await one.waitForFunction(`${text('members')} === '1'`);
  expect(await other.locator('output').textContent()).toBe('Left.');
});
