/**
 * The driver on node-datachannel (libdatachannel). Its traps: what nothing refers to is collected, and its messages vanish in
 * silence; a call on what has just closed throws out of native code; and it can be loaded by one thread of a process only,
 * which must let go of it before the process ends (see engine/rtc-engine.ts). And a first packet of DTLS that comes while it makes
 * itself ready lies there until its sender repeats it, a second later: so who answers leaves the beginning to who offered, whose path
 * opens last unless NATs are between.
 */
import nodeDataChannel, { type DataChannel, type PeerConnection } from 'node-datachannel';
import {
  asDtlsClient,
  BUFFERED_LOW_BYTES,
  type DescriptionKind,
  type IceServer,
  type RtcChannel,
  type RtcChannelHandler,
  type RtcDriver,
  type RtcPath,
  type RtcSession,
  type RtcSessionEvents,
} from './rtc.ts';

const IDLE: RtcChannelHandler = {
  onOpen: () => {},
  onMessage: () => {},
  onBufferedAmountLow: () => {},
  onClose: () => {},
};

/** Largest message that we take: what browsers take as well. */
const MAX_MESSAGE_BYTES: number = 256 * 1024;

/** Sessions that are not closed: they must not be collected. */
const open = new Set<NativeSession>();

/** As libdatachannel takes them: with the credentials in the URL. */
function urlOf({ url, username, credential }: IceServer): string {
  if (username === undefined) return url;
  const at = url.indexOf(':') + 1;
  return `${url.slice(0, at)}${encodeURIComponent(username)}:${encodeURIComponent(credential ?? '')}@${url.slice(at)}`;
}

class NativeChannel implements RtcChannel {
  handler: RtcChannelHandler = IDLE;
  readonly #channel: DataChannel;
  #closed = false;

  constructor(channel: DataChannel) {
    this.#channel = channel;
    channel.setBufferedAmountLowThreshold(BUFFERED_LOW_BYTES);
    channel.onOpen(() => {
      if (!this.#closed) this.handler.onOpen();
    });
    channel.onMessage((message) => {
      if (!this.#closed) this.handler.onMessage(message instanceof ArrayBuffer ? new Uint8Array(message) : message);
    });
    channel.onBufferedAmountLow(() => {
      if (!this.#closed) this.handler.onBufferedAmountLow();
    });
    channel.onClosed(() => this.lose());
    channel.onError(() => this.lose());
  }

  get maxMessageSize(): number {
    return this.#closed ? 0 : this.#channel.maxMessageSize();
  }

  get bufferedAmount(): number {
    return this.#closed ? 0 : this.#channel.bufferedAmount();
  }

  send(message: Uint8Array | string): void {
    // It may have closed already, without this thread having been told.
    if (this.#closed || !this.#channel.isOpen()) return;
    try {
      if (typeof message === 'string') this.#channel.sendMessage(message);
      else this.#channel.sendMessageBinary(message);
    } catch {
      // It has closed since, and `onClosed` follows.
    }
  }

  /** From now on nothing of it is told. */
  forget(): void {
    this.#closed = true;
  }

  /** It is gone, and its owner is told. */
  lose(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.handler.onClose();
  }
}

class NativeSession implements RtcSession {
  readonly #connection: PeerConnection;
  readonly #events: RtcSessionEvents;
  #channel: NativeChannel | null = null;
  #closed = false;

  constructor(iceServers: readonly IceServer[], relayOnly: boolean, events: RtcSessionEvents) {
    this.#events = events;
    this.#connection = new nodeDataChannel.PeerConnection('skein', {
      iceServers: iceServers.map(urlOf),
      iceTransportPolicy: relayOnly ? 'relay' : 'all',
      maxMessageSize: MAX_MESSAGE_BYTES,
    });
    open.add(this);
    this.#listen();
  }

  #listen(): void {
    const connection = this.#connection;
    connection.onLocalDescription((sdp, kind) => {
      if (!this.#closed && (kind === 'offer' || kind === 'answer')) this.#events.onDescription(kind, sdp);
    });
    connection.onLocalCandidate((candidate, mid) => {
      if (!this.#closed) this.#events.onCandidate(candidate, mid);
    });
    connection.onStateChange((state) => {
      if (this.#closed || (state !== 'failed' && state !== 'closed')) return;
      if (this.#channel === null) this.#events.onFailed('no path was found');
      else this.#channel.lose();
    });
    connection.onDataChannel((channel) => {
      if (this.#closed || this.#channel !== null) return;
      this.#channel = new NativeChannel(channel);
      this.#events.onChannel(this.#channel);
    });
  }

  createChannel(): RtcChannel {
    this.#channel = new NativeChannel(this.#connection.createDataChannel('skein'));
    return this.#channel;
  }

  setRemoteDescription(kind: DescriptionKind, sdp: string): void {
    if (!this.#closed) this.#connection.setRemoteDescription(kind === 'offer' ? asDtlsClient(sdp) : sdp, kind);
  }

  addRemoteCandidate(candidate: string, mid: string): void {
    if (this.#closed) return;
    try {
      this.#connection.addRemoteCandidate(candidate, mid);
    } catch {
      // One of a kind that is not known here, or that came before its description: there are others.
    }
  }

  get path(): RtcPath | null {
    const pair = this.#closed ? null : this.#connection.getSelectedCandidatePair();
    if (pair === null) return null;
    return pair.local.type === 'relay' || pair.remote.type === 'relay' ? 'relayed' : 'direct';
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#channel?.forget();
    this.#connection.close();
    open.delete(this);
  }
}

export const nativeRtc: RtcDriver = {
  get openSessions() {
    return open.size;
  },
  open: ({ iceServers, relayOnly }, events) => new NativeSession(iceServers, relayOnly, events),
};

/** Lets go of all that is native; nothing can be opened while it does. */
export function releaseNative(): void {
  for (const session of open) session.close();
  nodeDataChannel.cleanup();
}
