/** The public face: a `Group` is this peer's membership of a run. */
import type { PeerId, Report, StreamSpec } from './collectives/call.ts';
import { shareOf } from './collectives/partition.ts';
import { tensorSizes } from './collectives/plan.ts';
import type { CollectiveKind, Rank } from './collectives/program.ts';
import type { PathKind } from './engine/path-race.ts';
import type { Engine, EngineMessage, EngineRequest, PlainOutcome, Reply } from './engine/protocol.ts';
import type { Admission, LinkStatus, RuntimeEvent, RuntimeStatus } from './engine/runtime.ts';
import { ArgumentError, ClosedError, fromPlainError } from './errors.ts';
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
  resolveCall,
  resolveSync,
  type SyncOptions,
  type TransferOptions,
} from './options.ts';
import type { Disk, Keeper, Resumed, SnapshotOptions, SnapshotReport } from './snapshot/keeper.ts';
import { type Staged, Staging } from './staging.ts';
import type { Prefetched, StateAnswers, StateAsk } from './state/asks.ts';
import type { SharedState, StateMemory } from './state/memory.ts';
import type { Sharing, SharingPort } from './state/sharing.ts';
import type { SyncStrategy } from './state/strategy.ts';
import type { SyncReport } from './state/sync.ts';
import { AllReduceStream, DoneQueue } from './stream.ts';
import { DTYPE_BYTES, type Dtype, sharedMemory, type Tensor, type TensorPart, tensorParts } from './tensor.ts';
import type { CallSpan, traceCall } from './trace.ts';
import type { FlightDump } from './wire/flight.ts';
import type { NotedMessage, NotesMessage } from './wire/messages.ts';

/** A member of the view, as this peer sees it. */
export interface GroupMember {
  readonly peerId: PeerId;
  readonly rank: Rank;
  readonly site: string;
  /**
   * How this peer reaches it: `unix`, `tcp`, `tls` (TCP, encrypted), `webrtc`, or `turn` for WebRTC through a relay server. Null for this peer itself, and
   * for one that was not reached yet: what is for it goes through other members. `status()` tells why better ways failed.
   */
  readonly path: PathKind | null;
}

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

/** What `group.on` tells of, by name. */
export interface GroupEvents {
  view: { readonly epoch: number; readonly members: readonly GroupMember[] };
  'peer-lost': { readonly peerId: PeerId; readonly reason: string; readonly epoch: number };
  /**
   * The others wait for this member, and it waits for nobody. `waiting`: to receive from it; `blocked`: what they send it does
   * not leave, so that the way between them may be the cause.
   */
  'slow-peer': {
    readonly peerId: PeerId;
    readonly waiting: readonly PeerId[];
    readonly blocked: readonly PeerId[];
    /** The longest wait of the last second, in milliseconds. */
    readonly waitedMs: number;
    readonly epoch: number;
  };
  'coordinator-lost': { readonly reason: string };
  'coordinator-back': Record<string, never>;
  /** Somebody was turned away at this peer's port for TLS: it may be a stranger. Not told more than about once a second. */
  refused: { readonly reason: string };
}

type Listener<E extends keyof GroupEvents> = (event: GroupEvents[E]) => void;

/** What a collective needs beyond its options. */
interface Shape {
  readonly kind: CollectiveKind;
  readonly input: readonly TensorPart[];
  readonly output: readonly TensorPart[];
  readonly inPlace: boolean;
  readonly dtype: Dtype;
  readonly count: number;
  readonly root: PeerId | null;
  readonly laidOutFor: number | null;
  readonly reduces: boolean;
}

/** A call that can be handed to the engine. */
interface Prepared {
  readonly staged: Staged;
  readonly span: CallSpan | null;
  readonly request: Extract<EngineRequest, { type: 'call' }>;
}

interface OpenCall {
  part(start: number, end: number, retry: number): void;
  settle(outcome: PlainOutcome): void;
  progress(share: number): void;
}

/** What a barrier passes round; its value does not matter. */
const TOKEN: TensorPart = { dtype: 'u8', count: 1, bytes: new Uint8Array(sharedMemory(1)) };
const TOKEN_OUT: TensorPart = { dtype: 'u8', count: 1, bytes: new Uint8Array(sharedMemory(1)) };

function countOf(parts: readonly TensorPart[]): number {
  return parts.reduce((sum, part) => sum + part.count, 0);
}

function bytesOf(parts: readonly TensorPart[]): number {
  return parts.reduce((sum, { bytes }) => sum + bytes.length, 0);
}

/** Whether there is memory that is part of both. */
function overlap(left: readonly TensorPart[], right: readonly TensorPart[]): boolean {
  return left.some(({ bytes: one }) =>
    right.some(({ bytes: other }) => {
      const isApart =
        one.byteOffset + one.length <= other.byteOffset || other.byteOffset + other.length <= one.byteOffset;
      return one.buffer === other.buffer && !isApart;
    }),
  );
}

/** What calls take where they are told nothing else. */
interface Defaults {
  readonly timeoutMs: number;
  readonly minWorldSize: number;
  readonly strategy: SyncStrategy;
}

/** Where snapshots are on disk; there are none in a browser. */
interface Folders {
  readonly disk: Disk;
  readonly resumed: Resumed | null;
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

/** Collectives after which all members hold the same result. */
const SHARED_RESULTS: ReadonlySet<CollectiveKind> = new Set(['allReduce', 'broadcast', 'allGather']);

/** This peer's membership of a run, made by `join()`: its collectives, its view, and its way out. */
export class Group {
  readonly peerId: PeerId;
  readonly #engine: Engine;
  readonly #defaults: Defaults;
  readonly #observer: Observer | null;
  readonly #trace: typeof traceCall | null;
  readonly #staging: Staging;
  readonly #calls: Map<number, OpenCall> = new Map();
  readonly #requests: Map<number, (reply: Reply) => void> = new Map();
  readonly #listeners: { [E in keyof GroupEvents]: Set<Listener<E>> } = {
    view: new Set(),
    'peer-lost': new Set(),
    'slow-peer': new Set(),
    'coordinator-lost': new Set(),
    'coordinator-back': new Set(),
    refused: new Set(),
  };
  /** Calls that `leave` waits for. */
  readonly #pending: Set<Promise<void>> = new Set();
  /** The shared state that this peer has joined with. */
  #joinedWith: StateMemory | null = null;
  /** Loaded when state is first shared. */
  #sharing: Promise<Sharing> | null = null;
  readonly #folders: Folders | null;
  readonly #name: { readonly run: string; readonly name: string };
  /** Loaded when a snapshot is first made. */
  #keeper: Promise<Keeper> | null = null;
  #members: readonly GroupMember[] = [];
  /** How the peers known are reached, by id. */
  readonly #paths: Map<PeerId, PathKind> = new Map();
  #epoch = 0;
  #next = 1;
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
          if (memory !== null) group.#adopt(memory, message.prefetched);
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
    this.#staging = new Staging(engine.isThread);
    const { timeoutMs, minWorldSize, run, name } = resolved.runtime;
    this.#defaults = { timeoutMs, minWorldSize, strategy: resolved.strategy ?? 'majority' };
    this.#name = { run, name };
    this.#folders = folders;
    this.#observer = observer;
    this.#trace = trace;
    this.#observer?.note({ type: 'joined', peerId });
    this.#observer?.note({ type: 'boundary', boundary: admission.boundary, epoch: admission.epoch });
  }

  // --- where we are ------------------------------------------------------------------------------------------------

  /** Position in the view, from 0. It shifts when a peer of lower rank is lost. */
  get rank(): Rank {
    return this.#members.findIndex((member) => member.peerId === this.peerId);
  }

  /** Members in the view. */
  get worldSize(): number {
    return this.#members.length;
  }

  /** Number of the view; it only grows. */
  get epoch(): number {
    return this.#epoch;
  }

  /** The view, by rank. */
  get members(): readonly GroupMember[] {
    return this.#members;
  }

  /**
   * `view`: the members changed. `peer-lost`: one is gone. `slow-peer`: the others wait for one. `coordinator-lost`: what needs a decision waits,
   * until `coordinator-back`. `refused`: a stranger was turned away. */
  on<E extends keyof GroupEvents>(event: E, listener: Listener<E>): this {
    this.#listeners[event].add(listener);
    return this;
  }

  /** Takes back what `on` has set. */
  off<E extends keyof GroupEvents>(event: E, listener: Listener<E>): this {
    this.#listeners[event].delete(listener);
    return this;
  }

  /** Plain data: the view, the links, and for each open collective what it waits for. */
  async status(): Promise<GroupStatus> {
    const status = (await this.#ask((request) => ({ type: 'status', request }))) as RuntimeStatus; // what `status` is answered with
    return { peerId: this.peerId, epoch: this.#epoch, members: this.#members, ...status };
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
    return this.#start(this.#allReduceShape(tensor, options), options);
  }

  /** As `allReduce`, but blocks the calling thread. Only with `engine: 'worker'`; `signal` and `onProgress` don't apply. */
  allReduceSync(tensor: Tensor, options: Omit<AllReduceOptions, 'signal' | 'onProgress'> = {}): Report {
    if (!this.#engine.isThread) {
      throw new ArgumentError(
        "allReduceSync needs an engine thread: join with `engine: 'worker'`, which is the default.",
      );
    }
    this.#checkOpen();
    const shape = this.#allReduceShape(tensor, options);
    const prepared = this.#prepare(shape, options, null, null);
    const { staged, request } = prepared;
    const wake = new Int32Array(new SharedArrayBuffer(4));
    try {
      return this.#conclude(shape, prepared, this.#engine.callSync({ ...request, wake }));
    } finally {
      staged.release();
    }
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
    const shape = this.#allReduceShape(tensor, options);
    if ('guard' in options)
      throw new ArgumentError('A stream has no `guard`, which looks at the whole tensor first: use allReduce.');
    if (!shape.inPlace && overlap(shape.input, shape.output))
      throw new ArgumentError(
        '`out` overlaps the tensor, of which parts may be sent late: leave it out, or give other memory.',
      );
    this.#checkOpen();
    const prepared = this.#prepare(shape, options, null, { handsBack: !shape.inPlace });
    const done = new DoneQueue();
    const report = this.#run(shape, options, prepared, done);
    const { staged, request } = prepared;
    const { call } = request;
    const size = DTYPE_BYTES[shape.dtype];
    const counts = shape.input.map((part) => part.count);
    return new AllReduceStream(counts, report, done, (start, end) => {
      if (!this.#calls.has(call)) return;
      staged.send(start * size, end * size);
      this.#engine.post({ type: 'ready', call, start, end });
    });
  }

  #allReduceShape(tensor: Tensor, { out }: ReduceOptions): Shape {
    const input = tensorParts(tensor, 'tensor');
    const output = out === undefined ? input : tensorParts(out, 'out');
    const count = countOf(input);
    this.#checkOut(input, output, count);
    return { ...this.#shape('allReduce', input, output), inPlace: out === undefined, count, reduces: true };
  }

  /** Forgets what `errorFeedback` has kept under a tag (without one: under all). Calls that are open keep theirs when they end. */
  dropErrorFeedback(tag?: string): void {
    this.#checkOpen();
    this.#engine.post({ type: 'drop-feedback', tag: tag ?? null });
  }

  /** The root's tensor, on every member. */
  broadcast(tensor: Tensor, options: RootOptions = {}): Promise<Report> {
    const parts = tensorParts(tensor, 'tensor');
    const root = this.#root(options.root);
    return this.#start(
      { ...this.#shape('broadcast', parts, parts), inPlace: true, count: countOf(parts), root },
      options,
    );
  }

  /** As `allReduce`, with the result at the root only; the others' tensors stay as they are. */
  reduce(tensor: Tensor, options: RootedReduceOptions = {}): Promise<Report> {
    const shape = this.#allReduceShape(tensor, options);
    return this.#start({ ...shape, kind: 'reduce', root: this.#root(options.root) }, options);
  }

  /**
   * As `allReduce`, but each member gets one chunk: rank r the r-th of `worldSize` chunks of nearly equal length (the first
   * `count % worldSize` have one element more). Without `out` the chunk is written to its place in the tensor.
   */
  reduceScatter(tensor: Tensor, options: ReduceOptions = {}): Promise<Report> {
    const input = tensorParts(tensor, 'tensor');
    const count = countOf(input);
    const share = shareOf(count, this.worldSize, this.rank);
    const output =
      options.out === undefined ? this.#cut(input, share.start, share.count) : tensorParts(options.out, 'out');
    this.#checkOut(input, output, share.count);
    const inPlace = options.out === undefined;
    const laidOutFor = this.worldSize;
    return this.#start(
      { ...this.#shape('reduceScatter', input, output), inPlace, count, laidOutFor, reduces: true },
      options,
    );
  }

  /** Everybody's part on every member: rank r's at element `r * part.length` of `out`. */
  allGather(part: Tensor, out: Tensor, options: TransferOptions = {}): Promise<Report> {
    const input = tensorParts(part, 'part');
    const output = tensorParts(out, 'out');
    const count = countOf(input);
    this.#checkOut(input, output, count * this.worldSize);
    return this.#start({ ...this.#shape('allGather', input, output), count }, options);
  }

  /** As `allGather`, with the result at the root only; the others need no `out`. */
  gather(part: Tensor, out: Tensor | undefined, options: RootOptions = {}): Promise<Report> {
    const input = tensorParts(part, 'part');
    const output = out === undefined ? [] : tensorParts(out, 'out');
    const count = countOf(input);
    const root = this.#root(options.root);
    if (root === this.peerId) this.#checkOut(input, output, count * this.worldSize);
    return this.#start({ ...this.#shape('gather', input, output), count, root }, options);
  }

  /** The root's tensor in `worldSize` parts of equal length, the r-th to rank r. Only the root needs `tensor`. */
  scatter(tensor: Tensor | undefined, part: Tensor, options: RootOptions = {}): Promise<Report> {
    const output = tensorParts(part, 'part');
    const input = tensor === undefined ? [] : tensorParts(tensor, 'tensor');
    const count = countOf(output);
    const root = this.#root(options.root);
    if (root === this.peerId && (countOf(input) < count * this.worldSize || input[0]?.dtype !== output[0]?.dtype)) {
      throw new ArgumentError(
        `The root of a scatter needs ${count * this.worldSize} elements of ${output[0]?.dtype}, ${count} for each of ${this.worldSize} members.`,
      );
    }
    const shape = {
      ...this.#shape('scatter', input, output),
      dtype: output[0]!.dtype,
      count,
      root,
      laidOutFor: this.worldSize,
    };
    return this.#start(shape, options);
  }

  /** The j-th of `worldSize` equal parts of each member's tensor to rank j, where rank i's lands at part i of `out`. */
  allToAll(tensor: Tensor, out: Tensor, options: TransferOptions = {}): Promise<Report> {
    const input = tensorParts(tensor, 'tensor');
    const output = tensorParts(out, 'out');
    const total = countOf(input);
    if (total % this.worldSize !== 0) {
      throw new ArgumentError(
        `All-to-all cuts the tensor in ${this.worldSize} equal parts; ${total} elements can't be.`,
      );
    }
    this.#checkOut(input, output, total);
    const count = total / this.worldSize;
    return this.#start({ ...this.#shape('allToAll', input, output), count, laidOutFor: this.worldSize }, options);
  }

  /** Resolves when every member has called it. */
  barrier(options: CallOptions = {}): Promise<Report> {
    return this.#start({ ...this.#shape('barrier', [TOKEN], [TOKEN_OUT]), count: 1 }, options);
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
    this.#sharing ??= import('./state/sharing.ts').then(
      ({ Sharing }) => new Sharing(this.#sharingPort(), this.#joinedWith),
    );
    return (await this.#sharing).sync(state, resolved);
  }

  #sharingPort(): SharingPort {
    return {
      self: this.peerId,
      isThread: this.#engine.isThread,
      now: () => this.#engine.now(),
      engine: async <T extends StateAsk['type']>(ask: Extract<StateAsk, { type: T }>) =>
        (await this.#ask((request) => ({ type: 'state', request, ask }))) as StateAnswers[T], // what `ask` is answered with
      gather: (tag, row, timeout, minWorldSize) =>
        this.#gather(row, { tag: `skein.state:${tag}`, timeout, minWorldSize }),
    };
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
    const agreed = (await this.#sharing)?.agreed(tag);
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
    this.#keeper ??= this.#openKeeper();
    return this.#keeper;
  }

  async #openKeeper(): Promise<Keeper> {
    const { Keeper } = await import('./snapshot/keeper.ts');
    const { timeoutMs, minWorldSize } = this.#defaults;
    const { self, isThread, engine } = this.#sharingPort();
    const group = this;
    return new Keeper({
      ...this.#name,
      self,
      isThread,
      timeoutMs,
      disk: this.#folders?.disk ?? null,
      resumed: this.#folders?.resumed ?? null,
      engine,
      gather: (bytes, timeout) => this.#gather(bytes, { tag: 'skein.snapshot', timeout, minWorldSize }),
      get epoch() {
        return group.epoch;
      },
      get others() {
        return group.members.map((member) => member.peerId).filter((peerId) => peerId !== group.peerId);
      },
    });
  }

  /** The engine has looked after a state since before this peer was a member. */
  #adopt(memory: StateMemory, prefetched: Prefetched | null): void {
    this.#joinedWith = memory;
    if (prefetched === null || prefetched.bytes === 0) return;
    memory.pull();
    if (prefetched.revision !== null) memory.state.revision = prefetched.revision;
  }

  /** Waits for this peer's open collectives, then leaves the run. May be called twice. */
  async leave(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await Promise.all([...this.#pending]);
    try {
      await (await this.#keeper)?.close();
    } finally {
      await this.#request((request) => ({ type: 'leave', request }));
      await this.#engine.terminate();
    }
  }

  /** As `leave()`, for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.leave();
  }

  // --- calls -------------------------------------------------------------------------------------------------------

  #shape(kind: CollectiveKind, input: readonly TensorPart[], output: readonly TensorPart[]): Shape {
    const dtype = (input[0] ?? output[0])?.dtype ?? 'u8';
    return { kind, input, output, inPlace: false, dtype, count: 0, root: null, laidOutFor: null, reduces: false };
  }

  #root(root: Rank | PeerId | undefined): PeerId {
    const wanted = root ?? 0;
    const member = this.#members.find((one) => one.rank === wanted || one.peerId === wanted);
    if (member === undefined) {
      throw new ArgumentError(
        `There is no member ${JSON.stringify(wanted)} to be the root; the view has ${this.worldSize} members.`,
      );
    }
    return member.peerId;
  }

  #checkOut(input: readonly TensorPart[], output: readonly TensorPart[], count: number): void {
    if (output[0]?.dtype === input[0]?.dtype && countOf(output) >= count) return;
    const have = `${countOf(output)} elements of ${output[0]?.dtype ?? 'nothing'}`;
    throw new ArgumentError(`The output has ${have}; ${count} of ${input[0]?.dtype ?? 'nothing'} are needed.`);
  }

  /** Elements `start` to `start + count` of fused tensors. */
  #cut(parts: readonly TensorPart[], start: number, count: number): TensorPart[] {
    const cut: TensorPart[] = [];
    let first = 0;
    for (const part of parts) {
      const from = Math.max(start, first) - first;
      const to = Math.min(start + count, first + part.count) - first;
      const size = DTYPE_BYTES[part.dtype];
      if (to > from)
        cut.push({ dtype: part.dtype, count: to - from, bytes: part.bytes.subarray(from * size, to * size) });
      first += part.count;
    }
    const [any] = parts;
    return cut.length > 0 || any === undefined
      ? cut
      : [{ dtype: any.dtype, count: 0, bytes: any.bytes.subarray(0, 0) }];
  }

  #prepare(shape: Shape, options: AllReduceOptions, wake: Int32Array | null, stream: StreamSpec | null): Prepared {
    const resolved = resolveCall(options, { ...this.#defaults, worldSize: this.worldSize }, shape);
    const staged = this.#staging.prepare(shape.input, shape.output, shape.inPlace);
    if (stream === null) staged.send(0, bytesOf(shape.input));
    const call = this.#next++;
    this.#fresh = null;
    const { kind, dtype, count, root, laidOutFor } = shape;
    this.#observer?.note({ type: 'begun', kind });
    const { input, output, atomic } = staged;
    const op = shape.reduces ? resolved.op : null;
    const tensors = shape.input.map((part) => part.count);
    const guard = resolved.guard === null ? null : { ...resolved.guard, tensors };
    const spec = { ...resolved, kind, dtype, op, guard, count, root, laidOutFor, stream, input, output, atomic };
    const request = { type: 'call' as const, call, spec, progress: options.onProgress !== undefined, wake };
    const span = this.#trace?.(() => ({ ...spec, bytes: bytesOf(shape.input) })) ?? null;
    return { staged, request, span };
  }

  /** @param fetched the result is where the caller wants it */
  #conclude(shape: Shape, { staged, span }: Prepared, outcome: PlainOutcome, fetched = false): Report {
    if (!outcome.ok) {
      const { code, message } = outcome.error;
      this.#observer?.note({ type: 'failed', code, message });
      const error = fromPlainError(outcome.error);
      span?.failed(error);
      throw error;
    }
    const { report } = outcome;
    const rank = report.contributors.indexOf(this.peerId);
    const root = shape.root === null ? 0 : report.contributors.indexOf(shape.root);
    const { kind, count, dtype } = shape;
    const sizes = tensorSizes({ kind, worldSize: report.worldSize, count, root }, rank);
    if (!fetched) staged.fetch(0, sizes.output * DTYPE_BYTES[dtype]);
    this.#observer?.settled(report, SHARED_RESULTS.has(kind) ? shape.output : null);
    span?.done(report);
    return report;
  }

  #start(shape: Shape, options: AllReduceOptions): Promise<Report> {
    this.#checkOpen();
    return this.#run(shape, options, this.#prepare(shape, options, null, null), null);
  }

  /** @param done where it is told of parts of the result; null: nobody asks for them */
  #run(shape: Shape, options: AllReduceOptions, prepared: Prepared, done: DoneQueue | null): Promise<Report> {
    const { staged, request } = prepared;
    const { signal, onProgress } = options;
    const { call, spec } = request;
    const handsBack = spec.stream?.handsBack === true;
    const size = DTYPE_BYTES[shape.dtype];
    const result = new Promise<Report>((resolve, reject) => {
      const onAbort = () => this.#engine.post({ type: 'cancel', call });
      this.#calls.set(call, {
        progress: (share) => onProgress?.(share),
        part: (start, end, retry) => {
          staged.fetch(start * size, end * size);
          done?.push({ start, end, retry });
        },
        settle: (outcome) => {
          signal?.removeEventListener('abort', onAbort);
          try {
            const report = this.#conclude(shape, prepared, outcome, handsBack);
            if (!handsBack) done?.push({ start: 0, end: shape.count, retry: report.retries });
            resolve(report);
          } catch (error) {
            reject(signal?.aborted === true ? signal.reason : error);
          } finally {
            done?.end(outcome.ok);
            staged.release();
          }
        },
      });
      this.#engine.post(request);
      if (signal?.aborted === true) onAbort();
      else signal?.addEventListener('abort', onAbort, { once: true });
    });
    const forget = () => void this.#pending.delete(tracked);
    const tracked: Promise<void> = result.then(forget, forget);
    this.#pending.add(tracked);
    return result;
  }

  #checkOpen(): void {
    if (this.#closed) throw new ClosedError('This peer has left the group: join again.');
  }

  // --- the engine --------------------------------------------------------------------------------------------------

  #ask(make: (request: number) => Parameters<Engine['post']>[0]): Promise<unknown> {
    this.#checkOpen();
    return this.#request(make);
  }

  #request(make: (request: number) => Parameters<Engine['post']>[0]): Promise<unknown> {
    const request = this.#next++;
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
        this.#calls.get(message.call)?.progress(message.share);
        break;
      case 'part':
        this.#calls.get(message.call)?.part(message.start, message.end, message.retry);
        break;
      case 'settled': {
        const open = this.#calls.get(message.call);
        this.#calls.delete(message.call);
        open?.settle(message.outcome);
        break;
      }
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
    switch (event.type) {
      case 'view':
        this.#epoch = event.view.epoch;
        this.#members = event.view.members.map(({ peerId, site }, rank) => ({
          peerId,
          rank,
          site,
          path: this.#paths.get(peerId) ?? null,
        }));
        this.#observer?.note({
          type: 'view',
          epoch: this.#epoch,
          members: this.#members.map(({ peerId, rank }) => ({ peerId, rank })),
        });
        this.#emit('view', { epoch: this.#epoch, members: this.#members });
        break;
      case 'peer-lost':
        this.#paths.delete(event.peerId);
        this.#observer?.note({ type: 'peer-lost', peer: event.peerId, reason: event.reason, epoch: event.epoch });
        this.#emit('peer-lost', { peerId: event.peerId, reason: event.reason, epoch: event.epoch });
        break;
      case 'slow-peer': {
        const detail = { ...event.slow, epoch: event.epoch };
        this.#observer?.note({ type: 'slow-peer', peer: detail.peerId, waitedMs: detail.waitedMs });
        this.#emit('slow-peer', detail);
        break;
      }
      case 'path':
        if (event.path === null) this.#paths.delete(event.peerId);
        else this.#paths.set(event.peerId, event.path);
        this.#members = this.#members.map((one) => (one.peerId === event.peerId ? { ...one, path: event.path } : one));
        break;
      case 'coordinator-lost':
        this.#observer?.note({ type: 'coordinator-lost' });
        this.#emit('coordinator-lost', { reason: event.reason });
        break;
      case 'coordinator-back':
        this.#observer?.note({ type: 'coordinator-back' });
        this.#emit('coordinator-back', {});
        break;
      case 'notes':
        this.#onNotes?.(event.message);
        break;
      case 'refused':
        this.#emit('refused', { reason: event.reason });
        break;
      case 'evicted':
        this.#observer?.note({ type: 'evicted', reason: event.reason });
        break; // told by the EvictedError of every open and later call
      default:
        event satisfies never;
    }
  }

  #emit<E extends keyof GroupEvents>(event: E, detail: GroupEvents[E]): void {
    for (const listener of this.#listeners[event]) listener(detail);
  }
}
