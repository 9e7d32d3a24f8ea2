/**
 * The life of one call.
 *
 *     waiting ──▶ running ──▶ held ──▶ (committed)
 *        ▲           │  ╲       │
 *        │           ▼   ╲      ▼
 *        └─────── frozen  ──▶ (failed)
 *
 *     waiting   fewer members than the call wants: until its time is over, or its peer comes to the next view
 *     running   an attempt is under way among the members of its view
 *     held      this rank holds the whole result; the coordinator will say `commit` when all do
 *     frozen    a member or a link was lost: the attempt stands still until the coordinator decides commit or restart
 *
 * The caller's input is not written before the end, so a restart needs no undo. A failure is told to the caller only when no
 * link refers to its memory any more, unless the collective can't succeed anywhere: what the caller writes into its tensors
 * afterwards can't reach another peer's result.
 */
import type { SkeinError } from '../errors.ts';
import { Lifecycle } from '../lifecycle.ts';
import type { Exclusion } from '../wire/parts.ts';
import type { KeptRange } from '../wire/ranges.ts';
import type { CallListener, CallSpec, Description, PeerId } from './call.ts';
import type { Context, Member, TagState } from './context.ts';
import type { Transfer } from './executor.ts';
import type { FlightEntry } from './flight.ts';
import { Pieces } from './pieces.ts';
import type { AlgorithmLabel, Rank } from './program.ts';
import { ReadySpans } from './ready.ts';
import type { Feedback } from './residuals.ts';
import type { SegmentPort, TransferSpec } from './transfer-spec.ts';

export type OperationState = 'waiting' | 'running' | 'held' | 'frozen' | 'failing' | 'ended';

const LIFE = new Lifecycle<OperationState>('call', {
  waiting: ['running', 'frozen', 'ended'],
  running: ['held', 'frozen', 'failing', 'ended'],
  held: ['running', 'frozen', 'failing', 'ended'],
  frozen: ['running', 'waiting', 'failing', 'ended'],
  failing: ['ended'],
  ended: [],
});

/** The way to one peer during one attempt: opens when the peer has announced the same call, or at once for small calls. */
export interface AttemptPort extends SegmentPort {
  allowed: boolean;
  /** Bytes counted against what the peer may have to keep for us. */
  charge: number;
  /** The peer that frames for this one are given to: itself, or the first of those that relay them. */
  readonly via: PeerId;
  /** Sends the `open` frame, when that is possible. */
  announce(frame: Uint8Array): void;
  /** So many relayed bytes have arrived; null where nothing is relayed. */
  readonly credit: ((bytes: number) => void) | null;
}

export interface Attempt {
  readonly epoch: number;
  /** What its frames bear. */
  readonly frame: TransferSpec['frame'];
  /** In the order of the program's ranks, which for a ring is that of the members' places, and not that of the view. */
  readonly members: readonly Member[];
  readonly algorithm: AlgorithmLabel;
  readonly transfer: Transfer;
  readonly ports: Map<PeerId, AttemptPort>;
  /** The `open` frame that tells the peers of this call. */
  readonly announcement: Uint8Array;
  /** What its transfer has taken. */
  readonly scratch: Uint8Array[];
}

/** Rank of a peer in an attempt; −1, which no program names, when it has no part in it. */
export function rankIn(attempt: Attempt, peerId: PeerId): Rank {
  return attempt.members.findIndex((member) => member.peerId === peerId);
}

export class Operation {
  readonly call: CallSpec;
  readonly listener: CallListener;
  readonly startedAt: number;
  readonly deadline: number;
  #state: OperationState = 'waiting';
  /** What is remembered of it. */
  flight: FlightEntry | null = null;
  context: Context | null = null;
  tagState: TagState | null = null;
  sequence = 0;
  attempt: Attempt | null = null;
  readonly input: Pieces;
  readonly output: Pieces;
  /** Where the result is built: the caller's output, or scratch. */
  result: Pieces | null = null;
  /** What earlier attempts finished, and need not be done again. */
  kept: readonly KeptRange[] = [];
  /** Members that it goes on without; null: it waits for all. */
  exclusion: Exclusion | null = null;
  /** Who took part in the attempts of these epochs. */
  readonly contributors: Map<number, readonly PeerId[]> = new Map();
  /** Where its result is built, unless that is the caller's output. */
  scratch: Uint8Array | null = null;
  /** What there is of an input that comes in parts; it outlives attempts. null: all was there from the start. */
  readonly ready: ReadySpans | null;
  /** Of a call with error feedback, once it has begun. */
  feedback: Feedback | null = null;
  retries: number = -1;
  bytesSent = 0;
  bytesReceived = 0;
  /** Why it will fail, once the links have let go of its memory. */
  failure: SkeinError | null = null;
  /** Peers that called something else under this number: what they send for it is dropped. */
  readonly mismatched: Set<PeerId> = new Set();

  constructor(call: CallSpec, listener: CallListener, now: number) {
    this.call = call;
    this.listener = listener;
    this.input = new Pieces(call.input);
    this.output = new Pieces(call.output);
    this.ready = call.stream === null ? null : new ReadySpans();
    this.startedAt = now;
    this.deadline = now + call.timeoutMs;
  }

  get state(): OperationState {
    return this.#state;
  }

  set state(next: OperationState) {
    this.#state = LIFE.step(this.#state, next);
  }

  /** `generation:tag:sequence`; empty until the call has its number. */
  get id(): string {
    return this.context === null ? '' : `${this.context.generation}:${this.call.tag}:${this.sequence}`;
  }

  /** Of its attempts from now on: that of the view, unless it was begun anew since without somebody. */
  get epoch(): number {
    return Math.max(this.context?.epoch ?? 0, this.exclusion?.epoch ?? 0);
  }

  /** Those that it counts on. */
  get members(): readonly Member[] {
    const members = this.context?.members ?? [];
    const gone = this.exclusion?.peers;
    return gone === undefined ? members : members.filter(({ peerId }) => !gone.includes(peerId));
  }

  /** So many members it could do without. */
  get spare(): number {
    return this.call.stragglers === 'exclude' ? Math.max(0, this.members.length - this.call.minWorldSize) : 0;
  }

  /** For messages: `allReduce "gradients" #12`. */
  get title(): string {
    const number = this.context === null ? '' : ` #${this.sequence}`;
    return `${this.call.kind} ${JSON.stringify(this.call.tag)}${number}`;
  }

  description(algorithm: AlgorithmLabel, segmentBytes: number): Description {
    const { kind, tag, dtype, op, trim, clipRadius, codec, count, root, consistency } = this.call;
    const { recovery, stragglers, minWorldSize } = this.call;
    const shared = { kind, tag, dtype, op, trim, clipRadius, codec, algorithm, count, root, consistency };
    return { ...shared, recovery, stragglers, minWorldSize, segmentBytes };
  }

  /** Of whom the call or data is missing; `self`, where a part of its own input is not there yet. */
  awaits(self: PeerId): PeerId[] {
    const { attempt, ready } = this;
    if (this.state !== 'running' || attempt === null) return [];
    const owing = attempt.transfer.waitsFor.map((rank) => attempt.members[rank]?.peerId ?? self);
    if (ready !== null && ready.total < this.call.count) owing.push(self);
    return [...new Set([...silentOf(attempt), ...owing])];
  }

  /** What the call is waiting for, in words. */
  waitsFor(): string {
    if (this.state === 'waiting') return `${this.call.minWorldSize} members`;
    if (this.state === 'held') return 'the other members to hold the result, and the coordinator to commit it';
    if (this.state === 'frozen') return 'the coordinator to decide what becomes of it after a loss';
    const attempt = this.attempt;
    if (attempt === null) return 'nothing';
    const silent = silentOf(attempt);
    if (silent.length > 0) return `${silent.join(', ')} to make the same call`;
    const names = attempt.transfer.waitsFor.map((rank) => attempt.members[rank]?.peerId ?? `rank ${rank}`);
    const lacking = this.ready === null ? 0 : this.call.count - this.ready.total;
    if (lacking > 0) {
      const others = names.length > 0 ? `, and for data from ${names.join(', ')}` : '';
      return `its own caller to say that ${lacking} of ${this.call.count} elements are ready${others}`;
    }
    return names.length > 0 ? `data from ${names.join(', ')}` : 'its own data to be taken by the network';
  }
}

/** Those who have not made the same call yet. */
function silentOf({ ports }: Attempt): PeerId[] {
  return [...ports].filter(([, port]) => !port.allowed).map(([peerId]) => peerId);
}
