/** WebRTC without a network: sessions do what a test tells them. */
import type {
  DescriptionKind,
  RtcChannel,
  RtcChannelHandler,
  RtcDriver,
  RtcPath,
  RtcSession,
  RtcSessionEvents,
} from '../../src/transport/rtc.ts';

export class FakeChannel implements RtcChannel {
  readonly maxMessageSize: number = 256 * 1024;
  bufferedAmount = 0;
  readonly sent: (Uint8Array | string)[] = [];
  handler: RtcChannelHandler = { onOpen() {}, onMessage() {}, onBufferedAmountLow() {}, onClose() {} };

  send(message: Uint8Array | string): void {
    this.sent.push(typeof message === 'string' ? message : message.slice());
  }

  get bytesSent(): number {
    return this.sent.reduce((sum, message) => sum + (typeof message === 'string' ? 0 : message.length), 0);
  }
}

type RtcSettings = Parameters<RtcDriver['open']>[0];

export class FakeSession implements RtcSession {
  readonly relayOnly: boolean;
  /** Their addresses. */
  readonly iceServers: readonly string[];
  readonly events: RtcSessionEvents;
  readonly channel: FakeChannel = new FakeChannel();
  readonly candidates: string[] = [];
  remote: { kind: DescriptionKind; sdp: string } | null = null;
  path: RtcPath | null = null;
  closed = false;

  constructor({ relayOnly, iceServers }: RtcSettings, events: RtcSessionEvents) {
    this.relayOnly = relayOnly;
    this.iceServers = iceServers.map(({ url }) => url);
    this.events = events;
  }

  createChannel(): RtcChannel {
    return this.channel;
  }

  setRemoteDescription(kind: DescriptionKind, sdp: string): void {
    if (sdp.includes('garbage')) throw new Error('it can not be parsed');
    this.remote = { kind, sdp };
  }

  addRemoteCandidate(candidate: string): void {
    this.candidates.push(candidate);
  }

  close(): void {
    this.closed = true;
  }
}

export class FakeRtc implements RtcDriver {
  readonly sessions: FakeSession[] = [];

  get openSessions(): number {
    return this.sessions.filter((session) => !session.closed).length;
  }

  open(settings: RtcSettings, events: RtcSessionEvents): RtcSession {
    const session = new FakeSession(settings, events);
    this.sessions.push(session);
    return session;
  }
}

/** A description that names a certificate. */
export function sdpOf(fingerprint: string): string {
  return `v=0\r\na=fingerprint:sha-256 ${fingerprint}\r\na=setup:actpass\r\n`;
}
