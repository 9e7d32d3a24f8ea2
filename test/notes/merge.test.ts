import fc from 'fast-check';
import { expect, test } from 'vitest';
import * as Y from 'yjs';
import { NotesDesk } from '../../src/engine/notes-desk.ts';
import { ArgumentError } from '../../src/errors.ts';
import { Notes } from '../../src/notes/notes.ts';
import { NotesDocument } from '../../src/notes-document.ts';
import { MAX_NOTES_BYTES, NOTES_BURST, NOTES_ROOM_BYTES } from '../../src/wire/limits.ts';
import { Random } from '../sim/random.ts';
import { Net } from './net.ts';

const IDS = ['p0', 'p1', 'p2'];
const KEYS = ['a', 'b', '__proto__'];

/** A seed of its own for each run: a failure prints it. */
const SEED = Number(process.env['SKEIN_SEED'] ?? Math.floor(Math.random() * 2 ** 31));
console.info(`seed ${SEED}: repeat it with SKEIN_SEED`);

type Written = { do: 'set' | 'own' | 'delete' | 'forget'; peer: number; key: number; value: number };
type Moved = { do: 'up' | 'down' | 'due' | 'connect' | 'resume' | 'disconnect'; peer: number };
type Step = Written | Moved | { do: 'tick' | 'crash' };

const peer = fc.nat(IDS.length - 1);
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constantFrom('set', 'own', 'delete', 'forget'),
      peer,
      key: fc.nat(2),
      value: fc.nat(9),
    }),
  },
  {
    weight: 9,
    arbitrary: fc.record({ do: fc.constantFrom('up', 'down', 'due', 'connect', 'resume', 'disconnect'), peer }),
  },
  { weight: 2, arbitrary: fc.record({ do: fc.constantFrom('tick', 'tick', 'tick', 'crash') }) },
);

function take(net: Net, taken: Step): void {
  if (!('peer' in taken)) {
    if (taken.do === 'tick') for (let ticks = 0; ticks < 20; ticks++) net.tick();
    else net.crash();
    return;
  }
  const who = net.peers[taken.peer]!;
  if ('key' in taken) write(who.notes, taken);
  else if (taken.do === 'connect' || taken.do === 'resume') net.connect(who, taken.do === 'resume');
  else net[taken.do](who);
}

function write(notes: Notes, { do: what, key, value }: Written): void {
  const name = KEYS[key]!;
  if (what === 'set') notes.set(name, { value });
  else if (what === 'own') notes.own.set(name, value);
  else if (what === 'delete') notes.delete(name);
  else notes.own.delete(name);
}

test('all agree in the end, whenever messages come, connections break, and coordinators die and know nothing', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 120 }), fc.boolean(), async (steps, compacts) => {
      // In half of the runs the document is begun anew again and again.
      const net = new Net(IDS, compacts ? 60 : undefined);
      const own = new Map<string, number>();
      for (const taken of steps) {
        take(net, taken);
        if (!('key' in taken)) continue;
        const where = `${IDS[taken.peer]} ${KEYS[taken.key]}`;
        if (taken.do === 'own') own.set(where, taken.value);
        if (taken.do === 'forget') own.delete(where);
      }
      await net.settle();
      expect(net.refused).toEqual([]);
      const [first, ...others] = net.peers.map(({ notes }) => notes.toJSON());
      for (const other of [...others, net.desk.state]) expect(other).toEqual(first);
      // One's own nobody else writes, so it is what was written last.
      const told = Object.entries(first!.own).flatMap(([id, notes]) =>
        Object.keys(notes).map((key) => [`${id} ${key}`, notes[key]] as const),
      );
      expect(new Map(told)).toEqual(own);
      // Written when all is quiet, it is what all see.
      net.peers[0]!.notes.set('a', 'the last');
      await net.settle();
      for (const { notes } of net.peers) expect(notes.get('a')).toBe('the last');
    }),
    { seed: SEED, numRuns: 150 },
  );
});

test('updates in any order, and more than once, give the same document', () => {
  fc.assert(
    fc.property(
      fc.array(fc.tuple(peer, fc.nat(2), fc.nat(9)), { maxLength: 30 }),
      fc.infiniteStream(fc.nat()),
      (writes, chance) => {
        const updates: Uint8Array[] = [];
        const documents = IDS.map(() => {
          const document = new NotesDocument();
          document.onWritten((update) => updates.push(update));
          return document;
        });
        for (const [who, key, value] of writes) documents[who]!.set({ peerId: null, key: KEYS[key]! }, `${value}`);
        for (const document of documents) {
          const order = [...updates, ...updates].map((update) => ({ update, at: chance.next().value }));
          order.sort((left, right) => left.at - right.at);
          for (const { update } of order) document.apply(update);
        }
        for (const document of documents) expect(document.state).toEqual(documents[0]!.state);
      },
    ),
    { seed: SEED, numRuns: 100 },
  );
});

test('a flush ends when the coordinator has all of it, also across one that dies', async () => {
  const net = new Net(['p0', 'p1']);
  const [writer] = net.peers as [Net['peers'][0]];
  await net.settle();
  writer.notes.set('a', 1);
  let flushed = false;
  const flush = writer.notes.flush().then(() => {
    flushed = true;
  });
  net.up(writer);
  net.crash();
  writer.notes.set('a', 2);
  net.connect(writer);
  while (!flushed && (writer.up.length > 0 || writer.down.length > 0)) {
    net.up(writer);
    net.down(writer);
    await Promise.resolve();
    await Promise.resolve();
  }
  await flush;
  expect(net.desk.state.shared).toEqual({ a: 2 });
});

test('what a peer had of its own goes with it, and comes back if it was not gone', async () => {
  const net = new Net(IDS);
  await net.settle();
  for (const { notes } of net.peers) notes.own.set('loss', 1);
  await net.settle();
  const reader = net.peers[2]!;
  expect(reader.notes.of('p0')).toEqual({ loss: 1 });
  const changes: unknown[] = [];
  reader.notes.on('change', (change) => changes.push(change));
  net.known = ['p1', 'p2'];
  net.disconnect(net.peers[0]!);
  for (let ticks = 0; ticks < 100; ticks++) net.tick();
  while (reader.down.length > 0) net.down(reader);
  expect(reader.notes.of('p0')).toBe(null);
  expect(changes).toEqual([{ peerId: 'p0', key: 'loss', value: undefined, isRemote: true }]);
  net.known = null; // a coordinator that does not know yet forgets nobody's
  net.peers[1]!.notes.own.set('x', 1);
  await net.settle();
  net.known = IDS;
  await net.settle();
  expect(reader.notes.toJSON().own).toEqual({ p0: { loss: 1 }, p1: { loss: 1, x: 1 }, p2: { loss: 1 } });
});

test('what is written over and deleted costs nothing in the end, and nothing that is written meanwhile is lost', async () => {
  const net = new Net(['p0', 'p1'], 10_000);
  await net.settle();
  let largest = 0;
  for (let round = 0; round < 1_500; round++) {
    for (const { id, notes } of net.peers) {
      notes.own.set('loss', 1 / (round + 1));
      notes.set(`step ${round} of ${id}`, round);
      if (round > 0) notes.delete(`step ${round - 1} of ${id}`);
    }
    if (round % 20 === 0) await net.settle();
    largest = Math.max(largest, net.desk.size);
  }
  await net.settle();
  for (const { notes } of net.peers) {
    expect(notes.toJSON()).toEqual({
      shared: { 'step 1499 of p0': 1_499, 'step 1499 of p1': 1_499 },
      own: { p0: { loss: 1 / 1_500 }, p1: { loss: 1 / 1_500 } },
    });
  }
  expect(largest).toBeLessThan(30_000);
  expect(net.refused).toEqual([]);
});

test('notes are plain data within their limits', () => {
  const [{ notes }] = new Net(['p0']).peers as [Net['peers'][0]];
  const cycle: unknown[] = [];
  cycle.push(cycle);
  for (const wrong of [
    undefined,
    Number.NaN,
    1n,
    () => {},
    new Date(),
    new Map(),
    cycle,
    [undefined],
    'x'.repeat(20_000),
  ])
    expect(() => notes.set('a', wrong as never)).toThrow(ArgumentError);
  for (const wrong of ['', 'k'.repeat(201)]) expect(() => notes.set(wrong, 1)).toThrow(ArgumentError);
  const value = { lr: 3e-4, layers: [1, { deep: [null, true, 'ä'] }] };
  notes.set('config', value);
  expect(notes.get('config')).toEqual(value);
  expect(notes.get('constructor')).toBe(undefined);
  const fill = () => {
    for (let at = 0; at < 100; at++) notes.set(`big ${at}`, 'x'.repeat(8_000));
  };
  expect(fill).toThrow(`at most ${NOTES_ROOM_BYTES}`);
  // Written over, it needs no more.
  for (let at = 0; at < 100; at++) notes.set('big 0', 'y'.repeat(4_000));
});

/** A desk with one honest note, and one who may send what it likes. */
function besieged() {
  const refused: string[] = [];
  const desk = new NotesDesk({
    peers: () => ['p0', 'evil'],
    send: () => {},
    refuse: (_, reason) => void refused.push(reason),
  });
  const honest = new NotesDocument();
  honest.set({ peerId: null, key: 'lr' }, '0.5');
  let now = 0;
  const send = (from: string, update: Uint8Array) => {
    now += 1_000;
    desk.onMessage(from, { edition: 0, vector: new NotesDocument().vector, update: null }, now);
    desk.onMessage(from, { edition: 0, vector: null, update }, now);
    desk.tick(now);
  };
  send('p0', honest.updateFor(null)!);
  return { desk, refused, send };
}

function updateOf(write: (doc: Y.Doc) => void): Uint8Array {
  const doc = new Y.Doc();
  write(doc);
  return Y.encodeStateAsUpdate(doc);
}

test('hostile updates are undone, and cost their sender its connection', () => {
  const { desk, refused, send } = besieged();
  const later = new Y.Doc();
  later.getMap('shared').set('a', '1');
  const before = Y.encodeStateVector(later);
  later.getMap('shared').set('b', '2');
  const nested = `${'['.repeat(60_000)}${']'.repeat(60_000)}`;
  const hostile: [string, Uint8Array][] = [
    ['merged', new Uint8Array([1, 2, 3])],
    ['merged', new Uint8Array(1_000).fill(0xff)],
    ['merged', new Uint8Array(0)],
    ['not told', Y.encodeStateAsUpdate(later, before)],
    ['not told', updateOf((doc) => doc.getMap('mine').set('a', 1))],
    ['bytes of them', updateOf((doc) => doc.getMap('shared').set('a', 'x'.repeat(MAX_NOTES_BYTES)))],
  ];
  for (const [reason, update] of hostile) {
    send('evil', update);
    expect(refused.splice(0)).toEqual([expect.stringContaining(reason)]);
    expect(desk.state).toEqual({ shared: { lr: 0.5 }, own: {} });
  }
  // What merges, but is no note, is nothing, and soon gone.
  send(
    'evil',
    updateOf((doc) => {
      const shared = doc.getMap<unknown>('shared');
      shared.set('map', new Y.Map());
      shared.set('bytes', new Uint8Array(9));
      shared.set('wrong', 'no JSON');
      shared.set('nested', nested);
      doc.getMap('own').set('stranger\0a', '1');
      doc.getMap('own').set('nobody', '1');
    }),
  );
  expect(desk.state.shared).toEqual({ lr: 0.5 });
  send('evil', new Uint8Array([0, 0]));
  expect(desk.state).toEqual({ shared: { lr: 0.5 }, own: {} });
  expect(refused).toEqual([]);
  for (let message = 0; message <= NOTES_BURST; message++)
    desk.onMessage('evil', { edition: 0, vector: new Uint8Array([0]), update: null }, 1e9);
  expect(refused).toEqual([expect.stringContaining('more often')]);
});

test('updates that were damaged in any way crash nothing, and leave what others have noted', () => {
  const random = new Random(SEED);
  const { desk, send } = besieged();
  const sound = updateOf((doc) => {
    for (let at = 0; at < 20; at++) doc.getMap('shared').set(`key ${at % 7}`, JSON.stringify({ at }));
    doc.getMap('own').set('evil\0x', '1');
  });
  for (let round = 0; round < 600; round++) {
    const damaged = sound.slice(0, random.integer(1, sound.length));
    for (let hits = random.integer(0, 4); hits > 0; hits--)
      damaged[random.integer(0, damaged.length - 1)] = random.integer(0, 255);
    send('evil', damaged);
    expect(() => JSON.stringify(desk.state)).not.toThrow();
  }
  // Nobody but its author may have written over it: that is allowed to all.
  const reader = new Notes('p9', { send: () => {}, schedule: () => () => {} });
  const document = new NotesDocument();
  document.set({ peerId: null, key: 'honest' }, '1');
  send('p0', document.updateFor(null)!);
  expect(desk.state.shared['honest']).toBe(1);
  expect(reader.get('honest')).toBe(undefined);
});
