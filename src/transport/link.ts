/**
 * A link: everything between this peer and another. It has two lanes of one or more stripes (connections):
 *
 *     outbound   dialled by the other peer, which reads from it into one reused buffer; we write
 *     inbound    dialled by us; the other peer writes
 *
 * Each peer dials what it receives on, because only the dialling side of a Node socket can choose where reads go. Where a
 * peer can't be dialled, as behind a NAT, it dials the other lane too (*reversed*). A lane that loses one connection is
 * closed as a whole: what was in flight on it is lost, and whoever owns the link must know.
 */
import { ProtocolError } from '../errors.ts';
import { Lifecycle } from '../lifecycle.ts';
import {
  emptyHeader,
  FRAME_PING,
  FRAME_PROBE,
  FRAME_PROBED,
  type FrameHeader,
  FrameReader,
  type FrameSink,
  HEADER_BYTES,
  writeHeader,
} from '../wire/frame.ts';
import { LINK_HIGH_WATER_BYTES, MAX_STRIPES, PROBE_BYTES } from '../wire/limits.ts';
import type { Connection, ConnectionHandler } from './transport.ts';

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

const PING = signFrame({ type: FRAME_PING });
const PING_ASKING = signFrame({ type: FRAME_PING, segment: 1 });

/** What a probe carries: the same for all, as nobody reads it. Made when it is first needed. */
let nothing: Uint8Array | null = null;

function signFrame(header: Partial<FrameHeader>): Uint8Array {
  const bytes = new Uint8Array(HEADER_BYTES);
  writeHeader(new DataView(bytes.buffer), 0, { ...emptyHeader(), ...header });
  return bytes;
}

/** One connection of a lane: cuts what arrives into frames. */
class Stripe implements ConnectionHandler {
  readonly connection: Connection;
  readonly #lane: Lane;
  readonly #events: LinkEvents;
  readonly #sink: FrameSink & { close(): void };
  readonly #carry: Uint8Array;
  readonly #reader: FrameReader;

  constructor(connection: Connection, lane: Lane, events: LinkEvents) {
    this.connection = connection;
    this.#lane = lane;
    this.#events = events;
    this.#sink = events.openSink();
    this.#carry = events.takeCarry();
    this.#reader = new FrameReader(this.#sink, this.#carry);
    connection.handler = this;
  }

  onData(bytes: Uint8Array): void {
    this.#lane.received += bytes.length;
    const error = this.#reader.push(bytes);
    if (error !== null) this.connection.destroy(new ProtocolError(error));
  }

  onFlushed(): void {
    this.#events.onFlushed();
  }

  onEnd(): void {
    this.connection.end();
  }

  onClose(error?: Error): void {
    this.#sink.close();
    this.#events.giveCarry(this.#carry);
    this.#lane.lost(this, error);
  }
}

export type LaneName = 'inbound' | 'outbound';

/** `ending`: what is queued still leaves. */
type LaneState = 'open' | 'ending' | 'closed';

const LIFE = new Lifecycle<LaneState>('lane', { open: ['ending', 'closed'], ending: ['closed'], closed: [] });

/** The stripes of one direction that were opened together. */
class Lane {
  readonly name: LaneName;
  readonly session: number;
  readonly stripes: Stripe[] = [];
  /** Bytes. */
  received = 0;
  /** Stripes whose connections are not gone yet. */
  readonly #open: Set<Stripe> = new Set();
  #onGone: () => void = () => {};
  readonly #events: LinkEvents;
  readonly #onLost: (lane: Lane, error: Error | undefined) => void;
  #state: LaneState = 'open';

  constructor(
    name: LaneName,
    session: number,
    events: LinkEvents,
    onLost: (lane: Lane, error: Error | undefined) => void,
  ) {
    this.name = name;
    this.session = session;
    this.#events = events;
    this.#onLost = onLost;
  }

  add(connection: Connection, rest: Uint8Array): void {
    const stripe = new Stripe(connection, this, this.#events);
    this.stripes.push(stripe);
    this.#open.add(stripe);
    if (rest.length > 0) stripe.onData(rest);
  }

  /** A stripe's connection is gone, and with it the lane. */
  lost(stripe: Stripe, error: Error | undefined): void {
    this.#open.delete(stripe);
    if (this.#open.size === 0) {
      if (this.#state === 'ending') this.#state = LIFE.step(this.#state, 'closed');
      this.#onGone();
    }
    if (this.#state !== 'open') return;
    this.close(error);
    this.#onLost(this, error);
  }

  /** Closes without telling the owner. */
  close(error?: Error): void {
    this.#state = LIFE.step(this.#state, 'closed');
    for (const stripe of this.stripes) stripe.connection.destroy(error);
  }

  /** Lets what is queued leave, then closes; resolves when all connections are gone. */
  end(): Promise<void> {
    if (this.#state === 'open') this.#state = LIFE.step(this.#state, 'ending');
    for (const stripe of this.stripes) stripe.connection.end();
    if (this.#open.size === 0) return Promise.resolve();
    return new Promise((resolve) => {
      this.#onGone = resolve;
    });
  }
}

export class Link {
  readonly #events: LinkEvents;
  #outbound: Lane | null = null;
  #inbound: Lane | null = null;
  /** Bytes that came on inbound lanes that are gone. */
  #receivedBefore = 0;
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

  /** Of these, bytes that do not only show that the way is open. */
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
    let bytes = 0;
    for (const stripe of this.#outbound?.stripes ?? []) bytes += stripe.connection.queuedBytes;
    return bytes;
  }

  /** For status pages: how the peer is reached. */
  get path(): string | null {
    return this.#inbound?.stripes[0]?.connection.remote ?? this.#outbound?.stripes[0]?.connection.remote ?? null;
  }

  /** Queues a frame on the emptiest stripe, or on the first one when its place among other frames matters. */
  send(head: Uint8Array, body: Uint8Array | null, onFlushed: (() => void) | null, ordered: boolean): void {
    const stripes = this.#outbound?.stripes;
    let best = stripes?.[0]?.connection;
    if (stripes === undefined || best === undefined) {
      // The lane closed between the caller's look and this call: the bytes are lost like those in flight.
      if (onFlushed !== null) queueMicrotask(onFlushed);
      return;
    }
    if (!ordered) {
      for (let index = 1; index < stripes.length; index++) {
        const connection = stripes[index]!.connection;
        if (connection.queuedBytes < best.queuedBytes) best = connection;
      }
    }
    this.#sent += head.length + (body?.length ?? 0);
    best.write(head, body, onFlushed);
  }

  /** Shows the other peer that the way is open. `asks`: it should show the same. */
  ping(asks: boolean): void {
    if (this.up) this.send(asks ? PING_ASKING : PING, null, null, false);
  }

  /** Sends so many bytes, `PROBE_BYTES` at most, by which the other peer measures the way; it answers how long they took. */
  probe(bytes: number): void {
    nothing ??= new Uint8Array(PROBE_BYTES);
    this.send(signFrame({ type: FRAME_PROBE, length: bytes }), nothing.subarray(0, bytes), null, false);
  }

  /** Answers a probe. */
  answerProbe(bytes: number, micros: number): void {
    if (this.up) this.send(signFrame({ type: FRAME_PROBED, chunk: bytes, segment: micros }), null, null, false);
  }

  /** Nothing has arrived for too long: closes the inbound lane without telling the owner, who dials it again. */
  dropInbound(reason: Error): void {
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

  #leaveInbound(): Lane | null {
    const lane = this.#inbound;
    this.#receivedBefore = this.received;
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
    if (this.#closed) {
      connection.destroy();
      return;
    }
    if (this.#outbound !== null && this.#outbound.session !== session) {
      const old = this.#outbound;
      this.#outbound = null;
      old.close();
    }
    if (this.#outbound === null) {
      this.#outbound = this.#lane('outbound', session);
      this.#outbound.add(connection, rest);
      this.#events.onUp();
    } else if (this.#outbound.stripes.length < MAX_STRIPES) {
      this.#outbound.add(connection, rest);
    } else {
      connection.destroy();
    }
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

  /** Where one does not, none is kept. */
  #allLive(connections: readonly Connection[]): boolean {
    const isLive = !this.#closed && connections.every((connection) => !connection.closed);
    if (!isLive) for (const connection of connections) connection.destroy();
    return isLive;
  }

  #take(name: LaneName, connections: readonly Connection[], session: number): Lane {
    const lane = this.#lane(name, session);
    for (const connection of connections) {
      lane.add(connection, new Uint8Array(0));
      connection.resume();
    }
    return lane;
  }

  #lane(name: LaneName, session: number): Lane {
    return new Lane(name, session, this.#events, (lane, error) => {
      if (lane === this.#inbound) this.#leaveInbound();
      else if (lane === this.#outbound) this.#outbound = null;
      else return;
      if (!this.#closed) this.#events.onLaneClosed(name, error);
    });
  }

  /** Closes both lanes at once and drops what is queued. */
  destroy(reason?: Error): void {
    this.#closed = true;
    this.#inbound?.close(reason);
    this.#outbound?.close(reason);
  }

  /** Lets what is queued leave, then closes; resolves when all connections are gone. */
  async end(): Promise<void> {
    this.#closed = true;
    await Promise.all([this.#outbound?.end(), this.#inbound?.end()]);
  }
}
