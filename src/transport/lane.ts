/** The connections of one direction of a link (stripes), and what cuts the bytes that arrive on them into frames. */
import { ProtocolError } from '../errors.ts';
import { Lifecycle } from '../lifecycle.ts';
import {
  emptyHeader,
  FRAME_LAST,
  FRAME_TAKE,
  type FrameHeader,
  FrameReader,
  type FrameSink,
  HEADER_BYTES,
  writeHeader,
} from '../wire/frame.ts';
import type { Connection, ConnectionHandler } from './transport.ts';

export type LaneName = 'inbound' | 'outbound';

/** A header by itself. */
export function bareFrame(header: Partial<FrameHeader>): Uint8Array {
  const bytes = new Uint8Array(HEADER_BYTES);
  writeHeader(new DataView(bytes.buffer), 0, { ...emptyHeader(), ...header });
  return bytes;
}

const TAKE = bareFrame({ type: FRAME_TAKE });
const LAST = bareFrame({ type: FRAME_LAST });

/** The other peer will find nothing more on this connection. */
export function endStripe(connection: Connection): void {
  connection.write(LAST, null, null);
  connection.end();
}

/** What a stripe needs of its surroundings. */
interface StripeEvents {
  /** Where frames that arrive on a new connection go; `close` is called when the connection is gone. */
  openSink(): FrameSink & { close(): void };
  /** A small piece of memory for frames cut in two, if possible in the kernels' arena. */
  takeCarry(): Uint8Array;
  giveCarry(carry: Uint8Array): void;
  /** Queued bytes have left, and the link may be writable again. */
  onFlushed(): void;
}

/** What its link is told of a lane. */
interface LaneEvents {
  /** A stripe was lost, and the lane with it. */
  onLost(lane: Lane, error: Error | undefined): void;
  /** The other peer, which dialled the lane, wants us to write to it from now on; what is wrong with that, or null. */
  onTaken(lane: Lane): string | null;
  /** All that the other peer has written to the lane was read, and it writes nothing more. */
  onDrained(lane: Lane): void;
}

/** One connection of a lane. */
class Stripe implements ConnectionHandler, FrameSink {
  readonly connection: Connection;
  /** The other peer has said that nothing more comes. */
  isDrained = false;
  /** Something has come since all stripes of the lane were last heard. */
  isHeard = false;
  readonly #lane: Lane;
  readonly #events: StripeEvents;
  readonly #sink: FrameSink & { close(): void };
  readonly #carry: Uint8Array;
  readonly #reader: FrameReader;
  /** The frame that arrives is about the lane itself. */
  #isOwn = false;

  constructor(connection: Connection, lane: Lane, events: StripeEvents) {
    this.connection = connection;
    this.#lane = lane;
    this.#events = events;
    this.#sink = events.openSink();
    this.#carry = events.takeCarry();
    this.#reader = new FrameReader(this, this.#carry);
    connection.handler = this;
  }

  onData(bytes: Uint8Array): void {
    this.#lane.received += bytes.length;
    if (!this.isHeard) this.#lane.hear(this);
    const error = this.#lane.waits ? 'it wrote to a lane before it was asked to' : this.#reader.push(bytes);
    if (error !== null) this.connection.destroy(new ProtocolError(error));
  }

  onFrame(header: FrameHeader): string | null {
    if (this.isDrained) return 'it sent more after its last frame';
    this.#isOwn = header.type === FRAME_TAKE || header.type === FRAME_LAST;
    if (header.type === FRAME_TAKE) return this.#lane.taken();
    if (header.type === FRAME_LAST) {
      this.isDrained = true;
      return this.#lane.drained();
    }
    return this.#sink.onFrame(header);
  }

  onPayload(bytes: Uint8Array, start: number, end: number): string | null {
    return this.#sink.onPayload(bytes, start, end);
  }

  onFrameEnd(): string | null {
    return this.#isOwn ? null : this.#sink.onFrameEnd();
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

/** `ending`: what is queued still leaves. */
type LaneState = 'open' | 'ending' | 'closed';

const LIFE = new Lifecycle<LaneState>('lane', { open: ['ending', 'closed'], ending: ['closed'], closed: [] });

/** The stripes of one direction that were opened together. */
export class Lane {
  readonly name: LaneName;
  readonly session: number;
  readonly stripes: Stripe[] = [];
  /** The shortest that any of its stripes has seen (ms); null where none tells. */
  roundTripMs: number | null = null;
  /** Bytes. */
  received = 0;
  /** How often something has come on every stripe: one that is silent is not hidden by the others. */
  heard = 0;
  /** Something was written to it. */
  isUsed = false;
  /** We have dialled it. */
  isOurs = false;
  /** It is read by us, and its turn has not come. */
  waits = false;
  /** Stripes whose connections are not gone yet. */
  readonly #open: Set<Stripe> = new Set();
  /** Stripes that are being dialled: the other peer may write to them before we have them. */
  #joining = 0;
  /** Index of the stripe that is asked first whether it is the emptiest. */
  #turn = 0;
  #gone: Promise<void> | null = null;
  #onGone: () => void = () => {};
  readonly #stripeEvents: StripeEvents;
  readonly #events: LaneEvents;
  #state: LaneState = 'open';

  constructor(name: LaneName, session: number, stripeEvents: StripeEvents, events: LaneEvents) {
    this.name = name;
    this.session = session;
    this.#stripeEvents = stripeEvents;
    this.#events = events;
  }

  get queuedBytes(): number {
    let bytes = 0;
    for (const stripe of this.stripes) bytes += stripe.connection.queuedBytes;
    return bytes;
  }

  /** The stripe on which fewest bytes wait; of several, the one whose turn it is: what the kernel holds, nobody tells. */
  get emptiest(): Connection | undefined {
    const { stripes } = this;
    let best = this.#turn < stripes.length ? this.#turn : 0;
    let fewest = stripes[best]?.connection.queuedBytes;
    if (fewest === undefined) return undefined;
    for (let step = 1; step < stripes.length; step++) {
      const index = (this.#turn + step) % stripes.length;
      const { queuedBytes } = stripes[index]!.connection;
      if (queuedBytes >= fewest) continue;
      best = index;
      fewest = queuedBytes;
    }
    this.#turn = (best + 1) % stripes.length;
    return stripes[best]!.connection;
  }

  /**
   * Adds one more stripe to a lane that we have dialled. It may be written to as soon as the other peer has it, so the lane has not had
   * its end before the dial has ended; and if the stripe is gone by then, something may have been lost on it, as on any other.
   *
   * @param dial resolves when the other peer has the stripe, with the connection paused
   * @throws what `dial` throws: then there is no such stripe
   */
  async join(dial: () => Promise<Connection>): Promise<void> {
    this.#joining += 1;
    try {
      this.#take(await dial());
    } finally {
      this.#joining -= 1;
      if (this.#hadItsEnd) this.#events.onDrained(this);
    }
  }

  #take(connection: Connection): void {
    if (this.#state === 'open' && connection.closed) this.#break(undefined);
    else if (this.#state === 'open') {
      this.add(connection, new Uint8Array(0));
      connection.resume();
    } else if (this.#state === 'ending' && this.name === 'outbound') endStripe(connection);
    else connection.destroy();
  }

  add(connection: Connection, rest: Uint8Array): void {
    const stripe = new Stripe(connection, this, this.#stripeEvents);
    const { roundTripMs } = connection;
    if (roundTripMs !== undefined) this.roundTripMs = Math.min(roundTripMs, this.roundTripMs ?? roundTripMs);
    this.stripes.push(stripe);
    this.#open.add(stripe);
    if (rest.length > 0) stripe.onData(rest);
  }

  hear(stripe: Stripe): void {
    stripe.isHeard = true;
    if (!this.stripes.every((other) => other.isHeard)) return;
    this.heard += 1;
    for (const other of this.stripes) other.isHeard = false;
  }

  /** A stripe's connection is gone, and with it the lane, unless nothing more was to come. */
  lost(stripe: Stripe, error: Error | undefined): void {
    this.#open.delete(stripe);
    if (this.#open.size === 0) {
      if (this.#state === 'ending') this.#state = LIFE.step(this.#state, 'closed');
      this.#onGone();
    }
    if (this.#state === 'open' && !stripe.isDrained) this.#break(error);
  }

  #break(error: Error | undefined): void {
    this.close(error);
    this.#events.onLost(this, error);
  }

  /** The other peer writes nothing more, on no stripe. */
  get #hadItsEnd(): boolean {
    const isWhole = this.#joining === 0 && this.name === 'inbound' && this.#state === 'open';
    return isWhole && this.stripes.every((stripe) => stripe.isDrained);
  }

  /** Whoever dialled it wants it to be used; what is wrong with that, or null. */
  taken(): string | null {
    return this.#events.onTaken(this);
  }

  /** Nothing more comes on one of its stripes; what is wrong with that, or null. */
  drained(): string | null {
    if (this.name !== 'inbound') return 'it left a lane to which it does not write';
    if (this.#hadItsEnd) this.#events.onDrained(this);
    return null;
  }

  /** Asks the other peer to write to this lane from now on. What it writes is not read before `read`. */
  take(): void {
    for (const stripe of this.stripes) stripe.connection.pause();
    this.stripes[0]?.connection.write(TAKE, null, null);
  }

  /** Its turn has come. */
  read(): void {
    this.waits = false;
    for (const stripe of this.stripes) stripe.connection.resume();
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
    this.#gone ??= new Promise((resolve) => {
      this.#onGone = resolve;
    });
    return this.#gone;
  }

  /** We write nothing more to it, and say so; then as `end`. */
  leave(): Promise<void> {
    for (const stripe of this.stripes) endStripe(stripe.connection);
    return this.end();
  }
}
