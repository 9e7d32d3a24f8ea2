/** What error feedback keeps when a call fails on one member, and perhaps not on the others. */
import { expect, test } from 'vitest';
import { Workspace } from '../../src/collectives/workspace.ts';
import { loadKernels } from '../../src/kernels/load.ts';
import { LonePeer, SUM } from './lone.ts';

const workspace = new Workspace(await loadKernels(8 * 1024 * 1024), 1024);

const COUNT = 64;
const CALL = { ...SUM, codec: 'int8', errorFeedback: true, algorithm: 'direct', count: COUNT } as const;

/** Two members between which frames go straight. */
function pair(): readonly [LonePeer, LonePeer] {
  const members = ['a', 'b'].map((peerId) => ({ peerId, site: '', place: 0 }));
  const peers = ['a', 'b'].map((self) => new LonePeer(self, workspace)) as [LonePeer, LonePeer];
  for (const { collectives } of peers) collectives.onView({ epoch: 1, generation: 1, boundary: 1, members, cuts: [] });
  return peers;
}

function bytesOf(values: Float32Array): Uint8Array {
  return new Uint8Array(values.buffer);
}

/** Both call, and each comes to hold the result; returns that of a. `flushes`: the links take all that a gives them. */
function hold(
  [a, b]: readonly [LonePeer, LonePeer],
  mine: Float32Array,
  theirs: Float32Array,
  flushes = true,
): Float32Array {
  const ways = [
    [a, b.connection('a')],
    [b, a.connection('b')],
  ] as const;
  const call = a.call(CALL, bytesOf(mine), 4 * COUNT);
  b.call(CALL, bytesOf(theirs), 4 * COUNT);
  for (let round = 0; round < 20; round++) {
    for (const [from, { push }] of ways) {
      for (const frame of from.sent.splice(0)) expect(push(frame)).toBeNull();
      if (flushes || from === b) from.flush();
    }
  }
  return new Float32Array(call.output.bytes.buffer, call.output.bytes.byteOffset, COUNT);
}

const COARSE: Float32Array = Float32Array.from({ length: COUNT }, (_, index) => (index === 0 ? 127 : 0.4));
const NOTHING: Float32Array = new Float32Array(COUNT);

function commit(peer: LonePeer, sequence: number): void {
  peer.collectives.onCommit({ type: 'commit', id: `1::${sequence}`, epoch: 1 });
}

/** What a's next call of nothing comes to: what it kept. */
function kept(peers: readonly [LonePeer, LonePeer]): number[] {
  const result = hold(peers, NOTHING, NOTHING);
  for (const peer of peers) commit(peer, 1);
  return [...result.slice(1, 4)].map((value) => Math.round(value * 10) / 10);
}

test('what a committed call dropped is kept, also where it failed because its time was over', () => {
  const peers = pair();
  const [a, b] = peers;
  hold(peers, COARSE, NOTHING);
  a.advance(SUM.timeoutMs);
  expect(a.calls.map(({ ending }) => ending)).toEqual(['SKEIN_TIMEOUT']);
  for (const peer of [b, a]) commit(peer, 0); // it was on its way
  expect(kept(peers)).toEqual([0.4, 0.4, 0.4]);
});

test('also where its bytes were still on their way then', () => {
  const peers = pair();
  const [a, b] = peers;
  hold(peers, COARSE, NOTHING, false);
  a.advance(SUM.timeoutMs);
  expect(a.calls.map(({ ending }) => ending)).toEqual([null]);
  a.flush();
  expect(a.calls.map(({ ending }) => ending)).toEqual(['SKEIN_TIMEOUT']);
  for (const peer of [b, a]) commit(peer, 0);
  expect(kept(peers)).toEqual([0.4, 0.4, 0.4]);
});

test('what a call dropped that failed for all is not kept: its input counted nowhere', () => {
  const peers = pair();
  const [a, b] = peers;
  hold(peers, COARSE, NOTHING);
  a.advance(SUM.timeoutMs);
  for (const { collectives } of [a, b])
    collectives.onFail({ id: '1::0', code: 'withdrawn', message: 'its time was over', peerId: 'a' });
  expect(kept(peers)).toEqual([0, 0, 0]);
});
