/**
 * Errors that reach users. Each has a stable `code`, and says what happened, to whom, and what to do next.
 * Inside the machines expected outcomes are values; they become one of these only at the public edge.
 */

/** Where and when it happened, as far as known. */
export interface ErrorContext {
  /** Peer concerned. */
  readonly peer?: string | undefined;
  readonly rank?: number | undefined;
  /** What was being done: `join`, `open`, `transfer`, `commit`, `boundary`, … */
  readonly phase?: string | undefined;
  /** The collective, as `kind tag#sequence`. */
  readonly op?: string | undefined;
  readonly epoch?: number | undefined;
  /** Milliseconds since the call was made. */
  readonly elapsed?: number | undefined;
  readonly cause?: unknown;
}

/** `SKEIN_PEER_LOST` is the code of a PeerLostError. */
function nameOf(code: string): string {
  const words = code.split('_').slice(1);
  return `${words.map((word) => word[0] + word.slice(1).toLowerCase()).join('')}Error`;
}

/** What all errors of this library are. docs/troubleshooting.md has a section for each code. */
export class SkeinError extends Error {
  /** Stable, for programs: `SKEIN_…`. */
  readonly code: string;
  readonly peer: string | undefined;
  readonly rank: number | undefined;
  readonly phase: string | undefined;
  readonly op: string | undefined;
  readonly epoch: number | undefined;
  readonly elapsed: number | undefined;

  constructor(code: string, message: string, context: ErrorContext = {}) {
    super(message, context.cause === undefined ? undefined : { cause: context.cause });
    // Not the name of the class, which a bundle may have shortened.
    this.name = new.target === SkeinError ? 'SkeinError' : nameOf(code);
    this.code = code;
    this.peer = context.peer;
    this.rank = context.rank;
    this.phase = context.phase;
    this.op = context.op;
    this.epoch = context.epoch;
    this.elapsed = context.elapsed;
  }
}

/** A call was made with arguments that cannot work; nothing was sent. */
export class ArgumentError extends SkeinError {
  constructor(message: string, context?: ErrorContext) {
    super('SKEIN_ARGUMENT', message, context);
  }
}

/** Peers called the same collective differently (kind, dtype, count, op, codec or algorithm). */
export class MismatchError extends SkeinError {
  constructor(message: string, context?: ErrorContext) {
    super('SKEIN_MISMATCH', message, context);
  }
}

/** This peer was removed from the run while it was away; it may join again as a newcomer. */
export class EvictedError extends SkeinError {
  constructor(message: string, context?: ErrorContext) {
    super('SKEIN_EVICTED', message, context);
  }
}

/** A peer was lost, and the caller asked not to retry. */
export class PeerLostError extends SkeinError {
  constructor(message: string, context?: ErrorContext) {
    super('SKEIN_PEER_LOST', message, context);
  }
}

/** Fewer peers than `minWorldSize` for longer than the time-out. */
export class QuorumError extends SkeinError {
  constructor(message: string, context?: ErrorContext) {
    super('SKEIN_QUORUM', message, context);
  }
}

/** The token is wrong or missing. */
export class UnauthorizedError extends SkeinError {
  constructor(message: string, context?: ErrorContext) {
    super('SKEIN_UNAUTHORIZED', message, context);
  }
}

/** Something that is not Skein, or another version of it, is at the other end; or a frame broke the rules. */
export class ProtocolError extends SkeinError {
  constructor(message: string, context?: ErrorContext) {
    super('SKEIN_PROTOCOL', message, context);
  }
}

/** The call's `timeout` passed; the message says what it was waiting for. */
export class TimeoutError extends SkeinError {
  constructor(message: string, context?: ErrorContext) {
    super('SKEIN_TIMEOUT', message, context);
  }
}

/** Nobody could be reached at an address, or the connection was lost. */
export class ConnectError extends SkeinError {
  constructor(message: string, context?: ErrorContext) {
    super('SKEIN_CONNECT', message, context);
  }
}

/** Another peer withdrew from the collective: its call was cancelled, ran out of time, or was stopped by its guard. */
export class WithdrawnError extends SkeinError {
  constructor(message: string, context?: ErrorContext) {
    super('SKEIN_WITHDRAWN', message, context);
  }
}

/** The call's `guard` found this peer's own input to be no good; nothing was sent. The others get a `WithdrawnError`. */
export class PoisonedInputError extends SkeinError {
  constructor(message: string, context?: ErrorContext) {
    super('SKEIN_POISONED_INPUT', message, context);
  }
}

/** The others went on without this peer, which came too late; it is still a member. */
export class ExcludedError extends SkeinError {
  constructor(message: string, context?: ErrorContext) {
    super('SKEIN_EXCLUDED', message, context);
  }
}

/** No member holds the whole shared state any more. */
export class StateLostError extends SkeinError {
  constructor(message: string, context?: ErrorContext) {
    super('SKEIN_STATE_LOST', message, context);
  }
}

/** The group was left or closed while the call was open. */
export class ClosedError extends SkeinError {
  constructor(message: string, context?: ErrorContext) {
    super('SKEIN_CLOSED', message, context);
  }
}

const CLASSES: Readonly<Record<string, new (message: string, context?: ErrorContext) => SkeinError>> = {
  SKEIN_ARGUMENT: ArgumentError,
  SKEIN_MISMATCH: MismatchError,
  SKEIN_EVICTED: EvictedError,
  SKEIN_PEER_LOST: PeerLostError,
  SKEIN_QUORUM: QuorumError,
  SKEIN_UNAUTHORIZED: UnauthorizedError,
  SKEIN_PROTOCOL: ProtocolError,
  SKEIN_TIMEOUT: TimeoutError,
  SKEIN_CONNECT: ConnectError,
  SKEIN_WITHDRAWN: WithdrawnError,
  SKEIN_POISONED_INPUT: PoisonedInputError,
  SKEIN_EXCLUDED: ExcludedError,
  SKEIN_STATE_LOST: StateLostError,
  SKEIN_CLOSED: ClosedError,
};

/** An error as plain data, to cross from one thread to another. */
export interface PlainError {
  readonly code: string;
  readonly message: string;
  readonly context: Omit<ErrorContext, 'cause'>;
}

export function toPlainError(error: unknown): PlainError {
  if (!(error instanceof SkeinError)) {
    const message = error instanceof Error ? (error.stack ?? error.message) : String(error);
    return { code: 'SKEIN_INTERNAL', message, context: {} };
  }
  const { code, message, peer, rank, phase, op, epoch, elapsed } = error;
  return { code, message, context: { peer, rank, phase, op, epoch, elapsed } };
}

export function fromPlainError(plain: PlainError): SkeinError {
  const known = CLASSES[plain.code];
  return known === undefined
    ? new SkeinError(plain.code, plain.message, plain.context)
    : new known(plain.message, plain.context);
}
