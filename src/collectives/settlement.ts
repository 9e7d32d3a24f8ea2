/**
 * How calls end: each exactly once, and for no two members differently, if that can be helped. A call *holds* its result and says
 * so; it is committed when the coordinator says that all do. What fails here fails for the others too, who would wait in vain.
 *
 * A call that had said that it holds its result may be committed by the others though it fails here (it is *unsettled*): what error
 * feedback keeps of it waits until that is known. A failure is told to the caller only when no link refers to its memory any more,
 * unless the call can't succeed anywhere.
 */
import type { SkeinError } from '../errors.ts';
import { Recent } from '../recent.ts';
import { MAX_OPEN_COLLECTIVES, MAX_REPORTED_FAILURES, MAX_TEXT_LENGTH } from '../wire/limits.ts';
import type { HeldResult } from '../wire/parts.ts';
import type { PeerId } from './call.ts';
import type { Verdict } from './context.ts';
import type { Contexts } from './contexts.ts';
import type { Attempt, Operation } from './operation.ts';
import type { Ports } from './ports.ts';
import type { Feedback, Residuals } from './residuals.ts';
import { contributedRanges } from './salvage.ts';
import type { Surroundings } from './surroundings.ts';

/** A call that failed for all members. */
export interface FailedCall {
  readonly id: string;
  readonly generation: number;
  readonly code: Exclude<Verdict['code'], 'excluded'>;
  readonly message: string;
}

/** A call that failed here when this rank had said that it holds the result: the others may have it committed all the same. */
interface Unsettled {
  readonly tag: string;
  readonly epoch: number;
  /** What error feedback keeps depends on how the call ended for them. */
  readonly feedback: Feedback | null;
}

export class Settlement {
  readonly #around: Pick<Surroundings, 'now' | 'control' | 'giveScratch'>;
  readonly #contexts: Contexts;
  readonly #ports: Ports;
  readonly #residuals: Residuals;
  /**
   * Calls that were committed here. A member that missed the commit has them open still, and not more of them than may be
   * open at once: so many are remembered.
   */
  readonly #committed: Recent<HeldResult> = new Recent(MAX_OPEN_COLLECTIVES);
  /** Eager calls that have returned here: others may still have to make them when a member is lost. */
  readonly #returned: Recent<string> = new Recent(MAX_OPEN_COLLECTIVES);
  /** Calls that failed for all, of which a coordinator that was restarted must know. */
  readonly #failures: Recent<FailedCall> = new Recent(MAX_REPORTED_FAILURES);
  /** Of calls that failed here while they could still be committed: whether their parts counted is not known yet. */
  readonly #unsettled: Map<string, Unsettled> = new Map();

  constructor(
    around: Pick<Surroundings, 'now' | 'control' | 'giveScratch'>,
    contexts: Contexts,
    ports: Ports,
    residuals: Residuals,
  ) {
    this.#around = around;
    this.#contexts = contexts;
    this.#ports = ports;
    this.#residuals = residuals;
  }

  // --- what is remembered ------------------------------------------------------------------------------------------

  /** Calls committed here lately, oldest first. */
  get committed(): readonly HeldResult[] {
    return this.#committed.values;
  }

  /** Eager calls that returned here lately, oldest first. */
  get returned(): readonly string[] {
    return this.#returned.values;
  }

  /** Calls that failed for all, oldest first. */
  get failures(): readonly FailedCall[] {
    return this.#failures.values;
  }

  /** Results that this rank holds of calls that have failed here. */
  get unsettled(): readonly HeldResult[] {
    return [...this.#unsettled].map(([id, { epoch }]) => ({ id, epoch }));
  }

  // --- an attempt comes to its end ---------------------------------------------------------------------------------

  /** An attempt has made the whole result here. */
  onHeld(operation: Operation, attempt: Attempt): void {
    if (operation.state !== 'running') return;
    operation.state = 'held';
    operation.flight?.done();
    operation.attempt = attempt;
    if (attempt.members.length === 1) this.commit(operation);
    else if (operation.call.consistency === 'eager') {
      // Its caller may write into its tensors again when the links have taken all its bytes.
      if (attempt.transfer.drained) this.commit(operation);
    } else {
      const generation = operation.context!.generation; // it has a number
      const { id, spare } = operation;
      this.#around.control({ type: 'done', id, generation, epoch: attempt.epoch, spare });
    }
  }

  /** The links have let go of an attempt's bytes: what waited for that ends. */
  onDrained(operation: Operation, attempt: Attempt): void {
    if (operation.attempt !== attempt) return;
    if (operation.state === 'failing') {
      this.#leaveUnsettled(operation, attempt);
      this.settle(operation, operation.failure!); // set with that state
    } else if (operation.state === 'held' && operation.call.consistency === 'eager') this.commit(operation);
  }

  /**
   * Puts an attempt behind: counts its bytes, stops it, and gives its ports back. Frames of it that are still queued may
   * carry garbage from now on: no receiver can bring that attempt to a commit any more, as this rank did not hold its result.
   */
  retire(operation: Operation): void {
    const { attempt } = operation;
    if (attempt === null) return;
    operation.bytesSent += attempt.transfer.bytesSent;
    operation.bytesReceived += attempt.transfer.bytesReceived;
    attempt.transfer.cancel();
    for (const memory of attempt.scratch.splice(0)) this.#around.giveScratch(memory);
    for (const [peerId, port] of attempt.ports) this.#ports.uncharge(peerId, port);
  }

  // --- a call succeeds ---------------------------------------------------------------------------------------------

  commit(operation: Operation): void {
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
    this.retire(operation);
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
        error: call.measureError ? attempt.transfer.error : null,
        retries,
        bytesSent: operation.bytesSent,
        bytesReceived: operation.bytesReceived,
        seconds: (this.#around.now() - operation.startedAt) / 1_000,
      },
    });
  }

  // --- a call fails ------------------------------------------------------------------------------------------------

  /**
   * A call fails on this peer. Unless all know (`tell` is false), the coordinator fails it for the others, who would wait
   * in vain; if it had promised to hold the result, the coordinator's answer is awaited while bytes are in flight.
   */
  fail(operation: Operation, error: SkeinError, tell: boolean): void {
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
      this.settle(operation, error);
    } else {
      operation.state = 'failing';
      operation.failure = error;
    }
  }

  /** Two members made different calls under one number, of which the coordinator tells all. */
  mismatch(operation: Operation, mine: string, theirs: string, from: PeerId): void {
    const generation = operation.context!.generation; // it has a number
    const { id } = operation;
    this.#around.control({ type: 'mismatch', id, generation, mine, theirs, with: from });
    this.#failures.add({ id, generation, code: 'mismatch', message: `${mine} here, ${theirs} on ${from}` });
  }

  /** Ends a call with an error at once: all others know, or need not. */
  settle(operation: Operation, error: SkeinError): void {
    if (operation.state === 'ended') return;
    this.retire(operation);
    this.#end(operation, error);
    operation.listener.onSettled({ ok: false, error });
  }

  #end(operation: Operation, error: SkeinError | null): void {
    operation.flight?.end(error);
    operation.flight = null; // its place is used again
    operation.state = 'ended';
    this.#contexts.leave(operation);
    if (operation.scratch !== null) this.#around.giveScratch(operation.scratch);
    operation.scratch = null;
    if (operation.feedback !== null) this.#residuals.settle(operation.call.tag, operation.feedback, false);
    operation.feedback = null;
  }

  // --- how calls that failed here ended for the others -------------------------------------------------------------

  /** These results were committed, and so is what this rank had said that it holds of them. */
  onCommits(commits: ReadonlyMap<string, number>): void {
    for (const [id, { epoch }] of [...this.#unsettled]) if (commits.get(id) === epoch) this.#learn(id, true);
  }

  /** A result was committed. */
  onCommit({ id, epoch }: HeldResult): void {
    if (this.#unsettled.get(id)?.epoch === epoch) this.#learn(id, true);
  }

  /** A call has failed for all. */
  onFailure(failed: FailedCall): void {
    this.#failures.add(failed);
    this.#learn(failed.id, false);
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
}
