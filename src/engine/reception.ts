/**
 * Lets peers in, or turns them away: from a connection's first byte until it belongs to a run.
 *
 *     hello ──▶ challenge ──▶ prove ──▶ in                     a newcomer
 *                                  └──▶ resume ──▶ in          one that comes back
 *
 * Each side proves to the other that it knows the token (or the pass that was made of it) before it learns anything; who leads
 * no run tells where to go, and only then.
 */
import type { PeerId } from '../membership/events.ts';
import { Lobby, type Visitor } from '../transport/lobby.ts';
import { NONCE_BYTES, prove, sameProof } from '../transport/secure.ts';
import { type Connection, NO_BINDING } from '../transport/transport.ts';
import type { CoordinatorMessage } from '../wire/coordinator-messages.ts';
import {
  HANDSHAKE_TIMEOUT_MS,
  MAX_RUNS,
  MAX_UNAUTHENTICATED,
  MAX_UNAUTHENTICATED_PER_ORIGIN,
  MAX_WORLD_SIZE,
  PROTOCOL_VERSION,
} from '../wire/limits.ts';
import type { Control } from '../wire/messages.ts';
import { PEER_MESSAGES, type PeerMessage, type RunReport } from '../wire/peer-messages.ts';
import { ControlConnection } from './control-connection.ts';
import type { LedRun, Seat } from './led-run.ts';
import type { Platform } from './platform.ts';
import type { Refusals } from './refusals.ts';
import { type Claims, keyOfClaims, readClaims, type UsedPasses } from './token.ts';

/** A peer that finds that the coordinator does not know its token goes without another word. */
const LEFT_UNPROVED = 'it left without a proof that it knows the token: perhaps it has another one';

/** One connection, from its greeting on. */
export interface Session extends Seat {
  /** As long as it has not been let in. */
  readonly visitor: Visitor;
  ownNonce: Uint8Array;
  peerNonce: Uint8Array | null;
  /** What its greeting asked for. */
  runName: string;
  /** Of its pass, as it came, and what the bearer must prove to know. */
  claims: string;
  key: Uint8Array | string;
  /** Of the connection, where its proofs cover it. */
  binding: Uint8Array;
  /** What those claims say, once that is proved; null for the coordinator's own token. */
  pass: Claims | null;
  /** It has proved that it knows the token, and will tell where it comes back from. */
  returning: Extract<PeerMessage, { type: 'prove' }> | null;
  /** It was told why it may not come in. */
  refused: boolean;
  /** Where it has been let in. */
  run: LedRun<Session> | null;
}

interface Surroundings {
  readonly platform: Platform;
  readonly token: string;
  readonly lobby: Lobby;
  readonly refusals: Refusals;
  isLeading(): boolean;
  /** Address of the one that leads instead; null: it is not known. */
  leader(): string | null;
  passes(): UsedPasses;
  /** Null when there are too many. */
  run(name: string): LedRun<Session> | null;
  /** One of its connections has closed. */
  onLeft(run: LedRun<Session>): void;
}

/** As many may be on their way in. */
export function openLobby(): Lobby {
  return new Lobby({ total: MAX_UNAUTHENTICATED, perOrigin: MAX_UNAUTHENTICATED_PER_ORIGIN });
}

export class Reception {
  readonly #around: Surroundings;
  readonly #sessions: Map<number, Session> = new Map();
  #nextSession = 1;
  #received = 0;
  #closed = false;

  constructor(around: Surroundings) {
    this.#around = around;
  }

  /** Connections that are open. */
  get connections(): number {
    return this.#sessions.size;
  }

  /** Messages so far. */
  get received(): number {
    return this.#received;
  }

  session(number: number): Session | undefined {
    return this.#sessions.get(number);
  }

  accept(connection: Connection): void {
    if (this.#closed) {
      connection.handler = { onData: () => {}, onEnd: () => {}, onClose: () => {} };
      connection.destroy();
      return;
    }
    const { platform, lobby } = this.#around;
    const session: Session = {
      connection: new ControlConnection<PeerMessage, CoordinatorMessage>(connection, PEER_MESSAGES, {
        onMessage: (control) => this.#onMessage(session, control),
        onClosed: (reason) => this.#onClosed(session, reason),
      }),
      number: this.#nextSession++,
      visitor: {
        // On other ports than HTTP's, connections are counted by their address before they are handed over.
        origin: connection.visit?.origin ?? null,
        onEvicted: () => session.connection.fail('it had not shown who it is when too many others came'),
      },
      stopTimer: platform.clock.schedule(HANDSHAKE_TIMEOUT_MS, () =>
        session.connection.fail('the handshake took too long'),
      ),
      ownNonce: platform.random(NONCE_BYTES),
      peerNonce: null,
      runName: '',
      claims: '',
      key: '',
      binding: NO_BINDING,
      pass: null,
      returning: null,
      refused: false,
      run: null,
      peerId: null,
    };
    this.#sessions.set(session.number, session);
    lobby.enter(session.visitor);
  }

  /** This coordinator leads no longer: who was let in is to go elsewhere. */
  sendAway(reason: string): void {
    for (const { run, connection } of this.#sessions.values()) if (run !== null) connection.fail(reason);
  }

  close(): void {
    this.#closed = true;
    for (const session of this.#sessions.values()) {
      session.stopTimer();
      session.connection.fail('the coordinator was closed');
    }
  }

  #onMessage(session: Session, control: Control<PeerMessage>): void {
    const { message } = control;
    const { run, peerId } = session;
    if (session.refused) return;
    this.#received += 1;
    if (run !== null && !this.#around.isLeading()) return; // it closes
    if (peerId !== null && run !== null) {
      run.onMessage(session, peerId, control);
    } else if (message.type === 'hello' && session.peerNonce === null) {
      this.#around.lobby.hear(session.visitor);
      this.#challenge(session, message);
    } else if (message.type === 'resume' && session.returning !== null) {
      this.#resume(session, session.returning, message.report);
    } else if (message.type === 'prove' && session.peerNonce !== null && session.returning === null) {
      this.#admit(session, session.peerNonce, message);
    } else {
      session.connection.refuse(`it sent ${message.type} before it had proved who it is`);
    }
  }

  #challenge(session: Session, hello: Extract<PeerMessage, { type: 'hello' }>): void {
    if (hello.version !== PROTOCOL_VERSION) {
      const message = `This coordinator speaks protocol version ${PROTOCOL_VERSION}, the peer ${hello.version}: use the same release of skein on both.`;
      this.#refuse(session, 'version', message);
      return;
    }
    session.peerNonce = hello.nonce;
    session.runName = hello.run;
    session.claims = hello.claims;
    session.key = keyOfClaims(this.#around.token, hello.claims);
    const { connection } = session;
    // Who leaves it out of its own proof has not asked whether somebody stands in between; nobody else can leave it out for it.
    session.binding = hello.bound || !connection.mayBeUnbound ? connection.binding : NO_BINDING;
    const { binding } = session;
    const parts = { subject: hello.run, binding, own: session.ownNonce, theirs: hello.nonce };
    const proof = prove(session.key, 'coordinator', parts);
    session.connection.send({ type: 'challenge', version: PROTOCOL_VERSION, nonce: session.ownNonce, proof }, 0, 0);
  }

  #admit(session: Session, peerNonce: Uint8Array, message: Extract<PeerMessage, { type: 'prove' }>): void {
    const { binding } = session;
    const parts = { subject: session.runName, binding, own: peerNonce, theirs: session.ownNonce };
    if (!sameProof(message.proof, prove(session.key, 'peer', parts))) {
      const text =
        'The token is wrong: use the one that the coordinator was started with, or a pass that was made from it.';
      this.#refuse(session, 'unauthorized', text);
      return;
    }
    if (!this.#around.isLeading()) {
      this.#sendOn(session);
      return;
    }
    session.pass = session.claims === '' ? null : readClaims(session.claims);
    if (session.claims !== '' && session.pass === null) {
      this.#refuse(session, 'unauthorized', 'The pass can not be read: make another one from the token.');
      return;
    }
    if (!message.resume && !this.#mayEnter(session, null)) return;
    session.connection.trust();
    if (message.resume) {
      session.returning = message;
      return;
    }
    const run = this.#enter(session, true);
    if (run === null) return;
    const { hostKey, site, addresses, cores, startWorldSize, name } = message;
    const description = { hostKey, site, addresses, cores };
    run.step({ type: 'joined', connection: session.number, description, startWorldSize, name });
  }

  /** It stands by: who comes here is told where to go, if that is known. */
  #sendOn(session: Session): void {
    const leader = this.#around.leader();
    const message = `This coordinator stands by${leader === null ? '' : `: ${leader} leads`}.`;
    session.refused = true;
    session.connection.send({ type: 'refuse', code: 'standby', message, ...(leader === null ? {} : { leader }) }, 0, 0);
    session.connection.end();
  }

  #resume(session: Session, proved: Extract<PeerMessage, { type: 'prove' }>, report: RunReport): void {
    if (!this.#around.isLeading()) {
      this.#sendOn(session);
      return;
    }
    if (!this.#mayEnter(session, report.peerId)) return;
    const run = this.#enter(session, false);
    if (run === null) return;
    const { hostKey, site, addresses, cores, startWorldSize, name } = proved;
    const description = { hostKey, site, addresses, cores };
    const event = { type: 'resumed', connection: session.number, description, startWorldSize, name, report } as const;
    if (run.step(event).some((effect) => effect.type === 'send' && effect.message.type === 'evicted'))
      this.#around.refusals.tell(
        `${session.connection.remote} was refused: ${report.peerId} of run ${run.name} was lost before.`,
      );
  }

  /** @param returning the peer that it says it is, when it comes back */
  #mayEnter(session: Session, returning: PeerId | null): boolean {
    const { pass, runName } = session;
    const refusal = pass === null ? null : this.#around.passes().refusal(pass, runName, returning, Date.now());
    if (refusal !== null) this.#refuse(session, 'unauthorized', refusal);
    return refusal === null;
  }

  /** The handshake is over; null when there is no room for one more. */
  #enter(session: Session, isNew: boolean): LedRun<Session> | null {
    // Only now: a run that nobody has come to yet is forgotten when the last of its visitors leaves.
    const run = this.#around.run(session.runName);
    if (run === null || (isNew && run.machine.size >= MAX_WORLD_SIZE)) {
      const full = run === null ? `${MAX_RUNS} runs` : `${MAX_WORLD_SIZE} peers in this run`;
      this.#refuse(session, 'full', `This coordinator serves ${full} already: start another one.`);
      return null;
    }
    session.stopTimer();
    this.#around.lobby.leave(session.visitor);
    session.run = run;
    return run;
  }

  #refuse(session: Session, code: string, message: string): void {
    session.refused = true;
    this.#around.refusals.tell(`${session.connection.remote} was refused: ${message}`);
    session.connection.send({ type: 'refuse', code, message }, 0, 0);
    session.connection.end();
  }

  #onClosed(session: Session, reason: string | null): void {
    this.#sessions.delete(session.number);
    session.stopTimer();
    this.#around.lobby.leave(session.visitor);
    const { run, peerId, connection } = session;
    if (run === null && !session.refused && !this.#closed) {
      // One that has left and said nothing may only have looked whether somebody is here.
      const hasLeft = session.peerNonce !== null && connection.cutBecause === null;
      const why = hasLeft ? LEFT_UNPROVED : reason;
      if (why !== null) this.#around.refusals.tell(`${connection.remote} did not get in: ${why}.`);
    }
    if (run !== null && connection.cutBecause === 'protocol' && !this.#closed)
      this.#around.refusals.tell(`${connection.remote}, ${peerId} of run ${run.name}, was cut off: ${reason}.`);
    if (peerId === null || run === null) return;
    run.onClosed(session, peerId);
    this.#around.onLeft(run);
  }
}
