/** What the coordinator does for WebRTC sessions between peers: it passes signals on, and tells of servers. */
import { describe, expect, test } from 'vitest';
import { Stage } from './stage.ts';

const OFFER = { kind: 'offer', session: 7, relay: false, sdp: 'v=0' } as const;

describe('signals', () => {
  test('go to the peer that they are for, and tell whom they are from', () => {
    const stage = Stage.withMembers(3);
    expect(stage.say('a', { type: 'signal', to: stage.id('c'), signal: OFFER })).toEqual(['c ← signal from a: offer']);
    const candidate = {
      kind: 'candidate',
      session: 7,
      fromDialler: false,
      candidate: 'candidate:1',
      mid: '0',
    } as const;
    expect(stage.say('c', { type: 'signal', to: stage.id('a'), signal: candidate })).toEqual([
      'a ← signal from c: candidate',
    ]);
  });

  test('reach peers that are not members yet, whose links are warmed by them', () => {
    const stage = Stage.withMembers(2);
    const { name } = stage.join();
    expect(stage.say(name, { type: 'signal', to: stage.id('a'), signal: OFFER })).toEqual([
      `a ← signal from ${name}: offer`,
    ]);
    expect(stage.say('a', { type: 'signal', to: stage.id(name), signal: OFFER })).toEqual([
      `${name} ← signal from a: offer`,
    ]);
  });

  test('an offer to somebody who is not there is answered: its sender need not wait', () => {
    const stage = Stage.withMembers(1);
    const effects = stage.machine.step(
      { type: 'message', peerId: stage.id('a'), message: { type: 'signal', to: 'nobody', signal: OFFER } },
      0,
    );
    expect(effects).toEqual([
      {
        type: 'send',
        peerId: stage.id('a'),
        message: {
          type: 'signal',
          from: 'nobody',
          signal: { kind: 'end', session: 7, fromDialler: false, reason: 'there is no nobody in this run' },
        },
      },
    ]);
    const end = { kind: 'end', session: 7, fromDialler: true, reason: '' } as const;
    expect(stage.say('a', { type: 'signal', to: 'nobody', signal: end })).toEqual([]);
  });
});

test('servers are told to who asks, with credentials of its own', () => {
  const stage = Stage.withMembers(2);
  expect(stage.say('b', { type: 'ice' })).toEqual(['b ← ice for b']);
});
