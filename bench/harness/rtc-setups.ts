/**
 * How long it takes until a data channel is open, from the first signal on: a dial of Skein's beside a bare node-datachannel
 * program, in turns, both ends in this process. Every signal arrives after `SIGNAL_MS`, as through a coordinator nearby.
 */
import { randomBytes } from 'node:crypto';
import nodeDataChannel from 'node-datachannel';
import { systemClock } from '../../src/transport/clock.ts';
import { nativeRtc, releaseNative } from '../../src/transport/rtc-native.ts';
import { type Signal, WebRtcTransport } from '../../src/transport/webrtc.ts';
import { deadline } from './member.ts';

const SIGNAL_MS = 5;
const SELF = 'self';

/** What nothing refers to is collected, and never opens. */
const held = new Set<nodeDataChannel.DataChannel>();

async function timed(work: () => Promise<() => void>): Promise<number> {
  const startedAt = performance.now();
  const close = await deadline('a set-up', work());
  const ms = performance.now() - startedAt;
  close();
  return ms;
}

function bareSetup(): Promise<() => void> {
  const [dialler, dialled] = ['dialler', 'dialled'].map(
    (name) => new nodeDataChannel.PeerConnection(name, { iceServers: [] }),
  ) as [nodeDataChannel.PeerConnection, nodeDataChannel.PeerConnection];
  const later = (signal: () => void) => void setTimeout(signal, SIGNAL_MS);
  for (const [from, to] of [
    [dialler, dialled],
    [dialled, dialler],
  ] as const) {
    from.onLocalDescription((sdp, kind) => later(() => to.setRemoteDescription(sdp, kind)));
    from.onLocalCandidate((candidate, mid) => later(() => to.addRemoteCandidate(candidate, mid)));
  }
  const channel = dialler.createDataChannel('bare');
  held.add(channel);
  return new Promise((resolve) => {
    channel.onOpen(() =>
      resolve(() => {
        held.delete(channel);
        for (const end of [dialler, dialled]) end.close();
      }),
    );
  });
}

function skeinSetups(): () => Promise<() => void> {
  const transport: WebRtcTransport = new WebRtcTransport({
    driver: nativeRtc,
    clock: systemClock,
    random: (length) => new Uint8Array(randomBytes(length)),
    signal: (_, signal: Signal) => void setTimeout(() => transport.onSignal(SELF, signal), SIGNAL_MS),
    iceServers: () => [],
  });
  const address = { kind: 'webrtc', peerId: SELF } as const;
  const listening = transport.listen(address, (connection) => {
    connection.handler = { onData: () => {}, onEnd: () => {}, onClose: () => {} };
  });
  return async () => {
    await listening;
    const connection = await transport.dial(address, { timeoutMs: 20_000 });
    connection.handler = { onData: () => {}, onEnd: () => {}, onClose: () => {} };
    return () => connection.destroy();
  };
}

/** Milliseconds that each took. */
export interface Setups {
  readonly bare: number[];
  readonly skein: number[];
}

export async function measureSetups(count: number): Promise<Setups> {
  const setups: Setups = { bare: [], skein: [] };
  const skein = skeinSetups();
  try {
    // The first of each loads what the others find.
    for (let index = -1; index < count; index++) {
      const [bare, own] = [await timed(bareSetup), await timed(skein)];
      if (index < 0) continue;
      setups.bare.push(bare);
      setups.skein.push(own);
    }
  } finally {
    releaseNative();
  }
  return setups;
}
