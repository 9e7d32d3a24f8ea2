/** The driver on what browsers have. A channel is told of once it is known how its ends reach one another. */
import {
  BUFFERED_LOW_BYTES,
  type DescriptionKind,
  type RtcChannel,
  type RtcChannelHandler,
  type RtcDriver,
  type RtcPath,
  type RtcSession,
  type RtcSessionEvents,
} from '../transport/rtc.ts';
import type { Peering, PeeringEvents, PeeringSettings } from './peering.ts';

/** What every browser takes, and libdatachannel. */
const MESSAGE_BYTES: number = 64 * 1024;

const IDLE: RtcChannelHandler = {
  onOpen: () => {},
  onMessage: () => {},
  onBufferedAmountLow: () => {},
  onClose: () => {},
};

class BrowserChannel implements RtcChannel {
  handler: RtcChannelHandler = IDLE;
  readonly maxMessageSize: number = MESSAGE_BYTES;
  /** Null until it was made, perhaps in another thread. */
  #channel: RTCDataChannel | null = null;
  /** What happened before its owner was told that it is open; null afterwards. */
  #held: (() => void)[] | null = [];
  #closed = false;

  attach(channel: RTCDataChannel, onOpen: () => void): void {
    this.#channel = channel;
    channel.binaryType = 'arraybuffer';
    channel.bufferedAmountLowThreshold = BUFFERED_LOW_BYTES;
    channel.onmessage = ({ data }: MessageEvent<unknown>) => {
      if (typeof data === 'string') this.#tell(() => this.handler.onMessage(data));
      else if (data instanceof ArrayBuffer) this.#tell(() => this.handler.onMessage(new Uint8Array(data)));
    };
    channel.onbufferedamountlow = () => this.#tell(() => this.handler.onBufferedAmountLow());
    channel.onclose = () => this.lose();
    if (channel.readyState === 'open') onOpen();
    else channel.onopen = onOpen;
  }

  get bufferedAmount(): number {
    return this.#closed ? 0 : (this.#channel?.bufferedAmount ?? 0);
  }

  send(message: Uint8Array | string): void {
    if (this.#closed || this.#channel?.readyState !== 'open') return;
    try {
      if (typeof message === 'string') this.#channel.send(message);
      // Shared memory is refused.
      else if (message.buffer instanceof ArrayBuffer) this.#channel.send(message as Uint8Array<ArrayBuffer>);
      else this.#channel.send(message.slice());
    } catch {
      // It has closed since, or its buffer is full, which closes it; `onclose` follows.
    }
  }

  /** Its owner knows of it: tells what has happened meanwhile. */
  release(): void {
    const held = this.#held ?? [];
    this.#held = null;
    for (const tell of held) if (!this.#closed) tell();
  }

  #tell(tell: () => void): void {
    if (this.#closed) return;
    if (this.#held === null) tell();
    else this.#held.push(tell);
  }

  /** From now on nothing of it is told. */
  forget(): void {
    this.#closed = true;
  }

  /** It is gone, and its owner is told. */
  lose(): void {
    this.#tell(() => {
      this.#closed = true;
      this.handler.onClose();
    });
  }
}

class BrowserSession implements RtcSession {
  path: RtcPath | null = null;
  readonly #peering: Peering;
  readonly #events: RtcSessionEvents;
  readonly #onGone: (session: BrowserSession) => void;
  #channel: BrowserChannel | null = null;
  /** It was made here, and its owner has it already. */
  #isOwn = false;
  #closed = false;

  constructor(
    open: (events: PeeringEvents) => Peering,
    events: RtcSessionEvents,
    onGone: (session: BrowserSession) => void,
  ) {
    this.#events = events;
    this.#onGone = onGone;
    this.#peering = open({
      onDescription: (kind, sdp) => {
        if (!this.#closed) events.onDescription(kind, sdp);
      },
      onCandidate: (candidate, mid) => {
        if (!this.#closed) events.onCandidate(candidate, mid);
      },
      onChannel: (raw) => this.#attach(raw),
      onFailed: (reason) => this.#fail(reason),
    });
  }

  #fail(reason: string): void {
    if (this.#closed) return;
    if (this.#channel === null) {
      this.#events.onFailed(reason);
      return;
    }
    // Its owner may never come to be told that it is open.
    if (this.#isOwn) this.#channel.release();
    this.#channel.lose();
  }

  #attach(raw: RTCDataChannel): void {
    if (this.#closed) {
      raw.close();
      return;
    }
    const channel = this.#channel ?? new BrowserChannel();
    this.#channel = channel;
    channel.attach(raw, () => {
      void this.#peering.findPath().then((path) => {
        if (this.#closed) return;
        this.path = path;
        if (this.#isOwn) channel.handler.onOpen();
        else this.#events.onChannel(channel);
        channel.release();
      });
    });
  }

  createChannel(): RtcChannel {
    this.#isOwn = true;
    this.#channel = new BrowserChannel();
    this.#peering.createChannel();
    return this.#channel;
  }

  setRemoteDescription(kind: DescriptionKind, sdp: string): void {
    if (!this.#closed) this.#peering.setRemoteDescription(kind, sdp);
  }

  addRemoteCandidate(candidate: string, mid: string): void {
    if (!this.#closed) this.#peering.addRemoteCandidate(candidate, mid);
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#channel?.forget();
    this.#peering.close();
    this.#onGone(this);
  }
}

/** @param openPeering where the connections are made: in this thread, or in that of the page */
export function browserRtc(openPeering: (settings: PeeringSettings, events: PeeringEvents) => Peering): RtcDriver {
  const sessions = new Set<BrowserSession>();
  return {
    get openSessions() {
      return sessions.size;
    },
    open(settings, events) {
      const open = (peeringEvents: PeeringEvents) => openPeering(settings, peeringEvents);
      const session = new BrowserSession(open, events, (gone) => void sessions.delete(gone));
      sessions.add(session);
      return session;
    },
  };
}
