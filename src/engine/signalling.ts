/** WebRTC in a run: its transport, with the coordinator as what carries the signals. */
import type { Connection, Listener } from '../transport/transport.ts';
import { WebRtcTransport } from '../transport/webrtc.ts';
import type { CoordinatorMessage, IceServers } from '../wire/coordinator-messages.ts';
import type { PeerMessage } from '../wire/peer-messages.ts';
import type { Platform } from './platform.ts';

export class Signalling {
  readonly transport: WebRtcTransport;
  readonly #platform: Platform;
  #listener: Listener | null = null;
  #send: (message: PeerMessage) => void = () => {};
  #servers: IceServers['servers'] = [];
  #stopRefresh: () => void = () => {};

  /** Loads WebRTC, and accepts what others dial from when they can be told of this peer. */
  static async open(platform: Platform, onConnection: (connection: Connection) => void): Promise<Signalling> {
    const signalling = new Signalling(platform, await platform.rtc());
    signalling.#listener = await signalling.transport.listen({ kind: 'webrtc', peerId: '' }, onConnection);
    return signalling;
  }

  private constructor(platform: Platform, driver: Awaited<ReturnType<Platform['rtc']>>) {
    this.#platform = platform;
    this.transport = new WebRtcTransport({
      driver,
      clock: platform.clock,
      random: (length) => platform.random(length),
      signal: (to, signal) => this.#send({ type: 'signal', to, signal }),
      iceServers: () => this.#servers,
    });
  }

  /** There is a coordinator, which has told of these servers. */
  connect(send: (message: PeerMessage) => void, ice: IceServers): void {
    this.#send = send;
    this.#take(ice);
  }

  onMessage(message: Extract<CoordinatorMessage, { type: 'signal' | 'ice' }>): void {
    if (message.type === 'ice') this.#take(message.ice);
    else this.transport.onSignal(message.from, message.signal);
  }

  async close(): Promise<void> {
    this.#stopRefresh();
    await this.#listener?.close();
  }

  /** Credentials are asked for anew when half of their time is over. */
  #take({ servers, validMs }: IceServers): void {
    this.#servers = servers;
    this.#stopRefresh();
    if (servers.length === 0) return;
    this.#stopRefresh = this.#platform.clock.schedule(validMs / 2, () => this.#send({ type: 'ice' }));
  }
}
