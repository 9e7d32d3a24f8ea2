/**
 * Peers in tabs of a headless Chromium. Each browser has a deadline, and none outlives its test. As with peer processes, a test
 * sends functions and gets their results. Used with `await using`.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Browser, chromium, type Page } from 'playwright-core';
import type { Place } from './cluster.ts';
import type { PeerScope } from './peer-process.ts';
import { CHROMIUM } from './requirements.ts';

/** No browser lives longer than this (ms), unless its test says so; one may serve all tests of a file. */
const BROWSER_DEADLINE_MS = 240_000;

const FLAGS = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];

/** Gives a tab what `PeerProcess` offers as well, from the built bundle. */
const SCOPE = `
  import * as skein from './skein.js';
  import * as diloco from './diloco.js';
  import * as notes from './notes.js';
  globalThis.scope = { skein, diloco, notes, state: {}, tell: (text) => console.info('told ' + text) };
`;

export class Tab {
  readonly page: Page;
  readonly #told: string[] = [];
  readonly #listeners: Map<string, () => void> = new Map();
  /** Hears all that the tab tells. */
  onTold: (text: string) => void = () => {};

  /** @param httpAddress of a coordinator that serves the bundle */
  static async open(browser: Browser, httpAddress: string): Promise<Tab> {
    const page = await browser.newPage();
    const tab = new Tab(page);
    await page.goto(httpAddress);
    await tab.#prepare();
    return tab;
  }

  async #prepare(): Promise<void> {
    await this.page.addScriptTag({ type: 'module', content: SCOPE });
    await this.page.waitForFunction('globalThis.scope !== undefined');
  }

  private constructor(page: Page) {
    this.page = page;
    page.on('pageerror', (error) => console.error(`a tab: ${error.stack ?? error.message}`));
    page.on('console', (message) => {
      const text = message.text();
      if (!text.startsWith('told ')) {
        console.info(`a tab: ${text}`);
        return;
      }
      this.#told.push(text.slice(5));
      this.#listeners.get(text.slice(5))?.();
      this.onTold(text.slice(5));
    });
  }

  /** Runs a function in the tab; only its text and the argument cross. */
  async run<T, A = undefined>(body: (scope: PeerScope, argument: A) => T | Promise<T>, argument?: A): Promise<T> {
    const call = `(${body.toString()})(globalThis.scope, ${JSON.stringify(argument ?? null)})`;
    // The value is what `body` returned, as far as it survives being sent between processes.
    return (await this.page.evaluate(call)) as T;
  }

  /** Resolves when the tab tells this text. */
  told(text: string): Promise<void> {
    if (this.#told.includes(text)) return Promise.resolve();
    return new Promise((resolve) => this.#listeners.set(text, resolve));
  }

  /** As by the user's hand: nothing is left of what ran in it. */
  async reload(): Promise<void> {
    await this.page.reload();
    await this.#prepare();
  }

  close(): Promise<void> {
    return this.page.close();
  }

  /** Its process ends at once. */
  async crash(): Promise<void> {
    const session = await this.page.context().newCDPSession(this.page);
    const crashed = new Promise((resolve) => this.page.once('crash', resolve));
    // It is not answered.
    session.send('Page.crash').catch(() => {});
    await crashed;
  }
}

export interface BrowserOptions {
  /** Where it runs. @default where the test does */
  readonly place?: Place;
  /** Origin that counts as one of https, so that its pages may be cross-origin isolated. @default none */
  readonly trustedOrigin?: string;
  readonly deadlineMs?: number;
  /** Besides those that every one has. @default none */
  readonly flags?: readonly string[];
}

/** A script that starts Chromium there: Playwright puts its own arguments first. */
function scriptFor(place: Place, folder: string): string {
  const quoted = place.wrap([CHROMIUM]).map((word) => `'${word}'`);
  const path = join(folder, 'chromium');
  writeFileSync(path, `#!/bin/sh\nexec ${quoted.join(' ')} "$@"\n`, { mode: 0o700 });
  return path;
}

export class TestBrowser {
  readonly browser: Browser;
  readonly #deadline: NodeJS.Timeout;

  static async launch({ place, trustedOrigin, deadlineMs, flags = [] }: BrowserOptions = {}): Promise<TestBrowser> {
    const folder = mkdtempSync(join(tmpdir(), 'skein-chromium-'));
    try {
      const browser = await chromium.launch({
        executablePath: place === undefined ? CHROMIUM : scriptFor(place, folder),
        ...(place === undefined ? {} : { env: place.environment }),
        headless: true,
        args: [
          ...FLAGS,
          ...flags,
          ...(trustedOrigin === undefined ? [] : [`--unsafely-treat-insecure-origin-as-secure=${trustedOrigin}`]),
        ],
        timeout: 30_000,
      });
      return new TestBrowser(browser, deadlineMs);
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  }

  private constructor(browser: Browser, deadlineMs: number = BROWSER_DEADLINE_MS) {
    this.browser = browser;
    this.#deadline = setTimeout(() => void browser.close(), deadlineMs);
  }

  open(httpAddress: string): Promise<Tab> {
    return Tab.open(this.browser, httpAddress);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearTimeout(this.#deadline);
    await this.browser.close();
  }
}
