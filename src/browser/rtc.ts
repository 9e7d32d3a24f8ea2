/**
 * The driver on a browser's RTCPeerConnection. Its descriptions and statistics come by promises: what is asked of a session is
 * done in turn, and a channel is told of once it is known how its ends reach one another.
 */
import {
  BUFFERED_LOW_BYTES,
  type DescriptionKind,
  type IceServer,
  type RtcChannel,
  type RtcChannelHandler,
  type RtcDriver,
  type RtcPath,
  type RtcSession,
  type RtcSessionEvents,
} from '../transport/rtc.ts';

/** Of a message, where the browser does not tell: what all of them take. */
const SAFE_MESSAGE_BYTES: number = 64 * 1024;

const IDLE: RtcChannelHandler = {
  onOpen: () => {},
  onMessage: () => {},
  onBufferedAmountLow: () => {},
  onClose: () => {},
};

/** Sessions that are not closed. */
const open = new Set<BrowserSession>();

class BrowserChannel implements RtcChannel {
  handler: RtcChannelHandler = IDLE;
  readonly maxMessageSize: number;
  readonly #channel: RTCDataChannel;
  /** What happened before its owner was told of it; null afterwards. */
  #held: (() => void)[] | null = [];
  #closed = false;

  constructor(channel: RTCDataChannel, maxMessageSize: number) {
    this.#channel = channel;
    this.maxMessageSize = maxMessageSize;
    channel.binaryType = 'arraybuffer';
    channel.bufferedAmountLowThreshold = BUFFERED_LOW_BYTES;
    channel.onmessage = ({ data }: MessageEvent<unknown>) => {
      if (typeof data === 'string') this.#tell(() => this.handler.onMessage(data));
      else if (data instanceof ArrayBuffer) this.#tell(() => this.handler.onMessage(new Uint8Array(data)));
    };
    channel.onbufferedamountlow = () => this.#tell(() => this.handler.onBufferedAmountLow());
    channel.onclose = () => this.lose();
  }

  get bufferedAmount(): number {
    return this.#closed ? 0 : this.#channel.bufferedAmount;
  }

  send(message: Uint8Array | string): void {
    if (this.#closed || this.#channel.readyState !== 'open') return;
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
  readonly #connection: RTCPeerConnection;
  readonly #events: RtcSessionEvents;
  #channel: BrowserChannel | null = null;
  /** Tells the channel's owner that it is gone. */
  #lose: () => void = () => {};
  /** What was asked of it, one after another: a candidate is refused before its description. */
  #work: Promise<void> = Promise.resolve();
  /** Candidates found before the description was told; null afterwards. */
  #candidates: RTCIceCandidate[] | null = [];
  #closed = false;

  constructor(iceServers: readonly IceServer[], relayOnly: boolean, events: RtcSessionEvents) {
    this.#events = events;
    this.#connection = new RTCPeerConnection({
      iceServers: iceServers.map(({ url, username, credential }) => ({
        urls: url,
        ...(username === undefined ? {} : { username, credential: credential ?? '' }),
      })),
      iceTransportPolicy: relayOnly ? 'relay' : 'all',
    });
    open.add(this);
    this.#listen();
  }

  #listen(): void {
    const connection = this.#connection;
    connection.onicecandidate = ({ candidate }) => {
      if (candidate === null) return;
      if (this.#candidates === null) this.#tellCandidate(candidate);
      else this.#candidates.push(candidate);
    };
    connection.onconnectionstatechange = () => {
      if (this.#closed || connection.connectionState !== 'failed') return;
      if (this.#channel === null) this.#events.onFailed('no path was found');
      else this.#lose();
    };
    connection.ondatachannel = ({ channel }) => {
      if (this.#closed || this.#channel !== null) return;
      const accepted = new BrowserChannel(channel, this.#maxMessageSize);
      this.#channel = accepted;
      this.#lose = () => accepted.lose();
      void this.#findPath().then(() => {
        if (this.#closed) return;
        this.#events.onChannel(accepted);
        accepted.release();
      });
    };
  }

  createChannel(): RtcChannel {
    const raw = this.#connection.createDataChannel('skein');
    const channel = new BrowserChannel(raw, SAFE_MESSAGE_BYTES);
    this.#channel = channel;
    raw.onopen = () => {
      void this.#findPath().then(() => {
        if (this.#closed) return;
        channel.handler.onOpen();
        channel.release();
      });
    };
    // It has its owner already, who may never come to be told that it is open.
    this.#lose = () => {
      channel.release();
      channel.lose();
    };
    raw.onclose = () => this.#lose();
    this.#do('make an offer', async () => {
      await this.#connection.setLocalDescription();
      this.#tellDescription('offer');
    });
    return channel;
  }

  setRemoteDescription(kind: DescriptionKind, sdp: string): void {
    this.#do(`use its ${kind}`, async () => {
      await this.#connection.setRemoteDescription({ type: kind, sdp });
      if (kind === 'answer' || this.#closed) return;
      await this.#connection.setLocalDescription();
      this.#tellDescription('answer');
    });
  }

  addRemoteCandidate(candidate: string, mid: string): void {
    this.#do('use a candidate', async () => {
      // One of a kind that is not known here is no loss: there are others.
      await this.#connection.addIceCandidate({ candidate, sdpMid: mid }).catch(() => {});
    });
  }

  #do(what: string, task: () => Promise<void>): void {
    this.#work = this.#work
      .then(() => (this.#closed ? undefined : task()))
      .catch((error: unknown) => {
        const reason = error instanceof Error ? error.message : String(error);
        if (!this.#closed) this.#events.onFailed(`the browser can't ${what}: ${reason}`);
      });
  }

  #tellDescription(kind: DescriptionKind): void {
    const description = this.#connection.localDescription;
    if (this.#closed || description === null) return;
    this.#events.onDescription(kind, description.sdp);
    const early = this.#candidates ?? [];
    this.#candidates = null;
    for (const candidate of early) this.#tellCandidate(candidate);
  }

  #tellCandidate({ candidate, sdpMid }: RTCIceCandidate): void {
    if (!this.#closed && candidate !== '') this.#events.onCandidate(candidate, sdpMid ?? '0');
  }

  get #maxMessageSize(): number {
    return Math.min(SAFE_MESSAGE_BYTES, this.#connection.sctp?.maxMessageSize ?? SAFE_MESSAGE_BYTES);
  }

  /** Finds which pair of candidates was chosen, if the browser tells. */
  async #findPath(): Promise<void> {
    const entries = new Map<string, Record<string, unknown>>();
    try {
      (await this.#connection.getStats()).forEach((entry: { readonly id: string }) => {
        entries.set(entry.id, { ...entry });
      });
    } catch {
      return; // it is closed, or has nothing to tell
    }
    const all = [...entries.values()];
    const chosen = all.find((entry) => entry['type'] === 'transport')?.['selectedCandidatePairId'];
    const pair =
      entries.get(String(chosen)) ??
      all.find(
        (entry) => entry['type'] === 'candidate-pair' && entry['nominated'] === true && entry['state'] === 'succeeded',
      );
    if (pair === undefined) return;
    const kinds = ['localCandidateId', 'remoteCandidateId'].map(
      (end) => entries.get(String(pair[end]))?.['candidateType'],
    );
    this.path = kinds.includes('relay') ? 'relayed' : 'direct';
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#channel?.forget();
    this.#connection.close();
    open.delete(this);
  }
}

export const browserRtc: RtcDriver = {
  get openSessions() {
    return open.size;
  },
  open: ({ iceServers, relayOnly }, events) => new BrowserSession(iceServers, relayOnly, events),
};
