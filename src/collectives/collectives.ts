/**
 * All collectives of one peer: gives calls their numbers, announces them, runs their attempts, and carries out what the
 * coordinator decides. A machine without socket or clock; the engine feeds it and lends it the ways out (`Surroundings`).
 */

import {
  ArgumentError,
  ExcludedError,
  MismatchError,
  PeerLostError,
  PoisonedInputError,
  QuorumError,
  type SkeinError,
  WithdrawnError,
} from '../errors.ts';
import { Recent } from '../recent.ts';
import { DTYPE_BYTES, isFloat } from '../tensor.ts';
import type { CoordinatorMessage } from '../wire/coordinator-messages.ts';
import type { FlightCall, FlightDump } from '../wire/flight.ts';
import {
  emptyHeader,
  FRAME_CREDIT,
  FRAME_DATA,
  FRAME_OPEN,
  type FrameHeader,
  HEADER_BYTES,
  hashTag,
  writeHeader,
} from '../wire/frame.ts';
import {
  MAX_OPEN_COLLECTIVES,
  MAX_RELAY_QUEUE_BYTES,
  MAX_REPORTED_FAILURES,
  MAX_RESIDUALS,
  MAX_TAGS,
  MAX_TEXT_LENGTH,
  MAX_TOLD_STRAGGLING,
} from '../wire/limits.ts';
import type { Exclusion, FinishedRanges, HeldResult } from '../wire/parts.ts';
import type { Excludable, PeerMessage } from '../wire/peer-messages.ts';
import { commonSpans, restOf } from '../wire/ranges.ts';
import { announce, parseDescription, sameBytes } from './announcement.ts';
import { type Arrival, Arrivals } from './arrivals.ts';
import { type CallListener, type CallSpec, describe, type PeerId } from './call.ts';
import { wireLength } from './codec.ts';
import { Context, type Member, type TagState, type Verdict, type ViewOf } from './context.ts';
import { FrameCursor, Transfer } from './executor.ts';
import { FlightRecorder } from './flight.ts';
import { poisonIn } from './guard.ts';
import { type Attempt, type AttemptPort, Operation } from './operation.ts';
import { peersOf } from './peers.ts';
import { Pieces } from './pieces.ts';
import { makePlan, sitesOf, tensorSizes } from './plan.ts';
import { type LinkPort, Ports } from './ports.ts';
import type { Algorithm, CollectiveKind, Plan, Rank, Sites, Task } from './program.ts';
import { type Expansion, planOf, worldOf } from './program-code.ts';
import { Envelope, type Path, readInner, readPath, relayHeader } from './relay.ts';
import { type Feedback, Residuals } from './residuals.ts';
import { ORDERLESS } from './ring.ts';
import { type Cut, Cuts } from './routes.ts';
import { contributedRanges, finishedOf, keepOf, spreadPlan } from './salvage.ts';
import { chooseAlgorithm } from './select.ts';
import type { Workspace } from './workspace.ts';

export interface Surroundings {
  readonly self: PeerId;
  readonly workspace: Workspace;
  /** Milliseconds, monotonic. */
  now(): number;
  link(peerId: PeerId): LinkPort;
  /** Whether the coordinator has introduced a peer. */
  knows(peerId: PeerId): boolean;
  /** To the coordinator. */
  control(message: PeerMessage): void;
  takeScratch(byteLength: number): Uint8Array;
  giveScratch(memory: Uint8Array): void;
}

/** A call that failed here when this rank had said that it holds the result: the others may have it committed all the same. */
interface Unsettled {
  readonly tag: string;
  readonly epoch: number;
  /** What error feedback keeps depends on how the call ended for them. */
  readonly feedback: Feedback | null;
}

/** How calls wait for a peer. */
interface Wait {
  due: boolean;
  blocked: boolean;
  readonly calls: Excludable[];
}

/** A call that failed for all members. */
export interface FailedCall {
  readonly id: string;
  readonly generation: number;
  readonly code: Exclude<Verdict['code'], 'excluded'>;
  readonly message: string;
}

/** What a rank tells of its collectives when a member or a link was lost. */
export interface Holdings {
  /** Stand still, and this rank holds the whole result; after `resumed` also those committed lately. */
  readonly held: readonly HeldResult[];
  /** Eager calls that have returned here. */
  readonly returned: readonly string[];
  /** What is finished of calls that salvage what they can. */
  readonly finished: readonly FinishedRanges[];
}

/** Calls younger than this wait for nobody in particular (ms). */
const WORTH_WATCHING_MS = 200;

/** Plans kept for calls of the same shape. */
const MAX_CACHED_PLANS = 64;

export class Collectives {
  readonly #around: Surroundings;
  readonly #contexts: Map<number, Context> = new Map();
  readonly #arrivals: Arrivals = new Arrivals();
  readonly #plans: Map<string, Plan> = new Map();
  readonly #ports: Ports;
  readonly #replay: FrameCursor = new FrameCursor();
  #current: Context | null = null;
  /**
   * Calls that were committed here. A member that missed the commit has them open still, and not more of them than may be
   * open at once: so many are remembered.
   */
  readonly #committed: Recent<HeldResult> = new Recent(MAX_OPEN_COLLECTIVES);
  /** Eager calls that have returned here: others may still have to make them when a member is lost. */
  readonly #returned: Recent<string> = new Recent(MAX_OPEN_COLLECTIVES);
  /** Calls that failed for all, of which a coordinator that was restarted must know. */
  readonly #failures: Recent<FailedCall> = new Recent(MAX_REPORTED_FAILURES);
  /** Calls that go on without somebody, of which a coordinator that was restarted must know. */
  readonly #exclusions: Recent<Exclusion> = new Recent(MAX_REPORTED_FAILURES);
  /** The coordinator has not decided yet what becomes of what the last loss concerns. */
  #undecided = false;

  readonly #flight: FlightRecorder;
  readonly #residuals: Residuals;
  /** Of calls that failed here while they could still be committed: whether their parts counted is not known yet. */
  readonly #unsettled: Map<string, Unsettled> = new Map();

  constructor(around: Surroundings) {
    this.#around = around;
    this.#ports = new Ports(around);
    this.#residuals = new Residuals(around);
    this.#flight = new FlightRecorder(() => around.now());
  }

  // --- calls -------------------------------------------------------------------------------------------------------

  /** Takes a call; its outcome goes to the listener, sooner or later, exactly once. */
  call(spec: CallSpec, listener: CallListener): Operation {
    const operation = new Operation(spec, listener, this.#around.now());
    operation.flight = this.#flight.open(operation);
    if (this.openCount >= MAX_OPEN_COLLECTIVES) {
      const message = `${MAX_OPEN_COLLECTIVES} collectives are open already: await some of them before you call more.`;
      this.#settle(operation, new ArgumentError(message, { op: operation.title }));
    } else if (spec.errorFeedback && this.#residuals.isFullFor(spec.tag)) {
      const message = `\`errorFeedback\` is kept under ${MAX_RESIDUALS} tags already: reuse tags, or drop some (\`dropErrorFeedback\`).`;
      this.#settle(operation, new ArgumentError(message, { op: operation.title }));
    } else {
      this.#enter(operation);
    }
    return operation;
  }

  /** The caller has filled elements `start` to `end` of an input that comes in parts, each once. */
  ready(operation: Operation, start: number, end: number): void {
    const { attempt, ready, state, feedback, call, kept, input } = operation;
    if (ready?.add(start, end) !== true || state !== 'running' || attempt === null) return;
    const anew = commonSpans(restOf(kept, call.count), [{ start, end }]);
    if (feedback !== null) this.#residuals.correct(feedback, input, anew);
    attempt.transfer.ready(start, end);
  }

  /** Forgets what codecs dropped under a tag, or under all (null). */
  dropResiduals(tag: string | null): void {
    this.#residuals.drop(tag);
  }

  /** The caller has lost interest. Its promise is settled with `error` as soon as that is safe. */
  abandon(operation: Operation, error: SkeinError): void {
    if (operation.state !== 'ended' && operation.state !== 'failing') this.#fail(operation, error, true);
  }

  /** Ends what has run out of time. To be called every few dozen milliseconds. */
  tick(): void {
    const now = this.#around.now();
    for (const operation of this.open()) {
      if (operation.state === 'failing' || now < operation.deadline) continue;
      if (operation.state === 'waiting') this.#fail(operation, this.#quorumError(operation, 'Start more peers'), false);
      else this.#fail(operation, operation.timeoutError(now), true);
    }
  }

  /** Ends every call: the peer leaves, was evicted, or lost its coordinator. */
  failAll(makeError: (operation: Operation) => SkeinError): void {
    for (const operation of this.open()) {
      if (operation.state !== 'failing') this.#fail(operation, makeError(operation), false);
    }
  }

  open(): Operation[] {
    const all: Operation[] = [];
    for (const context of this.#contexts.values()) if (context.openCount > 0) all.push(...context.operations());
    return all;
  }

  get openCount(): number {
    let count = 0;
    for (const context of this.#contexts.values()) count += context.openCount;
    return count;
  }

  /**
   * What is remembered of the last `limit` calls that have ended, oldest first, and then of all that are open.
   *
   * @param wall milliseconds since 1970 at the engine's time 0
   */
  flight(limit: number, wall: number): FlightCall[] {
    const open = this.open().flatMap(({ flight }) => flight ?? []);
    return this.#flight.tell(open, limit, wall, this.#around.self);
  }

  /** The number that the next call under each tag will have, in the present generation. */
  get next(): FlightDump['next'] {
    return this.#current?.next ?? [];
  }

  /** The present view's ring, each sending to the next and the last to the first. */
  get ring(): readonly PeerId[] {
    return this.#current?.ringOf(this.#current.members).map(({ peerId }) => peerId) ?? [];
  }

  /** Oldest generation in which a collective is open, or the current one. */
  get oldestGeneration(): number {
    let oldest = this.#current?.generation ?? 0;
    for (const context of this.#contexts.values()) oldest = Math.min(oldest, context.generation);
    return oldest;
  }

  /** Every other member of its view finds the same, so none has to be told. */
  #quorumError(operation: Operation, remedy: string): QuorumError {
    const { title, call, epoch, members } = operation;
    const elapsed = Math.round(this.#around.now() - operation.startedAt);
    const message = `${title} waited ${elapsed} ms for ${call.minWorldSize} members; there are ${members.length} in its view. ${remedy}, or lower \`minWorldSize\`.`;
    return new QuorumError(message, { op: title, epoch, elapsed, phase: 'quorum' });
  }

  // --- views -------------------------------------------------------------------------------------------------------

  /** A boundary made a new view; calls from now on belong to it, open ones keep theirs. */
  onView(view: ViewOf): void {
    const previous = this.#current;
    this.#current = new Context(view);
    this.#current.undecided = this.#undecided && view.epoch > view.generation;
    this.#contexts.set(view.generation, this.#current);
    if (previous !== null) this.#forget(previous);
    this.#arrivals.dropBefore(this.oldestGeneration);
    for (const operation of this.open())
      if (operation.state === 'waiting') this.#fail(operation, this.#quorumError(operation, CALL_AGAIN), false);
  }

  /**
   * Members were lost, or the link between two: attempts that involve them stand still. `resumed`: messages may have been
   * lost, so everything stands still.
   * @returns what this rank must tell of the collectives that are concerned
   */
  onLoss(
    epoch: number,
    lost: readonly PeerId[],
    broken: readonly [PeerId, PeerId] | null,
    cuts: readonly Cut[],
    resumed: boolean,
  ): Holdings {
    const returned = [...this.#returned.values];
    this.#undecided = true;
    for (const context of this.#contexts.values()) {
      const loses = lost.some((peerId) => context.has(peerId));
      const breaks = broken !== null && context.has(broken[0]) && context.has(broken[1]);
      if (!loses && !breaks && !resumed) continue;
      context.epoch = epoch;
      context.undecided = true;
      context.cuts = new Cuts(cuts);
      context.members = context.members.filter((member) => !lost.includes(member.peerId));
      for (const operation of [...context.operations()]) {
        // It returns as soon as the links have let go of its bytes.
        if (operation.state === 'held' && operation.call.consistency === 'eager') returned.push(operation.id);
        this.#freeze(operation, lost);
      }
    }
    for (const peerId of lost) this.forget(peerId);
    const frozen = this.open().filter((operation) => operation.state === 'frozen');
    const held = frozen.filter((operation) => operation.attempt?.transfer.held === true);
    const unsettled = [...this.#unsettled].map(([id, { epoch }]) => ({ id, epoch }));
    // Messages may have been lost that told what became of these.
    const known = resumed ? [...unsettled, ...this.#committed.values] : [];
    return {
      finished: finishedOf(frozen),
      held: [...held.map(({ id, attempt }) => ({ id, epoch: attempt?.epoch ?? 0 })), ...known].slice(
        0,
        2 * MAX_OPEN_COLLECTIVES,
      ),
      returned: returned.slice(-MAX_OPEN_COLLECTIVES),
    };
  }

  /** A peer is gone: what it sent ahead of its calls will not be asked for. */
  forget(peerId: PeerId): void {
    this.#arrivals.dropFrom(peerId);
  }

  #freeze(operation: Operation, lost: readonly PeerId[]): void {
    const { attempt, state } = operation;
    if (attempt === null || state === 'failing') return;
    if (operation.call.consistency === 'eager') {
      // Some members may have returned already, so nobody can redo it.
      if (!attempt.transfer.held)
        this.#fail(operation, operation.peerLostError(lost, this.#around.now(), EAGER_HINT), true);
      return;
    }
    if (!attempt.transfer.held) attempt.transfer.cancel();
    operation.state = 'frozen';
  }

  /** The coordinator's decision on everything that stands still. */
  onDecide(committed: readonly HeldResult[], kept: readonly FinishedRanges[]): void {
    const salvaged = new Map(kept.map(({ id, ranges }) => [id, ranges]));
    const commits = new Map(committed.map(({ id, epoch }) => [id, epoch]));
    this.#undecided = false;
    for (const [id, { epoch }] of [...this.#unsettled]) if (commits.get(id) === epoch) this.#learn(id, true);
    for (const context of [...this.#contexts.values()]) {
      context.undecided = false;
      for (const operation of [...context.operations()]) {
        if (operation.state !== 'frozen') continue;
        const { attempt } = operation;
        // Only what every survivor said that it holds is committed, so this rank does: who says otherwise is not believed.
        if (attempt?.transfer.held === true && commits.get(operation.id) === attempt.epoch) this.#commit(operation);
        else if (operation.call.recovery === 'fail' && operation.attempt !== null) {
          const lost = operation.attempt?.members.filter((member) => !context.has(member.peerId)) ?? [];
          const error = operation.peerLostError(
            lost.map((member) => member.peerId),
            this.#around.now(),
            FAIL_HINT,
          );
          this.#fail(operation, error, true);
        } else {
          keepOf(operation, salvaged.get(operation.id) ?? []);
          this.#begin(operation);
        }
      }
    }
  }

  onCommit(message: Extract<CoordinatorMessage, { type: 'commit' }>): void {
    if (this.#unsettled.get(message.id)?.epoch === message.epoch) this.#learn(message.id, true);
    const operation = this.#byId(message.id);
    if (operation?.attempt?.epoch !== message.epoch || !operation.attempt.transfer.held) return;
    this.#commit(operation);
  }

  /** The coordinator failed a collective for all its members; this one may not have called it yet. */
  onFail(message: Omit<Extract<CoordinatorMessage, { type: 'fail' }>, 'type'>): void {
    const { generation, tag, sequence } = parseId(message.id);
    const { id, code, message: text } = message;
    this.#failures.add({ id, generation, code, message: text });
    this.#learn(id, false);
    const context = this.#contexts.get(generation);
    const operation = this.#byId(message.id);
    if (operation !== undefined) {
      this.#settle(operation, operation.failure ?? this.#verdictError(operation, message));
      return;
    }
    // A verdict costs memory, and a tag that was not used here yet does: both are bounded for all tags together.
    if (context === undefined || context.verdicts >= MAX_OPEN_COLLECTIVES) return;
    const state = context.tag(tag);
    if (state === undefined || !(sequence >= state.nextSequence) || state.verdicts.has(sequence)) return;
    state.verdicts.set(sequence, message);
    context.verdicts += 1;
  }

  /**
   * A call goes on without some members. If this is one of them, the call fails here, whether it was made yet or not; its
   * bytes in flight can't reach anybody's result any more.
   */
  onExclude(exclusion: Exclusion): void {
    const { generation, tag, sequence } = parseId(exclusion.id);
    const { self } = this.#around;
    const context = this.#contexts.get(generation);
    this.#exclusions.add(exclusion);
    const operation = this.#byId(exclusion.id);
    const isExcluded = exclusion.peers.includes(self);
    const verdict = { code: 'excluded', message: EXCLUDED_HINT, peerId: self } as const;
    if (operation !== undefined) {
      if (exclusion.epoch <= operation.epoch) return; // known
      if (isExcluded) this.#settle(operation, operation.failure ?? this.#verdictError(operation, verdict));
      else this.#goOnWithout(operation, exclusion);
      return;
    }
    if (context === undefined || context.verdicts >= MAX_OPEN_COLLECTIVES) return;
    const state = context.tag(tag);
    if (state === undefined || !(sequence >= state.nextSequence) || state.verdicts.has(sequence)) return;
    if (isExcluded) state.verdicts.set(sequence, verdict);
    else if (state.exclusions.has(sequence)) context.verdicts -= 1;
    if (!isExcluded) state.exclusions.set(sequence, exclusion);
    context.verdicts += 1;
  }

  #goOnWithout(operation: Operation, exclusion: Exclusion): void {
    operation.exclusion = exclusion;
    operation.kept = []; // those have a part in it
    // What stands still is begun when it is decided, and what has failed here fails all the same.
    if (operation.state === 'running' || operation.state === 'held') this.#begin(operation);
  }

  /** Calls that go on without somebody, oldest first. */
  get exclusions(): readonly Exclusion[] {
    return this.#exclusions.values;
  }

  #verdictError(operation: Operation, verdict: Verdict): SkeinError {
    const elapsed = Math.round(this.#around.now() - operation.startedAt);
    const context = {
      op: operation.title,
      peer: verdict.peerId,
      epoch: operation.context?.epoch,
      elapsed,
      phase: 'open',
    };
    const message = `${operation.title}: ${verdict.message}`;
    if (verdict.code === 'excluded') return new ExcludedError(message, context);
    if (verdict.code === 'lost') return new PeerLostError(`${message} ${EAGER_HINT}`, context);
    return verdict.code === 'mismatch' ? new MismatchError(message, context) : new WithdrawnError(message, context);
  }

  #byId(id: string): Operation | undefined {
    const { generation, tag, sequence } = parseId(id);
    const state = this.#contexts.get(generation)?.find(hashTag(tag));
    return state?.tag === tag ? findOpen(state, sequence) : undefined;
  }

  #forget(context: Context): void {
    if (context !== this.#current && context.openCount === 0) this.#contexts.delete(context.generation);
  }

  /** Calls that failed for all, oldest first. */
  get failures(): readonly FailedCall[] {
    return this.#failures.values;
  }

  // --- from call to attempt ----------------------------------------------------------------------------------------

  /** Gives a call its number in the current view. */
  #enter(operation: Operation): void {
    const context = this.#current!; // there is one since `join`
    const { call } = operation;
    const state = context.tag(call.tag);
    if (state === undefined) {
      const message = `The tag ${JSON.stringify(call.tag)} can't be used: more than ${MAX_TAGS} different tags since the last change of members, or one that hashes alike. Reuse tags.`;
      this.#settle(operation, new ArgumentError(message, { op: operation.title }));
      return;
    }
    operation.context = context;
    operation.tagState = state;
    operation.sequence = state.nextSequence++;
    state.open.push(operation);
    context.openCount += 1;
    operation.exclusion = state.exclusions.get(operation.sequence) ?? null;
    if (state.exclusions.delete(operation.sequence)) context.verdicts -= 1;
    const verdict = state.verdicts.get(operation.sequence);
    if (verdict === undefined) {
      // Not before: the others must learn which of their calls can't succeed.
      const poison = this.#poisonIn(operation);
      if (poison === null) this.#begin(operation);
      else this.#fail(operation, poison, true);
    } else {
      state.verdicts.delete(operation.sequence);
      context.verdicts -= 1;
      this.#settle(operation, this.#verdictError(operation, verdict));
    }
  }

  /** What is wrong with this rank's own input, if the call wants it looked at. */
  #poisonIn({ call, input, title, epoch }: Operation): SkeinError | null {
    const { guard, dtype, root } = call;
    // Where only the root has an input, the others' memory is for the result.
    const isOutput = ROOT_SENDS.has(call.kind) && root !== this.#around.self;
    if (guard === null || isOutput || !isFloat(dtype)) return null;
    const poison = poisonIn(this.#around.workspace, dtype, input, guard);
    if (poison === null) return null;
    const message = `${title} was stopped by its \`guard\`: ${poison}. Nothing was sent, no tensor has changed, and the call has failed for all members: find out what went wrong here, and go on with the next call.`;
    return new PoisonedInputError(message, { op: title, peer: this.#around.self, epoch, phase: 'guard' });
  }

  /** Starts an attempt among the members that are left. */
  #begin(operation: Operation): void {
    const context = operation.context!; // only entered operations are begun
    const { call, input, output } = operation;
    this.#retire(operation);
    const { members } = operation;
    if (members.length < call.minWorldSize) {
      // No newcomer will make a call that was made before it came, so in a later view it can't be made up for.
      operation.attempt = null;
      if (context === this.#current && operation.exclusion === null) operation.state = 'waiting';
      else this.#fail(operation, this.#quorumError(operation, CALL_AGAIN), false);
      return;
    }
    if (context.undecided) {
      // Some members may hold its result from before the loss, or have returned from it: the decision concerns us too.
      operation.state = 'frozen';
      return;
    }
    const { root: rooted } = call;
    const gone = rooted !== null && !members.some(({ peerId }) => peerId === rooted) ? [rooted] : [];
    if (gone.length > 0 || (call.laidOutFor !== null && call.laidOutFor !== members.length)) {
      this.#fail(operation, operation.peerLostError(gone, this.#around.now(), SHAPE_HINT), true);
      return;
    }
    const rest = restOf(operation.kept, call.count);
    const count = rest.reduce((sum, { start, end }) => sum + end - start, 0);
    const bytes = wireLength(call.dtype, call.codec, count);
    const sites = sitesOf(members.map((member) => member.site));
    const algorithm = this.#algorithmFor(operation, sites, bytes);
    if (algorithm === null) return;
    const order = algorithm === 'ring' && ORDERLESS.has(call.kind) ? context.ringOf(members) : members;
    const rank = order.findIndex((member) => member.peerId === this.#around.self);
    const root = call.root === null ? 0 : order.findIndex((member) => member.peerId === call.root);
    const task: Task = { kind: call.kind, worldSize: members.length, count, root };
    const sizes = tensorSizes({ ...task, count: call.count }, rank);
    const elementBytes = DTYPE_BYTES[call.dtype];
    if (sizes.input * elementBytes > input.length || sizes.output * elementBytes > output.length) {
      const message = `${operation.title} needs ${sizes.input} elements of input and ${sizes.output} of output on rank ${rank} of ${members.length}; it got ${input.length / elementBytes} and ${output.length / elementBytes}.`;
      this.#fail(operation, new ArgumentError(message, { op: operation.title, epoch: context.epoch }), true);
      return;
    }
    operation.retries += 1;
    operation.state = 'running';
    const plan = this.#plan(task, algorithm, sites, rank);
    const cut = operation.kept.length === 0 ? plan : spreadPlan(plan, rest);
    this.#startAttempt(operation, order, rank, cut, sizes.output * elementBytes, bytes);
  }

  /** What a call travels by among its present members; null: it has failed, for want of a program. */
  #algorithmFor(operation: Operation, sites: Sites, bytes: number): Algorithm | Expansion | null {
    const { kind, algorithm, codec, op } = operation.call;
    const choice = { kind, worldSize: sites.length, sites, bytes, codec, op };
    if (algorithm === 'auto') return chooseAlgorithm(choice, operation.context?.costs);
    if (typeof algorithm === 'string') return algorithm;
    const world = worldOf(algorithm, sites.length, codec !== 'f32');
    if (typeof world !== 'string') return world;
    const message = `${operation.title} can't be begun. ${world}`;
    this.#fail(operation, new ArgumentError(message, { op: operation.title, epoch: operation.epoch }), true);
    return null;
  }

  #startAttempt(
    operation: Operation,
    members: readonly Member[],
    rank: Rank,
    plan: Plan,
    outputBytes: number,
    bytes: number,
  ): void {
    const context = operation.context!; // set by #enter
    const { call } = operation;
    if (operation.result === null) {
      // The root of a broadcast keeps what it has.
      const keeps = call.kind === 'broadcast' && call.root === this.#around.self && call.codec === 'f32';
      const apart = call.atomic && !keeps && outputBytes > 0;
      operation.result = apart ? this.#buildIn(operation, outputBytes) : operation.output;
    }
    const corrected = call.errorFeedback ? this.#correct(operation) : null;
    const { generation } = context;
    const { epoch } = operation;
    const ports = new Map<PeerId, AttemptPort>();
    const frame = { epoch, generation, tag: hashTag(call.tag), sequence: operation.sequence };
    const scratch: Uint8Array[] = [];
    const transfer = new Transfer(this.#around.workspace, {
      plan,
      rank,
      frame,
      dtype: call.dtype,
      op: call.op,
      trim: call.trim,
      clipRadius: call.clipRadius,
      codec: call.codec,
      seed: call.rounding === 'stochastic' ? seedOf(operation, rank) : null,
      measures: call.measureError,
      dropped: corrected,
      contributors: members.length,
      input: corrected === null ? operation.input : new Pieces([corrected]),
      ready: operation.ready?.spans ?? null,
      output: operation.result,
      port: (to) => ports.get(members[to]!.peerId)!, // a port was made for every peer of the plan
      scratch: (byteLength) => {
        const memory = this.#around.takeScratch(byteLength);
        scratch.push(memory);
        return memory;
      },
      onHeld: () => this.#onHeld(operation, attempt),
      onDrained: () => this.#onDrained(operation, attempt),
      onProgress: (share) => operation.listener.onProgress(share),
      traffic: operation.flight,
      onFinished:
        call.stream?.handsBack === true
          ? (start, end) => operation.listener.onPart(start, end, operation.retries)
          : null,
    });
    const announcement = announce(operation, plan.algorithm, this.#around.workspace.segmentBytes, frame);
    operation.contributors.set(
      epoch,
      members.map((member) => member.peerId),
    );
    const attempt: Attempt = { epoch, members, algorithm: plan.algorithm, transfer, ports, announcement, scratch };
    operation.attempt = attempt;
    operation.flight?.begin(epoch, plan.algorithm, members.length);
    for (const to of peersOf(plan)) {
      const peerId = members[to]!.peerId;
      const port = this.#ports.open(context, peerId, bytes);
      ports.set(peerId, port);
      // What a small call sends at once goes with its announcement.
      this.#around.link(port.via).cork();
      port.announce(announcement);
      operation.flight?.neighbour(to, peerId);
      if (this.#around.link(port.via).up) operation.flight?.announced(to);
    }
    transfer.start();
    for (const { via } of ports.values()) this.#around.link(via).uncork();
    // Also where there was nothing to do: another peer may have announced something else.
    const isOpen = operation.state === 'running' || operation.state === 'held';
    if (operation.attempt === attempt && isOpen) this.#takeArrivals(operation, frame);
  }

  /** The input of a call with error feedback: what was dropped under its tag is added to what this attempt does anew. */
  #correct(operation: Operation): Uint8Array {
    const { call, kept, ready, input } = operation;
    const rest = restOf(kept, call.count);
    operation.feedback ??= this.#residuals.take(call.tag, call.count * DTYPE_BYTES[call.dtype]);
    this.#residuals.correct(operation.feedback, input, ready === null ? rest : commonSpans(rest, ready.spans));
    return operation.feedback.corrected;
  }

  #plan(task: Task, algorithm: Algorithm | Expansion, sites: Sites, rank: Rank): Plan {
    const isOwn = typeof algorithm !== 'string';
    const label = isOwn ? algorithm.label : algorithm;
    const where = algorithm === 'hierarchical' ? sites.join() : '';
    const key = `${task.kind}/${label}/${task.worldSize}/${task.count}/${task.root}/${rank}/${where}`;
    let plan = this.#plans.get(key);
    if (plan === undefined) {
      plan = isOwn ? planOf(algorithm, rank, task.count) : makePlan({ ...task, algorithm, sites }, rank);
      if (this.#plans.size >= MAX_CACHED_PLANS) this.#plans.clear();
      this.#plans.set(key, plan);
    }
    return plan;
  }

  #buildIn(operation: Operation, byteLength: number): Pieces {
    operation.scratch = this.#around.takeScratch(byteLength);
    return new Pieces([operation.scratch]);
  }

  // --- what arrives ------------------------------------------------------------------------------------------------

  /** A link to a peer has come up (again): calls that wait for it are announced. */
  onLinkUp(peerId: PeerId): void {
    for (const { attempt, state, flight } of this.open()) {
      if (state !== 'running' || attempt === null) continue;
      for (const [to, port] of attempt.ports) {
        if (port.via !== peerId) continue;
        port.announce(attempt.announcement);
        flight?.announced(rankIn(attempt, to));
      }
    }
    this.pump();
  }

  /**
   * Peers of which something should arrive, as an attempt here is under way with them or through them. Also when this rank
   * has done its part: what it sent may never have left the kernel. Where one way is cut others may be, so there all are watched.
   */
  awaited(): Set<PeerId> {
    const awaited = new Set<PeerId>();
    for (const { attempt, state, context } of this.open()) {
      if ((state !== 'running' && state !== 'held') || attempt === null) continue;
      if (context?.cuts.empty === false) for (const { peerId } of attempt.members) awaited.add(peerId);
      else for (const { via } of attempt.ports.values()) awaited.add(via);
    }
    awaited.delete(this.#around.self);
    return awaited;
  }

  /**
   * Whom calls that have been under way for a while wait for: `due`, something should come from it; `blocked`, its link takes
   * no more; `calls`, those that could do without it.
   */
  waitsOn(): Map<PeerId, Wait> {
    const waits = new Map<PeerId, Wait>();
    const old = this.#around.now() - WORTH_WATCHING_MS;
    for (const operation of this.open()) {
      const { attempt, state, startedAt } = operation;
      if (state !== 'running' || attempt === null || startedAt > old) continue;
      const { id, spare } = operation;
      const due = new Set(attempt.transfer.waitsFor.map((rank) => attempt.members[rank]?.peerId));
      for (const [peerId, port] of attempt.ports) {
        const wait = waits.get(peerId) ?? { due: false, blocked: false, calls: [] };
        const isDue = due.has(peerId) || !port.allowed;
        wait.due ||= isDue;
        if (isDue && spare > 0 && wait.calls.length < MAX_TOLD_STRAGGLING)
          wait.calls.push({ id, epoch: attempt.epoch, spare });
        wait.blocked ||= port.allowed && !port.writable;
        waits.set(peerId, wait);
      }
    }
    return waits;
  }

  /**
   * A relayed frame came in whole: hands it on, or takes it if this is where it goes. What can't be handed on is dropped:
   * whoever lost the way says so to the coordinator, and the attempt is begun anew round it.
   *
   * @returns what is wrong with it, or null
   */
  onRelayed({ from, header, payload }: Arrival): string | null {
    const path = readPath(header, payload);
    if (typeof path === 'string') return path;
    const at = path.indexOf(this.#around.self);
    if (at < 1 || path[at - 1] !== from) return 'it sent a relayed frame by a path that does not lead here';
    const next = path[at + 1];
    if (next === undefined) return this.#takeRelayed(path, header, payload);
    const link = this.#around.link(next);
    if (!link.up) return null;
    if (link.queuedBytes > MAX_RELAY_QUEUE_BYTES) return 'it has more relayed than the protocol allows';
    // In order, as nobody looks inside: the data of a call must not overtake its announcement.
    link.send(relayHeader(header.chunk, payload.length), payload, null, true);
    return null;
  }

  #takeRelayed(path: Path, header: FrameHeader, payload: Uint8Array): string | null {
    const inner = readInner(header, payload);
    if (typeof inner === 'string') return inner;
    const source = path[0]!; // a path has at least three members
    if (inner.header.type === FRAME_CREDIT) {
      const target = this.route(source, inner.header);
      if (typeof target === 'string') return null;
      target.attempt?.ports.get(source)?.credit?.(inner.header.segment);
      target.attempt?.transfer.pump();
      return null;
    }
    if (!path.every((peerId) => peerId === this.#around.self || this.#around.knows(peerId))) return null;
    const error = this.deliver({ from: source, path, header: inner.header, payload: inner.payload });
    if (error === null && inner.header.type === FRAME_DATA) this.#giveCredit(path, inner.header);
    return error;
  }

  #isRoute({ context }: Operation, path: Path): boolean {
    return context?.cuts.has(path[0]!, this.#around.self) === true && path.every((peerId) => context.has(peerId));
  }

  #giveCredit(path: Path, { epoch, generation, tag, sequence, length }: FrameHeader): void {
    const back = [...path].reverse();
    const segment = HEADER_BYTES + length;
    const head = new Uint8Array(HEADER_BYTES);
    const credit = { ...emptyHeader(), type: FRAME_CREDIT, epoch, generation, tag, sequence, segment };
    writeHeader(new DataView(head.buffer), 0, credit);
    const link = this.#around.link(back[1]!); // it came through that one
    if (link.up) link.send(new Envelope(back).wrap(head, 0), null, null, false);
  }

  /** Gives segments to every link that takes them. To be called when a link has become writable. */
  pump(): void {
    for (const context of this.#contexts.values()) {
      if (context.openCount === 0) continue;
      for (const operation of context.operations()) operation.attempt?.transfer.pump();
    }
  }

  /** What to do with a data frame: the transfer it belongs to, `keep` it for later, or `drop` it. */
  route(from: PeerId, header: FrameHeader): Operation | 'keep' | 'drop' {
    const context = this.#contexts.get(header.generation);
    if (context === undefined) return header.generation > (this.#current?.generation ?? 0) ? 'keep' : 'drop';
    const state = context.find(header.tag);
    const operation = state === undefined ? undefined : findOpen(state, header.sequence);
    if (operation === undefined) return header.sequence >= (state?.nextSequence ?? 0) ? 'keep' : 'drop';
    // Without an attempt (it waits for a decision) no frame is for it yet, not even one that claims epoch 0.
    const epoch = operation.attempt?.epoch ?? 0;
    if (header.epoch > epoch) return 'keep';
    const live = operation.attempt !== null && header.epoch === epoch && !operation.mismatched.has(from);
    return live ? operation : 'drop';
  }

  /** Stores a frame for a call that has not been made here yet; what is wrong, or null. */
  keep(arrival: Arrival): string | null {
    return this.#arrivals.keep(arrival);
  }

  /** A whole frame, announced or kept: hands it to where it belongs now. */
  deliver(arrival: Arrival): string | null {
    const { from, header } = arrival;
    const target = this.route(from, header);
    if (target === 'drop') return null;
    if (target === 'keep') return this.keep(arrival);
    // Whoever relays speaks for another: believed only of members, and only where this rank goes round a cut as well.
    if (arrival.path !== null && !this.#isRoute(target, arrival.path)) return null;
    if (header.type === FRAME_OPEN) return this.#onOpen(target, arrival);
    const attempt = target.attempt!; // route compared its epoch
    const error = attempt.transfer.beginFrame(this.#replay, rankIn(attempt, from), header);
    if (error !== null) return error;
    attempt.transfer.payload(this.#replay, arrival.payload, 0, arrival.payload.length);
    attempt.transfer.endFrame(this.#replay);
    return null;
  }

  #takeArrivals(operation: Operation, frame: Pick<FrameHeader, 'generation' | 'tag' | 'sequence'>): void {
    for (const arrival of this.#arrivals.take(frame.generation, frame.tag, frame.sequence)) {
      if (operation.state === 'ended') return;
      this.deliver(arrival);
    }
  }

  /** A peer announces the same number: it must have made the same call. */
  #onOpen(operation: Operation, arrival: Arrival): string | null {
    const { from, payload } = arrival;
    const attempt = operation.attempt!; // route compared its epoch
    // Whoever is in no view with us must not be able to fail what its members do.
    if (rankIn(attempt, from) < 0) return 'it announced a call in which it has no part';
    if (!sameBytes(payload, attempt.announcement.subarray(HEADER_BYTES))) {
      const parsed = parseDescription(payload);
      if (!parsed.ok) return parsed.error;
      operation.mismatched.add(from);
      const mine = operation.summary(attempt.algorithm, this.#around.workspace.segmentBytes);
      const theirs = describe(parsed.value);
      const generation = operation.context!.generation; // it has a number
      const { id } = operation;
      this.#around.control({ type: 'mismatch', id, generation, mine, theirs, with: from });
      this.#failures.add({ id, generation, code: 'mismatch', message: `${mine} here, ${theirs} on ${from}` });
      return null;
    }
    const port = attempt.ports.get(from);
    if (port === undefined) return null;
    this.#ports.uncharge(from, port);
    port.allowed = true;
    operation.flight?.called(rankIn(attempt, from));
    attempt.transfer.pump();
    return null;
  }

  // --- endings -----------------------------------------------------------------------------------------------------

  #onHeld(operation: Operation, attempt: Attempt): void {
    if (operation.state !== 'running') return;
    operation.state = 'held';
    operation.flight?.done();
    operation.attempt = attempt;
    if (attempt.members.length === 1) this.#commit(operation);
    else if (operation.call.consistency === 'eager') {
      // Its caller may write into its tensors again when the links have taken all its bytes.
      if (attempt.transfer.drained) this.#commit(operation);
    } else {
      const generation = operation.context!.generation; // it has a number
      const { id, spare } = operation;
      this.#around.control({ type: 'done', id, generation, epoch: attempt.epoch, spare });
    }
  }

  /** The links have let go of an attempt's bytes: what waited for that ends. */
  #onDrained(operation: Operation, attempt: Attempt): void {
    if (operation.attempt !== attempt) return;
    if (operation.state === 'failing') {
      this.#leaveUnsettled(operation, attempt);
      this.#settle(operation, operation.failure!); // set with that state
    } else if (operation.state === 'held' && operation.call.consistency === 'eager') this.#commit(operation);
  }

  #commit(operation: Operation): void {
    const attempt = operation.attempt!; // it holds a result
    const { call, scratch } = operation;
    if (scratch !== null) operation.output.set(scratch, 0);
    if (operation.feedback !== null) this.#residuals.settle(call.tag, operation.feedback, true);
    operation.feedback = null;
    const { id, retries } = operation;
    if (attempt.members.length > 1) {
      if (call.consistency === 'eager') this.#returned.add(id);
      else this.#committed.add({ id, epoch: attempt.epoch });
    }
    this.#retire(operation);
    this.#end(operation, null);
    operation.listener.onSettled({
      ok: true,
      report: {
        id,
        epoch: attempt.epoch,
        worldSize: attempt.members.length,
        contributors: attempt.members.map((member) => member.peerId),
        ranges: contributedRanges(operation, attempt),
        algorithm: attempt.algorithm,
        codec: call.codec,
        error: call.measureError ? errorOf(attempt.transfer) : null,
        retries,
        bytesSent: operation.bytesSent,
        bytesReceived: operation.bytesReceived,
        seconds: (this.#around.now() - operation.startedAt) / 1_000,
      },
    });
  }

  /**
   * A call fails on this peer. Unless all know (`tell` is false), the coordinator fails it for the others, who would wait
   * in vain; if it had promised to hold the result, the coordinator's answer is awaited while bytes are in flight.
   */
  #fail(operation: Operation, error: SkeinError, tell: boolean): void {
    const { attempt, context } = operation;
    if (tell && context !== null) {
      const { id } = operation;
      const { generation } = context;
      const reason = error.message.slice(0, MAX_TEXT_LENGTH);
      this.#around.control({ type: 'withdraw', id, generation, reason });
      this.#failures.add({ id, generation, code: 'withdrawn', message: reason });
    }
    const mayCommit = attempt?.transfer.held === true || operation.call.consistency === 'eager';
    if (tell && attempt?.transfer.held === true && attempt.transfer.drained) this.#leaveUnsettled(operation, attempt);
    if (attempt !== null && !attempt.transfer.held) attempt.transfer.cancel();
    if (attempt === null || !mayCommit || attempt.transfer.drained) {
      this.#settle(operation, error);
    } else {
      operation.state = 'failing';
      operation.failure = error;
    }
  }

  #leaveUnsettled(operation: Operation, { epoch }: Attempt): void {
    const { id, feedback } = operation;
    if (operation.call.consistency === 'eager') return;
    this.#unsettled.set(id, { tag: operation.call.tag, epoch, feedback });
    operation.feedback = null;
    for (const oldest of this.#unsettled.keys()) {
      if (this.#unsettled.size <= MAX_OPEN_COLLECTIVES) break;
      this.#learn(oldest, false);
    }
  }

  /** Whether a call that failed here was committed by the others. */
  #learn(id: string, committed: boolean): void {
    const left = this.#unsettled.get(id);
    if (left === undefined) return;
    this.#unsettled.delete(id);
    // Asked after messages were lost, it says so like those for which the call succeeded.
    if (committed) this.#committed.add({ id, epoch: left.epoch });
    if (left.feedback !== null) this.#residuals.settle(left.tag, left.feedback, committed);
  }

  #settle(operation: Operation, error: SkeinError): void {
    if (operation.state === 'ended') return;
    this.#retire(operation);
    this.#end(operation, error);
    operation.listener.onSettled({ ok: false, error });
  }

  /**
   * Puts an attempt behind: counts its bytes, stops it, and gives its ports back. Frames of it that are still queued may
   * carry garbage from now on: no receiver can bring that attempt to a commit any more, as this rank did not hold its result.
   */
  #retire(operation: Operation): void {
    const { attempt } = operation;
    if (attempt === null) return;
    operation.bytesSent += attempt.transfer.bytesSent;
    operation.bytesReceived += attempt.transfer.bytesReceived;
    attempt.transfer.cancel();
    for (const memory of attempt.scratch.splice(0)) this.#around.giveScratch(memory);
    for (const [peerId, port] of attempt.ports) this.#ports.uncharge(peerId, port);
  }

  #end(operation: Operation, error: SkeinError | null): void {
    operation.flight?.end(error);
    operation.flight = null; // its place is used again
    operation.state = 'ended';
    this.#leaveContext(operation);
    if (operation.scratch !== null) this.#around.giveScratch(operation.scratch);
    operation.scratch = null;
    if (operation.feedback !== null) this.#residuals.settle(operation.call.tag, operation.feedback, false);
    operation.feedback = null;
  }

  #leaveContext(operation: Operation): void {
    const { context, tagState } = operation;
    if (context === null || tagState === null) return;
    const index = tagState.open.indexOf(operation);
    if (index < 0) return;
    tagState.open.splice(index, 1);
    context.openCount -= 1;
    this.#forget(context);
  }
}

const CALL_AGAIN = 'Call it again in the present view';
const EAGER_HINT =
  "With `consistency: 'eager'` it is not redone, as some members may have returned. Call it again, or use 'commit'.";
const EXCLUDED_HINT =
  'the others had waited for this peer too long, and went on without it. Its tensor is as it was, and it is still a member: take over their state, and go on with the next call.';
const FAIL_HINT = "It was not redone because the call asked for `recovery: 'fail'`.";
const SHAPE_HINT =
  'Its tensors were laid out for the members there were before: lay them out for the present view and call again.';

function errorOf({ droppedEnergy, encodedEnergy }: Transfer): number {
  return encodedEnergy === 0 ? 0 : Math.sqrt(droppedEnergy / encodedEnergy);
}

/** The same on every run with the same calls, and another for every call and rank: what ranks drop must not be alike. */
function seedOf({ id }: Operation, rank: Rank): number {
  return hashTag(`${id}:${rank}`) % 2 ** 32;
}

function findOpen(state: TagState, sequence: number): Operation | undefined {
  for (const operation of state.open) if (operation.sequence === sequence) return operation;
  return undefined;
}

/** Collectives to which the root alone contributes. */
const ROOT_SENDS: ReadonlySet<CollectiveKind> = new Set(['broadcast', 'scatter']);

/** Rank of a peer in an attempt; −1, which no program names, when it has no part in it. */
export function rankIn(attempt: Attempt, peerId: PeerId): number {
  return attempt.members.findIndex((member) => member.peerId === peerId);
}

/** Splits `generation:tag:sequence`; the tag itself may contain colons. */
function parseId(id: string): { generation: number; tag: string; sequence: number } {
  const first = id.indexOf(':');
  const last = id.lastIndexOf(':');
  return {
    generation: Number(id.slice(0, first)),
    tag: id.slice(first + 1, last),
    sequence: Number(id.slice(last + 1)),
  };
}
