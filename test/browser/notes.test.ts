/** Notes that a tab and a process write together, across a coordinator that is killed, and a page that is loaded again. */
import { existsSync } from 'node:fs';
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest';
import type { Notes } from '../../src/notes/index.ts';
import type { NotesState } from '../../src/notes-document.ts';
import { built } from '../harness/built.ts';
import { type Tab, TestBrowser } from '../harness/chromium.ts';
import { PeerProcess } from '../harness/cluster.ts';
import { Daemon } from '../harness/daemon.ts';
import type { PeerScope } from '../harness/peer-process.ts';
import { CHROMIUM, requireChromium } from '../harness/requirements.ts';

const TOKEN = 'a secret of this test';
const PATIENCE = { timeout: 30_000 };
/** Of the test, and of all that it starts (ms). */
const DEADLINE_MS = 120_000;
/** Notes that each writes while the other does. */
const MANY = 20;

let browser: TestBrowser | null = null;
const undo: (() => Promise<void>)[] = [];

beforeAll(async () => {
  if (existsSync(CHROMIUM)) browser = await TestBrowser.launch();
});

afterAll(() => browser?.[Symbol.asyncDispose]());

beforeEach((context) => requireChromium(context));

afterEach(async () => {
  for (const one of undo.splice(0).reverse()) await one();
});

/** A coordinator in a process of its own; on given ports one that takes the place of another. */
async function listen(port = 0, httpPort = 0) {
  const ports = ['--port', String(port), '--http-port', String(httpPort)];
  const command = [process.execPath, built('src/cli/main.ts'), 'coordinator', '--serve-page', ...ports] as const;
  const daemon = new Daemon(command, { PATH: process.env['PATH'], SKEIN_TOKEN: TOKEN, NO_COLOR: '1' }, DEADLINE_MS);
  undo.push(() => daemon.kill());
  await daemon.wrote(/Ctrl-C ends it/);
  const address = /tcp:\/\/[\w.:]+/.exec(daemon.output)![0];
  const webSocket = /ws:\/\/[\w.:]+/.exec(daemon.output)![0];
  return { daemon, address, webSocket };
}

const portOf = (address: string): number => Number(address.split(':').at(-1));

interface Joining {
  readonly address: string;
  readonly options: object;
}

/** Joins, and opens the notes; tells what it sees of others. */
async function begin({ skein, notes, state, tell }: PeerScope, { address, options }: Joining): Promise<string> {
  const group = await skein.join(address, { timeout: 30_000, transports: ['webrtc'], ...options });
  state.group = group;
  const opened = await notes.openNotes(group);
  state['notes'] = opened;
  opened.on('change', ({ key, isRemote }) => {
    if (isRemote) tell(`saw ${key}`);
  });
  return group.peerId;
}

/** Writes so many notes for all, one turn of the event loop after the other, and some of its own. */
async function write({ state }: PeerScope, { name, count }: { readonly name: string; readonly count: number }) {
  const notes = state['notes'] as Notes;
  for (let index = 0; index < count; index++) {
    notes.set(`${name} ${index}`, { index });
    notes.set('who was last', name);
    notes.own.set('written', index + 1);
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}

const flush = ({ state }: PeerScope): Promise<void> => (state['notes'] as Notes).flush();

const read = ({ state }: PeerScope): NotesState => (state['notes'] as Notes).toJSON();

const written = (name: string, count: number) =>
  Object.fromEntries(Array.from({ length: count }, (_, index) => [`${name} ${index}`, { index }]));

/** Until all have the same notes, which are these, whoever was the last to write where all do. */
async function agree(peers: readonly (PeerProcess | Tab)[], { shared, own }: NotesState): Promise<void> {
  const seen = async () => {
    const [first, ...others] = await Promise.all(peers.map((peer) => peer.run(read)));
    for (const other of others) expect(other).toEqual(first);
    return first;
  };
  await expect.poll(seen, PATIENCE).toEqual({ shared: { ...shared, 'who was last': expect.any(String) }, own });
}

test.each(['worker', 'inline'] as const)(
  'a tab and a process see what the other writes at the same time, while the coordinator dies and the page is loaded again (engine: %s)',
  { timeout: DEADLINE_MS },
  async (engine) => {
    const { daemon, address, webSocket } = await listen();
    const peer = new PeerProcess(DEADLINE_MS);
    undo.push(() => peer.kill());
    const tab = await browser!.open(webSocket.replace('ws', 'http')); // there is a browser
    undo.push(() => tab.close());
    const joinings = {
      peer: { address, options: { token: TOKEN, startWorldSize: 2 } },
      tab: { address: webSocket, options: { token: TOKEN, startWorldSize: 2, engine } },
    };
    const [here, there] = await Promise.all([peer.run(begin, joinings.peer), tab.run(begin, joinings.tab)]);
    await Promise.all([
      peer.run(write, { name: 'process', count: MANY }),
      tab.run(write, { name: 'tab', count: MANY }),
      tab.told('saw process 0'),
      peer.told('saw tab 0'),
    ]);
    const both = { ...written('process', MANY), ...written('tab', MANY) };
    await agree([peer, tab], { shared: both, own: { [here]: { written: MANY }, [there]: { written: MANY } } });

    await daemon.kill();
    // Both write what nobody can pass on.
    await Promise.all([
      peer.run(write, { name: 'process alone', count: 3 }),
      tab.run(write, { name: 'tab alone', count: 5 }),
    ]);
    await listen(portOf(address), portOf(webSocket));
    await Promise.all([peer.run(flush), tab.run(flush)]);
    const all = { ...both, ...written('process alone', 3), ...written('tab alone', 5) };
    await agree([peer, tab], { shared: all, own: { [here]: { written: 3 }, [there]: { written: 5 } } });

    // Its own notes go with the page; the page that comes instead knows the others.
    await tab.reload();
    await agree([peer], { shared: all, own: { [here]: { written: 3 } } });
    const coming = tab.run(begin, { ...joinings.tab, options: { ...joinings.tab.options, startWorldSize: 1 } });
    await peer.run(async ({ state }) => {
      while (state.group!.worldSize < 2) {
        await state.group!.admit();
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
    });
    const again = await coming;
    expect(again).not.toBe(there);
    await tab.run(write, { name: 'tab again', count: 1 });
    const more = { ...all, ...written('tab again', 1) };
    await agree([peer, tab], { shared: more, own: { [here]: { written: 3 }, [again]: { written: 1 } } });

    await tab.run(({ state }) => state.group!.leave());
    await agree([peer], { shared: more, own: { [here]: { written: 3 } } });
  },
);
