/**
 * From a call to an attempt at it: whether it can be begun among the members that are left, by which algorithm and in which order
 * of ranks, on what memory, and by which ways. What an attempt counts on is a fact of its epoch, so that all members that begin it
 * come to the same. It is made anew after each loss; nothing of an earlier one is left but what `operation` keeps.
 */
import { ArgumentError } from '../errors.ts';
import { DTYPE_BYTES } from '../tensor.ts';
import { hashTag } from '../wire/frame.ts';
import { commonSpans, restOf } from '../wire/ranges.ts';
import { announce } from './announcement.ts';
import type { PeerId } from './call.ts';
import { CALL_AGAIN, peerLostError, quorumError, SHAPE_HINT } from './call-errors.ts';
import { wireLength } from './codec.ts';
import type { Member } from './context.ts';
import type { Contexts } from './contexts.ts';
import { Transfer } from './executor.ts';
import type { Attempt, AttemptPort, Operation } from './operation.ts';
import { peersOf } from './peers.ts';
import { Pieces } from './pieces.ts';
import { sitesOf, tensorSizes } from './plan.ts';
import { PlanCache } from './plan-cache.ts';
import type { Ports } from './ports.ts';
import type { Algorithm, Plan, Rank, Sites, Task } from './program.ts';
import { type Expansion, worldOf } from './program-code.ts';
import type { Residuals } from './residuals.ts';
import { ORDERLESS } from './ring.ts';
import { spreadPlan } from './salvage.ts';
import { chooseAlgorithm } from './select.ts';
import type { Settlement } from './settlement.ts';
import type { Surroundings } from './surroundings.ts';

/** The same on every run with the same calls, and another for every call and rank: what ranks drop must not be alike. */
function seedOf({ id }: Operation, rank: Rank): number {
  return hashTag(`${id}:${rank}`) % 2 ** 32;
}

export class Attempts {
  readonly #around: Surroundings;
  readonly #contexts: Contexts;
  readonly #ports: Ports;
  readonly #residuals: Residuals;
  readonly #settlement: Settlement;
  readonly #plans: PlanCache = new PlanCache();

  constructor(around: Surroundings, contexts: Contexts, ports: Ports, residuals: Residuals, settlement: Settlement) {
    this.#around = around;
    this.#contexts = contexts;
    this.#ports = ports;
    this.#residuals = residuals;
    this.#settlement = settlement;
  }

  /** Starts an attempt among the members that are left, if there can be one: else the call waits for a decision, or fails. */
  begin(operation: Operation): void {
    this.#settlement.retire(operation);
    if (!this.#canBegin(operation)) return;
    const context = operation.context!; // only entered operations are begun
    const { call, input, output, members } = operation;
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
      this.#settlement.fail(operation, new ArgumentError(message, { op: operation.title, epoch: context.epoch }), true);
      return;
    }
    operation.retries += 1;
    operation.state = 'running';
    const plan = this.#plans.get(task, algorithm, sites, rank);
    const cut = operation.kept.length === 0 ? plan : spreadPlan(plan, rest);
    this.#start(operation, order, rank, cut, sizes.output * elementBytes, bytes);
  }

  /** Whether those who are left are enough, are those it was made for, and know what became of its last attempt. */
  #canBegin(operation: Operation): boolean {
    const context = operation.context!; // as in begin
    const { call, members } = operation;
    if (members.length < call.minWorldSize) {
      // No newcomer will make a call that was made before it came, so in a later view it can't be made up for.
      operation.attempt = null;
      if (context === this.#contexts.current && operation.exclusion === null) operation.state = 'waiting';
      else this.#settlement.fail(operation, quorumError(operation, this.#around.now(), CALL_AGAIN), false);
      return false;
    }
    if (context.undecided) {
      // Some members may hold its result from before the loss, or have returned from it: the decision concerns us too.
      operation.state = 'frozen';
      return false;
    }
    const { root } = call;
    const gone = root !== null && !members.some(({ peerId }) => peerId === root) ? [root] : [];
    if (gone.length === 0 && (call.laidOutFor === null || call.laidOutFor === members.length)) return true;
    this.#settlement.fail(operation, peerLostError(operation, gone, this.#around.now(), SHAPE_HINT), true);
    return false;
  }

  /** The caller has filled elements `start` to `end` of an input that comes in parts, each once. */
  ready(operation: Operation, start: number, end: number): void {
    const { attempt, ready, state, feedback, call, kept, input } = operation;
    if (ready?.add(start, end) !== true || state !== 'running' || attempt === null) return;
    const anew = commonSpans(restOf(kept, call.count), [{ start, end }]);
    if (feedback !== null) this.#residuals.correct(feedback, input, anew);
    attempt.transfer.ready(start, end);
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
    this.#settlement.fail(operation, new ArgumentError(message, { op: operation.title, epoch: operation.epoch }), true);
    return null;
  }

  #start(
    operation: Operation,
    members: readonly Member[],
    rank: Rank,
    plan: Plan,
    outputBytes: number,
    bytes: number,
  ): void {
    const context = operation.context!; // as in begin
    const { call } = operation;
    operation.result ??= this.#resultOf(operation, outputBytes);
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
      onHeld: () => this.#settlement.onHeld(operation, attempt),
      onDrained: () => this.#settlement.onDrained(operation, attempt),
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
    const { algorithm } = plan;
    const attempt: Attempt = { epoch, frame, members, algorithm, transfer, ports, announcement, scratch };
    operation.attempt = attempt;
    operation.flight?.begin(epoch, algorithm, members.length);
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
  }

  /** The input of a call with error feedback: what was dropped under its tag is added to what this attempt does anew. */
  #correct(operation: Operation): Uint8Array {
    const { call, kept, ready, input } = operation;
    const rest = restOf(kept, call.count);
    operation.feedback ??= this.#residuals.take(call.tag, call.count * DTYPE_BYTES[call.dtype]);
    this.#residuals.correct(operation.feedback, input, ready === null ? rest : commonSpans(rest, ready.spans));
    return operation.feedback.corrected;
  }

  /** Where the result is built: apart, if the caller's tensor must not change before it is whole. */
  #resultOf(operation: Operation, byteLength: number): Pieces {
    const { call } = operation;
    // The root of a broadcast keeps what it has.
    const keeps = call.kind === 'broadcast' && call.root === this.#around.self && call.codec === 'f32';
    const apart = call.atomic && !keeps && byteLength > 0;
    if (!apart) return operation.output;
    operation.scratch = this.#around.takeScratch(byteLength);
    return new Pieces([operation.scratch]);
  }
}
