/**
 * A run in which nothing is real but the coordinator's machine: peers, queues in which messages are delayed as long as one
 * likes but keep their order, and a clock. It watches that what the machine promises is kept, whatever happens.
 */
import type { CoordinatorMachine } from '../../src/membership/coordinator.ts';
import type { CoordinatorEffect, CoordinatorEvent } from '../../src/membership/events.ts';
import type { CoordinatorMessage } from '../../src/wire/coordinator-messages.ts';
import type { WireView } from '../../src/wire/parts.ts';
import type { PeerMessage } from '../../src/wire/peer-messages.ts';
import { type Call, Member, type Surroundings } from './member.ts';
import { BOUNDS, descriptionOf, HEARTBEAT_MS, newMachine } from './stage.ts';

/** The end of a connection, in its place among the messages. */
const CLOSED = 'closed';

/** Rounds of `settle` that are enough for everything to end. */
const MAX_ROUNDS = 100;

export interface Seat {
  readonly member: Member;
  /** To the coordinator. */
  readonly up: (PeerMessage | typeof CLOSED)[];
  readonly down: (CoordinatorMessage | typeof CLOSED)[];
  /** The process is there, but neither sends nor receives anything. */
  stalled: boolean;
  /** The coordinator has let it go. */
  released: boolean;
  /** The coordinator has seen its connection break. */
  broken: boolean;
}

export class World {
  readonly seats: Seat[] = [];
  /** What happened, how often: tells whether the tests come to the places that matter. */
  readonly counts: Map<string, number> = new Map();
  readonly #machine: CoordinatorMachine = newMachine();
  readonly #watch: Watch = new Watch((text) => this.#violation(text));
  readonly #trace: string[] = [];
  #connections = 0;
  #now = 0;

  // --- what can happen ---------------------------------------------------------------------------------------------

  join(startWorldSize: number): void {
    const connection = this.#connections++;
    this.#step({
      type: 'joined',
      connection,
      description: descriptionOf(`site ${connection}`),
      startWorldSize,
      name: '',
    });
  }

  /** The next messages from a peer reach the coordinator. */
  deliverUp(seat: Seat, count: number): void {
    if (seat.stalled) return;
    for (const item of seat.up.splice(0, count)) {
      const { peerId } = seat.member;
      const fenced = seat.released;
      if (item === CLOSED) seat.broken = true;
      const effects = this.#step(
        item === CLOSED ? { type: 'closed', peerId } : { type: 'message', peerId, message: item },
      );
      if (fenced && effects.length > 0) this.#violation(`${peerId} was heard after it was let go`);
    }
  }

  /** The next messages from the coordinator reach a peer. */
  deliverDown(seat: Seat, count: number): void {
    if (seat.stalled) return;
    for (const item of seat.down.splice(0, count)) {
      this.#note(`${seat.member.peerId} gets`, item);
      if (item === CLOSED) seat.member.die();
      else seat.member.receive(item);
    }
  }

  deliverAll(): void {
    while (this.seats.some((seat) => !seat.stalled && seat.up.length + seat.down.length > 0)) {
      for (const seat of this.seats) this.deliverUp(seat, seat.up.length);
      for (const seat of this.seats) this.deliverDown(seat, seat.down.length);
    }
  }

  /** Time passes, and the peers that can give a sign of life. */
  pass(ms: number): void {
    this.#now += ms;
    for (const { member, stalled, up } of this.seats) {
      if (!stalled && member.state !== 'gone') up.push({ type: 'beat' });
    }
    this.#step({ type: 'tick' });
  }

  /** A process dies; some of what it sent last still arrives. */
  crash(seat: Seat, arriving: number): void {
    if (seat.member.state === 'gone') return;
    seat.member.die();
    seat.up.splice(arriving);
    seat.up.push(CLOSED);
  }

  /** A peer sees its link to another close. */
  linkClosed(seat: Seat, to: Seat): void {
    const { member } = seat;
    if (member.state === 'gone' || seat === to || !member.sees(to.member.peerId)) return;
    seat.up.push({ type: 'link-closed', peerId: to.member.peerId });
  }

  /**
   * Everything that is under way comes to its end: all messages arrive, the dead are found out, and the members go on
   * until they are at the same place of their program.
   */
  settle(): void {
    for (const seat of this.seats) seat.stalled = false;
    const evictionRounds = Math.ceil((2 * BOUNDS.minimumMs) / HEARTBEAT_MS);
    for (let round = 0; round < evictionRounds || !this.#settled(); round++) {
      if (round === MAX_ROUNDS) this.#violation(`nothing settles: ${JSON.stringify(this.#stateOfMembers())}`);
      this.deliverAll();
      const furthest = Math.max(0, ...this.#members().map((member) => member.boundary));
      for (const member of this.#members()) {
        for (const call of member.openCalls()) member.hold(call);
        if (member.asking || (member.idle && member.boundary < furthest)) member.ask(1);
        else if (!member.idle) member.step(1);
      }
      this.pass(HEARTBEAT_MS);
    }
  }

  #settled(): boolean {
    const members = this.#members();
    const { members: known, openCollectives } = this.#machine.snapshot();
    const names = members.map((member) => member.peerId).sort();
    return (
      JSON.stringify(names) === JSON.stringify([...known].sort()) &&
      members.every((member) => member.idle && member.openCalls().length === 0) &&
      new Set(members.map((member) => member.boundary)).size <= 1 &&
      openCollectives === 0
    );
  }

  #members(): Member[] {
    return this.seats.map((seat) => seat.member).filter((member) => member.state === 'member');
  }

  #stateOfMembers(): unknown {
    const members = this.#members().map((member) => ({
      peerId: member.peerId,
      boundary: member.boundary,
      asking: member.asking,
      open: member.openCalls(),
    }));
    return { coordinator: this.#machine.snapshot(), members };
  }

  // --- the machine and its effects ---------------------------------------------------------------------------------

  #step(event: CoordinatorEvent): readonly CoordinatorEffect[] {
    this.#note(
      event.type === 'message' ? `${event.peerId} says` : `${this.#now} ms:`,
      event.type === 'message' ? event.message : event,
    );
    const effects = this.#machine.step(event, this.#now);
    this.#watch.onEpoch(this.#machine.epoch);
    for (const effect of effects) this.#carryOut(effect);
    return effects;
  }

  #carryOut(effect: CoordinatorEffect): void {
    if (effect.type === 'note' || effect.type === 'store') return;
    if (effect.type === 'assign') {
      this.seats.push(this.#newSeat(effect.peerId));
      return;
    }
    const seat = this.seats.find((one) => one.member.peerId === effect.peerId);
    if (seat === undefined || seat.released) this.#violation(`${effect.type} to ${effect.peerId}, who is not there`);
    if (effect.type === 'close') {
      seat.released = true;
      seat.down.push(CLOSED);
    } else {
      this.#count(kindOf(effect.message));
      this.#watch.onSend(effect.peerId, effect.message);
      if (!seat.broken) seat.down.push(effect.message);
    }
  }

  #newSeat(peerId: string): Seat {
    const up: Seat['up'] = [];
    const around: Surroundings = {
      control: (message) => up.push(message),
      onBegin: (call, again) => {
        this.#count(again ? 'begun again' : 'begun');
        this.#watch.onBegin(peerId, call, again);
      },
      complete: (call) => this.#watch.complete(call),
      onCommitted: (call) => {
        this.#count(call.attempt.members.length > 1 ? 'committed' : 'committed alone');
        this.#watch.onCommitted(call);
      },
      onFailed: (call) => this.#watch.onFailed(call),
      onView: (view) => this.#watch.onView(view),
      violation: (text) => this.#violation(`${peerId}: ${text}`),
    };
    const member = new Member(peerId, around);
    return { member, up, down: [], stalled: false, released: false, broken: false };
  }

  #count(what: string): void {
    this.counts.set(what, (this.counts.get(what) ?? 0) + 1);
  }

  #note(what: string, content: CoordinatorEvent | PeerMessage | CoordinatorMessage | typeof CLOSED): void {
    if (content !== CLOSED && (content.type === 'beat' || content.type === 'tick')) return; // too many to read
    this.#trace.push(`${what} ${inShort(content)}`);
  }

  #violation(text: string): never {
    throw new Error(`${text}\n${this.#trace.join('\n')}`);
  }
}

/** What everyone together has seen of one collective. */
interface Outcome {
  /** The attempt that was committed: the same for all. */
  committed: string | null;
  failed: boolean;
}

/** The promises of the machine, watched from a place where everything can be seen. */
class Watch {
  readonly #violation: (text: string) => never;
  readonly #outcomes: Map<string, Outcome> = new Map();
  /** Who has begun an attempt. */
  readonly #begun: Map<string, Set<string>> = new Map();
  /** The members of each generation, by epoch. */
  readonly #generations: Map<number, Map<number, readonly string[]>> = new Map();
  /** What must be the same for everybody: by what it is about. */
  readonly #told: Map<string, string> = new Map();
  readonly #once: Set<string> = new Set();
  #epoch = 0;

  constructor(violation: (text: string) => never) {
    this.#violation = violation;
  }

  onEpoch(epoch: number): void {
    if (epoch < this.#epoch) this.#violation(`epoch ${epoch} came after ${this.#epoch}`);
    this.#epoch = epoch;
  }

  onSend(peerId: string, message: CoordinatorMessage): void {
    switch (message.type) {
      case 'admitted':
      case 'boundary':
        this.#onlyOnce(`boundary ${message.index} for ${peerId}`);
        this.#same(`the view of boundary ${message.index}`, message.view?.generation ?? null);
        if (message.view !== null) this.onView(message.view);
        break;
      case 'loss':
        this.#onlyOnce(`the loss of epoch ${message.epoch} for ${peerId}`);
        this.#same(`the loss of epoch ${message.epoch}`, message);
        break;
      case 'decide':
        this.#onlyOnce(`the decision of epoch ${message.epoch} for ${peerId}`);
        this.#same(`the decision of epoch ${message.epoch}`, message);
        break;
      case 'commit':
      case 'fail':
        this.#onlyOnce(`the ${message.type} of ${message.id} for ${peerId}`);
        this.#same(`the ${message.type} of ${message.id}`, message);
        break;
      case 'challenge':
      case 'welcome':
      case 'refuse':
      case 'introduce':
      case 'dismiss':
      case 'evicted':
      case 'beat':
        break; // about one peer only
    }
  }

  onView({ generation, epoch, members, costs }: WireView): void {
    this.#same(`what members of generation ${generation} choose algorithms by`, costs);
    this.#onMembers(
      generation,
      epoch,
      members.map((member) => member.peerId),
    );
  }

  onBegin(peerId: string, call: Call, again: boolean): void {
    if (again && this.#outcome(call).committed !== null)
      this.#violation(`${call.id} is begun again, but was committed`);
    this.#onMembers(call.generation, call.attempt.epoch, call.attempt.members);
    const begun = this.#begun.get(attemptOf(call)) ?? new Set();
    this.#begun.set(attemptOf(call), begun.add(peerId));
  }

  complete(call: Call): boolean {
    const begun = this.#begun.get(attemptOf(call));
    return call.attempt.members.every((peerId) => begun?.has(peerId) === true);
  }

  onCommitted(call: Call): void {
    const outcome = this.#outcome(call);
    const attempt = attemptOf(call);
    if (outcome.failed) this.#violation(`${call.id} was committed and failed`);
    if ((outcome.committed ?? attempt) !== attempt)
      this.#violation(`${attempt} and ${outcome.committed} were committed`);
    outcome.committed = attempt;
  }

  onFailed(call: Call): void {
    const outcome = this.#outcome(call);
    if (outcome.committed !== null) this.#violation(`${call.id} was failed and committed`);
    outcome.failed = true;
  }

  /** The same for all at one epoch, and fewer from epoch to epoch. */
  #onMembers(generation: number, epoch: number, members: readonly string[]): void {
    this.#same(`generation ${generation} at epoch ${epoch}`, members);
    const known = this.#generations.get(generation) ?? new Map<number, readonly string[]>();
    this.#generations.set(generation, known.set(epoch, members));
    for (const [other, theirs] of known) {
      const [earlier, later] = other < epoch ? [theirs, members] : [members, theirs];
      if (!later.every((peerId) => earlier.includes(peerId))) this.#violation(`generation ${generation} grew`);
    }
  }

  #outcome(call: Call): Outcome {
    let outcome = this.#outcomes.get(call.id);
    if (outcome === undefined) {
      outcome = { committed: null, failed: false };
      this.#outcomes.set(call.id, outcome);
    }
    return outcome;
  }

  #onlyOnce(what: string): void {
    if (this.#once.has(what)) this.#violation(`${what} came twice`);
    this.#once.add(what);
  }

  #same(what: string, value: unknown): void {
    const text = JSON.stringify(value);
    const known = this.#told.get(what);
    if (known !== undefined && known !== text) this.#violation(`${what} is ${text} for some and ${known} for others`);
    this.#told.set(what, text);
  }
}

function attemptOf(call: Call): string {
  return `${call.id} at epoch ${call.attempt.epoch}`;
}

/** What a message is counted as. */
function kindOf(message: CoordinatorMessage): string {
  if (message.type === 'loss') return message.broken === null ? 'loss' : 'repair';
  if (message.type === 'decide') return message.committed.length > 0 ? 'decide to commit' : 'decide';
  return message.type;
}

/** For the trace: nobody wants to read keys. */
function inShort(value: unknown): string {
  return JSON.stringify(value, (_, part) => (part instanceof Uint8Array ? '…' : part));
}
