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

/** Places of a neighbour's times; NaN for what has not been. */
const CALLED = 0;
const ANNOUNCED = 1;
const FIRST_SENT = 2;
const LAST_SENT = 3;
const FIRST_RECEIVED = 4;
const LAST_RECEIVED = 5;
const TIMES = 6;

/** What went to and fro between this rank and another. */
class Neighbour {
  rank: Rank = 0;
  peerId: PeerId = '';
  /** By the engine's clock (ms). */
  readonly times: Float64Array = new Float64Array(TIMES);
  bytesSent = 0;
  bytesReceived = 0;

  reset(rank: Rank, peerId: PeerId): void {
    this.rank = rank;
    this.peerId = peerId;
    this.times.fill(Number.NaN);
    this.bytesSent = 0;
    this.bytesReceived = 0;
  }

  /** When something of it came last; of one of which nothing has come yet, never. */
  get lastAt(): number {
    const last = this.times[LAST_RECEIVED]!;
    return last >= 0 ? last : Number.POSITIVE_INFINITY;
  }
}

/** What outlives a call: it holds no memory of tensors. */
type Shape = Pick<FlightCall, 'kind' | 'tag' | 'dtype' | 'count' | 'op' | 'codec' | 'root'>;
type Ending = Pick<FlightCall, 'id' | 'sequence' | 'generation' | 'retries'>;

function endingOf({ id, sequence, context, retries }: Operation): Ending {
  return { id, sequence, generation: context?.generation ?? 0, retries: Math.max(0, retries) };
}

/** What a call is told of while it is open. */
export class FlightEntry {
  readonly #now: () => number;
  /** null once it has ended. */
  #operation: Operation | null = null;
  #shape: Shape | null = null;
  #ending: Ending | null = null;
  #epoch = 0;
  #algorithm: AlgorithmLabel | null = null;
  #description: Description | null = null;
  #worldSize = 0;
  #calledAt = 0;
  #begunAt: number = Number.NaN;
  #doneAt: number = Number.NaN;
  #endedAt: number = Number.NaN;
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
    const { kind, tag, dtype, count, op, codec, root } = operation.call;
    this.#operation = operation;
    this.#shape = { kind, tag, dtype, count, op, codec, root };
    this.#calledAt = operation.startedAt;
    this.#begin(0, null, null, 0, Number.NaN);
    this.#doneAt = Number.NaN;
    this.#endedAt = Number.NaN;
    this.#error = null;
  }

  /** An attempt begins. `neighbour` is to be called for each rank of its program. */
  begin(epoch: number, algorithm: AlgorithmLabel, worldSize: number): void {
    const description = this.#operation?.tagState?.announced?.description ?? null;
    this.#begin(epoch, algorithm, description, worldSize, this.#now());
  }

  #begin(
    epoch: number,
    algorithm: AlgorithmLabel | null,
    description: Description | null,
    worldSize: number,
    at: number,
  ): void {
    this.#epoch = epoch;
    this.#algorithm = algorithm;
    this.#description = description;
    this.#worldSize = worldSize;
    this.#begunAt = at;
    this.#neighbourCount = 0;
  }

  /** @param rank above that of the call before */
  neighbour(rank: Rank, peerId: PeerId): void {
    const index = this.#neighbourCount++;
    this.#neighbours[index] ??= new Neighbour();
    this.#neighbours[index].reset(rank, peerId);
  }

  /** The call's announcement was given to the link. */
  announced(rank: Rank): void {
    this.#stamp(rank, ANNOUNCED, ANNOUNCED);
  }

  /** A peer has announced the same call. */
  called(rank: Rank): void {
    this.#stamp(rank, CALLED, CALLED);
  }

  sent(rank: Rank, bytes: number): void {
    const neighbour = this.#stamp(rank, FIRST_SENT, LAST_SENT);
    if (neighbour !== null) neighbour.bytesSent += bytes;
  }

  /** A frame of so many bytes begins to come. */
  received(rank: Rank, bytes: number): void {
    const neighbour = this.#stamp(rank, FIRST_RECEIVED, LAST_RECEIVED);
    if (neighbour !== null) neighbour.bytesReceived += bytes;
  }

  /** A frame has come in whole. */
  receivedWhole(rank: Rank): void {
    this.#stamp(rank, LAST_RECEIVED, LAST_RECEIVED);
  }

  done(): void {
    this.#doneAt = this.#now();
  }

  /** @param error why it failed; null: it was committed */
  end(error: SkeinError | null): void {
    if (this.#operation === null) return;
    this.#ending = endingOf(this.#operation);
    this.#endedAt = this.#now();
    this.#error = error;
    this.#operation = null;
    if (this.#neighbourCount <= MAX_NEIGHBOURS) return;
    this.#neighbours.length = this.#neighbourCount;
    this.#neighbours.sort((left, right) => (left.lastAt < right.lastAt ? 1 : -1));
    this.#neighbours.length = MAX_NEIGHBOURS;
    this.#neighbourCount = MAX_NEIGHBOURS;
  }

  /** Found by halving, as the neighbours of a direct all-reduce are many. */
  #stamp(rank: Rank, first: number, last: number): Neighbour | null {
    let low = 0;
    for (let high = this.#neighbourCount - 1; low < high; ) {
      const middle = (low + high) >> 1;
      if (this.#neighbours[middle]!.rank < rank) low = middle + 1;
      else high = middle;
    }
    const neighbour = this.#neighbours[low];
    if (low >= this.#neighbourCount || neighbour?.rank !== rank) return null;
    const { times } = neighbour;
    times[last] = this.#now();
    if (!(times[first]! >= 0)) times[first] = times[last]!;
    return neighbour;
  }

  /** @param wall milliseconds since 1970 at the engine's time 0 */
  tell(wall: number, self: PeerId): FlightCall {
    const operation = this.#operation;
    const error = this.#error;
    const at = (time: number | undefined) => (time === undefined || Number.isNaN(time) ? null : wall + time);
    const open = operation === null || operation.state === 'ended' ? null : operation;
    return {
      ...(operation === null ? this.#ending! : endingOf(operation)), // one of both is there
      ...this.#shape!, // nothing is told of what was never opened
      epoch: this.#epoch,
      algorithm: this.#algorithm,
      description: this.#description === null ? '' : describe(this.#description).slice(0, MAX_TEXT_LENGTH),
      state: (open?.state as FlightCall['state'] | undefined) ?? (error === null ? 'committed' : 'failed'), // it has not ended
      waitsFor: open?.waitsFor().slice(0, MAX_TEXT_LENGTH) ?? null,
      awaits: open?.awaits(self) ?? [],
      worldSize: this.#worldSize,
      calledAt: wall + this.#calledAt,
      begunAt: at(this.#begunAt),
      doneAt: at(this.#doneAt),
      endedAt: at(this.#endedAt),
      error: error === null ? null : { code: error.code, message: error.message.slice(0, MAX_TEXT_LENGTH) },
      neighbours: this.#neighbours.slice(0, this.#neighbourCount).map(
        ({ peerId, times, bytesSent, bytesReceived }): FlightNeighbour => ({
          peerId,
          calledAt: at(times[CALLED]),
          announcedAt: at(times[ANNOUNCED]),
          firstSentAt: at(times[FIRST_SENT]),
          lastSentAt: at(times[LAST_SENT]),
          bytesSent,
          firstReceivedAt: at(times[FIRST_RECEIVED]),
          lastReceivedAt: at(times[LAST_RECEIVED]),
          bytesReceived,
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
   * What is known of the last `limit` calls that have ended, oldest first, and then of all that are open.
   *
   * @param open the entries of all open calls
   * @param wall milliseconds since 1970 at the engine's time 0
   */
  tell(open: readonly FlightEntry[], limit: number, wall: number, self: PeerId): FlightCall[] {
    const inOrder = [...this.#entries.slice(this.#at), ...this.#entries.slice(0, this.#at)];
    const ended = inOrder.filter((entry) => !entry.isOpen);
    ended.splice(0, ended.length - limit); // none where limit is greater
    return [...ended, ...open].map((entry) => entry.tell(wall, self));
  }
}
