/**
 * All collectives of one peer: gives calls their numbers and carries out what the coordinator decides. A machine without socket or
 * clock; the engine feeds it and lends it the ways out (`Surroundings`). Around it stand
 *
 *     contexts.ts     the views in which calls are open
 *     attempts.ts     from a call to an attempt at it
 *     delivery.ts     which attempt an arriving frame belongs to
 *     settlement.ts   how calls end
 *     sights.ts       for whom open calls wait
 *
 * Invariants: collectives are numbered per tag within a generation, in the order of calls, so that all members agree on every number.
 * Nothing is begun between a loss and its decision. Only the coordinator commits what more than one member holds.
 */
import { ArgumentError, PoisonedInputError, type SkeinError } from '../errors.ts';
import { Recent } from '../recent.ts';
import { isFloat } from '../tensor.ts';
import type { CoordinatorMessage } from '../wire/coordinator-messages.ts';
import type { FlightCall, FlightDump } from '../wire/flight.ts';
import { MAX_OPEN_COLLECTIVES, MAX_REPORTED_FAILURES, MAX_RESIDUALS, MAX_TAGS } from '../wire/limits.ts';
import type { Exclusion, FinishedRanges, HeldResult } from '../wire/parts.ts';
import { Attempts } from './attempts.ts';
import type { CallListener, CallSpec, PeerId } from './call.ts';
import {
  CALL_AGAIN,
  EAGER_HINT,
  EXCLUDED_HINT,
  FAIL_HINT,
  peerLostError,
  quorumError,
  timeoutError,
  verdictError,
} from './call-errors.ts';
import { Context, type Verdict, type ViewOf } from './context.ts';
import { Contexts, parseId } from './contexts.ts';
import { Delivery } from './delivery.ts';
import { FlightRecorder } from './flight.ts';
import { poisonIn } from './guard.ts';
import { Operation, rankIn } from './operation.ts';
import { Ports } from './ports.ts';
import type { CollectiveKind } from './program.ts';
import { Residuals } from './residuals.ts';
import { type Cut, Cuts } from './routes.ts';
import { finishedOf, keepOf } from './salvage.ts';
import { type FailedCall, Settlement } from './settlement.ts';
import { awaitedBy, type Wait, waitsOf } from './sights.ts';
import type { Surroundings } from './surroundings.ts';

/** What a rank tells of its collectives when a member or a link was lost. */
export interface Holdings {
  /** Stand still, and this rank holds the whole result; after `resumed` also those committed lately. */
  readonly held: readonly HeldResult[];
  /** Eager calls that have returned here. */
  readonly returned: readonly string[];
  /** What is finished of calls that salvage what they can. */
  readonly finished: readonly FinishedRanges[];
}

/** Collectives to which the root alone contributes. */
const ROOT_SENDS: ReadonlySet<CollectiveKind> = new Set(['broadcast', 'scatter']);

export class Collectives {
  /** Takes what arrives. */
  readonly delivery: Delivery;
  readonly #around: Surroundings;
  readonly #contexts: Contexts = new Contexts();
  readonly #settlement: Settlement;
  readonly #attempts: Attempts;
  readonly #residuals: Residuals;
  readonly #flight: FlightRecorder;
  /** Calls that go on without somebody, of which a coordinator that was restarted must know. */
  readonly #exclusions: Recent<Exclusion> = new Recent(MAX_REPORTED_FAILURES);
  /** The coordinator has not decided yet what becomes of what the last loss concerns. */
  #undecided = false;

  constructor(around: Surroundings) {
    this.#around = around;
    const ports = new Ports(around);
    this.#residuals = new Residuals(around);
    this.#flight = new FlightRecorder(() => around.now());
    this.#settlement = new Settlement(around, this.#contexts, ports, this.#residuals);
    this.#attempts = new Attempts(around, this.#contexts, ports, this.#residuals, this.#settlement);
    this.delivery = new Delivery(around, this.#contexts, ports, this.#settlement);
  }

  // --- calls -------------------------------------------------------------------------------------------------------

  /** Takes a call; its outcome goes to the listener, sooner or later, exactly once. */
  call(spec: CallSpec, listener: CallListener): Operation {
    const operation = new Operation(spec, listener, this.#around.now());
    operation.flight = this.#flight.open(operation);
    if (this.openCount >= MAX_OPEN_COLLECTIVES) {
      const message = `${MAX_OPEN_COLLECTIVES} collectives are open already: await some of them before you call more.`;
      this.#settlement.settle(operation, new ArgumentError(message, { op: operation.title }));
    } else if (spec.errorFeedback && this.#residuals.isFullFor(spec.tag)) {
      const message = `\`errorFeedback\` is kept under ${MAX_RESIDUALS} tags already: reuse tags, or drop some (\`dropErrorFeedback\`).`;
      this.#settlement.settle(operation, new ArgumentError(message, { op: operation.title }));
    } else {
      this.#enter(operation);
    }
    return operation;
  }

  /** Gives a call its number in the current view. */
  #enter(operation: Operation): void {
    const context = this.#contexts.current!; // there is one since `join`
    const { call } = operation;
    const state = context.tag(call.tag);
    if (state === undefined) {
      const message = `The tag ${JSON.stringify(call.tag)} can't be used: more than ${MAX_TAGS} different tags since the last change of members, or one that hashes alike. Reuse tags.`;
      this.#settlement.settle(operation, new ArgumentError(message, { op: operation.title }));
      return;
    }
    const verdict = context.enter(operation, state);
    if (verdict !== null) {
      this.#settlement.settle(operation, verdictError(operation, verdict, this.#around.now()));
      return;
    }
    // Not before: the others must learn which of their calls can't succeed.
    const poison = this.#poisonIn(operation);
    if (poison === null) this.#begin(operation);
    else this.#settlement.fail(operation, poison, true);
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

  #begin(operation: Operation): void {
    this.#attempts.begin(operation);
    this.delivery.takeKept(operation);
  }

  /** The caller has filled elements `start` to `end` of an input that comes in parts, each once. */
  ready(operation: Operation, start: number, end: number): void {
    this.#attempts.ready(operation, start, end);
  }

  /** Forgets what codecs dropped under a tag, or under all (null). */
  dropResiduals(tag: string | null): void {
    this.#residuals.drop(tag);
  }

  /** The caller has lost interest. Its promise is settled with `error` as soon as that is safe. */
  abandon(operation: Operation, error: SkeinError): void {
    if (operation.state !== 'ended' && operation.state !== 'failing') this.#settlement.fail(operation, error, true);
  }

  /** Ends what has run out of time. To be called every few dozen milliseconds. */
  tick(): void {
    const now = this.#around.now();
    for (const operation of this.open()) {
      if (operation.state === 'failing' || now < operation.deadline) continue;
      if (operation.state === 'waiting')
        this.#settlement.fail(operation, quorumError(operation, now, 'Start more peers'), false);
      else this.#settlement.fail(operation, timeoutError(operation, now), true);
    }
  }

  /** Ends every call: the peer leaves, was evicted, or lost its coordinator. */
  failAll(makeError: (operation: Operation) => SkeinError): void {
    for (const operation of this.open()) {
      if (operation.state !== 'failing') this.#settlement.fail(operation, makeError(operation), false);
    }
  }

  // --- what there is -----------------------------------------------------------------------------------------------

  open(): Operation[] {
    return this.#contexts.open();
  }

  get openCount(): number {
    return this.#contexts.openCount;
  }

  /** Oldest generation in which a collective is open, or the current one. */
  get oldestGeneration(): number {
    return this.#contexts.oldestGeneration;
  }

  /** Calls that failed for all, oldest first. */
  get failures(): readonly FailedCall[] {
    return this.#settlement.failures;
  }

  /** Calls that go on without somebody, oldest first. */
  get exclusions(): readonly Exclusion[] {
    return this.#exclusions.values;
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
    return this.#contexts.current?.next ?? [];
  }

  /** The present view's ring, each sending to the next and the last to the first. */
  get ring(): readonly PeerId[] {
    const { current } = this.#contexts;
    return current?.ringOf(current.members).map(({ peerId }) => peerId) ?? [];
  }

  /** Peers of which something should arrive. */
  awaited(): Set<PeerId> {
    return awaitedBy(this.open(), this.#around.self);
  }

  /** Whom calls that have been under way for a while wait for. */
  waitsOn(): Map<PeerId, Wait> {
    return waitsOf(this.open(), this.#around.now());
  }

  // --- links -------------------------------------------------------------------------------------------------------

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

  /** Gives segments to every link that takes them. To be called when a link has become writable. */
  pump(): void {
    for (const context of this.#contexts) {
      if (context.openCount === 0) continue;
      for (const operation of context.operations()) operation.attempt?.transfer.pump();
    }
  }

  /** A peer is gone: what it sent ahead of its calls will not be asked for. */
  forget(peerId: PeerId): void {
    this.delivery.forget(peerId);
  }

  // --- views, losses and decisions ---------------------------------------------------------------------------------

  /** A boundary made a new view; calls from now on belong to it, open ones keep theirs. */
  onView(view: ViewOf): void {
    const context = new Context(view);
    context.undecided = this.#undecided && view.epoch > view.generation;
    this.#contexts.enter(context);
    this.delivery.forgetBefore(this.oldestGeneration);
    for (const operation of this.open()) {
      if (operation.state !== 'waiting') continue;
      this.#settlement.fail(operation, quorumError(operation, this.#around.now(), CALL_AGAIN), false);
    }
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
    const returned = [...this.#settlement.returned];
    this.#undecided = true;
    for (const context of this.#contexts) {
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
    // Messages may have been lost that told what became of these.
    const known = resumed ? [...this.#settlement.unsettled, ...this.#settlement.committed] : [];
    return {
      finished: finishedOf(frozen),
      held: [...held.map(({ id, attempt }) => ({ id, epoch: attempt?.epoch ?? 0 })), ...known].slice(
        0,
        2 * MAX_OPEN_COLLECTIVES,
      ),
      returned: returned.slice(-MAX_OPEN_COLLECTIVES),
    };
  }

  #freeze(operation: Operation, lost: readonly PeerId[]): void {
    const { attempt, state } = operation;
    if (attempt === null || state === 'failing') return;
    if (operation.call.consistency === 'eager') {
      // Some members may have returned already, so nobody can redo it.
      if (!attempt.transfer.held)
        this.#settlement.fail(operation, peerLostError(operation, lost, this.#around.now(), EAGER_HINT), true);
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
    this.#settlement.onCommits(commits);
    for (const context of [...this.#contexts]) {
      context.undecided = false;
      for (const operation of [...context.operations()]) {
        if (operation.state !== 'frozen') continue;
        const { attempt } = operation;
        // Only what every survivor said that it holds is committed, so this rank does: who says otherwise is not believed.
        if (attempt?.transfer.held === true && commits.get(operation.id) === attempt.epoch)
          this.#settlement.commit(operation);
        else if (operation.call.recovery === 'fail' && attempt !== null) {
          const lost = attempt.members.filter((member) => !context.has(member.peerId)).map(({ peerId }) => peerId);
          this.#settlement.fail(operation, peerLostError(operation, lost, this.#around.now(), FAIL_HINT), true);
        } else {
          keepOf(operation, salvaged.get(operation.id) ?? []);
          this.#begin(operation);
        }
      }
    }
  }

  onCommit({ id, epoch }: Extract<CoordinatorMessage, { type: 'commit' }>): void {
    this.#settlement.onCommit({ id, epoch });
    const operation = this.#contexts.byId(id);
    if (operation?.attempt?.epoch !== epoch || !operation.attempt.transfer.held) return;
    this.#settlement.commit(operation);
  }

  /** The coordinator failed a collective for all its members; this one may not have called it yet. */
  onFail(message: Omit<Extract<CoordinatorMessage, { type: 'fail' }>, 'type'>): void {
    const { generation, tag, sequence } = parseId(message.id);
    const { id, code, message: text } = message;
    this.#settlement.onFailure({ id, generation, code, message: text });
    const operation = this.#contexts.byId(id);
    if (operation === undefined) this.#contexts.get(generation)?.foretellVerdict(tag, sequence, message);
    else this.#settleBy(operation, message);
  }

  /**
   * A call goes on without some members. If this is one of them, the call fails here, whether it was made yet or not; its
   * bytes in flight can't reach anybody's result any more.
   */
  onExclude(exclusion: Exclusion): void {
    const { generation, tag, sequence } = parseId(exclusion.id);
    const { self } = this.#around;
    this.#exclusions.add(exclusion);
    const operation = this.#contexts.byId(exclusion.id);
    const isExcluded = exclusion.peers.includes(self);
    const verdict = { code: 'excluded', message: EXCLUDED_HINT, peerId: self } as const;
    if (operation !== undefined) {
      if (exclusion.epoch <= operation.epoch) return; // known
      if (isExcluded) this.#settleBy(operation, verdict);
      else this.#goOnWithout(operation, exclusion);
      return;
    }
    const context = this.#contexts.get(generation);
    if (isExcluded) context?.foretellVerdict(tag, sequence, verdict);
    else context?.foretellExclusion(tag, sequence, exclusion);
  }

  #settleBy(operation: Operation, verdict: Verdict): void {
    const error = operation.failure ?? verdictError(operation, verdict, this.#around.now());
    this.#settlement.settle(operation, error);
  }

  #goOnWithout(operation: Operation, exclusion: Exclusion): void {
    operation.exclusion = exclusion;
    operation.kept = []; // those have a part in it
    // What stands still is begun when it is decided, and what has failed here fails all the same.
    if (operation.state === 'running' || operation.state === 'held') this.#begin(operation);
  }
}
