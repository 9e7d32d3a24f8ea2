/**
 * The world as an engine and a coordinator see it: time, chance, memory, and ways to reach others. The real one is here; the
 * simulator has its own, in which a seed decides everything.
 */
import { randomBytes } from 'node:crypto';
import { setMaxListeners } from 'node:events';
import { availableParallelism } from 'node:os';
import PQueue from 'p-queue';
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
import type { FlightDump } from '../wire/flight.ts';
import { MAX_WORLD_SIZE } from '../wire/limits.ts';
import { FlightFiles } from './flight-files.ts';
import { openFlightFolder } from './flight-folder.ts';
import { type Door, dataHost, hostKey, type Listeners, openListeners, type TransportKind } from './host.ts';
import { ARENA_BYTES, divideArena, type EngineMemory } from './memory.ts';
import { loadRtc } from './native-rtc.ts';
import { rehearse } from './rehearsal.ts';
import { encrypts } from './security.ts';

/** Tasks of which only so many run at once; the others wait, oldest first. */
export interface TaskQueue {
  /** Settles with the task; never, for one that was cleared while it waited. */
  add(task: () => Promise<void>): Promise<unknown>;
  /** Forgets those that wait. */
  clear(): void;
}

export interface Platform {
  readonly clock: Clock;
  /** Cryptographically strong random bytes. */
  random(length: number): Uint8Array;
  /** One to whose signal as many may listen as like. */
  abortController(): AbortController;
  taskQueue(concurrency: number): TaskQueue;
  memory(): Promise<EngineMemory>;
  /** Has what calls need compiled before anybody waits for one; only where that is worth what it adds to the code. */
  rehearse?(memory: EngineMemory, clock: Clock): Promise<unknown>;
  /** What peers on one host have in common. */
  hostKey(): Promise<string>;
  /** Processors that this host lets peers use. */
  readonly cores: number;
  /** Opens a listener for data of each kind, on the side from which the coordinator is reached. */
  listen(kinds: readonly TransportKind[], coordinator: Address, door: Door): Promise<Listeners>;
  /** @param tls for an address of kind `tls` */
  dial(address: Address, options: DialOptions, tls: TlsDialer | null): Promise<Connection>;
  /**
   * Reaches a coordinator the shortest way.
   *
   * @param tls makes what TLS needs, for those who speak it themselves; null: TCP in the clear; a WebSocket without a binding
   */
  dialCoordinator(
    address: Address,
    kinds: readonly TransportKind[],
    options: DialOptions,
    tls: (() => TlsDialer) | null,
  ): Promise<Connection>;
  /** Loads WebRTC. @throws ConnectError where there is none */
  rtc(): Promise<RtcDriver>;
  /**
   * Opens a folder to which `make`'s flight records are written; only where there are files.
   *
   * @throws ArgumentError when there can be no such folder
   */
  openFlightFiles?(path: string, make: (reason: string) => FlightDump): FlightFiles;
  /** Opens a coordinator's listeners; the first is the one that peers are told of. */
  listenCoordinator(address: Address, door: Door): Promise<readonly Listener[]>;
}

function dialAny(address: Address, options: DialOptions, tls: TlsDialer | null): Promise<Connection> {
  if (address.kind === 'unix') return unixTransport.dial(address, options);
  if (address.kind === 'tls' && tls !== null) return dialTls(address, options, tls);
  return tcpTransport.dial(address, options); // which refuses all addresses but its own
}

const NO_KEYS =
  'A coordinator that can be reached from other machines speaks TLS, and takes its keys from the token: give it a `token`.';

/** A whole run may come from one address at once, and come back once a minute. */
export const JOIN_RATE: RateLimits = { burst: MAX_WORLD_SIZE, perSecond: 16 };

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

function hostOf(coordinator: Address): string {
  if (coordinator.kind === 'ws') return new URL(coordinator.url).hostname.replace(/^\[|\]$/g, '');
  return coordinator.kind === 'tcp' ? coordinator.host : '127.0.0.1';
}

/** Chance that is drawn ahead, so that a run's keys, two draws for each pair of peers, don't each cost a call of the system's generator. */
const DRAWN_BYTES = 4 * 1024;
const drawn = { bytes: new Uint8Array(0), used: 0 };

function random(length: number): Uint8Array {
  if (length > DRAWN_BYTES) return new Uint8Array(randomBytes(length));
  if (drawn.used + length > drawn.bytes.length) {
    drawn.bytes = new Uint8Array(randomBytes(DRAWN_BYTES));
    drawn.used = 0;
  }
  const { bytes, used } = drawn;
  drawn.used += length;
  const taken = bytes.slice(used, drawn.used);
  bytes.fill(0, used, drawn.used); // nobody else finds it there later
  return taken;
}

export const systemPlatform: Platform = {
  clock: systemClock,
  random,
  abortController() {
    const controller = new AbortController();
    setMaxListeners(0, controller.signal);
    return controller;
  },
  taskQueue: (concurrency) => new PQueue({ concurrency }),
  memory: async () => divideArena(await loadKernels(ARENA_BYTES)),
  rehearse,
  hostKey,
  cores: availableParallelism(),
  openFlightFiles(path, make) {
    const onRequest = () => files.write('asked for by the file `request`');
    const files: FlightFiles = new FlightFiles(systemClock, openFlightFolder(path, onRequest), make);
    return files;
  },
  listen: (kinds, coordinator, door) => openListeners(kinds, dataHost(hostOf(coordinator)), door),
  dial: dialAny,
  async rtc() {
    try {
      return await loadRtc();
    } catch (cause) {
      const text = `WebRTC can't be used here: node-datachannel could not be loaded: ${cause}. Install it, or leave 'webrtc' out of \`transports\`.`;
      throw new ConnectError(text, { cause, phase: 'join' });
    }
  },
  async dialCoordinator(address, kinds, options, makeTls) {
    const tls = makeTls?.() ?? null;
    if (address.kind === 'ws')
      return (await import('../transport/websocket-node.ts')).dialWebSocketFromNode(
        address,
        options,
        tls !== null && 'certificates' in tls ? tls.certificates : null,
      );
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
