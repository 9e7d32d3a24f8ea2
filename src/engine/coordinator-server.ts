/**
 * The coordinator as a process: listens, stands for election where several share a store, and keeps the runs that it leads. Who may come
 * in is decided in `reception.ts`; what happens in a run, by its machine (`led-run.ts`).
 */
import { ArgumentError } from '../errors.ts';
import type { CoordinatorState } from '../eyes/coordinator-state.ts';
import { type RunState, runState } from '../eyes/run-state.ts';
import type { RunWatch } from '../eyes/run-watch.ts';
import type { CoordinatorSnapshot, PeerId } from '../membership/events.ts';
import type { NotesState } from '../notes-document.ts';
import { openStore } from '../store/open.ts';
import type { Store } from '../store/store.ts';
import { DEFAULT_PORT, formatTcpAddress, isLoopback, parseTcpAddress } from '../transport/address.ts';
import { every } from '../transport/clock.ts';
import type { HttpDoor } from '../transport/http-entrance.ts';
import type { Lobby } from '../transport/lobby.ts';
import type { Address, Connection, Listener } from '../transport/transport.ts';
import { MAX_RUNS } from '../wire/limits.ts';
import { Candidacy } from './candidacy.ts';
import type { CoordinatorListenOptions } from './coordinator-options.ts';
import type { ApiSource } from './http-api.ts';
import type { HttpListener } from './http-server.ts';
import { checkIceServers, iceServersFor } from './ice.ts';
import { LedRun } from './led-run.ts';
import { Ledger, NotLeader } from './ledger.ts';
import { JOIN_RATE, type Platform, systemPlatform } from './platform.ts';
import { openLobby, Reception, type Session } from './reception.ts';
import { oneLine, Refusals } from './refusals.ts';
import { controlAcceptor, resolveSecurity } from './resolve-security.ts';
import { UsedPasses } from './token.ts';

/** How long a coordinator on a given port waits for members of an earlier one there, which dial at least every 500 ms. */
const GRACE_MS = 1_000;

/** Between ticks of the machines (ms). */
const TICK_MS = 25;

/** Between rows of a run's history (ms). */
const SECOND_MS = 1_000;

/** As `leaseMs`. */
const LEASE_MS = 3_000;
const SHORTEST_LEASE_MS = 200;

/** Between attempts at a store that several share and that did not answer (ms). */
const REWRITE_MS = 50;

/** Longest silence that the adaptive detector may tolerate, as a multiple of the shortest. */
const PATIENCE = 4;

/** Where it is reached. */
interface Doors {
  readonly listeners: readonly Listener[];
  readonly http: HttpListener | null;
  readonly lobby: Lobby;
}

export class CoordinatorServer {
  readonly #listeners: readonly Listener[];
  readonly #http: HttpListener | null;
  readonly #options: CoordinatorListenOptions;
  readonly #platform: Platform;
  readonly #store: Store;
  /** Its part in the election, where several share the store. */
  readonly #candidacy: Candidacy | null;
  /** What is stored, while it leads. */
  #ledger: Ledger | null;
  #passes: UsedPasses;
  readonly #runs: Map<string, LedRun<Session>> = new Map();
  readonly #reception: Reception;
  readonly #graceMs: number;
  /** Members of an earlier coordinator's runs may come back until then. */
  #graceUntil: number;
  readonly #stopTicks: readonly (() => void)[];
  readonly #refusals: Refusals;
  #sentMessages = 0;
  #closed = false;
  readonly #startedAt: number = Date.now();

  /** As `Coordinator.listen`. */
  static async listen(options: CoordinatorListenOptions): Promise<CoordinatorServer> {
    const host = options.host ?? '127.0.0.1';
    for (const where of [host, options.http?.host ?? host]) {
      if (isLoopback(where) || (options.token ?? '') !== '') continue;
      throw new ArgumentError(
        `A coordinator on ${where} can be reached from other machines: give it a \`token\`, or listen on 127.0.0.1.`,
      );
    }
    checkIceServers(options.iceServers ?? []);
    const { leaseMs = LEASE_MS, advertise } = options;
    if (!(leaseMs >= SHORTEST_LEASE_MS))
      throw new ArgumentError(`\`leaseMs\` must be at least ${SHORTEST_LEASE_MS}, not ${leaseMs}.`);
    if (advertise !== undefined) parseTcpAddress(advertise);
    const port = options.port ?? DEFAULT_PORT;
    // On a port of its own choosing it can't be anybody's successor.
    const graceMs = port === 0 ? 0 : GRACE_MS;
    return CoordinatorServer.listenAt({ kind: 'tcp', host, port }, options, systemPlatform, graceMs);
  }

  static async listenAt(
    address: Address,
    options: CoordinatorListenOptions,
    platform: Platform,
    graceMs: number,
  ): Promise<CoordinatorServer> {
    const started: { server: CoordinatorServer | null } = { server: null };
    const { token = '', onNote, leaseMs = LEASE_MS } = options;
    const security = resolveSecurity(options, token);
    const refusals = new Refusals(platform.clock, (line) => onNote?.(line));
    const onConnection = (connection: Connection) => {
      if (started.server === null) connection.destroy();
      else started.server.#reception.accept(connection);
    };
    const onRefused = (reason: string) => refusals.tell(reason);
    const listeners = await platform.listenCoordinator(address, {
      security,
      acceptor: controlAcceptor(security, token),
      onConnection,
      onRefused,
    });
    const lobby = openLobby();
    const door = { certificate: security.certificates, lobby, rate: JOIN_RATE, onRefused };
    const source: ApiSource = {
      secret: token,
      names: () => started.server?.runNames() ?? [],
      run: (name) => started.server?.runState(name) ?? null,
      watch: (name) => started.server?.watchOf(name) ?? null,
      notes: (name) => started.server?.notesOf(name) ?? null,
      coordinator: () => started.server?.state() ?? null,
      dismiss: (run, peerId) => started.server?.dismiss(run, peerId),
    };
    const opened: { close(): Promise<void> }[] = [...listeners];
    try {
      const store = await openStore(options.store, leaseMs, platform.clock, options.etcd);
      opened.push(store);
      const ledger = store.isShared ? null : await Ledger.open(store, null);
      const http = await listenHttp(address, options, door, source, onConnection);
      const doors = { listeners, http, lobby };
      started.server = new CoordinatorServer(doors, { store, ledger }, options, platform, refusals, graceMs);
      return started.server;
    } catch (error) {
      await Promise.all(opened.map((one) => one.close()));
      throw error;
    }
  }

  private constructor(
    { listeners, http, lobby }: Doors,
    { store, ledger }: { readonly store: Store; readonly ledger: Ledger | null },
    options: CoordinatorListenOptions,
    platform: Platform,
    refusals: Refusals,
    graceMs: number,
  ) {
    this.#listeners = listeners;
    this.#http = http;
    this.#options = options;
    this.#store = store;
    this.#ledger = ledger;
    this.#passes = new UsedPasses(ledger?.usedPasses ?? []);
    this.#platform = platform;
    this.#refusals = refusals;
    this.#graceMs = graceMs;
    this.#graceUntil = platform.clock.now() + graceMs;
    this.#reception = new Reception({
      platform,
      token: options.token ?? '',
      lobby,
      refusals,
      isLeading: () => this.isLeading,
      leader: () => this.#candidacy?.leader ?? null,
      passes: () => this.#passes,
      run: (name) => this.#run(name),
      onLeft: ({ machine, name }) => {
        if (machine.empty && machine.epoch === 0) this.#runs.delete(name);
      },
    });
    this.#candidacy = store.isShared ? this.#stand() : null;
    this.#stopTicks = [
      every(platform.clock, TICK_MS, () => this.#tick()),
      ...(http === null ? [] : [every(platform.clock, SECOND_MS, () => this.#tickWatches())]),
    ];
  }

  /** Whether peers may join it: it is the only one, or the one that leads. */
  get isLeading(): boolean {
    return this.#ledger !== null && this.#candidacy?.mayLead !== false;
  }

  get address(): string {
    return formatTcpAddress(this.#listeners[0]!.address); // there is always one
  }

  /** `http://host:port`, or `https:` with a certificate; null where it has no HTTP port. */
  get httpAddress(): string | null {
    return this.#http?.url ?? null;
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    for (const stop of this.#stopTicks) stop();
    const resigned = this.#candidacy?.close();
    this.#reception.close();
    await Promise.all([...this.#listeners, ...(this.#http === null ? [] : [this.#http])].map((one) => one.close()));
    await resigned;
    await this.#store.close();
  }

  status(): Record<string, CoordinatorSnapshot> {
    return Object.fromEntries([...this.#runs].map(([name, run]) => [name, run.machine.snapshot()]));
  }

  /** A run, as whoever looks on by HTTP is shown it; null: there is none, or nobody can look on. */
  runState(name: string): RunState | null {
    const run = this.#runs.get(name);
    if (run === undefined || run.watch === null) return null;
    const now = this.#platform.clock.now();
    return runState(name, run.machine.snapshot(), run.watch, (peerId) => run.remoteOf(peerId), now);
  }

  /** All runs, and how many members each has. */
  runNames(): readonly { readonly run: string; readonly members: number }[] {
    return [...this.#runs.values()].map(({ name, machine }) => ({ run: name, members: machine.worldSize }));
  }

  /** What was counted of a run for those who look on. */
  watchOf(name: string): RunWatch | null {
    return this.#runs.get(name)?.watch ?? null;
  }

  /** What its peers have noted; null: nothing. */
  notesOf(name: string): NotesState | null {
    return this.#runs.get(name)?.notes?.state ?? null;
  }

  /** The coordinator itself, for the same. */
  state(): CoordinatorState {
    const terms = [...this.#runs.values()].map(({ machine }) => machine.term);
    return {
      leads: this.isLeading,
      leader: this.#candidacy?.leader ?? null,
      term: Math.max(this.#ledger?.term ?? 0, ...terms),
      startedAt: this.#startedAt,
      connections: this.#reception.connections,
      receivedMessages: this.#reception.received,
      sentMessages: this.#sentMessages,
    };
  }

  /** By an administrator. */
  dismiss(name: string, peerId: PeerId): void {
    const run = this.#runs.get(name);
    if (run !== undefined && this.isLeading) run.step({ type: 'dismissed', peerId });
  }

  // --- leading ----------------------------------------------------------------------------------------------------

  /** Stands for election. */
  #stand(): Candidacy {
    const { leaseMs = LEASE_MS, advertise } = this.#options;
    const { clock } = this.#platform;
    const note = (text: string) => this.#options.onNote?.(oneLine(text));
    const id = [...this.#platform.random(8)].map((byte) => byte.toString(16).padStart(2, '0')).join('');
    const address = advertise ?? formatAddress(this.#listeners[0]!.address); // there is always one
    const abortController = () => this.#platform.abortController();
    return new Candidacy(
      this.#store,
      { id, address, leaseMs, clock, abortController },
      {
        onLead: (ledger) => {
          this.#ledger = ledger;
          this.#passes = new UsedPasses(ledger.usedPasses);
          this.#graceUntil = clock.now() + this.#graceMs;
          note(`leads, term ${ledger.term}`);
        },
        onYield: (reason) => {
          note(`leads no longer: ${reason}`);
          this.#stepDown();
        },
        onFollow: (leader) => note(`stands by: ${leader.address} leads`),
        onTrouble: (reason) => this.#refusals.tell(reason),
      },
    );
  }

  /** Forgets all runs: what is not said yet must not be said, and nobody is to wait for it. */
  #stepDown(): void {
    this.#ledger = null;
    for (const run of this.#runs.values()) run.silence();
    this.#runs.clear();
    this.#reception.sendAway('this coordinator leads no longer');
  }

  /** Tries again as long as it leads, where several share the store: an attempt that failed may have done it. */
  async #write(write: () => Promise<void>): Promise<void> {
    for (;;) {
      try {
        await write();
        return;
      } catch (error) {
        if (error instanceof NotLeader) this.#candidacy?.onRefused();
        if (this.#candidacy === null || error instanceof NotLeader || !this.isLeading) throw error;
        this.#refusals.tell((error as Error).message);
      }
      await new Promise<void>((resolve) => void this.#platform.clock.schedule(REWRITE_MS, resolve));
    }
  }

  /** One that is alone and can't store what it says has nothing to say: its process ends, as it would at any other defect. */
  #onWriteFailed(error: unknown): void {
    if (this.#candidacy !== null || this.#closed) return;
    queueMicrotask(() => {
      throw error;
    });
  }

  // --- the runs ----------------------------------------------------------------------------------------------------

  /** The run of this name; null when there are too many already. */
  #run(name: string): LedRun<Session> | null {
    const known = this.#runs.get(name);
    if (known !== undefined) return known;
    if (this.#runs.size >= MAX_RUNS && !this.#forgetRun()) return null;
    const { clock } = this.#platform;
    const { heartbeatMs, iceServers, probes } = this.#options;
    const minimumMs = this.#options.lostAfterMs ?? 3_000;
    const options = {
      heartbeatMs: heartbeatMs ?? 250,
      bounds: { minimumMs, maximumMs: PATIENCE * minimumMs },
      random: (length: number) => this.#platform.random(length),
      iceServers: (peerId: PeerId) => iceServersFor(iceServers ?? [], peerId, Date.now()),
      stored: this.#ledger?.load(name) ?? null,
      graceMs: Math.max(0, this.#graceUntil - clock.now()),
      probes: probes ?? true,
    };
    const run = new LedRun<Session>(name, options, {
      clock,
      isWatched: this.#http !== null,
      ledger: () => (this.isLeading ? this.#ledger : null),
      write: (store) => this.#write(store),
      onWriteFailed: (error) => this.#onWriteFailed(error),
      isClosed: () => this.#closed,
      seatOf: (connection) => this.#reception.session(connection),
      onSeated: ({ pass }, peerId, ledger) => {
        const use = pass === null ? null : this.#passes.use(pass, peerId, Date.now());
        return use === null ? null : this.#write(() => ledger.savePass(use));
      },
      onSent: () => {
        this.#sentMessages += 1;
      },
      note: (line) => this.#options.onNote?.(line),
    });
    this.#runs.set(name, run);
    return run;
  }

  /** Makes room: of the runs where nobody is left, the oldest goes, and its epoch with it. */
  #forgetRun(): boolean {
    for (const { name, machine } of this.#runs.values()) if (machine.empty) return this.#runs.delete(name);
    return false;
  }

  #tick(): void {
    if (this.isLeading) for (const run of this.#runs.values()) run.tick();
  }

  #tickWatches(): void {
    const now = this.#platform.clock.now();
    for (const { watch, machine } of this.#runs.values()) watch?.tick(machine.worldSize, now);
  }
}

/** Where peers find it; in a simulation that is a name. */
function formatAddress(address: Address): string {
  return address.kind === 'memory' ? address.name : formatTcpAddress(address);
}

/** Loaded only where it is asked for. */
async function listenHttp(
  address: Address,
  { http }: CoordinatorListenOptions,
  door: HttpDoor,
  source: ApiSource,
  onConnection: (connection: Connection) => void,
): Promise<HttpListener | null> {
  if (http === undefined) return null;
  const { serveHttp } = await import('./http-server.ts');
  const host = http.host ?? (address.kind === 'tcp' ? address.host : '127.0.0.1');
  return serveHttp({ ...http, host }, door, source, onConnection);
}
