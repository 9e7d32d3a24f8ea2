/**
 * The public face: a `Group` is this peer's membership of a run. What is public, and what it means, is here; the work is done by its
 * parts: collectives (`group/shape.ts`, `group/calls.ts`), what is known of the others (`group/presence.ts`), shared state
 * (`group/keeping.ts`).
 */
import type { PeerId, Report } from './collectives/call.ts';
import type { Rank } from './collectives/program.ts';
import type { Engine, EngineMessage, EngineRequest, Reply } from './engine/protocol.ts';
import type { Admission, LinkStatus, RuntimeEvent, RuntimeStatus } from './engine/runtime-data.ts';
import { ArgumentError, ClosedError, fromPlainError } from './errors.ts';
import { Calls } from './group/calls.ts';
import { type Folders, Keeping } from './group/keeping.ts';
import { type GroupEvents, type GroupMember, type Listener, Presence } from './group/presence.ts';
import {
  allGatherShape,
  allReduceShape,
  allToAllShape,
  barrierShape,
  broadcastShape,
  gatherShape,
  overlap,
  reduceScatterShape,
  reduceShape,
  type Shape,
  scatterShape,
} from './group/shape.ts';
import type { Observer } from './observe.ts';
import {
  type AllReduceOptions,
  type AllReduceStreamOptions,
  type CallOptions,
  checkMinWorldSize,
  checkTimeout,
  type ReduceOptions,
  type ResolvedJoin,
  type RootedReduceOptions,
  type RootOptions,
  resolveSync,
  type SyncOptions,
  type TransferOptions,
} from './options.ts';
import type { Keeper, SnapshotOptions, SnapshotReport } from './snapshot/keeper.ts';
import type { StateAnswers, StateAsk } from './state/asks.ts';
import type { SharedState, StateMemory } from './state/memory.ts';
import type { SyncStrategy } from './state/strategy.ts';
import type { SyncReport } from './state/sync.ts';
import type { AllReduceStream } from './stream.ts';
import type { Tensor } from './tensor.ts';
import type { traceCall } from './trace.ts';
import type { NotedMessage } from './wire/coordinator-messages.ts';
import type { FlightDump } from './wire/flight.ts';
import type { NotesMessage } from './wire/peer-messages.ts';

/** What `group.status()` tells: plain data, for logs and pages. */
export interface GroupStatus extends RuntimeStatus {
  readonly peerId: PeerId;
  readonly epoch: number;
  readonly members: readonly GroupMember[];
  readonly links: readonly LinkStatus[];
}

/** One turn of `group.steps()`. */
export interface Step extends Admission {
  /** Counts from `from`; with a shared state it is the state's revision. */
  readonly index: number;
  /** How the sync of the shared state went; null where there was none. */
  readonly sync: SyncReport | null;
}

/** Options of `group.steps()`. */
export interface StepsOptions {
  /** The first index; not with `state`. @default 0 */
  readonly from?: number;
  /** The index at which the loop ends. @default none */
  readonly until?: number;
  /** Is in step on all members when a turn begins; its revision counts the turns. */
  readonly state?: SharedState;
  /** Turns from one sync to the next; where newcomers come in there is one in any case. @default 1 */
  readonly syncEvery?: number;
  /** How it is synced. */
  readonly sync?: SyncOptions;
}

/** What calls take where they are told nothing else. */
interface Defaults {
  readonly timeoutMs: number;
  readonly minWorldSize: number;
  readonly strategy: SyncStrategy;
}

/** @internal what `join()` is given to share */
export async function memoryOf(
  state: SharedState | undefined,
  engine: 'worker' | 'inline',
): Promise<StateMemory | null> {
  if (state === undefined) return null;
  // The other one is for the first sync, for which the members wait.
  const [{ StateMemory }] = await Promise.all([import('./state/memory.ts'), import('./state/sharing.ts')]);
  return new StateMemory(state, engine === 'worker');
}

/** This peer's membership of a run, made by `join()`: its collectives, its view, and its way out. */
export class Group {
  readonly peerId: PeerId;
  readonly #engine: Engine;
  readonly #defaults: Defaults;
  readonly #observer: Observer | null;
  readonly #presence: Presence;
  readonly #calls: Calls;
  readonly #keeping: Keeping;
  readonly #requests: Map<number, (reply: Reply) => void> = new Map();
  #nextRequest = 1;
  /** The boundary just passed, until the first collective after it. */
  #fresh: Admission | null;
  #closed = false;
  #onNotes: ((message: NotedMessage | null) => void) | null = null;

  /** @internal use `join()` */
  static join(
    createEngine: (onMessage: (message: EngineMessage) => void) => Engine,
    resolved: ResolvedJoin,
    signal: AbortSignal | undefined,
    memory: StateMemory | null = null,
    observer: Observer | null = null,
    folders: Folders | null = null,
    trace: typeof traceCall | null = null,
  ): Promise<Group> {
    return new Promise((resolve, reject) => {
      let group: Group | null = null;
      const early: RuntimeEvent[] = [];
      const finish = () => signal?.removeEventListener('abort', onAbort);
      const fail = (error: unknown) => {
        finish();
        void engine.terminate();
        reject(error);
      };
      const onMessage = (message: EngineMessage) => {
        if (group !== null) group.#onMessage(message);
        else if (message.type === 'event') early.push(message.event);
        else if (message.type === 'join-failed') fail(fromPlainError(message.error));
        else if (message.type === 'joined') {
          finish();
          group = new Group(engine, message.peerId, message.admission, resolved, observer, folders, trace);
          if (memory !== null) group.#keeping.adopt(memory, message.prefetched);
          for (const event of early) group.#onEvent(event);
          resolve(group);
        }
      };
      const onAbort = () => {
        engine.post({ type: 'close', request: 0 });
        fail(signal?.reason);
      };
      const engine = createEngine(onMessage);
      signal?.addEventListener('abort', onAbort, { once: true });
      memory?.push();
      engine.post({ type: 'join', options: resolved.runtime, state: memory?.spec('') ?? null });
    });
  }

  private constructor(
    engine: Engine,
    peerId: PeerId,
    admission: Admission,
    resolved: ResolvedJoin,
    observer: Observer | null,
    folders: Folders | null,
    trace: typeof traceCall | null,
  ) {
    this.#engine = engine;
    this.peerId = peerId;
    this.#fresh = admission;
    const { timeoutMs, minWorldSize, run, name } = resolved.runtime;
    this.#defaults = { timeoutMs, minWorldSize, strategy: resolved.strategy ?? 'majority' };
    this.#observer = observer;
    this.#presence = new Presence(observer);
    this.#calls = new Calls({
      engine,
      self: peerId,
      defaults: this.#defaults,
      worldSize: () => this.worldSize,
      onBegun: () => {
        this.#fresh = null;
      },
      observer,
      trace,
    });
    this.#keeping = new Keeping({
      self: peerId,
      run,
      name,
      isThread: engine.isThread,
      now: () => engine.now(),
      timeoutMs,
      minWorldSize,
      folders,
      ask: async <T extends StateAsk['type']>(ask: Extract<StateAsk, { type: T }>) =>
        (await this.#ask((request) => ({ type: 'state', request, ask }))) as StateAnswers[T], // what `ask` is answered with
      epoch: () => this.epoch,
      members: () => this.members,
      gather: (bytes, options) => this.#gather(bytes, options),
    });
    this.#observer?.note({ type: 'joined', peerId });
    this.#observer?.note({ type: 'boundary', boundary: admission.boundary, epoch: admission.epoch });
  }

  // --- where we are ------------------------------------------------------------------------------------------------

  /** Position in the view, from 0. It shifts when a peer of lower rank is lost. */
  get rank(): Rank {
    return this.members.findIndex((member) => member.peerId === this.peerId);
  }

  /** Members in the view. */
  get worldSize(): number {
    return this.members.length;
  }

  /** Number of the view; it only grows. */
  get epoch(): number {
    return this.#presence.epoch;
  }

  /** The view, by rank. */
  get members(): readonly GroupMember[] {
    return this.#presence.members;
  }

  /**
   * `view`: the members changed. `peer-lost`: one is gone. `slow-peer`: the others wait for one. `coordinator-lost`: what needs a decision waits,
   * until `coordinator-back`. `refused`: a stranger was turned away. */
  on<E extends keyof GroupEvents>(event: E, listener: Listener<E>): this {
    this.#presence.on(event, listener);
    return this;
  }

  /** Takes back what `on` has set. */
  off<E extends keyof GroupEvents>(event: E, listener: Listener<E>): this {
    this.#presence.off(event, listener);
    return this;
  }

  /** Plain data: the view, the links, and for each open collective what it waits for. */
  async status(): Promise<GroupStatus> {
    const status = (await this.#ask((request) => ({ type: 'status', request }))) as RuntimeStatus; // what `status` is answered with
    return { peerId: this.peerId, epoch: this.epoch, members: this.members, ...status };
  }

  /**
   * The flight record: plain data about this peer's last 1,000 collectives and all that are open, how far each came, what went to and
   * fro with each neighbour and when, and about its links. `skein doctor` makes sense of those of all peers.
   */
  async flight(): Promise<FlightDump> {
    return (await this.#ask((request) => ({ type: 'flight', request }))) as FlightDump; // what `flight` is answered with
  }

  /**
   * @internal the way of `skein/notes` to the coordinator: `onMessage` hears what comes, and null where some was left out
   * @returns sends a message; null says that one that came was read
   */
  notesPort(onMessage: (message: NotedMessage | null) => void): (message: NotesMessage | null) => void {
    this.#checkOpen();
    this.#onNotes = onMessage;
    return (message) => {
      if (!this.#closed) this.#engine.post({ type: 'notes', message });
    };
  }

  // --- collectives -------------------------------------------------------------------------------------------------

  /**
   * Combines the tensors of all members element by element; every member gets the same bits.
   *
   * `op: 'median'`, `'trimmed-mean'` and `'centered-clip'` are averages that a minority of poisoned contributions (NaN, infinite,
   * huge, malicious) can't move far, of f32 and f64: the coordinate-wise median and trimmed mean of Yin et al. (ICML 2018), and
   * centered clipping after Karimireddy et al. (ICML 2021). `guard` refuses a poisoned input where it arises.
   *
   * @param tensor shape and dtype equal on all members; receives the result unless `out` is given, and only on success
   * @returns who contributed, how it went
   * @throws MismatchError, QuorumError, TimeoutError, PeerLostError, EvictedError, ExcludedError, WithdrawnError, PoisonedInputError,
   *   ConnectError
   * @example const { contributors } = await group.allReduce(gradients, { op: 'avg' });
   */
  allReduce(tensor: Tensor, options: AllReduceOptions = {}): Promise<Report> {
    return this.#start(allReduceShape(tensor, options.out), options);
  }

  /** As `allReduce`, but blocks the calling thread. Only with `engine: 'worker'`; `signal` and `onProgress` don't apply. */
  allReduceSync(tensor: Tensor, options: Omit<AllReduceOptions, 'signal' | 'onProgress'> = {}): Report {
    if (!this.#engine.isThread) {
      throw new ArgumentError(
        "allReduceSync needs an engine thread: join with `engine: 'worker'`, which is the default.",
      );
    }
    this.#checkOpen();
    return this.#calls.startSync(allReduceShape(tensor, options.out), options);
  }

  /**
   * As `allReduce`, of a tensor that is still being computed: each part goes out as soon as it is said to be ready, and parts of the
   * result can be had before the rest (see `AllReduceStream`). Members may get their parts in different orders, and some of them may
   * call `allReduce` instead. The time-out includes the time in which the tensor is computed.
   *
   * @param tensor as for `allReduce`; a part that is ready must not change until the call has ended. A rank that is late keeps up to
   *   as many bytes of what the others send it as the tensor has, where its result will be if nothing is encoded
   * @throws ArgumentError for a `guard`, which looks at the whole tensor before anything is sent; where `out` and the tensor overlap
   * @example
   * const stream = group.allReduceStream([w1, w2], { op: 'avg' }); // gradients
   * backwardOfLayer2(); stream.readyTensor(1);                      // goes out, while
   * backwardOfLayer1(); stream.readyTensor(0);                      // this is computed
   * await stream.report;
   */
  allReduceStream(tensor: Tensor, options: AllReduceStreamOptions = {}): AllReduceStream {
    const shape = allReduceShape(tensor, options.out);
    if ('guard' in options)
      throw new ArgumentError('A stream has no `guard`, which looks at the whole tensor first: use allReduce.');
    if (!shape.inPlace && overlap(shape.input, shape.output))
      throw new ArgumentError(
        '`out` overlaps the tensor, of which parts may be sent late: leave it out, or give other memory.',
      );
    this.#checkOpen();
    return this.#calls.stream(shape, options);
  }

  /** Forgets what `errorFeedback` has kept under a tag (without one: under all). Calls that are open keep theirs when they end. */
  dropErrorFeedback(tag?: string): void {
    this.#checkOpen();
    this.#engine.post({ type: 'drop-feedback', tag: tag ?? null });
  }

  /** The root's tensor, on every member. */
  broadcast(tensor: Tensor, options: RootOptions = {}): Promise<Report> {
    return this.#start(broadcastShape(tensor, this.#root(options.root)), options);
  }

  /** As `allReduce`, with the result at the root only; the others' tensors stay as they are. */
  reduce(tensor: Tensor, options: RootedReduceOptions = {}): Promise<Report> {
    return this.#start(reduceShape(tensor, options.out, this.#root(options.root)), options);
  }

  /**
   * As `allReduce`, but each member gets one chunk: rank r the r-th of `worldSize` chunks of nearly equal length (the first
   * `count % worldSize` have one element more). Without `out` the chunk is written to its place in the tensor.
   */
  reduceScatter(tensor: Tensor, options: ReduceOptions = {}): Promise<Report> {
    return this.#start(reduceScatterShape(tensor, options.out, this), options);
  }

  /** Everybody's part on every member: rank r's at element `r * part.length` of `out`. */
  allGather(part: Tensor, out: Tensor, options: TransferOptions = {}): Promise<Report> {
    return this.#start(allGatherShape(part, out, this.worldSize), options);
  }

  /** As `allGather`, with the result at the root only; the others need no `out`. */
  gather(part: Tensor, out: Tensor | undefined, options: RootOptions = {}): Promise<Report> {
    return this.#start(gatherShape(part, out, this.#rooted(options)), options);
  }

  /** The root's tensor in `worldSize` parts of equal length, the r-th to rank r. Only the root needs `tensor`. */
  scatter(tensor: Tensor | undefined, part: Tensor, options: RootOptions = {}): Promise<Report> {
    return this.#start(scatterShape(tensor, part, this.#rooted(options)), options);
  }

  /** The j-th of `worldSize` equal parts of each member's tensor to rank j, where rank i's lands at part i of `out`. */
  allToAll(tensor: Tensor, out: Tensor, options: TransferOptions = {}): Promise<Report> {
    return this.#start(allToAllShape(tensor, out, this.worldSize), options);
  }

  /** Resolves when every member has called it. */
  barrier(options: CallOptions = {}): Promise<Report> {
    return this.#start(barrierShape(), options);
  }

  #start(shape: Shape, options: AllReduceOptions): Promise<Report> {
    this.#checkOpen();
    return this.#calls.start(shape, options);
  }

  #root(root: Rank | PeerId | undefined): PeerId {
    const wanted = root ?? 0;
    const member = this.members.find((one) => one.rank === wanted || one.peerId === wanted);
    if (member === undefined) {
      throw new ArgumentError(
        `There is no member ${JSON.stringify(wanted)} to be the root; the view has ${this.worldSize} members.`,
      );
    }
    return member.peerId;
  }

  #rooted(options: RootOptions): { readonly root: PeerId; readonly isRoot: boolean; readonly worldSize: number } {
    const root = this.#root(options.root);
    return { root, isRoot: root === this.peerId, worldSize: this.worldSize };
  }

  // --- membership --------------------------------------------------------------------------------------------------

  /**
   * A boundary between steps, at which newcomers are let in. Every member calls it at the same point of its program; the
   * first to arrive fixes what changes, and nobody waits for anybody.
   *
   * @throws QuorumError when fewer than `minWorldSize` members are there for `timeout` ms
   */
  async admit(options: Pick<CallOptions, 'minWorldSize' | 'timeout'> = {}): Promise<Admission> {
    const minWorldSize = checkMinWorldSize(options.minWorldSize ?? this.#defaults.minWorldSize);
    const timeoutMs = checkTimeout(options.timeout ?? this.#defaults.timeoutMs);
    const value = await this.#ask((request) => ({ type: 'admit', request, minWorldSize, timeoutMs }));
    const admission = value as Admission; // what `admit` is answered with
    this.#fresh = admission;
    this.#observer?.note({ type: 'boundary', boundary: admission.boundary, epoch: admission.epoch });
    return admission;
  }

  /**
   * The training loop: each turn is a boundary. The first turn after `join()` is the boundary at which this peer came in, so
   * newcomers and old members are in step. With a shared state each turn begins with a sync of it as well, and ends by counting up its
   * revision, which is the turn's index: so newcomers, and runs that begin from a checkpoint, go on with the number of the others.
   *
   * @example for await (const step of group.steps({ state, until: 1000 })) { … }
   * @throws what `admit` and `syncState` throw
   */
  async *steps(options: StepsOptions = {}): AsyncGenerator<Step, void, undefined> {
    const { state, syncEvery = 1 } = options;
    const until = options.until ?? Number.POSITIVE_INFINITY;
    if (state !== undefined && options.from !== undefined)
      throw new ArgumentError('With a `state` the steps begin at its `revision`: set that instead of the first index.');
    for (let index = options.from ?? state?.revision ?? 0; index < until; index++) {
      const admission = this.#fresh ?? (await this.admit());
      this.#fresh = null;
      let sync: SyncReport | null = null;
      if (state !== undefined) {
        if (admission.joined.length > 0 || index % syncEvery === 0) sync = await this.syncState(state, options.sync);
        index = state.revision;
        if (index >= until) return;
      }
      yield { index, sync, ...admission };
      if (state !== undefined) state.revision += 1;
    }
  }

  // --- shared state ------------------------------------------------------------------------------------------------

  /**
   * Sees to it that all members hold the same shared state: the same bits and the same revision. A collective, which all make at the same
   * point of their programs, between changes of the contents. Where all hold the same already, which they show one another by
   * hashes, nothing is moved; else whoever is behind fetches the pieces (1 MiB) that differ, from all that have them.
   *
   * @param state names, types and lengths of its entries equal on all members. Its revision becomes that of the others
   * @returns what was agreed upon, how much was moved, and who had diverged
   * @throws MismatchError (entries or strategies don't fit), StateLostError (nobody holds it any more), TimeoutError, and what an
   *   all-gather throws. The contents are then as they were; on a newcomer with revision 0 that has joined with `state`, of no use
   * @example const { revision, received } = await group.syncState(state);
   */
  async syncState(state: SharedState, options: SyncOptions = {}): Promise<SyncReport> {
    this.#checkOpen();
    const resolved = resolveSync(options, this.#defaults);
    this.#fresh = null;
    return this.#keeping.sync(state, resolved);
  }

  /** Everybody's bytes, by rank. */
  async #gather(bytes: Uint8Array, options: CallOptions): Promise<ReadonlyMap<PeerId, Uint8Array>> {
    const all = new Uint8Array(bytes.length * this.worldSize);
    const { contributors } = await this.allGather(bytes, all, options);
    return new Map(
      contributors.map((peerId, rank) => [peerId, all.subarray(rank * bytes.length, (rank + 1) * bytes.length)]),
    );
  }

  /**
   * Keeps the shared state as the members agreed upon it in the last sync, in this peer's memory and, with `directory`, on disk; and what
   * is this peer's own (`own`), in the memory of the next member. A collective, which all make after the same sync and before they
   * change the state, some with a `directory` or something of their own, others without.
   *
   * @returns when the copies are made and all members have the same; the disk is written in the background (`written`)
   * @throws ArgumentError where there was no such sync, SnapshotError where the state has been changed since, or the last snapshot could not be
   *   written; MismatchError where others make another one; what an all-gather throws
   * @example if (step.index % 100 === 0) await group.snapshot({ directory: 'snapshots' });
   */
  async snapshot(options: SnapshotOptions = {}): Promise<SnapshotReport> {
    const { tag = '' } = options;
    const agreed = await this.#keeping.agreed(tag);
    if (agreed === undefined)
      throw new ArgumentError('There is no shared state that was in step: call syncState, or steps({ state }), first.');
    return (await this.#snapshots()).snapshot(agreed, options);
  }

  /**
   * Puts this peer's last snapshot back into the shared state, with its revision: for all members together, to begin again from there.
   *
   * @throws SnapshotError where this peer has made none
   */
  async restore(state: SharedState, options: { readonly tag?: string } = {}): Promise<void> {
    (await this.#snapshots()).restore(options.tag ?? '', state);
  }

  /**
   * What was kept of this peer's own, by a member (under the `name` of this peer) or in the folder from which it resumed, whichever is later,
   * put into `own`, with the revision of the shared state when it was kept. Not a collective.
   *
   * @param own names, types and lengths of its entries as they were
   * @returns who gave it, a peer or a folder; null where there is nothing: then `own` is as it was
   * @throws ArgumentError without a `name`
   */
  async recall(
    own: SharedState,
    options: Pick<CallOptions, 'timeout'> = {},
  ): Promise<{ readonly revision: number; readonly from: string } | null> {
    const timeoutMs = checkTimeout(options.timeout ?? this.#defaults.timeoutMs);
    return (await this.#snapshots()).recall(own, timeoutMs);
  }

  #snapshots(): Promise<Keeper> {
    this.#checkOpen();
    return this.#keeping.keeper();
  }

  /** Waits for this peer's open collectives, then leaves the run. May be called twice. */
  async leave(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.#calls.ended();
    try {
      await this.#keeping.close();
    } finally {
      await this.#request((request) => ({ type: 'leave', request }));
      await this.#engine.terminate();
    }
  }

  /** As `leave()`, for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.leave();
  }

  #checkOpen(): void {
    if (this.#closed) throw new ClosedError('This peer has left the group: join again.');
  }

  // --- the engine --------------------------------------------------------------------------------------------------

  #ask(make: (request: number) => EngineRequest): Promise<unknown> {
    this.#checkOpen();
    return this.#request(make);
  }

  #request(make: (request: number) => EngineRequest): Promise<unknown> {
    const request = this.#nextRequest++;
    return new Promise((resolve, reject) => {
      this.#requests.set(request, (reply) => {
        this.#requests.delete(request);
        if (reply.ok) resolve(reply.value);
        else reject(fromPlainError(reply.error));
      });
      this.#engine.post(make(request));
    });
  }

  #onMessage(message: EngineMessage): void {
    switch (message.type) {
      case 'event':
        this.#onEvent(message.event);
        break;
      case 'progress':
      case 'part':
      case 'settled':
        this.#calls.onMessage(message);
        break;
      case 'reply':
        this.#requests.get(message.request)?.(message.reply);
        break;
      case 'joined':
      case 'join-failed':
        break; // answered before the group was made
      default:
        message satisfies never;
    }
  }

  #onEvent(event: RuntimeEvent): void {
    if (event.type === 'notes') this.#onNotes?.(event.message);
    else this.#presence.onEvent(event);
  }
}
