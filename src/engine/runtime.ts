/**
 * One peer's engine: feeds socket events and the clock to the machines, and carries out what they want. It makes no
 * decision of its own; whether it lives in a worker thread or in the training thread makes no difference to it.
 */
import type { CallListener, CallSpec, PeerId } from '../collectives/call.ts';
import { Collectives } from '../collectives/collectives.ts';
import type { Member, ViewOf } from '../collectives/context.ts';
import { Inbound } from '../collectives/inbound.ts';
import type { Operation } from '../collectives/operation.ts';
import type { LinkPort } from '../collectives/ports.ts';
import { Waits } from '../collectives/waits.ts';
import { UNMEASURED, type WayCosts } from '../costs.ts';
import {
  ClosedError,
  ConnectError,
  EvictedError,
  ProtocolError,
  QuorumError,
  type SkeinError,
  TimeoutError,
} from '../errors.ts';
import { Tally } from '../eyes/tally.ts';
import { concernedBy, ViewHistory } from '../membership/history.ts';
import { type FlowSight, LinkRates } from '../membership/link-rates.ts';
import { type LinkSight, Paths } from '../membership/paths.ts';
import type { SlowPeer } from '../membership/stragglers.ts';
import { hasCut, type Pair } from '../membership/ways.ts';
import type { Prefetched, StateAnswers, StateAsk, StateSpec, StateStatus } from '../state/asks.ts';
import { every } from '../transport/clock.ts';
import type { LinkEvents } from '../transport/link.ts';
import type { Address, Connection } from '../transport/transport.ts';
import type { CoordinatorMessage, NotedMessage, PeerDescription } from '../wire/coordinator-messages.ts';
import type { FlightDump } from '../wire/flight.ts';
import { MAX_CORES, MAX_FLIGHT_CALLS, MAX_TEXT_LENGTH, MAX_TOLD_WAITING, MAX_UNREAD_NOTES } from '../wire/limits.ts';
import type { WireView } from '../wire/parts.ts';
import type { NotesMessage, RunReport } from '../wire/peer-messages.ts';
import { CoordinatorClient } from './coordinator-client.ts';
import { encodeFlight } from './flight-dump.ts';
import type { FlightFiles } from './flight-files.ts';
import type { FlightInquiry } from './flight-inquiry.ts';
import type { Listeners, TransportKind } from './host.ts';
import { type EngineMemory, ScratchPool } from './memory.ts';
import type { PathFailure, PathKind } from './path-race.ts';
import { Peers, type PeersOptions } from './peers.ts';
import type { Platform } from './platform.ts';
import { Probing } from './probing.ts';
import { Refusals } from './refusals.ts';
import { dataAcceptor, type Security } from './security.ts';
import { Signalling } from './signalling.ts';
import { States } from './states.ts';

export interface RuntimeOptions {
  /** Of those that may coordinate the run: one of them leads. */
  readonly coordinators: readonly Address[];
  readonly run: string;
  readonly token: string;
  readonly security: Security;
  /** Default of the calls. */
  readonly minWorldSize: number;
  /** Ready peers that the first view needs. */
  readonly startWorldSize: number;
  /** What this process is called, the same after a restart; may be empty. */
  readonly name: string;
  readonly site: string;
  readonly transports: readonly TransportKind[];
  readonly stripes: number;
  /** Milliseconds until a view must have formed. */
  readonly timeoutMs: number;
  /** Milliseconds before a better path to a peer is looked for; tests shorten it. */
  readonly probeMs?: number;
  /** Folder to which the flight record is written when a call fails, or when somebody asks; without it, nothing is written. */
  readonly flight?: string;
}

/** A boundary that was passed: the view from here on, and what has changed. */
export interface Admission {
  /** Number of the boundary, the same on all members that pass it; it only grows. */
  readonly boundary: number;
  readonly epoch: number;
  readonly worldSize: number;
  readonly joined: readonly PeerId[];
  readonly left: readonly PeerId[];
}

interface RuntimeView {
  readonly epoch: number;
  readonly members: readonly Member[];
}

export type RuntimeEvent =
  | { readonly type: 'view'; readonly view: RuntimeView }
  | { readonly type: 'peer-lost'; readonly peerId: PeerId; readonly reason: string; readonly epoch: number }
  | { readonly type: 'slow-peer'; readonly slow: SlowPeer; readonly epoch: number }
  | { readonly type: 'path'; readonly peerId: PeerId; readonly path: PathKind | null }
  /** null: some were left out, as too many were unread. */
  | { readonly type: 'notes'; readonly message: NotedMessage | null }
  | { readonly type: 'coordinator-lost'; readonly reason: string }
  | { readonly type: 'coordinator-back' }
  | { readonly type: 'refused'; readonly reason: string }
  | { readonly type: 'evicted'; readonly reason: string };

/** How another peer is reached, or why it is not. */
export interface LinkStatus {
  readonly peerId: PeerId;
  readonly path: string | null;
  /** Better ways that were last tried in vain, and why. */
  readonly failures: readonly PathFailure[];
  readonly up: boolean;
  /** Connections by which it is sent to. */
  readonly stripes: number;
  readonly queuedBytes: number;
  /** What the way to it was last measured to carry; null where nothing was sent by which that could be, and between peers on one host. */
  readonly bytesPerSecond: number | null;
  /** Half of the shortest of the last round trips (ms); null where none was measured. */
  readonly delayMs: number | null;
}

export interface RuntimeStatus {
  /** The members in the order of the ring: each sends to the next, and the last to the first. */
  readonly ring: readonly PeerId[];
  readonly links: readonly LinkStatus[];
  /** What is shared, by tag. */
  readonly states: readonly StateStatus[];
  /** By what `algorithm: 'auto'` chooses: as the coordinator has told all members of the view. */
  readonly costs: WayCosts;
  readonly collectives: readonly {
    readonly op: string;
    readonly state: string;
    readonly waitsFor: string;
    readonly elapsed: number;
  }[];
}

/** Between looks at deadlines (ms), and where there is hardly anything to look at. */
const TICK_MS = 25;
const IDLE_TICK_MS = 100;

/** Between reports of whom this peer waits for, and of what its ways are worth (ms). */
const TELL_MS = 1_000;

/** The longest time that an answer to a probe can tell (µs). */
const MAX_MICROS = 2 ** 32 - 1;

/** A tick later than this means that this process was stopped: the coordinator's silence is no evidence then (ms). */
const ASLEEP_MS = 1_000;

/** How long a newcomer waits at least for its links to come up before it asks to be admitted all the same (ms). */
const WARM_MS = 3_000;

/** The same where paths through NATs are sought, and several sessions on each (ms). */
const WARM_WEBRTC_MS = 10_000;

/** Of that for each peer: three round trips of 200 ms, 64 dials at once (ms). */
const WARM_PEER_MS = 10;

/** How long a newcomer waits for links to so many peers. */
export function warmMs(peers: number, leastMs: number = WARM_MS): number {
  return Math.max(leastMs, WARM_PEER_MS * peers);
}

/** How long a leaving peer waits for the coordinator to let it go (ms). */
const LEAVE_MS = 2_000;

interface BoundaryWaiter {
  readonly index: number;
  readonly minWorldSize: number;
  readonly resolve: (admission: Admission) => void;
  readonly reject: (error: SkeinError) => void;
  readonly stopTimer: () => void;
}

const DEAD_LINK: LinkPort = {
  up: false,
  writable: false,
  queuedBytes: 0,
  cork: () => {},
  uncork: () => {},
  send: (_head, _body, onFlushed) => {
    if (onFlushed !== null) queueMicrotask(onFlushed);
  },
};

export class Runtime {
  readonly peerId: PeerId;
  readonly #client: CoordinatorClient;
  readonly #listeners: Listeners;
  readonly #signalling: Signalling | null;
  readonly #peers: Peers;
  readonly #collectives: Collectives;
  readonly #emit: (event: RuntimeEvent) => void;
  readonly #platform: Platform;
  readonly #memory: EngineMemory;
  readonly #run: string;
  #flightFiles: FlightFiles | null = null;
  /** Messages about notes that the training thread has not read yet. */
  #unreadNotes = 0;
  #missedNotes = false;
  /** Asks for the others' flight records. */
  #inquiry: FlightInquiry | null = null;
  /** Stop what runs again and again. */
  readonly #timers: (() => void)[] = [];
  readonly #boundaries: BoundaryWaiter[] = [];
  readonly #calls: Map<number, Operation> = new Map();
  /** Lost since the last boundary. */
  #left: PeerId[] = [];
  #view: ViewOf | null = null;
  readonly #paths: Paths;
  readonly #waits: Waits = new Waits();
  readonly #linkRates: LinkRates = new LinkRates();
  readonly #probing: Probing;
  readonly #tally: Tally = new Tally();
  /** When the coordinator was last given a sign of life that it has not answered; null: it has. */
  #beatAt: number | null = null;
  #roundTripMs: number | null = null;
  readonly #states: States;
  readonly #history: ViewHistory = new ViewHistory();
  /** Has asked to be admitted. */
  #ready = false;
  #boundary = 0;
  #lossEpoch = 0;
  /** Pairs that could not reach one another at the last loss. */
  #cuts: readonly Pair[] = [];
  #lastHeard: number;
  #lastTick: number;
  #stopTick: () => void;
  #ticksSlowly = false;
  /** Peers that were shown at the last heartbeat, on every stripe, that the way is open. */
  #signed: ReadonlySet<PeerId> = new Set();
  /** Why nothing works any more; null while it does. */
  #dead: ((op: string) => SkeinError) | null = null;
  #admitted: { resolve: (admission: Admission) => void; reject: (error: SkeinError) => void } | null = null;
  #leaving: (() => void) | null = null;

  /**
   * Joins a run: listens, authenticates, warms the links, and waits to be admitted.
   *
   * @param state is fetched from the members before that
   *
   * @throws ConnectError, UnauthorizedError, ProtocolError, QuorumError
   */
  static async join(
    options: RuntimeOptions,
    emit: (event: RuntimeEvent) => void,
    platform: Platform,
    state: StateSpec | null = null,
  ): Promise<{ runtime: Runtime; admission: Admission; prefetched: Prefetched | null }> {
    const startedAt = platform.clock.now();
    const runtime = await Runtime.#open(options, emit, platform);
    try {
      runtime.#openFlightFiles(options.flight);
      if (state !== null) await runtime.state({ type: 'attach', spec: state });
      return { runtime, ...(await runtime.#enter(options, startedAt, state?.tag ?? null)) };
    } catch (error) {
      await runtime.close();
      throw error;
    }
  }

  /**
   * Comes to a run and connects to its peers, but takes no part. Tells how each is reached, or why not.
   *
   * @param inquiry is to gather the peers' flight records
   *
   * @throws ConnectError, UnauthorizedError, ProtocolError
   */
  static async diagnose(
    options: RuntimeOptions,
    platform: Platform,
    inquiry: FlightInquiry | null = null,
  ): Promise<readonly LinkStatus[]> {
    const runtime = await Runtime.#open(options, () => {}, platform);
    try {
      runtime.#inquiry = inquiry;
      inquiry?.ask((message) => runtime.#client.send(message));
      await Promise.all([runtime.#peers.warmed(), inquiry?.ended]);
      return runtime.status().links;
    } finally {
      await runtime.leave();
    }
  }

  /** Listens, authenticates, and begins to dial whom it is introduced to. */
  static async #open(
    options: RuntimeOptions,
    emit: (event: RuntimeEvent) => void,
    platform: Platform,
  ): Promise<Runtime> {
    const { run, token, security, startWorldSize, name, site, transports, stripes, coordinators, probeMs } = options;
    const memory = await platform.memory();
    // Peers may dial as soon as the coordinator has introduced us, which may be before we know our own name.
    let toRuntime: (runtime: Runtime) => void = () => {};
    const ready = new Promise<Runtime>((resolve) => {
      toRuntime = resolve;
    });
    const early = { connections: new Set<Connection>(), messages: [] as CoordinatorMessage[] };
    const onConnection = (connection: Connection) => {
      connection.pause();
      early.connections.add(connection);
      void ready.then((runtime) => {
        early.connections.delete(connection);
        const accepted = runtime.#peers.accept(connection);
        connection.resume();
        return accepted;
      });
    };
    let signalling: Signalling | null = null;
    let runtime: Runtime | null = null;
    const refusals = new Refusals(platform.clock, (reason) => emit({ type: 'refused', reason }));
    const listeners = await platform.listen(transports, coordinators[0]!, {
      security,
      acceptor: dataAcceptor(security, (identity) => (runtime === null ? null : runtime.#peers.pskKeyOf(identity))),
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
        // No connection is lost before the turn in which it was made has ended, and then there is a runtime.
        {
          onMessage: (message) => {
            if (runtime === null) early.messages.push(message);
            else runtime.#onMessage(message);
          },
          onLost: (reason) => runtime!.#onCoordinatorLost(reason),
          onBack: () => runtime!.#onCoordinatorBack(),
          onRefused: (error) => runtime!.#onRefused(error),
          report: () => runtime!.#report(),
        },
        options.timeoutMs,
      );
      const { readBuffers } = memory;
      signalling?.connect((message) => client.send(message), client.welcome.ice);
      const webrtc = signalling?.transport ?? null;
      const self = client.welcome.peerId;
      const paths = { platform, webrtc, run, self, hostKey, transports, security, stripes, readBuffers };
      const joined = new Runtime(client, listeners, signalling, { ...paths, probeMs }, memory, emit);
      runtime = joined;
      toRuntime(joined);
      for (const message of early.messages) joined.#onMessage(message);
      return joined;
    } catch (error) {
      for (const connection of early.connections) connection.destroy();
      await Promise.all([listeners.close(), signalling?.close()]);
      throw error;
    }
  }

  private constructor(
    client: CoordinatorClient,
    listeners: Listeners,
    signalling: Signalling | null,
    peersOptions: PeersOptions,
    memory: EngineMemory,
    emit: (event: RuntimeEvent) => void,
  ) {
    const { platform } = peersOptions;
    const { clock } = platform;
    this.#client = client;
    this.#listeners = listeners;
    this.#signalling = signalling;
    this.#emit = emit;
    this.#platform = platform;
    this.#memory = memory;
    this.#run = peersOptions.run;
    this.#lastHeard = clock.now();
    this.#lastTick = clock.now();
    this.peerId = client.welcome.peerId;
    this.#paths = new Paths(client.welcome.boundMs);
    this.#probing = new Probing((peerId) => this.#peers.get(peerId), memory.workspace.segmentBytes);
    const scratch = new ScratchPool((byteLength) => new ArrayBuffer(byteLength));
    this.#states = new States({
      clock,
      scratch,
      link: (peerId) => this.#peers.get(peerId),
      isResting: () => this.#boundaries.length > 0 || this.#view === null,
    });
    this.#collectives = new Collectives({
      self: this.peerId,
      workspace: memory.workspace,
      now: () => clock.now(),
      link: (peerId) => this.#peers.get(peerId) ?? DEAD_LINK,
      knows: (peerId) => this.#peers.get(peerId) !== undefined,
      control: (message) => client.send(message),
      takeScratch: (byteLength) => scratch.take(byteLength),
      giveScratch: (memory) => scratch.give(memory),
    });
    this.#peers = new Peers(
      peersOptions,
      (peerId) => this.#linkEvents(peerId),
      (peerId, path) => {
        this.#tally.onPath(peerId, path);
        this.#emit({ type: 'path', peerId, path });
      },
    );
    this.#timers.push(
      every(clock, client.welcome.heartbeatMs, () => {
        this.#beatAt ??= clock.now();
        client.send({ type: 'beat' });
        this.#ping();
      }),
      () => this.#stopTick(),
      every(clock, TELL_MS, () => {
        this.#tellWaits();
        this.#tellLinks();
        this.#tellFigures();
      }),
    );
    this.#stopTick = clock.schedule(TICK_MS, this.#onTick);
    for (const introduction of client.welcome.peers) this.#peers.add(introduction);
  }

  // --- joining -----------------------------------------------------------------------------------------------------

  async #enter(
    options: RuntimeOptions,
    startedAt: number,
    tag: string | null,
  ): Promise<{ admission: Admission; prefetched: Prefetched | null }> {
    if (this.#dead !== null) throw this.#dead('join'); // by what came along with the welcome
    const admitted = new Promise<Admission>((resolve, reject) => {
      this.#admitted = { resolve, reject };
    });
    const stopTimer = this.#platform.clock.schedule(options.timeoutMs, () => {
      const elapsed = Math.round(this.#platform.clock.now() - startedAt);
      const message = `No view formed within ${elapsed} ms: this peer asks for ${options.startWorldSize} peers to start with, and is connected to ${[...this.#peers.ids()].length} others. Start more peers, or wait for the members' next boundary.`;
      this.#admitted?.reject(new QuorumError(message, { phase: 'join', elapsed }));
    });
    try {
      await Promise.race([this.#warm(), admitted]);
      const fetching =
        tag === null ? null : this.#states.prefetch(tag, [...this.#peers.ids()], () => this.#admitted !== null);
      const prefetched = await Promise.race([fetching, admitted.then(() => null)]);
      this.#ready = true;
      this.#client.send({ type: 'ready' });
      const admission = await admitted;
      if (tag !== null) this.#states.follow(tag);
      return { admission, prefetched };
    } finally {
      stopTimer();
      this.#admitted = null;
    }
  }

  /** Waits until all peers known so far can be reached both ways, within reason. */
  async #warm(): Promise<void> {
    const { clock } = this.#platform;
    const peers = [...this.#peers.ids()].length;
    const deadline = clock.now() + warmMs(peers, this.#signalling === null ? WARM_MS : WARM_WEBRTC_MS);
    void this.#peers.warmed().then(() => this.#onLinkUp());
    // One that tells addresses where nobody answers must not keep the others out.
    while (!this.#peers.allUp && clock.now() < deadline) {
      await new Promise<void>((resolve) => {
        this.#onLinkUp = resolve;
        clock.schedule(TICK_MS, resolve);
      });
    }
  }

  #onLinkUp: () => void = () => {};

  #linkEvents(peerId: PeerId): LinkEvents {
    return {
      openSink: () =>
        new Inbound(peerId, this.#collectives.delivery, {
          now: () => this.#platform.clock.now(),
          onSign: () => this.#peers.get(peerId)?.countSign(0),
          onAsked: () => {
            const link = this.#peers.get(peerId);
            link?.countSign(0);
            link?.answer(!this.#signed.has(peerId));
          },
          onAnswered: () => {
            this.#peers.get(peerId)?.countSign(0);
            this.#linkRates.onAnswered(peerId, this.#platform.clock.now());
          },
          onProbe: (length, bytes, elapsed) => {
            const link = this.#peers.get(peerId);
            link?.countSign(length);
            link?.answerProbe(bytes, Math.min(MAX_MICROS, Math.round(1_000 * elapsed)));
          },
          onProbed: (bytes, elapsed) => this.#onProbed(peerId, bytes, elapsed),
          onAsk: (header) => this.#states.onAsk(peerId, header),
          openAnswer: (header) => this.#states.openAnswer(peerId, header),
          endAnswer: (header, answer) => this.#states.endAnswer(peerId, header, answer),
          abandonAnswer: (answer) => this.#states.abandonAnswer(answer),
        }),
      takeCarry: () => this.#memory.carries.take(),
      giveCarry: (carry) => this.#memory.carries.give(carry),
      onUp: () => {
        this.#onLinkUp();
        this.#collectives.onLinkUp(peerId);
      },
      onFlushed: () => this.#collectives.pump(),
      onLaneClosed: () => {
        this.#linkRates.onClosed(peerId);
        this.#states.onLinkLost(peerId);
        if (this.#view?.members.some((member) => member.peerId === peerId) === true) {
          this.#client.send({ type: 'link-closed', peerId });
        }
      },
    };
  }

  // --- what the coordinator says -----------------------------------------------------------------------------------

  #onMessage(message: CoordinatorMessage): void {
    this.#lastHeard = this.#platform.clock.now();
    switch (message.type) {
      case 'introduce':
        this.#peers.add(message.peer);
        break;
      case 'signal':
      case 'ice':
        this.#signalling?.onMessage(message);
        break;
      case 'dismiss':
        this.#states.onLinkLost(message.peerId);
        this.#peers.remove(message.peerId, 'the peer is gone');
        this.#tally.onPath(message.peerId, null);
        this.#emit({ type: 'path', peerId: message.peerId, path: null });
        this.#collectives.forget(message.peerId);
        break;
      case 'admitted':
        this.#onAdmitted(message);
        break;
      case 'boundary':
        this.#onBoundary(message);
        break;
      case 'loss':
        this.#onLoss(message);
        break;
      case 'decide':
        if (message.epoch === this.#lossEpoch) this.#collectives.onDecide(message.committed, message.kept);
        break;
      case 'commit':
        this.#collectives.onCommit(message);
        break;
      case 'fail':
        this.#collectives.onFail(message);
        break;
      case 'exclude': {
        const { type, ...exclusion } = message;
        this.#collectives.onExclude(exclusion);
        break;
      }
      case 'probe':
        this.#probing.ask(message.peerId, this.#platform.clock.now());
        break;
      case 'evicted':
        this.#onEvicted(message.reason);
        break;
      case 'flight-wanted': {
        const dump = encodeFlight(this.flight(`asked for by ${message.by}`, message.calls));
        this.#client.send({ type: 'flight', to: message.by, dump });
        break;
      }
      case 'noted':
        if (this.#unreadNotes < MAX_UNREAD_NOTES) this.#handOn(message);
        else this.#missedNotes = true;
        break;
      case 'flights-asked':
      case 'flight-of':
        this.#inquiry?.onMessage(message);
        break;
      case 'slow': {
        const { type, ...slow } = message;
        if (this.#view !== null) this.#emit({ type: 'slow-peer', slow, epoch: this.#view.epoch });
        break;
      }
      case 'beat':
        if (this.#beatAt !== null) this.#roundTripMs = this.#platform.clock.now() - this.#beatAt;
        this.#beatAt = null;
        break;
      case 'watch':
        this.#tally.watch();
        break;
      case 'challenge':
      case 'welcome':
      case 'resumed':
      case 'refuse':
        break; // the handshake is over: the client has dealt with them
      default:
        message satisfies never;
    }
  }

  #onAdmitted(message: Extract<CoordinatorMessage, { type: 'admitted' }>): void {
    if (!this.#accepts(message.view)) return;
    this.#boundary = message.index;
    this.#install(message.view);
    for (const verdict of message.failed) this.#collectives.onFail(verdict);
    for (const exclusion of message.excluded) this.#collectives.onExclude(exclusion);
    this.#admitted?.resolve({
      boundary: message.index,
      epoch: message.view.epoch,
      worldSize: message.view.members.length,
      joined: message.joined,
      left: [],
    });
  }

  /** Whether a new view can be one: with another, no program could be made. */
  #accepts(view: ViewOf): boolean {
    const ids = new Set(view.members.map((member) => member.peerId));
    if (!ids.has(this.peerId)) this.#distrust('it sent a view without this peer');
    else if (ids.size < view.members.length) this.#distrust('it sent a view with the same member twice');
    else if (view.generation <= (this.#view?.generation ?? 0)) this.#distrust('it sent a view that is not new');
    else return true;
    return false;
  }

  /** The coordinator broke the protocol: nothing that it says can be relied on. */
  #distrust(reason: string): void {
    const epoch = this.#view?.epoch;
    this.#die((op) => {
      const message = `${op} failed: the coordinator broke the protocol (${reason}). Use the same release of skein everywhere, and join again.`;
      return new ProtocolError(message, { op, epoch });
    });
    this.#client.close();
  }

  #install(view: WireView): void {
    // A member that comes late to a boundary may have heard of a later loss, which did not concern that boundary's view.
    const epoch = Math.max(view.epoch, this.#view?.epoch ?? 0);
    this.#view = { ...view, epoch };
    // A coordinator that is told of it asks anew who can't reach whom.
    this.#history.add({ ...view, members: [...view.members], cuts: [] });
    this.#collectives.onView(view);
    this.#emit({ type: 'view', view: { epoch, members: view.members } });
  }

  #onBoundary(message: Extract<CoordinatorMessage, { type: 'boundary' }>): void {
    if (message.index <= this.#boundary) return; // passed already
    if (message.view !== null && !this.#accepts(message.view)) return;
    const at = this.#boundaries.findIndex((waiter) => waiter.index === message.index);
    this.#boundary = message.index;
    if (message.view !== null) this.#install(message.view);
    for (const verdict of message.failed) this.#collectives.onFail(verdict);
    for (const exclusion of message.excluded) this.#collectives.onExclude(exclusion);
    this.#peers.adopt();
    if (at < 0) return;
    const [waiter] = this.#boundaries.splice(at, 1);
    waiter!.stopTimer();
    const left = this.#left;
    this.#left = [];
    const view = this.#view!; // only members pass boundaries
    waiter!.resolve({
      boundary: message.index,
      epoch: view.epoch,
      worldSize: view.members.length,
      joined: message.joined,
      left,
    });
  }

  #onLoss(message: Extract<CoordinatorMessage, { type: 'loss' }>): void {
    const lost = message.lost.map((one) => one.peerId);
    if (lost.includes(this.peerId)) {
      this.#distrust('it told this peer of its own loss');
      return;
    }
    this.#lossEpoch = message.epoch;
    const view = this.#view;
    if (view !== null) {
      const members = view.members.filter((member) => !lost.includes(member.peerId));
      this.#view = { ...view, epoch: message.epoch, members };
    }
    for (const { peerId, reason } of message.lost) {
      this.#states.onLinkLost(peerId);
      this.#peers.remove(peerId, reason);
      this.#tally.onPath(peerId, null);
    }
    const { epoch, broken, cuts, resumed } = message;
    this.#history.onLoss(epoch, lost, concernedBy(lost, broken, resumed));
    // Once: what is dropped again and again, because the link closed that was dropped, never comes up.
    if (broken?.includes(this.peerId) === true && hasCut(cuts, broken) && !hasCut(this.#cuts, broken))
      this.#peers.get(otherOf(broken, this.peerId))?.dropOutbound(new Error('the way to it is cut'));
    this.#cuts = cuts;
    const { held, returned, finished } = this.#collectives.onLoss(epoch, lost, broken, cuts, resumed);
    this.#client.send({
      type: 'progress',
      epoch: message.epoch,
      held: [...held],
      returned: [...returned],
      finished: [...finished],
    });
    this.#left.push(...lost);
    if (this.#view === null) return;
    for (const { peerId, reason } of message.lost)
      this.#emit({ type: 'peer-lost', peerId, reason, epoch: message.epoch });
    this.#emit({ type: 'view', view: { epoch: message.epoch, members: this.#view.members } });
  }

  #onEvicted(reason: string): void {
    const epoch = this.#view?.epoch;
    this.#die((op) => {
      const message = `${op} failed: the run went on without this peer (${reason}). Join again as a newcomer.`;
      return new EvictedError(message, { peer: this.peerId, op, epoch });
    });
    this.#emit({ type: 'evicted', reason });
  }

  /** Nothing is lost yet: collectives go on as far as they can without a decision, and boundaries wait. */
  #onCoordinatorLost(reason: string): void {
    this.#lastHeard = this.#platform.clock.now();
    if (this.#leaving !== null) this.#leaving();
    else if (this.#dead === null) this.#emit({ type: 'coordinator-lost', reason });
  }

  #onCoordinatorBack(): void {
    this.#lastHeard = this.#platform.clock.now();
    this.#beatAt = null;
    this.#emit({ type: 'coordinator-back' });
    for (const peerId of this.#paths.cuts) this.#client.send({ type: 'path', peerId, open: false });
    this.#linkRates.tellAgain();
    // The answers may have been lost.
    for (const { index, minWorldSize } of this.#boundaries) this.#ask(index, minWorldSize);
  }

  #onRefused(error: SkeinError): void {
    const epoch = this.#view?.epoch;
    this.#die((op) => {
      const message = `${op} failed: the coordinator refused this peer when it came back (${error.message})`;
      return new ConnectError(message, { op, epoch, phase: 'commit', cause: error });
    });
  }

  #report(): Omit<RunReport, 'term' | 'epoch'> {
    const waiting = this.#ready ? 'ready' : 'warming';
    return {
      peerId: this.peerId,
      state: this.#view === null ? waiting : 'member',
      boundary: this.#boundary,
      views: [...this.#history.views],
      peers: this.#peers.introductions(),
      failed: [...this.#collectives.failures],
      excluded: [...this.#collectives.exclusions],
    };
  }

  /** Ends everything that is open; what is called later fails at once, for the same reason. */
  #die(makeError: (op: string) => SkeinError): void {
    this.#dead ??= makeError;
    this.#admitted?.reject(makeError('join'));
    for (const waiter of this.#boundaries.splice(0)) {
      waiter.stopTimer();
      waiter.reject(makeError('admit'));
    }
    this.#collectives.failAll((operation) => makeError(operation.title));
    this.#states.close();
    this.#peers.close();
  }

  readonly #onTick = (): void => {
    const isIdle = this.#collectives.openCount === 0 && !this.#probing.isWanted && this.#peers.allUp;
    this.#ticksSlowly = isIdle;
    this.#stopTick = this.#platform.clock.schedule(isIdle ? IDLE_TICK_MS : TICK_MS, this.#onTick);
    this.#tick();
  };

  /** There is something to look at again. */
  #hurry(): void {
    if (!this.#ticksSlowly) return;
    this.#ticksSlowly = false;
    this.#stopTick();
    this.#stopTick = this.#platform.clock.schedule(TICK_MS, this.#onTick);
  }

  #tick(): void {
    const now = this.#platform.clock.now();
    const elapsed = now - this.#lastTick;
    const asleep = elapsed > ASLEEP_MS;
    this.#lastTick = now;
    if (asleep) this.#lastHeard = now;
    const silence = now - this.#lastHeard;
    if (this.#client.connected && silence > this.#client.welcome.boundMs) {
      this.#client.renew(`it has been silent for ${Math.round(silence)} ms`);
    }
    this.#collectives.tick();
    this.#watchPaths(now, asleep);
    if (!asleep) this.#watchWaits(elapsed);
    this.#measure(now);
  }

  /** Watches what leaves by the links to other hosts, and probes those that it is asked to. */
  #measure(now: number): void {
    const sights: FlowSight[] = [];
    for (const peerId of this.#peers.ids()) {
      const link = this.#peers.get(peerId)!; // listed just now
      if (!this.#peers.sharesHost(peerId)) sights.push({ peerId, sent: link.sent, queued: link.queuedBytes });
    }
    this.#linkRates.look(now, sights);
    this.#peers.widen();
    const probed = this.#probing.tick(now, this.#collectives.openCount === 0);
    if (probed !== null) this.#linkRates.onAsked(probed, now);
  }

  #onProbed(peerId: PeerId, bytes: number, elapsed: number): void {
    this.#peers.get(peerId)?.countSign(0);
    const rate = this.#probing.onAnswer(peerId, bytes, elapsed, this.#platform.clock.now());
    if (rate === null) return;
    this.#linkRates.onProbed(peerId, rate);
    this.#tellLinks();
  }

  #tellLinks(): void {
    if (!this.#client.connected) return;
    const links = this.#linkRates.take(this.#platform.clock.now());
    if (links.length > 0) this.#client.send({ type: 'links', links });
  }

  /** Only to a coordinator that watches, and only what is news. */
  #tellFigures(): void {
    if (!this.#client.connected || !this.#tally.isWatched) return;
    const links = [...this.#peers.ids()].map((peerId) => {
      const { sent, received, queuedBytes } = this.#peers.get(peerId)!; // listed just now
      return { peerId, sent, received, queuedBytes };
    });
    const [open, boundary, roundTripMs] = [this.#collectives.openCount, this.#boundary, this.#roundTripMs];
    const figures = this.#tally.take(this.#platform.clock.now(), links, { open, boundary, roundTripMs });
    if (figures !== null) this.#client.send({ type: 'figures', ...figures });
  }

  #watchWaits(elapsed: number): void {
    const sights = [...this.#collectives.waitsOn()].map(([peerId, wait]) => {
      const received = this.#peers.get(peerId)?.receivedNews ?? 0;
      return [peerId, { ...wait, received }] as const;
    });
    this.#waits.look(new Map(sights), elapsed);
  }

  #tellWaits(): void {
    let room = MAX_TOLD_WAITING;
    const waits = this.#waits.take().map((wait) => {
      const calls = wait.calls.slice(0, room);
      room -= calls.length;
      return { ...wait, calls };
    });
    if (waits.length > 0) this.#client.send({ type: 'waits', waits });
  }

  /** Tells the coordinator which members can't be reached, however alive they are. */
  #watchPaths(now: number, asleep: boolean): void {
    const sights: LinkSight[] = [];
    for (const { peerId } of this.#view?.members ?? []) {
      const link = this.#peers.get(peerId);
      if (link !== undefined) sights.push({ peerId, up: link.up && link.receives, heard: link.heard });
    }
    const { changed, silent } = this.#paths.look(now, sights, this.#collectives.awaited(), asleep);
    for (const { peerId, open } of changed) this.#client.send({ type: 'path', peerId, open });
    for (const peerId of silent) this.#peers.renew(peerId, 'nothing arrived from it for too long');
  }

  /** Peers in a call with this one must hear of it every heartbeat, and it of them. */
  #ping(): void {
    const awaited = this.#collectives.awaited();
    const asked: Set<PeerId> = new Set();
    for (const peerId of awaited) {
      const link = this.#peers.get(peerId);
      if (link?.up !== true) continue;
      this.#linkRates.onAsked(peerId, this.#platform.clock.now());
      link.ask();
      asked.add(peerId);
    }
    // Once more: from now on they get signs when they ask for them, which may be a whole heartbeat later.
    for (const peerId of this.#signed) if (!asked.has(peerId)) this.#peers.get(peerId)?.sign();
    this.#signed = asked;
  }

  // --- what the training thread asks for ---------------------------------------------------------------------------

  call(number: number, spec: CallSpec, listener: CallListener): void {
    if (this.#dead !== null) {
      listener.onSettled({ ok: false, error: this.#dead(`${spec.kind} ${JSON.stringify(spec.tag)}`) });
      return;
    }
    const operation = this.#collectives.call(spec, {
      onProgress: (share) => listener.onProgress(share),
      onPart: (start, end, retry) => listener.onPart(start, end, retry),
      onSettled: (outcome) => {
        this.#calls.delete(number);
        if (!outcome.ok) this.dump(`a call failed: ${outcome.error.message}`);
        this.#tally.onSettled(spec.kind, outcome.ok ? outcome.report : null);
        listener.onSettled(outcome);
      },
    });
    if (operation.state === 'ended') return;
    this.#calls.set(number, operation);
    this.#hurry();
  }

  /** Elements of the input of a call that streams are there, each once. A call that has ended needs none. */
  ready(number: number, start: number, end: number): void {
    const operation = this.#calls.get(number);
    if (operation !== undefined) this.#collectives.ready(operation, start, end);
  }

  /** The caller has aborted a call. */
  cancel(number: number): void {
    const operation = this.#calls.get(number);
    if (operation === undefined) return;
    this.#collectives.abandon(
      operation,
      new ClosedError(`${operation.title} was cancelled by its caller.`, { op: operation.title }),
    );
  }

  /** Forgets what codecs dropped under a tag, or under all (null). */
  dropErrorFeedback(tag: string | null): void {
    this.#collectives.dropResiduals(tag);
  }

  /** A boundary: lets newcomers in. */
  admit(minWorldSize: number, timeoutMs: number): Promise<Admission> {
    if (this.#dead !== null) return Promise.reject(this.#dead('admit'));
    const waiting = this.#boundaries.at(-1);
    const index = Math.max(this.#boundary, waiting?.index ?? 0) + 1;
    return new Promise((resolve, reject) => {
      const stopTimer = this.#platform.clock.schedule(timeoutMs, () => {
        const at = this.#boundaries.findIndex((waiter) => waiter.index === index);
        if (at >= 0) this.#boundaries.splice(at, 1);
        const present = this.#view?.members.length ?? 0;
        const context = { phase: 'boundary', epoch: this.#view?.epoch, elapsed: timeoutMs };
        const quorum = `A boundary waited ${timeoutMs} ms for ${minWorldSize} members; there are ${present}. Start more peers, or lower \`minWorldSize\`.`;
        const silence = `The coordinator did not answer at a boundary within ${timeoutMs} ms.`;
        reject(present < minWorldSize ? new QuorumError(quorum, context) : new TimeoutError(silence, context));
      });
      this.#boundaries.push({ index, minWorldSize, resolve, reject, stopTimer });
      this.#ask(index, minWorldSize);
    });
  }

  /** About a shared state. */
  state(ask: StateAsk): Promise<StateAnswers[StateAsk['type']]> {
    return this.#dead === null ? this.#states.ask(ask) : Promise.reject(this.#dead('syncState'));
  }

  #ask(index: number, minWorldSize: number): void {
    const oldest = this.#collectives.oldestGeneration;
    this.#client.send({ type: 'boundary', index, passed: this.#boundary, minWorldSize, oldest });
  }

  status(): RuntimeStatus {
    const now = this.#platform.clock.now();
    const links = [...this.#peers.ids()].map((peerId) => {
      const link = this.#peers.get(peerId)!; // listed just now
      const failures = this.#peers.failures(peerId);
      const { path, up, stripes, queuedBytes } = link;
      const { bytesPerSecond, delayMs } = this.#linkRates.of(peerId) ?? { bytesPerSecond: null, delayMs: null };
      return { peerId, path, failures, up, stripes, queuedBytes, bytesPerSecond, delayMs };
    });
    const collectives = this.#collectives.open().map((operation) => ({
      op: operation.title,
      state: operation.state,
      waitsFor: operation.waitsFor(),
      elapsed: Math.round(now - operation.startedAt),
    }));
    const costs = this.#view?.costs ?? UNMEASURED;
    return { ring: this.#collectives.ring, links, states: this.#states.status(), costs, collectives };
  }

  #openFlightFiles(path: string | undefined): void {
    if (path === undefined) return;
    this.#flightFiles = this.#platform.openFlightFiles?.(path, (reason) => this.flight(reason)) ?? null;
  }

  /** Sends a message about notes; null: the training thread has read one. */
  notes(message: NotesMessage | null): void {
    if (message !== null) {
      this.#client.send({ type: 'notes', ...message });
      return;
    }
    this.#unreadNotes -= 1;
    if (!this.#missedNotes || this.#unreadNotes > 0) return;
    this.#missedNotes = false;
    this.#handOn(null);
  }

  #handOn(message: NotedMessage | null): void {
    this.#unreadNotes += 1;
    this.#emit({ type: 'notes', message });
  }

  /** Writes the flight record, if there is a folder for it. */
  dump(reason: string): void {
    this.#flightFiles?.write(reason);
  }

  /** @param calls so many that have ended are told of, and all that are open */
  flight(reason: string, calls = MAX_FLIGHT_CALLS): FlightDump {
    const now = this.#platform.clock.now();
    const takenAt = Date.now();
    const links = [...this.#peers.ids()].map((peerId) => {
      const { path, up, receives, queuedBytes } = this.#peers.get(peerId)!; // listed just now
      const { silentMs, downMs, cut } = this.#paths.of(peerId, now) ?? { silentMs: 0, downMs: 0, cut: false };
      return { peerId, path, up, receives, queuedBytes, silentMs, downMs, cut };
    });
    return {
      version: 1,
      run: this.#run,
      peerId: this.peerId,
      reason: reason.slice(0, MAX_TEXT_LENGTH),
      takenAt,
      epoch: this.#view?.epoch ?? 0,
      generation: this.#view?.generation ?? 0,
      boundary: this.#boundary,
      members: this.#view?.members.map(({ peerId }) => peerId) ?? [],
      coordinator: { connected: this.#client.connected, silentMs: Math.max(0, now - this.#lastHeard) },
      boundMs: this.#client.welcome.boundMs,
      links,
      next: [...this.#collectives.next],
      calls: this.#collectives.flight(calls, takenAt - now),
    };
  }

  /** Tells the coordinator, lets what is queued leave, and closes. */
  async leave(): Promise<void> {
    if (this.#dead === null && this.#client.connected) {
      const gone = new Promise<void>((resolve) => {
        const stopTimer = this.#platform.clock.schedule(LEAVE_MS, resolve);
        this.#leaving = () => {
          stopTimer();
          resolve();
        };
      });
      this.#client.send({ type: 'leave' });
      await gone;
    }
    await this.#shutDown(true);
  }

  /** Closes at once. */
  close(): Promise<void> {
    return this.#shutDown(false);
  }

  async #shutDown(gently: boolean): Promise<void> {
    this.#leaving ??= () => {};
    for (const stop of this.#timers) stop();
    this.#dead ??= (op) => new ClosedError(`${op} failed: this peer has left the group.`, { op });
    const dead = this.#dead;
    for (const waiter of this.#boundaries.splice(0)) {
      waiter.stopTimer();
      waiter.reject(dead('admit'));
    }
    const closed = gently ? this.#peers.end() : Promise.resolve(this.#peers.close());
    this.#collectives.failAll((operation) => dead(operation.title));
    this.#states.close();
    // Whoever left in good order has waited for the coordinator's farewell.
    this.#client.close();
    await Promise.all([this.#listeners.close(), this.#signalling?.close(), this.#flightFiles?.close()]);
    await closed;
  }
}

/** As the others are told of it: who told it, they know. Nobody reaches a peer by WebSocket. */
function toldAddress(address: Address): PeerDescription['addresses'] {
  if (address.kind === 'ws') return [];
  return [address.kind === 'webrtc' ? { kind: 'webrtc' } : address];
}

function otherOf([one, other]: Pair, self: PeerId): PeerId {
  return one === self ? other : one;
}
