/** One control connection, either end: cuts the stream into validated messages, and refuses what a lower term or epoch sent. */
import { ProtocolError } from '../errors.ts';
import type { Connection, ConnectionHandler } from '../transport/transport.ts';
import type { ControlSchema } from '../wire/control-schema.ts';
import type { CoordinatorMessage } from '../wire/coordinator-messages.ts';
import { MAX_CONTROL_BYTES, MAX_CONTROL_QUEUE_BYTES, MAX_HANDSHAKE_BYTES } from '../wire/limits.ts';
import { type Control, ControlReader, encodeControl } from '../wire/messages.ts';
import type { PeerMessage } from '../wire/peer-messages.ts';

export interface ControlHandler<In> {
  onMessage(control: Control<In>): void;
  /** Called once; `reason` says what was wrong, if something was. */
  onClosed(reason: string | null): void;
}

export class ControlConnection<In, Out extends PeerMessage | CoordinatorMessage> implements ConnectionHandler {
  readonly remote: string;
  readonly binding: Uint8Array;
  /** Its other end may be one that can't know the binding. */
  readonly mayBeUnbound: boolean;
  readonly #connection: Connection;
  readonly #reader: ControlReader<In>;
  readonly #handler: ControlHandler<In>;
  /** It was closed by this end: the other one has broken the protocol, or was given up. */
  cutBecause: 'protocol' | 'given up' | null = null;
  #open = true;
  #reason: string | null = null;

  constructor(connection: Connection, schema: ControlSchema<In>, handler: ControlHandler<In>) {
    this.remote = connection.remote;
    this.binding = connection.binding;
    this.mayBeUnbound = connection.visit !== undefined;
    this.#connection = connection;
    this.#reader = new ControlReader(schema, MAX_HANDSHAKE_BYTES);
    this.#handler = handler;
    connection.handler = this;
  }

  /** The other end has proved who it is: longer messages are allowed. */
  trust(): void {
    this.#reader.setLimit(MAX_CONTROL_BYTES);
    this.#connection.visit?.trust();
  }

  send(message: Out, term: number, epoch: number): void {
    if (!this.#open) return;
    this.#connection.write(encodeControl(message, term, epoch), null, null);
    this.#checkQueue();
  }

  /** A message that may go to many others as well. It leaves along with what else is sent before this turn of the event loop has ended. */
  sendEncoded(bytes: Uint8Array): void {
    if (!this.#open) return;
    if (this.#connection.writeSoon !== undefined) this.#connection.writeSoon(bytes);
    else this.#connection.write(bytes, null, null);
    this.#checkQueue();
  }

  #checkQueue(): void {
    if (this.#connection.queuedBytes > MAX_CONTROL_QUEUE_BYTES) this.fail('it does not read what it is sent');
  }

  /** Closes after everything sent has left. */
  end(): void {
    this.#connection.end();
  }

  /** Closes at once. */
  fail(reason: string): void {
    this.cutBecause ??= 'given up';
    this.#destroy(reason, new Error(reason));
  }

  /** Closes at once: the other end has broken the protocol. */
  refuse(reason: string): void {
    this.cutBecause ??= 'protocol';
    this.#destroy(reason, new ProtocolError(reason));
  }

  #destroy(reason: string, error: Error): void {
    if (!this.#open) return;
    this.#reason ??= reason;
    this.#connection.destroy(error);
  }

  onData(bytes: Uint8Array): void {
    if (!this.#open || this.#reason !== null) return;
    const error = this.#reader.push(bytes, (control) => {
      this.#handler.onMessage(control);
      // What stands after a message that was wrong is not to be believed either.
      return this.#open && this.#reason === null;
    });
    if (error !== null) this.refuse(error);
  }

  onEnd(): void {
    this.#connection.end();
  }

  onClose(error?: Error): void {
    if (!this.#open) return;
    this.#open = false;
    this.#handler.onClosed(this.#reason ?? error?.message ?? null);
  }
}
