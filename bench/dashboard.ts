/**
 * `npm run bench:dashboard`: how soon the dashboard shows what is, with many members. The coordinator is a process of its own; its
 * members, which tell their figures once a second, are control connections in this one; the page is in a real browser, which looks at
 * what it shows at each frame. Writes a record to bench/results/.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { loadavg } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import Table from 'cli-table3';
import { Command } from 'commander';
import { median } from '../src/benchmark/statistics.ts';
import { TestBrowser } from '../test/harness/chromium.ts';
import { type StartedCoordinator, startCoordinator } from './harness/coordinator.ts';
import { describeMachine } from './harness/machine.ts';
import { deadline } from './harness/member.ts';
import { TellingMembers } from './harness/telling-members.ts';

const RESULTS = fileURLToPath(new URL('../../bench/results/', import.meta.url));

interface Options {
  readonly members: string;
  readonly pages: string;
  readonly seconds: string;
}

/** What a page tells of itself. */
interface Look {
  /** From the start of its loading to its first paint, and until all members have a row and a node (ms). */
  readonly paintMs: number;
  readonly drawnMs: number;
  /** At each frame: since the coordinator has made the state that is shown (ms). */
  readonly ages: readonly number[];
  /** Turns in which members told their figures, and when these were shown (ms since 1970). */
  readonly shown: readonly (readonly [turn: number, at: number])[];
}

/** Code that the page runs. Times of this machine's clock are those of the members, too. */
function lookFor(members: number, seconds: number): string {
  return `new Promise((resolve) => {
    const ages = [];
    const shown = new Map();
    let drawnMs = null;
    const look = () => {
      const [now, at] = [performance.now(), Date.now()];
      const rows = document.querySelectorAll('#peers-body tr');
      const isWhole = rows.length >= ${members} && document.querySelectorAll('#topology .node').length >= ${members};
      if (isWhole) {
        drawnMs ??= now;
        ages.push(at - Date.parse(document.getElementById('at').dateTime));
        const turn = Number(rows[${members >> 1}].cells[9].textContent);
        if (!shown.has(turn)) shown.set(turn, at);
      }
      if (drawnMs === null || now < drawnMs + ${1_000 * seconds}) requestAnimationFrame(look);
      else resolve({
        paintMs: performance.getEntriesByName('first-contentful-paint')[0].startTime,
        drawnMs,
        ages,
        shown: [...shown],
      });
    };
    look();
  })`;
}

async function lookAt(browser: TestBrowser, address: string, members: number, seconds: number): Promise<Look> {
  const page = await browser.browser.newPage();
  try {
    await page.goto(address, { waitUntil: 'commit' });
    return await deadline('the page has shown all', page.evaluate<Look>(lookFor(members, seconds)));
  } finally {
    await page.close();
  }
}

/** How long figures were on their way, from the member that told them to the page: of the turns that began while it looked. */
function delaysOf({ shown }: Look, toldAt: ReadonlyMap<number, number>): number[] {
  return shown.slice(1).flatMap(([turn, at]) => {
    const told = toldAt.get(turn);
    return told === undefined ? [] : [at - told];
  });
}

interface Figure {
  readonly median: number;
  readonly max: number;
  readonly samples: number;
}

function figureOf(values: readonly number[]): Figure {
  const most = values.reduce((most, value) => Math.max(most, value), 0);
  return { median: Math.round(median(values)), max: Math.round(most), samples: values.length };
}

async function measure({ address, httpAddress }: StartedCoordinator, members: number, pages: number, seconds: number) {
  using telling = await TellingMembers.join(address, members);
  await using browser = await TestBrowser.launch({ deadlineMs: 60_000 + 2_000 * pages * seconds });
  const looks: Look[] = [];
  for (let page = 0; page < pages; page++)
    looks.push(await lookAt(browser, `${httpAddress}/dashboard`, members, seconds));
  return {
    firstPaintMs: figureOf(looks.map(({ paintMs }) => paintMs)),
    allDrawnMs: figureOf(looks.map(({ drawnMs }) => drawnMs)),
    ageMs: figureOf(looks.flatMap(({ ages }) => ages)),
    figuresShownAfterMs: figureOf(looks.flatMap((look) => delaysOf(look, telling.toldAt))),
  };
}

async function main(options: Options): Promise<void> {
  const [members, pages, seconds] = [options.members, options.pages, options.seconds].map(Number) as [
    number,
    number,
    number,
  ];
  const loadBefore = loadavg()[0];
  const coordinator = await startCoordinator({ lostAfterMs: 20_000, http: { port: 0 } });
  const figures = await measure(coordinator, members, pages, seconds);
  coordinator.child.disconnect();

  const table = new Table({ head: ['ms', 'median', 'at most', 'of'], style: { head: [], border: [] } });
  for (const [name, { median, max, samples }] of Object.entries(figures)) table.push([name, median, max, samples]);
  console.log(table.toString());
  mkdirSync(RESULTS, { recursive: true });
  const record = {
    machine: describeMachine(),
    date: new Date().toISOString(),
    command: process.argv.slice(2),
    ...{ members, pages, seconds },
    /** Of the last minute, before it began: other work on the machine. */
    loadBefore,
    ...figures,
  };
  const file = join(RESULTS, 'dashboard.json');
  writeFileSync(file, `${JSON.stringify(record, null, 1)}\n`);
  console.log(`Written to ${file}`);
}

await new Command('bench:dashboard')
  .description('Measures how soon the dashboard shows what is.')
  .option('--members <n>', 'members', '100')
  .option('--pages <n>', 'how often the page is opened', '10')
  .option('--seconds <n>', 'for how long each is looked at', '10')
  .action(main)
  .parseAsync();
