/**
 * The world as an engine and a coordinator see it: time, chance, memory, and ways to reach others. The real one is here; the
 * simulator has its own, in which a seed decides everything.
 */
import { randomBytes } from 'node:crypto';
import { setMaxListeners } from 'node:events';
import { ConnectError } from '../errors.ts';
import { loadKernels } from '../kernels/load.ts';
import { shortcutOf } from '../transport/address.ts';
import { type Clock, systemClock } from '../transport/clock.ts';
import type { RtcDriver } from '../transport/rtc.ts';
import { tcpTransport } from '../transport/tcp.ts';
import type { Address, Connection, DialOptions, Listener } from '../transport/transport.ts';
import { unixTransport } from '../transport/unix.ts';
import { dataHost, hostKey, type Listeners, openListeners, type TransportKind } from './host.ts';
import { ARENA_BYTES, divideArena, type EngineMemory } from './memory.ts';
import { loadRtc } from './native-rtc.ts';

export interface Platform {
  readonly clock: Clock;
  /** Cryptographically strong random bytes. */
  random(length: number): Uint8Array;
  /** One to whose signal as many may listen as like. */
  abortController(): AbortController;
  memory(): Promise<EngineMemory>;
  /** What peers on one host have in common. */
  hostKey(): Promise<string>;
  /** Opens a listener for data of each kind, on the side from which the coordinator is reached. */
  listen(
    kinds: readonly TransportKind[],
    coordinator: Address,
    onConnection: (connection: Connection) => void,
  ): Promise<Listeners>;
  dial(address: Address, options: DialOptions): Promise<Connection>;
  /** Loads WebRTC. @throws ConnectError where there is none */
  rtc(): Promise<RtcDriver>;
  /** Reaches a coordinator the shortest way. */
  dialCoordinator(address: Address, kinds: readonly TransportKind[], options: DialOptions): Promise<Connection>;
  /** Opens a coordinator's listeners; the first is the one that peers are told of. */
  listenCoordinator(address: Address, onConnection: (connection: Connection) => void): Promise<readonly Listener[]>;
}

/**
 * Listens on the shortcut as well, where the system has one. Peers try it before TCP, so if it belongs to somebody else they
 * would be led astray: then the coordinator must not start.
 */
async function listenNear(
  tcp: Listener,
  shortcut: Address,
  onConnection: (connection: Connection) => void,
): Promise<readonly Listener[]> {
  try {
    return [tcp, await unixTransport.listen(shortcut, onConnection)];
  } catch (error) {
    const { cause } = error as Error; // a ConnectError, as `listen` promises
    if ((cause as NodeJS.ErrnoException | undefined)?.code !== 'EADDRINUSE') return [tcp];
    await tcp.close();
    throw error;
  }
}

function hostOf(coordinator: Address): string {
  if (coordinator.kind === 'ws') return new URL(coordinator.url).hostname.replace(/^\[|\]$/g, '');
  return coordinator.kind === 'tcp' ? coordinator.host : '127.0.0.1';
}

export const systemPlatform: Platform = {
  clock: systemClock,
  random: (length) => new Uint8Array(randomBytes(length)),
  abortController() {
    const controller = new AbortController();
    setMaxListeners(0, controller.signal);
    return controller;
  },
  memory: async () => divideArena(await loadKernels(ARENA_BYTES)),
  hostKey,
  listen: (kinds, coordinator, onConnection) => openListeners(kinds, dataHost(hostOf(coordinator)), onConnection),
  dial: (address, options) => (address.kind === 'unix' ? unixTransport : tcpTransport).dial(address, options),
  async rtc() {
    try {
      return await loadRtc();
    } catch (cause) {
      const text = `WebRTC can't be used here: node-datachannel could not be loaded: ${cause}. Install it, or leave 'webrtc' out of \`transports\`.`;
      throw new ConnectError(text, { cause, phase: 'join' });
    }
  },
  async dialCoordinator(address, kinds, options) {
    if (address.kind === 'ws')
      return (await import('../transport/websocket-node.ts')).webSocketTransport.dial(address, options);
    const shortcut = kinds.includes('unix') ? shortcutOf(address) : null;
    const near = shortcut === null ? null : await unixTransport.dial(shortcut, options).catch(() => null);
    return near ?? tcpTransport.dial(address, options);
  },
  async listenCoordinator(address, onConnection) {
    const tcp = await tcpTransport.listen(address, onConnection);
    const shortcut = shortcutOf(tcp.address);
    return shortcut === null ? [tcp] : listenNear(tcp, shortcut, onConnection);
  },
};
