/**
 * The flight recorder: the last collectives of this peer and how far each of them came, for whoever has to find out why a run stands
 * still. Its memory is fixed: entries are used again, and so are what they know of neighbours. A call that is open outlives its place.
 */
import type { SkeinError } from '../errors.ts';
import type { FlightCall, FlightNeighbour } from '../wire/flight.ts';
import { MAX_FLIGHT_CALLS, MAX_TEXT_LENGTH } from '../wire/limits.ts';
import { type Description, describe, type PeerId } from './call.ts';
import type { Operation } from './operation.ts';
import type { AlgorithmLabel, Rank } from './program.ts';

/** Neighbours of which a call that has ended is remembered: those that came or went last. */
const MAX_NEIGHBOURS = 16;

const NEVER = -1;

/** What went to and fro between this rank and another; times are the engine's (ms), `NEVER` for what has not been. */
class Neighbour {
  rank: Rank = 0;
  peerId: PeerId = '';
  calledAt: number = NEVER;
  announcedAt: number = NEVER;
  firstSentAt: number = NEVER;
  lastSentAt: number = NEVER;
  bytesSent = 0;
  firstReceivedAt: number = NEVER;
  lastReceivedAt: number = NEVER;
  bytesReceived = 0;

  reset(rank: Rank, peerId: PeerId): void {
    this.rank = rank;
    this.peerId = peerId;
    this.calledAt = NEVER;
    this.announcedAt = NEVER;
    this.firstSentAt = NEVER;
    this.lastSentAt = NEVER;
    this.bytesSent = 0;
    this.firstReceivedAt = NEVER;
    this.lastReceivedAt = NEVER;
    this.bytesReceived = 0;
  }

  /** When it was last heard of; one that has never sent anything comes last of all. */
  get lastAt(): number {
    return this.lastReceivedAt === NEVER ? Number.POSITIVE_INFINITY : Math.max(this.lastReceivedAt, this.lastSentAt);
  }
}

/** What a call is told of while it is open. */
export class FlightEntry {
  readonly #now: () => number;
  /** null once it has ended. */
  #operation: Operation | null = null;
  #kind = '';
  #tag = '';
  #dtype = '';
  #count = 0;
  #op: string | null = null;
  #codec = '';
  #root: PeerId | null = null;
  #id = '';
  #sequence = 0;
  #generation = 0;
  #epoch = 0;
  #algorithm: AlgorithmLabel | null = null;
  #description: Description | null = null;
  #worldSize = 0;
  #retries = 0;
  #calledAt: number = NEVER;
  #begunAt: number = NEVER;
  #doneAt: number = NEVER;
  #endedAt: number = NEVER;
  #error: SkeinError | null = null;
  /** Ascending ranks; the first `#neighbourCount` are in use. */
  readonly #neighbours: Neighbour[] = [];
  #neighbourCount = 0;

  constructor(now: () => number) {
    this.#now = now;
  }

  get isOpen(): boolean {
    return this.#operation !== null;
  }

  /** Begins anew, for another call. */
  open(operation: Operation): void {
    const { call } = operation;
    this.#operation = operation;
    this.#kind = call.kind;
    this.#tag = call.tag;
    this.#dtype = call.dtype;
    this.#count = call.count;
    this.#op = call.op;
    this.#codec = call.codec;
    this.#root = call.root;
    this.#epoch = 0;
    this.#algorithm = null;
    this.#description = null;
    this.#worldSize = 0;
    this.#calledAt = operation.startedAt;
    this.#begunAt = NEVER;
    this.#doneAt = NEVER;
    this.#endedAt = NEVER;
    this.#error = null;
    this.#neighbourCount = 0;
  }

  /** An attempt begins. `neighbour` is to be called for each rank of its program. */
  begin(epoch: number, algorithm: AlgorithmLabel, worldSize: number): void {
    this.#epoch = epoch;
    this.#algorithm = algorithm;
    this.#description = this.#operation?.tagState?.announced?.description ?? null;
    this.#worldSize = worldSize;
    this.#begunAt = this.#now();
    this.#neighbourCount = 0;
  }

  /** @param rank above that of the call before */
  neighbour(rank: Rank, peerId: PeerId): void {
    const index = this.#neighbourCount++;
    let neighbour = this.#neighbours[index];
    if (neighbour === undefined) {
      neighbour = new Neighbour();
      this.#neighbours.push(neighbour);
    }
    neighbour.reset(rank, peerId);
  }

  /** The call's announcement was given to the link. */
  announced(peerId: PeerId): void {
    for (let index = 0; index < this.#neighbourCount; index++)
      if (this.#neighbours[index]!.peerId === peerId) this.#neighbours[index]!.announcedAt = this.#now();
  }

  /** A peer has announced the same call. */
  called(rank: Rank): void {
    const neighbour = this.#of(rank);
    if (neighbour !== null) neighbour.calledAt = this.#now();
  }

  sent(rank: Rank, bytes: number): void {
    const neighbour = this.#of(rank);
    if (neighbour === null) return;
    const now = this.#now();
    if (neighbour.firstSentAt === NEVER) neighbour.firstSentAt = now;
    neighbour.lastSentAt = now;
    neighbour.bytesSent += bytes;
  }

  /** A frame of so many bytes begins to come. */
  received(rank: Rank, bytes: number): void {
    const neighbour = this.#of(rank);
    if (neighbour === null) return;
    if (neighbour.firstReceivedAt === NEVER) neighbour.firstReceivedAt = this.#now();
    neighbour.bytesReceived += bytes;
  }

  /** A frame has come in whole. */
  receivedWhole(rank: Rank): void {
    const neighbour = this.#of(rank);
    if (neighbour !== null) neighbour.lastReceivedAt = this.#now();
  }

  done(): void {
    this.#doneAt = this.#now();
  }

  /** @param error why it failed; null: it was committed */
  end(error: SkeinError | null): void {
    const operation = this.#operation;
    if (operation === null) return;
    this.#id = operation.id;
    this.#sequence = operation.sequence;
    this.#generation = operation.context?.generation ?? 0;
    this.#retries = Math.max(0, operation.retries);
    this.#endedAt = this.#now();
    this.#error = error;
    this.#operation = null;
    if (this.#neighbourCount <= MAX_NEIGHBOURS) return;
    this.#neighbours.length = this.#neighbourCount;
    this.#neighbours.sort((left, right) => (left.lastAt === right.lastAt ? 0 : right.lastAt - left.lastAt));
    this.#neighbours.length = MAX_NEIGHBOURS;
    this.#neighbourCount = MAX_NEIGHBOURS;
  }

  /** By halving, as the neighbours of a direct all-reduce are many. */
  #of(rank: Rank): Neighbour | null {
    let [low, high] = [0, this.#neighbourCount - 1];
    while (low <= high) {
      const middle = (low + high) >> 1;
      const neighbour = this.#neighbours[middle]!;
      if (neighbour.rank === rank) return neighbour;
      if (neighbour.rank < rank) low = middle + 1;
      else high = middle - 1;
    }
    return null;
  }

  /** @param wall milliseconds since 1970 at the engine's time 0 */
  tell(wall: number, self: PeerId): FlightCall {
    const operation = this.#operation;
    const at = (time: number) => (time === NEVER ? null : wall + time);
    const open = operation === null || operation.state === 'ended' ? null : operation.state;
    return {
      id: operation?.id ?? this.#id,
      kind: this.#kind,
      tag: this.#tag,
      sequence: operation?.sequence ?? this.#sequence,
      generation: operation?.context?.generation ?? this.#generation,
      epoch: this.#epoch,
      dtype: this.#dtype,
      count: this.#count,
      op: this.#op,
      codec: this.#codec,
      root: this.#root,
      algorithm: this.#algorithm,
      description: this.#description === null ? '' : describe(this.#description).slice(0, MAX_TEXT_LENGTH),
      state: open ?? (this.#error === null ? 'committed' : 'failed'),
      waitsFor: open === null ? null : (operation?.waitsFor().slice(0, MAX_TEXT_LENGTH) ?? null),
      awaits: open === null ? [] : (operation?.awaits(self) ?? []),
      worldSize: this.#worldSize,
      retries: Math.max(0, operation?.retries ?? this.#retries),
      calledAt: wall + this.#calledAt,
      begunAt: at(this.#begunAt),
      doneAt: at(this.#doneAt),
      endedAt: at(this.#endedAt),
      error:
        this.#error === null
          ? null
          : { code: this.#error.code, message: this.#error.message.slice(0, MAX_TEXT_LENGTH) },
      neighbours: this.#neighbours.slice(0, this.#neighbourCount).map(
        (one): FlightNeighbour => ({
          peerId: one.peerId,
          calledAt: at(one.calledAt),
          announcedAt: at(one.announcedAt),
          firstSentAt: at(one.firstSentAt),
          lastSentAt: at(one.lastSentAt),
          bytesSent: one.bytesSent,
          firstReceivedAt: at(one.firstReceivedAt),
          lastReceivedAt: at(one.lastReceivedAt),
          bytesReceived: one.bytesReceived,
        }),
      ),
    };
  }
}

export class FlightRecorder {
  readonly #now: () => number;
  readonly #entries: FlightEntry[] = [];
  /** Of the oldest entry, when all are in use. */
  #at = 0;

  constructor(now: () => number) {
    this.#now = now;
  }

  open(operation: Operation): FlightEntry {
    let entry = this.#entries[this.#at];
    // One that is open stays with its call, and is told of along with that.
    if (entry === undefined || entry.isOpen) {
      entry = new FlightEntry(this.#now);
      this.#entries[this.#at] = entry;
    }
    this.#at = (this.#at + 1) % MAX_FLIGHT_CALLS;
    entry.open(operation);
    return entry;
  }

  /**
   * What is known of the last `limit` calls that have ended, and of all that are open, oldest first.
   *
   * @param open the entries of all open calls
   * @param wall milliseconds since 1970 at the engine's time 0
   */
  tell(open: readonly FlightEntry[], limit: number, wall: number, self: PeerId): FlightCall[] {
    const inOrder = [...this.#entries.slice(this.#at), ...this.#entries.slice(0, this.#at)];
    const ended = inOrder.filter((entry) => !entry.isOpen).slice(-limit);
    return [...ended, ...open]
      .map((entry) => entry.tell(wall, self))
      .sort((left, right) => left.calledAt - right.calledAt);
  }
}
