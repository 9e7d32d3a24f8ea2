/**
 * The coordinator as a process: listens, authenticates peers, feeds the machine of each run and carries out its effects.
 * No decision is made here but who may come in.
 */
import { ArgumentError } from '../errors.ts';
import type { CoordinatorState } from '../eyes/coordinator-state.ts';
import { type RunState, runState } from '../eyes/run-state.ts';
import { RunWatch } from '../eyes/run-watch.ts';
import { CoordinatorMachine } from '../membership/coordinator.ts';
import type { CoordinatorEffect, CoordinatorEvent, CoordinatorSnapshot, PeerId } from '../membership/events.ts';
import type { NotesState } from '../notes-document.ts';
import type { EtcdAccess } from '../store/etcd-access.ts';
import { openStore } from '../store/open.ts';
import type { Store } from '../store/store.ts';
import { DEFAULT_PORT, formatTcpAddress, isLoopback, parseTcpAddress } from '../transport/address.ts';
import { every } from '../transport/clock.ts';
import type { HttpDoor } from '../transport/http-entrance.ts';
import { Lobby, type Visitor } from '../transport/lobby.ts';
import { NONCE_BYTES, prove, sameProof } from '../transport/secure.ts';
import { type Address, type Connection, type Listener, NO_BINDING } from '../transport/transport.ts';
import {
  HANDSHAKE_TIMEOUT_MS,
  MAX_RUNS,
  MAX_UNAUTHENTICATED,
  MAX_UNAUTHENTICATED_PER_ORIGIN,
  MAX_WORLD_SIZE,
  PROTOCOL_VERSION,
} from '../wire/limits.ts';
import {
  type Control,
  type CoordinatorMessage,
  encodeControl,
  type IceServers,
  type NotesMessage,
  PEER_MESSAGES,
  type PeerMessage,
  type RunReport,
} from '../wire/messages.ts';
import { Candidacy } from './candidacy.ts';
import { ControlConnection } from './control-connection.ts';
import { FlightDesk } from './flight-desk.ts';
import type { ApiSource } from './http-api.ts';
import type { CoordinatorHttpOptions, HttpListener } from './http-server.ts';
import { checkIceServers, type IceServerOptions, iceServersFor } from './ice.ts';
import { Ledger, NotLeader } from './ledger.ts';
import type { NotesDesk } from './notes-desk.ts';
import { type Fences, Outbox } from './outbox.ts';
import { JOIN_RATE, type Platform, systemPlatform } from './platform.ts';
import { oneLine, Refusals } from './refusals.ts';
import { controlAcceptor, resolveSecurity } from './resolve-security.ts';
import type { EncryptionOptions } from './security.ts';
import { type Claims, keyOfClaims, readClaims, UsedPasses } from './token.ts';

/** Options of `Coordinator.listen`. */
export interface CoordinatorListenOptions extends EncryptionOptions {
  /** TCP port; 0 takes a free one. @default 7400 */
  readonly port?: number;
  /** Address to listen on. Anything but loopback requires a token. @default '127.0.0.1' */
  readonly host?: string;
  /** Secret that peers must know. @default none: only peers on this host are let in */
  readonly token?: string;
  /** Milliseconds between the heartbeats of a peer. @default 250 */
  readonly heartbeatMs?: number;
  /** A silent peer is never lost sooner than this (ms). @default 3000 */
  readonly lostAfterMs?: number;
  /**
   * Where it keeps what a successor must know: the path of a file, which one coordinator uses at a time; `etcd:http://a:2379,http://b:2379`,
   * which several may share: one of them leads, and the others stand by; or a store of your own.
   * @default none: the members' reports must do
   */
  readonly store?: string | Store;
  /** User and certificates with which etcd lets this coordinator in. @default none */
  readonly etcd?: EtcdAccess;
  /**
   * Where several share a store: so long after the last word of one that leads another takes over (ms). etcd counts whole seconds,
   * and no fewer than two. @default 3000
   */
  readonly leaseMs?: number;
  /** Where several share a store: the address at which peers reach this one, `tcp://host:port`. @default where it listens */
  readonly advertise?: string;
  /**
   * Whether members are asked to measure the ways to one another that carry nothing, for the order of the ring: up to half a MiB for each pair on
   * different hosts, one at a time for each peer, if possible between calls; again after ten minutes, on the present ring after one. @default true
   */
  readonly probes?: boolean;
  /** STUN and TURN servers for peers that use WebRTC. @default none: only paths on which nobody translates addresses */
  readonly iceServers?: readonly IceServerOptions[];
  /**
   * An HTTP port, for peers in browsers: they reach the coordinator by WebSocket. With `cert` and `key` it is HTTPS; without, it is in
   * the clear, keys of pairs included: on any other network than loopback put a proxy before it that ends TLS. @default none
   */
  readonly http?: CoordinatorHttpOptions;
  /** Receives a line for each change of membership, and for those who were turned away. @default none */
  readonly onNote?: (line: string) => void;
}

/** How long a coordinator on a given port waits for members of an earlier one there, which dial at least every 500 ms. */
const GRACE_MS = 1_000;

/** How long a peer that was let go has to close its connection (ms). */
const DISMISS_MS = 2_000;

/** Between ticks of the machines (ms). */
const TICK_MS = 25;

/** Between rows of a run's history (ms). */
const SECOND_MS = 1_000;

/** As `leaseMs`. */
const LEASE_MS = 3_000;
const SHORTEST_LEASE_MS = 200;

/** Between attempts at a store that several share and that did not answer (ms). */
const REWRITE_MS = 50;

/** A peer that finds that the coordinator does not know its token goes without another word. */
const LEFT_UNPROVED = 'it left without a proof that it knows the token: perhaps it has another one';

/** Longest silence that the adaptive detector may tolerate, as a multiple of the shortest. */
const PATIENCE = 4;

interface Run {
  readonly name: string;
  readonly machine: CoordinatorMachine;
  readonly outbox: Outbox;
  readonly peers: Map<PeerId, Session>;
  /** By peer: the connection that the machine takes for its own. `peers` follows when all that came before is stored. */
  readonly connections: Map<PeerId, number>;
  readonly flights: FlightDesk;
  /** What is told by HTTP; null: nobody can ask. */
  readonly watch: RunWatch | null;
  /** null until a peer has something to do with them. */
  notes: NotesDesk | null;
}

const WATCH: CoordinatorMessage = { type: 'watch' };

type PeerConnection = ControlConnection<PeerMessage, CoordinatorMessage>;

/** One connection, from its greeting on. */
interface Session {
  readonly connection: PeerConnection;
  readonly number: number;
  /** As long as it has not been let in. */
  readonly visitor: Visitor;
  /** Stops what would close it: the handshake takes too long, or the farewell. */
  stopTimer: () => void;
  ownNonce: Uint8Array;
  peerNonce: Uint8Array | null;
  /** What its greeting asked for. */
  runName: string;
  /** Of its pass, as it came, and what the bearer must prove to know. */
  claims: string;
  key: Uint8Array | string;
  /** Of the connection, where its proofs cover it. */
  binding: Uint8Array;
  /** What those claims say, once that is proved; null for the coordinator's own token. */
  pass: Claims | null;
  /** It has proved that it knows the token, and will tell where it comes back from. */
  returning: Extract<PeerMessage, { type: 'prove' }> | null;
  /** It was told why it may not come in. */
  refused: boolean;
  /** Where it has been let in. */
  run: Run | null;
  peerId: PeerId | null;
}

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
  readonly #token: string;
  readonly #store: Store;
  /** Its part in the election, where several share the store. */
  readonly #candidacy: Candidacy | null;
  /** What is stored, while it leads. */
  #ledger: Ledger | null;
  #passes: UsedPasses;
  readonly #runs: Map<string, Run> = new Map();
  readonly #sessions: Map<number, Session> = new Map();
  readonly #graceMs: number;
  /** Members of an earlier coordinator's runs may come back until then. */
  #graceUntil: number;
  readonly #stopTicks: readonly (() => void)[];
  readonly #lobby: Lobby;
  readonly #refusals: Refusals;
  /** What was sent last: what goes to many is encoded once. */
  #encoded: { readonly message: CoordinatorMessage; readonly fences: string; readonly bytes: Uint8Array } | null = null;
  #nextSession = 1;
  #closed = false;
  readonly #startedAt: number = Date.now();
  readonly #messages: { received: number; sent: number } = { received: 0, sent: 0 };

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
      else started.server.#accept(connection);
    };
    const onRefused = (reason: string) => refusals.tell(reason);
    const listeners = await platform.listenCoordinator(address, {
      security,
      acceptor: controlAcceptor(security, token),
      onConnection,
      onRefused,
    });
    const lobby = new Lobby({ total: MAX_UNAUTHENTICATED, perOrigin: MAX_UNAUTHENTICATED_PER_ORIGIN });
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
    this.#lobby = lobby;
    this.#options = options;
    this.#store = store;
    this.#ledger = ledger;
    this.#passes = new UsedPasses(ledger?.usedPasses ?? []);
    this.#platform = platform;
    this.#refusals = refusals;
    this.#token = options.token ?? '';
    this.#graceMs = graceMs;
    this.#graceUntil = platform.clock.now() + graceMs;
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
    for (const session of this.#sessions.values()) {
      session.stopTimer();
      session.connection.fail('the coordinator was closed');
    }
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
    const pathOf = (peerId: PeerId) => run.peers.get(peerId)?.connection.remote ?? null;
    return runState(name, run.machine.snapshot(), run.watch, pathOf, this.#platform.clock.now());
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
    const { received, sent } = this.#messages;
    const terms = [...this.#runs.values()].map(({ machine }) => machine.term);
    return {
      leads: this.isLeading,
      leader: this.#candidacy?.leader ?? null,
      term: Math.max(this.#ledger?.term ?? 0, ...terms),
      startedAt: this.#startedAt,
      connections: this.#sessions.size,
      receivedMessages: received,
      sentMessages: sent,
    };
  }

  /** By an administrator. */
  dismiss(name: string, peerId: PeerId): void {
    const run = this.#runs.get(name);
    if (run !== undefined && this.isLeading) this.#step(run, { type: 'dismissed', peerId });
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
    for (const { outbox, peers } of this.#runs.values()) {
      outbox.close();
      peers.clear();
    }
    this.#runs.clear();
    for (const { run, connection } of this.#sessions.values())
      if (run !== null) connection.fail('this coordinator leads no longer');
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

  // --- letting in --------------------------------------------------------------------------------------------------

  #accept(connection: Connection): void {
    if (this.#closed) {
      connection.handler = { onData: () => {}, onEnd: () => {}, onClose: () => {} };
      connection.destroy();
      return;
    }
    const session: Session = {
      connection: new ControlConnection<PeerMessage, CoordinatorMessage>(connection, PEER_MESSAGES, {
        onMessage: (control) => this.#onMessage(session, control),
        onClosed: (reason) => this.#onClosed(session, reason),
      }),
      number: this.#nextSession++,
      visitor: {
        // On other ports than HTTP's, connections are counted by their address before they are handed over.
        origin: connection.visit?.origin ?? null,
        onEvicted: () => session.connection.fail('it had not shown who it is when too many others came'),
      },
      stopTimer: this.#platform.clock.schedule(HANDSHAKE_TIMEOUT_MS, () =>
        session.connection.fail('the handshake took too long'),
      ),
      ownNonce: this.#platform.random(NONCE_BYTES),
      peerNonce: null,
      runName: '',
      claims: '',
      key: '',
      binding: NO_BINDING,
      pass: null,
      returning: null,
      refused: false,
      run: null,
      peerId: null,
    };
    this.#sessions.set(session.number, session);
    this.#lobby.enter(session.visitor);
  }

  #onMessage(session: Session, control: Control<PeerMessage>): void {
    const { message } = control;
    if (session.refused) return;
    this.#messages.received += 1;
    if (session.run !== null && !this.isLeading) return; // it closes
    if (session.peerId !== null && session.run !== null) {
      const { machine } = session.run;
      if (control.term > machine.term || control.epoch > machine.epoch) {
        session.connection.refuse(`it speaks of term ${control.term}, epoch ${control.epoch}, which have not been`);
        return;
      }
      const { run, peerId } = session;
      const wrong = run.watch?.onMessage(peerId, message, this.#platform.clock.now()) ?? null;
      if (wrong !== null) session.connection.refuse(wrong);
      else if (message.type === 'signal') this.#passOn(run, peerId, message);
      else if (message.type === 'notes') void this.#note(run, peerId, message);
      else if (message.type === 'ask-flights' || message.type === 'flight') run.flights.onMessage(peerId, message);
      else if (message.type === 'ice') this.#sendNow(run, peerId, { type: 'ice', ice: this.#iceServers(peerId) });
      else this.#step(run, { type: 'message', peerId, message });
    } else if (message.type === 'hello' && session.peerNonce === null) {
      this.#lobby.hear(session.visitor);
      this.#challenge(session, message);
    } else if (message.type === 'resume' && session.returning !== null) {
      this.#resume(session, session.returning, message.report);
    } else if (message.type === 'prove' && session.peerNonce !== null && session.returning === null) {
      this.#admit(session, session.peerNonce, message);
    } else {
      session.connection.refuse(`it sent ${message.type} before it had proved who it is`);
    }
  }

  #challenge(session: Session, hello: Extract<PeerMessage, { type: 'hello' }>): void {
    if (hello.version !== PROTOCOL_VERSION) {
      const message = `This coordinator speaks protocol version ${PROTOCOL_VERSION}, the peer ${hello.version}: use the same release of skein on both.`;
      this.#refuse(session, 'version', message);
      return;
    }
    session.peerNonce = hello.nonce;
    session.runName = hello.run;
    session.claims = hello.claims;
    session.key = keyOfClaims(this.#token, hello.claims);
    const { connection } = session;
    // Who leaves it out of its own proof has not asked whether somebody stands in between; nobody else can leave it out for it.
    session.binding = hello.bound || !connection.mayBeUnbound ? connection.binding : NO_BINDING;
    const { binding } = session;
    const parts = { subject: hello.run, binding, own: session.ownNonce, theirs: hello.nonce };
    const proof = prove(session.key, 'coordinator', parts);
    session.connection.send({ type: 'challenge', version: PROTOCOL_VERSION, nonce: session.ownNonce, proof }, 0, 0);
  }

  #admit(session: Session, peerNonce: Uint8Array, message: Extract<PeerMessage, { type: 'prove' }>): void {
    const { binding } = session;
    const parts = { subject: session.runName, binding, own: peerNonce, theirs: session.ownNonce };
    if (!sameProof(message.proof, prove(session.key, 'peer', parts))) {
      const text =
        'The token is wrong: use the one that the coordinator was started with, or a pass that was made from it.';
      this.#refuse(session, 'unauthorized', text);
      return;
    }
    if (!this.isLeading) {
      this.#sendOn(session);
      return;
    }
    session.pass = session.claims === '' ? null : readClaims(session.claims);
    if (session.claims !== '' && session.pass === null) {
      this.#refuse(session, 'unauthorized', 'The pass can not be read: make another one from the token.');
      return;
    }
    if (!message.resume && !this.#mayEnter(session, null)) return;
    session.connection.trust();
    if (message.resume) {
      session.returning = message;
      return;
    }
    const run = this.#enter(session, true);
    if (run === null) return;
    const { hostKey, site, addresses, cores, startWorldSize, name } = message;
    const description = { hostKey, site, addresses, cores };
    this.#step(run, { type: 'joined', connection: session.number, description, startWorldSize, name });
  }

  /** It stands by: who comes here is told where to go, if that is known. */
  #sendOn(session: Session): void {
    const leader = this.#candidacy?.leader ?? null;
    const message = `This coordinator stands by${leader === null ? '' : `: ${leader} leads`}.`;
    session.refused = true;
    session.connection.send({ type: 'refuse', code: 'standby', message, ...(leader === null ? {} : { leader }) }, 0, 0);
    session.connection.end();
  }

  #resume(session: Session, proved: Extract<PeerMessage, { type: 'prove' }>, report: RunReport): void {
    if (!this.isLeading) {
      this.#sendOn(session);
      return;
    }
    if (!this.#mayEnter(session, report.peerId)) return;
    const run = this.#enter(session, false);
    if (run === null) return;
    const { hostKey, site, addresses, cores, startWorldSize, name } = proved;
    const description = { hostKey, site, addresses, cores };
    const event = { type: 'resumed', connection: session.number, description, startWorldSize, name, report } as const;
    if (this.#step(run, event).some((effect) => effect.type === 'send' && effect.message.type === 'evicted'))
      this.#refusals.tell(
        `${session.connection.remote} was refused: ${report.peerId} of run ${run.name} was lost before.`,
      );
  }

  /** @param returning the peer that it says it is, when it comes back */
  #mayEnter(session: Session, returning: PeerId | null): boolean {
    const { pass, runName } = session;
    const refusal = pass === null ? null : this.#passes.refusal(pass, runName, returning, Date.now());
    if (refusal !== null) this.#refuse(session, 'unauthorized', refusal);
    return refusal === null;
  }

  /** The handshake is over; null when there is no room for one more. */
  #enter(session: Session, isNew: boolean): Run | null {
    // Only now: a run that nobody has come to yet is forgotten when the last of its visitors leaves.
    const run = this.#run(session.runName);
    if (run === null || (isNew && run.machine.size >= MAX_WORLD_SIZE)) {
      const full = run === null ? `${MAX_RUNS} runs` : `${MAX_WORLD_SIZE} peers in this run`;
      this.#refuse(session, 'full', `This coordinator serves ${full} already: start another one.`);
      return null;
    }
    session.stopTimer();
    this.#lobby.leave(session.visitor);
    session.run = run;
    return run;
  }

  #refuse(session: Session, code: string, message: string): void {
    session.refused = true;
    this.#refusals.tell(`${session.connection.remote} was refused: ${message}`);
    session.connection.send({ type: 'refuse', code, message }, 0, 0);
    session.connection.end();
  }

  #onClosed(session: Session, reason: string | null): void {
    this.#sessions.delete(session.number);
    session.stopTimer();
    this.#lobby.leave(session.visitor);
    const { run, peerId, connection } = session;
    if (run === null && !session.refused && !this.#closed) {
      // One that has left and said nothing may only have looked whether somebody is here.
      const hasLeft = session.peerNonce !== null && connection.cutBecause === null;
      const why = hasLeft ? LEFT_UNPROVED : reason;
      if (why !== null) this.#refusals.tell(`${connection.remote} did not get in: ${why}.`);
    }
    if (run !== null && connection.cutBecause === 'protocol' && !this.#closed)
      this.#refusals.tell(`${connection.remote}, ${peerId} of run ${run.name}, was cut off: ${reason}.`);
    if (peerId === null || run === null) return;
    if (run.peers.get(peerId) === session) {
      run.peers.delete(peerId);
      run.flights.left(peerId);
      run.notes?.left(peerId);
    }
    this.#onLeft(run, peerId, session.number);
    if (run.machine.empty && run.machine.epoch === 0) this.#runs.delete(run.name);
  }

  /** A connection of a peer has closed: it may have come back by another one already. */
  #onLeft(run: Run, peerId: PeerId, connection: number): void {
    if (run.connections.get(peerId) !== connection) return;
    run.connections.delete(peerId);
    if (!this.#closed) this.#step(run, { type: 'closed', peerId });
  }

  // --- the machines ------------------------------------------------------------------------------------------------

  /** The run of this name; null when there are too many already. */
  #run(name: string): Run | null {
    let run = this.#runs.get(name);
    if (run === undefined) {
      if (this.#runs.size >= MAX_RUNS && !this.#forgetRun()) return null;
      const heartbeatMs = this.#options.heartbeatMs ?? 250;
      const minimumMs = this.#options.lostAfterMs ?? 3_000;
      const options = {
        heartbeatMs,
        bounds: { minimumMs, maximumMs: PATIENCE * minimumMs },
        random: (length: number) => this.#platform.random(length),
        iceServers: (peerId: PeerId) => this.#iceServers(peerId),
        stored: this.#ledger?.load(name) ?? null,
        graceMs: Math.max(0, this.#graceUntil - this.#platform.clock.now()),
        probes: this.#options.probes ?? true,
      };
      const machine = new CoordinatorMachine(options, this.#platform.clock.now());
      const outbox = new Outbox(
        (effect, fences) => this.#carryOut(made, effect, fences),
        (error) => this.#onWriteFailed(error),
      );
      const peers: Map<PeerId, Session> = new Map();
      const flights = new FlightDesk({
        clock: this.#platform.clock,
        peers: () => machine.snapshot().peers.map(({ peerId }) => peerId),
        isConnected: (peerId) => peers.has(peerId),
        send: (peerId, message) => this.#sendNow(made, peerId, message),
      });
      const watch = this.#http === null ? null : new RunWatch(() => Date.now());
      const made: Run = { name, machine, outbox, peers, connections: new Map(), flights, watch, notes: null };
      this.#runs.set(name, made);
      run = made;
    }
    return run;
  }

  /** From one end of a WebRTC session to the other. */
  #passOn(run: Run, from: PeerId, { to, signal }: Extract<PeerMessage, { type: 'signal' }>): void {
    if (run.peers.has(to)) {
      this.#sendNow(run, to, { type: 'signal', from, signal });
    } else if (signal.kind === 'offer') {
      const end = {
        kind: 'end' as const,
        session: signal.session,
        fromDialler: false,
        reason: 'it is not in this run',
      };
      this.#sendNow(run, from, { type: 'signal', from: to, signal: end });
    }
  }

  /** What merges notes is loaded with the first of them. */
  async #note(run: Run, from: PeerId, message: NotesMessage): Promise<void> {
    const { NotesDesk } = await import('./notes-desk.ts');
    run.notes ??= new NotesDesk({
      peers: () =>
        run.machine.snapshot().recovering ? null : run.machine.snapshot().peers.map(({ peerId }) => peerId),
      send: (peerId, answer) => this.#sendNow(run, peerId, answer),
      refuse: (peerId, reason) => run.peers.get(peerId)?.connection.refuse(reason),
    });
    if (run.peers.has(from)) run.notes.onMessage(from, message, this.#platform.clock.now());
  }

  #iceServers(peerId: PeerId): IceServers {
    return iceServersFor(this.#options.iceServers ?? [], peerId, Date.now());
  }

  /** What changes nothing, and need not wait. */
  #sendNow(run: Run, peerId: PeerId, message: CoordinatorMessage): void {
    this.#sendEncoded(run, peerId, message, run.outbox.fences);
  }

  /** Many are often sent the same: it is encoded once. */
  #sendEncoded({ peers }: Run, peerId: PeerId, message: CoordinatorMessage, { term, epoch }: Fences): void {
    const connection = peers.get(peerId)?.connection;
    if (connection === undefined) return;
    this.#messages.sent += 1;
    const fences = `${term} ${epoch}`;
    if (this.#encoded?.message !== message || this.#encoded.fences !== fences)
      this.#encoded = { message, fences, bytes: encodeControl(message, term, epoch) };
    connection.sendEncoded(this.#encoded.bytes);
  }

  /** Makes room: of the runs where nobody is left, the oldest goes, and its epoch with it. */
  #forgetRun(): boolean {
    for (const { name, machine } of this.#runs.values()) if (machine.empty) return this.#runs.delete(name);
    return false;
  }

  #tick(): void {
    if (!this.isLeading) return;
    for (const run of this.#runs.values()) {
      this.#step(run, { type: 'tick' });
      run.notes?.tick(this.#platform.clock.now());
    }
  }

  #tickWatches(): void {
    const now = this.#platform.clock.now();
    for (const { watch, machine } of this.#runs.values()) watch?.tick(machine.worldSize, now);
  }

  #step(run: Run, event: CoordinatorEvent): readonly CoordinatorEffect[] {
    const { machine, outbox, connections, watch } = run;
    const now = this.#platform.clock.now();
    const effects = machine.step(event, now);
    for (const effect of effects) {
      if (effect.type === 'assign') connections.set(effect.peerId, effect.connection);
      else if (effect.type === 'close') connections.delete(effect.peerId);
    }
    watch?.onEffects(effects, machine.epoch, now);
    if (effects.length > 0) outbox.push(effects, { term: machine.term, epoch: machine.epoch });
    return effects;
  }

  /** A promise where what follows has to wait for it. */
  #carryOut(run: Run, effect: CoordinatorEffect, fences: Fences): Promise<void> | null {
    // Since what came before, this process may have been stopped for any time.
    const ledger = this.isLeading ? this.#ledger : null;
    if (ledger === null) return null;
    switch (effect.type) {
      case 'store':
        return this.#write(() => ledger.saveRun(run.name, effect.run));
      case 'assign':
        return this.#assign(run, effect, ledger);
      case 'send':
        this.#sendEncoded(run, effect.peerId, effect.message, fences);
        // From now on it tells what it does, and first of all what it has done.
        if (run.watch !== null && (effect.message.type === 'welcome' || effect.message.type === 'resumed'))
          this.#sendEncoded(run, effect.peerId, WATCH, fences);
        return null;
      case 'close':
        this.#dismiss(run.peers.get(effect.peerId));
        run.peers.delete(effect.peerId);
        return null;
      case 'note':
        this.#options.onNote?.(oneLine(`run ${run.name}: ${effect.text}`));
        return null;
      default:
        return effect satisfies never;
    }
  }

  #assign(
    run: Run,
    { connection, peerId }: Extract<CoordinatorEffect, { type: 'assign' }>,
    ledger: Ledger,
  ): Promise<void> | null {
    const session = this.#sessions.get(connection);
    if (session === undefined) {
      // It left while something was being stored.
      this.#onLeft(run, peerId, connection);
      return null;
    }
    session.peerId = peerId;
    run.peers.set(peerId, session);
    const use = session.pass === null ? null : this.#passes.use(session.pass, peerId, Date.now());
    return use === null ? null : this.#write(() => ledger.savePass(use));
  }

  /** Lets what was sent leave; a peer that does not close its side then is gone. */
  #dismiss(session: Session | undefined): void {
    if (session === undefined) return;
    session.connection.end();
    session.stopTimer = this.#platform.clock.schedule(DISMISS_MS, () =>
      session.connection.fail('it did not close its side'),
    );
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
