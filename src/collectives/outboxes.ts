/**
 * In which order segments go to each peer. Those that arrived and must go on are sent before new ones are begun: so few are under
 * way at a time, each is finished while its bytes are in the cache, and a new one enters the pipeline whenever a link would be idle.
 *
 * Where each peer adds up a chunk of its own (*evenly*), none gets so many segments more than another. Connections share a link
 * unevenly: without this, owners soon have much of one rank and nothing of the next, and no sum to send while the link is idle.
 */
import type { Rank } from './program.ts';
import type { SegmentPort, TransferSpec } from './transfer-spec.ts';

/** So many segments more than another may be begun for a peer, where that matters. */
const MAX_LEAD = 2;

/** What goes to one peer. */
interface Outbox {
  readonly rank: Rank;
  readonly port: SegmentPort;
  /** Segments whose first step sends to it, in the order in which they are begun. */
  readonly begin: number[];
  /** So many of them have been begun. */
  begun: number;
  /** Segments that arrived and go on to this peer, oldest first. */
  readonly forward: number[];
  forwardHead: number;
}

/** Sends a segment's value to a rank; false when it must wait, to be sent before any other. */
type SendSegment = (rank: Rank, port: SegmentPort, segment: number) => boolean;

export class Outboxes {
  readonly #spec: Pick<TransferSpec, 'port'>;
  readonly #send: SendSegment;
  readonly #evenly: boolean;
  readonly #all: Outbox[] = [];
  readonly #byRank: (Outbox | undefined)[] = [];
  /** Segments begun, for all peers together. */
  #begun = 0;

  constructor(spec: Pick<TransferSpec, 'port' | 'plan' | 'op'>, send: SendSegment) {
    this.#spec = spec;
    this.#send = send;
    // There every owner needs something of every rank.
    this.#evenly = spec.plan.algorithm === 'direct' && spec.op !== null;
  }

  /** A segment can set out to a rank, when its turn comes. */
  begin(rank: Rank, segment: number): void {
    this.#to(rank).begin.push(segment);
  }

  /** A segment goes on to a rank. */
  forward(rank: Rank, segment: number): void {
    this.#to(rank).forward.push(segment);
  }

  /** Hands segments to every link that takes them. */
  pump(): void {
    let begun: number;
    do {
      begun = this.#begun;
      for (let index = 0; index < this.#all.length; index++) this.#pump(this.#all[index]!);
      // What was begun for one may let another go on.
    } while (this.#evenly && this.#begun > begun);
  }

  #to(rank: Rank): Outbox {
    let outbox = this.#byRank[rank];
    if (outbox === undefined) {
      outbox = { rank, port: this.#spec.port(rank), begin: [], begun: 0, forward: [], forwardHead: 0 };
      this.#byRank[rank] = outbox;
      this.#all.push(outbox);
    }
    return outbox;
  }

  #pump(outbox: Outbox): void {
    const { rank, port, begin, forward } = outbox;
    while (port.writable) {
      if (outbox.forwardHead < forward.length) {
        if (!this.#send(rank, port, forward[outbox.forwardHead]!)) return;
        outbox.forwardHead += 1;
        if (outbox.forwardHead === forward.length) {
          forward.length = 0;
          outbox.forwardHead = 0;
        }
      } else {
        const segment = begin[outbox.begun];
        if (segment === undefined || (this.#evenly && this.#leads(outbox))) return;
        outbox.begun += 1;
        this.#begun += 1;
        if (!this.#send(rank, port, segment)) {
          forward.push(segment);
          return;
        }
      }
    }
  }

  #leads(outbox: Outbox): boolean {
    for (let index = 0; index < this.#all.length; index++) {
      const other = this.#all[index]!;
      const isBehind = other.begun + MAX_LEAD <= outbox.begun;
      if (isBehind && other.begun < other.begin.length) return true;
    }
    return false;
  }
}
