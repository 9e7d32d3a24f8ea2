/**
 * The links to all known peers: dials what we receive on, accepts what they receive on, dials again what broke.
 */
import { acceptHandshake } from '../transport/handshake.ts';
import { type LaneName, Link, type LinkEvents } from '../transport/link.ts';
import { Lobby, type Visitor } from '../transport/lobby.ts';
import { type Psk, pairPsk } from '../transport/psk.ts';
import type { Connection } from '../transport/transport.ts';
import type { Introduction } from '../wire/coordinator-messages.ts';
import { HANDSHAKE_TIMEOUT_MS, MAX_UNAUTHENTICATED } from '../wire/limits.ts';
import { type OpenedPath, type PathFailure, type PathKind, type PathOptions, PathRace, tellPath } from './path-race.ts';
import { PathSearch, SEARCHES_AT_ONCE } from './path-search.ts';
import type { TaskQueue } from './platform.ts';
import { Widening } from './widening.ts';

/** Dials under way at once, so that joining a large run does not open hundreds of sockets in one turn. */
export const DIAL_CONCURRENCY = 64;

/** Wait before a lane that broke is dialled again (ms): doubled from the first to the last. */
const REDIAL_FIRST_MS = 20;
const REDIAL_LAST_MS = 1_000;

/** How long a peer that we receive from has to dial its own lane, before we dial it as well (ms): doubled each time. */
const REVERSE_FIRST_MS = 1_000;
const REVERSE_LAST_MS = 10_000;

/** How long a leaving peer waits for the others to close their sides (ms). */
const END_MS = 2_000;

export interface PeersOptions extends PathOptions {
  /** Milliseconds before a better path than the first one is looked for; tests shorten it. */
  readonly probeMs?: number | undefined;
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
  /** By which we receive, where we dialled it. */
  path: OpenedPath | null;
  /** By which we send, where we dialled that. */
  reversed: OpenedPath | null;
  readonly widening: Widening;
  /** Better ways that were last tried in vain, and why. */
  failures: readonly PathFailure[];
  readonly search: PathSearch;
  /** Settles when the first attempt to reach the peer has ended, either way. */
  warmed: Promise<void>;
}

export class Peers {
  readonly #options: PeersOptions;
  readonly #events: (peerId: string) => LinkEvents;
  readonly #entries: Map<string, PeerEntry> = new Map();
  /** Those who wait for the key of a peer that is not introduced yet. */
  readonly #introductions: Map<string, Set<(key: Uint8Array | null) => void>> = new Map();
  readonly #queue: TaskQueue;
  readonly #probes: TaskQueue;
  readonly #abort: AbortController;
  readonly #race: PathRace;
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
    this.#queue = options.platform.taskQueue(DIAL_CONCURRENCY);
    this.#probes = options.platform.taskQueue(SEARCHES_AT_ONCE);
    // Every dial under way listens, and there are as many as a run has peers.
    this.#abort = options.platform.abortController();
    this.#race = new PathRace(options, this.#abort.signal);
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
        if (entry !== undefined) {
          if (!link.receives) entry.path = null;
          this.#repair(entry);
        }
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
      path: null,
      reversed: null,
      widening: new Widening(link, this.#options.stripes, (lane, session) => this.#openMore(entry, lane, session)),
      failures: [],
      search: new PathSearch(this.#options.platform, this.#probes, () => this.#probe(entry), this.#options.probeMs),
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
    entry.path = null;
    this.#repair(entry);
  }

  remove(peerId: string, reason: string): void {
    const entry = this.#entries.get(peerId);
    if (entry === undefined) return;
    this.#entries.delete(peerId);
    entry.cancelRedial?.();
    entry.cancelReverse?.();
    entry.search.stop();
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
      else if (lane === 'outbound') link.acceptReversed(connection, session, rest);
      else if (lane !== 'successor') link.acceptMore(lane, connection, session, rest);
      else link.acceptSuccessor(connection, session, rest);
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

  /** By the best path that works. */
  async #openLane(entry: PeerEntry, lane: LaneName): Promise<void> {
    const { introduction, link } = entry;
    const failures: PathFailure[] = [];
    if (lane === 'inbound') entry.failures = failures;
    // WebRTC sessions reach both ends, or neither.
    const paths = this.#race.paths(introduction).filter(({ kind }) => lane === 'inbound' || kind !== 'webrtc');
    const opened = await this.#race.open({
      introduction,
      lane,
      paths,
      stripes: entry.widening.stripes(lane),
      failures,
      // A link that was destroyed meanwhile closes what it is given.
      keep: (stripes, session) =>
        lane === 'inbound' ? link.dialled(stripes, session) : link.dialledReversed(stripes, session),
    });
    if (!this.#isCurrent(entry)) return;
    if (lane === 'inbound') this.#onReceiving(entry, opened);
    else {
      entry.reversed = opened;
      this.#tell(entry, opened);
    }
  }

  /** One more stripe of a lane that we have dialled. */
  #openMore(entry: PeerEntry, lane: LaneName, session: number): Promise<Connection> {
    const path = lane === 'inbound' ? entry.path : entry.reversed;
    if (path === null) return Promise.reject(new Error('it is not known by which path the lane goes'));
    return this.#race.openMore(entry.introduction, path.address, session, `${lane}-more`);
  }

  /** Gives lanes more stripes that need them. On one host none does: nothing is on the way for long. */
  widen(): void {
    const now = this.#options.platform.clock.now();
    for (const [peerId, { widening }] of this.#entries) if (!this.sharesHost(peerId)) widening.look(now);
  }

  #isCurrent(entry: PeerEntry): boolean {
    return this.#entries.get(entry.introduction.peerId) === entry;
  }

  #tell(entry: PeerEntry, opened: OpenedPath): void {
    tellPath(opened, this.#options.platform.clock, (path) => {
      const isLeft = opened.kind === 'webrtc' && entry.path !== opened; // before it had settled
      if (this.#isCurrent(entry) && !isLeft) this.#onPath(entry.introduction.peerId, path);
    });
  }

  // --- better paths ------------------------------------------------------------------------------------------------

  /** At a boundary: goes over to the better paths that were found. */
  adopt(): void {
    for (const { link } of this.#entries.values()) link.adopt();
  }

  /** We receive by this path from now on. */
  #onReceiving(entry: PeerEntry, opened: OpenedPath): void {
    entry.path = opened;
    this.#tell(entry, opened);
    // One of WebRTC may turn out to go through a relay.
    if (opened.kind === 'webrtc' || this.#race.better(entry.introduction, opened).length > 0) entry.search.restart();
  }

  /** Looks for a better path than the one by which we receive. One that is found lies ready until the next boundary. */
  async #probe(entry: PeerEntry): Promise<void> {
    const { introduction, link, path, search } = entry;
    if (path === null || !this.#isCurrent(entry)) return; // it is dialled by all paths
    const paths = this.#race.better(introduction, path);
    if (paths.length === 0) return;
    const failures: PathFailure[] = [];
    const keep = (stripes: readonly Connection[], session: number, opened: OpenedPath) =>
      link.prepare(stripes, session, {
        onAdopted: () => {
          entry.failures = failures;
          this.#onReceiving(entry, opened);
        },
        onLost: () => search.plan(),
      });
    try {
      await this.#race.open({ introduction, lane: 'successor', paths, stripes: this.#options.stripes, failures, keep });
    } catch {
      if (entry.path === path) entry.failures = failures;
      search.plan();
    }
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
    this.#probes.clear();
    for (const settle of [...this.#introductions.values()].flatMap((waiting) => [...waiting])) settle(null);
    const entries = [...this.#entries.values()];
    this.#entries.clear();
    for (const { cancelRedial, cancelReverse, search } of entries) {
      cancelRedial?.();
      cancelReverse?.();
      search.stop();
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
