import { describe, expect, test } from 'vitest';
import { Envelope } from '../../src/collectives/relay.ts';
import { Workspace } from '../../src/collectives/workspace.ts';
import { loadKernels } from '../../src/kernels/load.ts';
import { emptyHeader, FRAME_DATA, FRAME_OPEN, HEADER_BYTES, hashTag, writeHeader } from '../../src/wire/frame.ts';
import { MAX_OPEN_COLLECTIVES, MAX_UNEXPECTED_BYTES, MAX_UNEXPECTED_FRAMES } from '../../src/wire/limits.ts';
import { packBody } from '../../src/wire/messages.ts';
import { pack as packInBrowsers } from '../../src/wire/packer-browser.ts';
import { LonePeer, SUM } from './lone.ts';

const workspace = new Workspace(await loadKernels(8 * 1024 * 1024), 1024);

/** A member of a view of two with one call open. */
function member(): LonePeer {
  const peer = new LonePeer('a', workspace);
  const members = ['a', 'b'].map((peerId) => ({ peerId, site: '', place: 0 }));
  peer.collectives.onView({ epoch: 1, generation: 1, boundary: 1, members, cuts: [] });
  peer.call(SUM, new Uint8Array(40), 40);
  return peer;
}

interface Fields {
  readonly type: number;
  readonly generation?: number;
  readonly sequence?: number;
}

function frame({ type, generation = 1, sequence = 0 }: Fields, payload: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(HEADER_BYTES + payload.length);
  const header = { ...emptyHeader(), type, epoch: generation, generation, tag: hashTag(''), sequence };
  writeHeader(new DataView(bytes.buffer), 0, { ...header, length: payload.length });
  bytes.set(payload, HEADER_BYTES);
  return bytes;
}

const BARRIER = {
  kind: 'barrier',
  tag: '',
  dtype: 'f32',
  op: null,
  trim: null,
  clipRadius: null,
  codec: 'f32',
  algorithm: 'ring',
  count: 0,
  root: null,
  consistency: 'commit',
  recovery: 'restart',
  stragglers: 'wait',
  minWorldSize: 1,
  segmentBytes: 1024,
};
const OTHER_CALL = packBody(BARRIER);

test('a call is the same in whatever bytes a library writes it', () => {
  const peer = member();
  const same = { ...BARRIER, kind: 'allReduce', op: 'sum', count: 10 };
  const inBrowsers = packInBrowsers(same).slice();
  expect(inBrowsers).not.toEqual(packBody(same));
  expect(peer.connection('b').push(frame({ type: FRAME_OPEN }, inBrowsers))).toBeNull();
  expect(peer.controls).toEqual([]);
  const other = member();
  const error = other.connection('b').push(frame({ type: FRAME_OPEN }, packInBrowsers({ ...same, count: 11 }).slice()));
  expect(error).toBeNull();
  expect(other.controls.map(({ type }) => type)).toEqual(['mismatch']);
});

test('a call that has nothing to do is compared with what was announced before it was made', () => {
  const peer = member();
  expect(peer.connection('b').push(frame({ type: FRAME_OPEN, sequence: 1 }, OTHER_CALL))).toBeNull();
  peer.call({ ...SUM, count: 0 }, new Uint8Array(0), 0);
  expect(peer.controls.map(({ type }) => type)).toEqual(['done', 'mismatch']);
});

describe('frames of a peer that is in no view', () => {
  test('can’t fail what the members do by announcing another call under its number', () => {
    const peer = member();
    const error = peer.connection('stranger').push(frame({ type: FRAME_OPEN }, OTHER_CALL));
    expect(error).toBe('it announced a call in which it has no part');
    expect(peer.controls).toEqual([]);
    expect(peer.connection('b').push(frame({ type: FRAME_OPEN }, OTHER_CALL))).toBeNull();
    expect(peer.controls.map(({ type }) => type)).toEqual(['mismatch']);
  });

  test('are forgotten when it goes: those who come and go keep nothing here', () => {
    const peer = member();
    const segment = frame({ type: FRAME_DATA, generation: 0xffff_ffff }, new Uint8Array(64 * 1024));
    const fill = () => {
      const { push } = peer.connection('stranger');
      let taken = 0;
      while (push(segment) === null) taken += 1;
      return taken;
    };
    expect(fill()).toBe(MAX_UNEXPECTED_BYTES / (64 * 1024));
    expect(fill()).toBe(0);
    peer.collectives.forget('stranger');
    expect(fill()).toBe(MAX_UNEXPECTED_BYTES / (64 * 1024));
  });
});

test('a decision to commit what this rank does not hold, or has not begun, commits nothing', () => {
  const peer = member();
  peer.collectives.onLoss(2, [], ['a', 'b'], [], false);
  peer.call(SUM, new Uint8Array(40), 40); // is not begun before the decision
  peer.collectives.onDecide(
    ['1::0', '1::1'].map((id) => ({ id, epoch: 1 })),
    [],
  );
  expect(peer.calls.map(({ ending }) => ending)).toEqual([null, null]);
  expect(peer.collectives.openCount).toBe(2);
});

test.each([FRAME_OPEN, FRAME_DATA])(
  'a frame of type %i and epoch 0 for a call that waits for a decision is dropped, from whomever it is',
  (type) => {
    const peer = member();
    peer.collectives.onLoss(2, [], ['a', 'b'], [], false);
    peer.call(SUM, new Uint8Array(40), 40); // is not begun before the decision
    for (const from of ['b', 'stranger']) {
      const bytes = frame({ type, sequence: 1 }, type === FRAME_OPEN ? OTHER_CALL : new Uint8Array(20));
      new DataView(bytes.buffer).setUint32(4, 0, true);
      expect(peer.connection(from).push(bytes)).toBeNull();
    }
    expect(peer.calls[1]!.ending).toBeNull();
  },
);

test('a frame that finds no room is not counted as kept', () => {
  const peer = member();
  const early = (sequence: number) => frame({ type: FRAME_DATA, sequence }, new Uint8Array(0));
  for (let index = 0; index < MAX_UNEXPECTED_FRAMES; index++) {
    expect(peer.connection('b').push(early(1 + index))).toBeNull();
  }
  for (let again = 0; again < 3; again++) {
    expect(peer.connection('b').push(early(70_000))).toContain('more data for calls not made here');
  }
  peer.call(SUM, new Uint8Array(40), 40); // takes what was kept for it
  expect(peer.connection('b').push(early(70_000))).toBeNull();
  expect(peer.connection('b').push(early(70_001))).toContain('more data for calls not made here');
});

test('verdicts on calls not made here are bounded for all tags together, and take no tag beyond that', () => {
  const peer = member();
  const fail = (tag: string, sequence: number) =>
    peer.collectives.onFail({
      id: `1:${tag}:${sequence}`,
      code: 'withdrawn',
      message: 'it was withdrawn',
      peerId: 'b',
    });
  for (let index = 0; index < 70_000; index++) fail(`tag ${index}`, 0);
  const known = peer.call({ ...SUM, tag: `tag ${MAX_OPEN_COLLECTIVES - 1}` }, new Uint8Array(40), 40);
  expect(known.ending).toBe('SKEIN_WITHDRAWN');
  const fresh = peer.call({ ...SUM, tag: 'tag 69999' }, new Uint8Array(40), 40);
  expect(fresh.ending).toBeNull();
  fail('tag 69999', 0);
  expect(fresh.ending).toBe('SKEIN_WITHDRAWN');
});

describe('relayed frames', () => {
  const MEMBERS = ['a', 'b', 'c'].map((peerId) => ({ peerId, site: '', place: 0 }));

  /** Member `a` of a view of three, with one call open; it can't reach b. */
  function between(cuts: readonly (readonly [string, string])[] = [['a', 'b']]): LonePeer {
    const peer = new LonePeer('a', workspace);
    peer.collectives.onView({ epoch: 1, generation: 1, boundary: 1, members: MEMBERS, cuts });
    peer.call(SUM, new Uint8Array(40), 40);
    return peer;
  }

  const relayed = (...path: readonly string[]) => new Envelope(path).wrap(frame({ type: FRAME_OPEN }, OTHER_CALL), 0);

  test('are taken from members, where there is a cut to go round', () => {
    const peer = between();
    expect(peer.connection('c').push(relayed('b', 'c', 'a'))).toBeNull();
    expect(peer.controls.map(({ type }) => type)).toEqual(['mismatch']);
  });

  test.each<[string, string, readonly string[], readonly (readonly [string, string])[]]>([
    ['a stranger relays', 'newcomer', ['b', 'newcomer', 'a'], [['a', 'b']]],
    ['a stranger speaks', 'c', ['newcomer', 'c', 'a'], [['a', 'b']]],
    ['nobody has introduced one of them', 'c', ['stranger', 'c', 'a'], [['a', 'b']]],
    ['nothing is cut between the two', 'c', ['b', 'c', 'a'], []],
  ])('are dropped when %s', (_, via, path, cuts) => {
    const peer = between(cuts);
    expect(peer.connection(via).push(relayed(...path))).toBeNull();
    expect(peer.controls).toEqual([]);
  });

  test.each([
    ['does not lead here', 'c', ['b', 'c', 'd']],
    ['names another relay', 'c', ['b', 'd', 'a']],
    ['begins here', 'c', ['a', 'c', 'b']],
    ['passes somebody twice', 'c', ['b', 'c', 'b', 'c', 'a']],
    ['is none', 'c', ['c', 'a']],
  ])('are refused when the path %s', (_, via, path) => {
    const peer = between();
    expect(peer.connection(via).push(relayed(...path))).not.toBeNull();
    expect(peer.controls).toEqual([]);
  });

  test('can not carry another relayed frame, nor one of another length than they say', () => {
    const inner = relayed('b', 'c', 'a');
    expect(
      between()
        .connection('c')
        .push(new Envelope(['b', 'c', 'a']).wrap(inner, 0)),
    ).not.toBeNull();
    const short = frame({ type: FRAME_OPEN }, OTHER_CALL).subarray(0, -1);
    expect(
      between()
        .connection('c')
        .push(new Envelope(['b', 'c', 'a']).wrap(short, 0)),
    ).not.toBeNull();
  });
});
