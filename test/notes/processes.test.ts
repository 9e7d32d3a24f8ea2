/** Notes between real peers, whose coordinator is killed. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, expect, test } from 'vitest';
import type { NotesState } from '../../src/notes-document.ts';
import { Command } from '../cli/command.ts';
import { PeerProcess } from '../harness/cluster.ts';

const undo: (() => Promise<void> | void)[] = [];

afterEach(async () => {
  for (const one of undo.splice(0).reverse()) await one();
});

async function listen(port: number, more: readonly string[]) {
  const coordinator = Command.skein(['coordinator', '--port', String(port), '--http-port', '0', ...more]);
  undo.push(() => coordinator[Symbol.asyncDispose]());
  await coordinator.says(/^Peers in browsers/);
  const address = /tcp:\/\/[\w.:]+/.exec(coordinator.stdout)![0];
  const http = `http${/ws(:\/\/[\w.:]+)/.exec(coordinator.stdout)![1]}`;
  return { coordinator, address, http };
}

async function started(address: string, startWorldSize: number) {
  const peer = new PeerProcess(50_000);
  undo.push(() => peer.kill());
  const { peerId } = await peer.join(address, { startWorldSize, timeout: 20_000, transports: ['tcp'] });
  await peer.run(async ({ notes, state }) => {
    state['notes'] = await notes.openNotes(state.group!);
  });
  return { peer, peerId };
}

type Opened = Awaited<ReturnType<typeof import('../../src/notes/index.ts').openNotes>>;

const set = (peer: PeerProcess, key: string, value: number, own = false) =>
  peer.run(
    ({ state }, { key, value, own }) => {
      const notes = state['notes'] as Opened;
      (own ? notes.own : notes).set(key, value);
    },
    { key, value, own },
  );

const flush = (peer: PeerProcess) => peer.run(({ state }) => (state['notes'] as Opened).flush());

const all = (peer: PeerProcess) => peer.run(({ state }): NotesState => (state['notes'] as Opened).toJSON());

async function agree(peers: readonly PeerProcess[], expected: NotesState): Promise<void> {
  for (const peer of peers) await expect.poll(() => all(peer), { timeout: 15_000 }).toEqual(expected);
}

test.each([
  ['without a store', false],
  ['with a store', true],
])('all see what any has written, across a coordinator that is killed and started again %s', async (_, hasStore) => {
  const folder = mkdtempSync(join(tmpdir(), 'skein-notes-'));
  undo.push(() => rmSync(folder, { recursive: true, force: true }));
  const more = hasStore ? ['--store', join(folder, 'runs.json')] : [];
  const { coordinator, address } = await listen(0, more);
  const port = Number(address.split(':').at(-1));
  const [first, second] = await Promise.all([started(address, 2), started(address, 2)]);
  await Promise.all([set(first.peer, 'lr', 3e-4), set(second.peer, 'batch', 64), set(first.peer, 'loss', 2, true)]);
  await agree([first.peer, second.peer], { shared: { lr: 3e-4, batch: 64 }, own: { [first.peerId]: { loss: 2 } } });

  coordinator.child.kill('SIGKILL');
  await coordinator.ended;
  // Both write while nobody can pass it on.
  await Promise.all([set(first.peer, 'lr', 1e-4), set(second.peer, 'epochs', 9), set(second.peer, 'loss', 1, true)]);
  const again = await listen(port, more);
  await Promise.all([flush(first.peer), flush(second.peer)]);
  const expected = {
    shared: { lr: 1e-4, batch: 64, epochs: 9 },
    own: { [first.peerId]: { loss: 2 }, [second.peerId]: { loss: 1 } },
  };
  await agree([first.peer, second.peer], expected);

  // One that comes late sees all of it, and so does who looks on.
  const coming = started(address, 1);
  for (const { peer } of [first, second])
    await peer.run(({ state }) => {
      state['admits'] = (async () => {
        while (state.group!.worldSize < 3) {
          await state.group!.admit();
          await new Promise((resolve) => setTimeout(resolve, 50));
        }
      })();
    });
  const late = await coming;
  await agree([late.peer], expected);
  const { runs } = (await (await fetch(`${again.http}/api/state`)).json()) as { runs: { notes: NotesState }[] };
  expect(runs.map(({ notes }) => notes)).toEqual([expected]);

  // Who is gone takes its own along.
  await second.peer.run(({ state }) => state.group!.leave());
  await agree([first.peer, late.peer], { shared: expected.shared, own: { [first.peerId]: { loss: 2 } } });
});
