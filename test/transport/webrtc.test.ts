/** What the WebRTC transport does when the other end, or the network between, does not do its part. */
import { describe, expect, test } from 'vitest';
import { ProtocolError } from '../../src/errors.ts';
import { ChannelConnection } from '../../src/transport/channel-connection.ts';
import { VirtualClock } from '../../src/transport/clock.ts';
import type { IceServer } from '../../src/transport/rtc.ts';
import type { Connection } from '../../src/transport/transport.ts';
import { type Signal, WebRtcTransport } from '../../src/transport/webrtc.ts';
import { FakeChannel, FakeRtc, FakeSession, sdpOf } from './fake-rtc.ts';

const MIB = 1024 * 1024;
const TURN: readonly IceServer[] = [{ url: 'turn:192.0.2.1:3478' }];
const settled = () => new Promise<void>((resolve) => setImmediate(resolve));

/** One peer's transport, and what it says. */
function standAlone(iceServers: readonly IceServer[] = []) {
  const clock = new VirtualClock();
  const driver = new FakeRtc();
  const signals: { readonly to: string; readonly signal: Signal }[] = [];
  let sessions = 0;
  const transport = new WebRtcTransport({
    driver,
    clock,
    random: (length) => new Uint8Array(length).fill(++sessions),
    signal: (to, signal) => void signals.push({ to, signal }),
    iceServers: () => iceServers,
  });
  const dial = () => {
    let outcome: Connection | Error | null = null;
    transport.dial({ kind: 'webrtc', peerId: 'p1' }, { timeoutMs: 15_000 }).then(
      (connection) => {
        outcome = connection;
      },
      (error: Error) => {
        outcome = error;
      },
    );
    return () => outcome;
  };
  /** Ends and answers name the session of an offer. */
  const numberOf = (index: number) => signals.filter(({ signal }) => signal.kind === 'offer')[index]!.signal.session;
  return { clock, driver, signals, transport, dial, numberOf };
}

describe('dialling', () => {
  test('tries relayed paths after two seconds, and takes what opens first', async () => {
    const { clock, driver, signals, dial, transport, numberOf } = standAlone(TURN);
    const outcome = dial();
    const [direct] = driver.sessions;
    direct!.events.onDescription('offer', sdpOf('AA:AA'));
    clock.advance(1_990);
    expect(driver.sessions).toHaveLength(1);
    clock.advance(20);
    const relayed = driver.sessions[1]!;
    expect([direct!.relayOnly, relayed.relayOnly]).toEqual([false, true]);
    relayed.events.onDescription('offer', sdpOf('AA:AB'));
    transport.onSignal('p1', { kind: 'answer', session: numberOf(1), sdp: sdpOf('BB:BB') });
    relayed.path = 'relayed';
    relayed.channel.handler.onOpen();
    await settled();
    expect(outcome()).toMatchObject({ remote: 'webrtc p1', relayed: true, relayOnly: true });
    expect(direct!.closed).toBe(true);
    expect(signals.at(-1)).toMatchObject({
      to: 'p1',
      signal: { kind: 'end', session: numberOf(0), fromDialler: true },
    });
    clock.advance(30_000);
    expect(driver.sessions).toHaveLength(2);
    expect(relayed.closed).toBe(false);
  });

  test('offers no relay in a direct session, and begins the handshake of DTLS itself in one through a relay', () => {
    const { clock, driver, signals, dial } = standAlone([...TURN, { url: 'stun:s:3478' }]);
    dial();
    clock.advance(2_010);
    for (const session of driver.sessions) session.events.onDescription('offer', sdpOf('AA'));
    expect(driver.sessions.map(({ iceServers }) => iceServers)).toEqual([
      ['stun:s:3478'],
      [...TURN.map(({ url }) => url), 'stun:s:3478'],
    ]);
    const setups = signals.map(({ signal }) =>
      signal.kind === 'offer' ? /^a=setup:(\w+)/m.exec(signal.sdp)?.[1] : '',
    );
    expect(setups).toEqual(['actpass', 'active']);
  });

  test('does not wait two seconds when the direct paths have failed before', () => {
    const { driver, dial } = standAlone(TURN);
    dial();
    for (const index of [0, 1]) driver.sessions[index]!.events.onFailed('no path was found');
    expect(driver.sessions.map(({ relayOnly }) => relayOnly)).toEqual([false, false, true]);
  });

  test('tries each kind of path once more when it failed, then gives up and says why', async () => {
    const { driver, dial } = standAlone(TURN);
    const outcome = dial();
    for (const index of [0, 1, 2, 3]) driver.sessions[index]!.events.onFailed(`no path was found (${index})`);
    expect(driver.sessions.map(({ relayOnly }) => relayOnly)).toEqual([false, false, true, true]);
    await settled();
    expect(String(outcome())).toMatch(/Nobody could be reached at webrtc p1: no path was found \(3\)/);
    expect(driver.openSessions).toBe(0);
  });

  test('one that failed does not end the dial while another is under way', async () => {
    const { clock, driver, dial } = standAlone(TURN);
    const outcome = dial();
    clock.advance(2_010);
    const relayed = driver.sessions[1]!;
    for (const index of [0, 2]) driver.sessions[index]!.events.onFailed('no path was found');
    expect(driver.sessions.map(({ relayOnly }) => relayOnly)).toEqual([false, true, false]);
    relayed.channel.handler.onOpen();
    await settled();
    expect(outcome()).toMatchObject({ remote: 'webrtc p1', relayOnly: true });
  });

  test('the second session says how it is reached once it has the answer, the first one at once', () => {
    const { driver, signals, dial, transport, numberOf } = standAlone();
    dial();
    const told = () => signals.flatMap(({ signal }) => (signal.kind === 'candidate' ? [signal.candidate] : []));
    const [first] = driver.sessions;
    first!.events.onDescription('offer', sdpOf('AA'));
    first!.events.onCandidate('a', '0');
    expect(told()).toEqual(['a']);
    first!.events.onFailed('no path was found');
    const second = driver.sessions[1]!;
    second.events.onDescription('offer', sdpOf('AB'));
    for (const candidate of ['b', 'c']) second.events.onCandidate(candidate, '0');
    expect(told()).toEqual(['a']);
    transport.onSignal('p1', { kind: 'answer', session: numberOf(1), sdp: sdpOf('BB') });
    second.events.onCandidate('d', '0');
    expect(told()).toEqual(['a', 'b', 'c', 'd']);
    expect(signals.at(-1)!.signal).toMatchObject({ session: numberOf(1), fromDialler: true });
  });

  test('tries once more without TURN servers, then fails and says why', async () => {
    const { clock, driver, dial } = standAlone();
    const outcome = dial();
    clock.advance(5_000);
    expect(driver.sessions).toHaveLength(1);
    for (const index of [0, 1]) driver.sessions[index]!.events.onFailed('no path was found');
    expect(driver.sessions.map(({ relayOnly }) => relayOnly)).toEqual([false, false]);
    await settled();
    expect(String(outcome())).toMatch(/Nobody could be reached at webrtc p1: no path was found/);
    expect(driver.openSessions).toBe(0);
  });

  test('a refusal is final, but an end after the answer leaves other paths', async () => {
    const { driver, dial, transport, numberOf } = standAlone(TURN);
    const outcome = dial();
    driver.sessions[0]!.events.onDescription('offer', sdpOf('AA'));
    const session = numberOf(0);
    transport.onSignal('p1', { kind: 'answer', session, sdp: sdpOf('BB') });
    transport.onSignal('p1', { kind: 'end', session, fromDialler: false, reason: 'no path was found' });
    expect(driver.sessions).toHaveLength(2);
    driver.sessions[1]!.events.onDescription('offer', sdpOf('AA'));
    transport.onSignal('p1', { kind: 'end', session: numberOf(1), fromDialler: false, reason: 'it does not listen' });
    await settled();
    expect(String(outcome())).toMatch(/it does not listen/);
    expect(driver.openSessions).toBe(0);
  });

  test('answers of others, and answers given twice, change nothing', () => {
    const { driver, dial, transport, numberOf } = standAlone();
    dial();
    const [session] = driver.sessions;
    session!.events.onDescription('offer', sdpOf('AA'));
    transport.onSignal('p2', { kind: 'answer', session: numberOf(0), sdp: sdpOf('CC') });
    transport.onSignal('p2', { kind: 'end', session: numberOf(0), fromDialler: false, reason: 'mine' });
    expect(session!.remote).toBeNull();
    transport.onSignal('p1', { kind: 'answer', session: numberOf(0), sdp: sdpOf('BB') });
    transport.onSignal('p1', { kind: 'answer', session: numberOf(0), sdp: sdpOf('CC') });
    expect(session!.remote?.sdp).toContain('BB');
    expect(session!.closed).toBe(false);
  });
});

describe('accepting', () => {
  const offer = (session: number, sdp = sdpOf('AA'), relay = false): Signal => ({ kind: 'offer', session, relay, sdp });

  test('uses no relay of its own, as the dialler has one where it is needed', async () => {
    const { driver, transport } = standAlone([...TURN, { url: 'stun:s:3478' }]);
    await transport.listen({ kind: 'webrtc', peerId: '' }, () => {});
    transport.onSignal('p1', offer(1));
    transport.onSignal('p1', offer(2, sdpOf('AA'), true));
    for (const session of driver.sessions) {
      expect([session.relayOnly, session.iceServers]).toEqual([false, ['stun:s:3478']]);
    }
    expect(driver.sessions).toHaveLength(2);
  });

  test('refuses what is no description, or names no certificate', async () => {
    const { driver, signals, transport } = standAlone();
    await transport.listen({ kind: 'webrtc', peerId: '' }, () => {});
    transport.onSignal('p1', offer(1, sdpOf('garbage')));
    transport.onSignal('p1', offer(2, 'v=0\r\n'));
    // One more, with which somebody on the way could present himself.
    transport.onSignal('p1', offer(3, `${sdpOf('AA')}${sdpOf('EE')}`));
    expect(signals.map(({ signal }) => (signal.kind === 'end' ? signal.reason : ''))).toEqual([
      'its offer is no good: it can not be parsed',
      'its offer does not name one certificate',
      'its offer does not name one certificate',
    ]);
    expect(driver.openSessions).toBe(0);
  });

  test('bounds how many may be begun at once, how many candidates count, and for how long', async () => {
    const { clock, driver, signals, transport } = standAlone();
    await transport.listen({ kind: 'webrtc', peerId: '' }, () => {});
    for (let session = 1; session <= 300; session++) transport.onSignal('p1', offer(session));
    transport.onSignal('p1', offer(1));
    expect(driver.openSessions).toBe(256);
    expect(signals).toHaveLength(300 - 256 + 1);
    for (let index = 0; index < 200; index++) {
      transport.onSignal('p1', { kind: 'candidate', session: 1, fromDialler: true, candidate: `${index}`, mid: '0' });
    }
    expect(driver.sessions[0]!.candidates).toHaveLength(64);
    clock.advance(30_001);
    expect(driver.openSessions).toBe(0);
  });

  test('a dialler that gives up frees what it had begun', async () => {
    const { driver, transport } = standAlone();
    await transport.listen({ kind: 'webrtc', peerId: '' }, () => {});
    transport.onSignal('p1', offer(1));
    transport.onSignal('p1', { kind: 'end', session: 1, fromDialler: true, reason: 'it is not wanted any more' });
    expect(driver.openSessions).toBe(0);
  });

  test('both ends have one binding, and a certificate that was exchanged on the way gives another', async () => {
    const bindings: string[] = [];
    const note = ({ binding }: Connection & { binding?: Uint8Array }) =>
      bindings.push(Buffer.from(binding!).toString());
    const near = standAlone();
    const outcome = near.dial();
    near.driver.sessions[0]!.events.onDescription('offer', sdpOf('AA'));
    near.transport.onSignal('p1', { kind: 'answer', session: near.numberOf(0), sdp: sdpOf('bb') });
    near.driver.sessions[0]!.channel.handler.onOpen();
    await settled();
    note(outcome() as unknown as Connection);
    for (const seen of ['AA', 'EE']) {
      const far = standAlone();
      await far.transport.listen({ kind: 'webrtc', peerId: '' }, note);
      far.transport.onSignal('p0', offer(1, sdpOf(seen)));
      far.driver.sessions[0]!.events.onDescription('answer', sdpOf('BB'));
      far.driver.sessions[0]!.events.onChannel(new FakeChannel());
    }
    expect(bindings[0]).toBe('SHA-256 AA SHA-256 BB');
    expect(bindings[1]).toBe(bindings[0]);
    expect(bindings[2]).not.toBe(bindings[0]);
  });
});

describe('a stream over a channel', () => {
  function stream() {
    const clock = new VirtualClock();
    const session = new FakeSession(
      { relayOnly: false, iceServers: [] },
      { onDescription() {}, onCandidate() {}, onChannel() {}, onFailed() {} },
    );
    const { channel } = session;
    const end = {
      session,
      channel,
      remote: 'webrtc p1',
      binding: new Uint8Array(0),
      clock,
      dialled: true,
      relayOnly: false,
    };
    const connection = new ChannelConnection(end);
    const seen: { bytes: number; closed: Error | null | undefined } = { bytes: 0, closed: null };
    connection.handler = {
      onData: (bytes) => {
        seen.bytes += bytes.length;
      },
      onEnd: () => {},
      onClose: (error) => {
        seen.closed = error;
      },
    };
    return { session, channel, connection, seen };
  }

  test('sends no more than it is allowed to, in messages of a bounded size', async () => {
    const { channel, connection } = stream();
    let flushed = 0;
    connection.write(new Uint8Array(10), new Uint8Array(6 * MIB), () => {
      flushed += 1;
    });
    await settled();
    expect(channel.bytesSent).toBe(4 * MIB);
    expect(flushed).toBe(0);
    channel.handler.onMessage(`w${5 * MIB}`);
    expect(channel.bytesSent).toBe(5 * MIB);
    channel.handler.onMessage(`w${4 * MIB}`); // never less
    channel.handler.onMessage(`w${100 * MIB}`);
    expect(channel.bytesSent).toBe(6 * MIB + 10);
    expect(flushed).toBe(1);
    for (const message of channel.sent) expect(message.length).toBeLessThanOrEqual(64 * 1024);
  });

  test('holds back while the channel holds much, and goes on when that has left', async () => {
    const { channel, connection } = stream();
    channel.bufferedAmount = 2 * MIB;
    connection.write(new Uint8Array(100), null, null);
    await settled();
    expect(channel.bytesSent).toBe(0);
    expect(connection.queuedBytes).toBe(100);
    channel.bufferedAmount = 0;
    channel.handler.onBufferedAmountLow();
    expect(channel.bytesSent).toBe(100);
  });

  test('grants credit as it is read, and none while it pauses', () => {
    const { channel, connection, seen } = stream();
    connection.pause();
    for (let piece = 0; piece < 16; piece++) channel.handler.onMessage(new Uint8Array(128 * 1024));
    expect(seen.bytes).toBe(0);
    expect(channel.sent).toEqual([]);
    connection.resume();
    return settled().then(() => {
      expect(seen.bytes).toBe(2 * MIB);
      expect(channel.sent).toEqual([`w${6 * MIB}`]);
    });
  });

  test.each([
    [
      'more than was allowed',
      (channel: FakeChannel, connection: Connection) => {
        connection.pause();
        for (let piece = 0; piece < 33; piece++) channel.handler.onMessage(new Uint8Array(128 * 1024));
      },
    ],
    [
      'more after its end',
      (channel: FakeChannel) => {
        channel.handler.onMessage('e');
        channel.handler.onMessage(new Uint8Array(1));
      },
    ],
    [
      'two ends',
      (channel: FakeChannel) => {
        channel.handler.onMessage('e');
        channel.handler.onMessage('e');
      },
    ],
    ['what means nothing', (channel: FakeChannel) => channel.handler.onMessage('w-1')],
    ['that it has read an end that was not sent', (channel: FakeChannel) => channel.handler.onMessage('a')],
  ] as const)('refuses an end that sends %s', async (_, misbehave) => {
    const { session, channel, connection, seen } = stream();
    misbehave(channel, connection);
    await settled();
    expect(seen.closed).toBeInstanceOf(ProtocolError);
    expect(session.closed).toBe(true);
  });
});
