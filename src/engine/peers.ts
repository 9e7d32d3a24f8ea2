/**
 * The links to all known peers: dials what we receive on, accepts what they receive on, dials again what broke.
 */
import { setMaxListeners } from 'node:events';
import PQueue from 'p-queue';
import { acceptHandshake, dialHandshake } from '../transport/handshake.ts';
import { Link, type LinkEvents } from '../transport/link.ts';
import { Lobby, type Visitor } from '../transport/lobby.ts';
import { type Psk, pairPsk } from '../transport/psk.ts';
import type { Address, Connection } from '../transport/transport.ts';
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

/** Wait before a lane that broke is dialled again (ms): doubled from the first to the last. */
const REDIAL_FIRST_MS = 20;
const REDIAL_LAST_MS = 1_000;

/** How long a leaving peer waits for the others to close their sides (ms). */
const END_MS = 2_000;

export interface PeersOptions {
  readonly platform: Platform;
  readonly run: string;
  readonly self: string;
  readonly hostKey: string;
  readonly transports: readonly TransportKind[];
  readonly security: Security;
  readonly stripes: number;
  readonly readBuffers: ArenaPool;
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
  readonly #abort: AbortController = new AbortController();
  /** Those in the handshake. */
  readonly #lobby: Lobby = new Lobby({ total: MAX_UNAUTHENTICATED, perOrigin: MAX_UNAUTHENTICATED });

  /** @param events what a link to this peer tells; `onLaneClosed` is called after the redial was planned */
  constructor(options: PeersOptions, events: (peerId: string) => LinkEvents) {
    this.#options = options;
    this.#events = events;
    // Every dial under way listens, and there are as many as a run has peers.
    setMaxListeners(0, this.#abort.signal);
  }

  get(peerId: string): Link | undefined {
    return this.#entries.get(peerId)?.link;
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
        if (lane === 'inbound' && entry !== undefined) this.#redial(entry);
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
      warmed: Promise.resolve(),
    };
    this.#entries.set(peerId, entry);
    entry.warmed = this.#queue
      .add(() => this.#dial(entry))
      .then(
        () => undefined,
        () => this.#redial(entry),
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
    this.#redial(entry);
  }

  remove(peerId: string, reason: string): void {
    const entry = this.#entries.get(peerId);
    if (entry === undefined) return;
    this.#entries.delete(peerId);
    entry.cancelRedial?.();
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
      const { from, session, rest } = await acceptHandshake(
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
      else link.accept(connection, session, rest);
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

  #redial(entry: PeerEntry): void {
    const { peerId } = entry.introduction;
    // A dial that is under way ends with a new lane, or comes back here.
    if (entry.dialling || entry.cancelRedial !== null) return;
    if (this.#entries.get(peerId) !== entry || this.#abort.signal.aborted) return;
    entry.cancelRedial = this.#options.platform.clock.schedule(entry.redialMs, () => {
      entry.cancelRedial = null;
      if (this.#entries.get(peerId) !== entry) return;
      entry.dialling = true;
      this.#dial(entry).then(
        () => {
          entry.redialMs = REDIAL_FIRST_MS;
        },
        () => this.#redial(entry),
      );
    });
    entry.redialMs = Math.min(REDIAL_LAST_MS, entry.redialMs * 2);
  }

  async #dial(entry: PeerEntry): Promise<void> {
    try {
      await this.#openLane(entry);
    } finally {
      entry.dialling = false;
    }
  }

  /** Opens all stripes of the inbound lane, by the best path that works. */
  async #openLane({ introduction, link }: PeerEntry): Promise<void> {
    const session = 1 + (new DataView(this.#options.platform.random(4).buffer).getUint32(0) % (2 ** 32 - 1));
    let failure: unknown = new Error(`${introduction.peerId} told no address that we can use`);
    for (const address of this.#paths(introduction)) {
      try {
        const stripes = await this.#openAll(address, introduction, session);
        if (this.get(introduction.peerId) !== link) for (const connection of stripes) connection.destroy();
        else if (!link.dialled(stripes, session)) throw new Error('a stripe was lost while the others were dialled');
        return;
      } catch (error) {
        failure = error;
      }
    }
    throw failure;
  }

  /** All stripes of a lane, or none. */
  async #openAll(address: Address, introduction: Introduction, session: number): Promise<Connection[]> {
    const attempts = await Promise.allSettled(
      Array.from({ length: this.#options.stripes }, () => this.#open(address, introduction, session)),
    );
    const opened = attempts.flatMap((attempt) => (attempt.status === 'fulfilled' ? [attempt.value] : []));
    const failed = attempts.find((attempt) => attempt.status === 'rejected');
    if (failed === undefined) return opened;
    for (const connection of opened) connection.destroy();
    throw failed.reason;
  }

  #paths({ addresses, hostKey }: Introduction): Address[] {
    const { transports, hostKey: ownHost, security } = this.#options;
    const usable = (address: Address) =>
      (address.kind === 'unix' && hostKey === ownHost && transports.includes('unix')) ||
      // What is to be encrypted is not, because somebody tells such an address, sent in the clear.
      (address.kind === 'tcp' && transports.includes('tcp') && !encrypts(security, address.host)) ||
      (address.kind === 'tls' && transports.includes('tcp')) ||
      (address.kind === 'memory' && transports.includes('memory'));
    const rank = ({ kind }: Address) => transports.indexOf(kind === 'tls' ? 'tcp' : kind);
    return addresses.filter(usable).sort((left, right) => rank(left) - rank(right));
  }

  async #open(address: Address, introduction: Introduction, session: number): Promise<Connection> {
    const { run, self, platform, security } = this.#options;
    const { peerId, key } = introduction;
    const readBuffer = this.#options.readBuffers.take();
    const options = {
      timeoutMs: HANDSHAKE_TIMEOUT_MS,
      signal: this.#abort.signal,
      readBuffer:
        address.kind === 'tcp' || address.kind === 'tls' ? readBuffer.subarray(0, TCP_READ_BYTES) : readBuffer,
      onReadBufferFree: () => this.#options.readBuffers.give(readBuffer),
    };
    const tls = address.kind === 'tls' ? dataDialer(security, key, self, peerId) : null;
    const connection = await platform.dial(address, options, tls);
    const identity = { run, from: self, to: peerId, session, key };
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
    for (const { cancelRedial } of entries) cancelRedial?.();
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
