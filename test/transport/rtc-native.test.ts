/** What the driver on node-datachannel does about the traps of that library. */
import { afterAll, expect, test } from 'vitest';
import type { RtcSession, RtcSessionEvents } from '../../src/transport/rtc.ts';
import { nativeRtc, releaseNative } from '../../src/transport/rtc-native.ts';

afterAll(() => releaseNative());

test('who offers begins the handshake, as the other one is ready for it first', async () => {
  const sessions: RtcSession[] = [];
  try {
    const answer = await new Promise<string>((resolve, reject) => {
      const open = (onDescription: RtcSessionEvents['onDescription']) => {
        const events = { onDescription, onCandidate: () => {}, onChannel: () => {}, onFailed: reject };
        const session = nativeRtc.open({ iceServers: [], relayOnly: false }, events);
        sessions.push(session);
        return session;
      };
      const acceptor = open((_, sdp) => resolve(sdp));
      open((kind, sdp) => acceptor.setRemoteDescription(kind, sdp)).createChannel();
    });
    expect(/^a=setup:(\w+)/m.exec(answer)?.[1]).toBe('passive');
  } finally {
    for (const session of sessions) session.close();
  }
});
