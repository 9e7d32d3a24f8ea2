/**
 * A browser's RTCPeerConnection, as far as a session needs it. Workers have none, but a data channel can be handed to them, so a
 * session and its connection may be in different threads (`peering-port.ts`).
 */
import type { DescriptionKind, IceServer, RtcPath } from '../transport/rtc.ts';

export interface PeeringSettings {
  readonly iceServers: readonly IceServer[];
  readonly relayOnly: boolean;
}

export interface PeeringEvents {
  onDescription(kind: DescriptionKind, sdp: string): void;
  onCandidate(candidate: string, mid: string): void;
  /** The channel asked for, or the one that the other end has opened; it is not open yet, or only just. */
  onChannel(channel: RTCDataChannel): void;
  onFailed(reason: string): void;
}

export interface Peering {
  createChannel(): void;
  setRemoteDescription(kind: DescriptionKind, sdp: string): void;
  addRemoteCandidate(candidate: string, mid: string): void;
  /** How the ends reach one another, if the browser tells. */
  findPath(): Promise<RtcPath | null>;
  close(): void;
}

/** In this thread. Descriptions come by promises, so what is asked for is done in turn: a candidate is refused before its description. */
export class PagePeering implements Peering {
  readonly #connection: RTCPeerConnection;
  readonly #events: PeeringEvents;
  #work: Promise<void> = Promise.resolve();
  /** Candidates found before the description was told; null afterwards. */
  #candidates: RTCIceCandidate[] | null = [];
  #hasChannel = false;
  #closed = false;

  constructor({ iceServers, relayOnly }: PeeringSettings, events: PeeringEvents) {
    this.#events = events;
    this.#connection = new RTCPeerConnection({
      iceServers: iceServers.map(({ url, username, credential }) => ({
        urls: url,
        ...(username === undefined ? {} : { username, credential: credential ?? '' }),
      })),
      iceTransportPolicy: relayOnly ? 'relay' : 'all',
    });
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
      if (!this.#closed && connection.connectionState === 'failed') this.#events.onFailed('no path was found');
    };
    connection.ondatachannel = ({ channel }) => this.#take(channel);
  }

  #take(channel: RTCDataChannel): void {
    if (this.#closed || this.#hasChannel) return;
    this.#hasChannel = true;
    this.#events.onChannel(channel);
  }

  createChannel(): void {
    this.#take(this.#connection.createDataChannel('skein'));
    this.#do('make an offer', async () => {
      await this.#connection.setLocalDescription();
      this.#tellDescription('offer');
    });
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

  async findPath(): Promise<RtcPath | null> {
    const entries = new Map<string, Record<string, unknown>>();
    try {
      (await this.#connection.getStats()).forEach((entry: { readonly id: string }) => {
        entries.set(entry.id, { ...entry });
      });
    } catch {
      return null; // it is closed, or has nothing to tell
    }
    const all = [...entries.values()];
    const chosen = all.find((entry) => entry['type'] === 'transport')?.['selectedCandidatePairId'];
    const pair =
      entries.get(String(chosen)) ??
      all.find(
        ({ type, nominated, state }) => type === 'candidate-pair' && nominated === true && state === 'succeeded',
      );
    if (pair === undefined) return null;
    const ends = [pair['localCandidateId'], pair['remoteCandidateId']];
    const kinds = ends.map((end) => entries.get(String(end))?.['candidateType']);
    return kinds.includes('relay') ? 'relayed' : 'direct';
  }

  close(): void {
    this.#closed = true;
    this.#connection.close();
  }
}
