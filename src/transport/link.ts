/**
 * A link: everything between this peer and another. It has two lanes of one or more stripes (connections):
 *
 *     outbound   dialled by the other peer, which reads from it into one reused buffer; we write
 *     inbound    dialled by us; the other peer writes
 *
 * Each peer dials what it receives on, because only the dialling side of a Node socket can choose where reads go. Where a
 * peer can't be dialled, as behind a NAT, it dials the other lane too (*reversed*). A lane that loses one connection is
 * closed as a whole: what was in flight on it is lost, and whoever owns the link must know.
 *
 * **A lane can have a successor**, by a better path. The reader dials it, and lets it lie until it wants it:
 *
 *     reader                                                writer
 *        │ ══ all stripes of the successor ═════════════════▶ │   keeps them beside the lane that it writes to
 *        │ ── take ─────────────────────(on the successor)──▶ │   from here on it writes to the successor only
 *        │ ◀─ …what was queued, last ──(each old stripe)───── │   and ends the old lane
 *        │    reads the successor, when each old stripe has said `last`
 *
 * Nothing is lost, doubled or overtaken: each frame is queued as a whole on one lane, and is never moved. The reader reads nothing of the
 * successor before `last` has come on every old stripe, each of which is in order. So it reads what it would have read of one
 * lane whose order between stripes is free, and what has an order (all on first stripes, as a call's announcement before its
 * data) keeps it, whatever was open at that moment. A connection that ends without `last` has lost something, whatever the system says of
 * its end. Should either lane break, the other one tells what became of the `take`: a writer that has not seen it goes on as before, and a
 * reader that finds an old lane at its end, and no successor, has lost a lane as it does otherwise. The lanes of both directions don't
 * concern one another.
 */
import {
  FRAME_PING,
  FRAME_PROBE,
  FRAME_PROBED,
  type FrameSink,
  HEADER_BYTES,
  PING_ANSWERS,
  PING_ASKS,
  PING_SHOWS,
} from '../wire/frame.ts';
import { LINK_HIGH_WATER_BYTES, MAX_STRIPES, PROBE_BYTES } from '../wire/limits.ts';
import { bareFrame, endStripe, Lane, type LaneName } from './lane.ts';
import type { Connection } from './transport.ts';

export type { LaneName } from './lane.ts';

export interface LinkEvents {
  /** Where frames that arrive on a new connection go; `close` is called when the connection is gone. */
  openSink(): FrameSink & { close(): void };
  /** A small piece of memory for frames cut in two, if possible in the kernels' arena. */
  takeCarry(): Uint8Array;
  giveCarry(carry: Uint8Array): void;
  onUp(): void;
  /** Queued bytes have left, and the link may be writable again. */
  onFlushed(): void;
  /** A lane was lost, with what was in flight on it. */
  onLaneClosed(lane: LaneName, error: Error | undefined): void;
}

/** What a peer that dials says a connection is to be, as it sees it: of a new lane, or one more stripe of a lane that it has dialled. */
export type DialledLane = LaneName | 'successor' | MoreOf;
type MoreOf = `${LaneName}-more`;

/** Of a lane that we have dialled ourselves, so that we can dial more of it. */
export interface LaneSight {
  readonly session: number;
  readonly stripes: number;
  /** The shortest that any of its stripes has seen (ms); null where none tells. */
  readonly roundTripMs: number | null;
  /** Bytes that have come on it, or left by it, and by those before it. */
  readonly bytes: number;
}

/** What the owner of a link is told of a lane that was prepared. */
export interface Succession {
  /** Everything that comes now, comes on it. */
  onAdopted(): void;
  /** It was lost before that, and nothing with it. */
  onLost(): void;
}

/** What a probe carries: the same for all, as nobody reads it. Made when it is first needed. */
let nothing: Uint8Array | null = null;

const SIGN = bareFrame({ type: FRAME_PING, segment: PING_SHOWS });
const QUESTION = bareFrame({ type: FRAME_PING, segment: PING_ASKS });
const ANSWER = bareFrame({ type: FRAME_PING, segment: PING_ANSWERS });

export class Link {
  readonly #events: LinkEvents;
  #outbound: Lane | null = null;
  #inbound: Lane | null = null;
  /** Of the inbound lane, dialled by us; `taken`: the other peer was asked to write to it. */
  #prepared: { readonly lane: Lane; readonly succession: Succession; taken: boolean } | null = null;
  /** Of the outbound lane, dialled by the other peer, which has not taken it yet. */
  #successor: Lane | null = null;
  /** That had successors, and whose connections are not all gone: there is one of each name at most. */
  readonly #retired: Map<LaneName, Lane> = new Map();
  /** Session of the last outbound lane that had a successor: a stripe of it may come late. */
  #leftSession: number | null = null;
  /** Bytes that came on inbound lanes that are gone. */
  #receivedBefore = 0;
  #heardBefore = 0;
  /** Bytes given to it for the other peer. */
  #sent = 0;
  /** Received bytes that are no news. */
  #signs = 0;
  #closed = false;

  constructor(events: LinkEvents) {
    this.#events = events;
  }

  /** Bytes received since the link was made. */
  get received(): number {
    return this.#receivedBefore + (this.#inbound?.received ?? 0);
  }

  /** Grows whenever something has come on every stripe. */
  get heard(): number {
    return this.#heardBefore + (this.#inbound?.heard ?? 0);
  }

  /** Of the bytes received, those that do not only show that the way is open. */
  get receivedNews(): number {
    return this.received - this.#signs;
  }

  /** Bytes given to it for the other peer since the link was made, whether they have left or not. */
  get sent(): number {
    return this.#sent;
  }

  /** A sign came that the way is open, or a probe of it, of so many bytes beside the header. */
  countSign(bytes: number): void {
    this.#signs += HEADER_BYTES + bytes;
  }

  /** Frames can be sent. */
  get up(): boolean {
    return this.#outbound !== null;
  }

  get receives(): boolean {
    return this.#inbound !== null;
  }

  get writable(): boolean {
    const stripes = this.#outbound?.stripes;
    if (stripes === undefined) return false;
    for (const stripe of stripes) if (stripe.connection.queuedBytes < LINK_HIGH_WATER_BYTES) return true;
    return false;
  }

  get queuedBytes(): number {
    return (this.#outbound?.queuedBytes ?? 0) + (this.#retired.get('outbound')?.queuedBytes ?? 0);
  }

  /** By how many connections frames are sent. */
  get stripes(): number {
    return this.#outbound?.stripes.length ?? 0;
  }

  /** For status pages: how the peer is reached. */
  get path(): string | null {
    return this.#inbound?.stripes[0]?.connection.remote ?? this.#outbound?.stripes[0]?.connection.remote ?? null;
  }

  /** Queues a frame on the emptiest stripe, or on the first one when its place among other frames matters. */
  send(head: Uint8Array, body: Uint8Array | null, onFlushed: (() => void) | null, ordered: boolean): void {
    const lane = this.#outbound;
    const best = ordered ? lane?.stripes[0]?.connection : lane?.emptiest;
    if (lane === null || best === undefined) {
      // The lane closed between the caller's look and this call: the bytes are lost like those in flight.
      if (onFlushed !== null) queueMicrotask(onFlushed);
      return;
    }
    lane.isUsed = true;
    this.#sent += head.length + (body?.length ?? 0);
    best.write(head, body, onFlushed);
  }

  /** Shows the other peer, on each stripe, that the way is open, and asks it for the same. */
  ask(): void {
    this.#show(QUESTION, true);
  }

  /** Answers a question. `onAll`: shows on all stripes that the way is open, as nothing else does. */
  answer(onAll: boolean): void {
    this.#show(ANSWER, onAll);
  }

  /** Shows the other peer, on each stripe, that the way is open. */
  sign(): void {
    this.#show(SIGN, true);
  }

  #show(onFirst: Uint8Array, onAll: boolean): void {
    const stripes = this.#outbound?.stripes ?? [];
    const count = onAll ? stripes.length : Math.min(1, stripes.length);
    for (let index = 0; index < count; index++)
      stripes[index]!.connection.write(index === 0 ? onFirst : SIGN, null, null);
    this.#sent += HEADER_BYTES * count;
  }

  /** Sends so many bytes, `PROBE_BYTES` at most, by which the other peer measures the way; it answers how long they took. */
  probe(bytes: number): void {
    nothing ??= new Uint8Array(PROBE_BYTES);
    this.send(bareFrame({ type: FRAME_PROBE, length: bytes }), nothing.subarray(0, bytes), null, false);
  }

  /** Answers a probe. */
  answerProbe(bytes: number, micros: number): void {
    if (this.up) this.send(bareFrame({ type: FRAME_PROBED, chunk: bytes, segment: micros }), null, null, false);
  }

  /** Nothing has arrived for too long: closes the inbound lane without telling the owner, who dials it again. */
  dropInbound(reason: Error): void {
    this.#dropPrepared(reason);
    this.#leaveInbound()?.close(reason);
  }

  /**
   * The other peer can't be reached: lets go of what is queued for it, as it would be held for a quarter of an hour. The other
   * peer dials the lane again.
   */
  dropOutbound(reason: Error): void {
    const lane = this.#outbound;
    this.#outbound = null;
    lane?.close(reason);
  }

  #dropPrepared(reason?: Error): void {
    const prepared = this.#prepared;
    this.#prepared = null;
    prepared?.lane.close(reason);
    prepared?.succession.onLost();
  }

  #leaveInbound(): Lane | null {
    const lane = this.#inbound;
    this.#receivedBefore = this.received;
    this.#heardBefore = this.heard;
    this.#inbound = null;
    return lane;
  }

  /** Frames sent from here to `uncork` leave together. */
  cork(): void {
    for (const stripe of this.#outbound?.stripes ?? []) stripe.connection.cork();
  }

  uncork(): void {
    for (const stripe of this.#outbound?.stripes ?? []) stripe.connection.uncork();
  }

  /** The other peer dialled one more stripe. A new session replaces the lane that it believes is gone. */
  accept(connection: Connection, session: number, rest: Uint8Array): void {
    if (this.#refuses(connection, session)) return;
    const old = this.#outbound;
    if (old?.session === session) {
      addTo(old, connection, rest);
      return;
    }
    old?.close();
    if (old !== null) this.#dropSuccessor(); // it took that one, before it dialled anew
    this.#outbound = this.#lane('outbound', session);
    this.#outbound.add(connection, rest);
    // It may have given the old one up before all of its stripes were dialled: then nobody else knows what was lost on it.
    if (old?.isUsed === true) this.#events.onLaneClosed('outbound', undefined);
    this.#events.onUp();
  }

  /** The other peer, which dialled the lane, added a stripe to it. One of a lane that is gone must not make it a new one. */
  acceptMore(which: MoreOf, connection: Connection, session: number, rest: Uint8Array): void {
    // What it receives on, we write to.
    const lane = which === 'inbound-more' ? this.#outbound : this.#inbound;
    if (which === 'inbound-more' && this.#refuses(connection, session)) return;
    if (!this.#closed && lane?.session === session) addTo(lane, connection, rest);
    else connection.destroy();
  }

  /** A lane that we have dialled; null when there is none. */
  dialledLane(name: LaneName): LaneSight | null {
    const lane = name === 'inbound' ? this.#inbound : this.#outbound;
    if (lane === null || !lane.isOurs) return null;
    const bytes = name === 'inbound' ? this.received : this.#sent - this.queuedBytes;
    return { session: lane.session, stripes: lane.stripes.length, roundTripMs: lane.roundTripMs, bytes };
  }

  /**
   * Adds a stripe to a lane that we have dialled, if that is there still.
   *
   * @param dial as for `Lane.join`; not called where it is of no use
   * @throws what `dial` throws
   */
  async addStripe(name: LaneName, session: number, dial: () => Promise<Connection>): Promise<void> {
    const lane = name === 'inbound' ? this.#inbound : this.#outbound;
    const isLeft = name === 'inbound' && this.#prepared?.taken === true;
    if (lane?.session === session && lane.isOurs && !isLeft) await lane.join(dial);
  }

  /** The other peer dialled one more stripe of a lane that it will take later. */
  acceptSuccessor(connection: Connection, session: number, rest: Uint8Array): void {
    if (this.#refuses(connection, session)) return;
    if (this.#outbound?.session === session) {
      addTo(this.#outbound, connection, rest); // it has taken the lane before all stripes were here
      return;
    }
    if (this.#successor?.session !== session) {
      this.#dropSuccessor();
      this.#successor = this.#lane('outbound', session);
    }
    addTo(this.#successor!, connection, rest); // which is in its place before it can be taken
  }

  /** Whether a stripe comes too late for its lane, which has had its end. */
  #refuses(connection: Connection, session: number): boolean {
    if (this.#closed) connection.destroy();
    else if (session === this.#leftSession) endStripe(connection);
    else return false;
    return true;
  }

  #dropSuccessor(): void {
    const lane = this.#successor;
    this.#successor = null;
    lane?.close();
  }

  #onTaken(lane: Lane): string | null {
    if (lane !== this.#successor) return 'it took a lane that it had not prepared';
    const old = this.#outbound;
    this.#outbound = lane;
    this.#successor = null;
    if (old === null) {
      this.#events.onUp();
    } else {
      this.#leftSession = old.session;
      this.#retire(old, old.leave());
      this.#events.onFlushed(); // there is room in the new one
    }
    return null;
  }

  /** Sees to it that the connections of a lane that is not used any more come to their end. */
  #retire(lane: Lane, gone: Promise<void>): void {
    // Of two, the earlier has nothing to say any more: its reader has taken two lanes since.
    this.#retired.get(lane.name)?.close();
    this.#retired.set(lane.name, lane);
    void gone.then(() => {
      if (this.#retired.get(lane.name) === lane) this.#retired.delete(lane.name);
    });
  }

  /**
   * The other peer, which we can't dial, dialled one more stripe for us to receive on. One that we have already is kept: it
   * works as far as we know, and when it does not, we will be told.
   */
  acceptReversed(connection: Connection, session: number, rest: Uint8Array): void {
    if (this.#closed || (this.#inbound !== null && this.#inbound.session !== session)) {
      connection.destroy();
      return;
    }
    this.#inbound ??= this.#lane('inbound', session);
    if (this.#inbound.stripes.length < MAX_STRIPES) this.#inbound.add(connection, rest);
    else connection.destroy();
  }

  /**
   * We dialled all stripes of a new inbound lane; they are paused.
   * @returns whether they all live still: one that was lost while the others were dialled would never say so
   */
  dialled(connections: readonly Connection[], session: number): boolean {
    if (!this.#allLive(connections)) return this.#closed;
    this.#dropPrepared();
    const reversed = this.#leaveInbound();
    reversed?.close();
    this.#inbound = this.#take('inbound', connections, session);
    // The other peer has left that lane for this one, with what was in flight on it.
    if (reversed !== null) this.#events.onLaneClosed('inbound', undefined);
    return true;
  }

  /** The same of a lane that we write to, as the other peer can't dial us; not needed any more if it has, meanwhile. */
  dialledReversed(connections: readonly Connection[], session: number): boolean {
    if (!this.#allLive(connections)) return this.#closed;
    if (this.up) {
      for (const connection of connections) connection.destroy();
      return true;
    }
    this.#outbound = this.#take('outbound', connections, session);
    this.#events.onUp();
    return true;
  }

  /**
   * We dialled all stripes of a lane that is to succeed the inbound one; they are paused. It lies unused until `adopt`.
   * @returns whether it is kept: a stripe may have been lost, or the inbound lane, or another is about to succeed
   */
  prepare(connections: readonly Connection[], session: number, succession: Succession): boolean {
    if (!this.#allLive(connections)) return this.#closed;
    if (this.#inbound === null || this.#prepared?.taken === true) {
      for (const connection of connections) connection.destroy();
      return false;
    }
    this.#dropPrepared();
    const lane = this.#lane('inbound', session);
    lane.isOurs = true;
    lane.waits = true;
    this.#prepared = { lane, succession, taken: false };
    for (const connection of connections) {
      lane.add(connection, new Uint8Array(0));
      connection.resume(); // one that is paused does not notice its end
    }
    return true;
  }

  /** Takes the lane that was prepared, if there is one. */
  adopt(): void {
    const prepared = this.#prepared;
    if (this.#closed || prepared === null || prepared.taken) return;
    prepared.taken = true;
    prepared.lane.take();
  }

  /** All that the inbound lane had to bring has come. */
  #onDrained(lane: Lane): void {
    if (lane !== this.#inbound) return;
    if (this.#prepared?.taken === true) {
      this.#leaveInbound();
      this.#retire(lane, lane.end());
      this.#install(this.#prepared);
    } else {
      // The successor was lost, and the other peer had it already.
      lane.close();
      this.#onLost(lane, undefined);
    }
  }

  #install({ lane, succession }: { readonly lane: Lane; readonly succession: Succession }): void {
    this.#prepared = null;
    this.#inbound = lane;
    lane.read();
    succession.onAdopted();
  }

  /** Where one does not, none is kept. */
  #allLive(connections: readonly Connection[]): boolean {
    const isLive = !this.#closed && connections.every((connection) => !connection.closed);
    if (!isLive) for (const connection of connections) connection.destroy();
    return isLive;
  }

  #take(name: LaneName, connections: readonly Connection[], session: number): Lane {
    const lane = this.#lane(name, session);
    lane.isOurs = true;
    for (const connection of connections) {
      lane.add(connection, new Uint8Array(0));
      connection.resume();
    }
    return lane;
  }

  #lane(name: LaneName, session: number): Lane {
    return new Lane(name, session, this.#events, {
      onLost: (lane, error) => this.#onLost(lane, error),
      onTaken: (lane) => this.#onTaken(lane),
      onDrained: (lane) => this.#onDrained(lane),
    });
  }

  #onLost(lane: Lane, error: Error | undefined): void {
    if (lane === this.#inbound) {
      this.#leaveInbound();
      // What is ready need not be dialled. The owner is told all the same: something may have been lost.
      this.adopt();
      if (this.#prepared !== null) this.#install(this.#prepared);
    } else if (lane === this.#outbound) {
      this.#outbound = null;
    } else {
      if (lane === this.#prepared?.lane) this.#dropPrepared();
      else if (lane === this.#successor) this.#successor = null;
      return;
    }
    if (!this.#closed) this.#events.onLaneClosed(lane.name, error);
  }

  /** Closes both lanes at once and drops what is queued. */
  destroy(reason?: Error): void {
    this.#closed = true;
    this.#closeUnused();
    for (const lane of [this.#inbound, this.#outbound, ...this.#retired.values()]) lane?.close(reason);
  }

  #closeUnused(): void {
    this.#dropPrepared();
    this.#dropSuccessor();
  }

  /** Lets what is queued leave, then closes; resolves when all connections are gone. */
  async end(): Promise<void> {
    this.#closed = true;
    this.#closeUnused();
    await Promise.all([this.#outbound, this.#inbound, ...this.#retired.values()].map((lane) => lane?.end()));
  }
}

function addTo(lane: Lane, connection: Connection, rest: Uint8Array): void {
  if (lane.stripes.length < MAX_STRIPES) lane.add(connection, rest);
  else connection.destroy();
}
