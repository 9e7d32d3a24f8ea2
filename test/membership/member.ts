/**
 * A peer as the coordinator knows it: what `engine/runtime.ts` and `collectives/collectives.ts` do with each message, less
 * the bytes. Every call is an all-reduce: nobody can hold an attempt's result that not all of its members have begun.
 */
import type { CoordinatorMessage } from '../../src/wire/coordinator-messages.ts';
import type { WireView } from '../../src/wire/parts.ts';
import type { PeerMessage } from '../../src/wire/peer-messages.ts';

/** Calls that the members' program makes between two boundaries. */
const CALLS_PER_STEP = 2;

const TAG = 'g';

/** One try at a collective among certain members. */
interface Attempt {
  readonly epoch: number;
  readonly members: readonly string[];
}

export interface Call {
  readonly id: string;
  readonly generation: number;
  attempt: Attempt;
  state: 'running' | 'held' | 'frozen' | 'committed' | 'failed' | 'withdrawn';
  /** The whole result of `attempt` is here. */
  holds: boolean;
}

interface Context {
  readonly generation: number;
  epoch: number;
  members: readonly string[];
  nextSequence: number;
  readonly calls: Map<string, Call>;
  /** Failed before this peer called them. */
  readonly verdicts: Set<string>;
}

/** What a peer does that others can notice. */
export interface Surroundings {
  control(message: PeerMessage): void;
  /** An attempt begins: what it has to give is on its way to the others. */
  onBegin(call: Call, again: boolean): void;
  /** Whether everything that an attempt needs from the others can have come. */
  complete(call: Call): boolean;
  onCommitted(call: Call): void;
  /** The coordinator failed a call. */
  onFailed(call: Call): void;
  onView(view: WireView): void;
  violation(text: string): never;
}

export class Member {
  readonly peerId: string;
  state: 'warming' | 'ready' | 'member' | 'leaving' | 'gone' = 'warming';
  boundary = 0;
  /** Waits for the answer at the next boundary. */
  asking = false;
  readonly #around: Surroundings;
  readonly #contexts: Map<number, Context> = new Map();
  #current: Context | null = null;
  #lossEpoch = 0;
  #callsInStep = 0;

  constructor(peerId: string, around: Surroundings) {
    this.peerId = peerId;
    this.#around = around;
  }

  // --- what its program does ---------------------------------------------------------------------------------------

  ready(): void {
    if (this.state !== 'warming') return;
    this.state = 'ready';
    this.#around.control({ type: 'ready' });
  }

  /** The next step of its program: a call, or the boundary after its calls. */
  step(minWorldSize: number): void {
    if (this.state !== 'member' || this.asking) return;
    if (this.#callsInStep === CALLS_PER_STEP) this.ask(minWorldSize);
    else this.#call();
  }

  /** Asks at the next boundary; again, when it has run out of patience. */
  ask(minWorldSize: number): void {
    if (this.state !== 'member' || this.#callsInStep < CALLS_PER_STEP) return;
    this.asking = true;
    const open = this.openCalls().map((call) => call.generation);
    const oldest = Math.min(this.#current!.generation, ...open); // a member has a view
    const index = this.boundary + 1;
    this.#around.control({ type: 'boundary', index, passed: this.boundary, minWorldSize, oldest });
  }

  #call(): void {
    const context = this.#current!; // a member has a view
    this.#callsInStep += 1;
    const id = `${context.generation}:${TAG}:${context.nextSequence++}`;
    const attempt = { epoch: context.epoch, members: context.members };
    const call: Call = { id, generation: context.generation, attempt, state: 'running', holds: false };
    context.calls.set(id, call);
    if (context.verdicts.has(id)) {
      call.state = 'failed';
      this.#around.onFailed(call);
    } else this.#around.onBegin(call, false);
  }

  /** The data for a call have come, if they can have. */
  hold(call: Call): void {
    if (call.state !== 'running' || !this.#around.complete(call)) return;
    call.holds = true;
    call.state = 'held';
    const { id, generation, attempt } = call;
    if (attempt.members.length === 1) this.#commit(call);
    else this.#around.control({ type: 'done', id, generation, epoch: attempt.epoch, spare: 0 });
  }

  /** A call runs out of time, or its caller has lost interest. */
  withdraw(call: Call): void {
    if (!isOpen(call)) return;
    call.state = 'withdrawn';
    const { id, generation } = call;
    this.#around.control({ type: 'withdraw', id, generation, reason: 'it took too long' });
    this.#ended(call);
  }

  /** Another member's announcement of this call looks different. */
  mismatch(call: Call, other: string): void {
    if (!isOpen(call)) return;
    const { id, generation } = call;
    this.#around.control({ type: 'mismatch', id, generation, mine: 'this', theirs: 'that', with: other });
  }

  leave(): void {
    if (this.state === 'gone' || this.state === 'leaving') return;
    this.state = 'leaving';
    this.#around.control({ type: 'leave' });
  }

  die(): void {
    this.state = 'gone';
    this.#contexts.clear();
  }

  /** It has made all calls of this step of its program, and has no boundary to wait for. */
  get idle(): boolean {
    return !this.asking && this.#callsInStep === CALLS_PER_STEP;
  }

  openCalls(): Call[] {
    return [...this.#contexts.values()].flatMap((context) => [...context.calls.values()].filter(isOpen));
  }

  /** Whether it has a link to this peer that it cares about. */
  sees(peerId: string): boolean {
    return this.#current?.members.includes(peerId) === true;
  }

  // --- what the coordinator says -----------------------------------------------------------------------------------

  receive(message: CoordinatorMessage): void {
    if (this.state === 'gone') return;
    switch (message.type) {
      case 'admitted':
        if (this.state !== 'ready' && this.state !== 'leaving') this.#around.violation('it was admitted unasked');
        if (this.state === 'ready') this.state = 'member';
        this.boundary = message.index;
        this.#install(message.view);
        for (const { id } of message.failed) this.#onFail(id);
        break;
      case 'boundary':
        this.#onBoundary(message);
        break;
      case 'loss':
        this.#onLoss(message);
        break;
      case 'decide':
        if (message.epoch === this.#lossEpoch)
          this.#onDecide(new Map(message.committed.map(({ id, epoch }) => [id, epoch])));
        break;
      case 'commit':
        this.#onCommit(message);
        break;
      case 'fail':
        this.#onFail(message.id);
        break;
      case 'evicted':
        this.die();
        break;
      case 'challenge':
      case 'welcome':
      case 'resumed':
      case 'refuse':
      case 'introduce':
      case 'dismiss':
      case 'beat':
        break; // links and liveness are the world's
    }
  }

  #onBoundary({ index, view, failed }: Extract<CoordinatorMessage, { type: 'boundary' }>): void {
    if (index !== this.boundary + 1) this.#around.violation(`boundary ${index} was answered after ${this.boundary}`);
    this.boundary = index;
    this.asking = false;
    this.#callsInStep = 0;
    if (view !== null) this.#install(view);
    for (const { id } of failed) this.#onFail(id);
  }

  #install(view: WireView): void {
    if (this.#contexts.has(view.generation)) this.#around.violation(`generation ${view.generation} came twice`);
    this.#around.onView(view);
    const previous = this.#current;
    this.#current = {
      generation: view.generation,
      epoch: view.epoch,
      members: view.members.map((member) => member.peerId),
      nextSequence: 0,
      calls: new Map(),
      verdicts: new Set(),
    };
    this.#contexts.set(view.generation, this.#current);
    if (previous !== null) this.#forget(previous);
  }

  #onLoss({ epoch, lost, broken, resumed }: Extract<CoordinatorMessage, { type: 'loss' }>): void {
    this.#lossEpoch = epoch;
    const gone = new Set(lost.map((one) => one.peerId));
    for (const context of this.#contexts.values()) {
      const loses = context.members.some((peerId) => gone.has(peerId));
      const breaks = broken?.every((peerId) => context.members.includes(peerId)) === true;
      if (!loses && !breaks && !resumed) continue;
      context.epoch = epoch;
      context.members = context.members.filter((peerId) => !gone.has(peerId));
      for (const call of context.calls.values()) if (isOpen(call)) call.state = 'frozen';
    }
    const held = this.openCalls().filter((call) => call.state === 'frozen' && call.holds);
    this.#around.control({
      type: 'progress',
      epoch,
      held: held.map((call) => ({ id: call.id, epoch: call.attempt.epoch })),
      returned: [],
      finished: [],
    });
  }

  #onDecide(committed: ReadonlyMap<string, number>): void {
    for (const call of this.openCalls()) {
      if (call.state !== 'frozen') continue;
      if (committed.get(call.id) === call.attempt.epoch) this.#commit(call);
      else {
        const { epoch, members } = this.#contexts.get(call.generation)!; // it has an open call
        call.attempt = { epoch, members };
        call.state = 'running';
        call.holds = false;
        this.#around.onBegin(call, true);
      }
    }
  }

  #onCommit({ id, epoch }: Extract<CoordinatorMessage, { type: 'commit' }>): void {
    const call = this.#find(id);
    if (call === undefined || !isOpen(call)) return;
    if (!call.holds || call.attempt.epoch !== epoch)
      this.#around.violation(`${id} was committed in an attempt not held`);
    this.#commit(call);
  }

  #onFail(id: string): void {
    const context = this.#contexts.get(Number(id.split(':')[0]));
    const call = context?.calls.get(id);
    if (call === undefined) context?.verdicts.add(id);
    else if (isOpen(call)) {
      call.state = 'failed';
      this.#around.onFailed(call);
      this.#ended(call);
    }
  }

  #commit(call: Call): void {
    if (!call.holds) this.#around.violation(`${call.id} was committed without a result`);
    call.state = 'committed';
    this.#around.onCommitted(call);
    this.#ended(call);
  }

  #ended(call: Call): void {
    const context = this.#contexts.get(call.generation);
    if (context !== undefined) this.#forget(context);
  }

  #find(id: string): Call | undefined {
    return this.#contexts.get(Number(id.split(':')[0]))?.calls.get(id);
  }

  #forget(context: Context): void {
    const open = [...context.calls.values()].some(isOpen);
    if (context !== this.#current && !open) this.#contexts.delete(context.generation);
  }
}

function isOpen(call: Call): boolean {
  return call.state === 'running' || call.state === 'held' || call.state === 'frozen';
}
