/**
 * Damaged data frames into the real parser with the real executor behind it: one member of the recorded run, alone, gets
 * what was sent to it, damaged, in any order and at any time of its calls' lives.
 */
import { Envelope } from '../../src/collectives/relay.ts';
import type { Workspace } from '../../src/collectives/workspace.ts';
import { NO_SLOT } from '../../src/collectives/workspace.ts';
import { ClosedError } from '../../src/errors.ts';
import { hashTag } from '../../src/wire/frame.ts';
import { MAX_TEXT_LENGTH } from '../../src/wire/limits.ts';
import type { KeptRange } from '../../src/wire/ranges.ts';
import { LonePeer } from '../collectives/lone.ts';
import type { Random } from '../sim/random.ts';
import { pushInPieces } from '../wire/cut.ts';
import { cuts, damagedFrame } from './bytes.ts';
import type { Corpus, DataStream } from './corpus.ts';
import { WORKLOAD } from './workload.ts';

/** Frames that one connection brings in a round, at most. */
const MOST_FRAMES = 60;

export interface DataTally {
  /** Frames that were pushed, and connections that were refused on the way. */
  frames: number;
  refused: number;
  /** Calls whose result this rank came to hold. */
  held: number;
}

function call(peer: LonePeer, index: number): void {
  const { spec, inputBytes, outputBytes } = WORKLOAD[index]!;
  const input = new Uint8Array(new Float32Array(inputBytes / 4).fill(1).buffer);
  peer.call(spec, input, outputBytes);
}

/** How many slots nobody holds. */
function freeSlots(workspace: Workspace): number {
  const taken: number[] = [];
  for (const take of [() => workspace.acquire(), () => workspace.acquireWire()]) {
    for (let slot = take(); slot !== NO_SLOT; slot = take()) taken.push(slot);
  }
  for (const slot of taken) workspace.release(slot);
  return taken.length;
}

function require(holds: boolean, promise: string): void {
  if (!holds) throw new Error(`broken: ${promise}`);
}

/** Sometimes the attempt, the call or the place is another. */
function retargeted(frame: Uint8Array, random: Random): Uint8Array {
  const copy = frame.slice();
  const view = new DataView(copy.buffer);
  const at = random.pick([4, 8, 20, 24, 28]);
  view.setUint32(at, random.integer(0, 4), true);
  if (random.chance(0.2)) {
    const tag = hashTag(WORKLOAD[random.integer(0, WORKLOAD.length - 1)]!.spec.tag);
    view.setUint32(12, tag % 2 ** 32, true);
    view.setUint32(16, Math.floor(tag / 2 ** 32), true);
  }
  return copy;
}

function hostile(frame: Uint8Array, random: Random): Uint8Array {
  if (frame.length === 0 || random.chance(0.3)) return frame;
  if (random.chance(0.4)) return retargeted(frame, random);
  return random.chance(0.05) ? random.bytes(random.integer(1, 200)) : damagedFrame(frame, random);
}

/** Hardly ever such as are kept. */
function wildRanges(random: Random): KeptRange[] {
  return Array.from({ length: random.integer(0, 3) }, () => ({
    start: random.integer(0, 1_000),
    end: random.pick([0, 10, 1_000, Number.MAX_SAFE_INTEGER]),
    epoch: random.integer(0, 3),
  }));
}

/** What the coordinator may decide meanwhile. */
function decide(peer: LonePeer, corpus: Corpus, random: Random): void {
  // Never its own loss: the engine takes a coordinator that says so for lost.
  const { peerId } = random.pick(corpus.view.members.filter((member) => member.peerId !== peer.self));
  const { collectives } = peer;
  const epoch = random.integer(1, 4);
  const id = `1:call ${random.integer(0, WORKLOAD.length)}:${random.integer(0, 2)}`;
  const cuts = random.chance(0.5) ? [] : [[peer.self, peerId] as const];
  const what = random.integer(0, 5);
  if (what === 0) collectives.onLoss(epoch, random.chance(0.5) ? [] : [peerId], null, cuts, random.chance(0.5));
  else if (what === 1)
    collectives.onDecide(random.chance(0.5) ? [] : [{ id, epoch }], [{ id, ranges: wildRanges(random) }]);
  else if (what === 2) collectives.onCommit({ type: 'commit', id, epoch });
  else if (what === 3) collectives.onFail({ id, code: 'withdrawn', message: 'so', peerId });
  else if (what === 4) collectives.onLinkUp(peerId);
  else collectives.forget(peerId);
}

/** A frame as if it came through other peers. */
function relay(frame: Uint8Array, via: string, self: string, random: Random): Uint8Array {
  const path = random.pick([
    ['other', via, self],
    ['stranger', via, self],
    ['other', self, via],
    ['other', via, self, 'more'],
  ]);
  return new Envelope(path).wrap(frame, 0);
}

/** One life of the peer `self`, under fire. */
export function dataRound(corpus: Corpus, workspace: Workspace, random: Random, tally: DataTally): void {
  const { peerId: self } = random.pick(corpus.view.members);
  const others = corpus.view.members.filter((member) => member.peerId !== self);
  const slots = freeSlots(workspace);
  const peer = new LonePeer(self, workspace);
  peer.collectives.onView(corpus.view);
  const early = random.chance(0.7);
  if (early) for (let index = 0; index < WORKLOAD.length; index++) call(peer, index);
  const streams: readonly DataStream[] = corpus.data.filter((stream) => stream.to === self && stream.frames.length > 0);
  for (const stream of streams) {
    const from = random.chance(0.85) ? stream.from : random.pick([...others.map((one) => one.peerId), 'stranger']);
    let connection = peer.connection(from);
    const first = random.chance(0.6) ? 0 : random.integer(0, stream.frames.length - 1);
    const gentle = random.chance(0.5); // a long good stream with little damage reaches deeper
    for (const frame of stream.frames.slice(first, first + MOST_FRAMES)) {
      const relayed = random.chance(0.1) ? relay(frame, from, self, random) : frame;
      const bytes = gentle && random.chance(0.9) ? relayed : hostile(relayed, random);
      tally.frames += 1;
      const error = pushInPieces(bytes, cuts(random), (piece) => connection.push(piece));
      if (error !== null) {
        require(error.length > 0 && error.length <= MAX_TEXT_LENGTH, 'what is wrong is told in a short text');
        tally.refused += 1;
        connection.close();
        connection = peer.connection(from);
      }
      if (random.chance(0.3)) peer.flush();
      if (!early && random.chance(0.1) && peer.calls.length < WORKLOAD.length) call(peer, peer.calls.length);
      if (!gentle && random.chance(0.01)) decide(peer, corpus, random);
    }
    connection.close();
  }
  tally.held += peer.controls.filter((message) => message.type === 'done').length;
  peer.advance(random.chance(0.5) ? 60_000 : 1);
  peer.collectives.failAll(() => new ClosedError('the round is over'));
  peer.flush();
  const damage = peer.damage();
  require(damage === null, damage ?? '');
  require(peer.calls.every(({ ending }) => ending !== null), 'every call ends');
  require(peer.collectives.openCount === 0, 'no call stays open');
  require(peer.scratchBytes === 0, 'scratch is given back');
  require(freeSlots(workspace) === slots, 'slots of the arena are given back');
}

/** The recorded frames as they are: what the damage is done to is worth damaging. */
export function undamagedRound(corpus: Corpus, workspace: Workspace, self: string): readonly string[] {
  const peer = new LonePeer(self, workspace);
  peer.collectives.onView(corpus.view);
  for (let index = 0; index < WORKLOAD.length; index++) call(peer, index);
  for (const { from, to, frames } of corpus.data) {
    if (to !== self) continue;
    const connection = peer.connection(from);
    for (const frame of frames) {
      const error = connection.push(frame);
      if (error !== null) throw new Error(error);
      peer.flush();
    }
  }
  const done = peer.controls.flatMap((message) => (message.type === 'done' ? [message.id] : []));
  peer.collectives.failAll(() => new ClosedError('the round is over'));
  peer.flush();
  return done;
}
