/**
 * Reaching a peer: all stripes of a lane, by the best path that works. Paths are tried in parallel, each better one with a
 * head start over the next; the first that answers is greeted, and one that answers as somebody else is left for the others.
 */
import { UnauthorizedError } from '../errors.ts';
import type { Clock } from '../transport/clock.ts';
import { dialHandshake } from '../transport/handshake.ts';
import type { DialledLane, LaneName } from '../transport/link.ts';
import type { Address, Connection, DialOptions } from '../transport/transport.ts';
import type { WebRtcTransport } from '../transport/webrtc.ts';
import type { Introduction } from '../wire/coordinator-messages.ts';
import { HANDSHAKE_TIMEOUT_MS } from '../wire/limits.ts';
import type { TransportKind } from './host.ts';
import type { ArenaPool } from './memory.ts';
import type { Platform } from './platform.ts';
import { dataDialer, encrypts, type Security } from './security.ts';

/** TCP's buffers are deep: smaller reads stay in the cache next to what is worked on. */
const TCP_READ_BYTES = 64 * 1024;

/** A session has to find its path first, perhaps in a second attempt (ms). */
const WEBRTC_TIMEOUT_MS = 15_000;

/** What a better path has before the next one is tried as well (ms). */
const HEAD_START_MS = 250;

/** After so long a session has found the best of its paths (ms). */
const SETTLED_MS = 3_000;

/** Waits before TLS is tried again with somebody who refuses our key, and may not have been told of it yet (ms): doubled from the first to the last. */
const EARLY_FIRST_MS = 20;
const EARLY_LAST_MS = 320;

export interface PathOptions {
  readonly platform: Platform;
  /** Null for a peer that does not use WebRTC. */
  readonly webrtc: WebRtcTransport | null;
  readonly run: string;
  readonly self: string;
  readonly hostKey: string;
  readonly transports: readonly TransportKind[];
  readonly security: Security;
  readonly stripes: number;
  readonly readBuffers: ArenaPool;
}

/** How a peer is reached: as its addresses say, or by WebRTC through a TURN server. */
export type PathKind = Address['kind'] | 'turn';

/** A way to a peer that did not work. */
export interface PathFailure {
  readonly path: Address['kind'];
  readonly reason: string;
}

/** What is to be opened. */
interface LaneDial {
  readonly introduction: Introduction;
  readonly lane: DialledLane;
  /** Best first. */
  readonly paths: readonly Address[];
  /** How many stripes it is to have, unless they are sessions of WebRTC: of those there are as many as the options say. */
  readonly stripes: number;
  /** Where it is written down which paths failed. */
  readonly failures: PathFailure[];
  /** Takes all stripes, or none: then the next path is tried. */
  keep(stripes: readonly Connection[], session: number, path: OpenedPath): boolean;
}

type Relay = DialOptions['relay'];

/** Why the other paths are left; made once, as an error costs more than the race. */
const FOUND = new Error('another path was found');

/** By which path a lane was opened. */
export interface OpenedPath {
  readonly kind: Address['kind'];
  readonly address: Address;
  /** One of the lane's stripes. */
  readonly connection: Connection;
}

export class PathRace {
  readonly #options: PathOptions;
  readonly #signal: AbortSignal;

  /** @param signal ends all dials */
  constructor(options: PathOptions, signal: AbortSignal) {
    this.#options = options;
    this.#signal = signal;
  }

  /** The ways to a peer that can be tried from here, best first. */
  paths({ peerId, addresses, hostKey }: Introduction): Address[] {
    const { hostKey: ownHost, security } = this.#options;
    const usable = (address: Introduction['addresses'][number]) =>
      this.#rank(address) >= 0 &&
      (address.kind !== 'unix' || hostKey === ownHost) &&
      // What is to be encrypted is not, because somebody tells such an address, sent in the clear.
      (address.kind !== 'tcp' || !encrypts(security, address.host));
    return addresses
      .filter(usable)
      .sort((left, right) => this.#rank(left) - this.#rank(right))
      .map((address) => (address.kind === 'webrtc' ? { kind: 'webrtc', peerId } : address));
  }

  /** The paths that would be better than the one in use. Where that goes through a relay, one of the same kind that does not. */
  better(introduction: Introduction, used: OpenedPath): Address[] {
    const isRelayed = used.connection.relayed === true;
    return this.paths(introduction).filter(
      (path) => this.#rank(path) < this.#rank(used) || (isRelayed && path.kind === used.kind),
    );
  }

  /** Lower is better; negative for what is not used. */
  #rank({ kind }: { readonly kind: Address['kind'] }): number {
    return this.#options.transports.indexOf(kind === 'tls' ? 'tcp' : kind);
  }

  /**
   * Opens all stripes of a lane, by the best path that works; those of a successor don't go through a relay.
   *
   * @throws Error when none does
   */
  async open({ introduction, lane, paths, stripes: wanted, failures, keep }: LaneDial): Promise<OpenedPath> {
    const relay = lane === 'successor' ? 'never' : undefined;
    let left = paths;
    while (left.length > 0) {
      const { first, address } = await this.#race(introduction, left, failures, relay);
      const session = 1 + (new DataView(this.#options.platform.random(4).buffer).getUint32(0) % (2 ** 32 - 1));
      try {
        const greet = (connection: Connection) => this.#greet(connection, introduction, session, lane);
        const dial = () =>
          this.#dialPath(address, introduction, this.#signal, first.relayOnly === true ? 'only' : relay);
        const count = address.kind === 'webrtc' ? this.#options.stripes : wanted;
        const stripes = await this.#openAll(first, count, dial, greet);
        if (relay === 'never') await this.#expectDirect(stripes);
        const opened = { kind: address.kind, address, connection: first };
        if (!keep(stripes, session, opened)) throw new Error('a stripe was lost while the others were dialled');
        return opened;
      } catch (error) {
        // Somebody is there, but perhaps not the one who is sought: private addresses mean another machine elsewhere.
        failures.push({ path: address.kind, reason: error instanceof Error ? error.message : String(error) });
        left = left.filter((path) => path !== address);
      }
    }
    throw new Error(`${introduction.peerId} can't be reached: ${failures.map(({ reason }) => reason).join('; ')}`);
  }

  /**
   * Dials by all paths at once, but each better one has a head start over the next; takes the first that answers.
   *
   * @throws Error when none does
   */
  #race(
    introduction: Introduction,
    paths: readonly Address[],
    failures: PathFailure[],
    relay: Relay,
  ): Promise<{ first: Connection; address: Address }> {
    const { clock } = this.#options.platform;
    const losers = new AbortController();
    const cancel = () => losers.abort(this.#signal.reason);
    return new Promise((resolve, reject) => {
      let next = 0;
      let running = 0;
      let isOver = false;
      let stopTimer = () => {};
      const end = () => {
        isOver = true;
        stopTimer();
        this.#signal.removeEventListener('abort', cancel);
        losers.abort(FOUND);
      };
      const start = () => {
        stopTimer();
        const address = paths[next++];
        if (address === undefined) return;
        if (next < paths.length) stopTimer = clock.schedule(HEAD_START_MS, start);
        running += 1;
        this.#dialPath(address, introduction, losers.signal, relay).then(
          (first) => {
            if (isOver) {
              first.destroy();
              return;
            }
            end();
            resolve({ first, address });
          },
          (error: unknown) => {
            running -= 1;
            if (isOver) return;
            failures.push({ path: address.kind, reason: error instanceof Error ? error.message : String(error) });
            if (next < paths.length) start();
            else if (running === 0) {
              end();
              reject(error);
            }
          },
        );
      };
      if (this.#signal.aborted) cancel();
      this.#signal.addEventListener('abort', cancel, { once: true });
      start();
    });
  }

  /**
   * One more stripe of a lane that was opened by this path. The other peer may write to it once this resolves.
   *
   * @throws ConnectError, ProtocolError, UnauthorizedError
   */
  async openMore(
    introduction: Introduction,
    address: Address,
    session: number,
    lane: `${LaneName}-more`,
  ): Promise<Connection> {
    const connection = await this.#dialOnce(address, introduction, this.#signal, undefined);
    return this.#greet(connection, introduction, session, lane);
  }

  /** All stripes of a lane, or none. `first`: one of them, which is open already. */
  async #openAll(
    first: Connection,
    count: number,
    dial: () => Promise<Connection>,
    greet: (connection: Connection) => Promise<Connection>,
  ): Promise<Connection[]> {
    const attempts = await Promise.allSettled([
      greet(first),
      ...Array.from({ length: count - 1 }, async () => greet(await dial())),
    ]);
    const opened = attempts.flatMap((attempt) => (attempt.status === 'fulfilled' ? [attempt.value] : []));
    const failed = attempts.find((attempt) => attempt.status === 'rejected');
    if (failed === undefined) return opened;
    for (const connection of opened) connection.destroy();
    throw failed.reason;
  }

  /** None of them goes through a relay, or not for long. @throws Error; they are closed then */
  async #expectDirect(stripes: readonly Connection[]): Promise<void> {
    const isRelayed = () => stripes.some((connection) => connection.relayed === true);
    if (isRelayed()) await this.#sleep(SETTLED_MS);
    if (!isRelayed()) return;
    for (const connection of stripes) connection.destroy();
    throw new Error('no path was found but through a relay');
  }

  #sleep(ms: number): Promise<void> {
    return new Promise((resolve) => void this.#options.platform.clock.schedule(ms, resolve));
  }

  async #dialPath(
    address: Address,
    introduction: Introduction,
    signal: AbortSignal,
    relay: Relay,
  ): Promise<Connection> {
    if (address.kind !== 'tls') return this.#dialOnce(address, introduction, signal, relay);
    // Who has not been told of us yet refuses our key: that is no reason to take a worse path.
    for (let delayMs = EARLY_FIRST_MS; ; delayMs *= 2) {
      try {
        return await this.#dialOnce(address, introduction, signal, relay);
      } catch (error) {
        if (!(error instanceof UnauthorizedError) || signal.aborted || delayMs > EARLY_LAST_MS) throw error;
      }
      await this.#sleep(delayMs);
    }
  }

  async #dialOnce(
    address: Address,
    { peerId, key }: Introduction,
    signal: AbortSignal,
    relay: Relay,
  ): Promise<Connection> {
    const { platform, webrtc, readBuffers, security, self } = this.#options;
    const readBuffer = readBuffers.take();
    const isTcp = address.kind === 'tcp' || address.kind === 'tls';
    const options = {
      timeoutMs: address.kind === 'webrtc' ? WEBRTC_TIMEOUT_MS : HANDSHAKE_TIMEOUT_MS,
      signal,
      ...(relay === undefined ? {} : { relay }),
      readBuffer: isTcp ? readBuffer.subarray(0, TCP_READ_BYTES) : readBuffer,
      onReadBufferFree: () => readBuffers.give(readBuffer),
    };
    if (address.kind === 'webrtc' && webrtc !== null) return webrtc.dial(address, options);
    return platform.dial(address, options, address.kind === 'tls' ? dataDialer(security, key, self, peerId) : null);
  }

  async #greet(
    connection: Connection,
    introduction: Introduction,
    session: number,
    lane: DialledLane,
  ): Promise<Connection> {
    const { run, self, platform } = this.#options;
    const identity = { run, from: self, to: introduction.peerId, session, lane, key: introduction.key };
    await dialHandshake(connection, identity, platform);
    return connection;
  }
}

/** As a connection is now: WebRTC alone decides by which of its paths it goes, and may change it. */
function pathOf({ kind, connection }: OpenedPath): PathKind {
  return connection.relayed === true ? 'turn' : kind;
}

/** Tells how a peer is reached, and again when that has settled: a session may find the direct path a little later. */
export function tellPath(opened: OpenedPath, clock: Clock, tell: (path: PathKind) => void): void {
  const told = pathOf(opened);
  tell(told);
  if (opened.kind !== 'webrtc') return;
  clock.schedule(SETTLED_MS, () => {
    if (!opened.connection.closed && pathOf(opened) !== told) tell(pathOf(opened));
  });
}
