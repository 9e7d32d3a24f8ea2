/**
 * One peer's engine: feeds socket events and the clock to the machines, and carries out what they want. It makes no
 * decision of its own; whether it lives in a worker thread or in the training thread makes no difference to it.
 */
import type { CallListener, CallSpec, PeerId } from '../collectives/call.ts';
import { Collectives } from '../collectives/collectives.ts';
import { Inbound } from '../collectives/inbound.ts';
import type { Operation } from '../collectives/operation.ts';
import type { LinkPort } from '../collectives/ports.ts';
import { UNMEASURED } from '../costs.ts';
import { ClosedError, ConnectError, EvictedError, ProtocolError, QuorumError, type SkeinError } from '../errors.ts';
import { OwnView } from '../membership/own-view.ts';
import type { Prefetched, StateAnswers, StateAsk, StateSpec } from '../state/asks.ts';
import { every } from '../transport/clock.ts';
import type { LinkEvents } from '../transport/link.ts';
import type { CoordinatorMessage } from '../wire/coordinator-messages.ts';
import type { FlightDump } from '../wire/flight.ts';
import { MAX_FLIGHT_CALLS, MAX_TEXT_LENGTH } from '../wire/limits.ts';
import type { WireView } from '../wire/parts.ts';
import type { NotesMessage, RunReport } from '../wire/peer-messages.ts';
import { BoundaryQueue } from './boundary-queue.ts';
import type { CoordinatorClient } from './coordinator-client.ts';
import { type Entered, enter, type Resident } from './entrance.ts';
import { encodeFlight } from './flight-dump.ts';
import type { FlightFiles } from './flight-files.ts';
import type { FlightInquiry } from './flight-inquiry.ts';
import type { Listeners } from './host.ts';
import { type EngineMemory, ScratchPool } from './memory.ts';
import { NotesInbox } from './notes-inbox.ts';
import type { PathKind } from './path-race.ts';
import { Peers } from './peers.ts';
import type { Platform } from './platform.ts';
import type { Admission, LinkStatus, RuntimeEvent, RuntimeOptions, RuntimeStatus } from './runtime-data.ts';
import type { Signalling } from './signalling.ts';
import { States } from './states.ts';
import { Telling } from './telling.ts';
import { Ticking } from './ticking.ts';
import { Warming } from './warming.ts';
import { WayWatch } from './way-watch.ts';

/** Between reports of whom this peer waits for, and of what its ways are worth (ms). */
const TELL_MS = 1_000;

/** A tick later than this means that this process was stopped: the coordinator's silence is no evidence then (ms). */
const ASLEEP_MS = 1_000;

/** How long a leaving peer waits for the coordinator to let it go (ms). */
const LEAVE_MS = 2_000;

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
  readonly #states: States;
  readonly #view: OwnView;
  readonly #boundaries: BoundaryQueue;
  readonly #ways: WayWatch;
  readonly #telling: Telling;
  readonly #notes: NotesInbox;
  readonly #warming: Warming = new Warming();
  readonly #ticking: Ticking;
  readonly #emit: (event: RuntimeEvent) => void;
  readonly #platform: Platform;
  readonly #memory: EngineMemory;
  readonly #run: string;
  #flightFiles: FlightFiles | null = null;
  /** Asks for the others' flight records. */
  #inquiry: FlightInquiry | null = null;
  /** Stop what runs again and again. */
  readonly #timers: readonly (() => void)[];
  readonly #calls: Map<number, Operation> = new Map();
  /** Has asked to be admitted. */
  #ready = false;
  /** The last one that was passed. */
  #boundary = 0;
  #lastHeard: number;
  #lastTick: number;
  /** Why nothing works any more; null while it does. */
  #dead: ((op: string) => SkeinError) | null = null;
  #admitted: { resolve: (admission: Admission) => void; reject: (error: SkeinError) => void } | null = null;
  #leaving: (() => void) | null = null;

  /**
   * Joins a run: listens, authenticates, warms the links, and waits to be admitted.
   *
   * @param state is fetched from the members before that
   * @param onOpen gets the runtime as soon as there is one: closed, it does not join any more
   *
   * @throws ConnectError, UnauthorizedError, ProtocolError, QuorumError
   */
  static async join(
    options: RuntimeOptions,
    emit: (event: RuntimeEvent) => void,
    platform: Platform,
    state: StateSpec | null = null,
    onOpen: (runtime: Runtime) => void = () => {},
  ): Promise<{ runtime: Runtime; admission: Admission; prefetched: Prefetched | null }> {
    const startedAt = platform.clock.now();
    const runtime = await Runtime.#open(options, emit, platform);
    onOpen(runtime);
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
    let runtime: Runtime | null = null;
    const onRefused = (reason: string) => emit({ type: 'refused', reason });
    await enter(options, platform, onRefused, (entered) => {
      const made = new Runtime(entered, emit);
      runtime = made;
      return made.#resident();
    });
    return runtime!; // made on the way in
  }

  private constructor(
    { client, listeners, signalling, peersOptions, memory }: Entered,
    emit: (event: RuntimeEvent) => void,
  ) {
    const { platform } = peersOptions;
    const { clock } = platform;
    const { peerId, boundMs, heartbeatMs } = client.welcome;
    this.peerId = peerId;
    this.#client = client;
    this.#listeners = listeners;
    this.#signalling = signalling;
    this.#emit = emit;
    this.#platform = platform;
    this.#memory = memory;
    this.#run = peersOptions.run;
    this.#lastHeard = clock.now();
    this.#lastTick = clock.now();
    this.#view = new OwnView(peerId);
    this.#boundaries = new BoundaryQueue({
      clock,
      ask: (index, minWorldSize) => this.#ask(index, minWorldSize),
      view: () => this.#view.current,
    });
    const scratch = new ScratchPool((byteLength) => new ArrayBuffer(byteLength));
    this.#states = new States({
      clock,
      scratch,
      link: (peerId) => this.#peers.get(peerId),
      sharesHost: (peerId) => this.#peers.sharesHost(peerId),
      isResting: () => !this.#boundaries.isEmpty || this.#view.current === null,
    });
    this.#collectives = new Collectives({
      self: peerId,
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
      (peerId, path) => this.#onPath(peerId, path),
    );
    const around = { clock, peers: this.#peers, calls: this.#collectives, coordinator: client };
    this.#ways = new WayWatch({ ...around, boundMs, segmentBytes: memory.workspace.segmentBytes });
    this.#telling = new Telling(around);
    this.#notes = new NotesInbox((message) => this.#emit({ type: 'notes', message }));
    this.#timers = [
      every(clock, heartbeatMs, () => {
        this.#telling.beat();
        this.#ways.ping();
      }),
      every(clock, TELL_MS, () => {
        this.#telling.tellWaits();
        this.#ways.tell();
        this.#telling.tellFigures(this.#boundary);
      }),
    ];
    this.#ticking = new Ticking(
      clock,
      () => this.#collectives.openCount === 0 && !this.#ways.isProbing && this.#peers.allUp,
      () => this.#tick(),
    );
    for (const introduction of client.welcome.peers) this.#peers.add(introduction);
  }

  /** What others bring. */
  #resident(): Resident {
    return {
      accept: (connection) => this.#peers.accept(connection),
      pskKeyOf: (identity) => this.#peers.pskKeyOf(identity),
      onMessage: (message) => this.#onMessage(message),
      onLost: (reason) => this.#onCoordinatorLost(reason),
      onBack: () => this.#onCoordinatorBack(),
      onRefused: (error) => this.#onRefused(error),
      report: () => this.#report(),
    };
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
      const isWarm = this.#warming.wait(this.#peers, this.#platform.clock, this.#signalling !== null);
      await Promise.race([isWarm, admitted]);
      const fetching =
        tag === null ? null : this.#states.prefetch(tag, [...this.#peers.ids()], () => this.#admitted !== null);
      const prefetched = await Promise.race([fetching, admitted.then(() => null)]);
      // Not before that: what is not called for long has to be compiled again.
      if (this.#client.welcome.isUnderWay)
        await Promise.race([this.#platform.rehearse?.(this.#memory, this.#platform.clock), admitted]);
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

  #linkEvents(peerId: PeerId): LinkEvents {
    return {
      openSink: () =>
        new Inbound(peerId, this.#collectives.delivery, {
          now: () => this.#platform.clock.now(),
          onSign: () => this.#ways.onSign(peerId),
          onAsked: () => this.#ways.onAsked(peerId),
          onAnswered: () => this.#ways.onAnswered(peerId),
          onProbe: (length, bytes, elapsed) => this.#ways.onProbe(peerId, length, bytes, elapsed),
          onProbed: (bytes, elapsed) => this.#ways.onProbed(peerId, bytes, elapsed),
          onAsk: (header) => this.#states.onAsk(peerId, header),
          openAnswer: (header) => this.#states.openAnswer(peerId, header),
          endAnswer: (header, answer) => this.#states.endAnswer(peerId, header, answer),
          abandonAnswer: (answer) => this.#states.abandonAnswer(answer),
        }),
      takeCarry: () => this.#memory.carries.take(),
      giveCarry: (carry) => this.#memory.carries.give(carry),
      onUp: () => {
        this.#warming.onLinkUp();
        this.#collectives.onLinkUp(peerId);
      },
      onFlushed: () => this.#collectives.pump(),
      onLaneClosed: () => {
        this.#ways.onClosed(peerId);
        this.#states.onLinkLost(peerId);
        if (this.#view.includes(peerId)) this.#client.send({ type: 'link-closed', peerId });
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
        this.#onPath(message.peerId, null);
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
        if (message.epoch === this.#view.lossEpoch) this.#collectives.onDecide(message.committed, message.kept);
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
        this.#ways.probe(message.peerId);
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
        this.#notes.onMessage(message);
        break;
      case 'flights-asked':
      case 'flight-of':
        this.#inquiry?.onMessage(message);
        break;
      case 'slow': {
        const { type, ...slow } = message;
        const { epoch } = this.#view;
        if (epoch !== undefined) this.#emit({ type: 'slow-peer', slow, epoch });
        break;
      }
      case 'beat':
        this.#telling.onBeat();
        break;
      case 'watch':
        this.#telling.watch();
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

  /** Whether a new view can be one. */
  #accepts(view: WireView): boolean {
    const refusal = this.#view.refusal(view);
    if (refusal !== null) this.#distrust(refusal);
    return refusal === null;
  }

  /** The coordinator broke the protocol: nothing that it says can be relied on. */
  #distrust(reason: string): void {
    const { epoch } = this.#view;
    this.#die((op) => {
      const message = `${op} failed: the coordinator broke the protocol (${reason}). Use the same release of skein everywhere, and join again.`;
      return new ProtocolError(message, { op, epoch });
    });
    this.#client.close();
  }

  #install(view: WireView): void {
    const epoch = this.#view.install(view);
    this.#collectives.onView(view);
    this.#emit({ type: 'view', view: { epoch, members: view.members } });
  }

  #onBoundary(message: Extract<CoordinatorMessage, { type: 'boundary' }>): void {
    const { index, view, joined, failed, excluded } = message;
    if (index <= this.#boundary) return; // passed already
    if (view !== null && !this.#accepts(view)) return;
    this.#boundary = index;
    if (view !== null) this.#install(view);
    for (const verdict of failed) this.#collectives.onFail(verdict);
    for (const exclusion of excluded) this.#collectives.onExclude(exclusion);
    this.#peers.adopt();
    this.#boundaries.answer(index, () => {
      const { epoch, members } = this.#view.current!; // only members pass boundaries
      return { boundary: index, epoch, worldSize: members.length, joined, left: this.#view.takeLeft() };
    });
  }

  #onLoss(message: Extract<CoordinatorMessage, { type: 'loss' }>): void {
    const { epoch, broken, cuts, resumed } = message;
    const lost = message.lost.map((one) => one.peerId);
    if (lost.includes(this.peerId)) {
      this.#distrust('it told this peer of its own loss');
      return;
    }
    const cutOff = this.#view.onLoss(message);
    for (const { peerId, reason } of message.lost) {
      this.#states.onLinkLost(peerId);
      this.#peers.remove(peerId, reason);
      this.#telling.onPath(peerId, null);
    }
    // Once: what is dropped again and again, because the link closed that was dropped, never comes up.
    if (cutOff !== null) this.#peers.get(cutOff)?.dropOutbound(new Error('the way to it is cut'));
    const { held, returned, finished } = this.#collectives.onLoss(epoch, lost, broken, cuts, resumed);
    this.#client.send({
      type: 'progress',
      epoch,
      held: [...held],
      returned: [...returned],
      finished: [...finished],
    });
    const view = this.#view.current;
    if (view === null) return;
    for (const { peerId, reason } of message.lost) this.#emit({ type: 'peer-lost', peerId, reason, epoch });
    this.#emit({ type: 'view', view: { epoch, members: view.members } });
  }

  #onPath(peerId: PeerId, path: PathKind | null): void {
    this.#telling.onPath(peerId, path);
    this.#emit({ type: 'path', peerId, path });
  }

  #onEvicted(reason: string): void {
    const { epoch } = this.#view;
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
    this.#telling.onCoordinatorBack();
    this.#emit({ type: 'coordinator-back' });
    this.#ways.tellAgain();
    this.#boundaries.askAgain();
  }

  #onRefused(error: SkeinError): void {
    const { epoch } = this.#view;
    this.#die((op) => {
      const message = `${op} failed: the coordinator refused this peer when it came back (${error.message})`;
      return new ConnectError(message, { op, epoch, phase: 'commit', cause: error });
    });
  }

  #report(): Omit<RunReport, 'term' | 'epoch'> {
    const waiting = this.#ready ? 'ready' : 'warming';
    return {
      peerId: this.peerId,
      state: this.#view.current === null ? waiting : 'member',
      boundary: this.#boundary,
      views: [...this.#view.history],
      peers: this.#peers.introductions(),
      failed: [...this.#collectives.failures],
      excluded: [...this.#collectives.exclusions],
    };
  }

  /** Ends everything that is open; what is called later fails at once, for the same reason. */
  #die(makeError: (op: string) => SkeinError): void {
    this.#dead ??= makeError;
    this.#admitted?.reject(makeError('join'));
    this.#boundaries.fail(() => makeError('admit'));
    this.#collectives.failAll((operation) => makeError(operation.title));
    this.#states.close();
    this.#peers.close();
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
    this.#ways.lookForCuts(this.#view.current?.members ?? [], now, asleep);
    if (!asleep) this.#telling.lookAtWaits(elapsed);
    this.#ways.measure(now);
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
        this.#telling.onSettled(spec.kind, outcome.ok ? outcome.report : null);
        listener.onSettled(outcome);
      },
    });
    if (operation.state === 'ended') return;
    this.#calls.set(number, operation);
    this.#ticking.hurry();
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
    return this.#boundaries.wait(this.#boundary, minWorldSize, timeoutMs);
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
      return { peerId, path, failures, up, stripes, queuedBytes, ...this.#ways.worthOf(peerId) };
    });
    const collectives = this.#collectives.open().map((operation) => ({
      op: operation.title,
      state: operation.state,
      waitsFor: operation.waitsFor(),
      elapsed: Math.round(now - operation.startedAt),
    }));
    const costs = this.#view.current?.costs ?? UNMEASURED;
    return { ring: this.#collectives.ring, links, states: this.#states.status(), costs, collectives };
  }

  #openFlightFiles(path: string | undefined): void {
    if (path === undefined) return;
    this.#flightFiles = this.#platform.openFlightFiles?.(path, (reason) => this.flight(reason)) ?? null;
  }

  /** Sends a message about notes; null: the training thread has read one. */
  notes(message: NotesMessage | null): void {
    if (message === null) this.#notes.onRead();
    else this.#client.send({ type: 'notes', ...message });
  }

  /** Writes the flight record, if there is a folder for it. */
  dump(reason: string): void {
    this.#flightFiles?.write(reason);
  }

  /** @param calls so many that have ended are told of, and all that are open */
  flight(reason: string, calls = MAX_FLIGHT_CALLS): FlightDump {
    const now = this.#platform.clock.now();
    const takenAt = Date.now();
    const view = this.#view.current;
    const links = [...this.#peers.ids()].map((peerId) => {
      const { path, up, receives, queuedBytes } = this.#peers.get(peerId)!; // listed just now
      return { peerId, path, up, receives, queuedBytes, ...this.#ways.troubleOf(peerId, now) };
    });
    return {
      version: 1,
      run: this.#run,
      peerId: this.peerId,
      reason: reason.slice(0, MAX_TEXT_LENGTH),
      takenAt,
      epoch: view?.epoch ?? 0,
      generation: view?.generation ?? 0,
      boundary: this.#boundary,
      members: view?.members.map(({ peerId }) => peerId) ?? [],
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
    this.#ticking.stop();
    this.#dead ??= (op) => new ClosedError(`${op} failed: this peer has left the group.`, { op });
    const dead = this.#dead;
    this.#admitted?.reject(dead('join'));
    this.#boundaries.fail(() => dead('admit'));
    const closed = gently ? this.#peers.end() : Promise.resolve(this.#peers.close());
    this.#collectives.failAll((operation) => dead(operation.title));
    this.#states.close();
    // Whoever left in good order has waited for the coordinator's farewell.
    this.#client.close();
    await Promise.all([this.#listeners.close(), this.#signalling?.close(), this.#flightFiles?.close()]);
    await closed;
  }
}
