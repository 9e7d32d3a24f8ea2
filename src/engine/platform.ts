/**
 * The world as an engine and a coordinator see it: time, chance, memory, and ways to reach others. The real one is here; the
 * simulator has its own, in which a seed decides everything.
 */
import { randomBytes } from 'node:crypto';
import { Workspace } from '../collectives/workspace.ts';
import { ArgumentError, ConnectError } from '../errors.ts';
import { loadKernels } from '../kernels/load.ts';
import { shortcutOf } from '../transport/address.ts';
import { type Clock, systemClock } from '../transport/clock.ts';
import type { RateLimits } from '../transport/rate.ts';
import type { RtcDriver } from '../transport/rtc.ts';
import { tcpOnly, tcpTransport } from '../transport/tcp.ts';
import { dialTls, type TlsDialer } from '../transport/tls.ts';
import { listenTls } from '../transport/tls-listener.ts';
import type { Address, Connection, DialOptions, Listener } from '../transport/transport.ts';
import { unixTransport } from '../transport/unix.ts';
import { MAX_WORLD_SIZE } from '../wire/limits.ts';
import { type Door, dataHost, hostKey, type Listeners, openListeners, type TransportKind } from './host.ts';
import { ArenaPool } from './memory.ts';
import { loadRtc } from './native-rtc.ts';
import { encrypts } from './security.ts';

/** What an engine works in. */
export interface EngineMemory {
  readonly workspace: Workspace;
  /** For reads of dialled connections. */
  readonly readBuffers: ArenaPool;
  /** For frames cut in two. */
  readonly carries: ArenaPool;
}

export interface Platform {
  readonly clock: Clock;
  /** Cryptographically strong random bytes. */
  random(length: number): Uint8Array;
  memory(): Promise<EngineMemory>;
  /** What peers on one host have in common. */
  hostKey(): Promise<string>;
  /** Opens a listener for data of each kind, on the side from which the coordinator is reached. */
  listen(kinds: readonly TransportKind[], coordinator: Address, door: Door): Promise<Listeners>;
  /** @param tls for an address of kind `tls` */
  dial(address: Address, options: DialOptions, tls: TlsDialer | null): Promise<Connection>;
  /**
   * Reaches a coordinator the shortest way.
   *
   * @param tls null: TCP in the clear
   */
  dialCoordinator(
    address: Address,
    kinds: readonly TransportKind[],
    options: DialOptions,
    tls: TlsDialer | null,
  ): Promise<Connection>;
  /** Loads WebRTC. @throws ConnectError where there is none */
  rtc(): Promise<RtcDriver>;
  /** Opens a coordinator's listeners; the first is the one that peers are told of. */
  listenCoordinator(address: Address, door: Door): Promise<readonly Listener[]>;
}

const ARENA_BYTES = 16 * 1024 * 1024;
/** What a Unix-domain socket holds (208 KiB), and a bit more: one read empties it. */
const READ_BUFFER_BYTES = 256 * 1024;
const READ_BUFFERS = 32;
const CARRY_BYTES = 64;
const CARRIES = 64;

function dialAny(address: Address, options: DialOptions, tls: TlsDialer | null): Promise<Connection> {
  if (address.kind === 'unix') return unixTransport.dial(address, options);
  if (address.kind === 'tls' && tls !== null) return dialTls(address, options, tls);
  return tcpTransport.dial(address, options); // which refuses all addresses but its own
}

const NO_KEYS =
  'A coordinator that can be reached from other machines speaks TLS, and takes its keys from the token: give it a `token`.';

/** A whole run may come from one address at once, and come back once a minute. */
const JOIN_RATE: RateLimits = { burst: MAX_WORLD_SIZE, perSecond: 16 };

/** TLS wherever there are keys for it; in the clear over loopback only, and only where nothing else is asked for. */
async function listenForControl(address: Extract<Address, { kind: 'tcp' }>, door: Door): Promise<Listener> {
  const { security, acceptor, onRefused, onConnection } = door;
  if (acceptor === null) {
    if (encrypts(security, address.host)) throw new ArgumentError(NO_KEYS);
    return tcpTransport.listen(address, onConnection);
  }
  const servesPlainLoopback = security.encryption !== 'always';
  return listenTls(
    { ...address, kind: 'tls' },
    { acceptor, servesPlainLoopback, rate: JOIN_RATE, onRefused },
    onConnection,
  );
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

export const systemPlatform: Platform = {
  clock: systemClock,
  random: (length) => new Uint8Array(randomBytes(length)),
  async memory() {
    const kernels = await loadKernels(ARENA_BYTES);
    return {
      workspace: new Workspace(kernels),
      readBuffers: new ArenaPool(kernels, READ_BUFFER_BYTES, READ_BUFFERS),
      carries: new ArenaPool(kernels, CARRY_BYTES, CARRIES),
    };
  },
  hostKey,
  listen: (kinds, coordinator, door) =>
    openListeners(kinds, dataHost(coordinator.kind === 'tcp' ? coordinator.host : '127.0.0.1'), door),
  dial: dialAny,
  async rtc() {
    try {
      return await loadRtc();
    } catch (cause) {
      const text = `WebRTC can't be used here: node-datachannel could not be loaded: ${cause}. Install it, or leave 'webrtc' out of \`transports\`.`;
      throw new ConnectError(text, { cause, phase: 'join' });
    }
  },
  async dialCoordinator(address, kinds, options, tls) {
    const shortcut = kinds.includes('unix') ? shortcutOf(address) : null;
    const near = shortcut === null ? null : await unixTransport.dial(shortcut, options).catch(() => null);
    if (near !== null) return near;
    const encrypted = tls !== null && address.kind === 'tcp';
    return dialAny(encrypted ? { ...address, kind: 'tls' } : address, options, tls);
  },
  async listenCoordinator(address, door) {
    const tcp = await listenForControl(tcpOnly(address), door);
    const shortcut = shortcutOf(tcp.address);
    return shortcut === null ? [tcp] : listenNear(tcp, shortcut, door.onConnection);
  },
};
