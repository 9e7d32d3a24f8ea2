/**
 * The handshake of a control connection, from the peer's side:
 *
 *     peer                                      coordinator
 *       │ ── hello {run, nonce} ───────────────▶ │
 *       │ ◀── challenge {nonce, proof} ───────── │   it knows the token
 *       │ ── prove {proof, description} ───────▶ │   and so do we
 *       │ ── resume {report} ──────────────────▶ │   only when we come back
 *       │ ◀── welcome, resumed or evicted ────── │
 */
import { ConnectError, ProtocolError, type SkeinError, UnauthorizedError } from '../errors.ts';
import { NONCE_BYTES, prove, sameProof } from '../transport/secure.ts';
import type { Address, Connection } from '../transport/transport.ts';
import { COORDINATOR_MESSAGES, type CoordinatorMessage, type PeerDescription } from '../wire/coordinator-messages.ts';
import { HANDSHAKE_TIMEOUT_MS, PROTOCOL_VERSION } from '../wire/limits.ts';
import type { Control } from '../wire/messages.ts';
import type { PeerMessage, RunReport } from '../wire/peer-messages.ts';
import { ControlConnection, type ControlHandler } from './control-connection.ts';
import type { TransportKind } from './host.ts';
import type { Platform } from './platform.ts';
import { controlDialer, encrypts, type Security } from './security.ts';
import { tokenKey } from './token-key.ts';

export interface Credentials {
  readonly run: string;
  readonly token: string;
  readonly security: Security;
  readonly startWorldSize: number;
  readonly name: string;
  readonly description: PeerDescription;
  readonly transports: readonly TransportKind[];
}

/** The coordinator stands by while another one leads. */
export class StandbyError extends ConnectError {
  /** Where the one that leads can be found, as far as known. */
  readonly leader: string | null;

  constructor(message: string, leader: string | null) {
    super(message, { phase: 'join' });
    this.leader = leader;
  }
}

export type PeerConnection = ControlConnection<CoordinatorMessage, PeerMessage>;
type Answer = Control<Extract<CoordinatorMessage, { type: 'welcome' | 'resumed' | 'evicted' }>>;

export interface Greeted {
  readonly answer: Answer;
  readonly connection: PeerConnection;
  /** What has come since the answer, and whatever will come, goes to this handler. */
  takeOver(handler: ControlHandler<CoordinatorMessage>): void;
}

function dial(
  platform: Platform,
  address: Address,
  credentials: Credentials,
  signal: AbortSignal,
): Promise<Connection> {
  const { token, security, transports } = credentials;
  const encrypted = address.kind === 'ws' || (address.kind === 'tcp' && encrypts(security, address.host));
  const options = { timeoutMs: HANDSHAKE_TIMEOUT_MS, signal };
  const tls = encrypted ? () => controlDialer(security, token) : null;
  return platform.dialCoordinator(address, transports, options, tls);
}

function refusal({ code, message, leader }: Extract<CoordinatorMessage, { type: 'refuse' }>): SkeinError {
  if (code === 'standby') return new StandbyError(message, leader ?? null);
  return new (code === 'unauthorized' ? UnauthorizedError : ProtocolError)(message, { phase: 'join' });
}

/**
 * Greets the coordinator at an address; with a report it comes back to it. The report is made when it is sent.
 *
 * @param signal gives it up, as long as there is no answer
 * @throws ConnectError when nobody answers, or it stands by (`StandbyError`), UnauthorizedError when the token is wrong, ProtocolError when the versions
 *   differ or the other end is no coordinator
 */
export async function greet(
  platform: Platform,
  address: Address,
  credentials: Credentials,
  report: (() => RunReport) | null,
  signal: AbortSignal,
): Promise<Greeted> {
  const { claims, key } = tokenKey(credentials.token);
  const { run, startWorldSize, name, description } = credentials;
  const raw = await dial(platform, address, credentials, signal).catch((error: unknown) => {
    // Whoever stands in the middle can forge a refusal of TLS: it must not cost a peer its place in the run.
    if (report === null || !(error instanceof UnauthorizedError)) throw error;
    throw new ConnectError(error.message, { cause: error, phase: 'join' });
  });
  return new Promise<Greeted>((resolve, reject) => {
    const own = platform.random(NONCE_BYTES);
    const about = { subject: run, binding: raw.binding };
    const early: Control<CoordinatorMessage>[] = [];
    let owner: ControlHandler<CoordinatorMessage> | null = null;
    let answered = false;
    /** Why the connection is gone; undefined while it is not. */
    let closed: string | null | undefined;
    const fail = (error: SkeinError) => {
      stop();
      connection.fail(error.message);
      reject(error);
    };
    // One that was stopped would take its peer for a newcomer when it goes on, whom another has let in meanwhile.
    const onAborted = () => fail(new ConnectError(`The handshake with ${raw.remote} was given up.`, context));
    const context = { phase: 'join' };
    const stopTimer = platform.clock.schedule(HANDSHAKE_TIMEOUT_MS, () => {
      const text = `The coordinator at ${raw.remote} did not finish the handshake within ${HANDSHAKE_TIMEOUT_MS} ms.`;
      fail(new ConnectError(text, context));
    });
    const stop = () => {
      stopTimer();
      signal.removeEventListener('abort', onAborted);
    };
    const send = (message: PeerMessage) => connection.send(message, 0, 0);
    const onChallenge = (message: Extract<CoordinatorMessage, { type: 'challenge' }>) => {
      if (!sameProof(message.proof, prove(key, 'coordinator', { ...about, own: message.nonce, theirs: own }))) {
        const isWeb = address.kind === 'ws' && about.binding.length > 0;
        const hint = isWeb ? ': perhaps a proxy that ends TLS, through which no peer with certificates goes' : '';
        const text = `The coordinator at ${raw.remote} does not know this token: check \`token\` (or SKEIN_TOKEN) on both sides. If they are the same, somebody stands in the middle${hint}.`;
        fail(new UnauthorizedError(text, context));
        return;
      }
      // It knows the token: the welcome, which lists all peers, may be long.
      connection.trust();
      const proof = prove(key, 'peer', { ...about, own, theirs: message.nonce });
      send({ type: 'prove', proof, startWorldSize, name, resume: report !== null, ...description });
      if (report !== null) send({ type: 'resume', report: report() });
    };
    const onAnswer = (answer: Answer) => {
      answered = true;
      stop();
      const takeOver = (handler: ControlHandler<CoordinatorMessage>) => {
        owner = handler;
        for (const control of early.splice(0)) handler.onMessage(control);
        if (closed !== undefined) handler.onClosed(closed);
      };
      resolve({ answer, connection, takeOver });
    };
    const onMessage = (control: Control<CoordinatorMessage>) => {
      const { message, term, epoch } = control;
      if (owner !== null) owner.onMessage(control);
      else if (answered) early.push(control);
      else if (message.type === 'challenge') onChallenge(message);
      else if (message.type === 'welcome' || message.type === 'resumed' || message.type === 'evicted') {
        onAnswer({ message, term, epoch });
      } else if (message.type === 'refuse') {
        fail(refusal(message));
      } else {
        fail(new ProtocolError(`The coordinator at ${raw.remote} sent ${message.type} during the handshake.`, context));
      }
    };
    const onClosed = (reason: string | null) => {
      stop();
      if (owner !== null) owner.onClosed(reason);
      else if (answered) closed = reason;
      else {
        const text = `${raw.remote} closed the connection during the handshake (${reason ?? 'no reason given'}): is it a Skein coordinator, and does it ask for encryption or certificates that this side has not?`;
        reject(new ConnectError(text, context));
      }
    };
    const connection: PeerConnection = new ControlConnection(raw, COORDINATOR_MESSAGES, { onMessage, onClosed });
    signal.addEventListener('abort', onAborted, { once: true });
    if (signal.aborted) onAborted();
    else send({ type: 'hello', version: PROTOCOL_VERSION, run, claims, bound: raw.binding.length > 0, nonce: own });
  });
}
