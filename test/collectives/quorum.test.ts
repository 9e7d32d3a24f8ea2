import { expect, test } from 'vitest';
import { Workspace } from '../../src/collectives/workspace.ts';
import { loadKernels } from '../../src/kernels/load.ts';
import { LonePeer, SUM } from './lone.ts';

const workspace = new Workspace(await loadKernels(8 * 1024 * 1024), 1024);

function view(epoch: number, ...peerIds: readonly string[]) {
  const members = peerIds.map((peerId) => ({ peerId, site: '', place: 0 }));
  return { epoch, generation: epoch, boundary: epoch, members, cuts: [] };
}

/** A member of a view of two with a call open that wants both. */
function member(): LonePeer {
  const peer = new LonePeer('a', workspace);
  peer.collectives.onView(view(1, 'a', 'b'));
  peer.call({ ...SUM, minWorldSize: 2 }, new Uint8Array(40), 40);
  return peer;
}

function lose(peer: LonePeer): void {
  peer.collectives.onLoss(2, ['b'], null, [], false);
}

function endings(peer: LonePeer): (string | null)[] {
  return peer.calls.map(({ ending }) => ending);
}

test('a call whose view has lost its quorum waits until its time is over', () => {
  const peer = member();
  lose(peer);
  peer.collectives.onDecide([], []);
  peer.advance(SUM.timeoutMs - 1);
  expect(endings(peer)).toEqual([null]);
  peer.advance(1);
  expect(endings(peer)).toEqual(['SKEIN_QUORUM']);
  expect(peer.controls.map(({ type }) => type)).not.toContain('withdraw');
  expect(peer.scratchBytes).toBe(0);
});

test('it does not go over to a later view, whose members do not make it', () => {
  const peer = member();
  lose(peer);
  peer.collectives.onDecide([], []);
  peer.collectives.onView(view(3, 'a', 'c'));
  expect(endings(peer)).toEqual(['SKEIN_QUORUM']);
});

test('nor when the decision comes after that view', () => {
  const peer = member();
  lose(peer);
  peer.collectives.onView(view(3, 'a', 'c'));
  expect(endings(peer)).toEqual([null]);
  peer.collectives.onDecide([], []);
  expect(endings(peer)).toEqual(['SKEIN_QUORUM']);
  // The next call is the first of that view, on all its members.
  peer.call({ ...SUM, minWorldSize: 2 }, new Uint8Array(40), 40);
  expect(peer.collectives.open().map(({ id, state }) => `${id} ${state}`)).toEqual(['3::0 running']);
});
