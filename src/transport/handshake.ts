/**
 * Opening a data connection. Both ends prove that they know the key which the coordinator gave this pair of peers; nothing
 * else is accepted, and no more than 4 KiB is kept, before that.
 *
 *     dialler                                   acceptor
 *        │ ── dial {run, from, to, nonce} ────────▶ │   looks up the pair's key, waits if it is not introduced yet
 *        │ ◀── dial-accept {nonce, proof} ───────── │
 *        │ ── dial-prove {proof} ─────────────────▶ │   data may flow
 */
import { ConnectError, ProtocolError, UnauthorizedError } from '../errors.ts';
import { DIAL_MESSAGES, type DialMessage } from '../wire/dial-messages.ts';
import { HANDSHAKE_TIMEOUT_MS, MAX_HANDSHAKE_BYTES, PROTOCOL_VERSION } from '../wire/limits.ts';
import { ControlReader, encodeControl } from '../wire/messages.ts';
import type { Clock } from './clock.ts';
import type { DialledLane } from './link.ts';
import { NONCE_BYTES, prove, sameProof } from './secure.ts';
import type { Connection, ConnectionHandler } from './transport.ts';

export interface DialIdentity {
  readonly run: string;
  readonly from: string;
  readonly to: string;
  /** Groups the stripes that were dialled together. */
  readonly session: number;
  /** As the dialler sees it. */
  readonly lane: DialledLane;
  readonly key: Uint8Array;
}

/** What a handshake needs of the world. */
export interface HandshakeWorld {
  readonly clock: Clock;
  /** Cryptographically strong random bytes. */
  random(length: number): Uint8Array;
}

function subjectOf(identity: {
  readonly run: string;
  readonly from: string;
  readonly to: string;
  readonly session: number;
  readonly lane: DialledLane;
}): string {
  return JSON.stringify([identity.run, identity.from, identity.to, identity.session, identity.lane]);
}

function send(connection: Connection, message: DialMessage): void {
  connection.write(encodeControl(message, 0, 0), null, null);
}

/** Runs one side's part of the exchange: `onMessage` answers each message, until it settles the promise. */
class Exchange<T> implements ConnectionHandler {
  readonly result: Promise<T>;
  readonly #connection: Connection;
  readonly #reader: ControlReader<DialMessage> = new ControlReader(DIAL_MESSAGES, MAX_HANDSHAKE_BYTES);
  readonly #onMessage: (message: DialMessage) => void;
  readonly #stopTimer: () => void;
  #settled = false;
  #succeeded = false;
  /** Of what came in one turn with the last message, but not in one piece: nobody else is there to take it yet. */
  readonly #late: Uint8Array[] = [];
  #resolve!: (value: T) => void;
  #reject!: (error: Error) => void;

  constructor(connection: Connection, clock: Clock, onMessage: (message: DialMessage) => void) {
    this.#connection = connection;
    this.#onMessage = onMessage;
    this.result = new Promise<T>((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    this.#stopTimer = clock.schedule(HANDSHAKE_TIMEOUT_MS, () => {
      this.fail(
        new ConnectError(`The handshake with ${connection.remote} took longer than ${HANDSHAKE_TIMEOUT_MS} ms.`),
      );
    });
    connection.handler = this;
  }

  /** Bytes that came after the last message, until now. */
  get rest(): Uint8Array {
    const parts = [this.#reader.rest, ...this.#late];
    const rest = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
    let at = 0;
    for (const part of parts) {
      rest.set(part, at);
      at += part.length;
    }
    return rest;
  }

  succeed(value: T): void {
    if (this.#settled) return;
    this.#settled = true;
    this.#succeeded = true;
    this.#stopTimer();
    this.#resolve(value);
  }

  fail(error: Error): void {
    if (this.#settled) return;
    this.#settled = true;
    this.#stopTimer();
    this.#connection.destroy();
    this.#reject(error);
  }

  onData(bytes: Uint8Array): void {
    if (this.#succeeded) this.#late.push(bytes.slice());
    if (this.#settled) return;
    const error = this.#reader.push(bytes, (control) => {
      this.#onMessage(control.message);
      return !this.#settled;
    });
    if (error !== null) this.fail(new ProtocolError(`${this.#connection.remote}: ${error}`));
  }

  onEnd(): void {
    this.fail(new ConnectError(`${this.#connection.remote} closed the connection during the handshake.`));
  }

  onClose(error?: Error): void {
    this.fail(
      new ConnectError(`The connection to ${this.#connection.remote} closed during the handshake.`, { cause: error }),
    );
  }
}

/**
 * Proves to the peer at the other end who we are, and makes it prove who it is. Afterwards the connection carries frames; it
 * is paused until `Link.dialled` takes it.
 *
 * @throws ConnectError, ProtocolError, UnauthorizedError; the connection is closed then
 */
export async function dialHandshake(
  connection: Connection,
  identity: DialIdentity,
  { clock, random }: HandshakeWorld,
): Promise<void> {
  const own = random(NONCE_BYTES);
  const { binding } = connection;
  const subject = subjectOf(identity);
  const exchange = new Exchange<void>(connection, clock, (message) => {
    if (message.type !== 'dial-accept') {
      exchange.fail(new ProtocolError(`${connection.remote} answered a dial with ${message.type}.`));
    } else if (
      !sameProof(message.proof, prove(identity.key, 'accept', { subject, binding, own: message.nonce, theirs: own }))
    ) {
      exchange.fail(
        new UnauthorizedError(
          `${connection.remote} is not ${identity.to}: it does not know the key of this pair, or passes on what somebody else says.`,
        ),
      );
    } else {
      const proof = prove(identity.key, 'dial', { subject, binding, own, theirs: message.nonce });
      send(connection, { type: 'dial-prove', proof });
      // Frames may come from now on, before all stripes of the lane are there to take them.
      connection.pause();
      exchange.succeed();
    }
  });
  const { run, from, to, session, lane } = identity;
  send(connection, { type: 'dial', version: PROTOCOL_VERSION, run, from, to, session, lane, nonce: own });
  await exchange.result;
}

export interface Accepted {
  readonly from: string;
  readonly session: number;
  /** As the dialler sees it. */
  readonly lane: DialledLane;
  /** Bytes of the first frames, if they came along with the proof. */
  readonly rest: Uint8Array;
}

/**
 * The other side of `dialHandshake`.
 *
 * @param keyOf the key of the pair (we, `from`); waits until the peer is introduced, null if it never is
 */
export async function acceptHandshake(
  connection: Connection,
  self: { readonly run: string; readonly peerId: string },
  keyOf: (from: string) => Promise<Uint8Array | null>,
  { clock, random }: HandshakeWorld,
): Promise<Accepted> {
  let greeting: Extract<DialMessage, { type: 'dial' }> | null = null;
  let key: Uint8Array | null = null;
  const own = random(NONCE_BYTES);
  const { binding } = connection;
  const exchange = new Exchange<Accepted>(connection, clock, (message) => {
    if (message.type === 'dial' && greeting === null) {
      greeting = message;
      if (message.version !== PROTOCOL_VERSION) {
        exchange.fail(
          new ProtocolError(
            `${connection.remote} speaks protocol version ${message.version}, not ${PROTOCOL_VERSION}.`,
          ),
        );
      } else if (message.run !== self.run || message.to !== self.peerId) {
        exchange.fail(
          new ProtocolError(`${connection.remote} looks for ${message.to} of run ${message.run}, which is not here.`),
        );
      } else {
        const subject = subjectOf(message);
        void keyOf(message.from).then((found) => {
          if (found === null) {
            exchange.fail(
              new UnauthorizedError(`${connection.remote} calls itself ${message.from}, whom nobody introduced.`),
            );
            return;
          }
          key = found;
          const proof = prove(found, 'accept', { subject, binding, own, theirs: message.nonce });
          send(connection, { type: 'dial-accept', nonce: own, proof });
        });
      }
    } else if (message.type === 'dial-prove' && greeting !== null && key !== null) {
      const parts = { subject: subjectOf(greeting), binding, own: greeting.nonce, theirs: own };
      if (sameProof(message.proof, prove(key, 'dial', parts))) {
        const { from, session, lane } = greeting;
        exchange.succeed({ from, session, lane, rest: new Uint8Array(0) });
      } else {
        exchange.fail(new UnauthorizedError(`${connection.remote} does not know the key of ${greeting.from}.`));
      }
    } else {
      exchange.fail(new ProtocolError(`${connection.remote} sent ${message.type} out of turn.`));
    }
  });
  const accepted = await exchange.result;
  return { ...accepted, rest: exchange.rest };
}
