/** A peer that means ill: it knows the token and joins by the real handshake, and then says whatever it likes. */
import { CoordinatorClient, type Welcome } from '../../src/engine/coordinator-client.ts';
import type { Listeners } from '../../src/engine/host.ts';
import { systemPlatform } from '../../src/engine/platform.ts';
import { resolveSecurity } from '../../src/engine/resolve-security.ts';
import { parseTcpAddress } from '../../src/transport/address.ts';
import { acceptHandshake, dialHandshake } from '../../src/transport/handshake.ts';
import { tcpTransport } from '../../src/transport/tcp.ts';
import type { Address, Connection } from '../../src/transport/transport.ts';
import { unixTransport } from '../../src/transport/unix.ts';
import type { CoordinatorMessage, Introduction } from '../../src/wire/coordinator-messages.ts';
import type { PeerMessage } from '../../src/wire/peer-messages.ts';

/** Nothing on loopback takes longer than this (ms), unless it is never to come. */
const DIAL_MS = 5_000;

const KINDS = ['unix', 'tcp'] as const;

/** Reads and forgets what the other side says, and closes when it does. */
export function ignore(connection: Connection): void {
  connection.handler = {
    onData: () => {},
    onEnd: () => connection.end(),
    onClose: () => {},
  };
  connection.resume();
}

/** Writes, and resolves when the bytes have left or the connection is gone. */
export function write(connection: Connection, bytes: Uint8Array): Promise<void> {
  return new Promise((resolve) => connection.write(bytes, null, resolve));
}

export function dial(address: Address): Promise<Connection> {
  const transport = address.kind === 'unix' ? unixTransport : tcpTransport;
  return transport.dial(address, { timeoutMs: DIAL_MS });
}

export class HostilePeer {
  readonly welcome: Welcome;
  /** Its connection to the coordinator, past the handshake. */
  readonly control: Connection;
  /** Connections on which others receive: they dialled, and have been let in. */
  readonly accepted: Connection[] = [];
  readonly #run: string;
  readonly #client: CoordinatorClient;
  readonly #listeners: Listeners;
  readonly #introductions: Map<string, Introduction> = new Map();
  readonly #dialled: Connection[] = [];
  readonly #waiting: Map<string, (message: CoordinatorMessage) => void> = new Map();

  /** @param told addresses that it tells instead of its own */
  static async join(coordinator: string, run: string, token: string, told?: readonly Address[]): Promise<HostilePeer> {
    const address = parseTcpAddress(coordinator);
    const raw: Connection[] = [];
    const events: { onMessage: (message: CoordinatorMessage) => void; onConnection: (one: Connection) => void } = {
      onMessage: () => {},
      onConnection: (connection) => connection.destroy(),
    };
    const security = resolveSecurity({}, token);
    const listeners = await systemPlatform.listen(KINDS, address, {
      security,
      acceptor: null,
      onConnection: (connection) => events.onConnection(connection),
      onRefused: () => {},
    });
    try {
      const client = await CoordinatorClient.connect(
        {
          ...systemPlatform,
          dialCoordinator: async (...dialled) => {
            const connection = await systemPlatform.dialCoordinator(...dialled);
            raw.push(connection);
            return connection;
          },
        },
        [address],
        {
          run,
          token,
          security,
          startWorldSize: 1,
          name: '',
          transports: KINDS,
          description: {
            hostKey: await systemPlatform.hostKey(),
            site: '',
            cores: 1,
            addresses: (told ?? listeners.addresses).filter((address) => address.kind !== 'ws'),
          },
        },
        {
          onMessage: (message) => events.onMessage(message),
          onLost: () => {},
          onBack: () => {},
          onRefused: () => {},
          report: () => ({
            peerId: client.welcome.peerId,
            state: 'member',
            boundary: 0,
            views: [],
            peers: [],
            failed: [],
            excluded: [],
          }),
        },
      );
      const peer = new HostilePeer(run, client, raw[0]!, listeners); // it was dialled
      events.onMessage = (message) => peer.#onMessage(message);
      events.onConnection = (connection) => void peer.#accept(connection);
      return peer;
    } catch (error) {
      await listeners.close();
      throw error;
    }
  }

  private constructor(run: string, client: CoordinatorClient, control: Connection, listeners: Listeners) {
    this.#run = run;
    this.#client = client;
    this.#listeners = listeners;
    this.control = control;
    this.welcome = client.welcome;
    for (const introduction of client.welcome.peers) this.#introductions.set(introduction.peerId, introduction);
  }

  /** Says something true. */
  say(message: PeerMessage): void {
    this.#client.send(message);
  }

  /** The next message of this type from the coordinator. */
  hears(type: CoordinatorMessage['type']): Promise<CoordinatorMessage> {
    return new Promise((resolve) => this.#waiting.set(type, resolve));
  }

  /** Dials another peer as the protocol has it, by one of its addresses. */
  async dialPeer(peer: Introduction, address: Address, session: number): Promise<Connection> {
    const connection = await dial(address);
    // Either lane, and one that is never taken: the victim reads on all of them, and writes to two.
    const lane = (['outbound', 'successor', 'inbound', 'inbound'] as const)[session % 4]!;
    const identity = {
      run: this.#run,
      from: this.welcome.peerId,
      to: peer.peerId,
      session,
      lane,
      key: peer.key,
    } as const;
    await dialHandshake(connection, identity, systemPlatform);
    this.#dialled.push(connection);
    ignore(connection);
    return connection;
  }

  #onMessage(message: CoordinatorMessage): void {
    if (message.type === 'introduce') this.#introductions.set(message.peer.peerId, message.peer);
    this.#waiting.get(message.type)?.(message);
    this.#waiting.delete(message.type);
  }

  async #accept(connection: Connection): Promise<void> {
    const self = { run: this.#run, peerId: this.welcome.peerId };
    const keyOf = (from: string) => Promise.resolve(this.#introductions.get(from)?.key ?? null);
    try {
      await acceptHandshake(connection, self, keyOf, systemPlatform);
      this.accepted.push(connection);
      ignore(connection);
    } catch {
      // Another hostile peer, which this one was not introduced to or which has left: the handshake has closed it.
    }
  }

  /** Gone without a word. */
  async vanish(): Promise<void> {
    for (const connection of [this.control, ...this.#dialled, ...this.accepted]) connection.destroy();
    await this.#listeners.close();
  }
}
