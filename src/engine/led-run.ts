/**
 * One run at its coordinator: feeds the run's machine with what its peers say, carries out what it wants once that is stored, and does
 * for them what changes nothing and needs no decision: passes on signals, notes and flight records, and tells where relays are.
 *
 * Invariant: nothing is sent before what came before it is stored (`outbox.ts`), and nothing by a coordinator that leads no longer.
 */
import { RunWatch } from '../eyes/run-watch.ts';
import { CoordinatorMachine, type CoordinatorOptions } from '../membership/coordinator.ts';
import type { CoordinatorEffect, CoordinatorEvent, PeerId } from '../membership/events.ts';
import type { Clock } from '../transport/clock.ts';
import type { CoordinatorMessage } from '../wire/coordinator-messages.ts';
import { type Control, encodeControl } from '../wire/messages.ts';
import type { NotesMessage, PeerMessage } from '../wire/peer-messages.ts';
import type { ControlConnection } from './control-connection.ts';
import { FlightDesk } from './flight-desk.ts';
import type { Ledger } from './ledger.ts';
import type { NotesDesk } from './notes-desk.ts';
import { type Fences, Outbox } from './outbox.ts';
import { oneLine } from './refusals.ts';

/** How long a peer that was let go has to close its connection (ms). */
const DISMISS_MS = 2_000;

const WATCH: CoordinatorMessage = { type: 'watch' };

/** A connection of one of the run's peers. */
export interface Seat {
  readonly connection: ControlConnection<PeerMessage, CoordinatorMessage>;
  readonly number: number;
  /** Stops what would close it. */
  stopTimer: () => void;
  /** Null before the machine has given it one. */
  peerId: PeerId | null;
}

interface Surroundings<S extends Seat> {
  readonly clock: Clock;
  /** Somebody can look on by HTTP. */
  readonly isWatched: boolean;
  /** Null when this coordinator does not lead. */
  ledger(): Ledger | null;
  /** Stores something, as often as it takes. */
  write(store: () => Promise<void>): Promise<void>;
  onWriteFailed(error: unknown): void;
  /** The coordinator was closed. */
  isClosed(): boolean;
  seatOf(connection: number): S | undefined;
  /** A peer has its seat: a promise where something of it must be stored before it hears so. */
  onSeated(seat: S, peerId: PeerId, ledger: Ledger): Promise<void> | null;
  onSent(): void;
  note(line: string): void;
}

export class LedRun<S extends Seat = Seat> {
  readonly name: string;
  readonly machine: CoordinatorMachine;
  /** What is told by HTTP; null: nobody can ask. */
  readonly watch: RunWatch | null;
  readonly #around: Surroundings<S>;
  readonly #iceServers: CoordinatorOptions['iceServers'];
  readonly #outbox: Outbox;
  readonly #seats: Map<PeerId, S> = new Map();
  /** By peer: the connection that the machine takes for its own. `#seats` follows when all that came before is stored. */
  readonly #connections: Map<PeerId, number> = new Map();
  readonly #flights: FlightDesk;
  /** Null until a peer has something to do with them. */
  #notes: NotesDesk | null = null;
  /** What was sent last: what goes to many is encoded once. */
  #encoded: { readonly message: CoordinatorMessage; readonly fences: string; readonly bytes: Uint8Array } | null = null;

  constructor(name: string, options: CoordinatorOptions, around: Surroundings<S>) {
    const { clock } = around;
    this.name = name;
    this.#around = around;
    this.#iceServers = (peerId) => options.iceServers(peerId);
    this.machine = new CoordinatorMachine(options, clock.now());
    this.watch = around.isWatched ? new RunWatch(() => Date.now()) : null;
    this.#outbox = new Outbox(
      (effect, fences) => this.#carryOut(effect, fences),
      (error) => around.onWriteFailed(error),
    );
    this.#flights = new FlightDesk({
      clock,
      peers: () => this.#peerIds(),
      isConnected: (peerId) => this.#seats.has(peerId),
      send: (peerId, message) => this.#sendNow(peerId, message),
    });
  }

  /** The notes of its peers, if there are any. */
  get notes(): NotesDesk | null {
    return this.#notes;
  }

  /** From where a peer is connected; null: it is not. */
  remoteOf(peerId: PeerId): string | null {
    return this.#seats.get(peerId)?.connection.remote ?? null;
  }

  step(event: CoordinatorEvent): readonly CoordinatorEffect[] {
    const { machine } = this;
    const now = this.#around.clock.now();
    const effects = machine.step(event, now);
    for (const effect of effects) {
      if (effect.type === 'assign') this.#connections.set(effect.peerId, effect.connection);
      else if (effect.type === 'close') this.#connections.delete(effect.peerId);
    }
    this.watch?.onEffects(effects, machine.epoch, now);
    if (effects.length > 0) this.#outbox.push(effects, { term: machine.term, epoch: machine.epoch });
    return effects;
  }

  tick(): void {
    this.step({ type: 'tick' });
    this.#notes?.tick(this.#around.clock.now());
  }

  onMessage({ connection }: S, peerId: PeerId, { term, epoch, message }: Control<PeerMessage>): void {
    if (term > this.machine.term || epoch > this.machine.epoch) {
      connection.refuse(`it speaks of term ${term}, epoch ${epoch}, which have not been`);
      return;
    }
    const wrong = this.watch?.onMessage(peerId, message, this.#around.clock.now()) ?? null;
    if (wrong !== null) connection.refuse(wrong);
    else if (message.type === 'signal') this.#passOn(peerId, message);
    else if (message.type === 'notes') void this.#note(peerId, message);
    else if (message.type === 'ask-flights' || message.type === 'flight') this.#flights.onMessage(peerId, message);
    else if (message.type === 'ice') this.#sendNow(peerId, { type: 'ice', ice: this.#iceServers(peerId) });
    else this.step({ type: 'message', peerId, message });
  }

  /** A connection of a peer has closed. */
  onClosed(seat: S, peerId: PeerId): void {
    if (this.#seats.get(peerId) === seat) {
      this.#seats.delete(peerId);
      this.#flights.left(peerId);
      this.#notes?.left(peerId);
    }
    this.#onLeft(peerId, seat.number);
  }

  /** What is not said yet must not be said any more. */
  silence(): void {
    this.#outbox.close();
    this.#seats.clear();
  }

  /** It may have come back by another connection already. */
  #onLeft(peerId: PeerId, connection: number): void {
    if (this.#connections.get(peerId) !== connection) return;
    this.#connections.delete(peerId);
    if (!this.#around.isClosed()) this.step({ type: 'closed', peerId });
  }

  // --- what changes nothing ----------------------------------------------------------------------------------------

  /** From one end of a WebRTC session to the other. */
  #passOn(from: PeerId, { to, signal }: Extract<PeerMessage, { type: 'signal' }>): void {
    if (this.#seats.has(to)) {
      this.#sendNow(to, { type: 'signal', from, signal });
    } else if (signal.kind === 'offer') {
      const end = {
        kind: 'end' as const,
        session: signal.session,
        fromDialler: false,
        reason: 'it is not in this run',
      };
      this.#sendNow(from, { type: 'signal', from: to, signal: end });
    }
  }

  /** What merges notes is loaded with the first of them. */
  async #note(from: PeerId, message: NotesMessage): Promise<void> {
    const { NotesDesk } = await import('./notes-desk.ts');
    this.#notes ??= new NotesDesk({
      peers: () => (this.machine.snapshot().recovering ? null : this.#peerIds()),
      send: (peerId, answer) => this.#sendNow(peerId, answer),
      refuse: (peerId, reason) => this.#seats.get(peerId)?.connection.refuse(reason),
    });
    if (this.#seats.has(from)) this.#notes.onMessage(from, message, this.#around.clock.now());
  }

  #peerIds(): PeerId[] {
    return this.machine.snapshot().peers.map(({ peerId }) => peerId);
  }

  /** It need not wait for what is being stored. */
  #sendNow(peerId: PeerId, message: CoordinatorMessage): void {
    this.#send(peerId, message, this.#outbox.fences);
  }

  // --- effects -----------------------------------------------------------------------------------------------------

  /** A promise where what follows has to wait for it. */
  #carryOut(effect: CoordinatorEffect, fences: Fences): Promise<void> | null {
    // Since what came before, this process may have been stopped for any time.
    const ledger = this.#around.ledger();
    if (ledger === null) return null;
    switch (effect.type) {
      case 'store':
        return this.#around.write(() => ledger.saveRun(this.name, effect.run));
      case 'assign':
        return this.#assign(effect, ledger);
      case 'send':
        this.#send(effect.peerId, effect.message, fences);
        // From now on it tells what it does, and first of all what it has done.
        if (this.watch !== null && (effect.message.type === 'welcome' || effect.message.type === 'resumed'))
          this.#send(effect.peerId, WATCH, fences);
        return null;
      case 'close':
        this.#dismiss(this.#seats.get(effect.peerId));
        this.#seats.delete(effect.peerId);
        return null;
      case 'note':
        this.#around.note(oneLine(`run ${this.name}: ${effect.text}`));
        return null;
      default:
        return effect satisfies never;
    }
  }

  #assign(
    { connection, peerId }: Extract<CoordinatorEffect, { type: 'assign' }>,
    ledger: Ledger,
  ): Promise<void> | null {
    const seat = this.#around.seatOf(connection);
    if (seat === undefined) {
      // It left while something was being stored.
      this.#onLeft(peerId, connection);
      return null;
    }
    seat.peerId = peerId;
    this.#seats.set(peerId, seat);
    return this.#around.onSeated(seat, peerId, ledger);
  }

  /** Many are often sent the same: it is encoded once. */
  #send(peerId: PeerId, message: CoordinatorMessage, { term, epoch }: Fences): void {
    const connection = this.#seats.get(peerId)?.connection;
    if (connection === undefined) return;
    this.#around.onSent();
    const fences = `${term} ${epoch}`;
    if (this.#encoded?.message !== message || this.#encoded.fences !== fences)
      this.#encoded = { message, fences, bytes: encodeControl(message, term, epoch) };
    connection.sendEncoded(this.#encoded.bytes);
  }

  /** Lets what was sent leave; a peer that does not close its side then is gone. */
  #dismiss(seat: S | undefined): void {
    if (seat === undefined) return;
    seat.connection.end();
    seat.stopTimer = this.#around.clock.schedule(DISMISS_MS, () => seat.connection.fail('it did not close its side'));
  }
}
