/**
 * The way into a run: listens, greets the coordinator, and has everything ready of which a `Runtime` is made.
 *
 * Peers may dial as soon as the coordinator has introduced this one, and messages may follow its welcome, before there is anybody to
 * take them: both are kept until then.
 */
import type { SkeinError } from '../errors.ts';
import type { Address, Connection } from '../transport/transport.ts';
import type { CoordinatorMessage, PeerDescription } from '../wire/coordinator-messages.ts';
import { MAX_CORES } from '../wire/limits.ts';
import { type ClientEvents, CoordinatorClient } from './coordinator-client.ts';
import type { Listeners } from './host.ts';
import type { EngineMemory } from './memory.ts';
import type { PeersOptions } from './peers.ts';
import type { Platform } from './platform.ts';
import { Refusals } from './refusals.ts';
import type { RuntimeOptions } from './runtime-data.ts';
import { dataAcceptor } from './security.ts';
import { Signalling } from './signalling.ts';

/** What a runtime is made of. */
export interface Entered {
  readonly client: CoordinatorClient;
  readonly listeners: Listeners;
  /** Null without WebRTC. */
  readonly signalling: Signalling | null;
  readonly peersOptions: PeersOptions;
  readonly memory: EngineMemory;
}

/** Who takes what comes, from then on. */
export interface Resident extends ClientEvents {
  /** A peer has dialled. */
  accept(connection: Connection): Promise<void>;
  /** Of a peer that dials by TLS; null: it is not known. */
  pskKeyOf(identity: string): Uint8Array | null;
}

/**
 * @param onRefused is told of strangers at the port
 * @param settle makes who lives here, at once
 *
 * @throws ConnectError, UnauthorizedError, ProtocolError
 */
export async function enter(
  options: RuntimeOptions,
  platform: Platform,
  onRefused: (reason: string) => void,
  settle: (entered: Entered) => Resident,
): Promise<void> {
  const { run, token, security, startWorldSize, name, site, transports, stripes, coordinators, probeMs } = options;
  const memory = await platform.memory();
  let toResident: (resident: Resident) => void = () => {};
  const ready = new Promise<Resident>((resolve) => {
    toResident = resolve;
  });
  const early = { connections: new Set<Connection>(), messages: [] as CoordinatorMessage[] };
  const onConnection = (connection: Connection) => {
    connection.pause();
    early.connections.add(connection);
    void ready.then((one) => {
      early.connections.delete(connection);
      const accepted = one.accept(connection);
      connection.resume();
      return accepted;
    });
  };
  let signalling: Signalling | null = null;
  let resident: Resident | null = null;
  const refusals = new Refusals(platform.clock, onRefused);
  const listeners = await platform.listen(transports, coordinators[0]!, {
    security,
    acceptor: dataAcceptor(security, (identity) => resident?.pskKeyOf(identity) ?? null),
    onConnection,
    onRefused: (reason) => refusals.tell(reason),
  });
  try {
    if (transports.includes('webrtc')) signalling = await Signalling.open(platform, onConnection);
    const hostKey = await platform.hostKey();
    const cores = Math.min(platform.cores, MAX_CORES);
    const description = { hostKey, site, addresses: listeners.addresses.flatMap(toldAddress), cores };
    if (signalling !== null) description.addresses.push({ kind: 'webrtc' });
    const client = await CoordinatorClient.connect(
      platform,
      coordinators,
      { run, token, security, startWorldSize, name, description, transports },
      // No connection is lost before the turn in which it was made has ended, and then there is a resident.
      {
        onMessage: (message) => {
          if (resident === null) early.messages.push(message);
          else resident.onMessage(message);
        },
        onLost: (reason: string) => resident!.onLost(reason),
        onBack: () => resident!.onBack(),
        onRefused: (error: SkeinError) => resident!.onRefused(error),
        report: () => resident!.report(),
      },
      options.timeoutMs,
    );
    const { readBuffers } = memory;
    signalling?.connect((message) => client.send(message), client.welcome.ice);
    const webrtc = signalling?.transport ?? null;
    const self = client.welcome.peerId;
    const paths = { platform, webrtc, run, self, hostKey, transports, security, stripes, readBuffers };
    resident = settle({ client, listeners, signalling, peersOptions: { ...paths, probeMs }, memory });
    toResident(resident);
    for (const message of early.messages) resident.onMessage(message);
  } catch (error) {
    for (const connection of early.connections) connection.destroy();
    await Promise.all([listeners.close(), signalling?.close()]);
    throw error;
  }
}

/** As the others are told of it: who told it, they know. Nobody reaches a peer by WebSocket. */
function toldAddress(address: Address): PeerDescription['addresses'] {
  if (address.kind === 'ws') return [];
  return [address.kind === 'webrtc' ? { kind: 'webrtc' } : address];
}
