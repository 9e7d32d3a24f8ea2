/**
 * The links to all known peers: dials what we receive on, accepts what they receive on, dials again what broke.
 */
import PQueue from 'p-queue';
import { UnauthorizedError } from '../errors.ts';
import { acceptHandshake, dialHandshake } from '../transport/handshake.ts';
import { type LaneName, Link, type LinkEvents } from '../transport/link.ts';
import { Lobby, type Visitor } from '../transport/lobby.ts';
import { type Psk, pairPsk } from '../transport/psk.ts';
import type { Address, Connection } from '../transport/transport.ts';
import type { WebRtcTransport } from '../transport/webrtc.ts';
import { HANDSHAKE_TIMEOUT_MS, MAX_UNAUTHENTICATED } from '../wire/limits.ts';
import type { Introduction } from '../wire/messages.ts';
import type { TransportKind } from './host.ts';
import type { ArenaPool } from './memory.ts';
import type { Platform } from './platform.ts';
import { dataDialer, encrypts, type Security } from './security.ts';

/** Dials under way at once, so that joining a large run does not open hundreds of sockets in one turn. */
const DIAL_CONCURRENCY = 16;

/** TCP's buffers are deep: smaller reads stay in the cache next to what is worked on. */
const TCP_READ_BYTES = 64 * 1024;

/** A session has to find its path first, perhaps in a second attempt (ms). */
const WEBRTC_TIMEOUT_MS = 15_000;

/** What a better path has before the next one is tried as well (ms). */
const HEAD_START_MS = 250;

/** Wait before a lane that broke is dialled again (ms): doubled from the first to the last. */
const REDIAL_FIRST_MS = 20;
const REDIAL_LAST_MS = 1_000;

/** After so long a session has found the best of its paths (ms). */
const SETTLED_MS = 3_000;

/** How long a peer that we receive from has to dial its own lane, before we dial it as well (ms): doubled each time. */
const REVERSE_FIRST_MS = 1_000;
const REVERSE_LAST_MS = 10_000;

/** The longest wait before TLS is tried again with somebody who refuses our key, and may not have been told of it yet (ms). */
const EARLY_LAST_MS = 320;

/** How long a leaving peer waits for the others to close their sides (ms). */
const END_MS = 2_000;

export interface PeersOptions {
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

export interface PathFailure {
  readonly path: Address['kind'];
  readonly reason: string;
}

interface PeerEntry {
  readonly introduction: Introduction;
  readonly link: Link;
  /** With which it dials us by TLS; derived when somebody first does. */
  psk: Psk | null;
  redialMs: number;
  cancelRedial: (() => void) | null;
  /** A dial is under way. Two at once would make two lanes, of which the other peer keeps one: they would close one another. */
  dialling: boolean;
  /** Stops what would dial the other lane as well; null while nothing would. */
  cancelReverse: (() => void) | null;
  reverseMs: number;
  /** Ways that were tried in vain when the peer was last dialled, and why. */
  failures: readonly PathFailure[];
  /** Settles when the first attempt to reach the peer has ended, either way. */
  warmed: Promise<void>;
}

export class Peers {
  readonly #options: PeersOptions;
  readonly #events: (peerId: string) => LinkEvents;
  readonly #entries: Map<string, PeerEntry> = new Map();
  /** Those who wait for the key of a peer that is not introduced yet. */
  readonly #introductions: Map<string, Set<(key: Uint8Array | null) => void>> = new Map();
  readonly #queue: PQueue = new PQueue({ concurrency: DIAL_CONCURRENCY });
  readonly #abort: AbortController;
  readonly #onPath: (peerId: string, path: PathKind) => void;
  /** Those in the handshake. */
  readonly #lobby: Lobby = new Lobby({ total: MAX_UNAUTHENTICATED, perOrigin: MAX_UNAUTHENTICATED });

  /**
   * @param events what a link to this peer tells; `onLaneClosed` is called after the redial was planned
   * @param onPath a peer was dialled, and this is how
   */
  constructor(
    options: PeersOptions,
    events: (peerId: string) => LinkEvents,
    onPath: (peerId: string, path: PathKind) => void,
  ) {
    this.#options = options;
    this.#events = events;
    this.#onPath = onPath;
    // Every dial under way listens, and there are as many as a run has peers.
    this.#abort = options.platform.abortController();
  }

  get(peerId: string): Link | undefined {
    return this.#entries.get(peerId)?.link;
  }

  failures(peerId: string): readonly PathFailure[] {
    return this.#entries.get(peerId)?.failures ?? [];
  }

  /** Whether a peer says that it is on this host. */
  sharesHost(peerId: string): boolean {
    return this.#entries.get(peerId)?.introduction.hostKey === this.#options.hostKey;
  }

  ids(): IterableIterator<string> {
    return this.#entries.keys();
  }

  /** Who was introduced, and by which introduction. */
  introductions(): { peerId: string; pair: number }[] {
    return [...this.#entries.values()].map(({ introduction: { peerId, pair } }) => ({ peerId, pair }));
  }

  /** A peer was introduced: dials it, and lets it dial us. */
  add(introduction: Introduction): void {
    const { peerId } = introduction;
    if (peerId === this.#options.self) return;
    // A pair that one side forgot gets a new key, and with it a new link.
    this.remove(peerId, 'it was introduced anew');
    const events = this.#events(peerId);
    const link = new Link({
      ...bound(events),
      onLaneClosed: (lane, error) => {
        const entry = this.#entries.get(peerId);
        if (entry !== undefined) this.#repair(entry);
        events.onLaneClosed(lane, error);
      },
    });
    const entry: PeerEntry = {
      introduction,
      link,
      psk: null,
      redialMs: REDIAL_FIRST_MS,
      cancelRedial: null,
      dialling: true,
      cancelReverse: null,
      reverseMs: REVERSE_FIRST_MS,
      failures: [],
      warmed: Promise.resolve(),
    };
    this.#entries.set(peerId, entry);
    entry.warmed = this.#queue
      .add(() => this.#dial(entry))
      .then(
        () => this.#repair(entry),
        () => this.#repair(entry),
      );
    for (const settle of [...(this.#introductions.get(peerId) ?? [])]) settle(introduction.key);
  }

  /** Settles when every peer known now has been dialled, successfully or not. */
  async warmed(): Promise<void> {
    await Promise.all([...this.#entries.values()].map((entry) => entry.warmed));
  }

  /** Whether all known peers can be sent to and received from. */
  get allUp(): boolean {
    for (const { link } of this.#entries.values()) if (!link.up || !link.receives) return false;
    return true;
  }

  /** Nothing arrives from a peer any more, though no connection has closed: dials it anew. */
  renew(peerId: string, reason: string): void {
    const entry = this.#entries.get(peerId);
    if (entry === undefined) return;
    entry.link.dropInbound(new Error(reason));
    this.#repair(entry);
  }

  remove(peerId: string, reason: string): void {
    const entry = this.#entries.get(peerId);
    if (entry === undefined) return;
    this.#entries.delete(peerId);
    entry.cancelRedial?.();
    entry.cancelReverse?.();
    entry.link.destroy(new Error(reason));
  }

  /** A connection came in on a listener. */
  async accept(connection: Connection): Promise<void> {
    if (this.#abort.signal.aborted) {
      connection.destroy();
      return;
    }
    const visitor: Visitor = { origin: null, onEvicted: () => connection.destroy() };
    this.#lobby.enter(visitor);
    const { run, self, platform } = this.#options;
    try {
      const { from, session, lane, rest } = await acceptHandshake(
        connection,
        { run, peerId: self },
        (peerId) => {
          this.#lobby.hear(visitor);
          return this.#keyOf(peerId);
        },
        platform,
      );
      const link = this.get(from);
      if (link === undefined) connection.destroy();
      else if (lane === 'inbound') link.accept(connection, session, rest);
      else link.acceptReversed(connection, session, rest);
    } catch {
      // A stranger, or a peer that went away: the handshake has closed the connection, and nobody here waits for it.
    } finally {
      this.#lobby.leave(visitor);
    }
  }

  /** The key of the introduced peer that dials TLS by this identity; null for a stranger, and for one who comes too early. */
  pskKeyOf(identity: string): Uint8Array | null {
    for (const entry of this.#entries.values()) {
      const { key, peerId } = entry.introduction;
      entry.psk ??= pairPsk(key, peerId, this.#options.self);
      if (entry.psk.identity === identity) return entry.psk.key;
    }
    return null;
  }

  #keyOf(peerId: string): Promise<Uint8Array | null> {
    const known = this.#entries.get(peerId);
    if (known !== undefined) return Promise.resolve(known.introduction.key);
    return new Promise((resolve) => {
      const waiting = this.#introductions.get(peerId) ?? new Set();
      this.#introductions.set(peerId, waiting);
      const settle = (key: Uint8Array | null) => {
        stopTimer();
        waiting.delete(settle);
        if (waiting.size === 0) this.#introductions.delete(peerId);
        resolve(key);
      };
      const stopTimer = this.#options.platform.clock.schedule(HANDSHAKE_TIMEOUT_MS, () => settle(null));
      waiting.add(settle);
    });
  }

  /** Sees to both lanes, as far as they are gone. */
  #repair(entry: PeerEntry): void {
    if (this.#entries.get(entry.introduction.peerId) !== entry || this.#abort.signal.aborted) return;
    if (!entry.link.receives) this.#redial(entry);
    else if (!entry.link.up) this.#reverse(entry);
  }

  /** The other peer would have dialled its lane by now, if it could: dials that one as well. */
  #reverse(entry: PeerEntry): void {
    if (entry.cancelReverse !== null) return;
    entry.cancelReverse = this.#options.platform.clock.schedule(entry.reverseMs, () => {
      entry.reverseMs = Math.min(REVERSE_LAST_MS, 2 * entry.reverseMs);
      const isWanted = entry.link.receives && !entry.link.up;
      const dial = isWanted ? this.#openLane(entry, 'outbound') : Promise.resolve();
      dial
        .then(() => {
          if (entry.link.up) entry.reverseMs = REVERSE_FIRST_MS;
        })
        .catch(() => {}) // nothing that could be said but that it is not up yet
        .finally(() => {
          entry.cancelReverse = null;
          this.#repair(entry);
        });
    });
  }

  #redial(entry: PeerEntry): void {
    const { peerId } = entry.introduction;
    // A dial that is under way ends with a new lane, or comes back here.
    if (entry.dialling || entry.cancelRedial !== null) return;
    entry.cancelRedial = this.#options.platform.clock.schedule(entry.redialMs, () => {
      entry.cancelRedial = null;
      if (this.#entries.get(peerId) !== entry || entry.link.receives) return;
      entry.dialling = true;
      this.#dial(entry).then(
        () => {
          entry.redialMs = REDIAL_FIRST_MS;
          this.#repair(entry);
        },
        () => this.#repair(entry),
      );
    });
    entry.redialMs = Math.min(REDIAL_LAST_MS, entry.redialMs * 2);
  }

  async #dial(entry: PeerEntry): Promise<void> {
    try {
      await this.#openLane(entry, 'inbound');
    } finally {
      entry.dialling = false;
    }
  }

  /** Opens all stripes of a lane, by the best path that works. */
  async #openLane(entry: PeerEntry, lane: LaneName): Promise<void> {
    const { introduction, link } = entry;
    const { peerId } = introduction;
    const failures: PathFailure[] = [];
    if (lane === 'inbound') entry.failures = failures;
    // WebRTC sessions reach both ends, or neither.
    let paths = this.#paths(introduction).filter(({ kind }) => lane === 'inbound' || kind !== 'webrtc');
    while (paths.length > 0) {
      const { first, address } = await this.#race(introduction, paths, failures);
      const session = 1 + (new DataView(this.#options.platform.random(4).buffer).getUint32(0) % (2 ** 32 - 1));
      try {
        const stripes = await this.#openAll(first, address, introduction, session, lane);
        if (this.get(peerId) !== link) {
          for (const connection of stripes) connection.destroy();
          return;
        }
        const isKept = lane === 'inbound' ? link.dialled(stripes, session) : link.dialledReversed(stripes, session);
        if (!isKept) throw new Error('a stripe was lost while the others were dialled');
        this.#tellPath(entry, first, address.kind);
        return;
      } catch (error) {
        // Somebody is there, but perhaps not the one who is sought: private addresses mean another machine elsewhere.
        failures.push({ path: address.kind, reason: error instanceof Error ? error.message : String(error) });
        paths = paths.filter((path) => path !== address);
      }
    }
    throw new Error(`${peerId} can't be reached: ${failures.map(({ reason }) => reason).join('; ')}`);
  }

  /** How the peer is reached, and again when that has settled: a session may begin by a relay, and find the direct path a little later. */
  #tellPath({ introduction: { peerId }, link }: PeerEntry, connection: Connection, kind: Address['kind']): void {
    const path = (): PathKind => (connection.relayed === true ? 'turn' : kind);
    const told = path();
    this.#onPath(peerId, told);
    if (kind !== 'webrtc') return;
    this.#options.platform.clock.schedule(SETTLED_MS, () => {
      const isCurrent = this.get(peerId) === link && !connection.closed;
      if (isCurrent && path() !== told) this.#onPath(peerId, path());
    });
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
  ): Promise<{ first: Connection; address: Address }> {
    const { clock } = this.#options.platform;
    const losers = new AbortController();
    const cancel = () => losers.abort(this.#abort.signal.reason);
    return new Promise((resolve, reject) => {
      let next = 0;
      let running = 0;
      let isOver = false;
      let stopTimer = () => {};
      const end = () => {
        isOver = true;
        stopTimer();
        this.#abort.signal.removeEventListener('abort', cancel);
        losers.abort();
      };
      const start = () => {
        stopTimer();
        const address = paths[next++];
        if (address === undefined) return;
        if (next < paths.length) stopTimer = clock.schedule(HEAD_START_MS, start);
        running += 1;
        this.#dialPath(address, introduction, losers.signal).then(
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
      if (this.#abort.signal.aborted) cancel();
      this.#abort.signal.addEventListener('abort', cancel, { once: true });
      start();
    });
  }

  /** All stripes of a lane, or none. `first`: one of them, which is open already. */
  async #openAll(
    first: Connection,
    address: Address,
    introduction: Introduction,
    session: number,
    lane: LaneName,
  ): Promise<Connection[]> {
    const attempts = await Promise.allSettled([
      this.#greet(first, introduction, session, lane),
      ...Array.from({ length: this.#options.stripes - 1 }, async () =>
        this.#greet(
          await this.#dialPath(address, introduction, this.#abort.signal, first.relayOnly),
          introduction,
          session,
          lane,
        ),
      ),
    ]);
    const opened = attempts.flatMap((attempt) => (attempt.status === 'fulfilled' ? [attempt.value] : []));
    const failed = attempts.find((attempt) => attempt.status === 'rejected');
    if (failed === undefined) return opened;
    for (const connection of opened) connection.destroy();
    throw failed.reason;
  }

  /** Best first. */
  #paths({ peerId, addresses, hostKey }: Introduction): Address[] {
    const { transports, hostKey: ownHost, security } = this.#options;
    const rank = ({ kind }: { readonly kind: Address['kind'] }) => transports.indexOf(kind === 'tls' ? 'tcp' : kind);
    const usable = (address: Introduction['addresses'][number]) =>
      rank(address) >= 0 &&
      (address.kind !== 'unix' || hostKey === ownHost) &&
      // What is to be encrypted is not, because somebody tells such an address, sent in the clear.
      (address.kind !== 'tcp' || !encrypts(security, address.host));
    return addresses
      .filter(usable)
      .sort((left, right) => rank(left) - rank(right))
      .map((address) => (address.kind === 'webrtc' ? { kind: 'webrtc', peerId } : address));
  }

  async #dialPath(
    address: Address,
    introduction: Introduction,
    signal: AbortSignal,
    relayed = false,
  ): Promise<Connection> {
    if (address.kind !== 'tls') return this.#dialOnce(address, introduction, signal, relayed);
    // Who has not been told of us yet refuses our key: that is no reason to take a worse path.
    for (let delayMs = REDIAL_FIRST_MS; ; delayMs *= 2) {
      try {
        return await this.#dialOnce(address, introduction, signal, relayed);
      } catch (error) {
        if (!(error instanceof UnauthorizedError) || signal.aborted || delayMs > EARLY_LAST_MS) throw error;
      }
      await new Promise<void>((resolve) => void this.#options.platform.clock.schedule(delayMs, resolve));
    }
  }

  async #dialOnce(
    address: Address,
    { peerId, key }: Introduction,
    signal: AbortSignal,
    relayed: boolean,
  ): Promise<Connection> {
    const { platform, webrtc, readBuffers, security, self } = this.#options;
    const readBuffer = readBuffers.take();
    const isTcp = address.kind === 'tcp' || address.kind === 'tls';
    const options = {
      timeoutMs: address.kind === 'webrtc' ? WEBRTC_TIMEOUT_MS : HANDSHAKE_TIMEOUT_MS,
      signal,
      relayed,
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
    lane: LaneName,
  ): Promise<Connection> {
    const { run, self, platform } = this.#options;
    const identity = { run, from: self, to: introduction.peerId, session, lane, key: introduction.key };
    await dialHandshake(connection, identity, platform);
    return connection;
  }

  /** Closes all links at once. */
  close(): void {
    for (const link of this.#release()) link.destroy();
  }

  /** Lets what is queued leave; a peer that does not close its side in time is gone, and told nothing more. */
  async end(): Promise<void> {
    const links = this.#release();
    const stopTimer = this.#options.platform.clock.schedule(END_MS, () => {
      for (const link of links) link.destroy();
    });
    await Promise.all(links.map((link) => link.end()));
    stopTimer();
  }

  #release(): Link[] {
    this.#abort.abort();
    this.#queue.clear();
    for (const settle of [...this.#introductions.values()].flatMap((waiting) => [...waiting])) settle(null);
    const entries = [...this.#entries.values()];
    this.#entries.clear();
    for (const { cancelRedial, cancelReverse } of entries) {
      cancelRedial?.();
      cancelReverse?.();
    }
    return entries.map(({ link }) => link);
  }
}

/** The events with their methods bound, so that one of them can be replaced. */
function bound(events: LinkEvents): LinkEvents {
  return {
    openSink: () => events.openSink(),
    takeCarry: () => events.takeCarry(),
    giveCarry: (carry) => events.giveCarry(carry),
    onUp: () => events.onUp(),
    onFlushed: () => events.onFlushed(),
    onLaneClosed: (lane, error) => events.onLaneClosed(lane, error),
  };
}
