/** A peer's connection to the coordinator: greets, proves that it knows the token, makes the coordinator prove it too. */
import { ConnectError, ProtocolError, type SkeinError, UnauthorizedError } from '../errors.ts';
import { nonce, prove, sameProof } from '../transport/secure.ts';
import type { Address } from '../transport/transport.ts';
import { HANDSHAKE_TIMEOUT_MS, PROTOCOL_VERSION } from '../wire/limits.ts';
import {
  COORDINATOR_MESSAGES,
  type Control,
  type CoordinatorMessage,
  type PeerDescription,
  type PeerMessage,
} from '../wire/messages.ts';
import { ControlConnection } from './control-connection.ts';
import type { TransportKind } from './host.ts';
import type { Platform } from './platform.ts';

export interface Credentials {
  readonly run: string;
  readonly token: string;
  readonly startWorldSize: number;
  readonly description: PeerDescription;
  readonly transports: readonly TransportKind[];
}

export interface ClientEvents {
  onMessage(message: CoordinatorMessage): void;
  /** The connection is gone. */
  onLost(reason: string): void;
}

export type Welcome = Extract<CoordinatorMessage, { type: 'welcome' }>;

export class CoordinatorClient {
  readonly welcome: Welcome;
  readonly #connection: ControlConnection<CoordinatorMessage, PeerMessage>;
  readonly #fence: Fence;

  /**
   * @throws ConnectError when nobody answers, UnauthorizedError when the token is wrong, ProtocolError when the versions
   *   differ or the other end is no coordinator
   */
  static async connect(
    platform: Platform,
    address: Address,
    credentials: Credentials,
    events: ClientEvents,
    signal: AbortSignal | undefined,
  ): Promise<CoordinatorClient> {
    const options = { timeoutMs: HANDSHAKE_TIMEOUT_MS, ...(signal === undefined ? {} : { signal }) };
    const raw = await platform.dialCoordinator(address, credentials.transports, options);
    const fence: Fence = { term: 0, epoch: 0 };
    let client: CoordinatorClient | null = null;
    return new Promise<CoordinatorClient>((resolve, reject) => {
      const own = nonce();
      const fail = (error: SkeinError) => {
        stopTimer();
        connection.fail(error.message);
        reject(error);
      };
      const stopTimer = platform.clock.schedule(HANDSHAKE_TIMEOUT_MS, () => {
        fail(
          new ConnectError(
            `The coordinator at ${raw.remote} did not finish the handshake within ${HANDSHAKE_TIMEOUT_MS} ms.`,
            { phase: 'join' },
          ),
        );
      });
      const greet = (message: CoordinatorMessage) => {
        if (message.type === 'challenge') {
          if (!sameProof(message.proof, prove(credentials.token, 'coordinator', credentials.run, message.nonce, own))) {
            const text = `The coordinator at ${raw.remote} does not know this token: check \`token\` (or SKEIN_TOKEN) on both sides.`;
            fail(new UnauthorizedError(text, { phase: 'join' }));
            return;
          }
          // It knows the token: the welcome, which lists all peers, may be long.
          connection.trust();
          const proof = prove(credentials.token, 'peer', credentials.run, own, message.nonce);
          const { startWorldSize, description } = credentials;
          connection.send({ type: 'prove', proof, startWorldSize, ...description }, fence.term, 0);
        } else if (message.type === 'welcome') {
          stopTimer();
          client = new CoordinatorClient(connection, message, fence);
          resolve(client);
        } else if (message.type === 'refuse') {
          const context = { phase: 'join' };
          fail(
            message.code === 'unauthorized'
              ? new UnauthorizedError(message.message, context)
              : new ProtocolError(message.message, context),
          );
        } else {
          fail(
            new ProtocolError(`The coordinator at ${raw.remote} sent ${message.type} during the handshake.`, {
              phase: 'join',
            }),
          );
        }
      };
      const connection = new ControlConnection<CoordinatorMessage, PeerMessage>(raw, COORDINATOR_MESSAGES, {
        onMessage: (control: Control<CoordinatorMessage>) => {
          if (control.term < fence.term || control.epoch < fence.epoch) return; // fenced: a coordinator that was replaced
          fence.term = control.term;
          fence.epoch = control.epoch;
          if (client === null) greet(control.message);
          else events.onMessage(control.message);
        },
        onClosed: (reason) => {
          stopTimer();
          if (client === null) {
            reject(
              new ConnectError(
                `${raw.remote} closed the connection during the handshake (${reason ?? 'no reason given'}): is it a Skein coordinator?`,
                { phase: 'join' },
              ),
            );
          } else events.onLost(reason ?? 'it closed the connection');
        },
      });
      const { run } = credentials;
      connection.send({ type: 'hello', version: PROTOCOL_VERSION, run, nonce: own }, 0, 0);
    });
  }

  private constructor(connection: ControlConnection<CoordinatorMessage, PeerMessage>, welcome: Welcome, fence: Fence) {
    this.#connection = connection;
    this.welcome = welcome;
    this.#fence = fence;
  }

  send(message: PeerMessage): void {
    this.#connection.send(message, this.#fence.term, this.#fence.epoch);
  }

  /** Closes at once. */
  close(): void {
    this.#connection.fail('this peer closed it');
  }
}

/** Highest term and epoch heard so far: lower ones are refused. */
interface Fence {
  term: number;
  epoch: number;
}
