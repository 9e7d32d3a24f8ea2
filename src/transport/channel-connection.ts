/**
 * A byte stream over a data channel. Binary messages are the stream. Neither node-datachannel nor a browser can hold back what
 * arrives, so the reader grants credit. Text messages say the rest:
 *
 *     w<n>    the sender of this direction may have sent n bytes of the stream, counted from its beginning
 *     e       this direction has ended
 *     a       all of the other direction, and its end, was read
 *
 * An orderly close: both directions have ended, and both ends know it. The end that dialled closes then; the other one
 * waits for that, so that nothing is cut off that is still on its way.
 */
import { ConnectError, ProtocolError } from '../errors.ts';
import type { Clock } from './clock.ts';
import type { RtcChannel, RtcSession } from './rtc.ts';
import { type Connection, type ConnectionHandler, IDLE_HANDLER, type Visit } from './transport.ts';

/** Bytes of a direction that may be on their way or wait to be read. */
const WINDOW_BYTES: number = 4 * 1024 * 1024;

/** Credit is granted anew when so much of the window was read. */
const GRANT_BYTES: number = WINDOW_BYTES / 4;

/** Above this, what is written waits here rather than in the channel, where it can't be taken back. */
const BUFFERED_HIGH_BYTES: number = 1024 * 1024;

/** Bytes of a message; larger ones are not faster, and block what comes after them. */
const MESSAGE_BYTES: number = 64 * 1024;

/** Pieces shorter than this are gathered with their neighbours: each message has its cost. */
const GATHER_BYTES: number = 16 * 1024;

/** How long the end that was dialled waits for the other one to close (ms). */
const LINGER_MS = 2_000;

interface Write {
  readonly pieces: readonly Uint8Array[];
  readonly onFlushed: (() => void) | null;
}

export interface ChannelEnd {
  readonly session: Pick<RtcSession, 'close' | 'path'>;
  readonly channel: RtcChannel;
  readonly remote: string;
  /** What both ends of this connection, and of no other, have in common. */
  readonly binding: Uint8Array;
  readonly clock: Clock;
  readonly dialled: boolean;
  readonly relayOnly: boolean;
  readonly visit?: Visit;
}

export class ChannelConnection implements Connection {
  readonly remote: string;
  readonly relayOnly: boolean;
  readonly binding: Uint8Array;
  readonly visit?: Visit;
  handler: ConnectionHandler = IDLE_HANDLER;
  readonly #end: ChannelEnd;
  readonly #channel: RtcChannel;
  readonly #messageBytes: number;
  /** Where short pieces are gathered. */
  readonly #staging: Uint8Array;

  readonly #queue: Write[] = [];
  #queuedBytes = 0;
  /** Of the oldest write: the piece that goes on, and where. */
  #piece = 0;
  #offset = 0;
  #sent = 0;
  #allowed: number = WINDOW_BYTES;
  #corks = 0;
  #pumpDue = false;

  /** What came and was not read yet. */
  readonly #arrived: Uint8Array[] = [];
  #received = 0;
  #read = 0;
  #granted: number = WINDOW_BYTES;
  #paused = false;
  #readDue = false;
  #reading = false;

  #ending = false;
  #endSent = false;
  #endSeen = false;
  #endRead = false;
  #endAcknowledged = false;
  #closed = false;
  #stopLingering: () => void = () => {};

  constructor(end: ChannelEnd) {
    this.#end = end;
    this.#channel = end.channel;
    this.binding = end.binding;
    this.remote = end.remote;
    this.relayOnly = end.relayOnly;
    if (end.visit !== undefined) this.visit = end.visit;
    this.#messageBytes = Math.min(MESSAGE_BYTES, end.channel.maxMessageSize);
    this.#staging = new Uint8Array(Math.min(GATHER_BYTES, this.#messageBytes));
    end.channel.handler = {
      onOpen: () => {},
      onMessage: (message) => this.#onMessage(message),
      onBufferedAmountLow: () => this.#pump(),
      onClose: () => this.#onChannelClosed(),
    };
  }

  /** As the session is now: a direct one offers no relay, but what it is told of the other end's path may change. */
  get relayed(): boolean {
    return !this.#closed && this.#end.session.path === 'relayed';
  }

  get closed(): boolean {
    return this.#closed;
  }

  /** Without what the channel holds: like the buffers of a socket, that has been taken. */
  get queuedBytes(): number {
    return this.#queuedBytes;
  }

  // --- writing -----------------------------------------------------------------------------------------------------

  write(head: Uint8Array, body: Uint8Array | null, onFlushed: (() => void) | null): void {
    if (this.#closed || this.#ending) {
      if (onFlushed !== null) queueMicrotask(onFlushed);
      return;
    }
    this.#queue.push({ pieces: body === null ? [head] : [head, body], onFlushed });
    this.#queuedBytes += head.length + (body?.length ?? 0);
    this.#schedulePump();
  }

  cork(): void {
    this.#corks += 1;
  }

  uncork(): void {
    this.#corks -= 1;
    this.#schedulePump();
  }

  end(): void {
    if (this.#closed || this.#ending) return;
    this.#ending = true;
    this.#schedulePump();
  }

  /** What is written in one turn leaves together. */
  #schedulePump(): void {
    if (this.#pumpDue) return;
    this.#pumpDue = true;
    queueMicrotask(() => {
      this.#pumpDue = false;
      this.#pump();
    });
  }

  /** Sends what the credit and the channel's buffer allow. */
  #pump(): void {
    if (this.#closed || this.#corks > 0) return;
    const taken: Write[] = [];
    while (this.#queue.length > 0 && this.#channel.bufferedAmount < BUFFERED_HIGH_BYTES) {
      const room = Math.min(this.#messageBytes, this.#allowed - this.#sent);
      if (room === 0) break;
      this.#sendMessage(room, taken);
    }
    // Writes of no bytes at all are taken although there is no room.
    while (this.#queue.length > 0 && this.#next() === null) taken.push(this.#shift());
    if (this.#queue.length === 0 && this.#ending && !this.#endSent) {
      this.#endSent = true;
      this.#channel.send('e');
      this.#closeIfDone();
    }
    for (const { onFlushed } of taken) onFlushed?.();
    if (taken.length > 0 && !this.#closed) this.handler.onFlushed?.();
  }

  /** One message of at most `room` bytes: part of a long piece as it is, or short ones gathered. */
  #sendMessage(room: number, taken: Write[]): void {
    let gathered = 0;
    while (this.#queue.length > 0) {
      const piece = this.#next();
      if (piece === null) {
        taken.push(this.#shift());
        continue;
      }
      if (gathered === 0 && piece.length >= this.#staging.length) {
        const part = piece.subarray(0, room);
        this.#channel.send(part);
        this.#advance(part.length);
        break;
      }
      const part = piece.subarray(0, Math.min(room, this.#staging.length) - gathered);
      if (part.length === 0) break;
      this.#staging.set(part, gathered);
      gathered += part.length;
      this.#advance(part.length);
    }
    if (gathered > 0) this.#channel.send(this.#staging.subarray(0, gathered));
    while (this.#queue.length > 0 && this.#next() === null) taken.push(this.#shift());
  }

  /** What goes on of the oldest write; null when all of it was taken. */
  #next(): Uint8Array | null {
    const { pieces } = this.#queue[0]!; // callers have looked
    for (let piece = pieces[this.#piece]; piece !== undefined; piece = pieces[++this.#piece]) {
      if (this.#offset < piece.length) return this.#offset === 0 ? piece : piece.subarray(this.#offset);
      this.#offset = 0;
    }
    return null;
  }

  #advance(bytes: number): void {
    this.#offset += bytes;
    this.#sent += bytes;
    this.#queuedBytes -= bytes;
  }

  #shift(): Write {
    this.#piece = 0;
    this.#offset = 0;
    return this.#queue.shift()!; // callers have looked
  }

  // --- reading -----------------------------------------------------------------------------------------------------

  pause(): void {
    this.#paused = true;
  }

  resume(): void {
    this.#paused = false;
    this.#scheduleRead();
  }

  #onMessage(message: Uint8Array | string): void {
    if (this.#closed) return;
    if (typeof message === 'string') this.#onControl(message);
    else if (this.#endSeen) this.#refuse('it sent more after its end');
    else if (this.#received + message.length > this.#granted) this.#refuse('it sent more than it was allowed to');
    else {
      this.#received += message.length;
      this.#arrived.push(message);
      this.#readNow();
    }
  }

  #onControl(message: string): void {
    const allowed = /^w(\d{1,16})$/.exec(message);
    if (allowed !== null) {
      this.#allowed = Math.max(this.#allowed, Number(allowed[1]));
      this.#pump();
    } else if (message === 'e' && !this.#endSeen) {
      this.#endSeen = true;
      this.#readNow();
    } else if (message === 'a' && this.#endSent) {
      this.#endAcknowledged = true;
      this.#closeIfDone();
    } else this.#refuse(`it sent ${JSON.stringify(message.slice(0, 40))}`);
  }

  #scheduleRead(): void {
    if (this.#readDue) return;
    this.#readDue = true;
    queueMicrotask(() => {
      this.#readDue = false;
      this.#readNow();
    });
  }

  #readNow(): void {
    if (this.#reading) return; // the handler has called `resume`
    this.#reading = true;
    while (!this.#closed && !this.#paused && this.#arrived.length > 0) {
      const bytes = this.#arrived.shift()!;
      this.handler.onData(bytes);
      this.#read += bytes.length;
    }
    this.#reading = false;
    if (this.#closed || this.#paused) return;
    if (this.#endSeen) {
      if (this.#endRead) return;
      this.#endRead = true;
      this.#channel.send('a');
      this.handler.onEnd();
      this.#closeIfDone();
    } else if (this.#read + WINDOW_BYTES - this.#granted >= GRANT_BYTES) {
      this.#granted = this.#read + WINDOW_BYTES;
      this.#channel.send(`w${this.#granted}`);
    }
  }

  // --- the end -----------------------------------------------------------------------------------------------------

  destroy(reason?: Error): void {
    this.#close(reason);
  }

  #refuse(what: string): void {
    this.#close(new ProtocolError(`${this.remote}: ${what}.`));
  }

  #closeIfDone(): void {
    if (this.#closed || !this.#endSent || !this.#endRead || !this.#endAcknowledged) return;
    if (this.#end.dialled) this.#close();
    else this.#stopLingering = this.#end.clock.schedule(LINGER_MS, () => this.#close());
  }

  #onChannelClosed(): void {
    // The end that dialled closes when all is read at both; before that, what has arrived is lost like what is on its way.
    const isOrderly = this.#endSent && this.#endRead;
    this.#close(
      isOrderly ? undefined : new ConnectError(`The connection to ${this.remote} was closed by the other end.`),
    );
  }

  #close(error?: Error): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#stopLingering();
    const dropped = this.#queue.splice(0);
    this.#arrived.length = 0;
    this.#queuedBytes = 0;
    this.#end.session.close();
    queueMicrotask(() => {
      for (const { onFlushed } of dropped) onFlushed?.();
      this.handler.onClose(error);
    });
  }
}
