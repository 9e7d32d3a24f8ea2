/** Gathers the flight records of all peers of a run, as they come from the coordinator. */
import type { Clock } from '../transport/clock.ts';
import type { CoordinatorMessage } from '../wire/coordinator-messages.ts';
import { type FlightDump, parseFlight } from '../wire/flight.ts';
import type { PeerMessage } from '../wire/peer-messages.ts';

export interface Flights {
  readonly dumps: readonly FlightDump[];
  /** Peers that are in touch with the coordinator, and yet did not answer: their engines stand still. */
  readonly silent: readonly string[];
  /** Peers that have no connection to the coordinator at the moment. */
  readonly absent: readonly string[];
  /** What was wrong with the answers of others. */
  readonly unreadable: readonly { readonly peerId: string; readonly reason: string }[];
  /** The coordinator has said nothing: it is an older one, or too many others ask. */
  readonly unanswered: boolean;
}

type Answer = Extract<CoordinatorMessage, { type: 'flights-asked' | 'flight-of' }>;

export class FlightInquiry {
  readonly #calls: number;
  readonly #clock: Clock;
  readonly #patienceMs: number;
  readonly #dumps: FlightDump[] = [];
  readonly #unreadable: { peerId: string; reason: string }[] = [];
  #absent: readonly string[] = [];
  #expected: Set<string> | null = null;
  #stopTimer: () => void = () => {};
  #end: () => void = () => {};
  /** All have answered, or nothing has come for as long as `patienceMs`. */
  readonly ended: Promise<void> = new Promise((resolve) => {
    this.#end = () => {
      this.#stopTimer();
      resolve();
    };
  });

  /** @param calls so many that have ended are to be told of by each peer */
  constructor(calls: number, clock: Clock, patienceMs: number) {
    this.#calls = calls;
    this.#clock = clock;
    this.#patienceMs = patienceMs;
  }

  ask(send: (message: PeerMessage) => void): void {
    this.#wait();
    send({ type: 'ask-flights', calls: this.#calls });
  }

  #wait(): void {
    this.#stopTimer();
    this.#stopTimer = this.#clock.schedule(this.#patienceMs, () => this.#end());
  }

  onMessage(message: Answer): void {
    this.#wait();
    if (message.type === 'flights-asked') {
      this.#expected = new Set(message.peers);
      this.#absent = message.absent;
    } else if (this.#expected?.delete(message.from) === true) {
      const dump = parseFlight(new TextDecoder().decode(message.dump));
      // The coordinator knows who it is; what it says of itself must be the same.
      if (typeof dump === 'string') this.#unreadable.push({ peerId: message.from, reason: dump });
      else if (dump.peerId !== message.from)
        this.#unreadable.push({ peerId: message.from, reason: `it says that it is ${dump.peerId}` });
      else this.#dumps.push(dump);
    }
    if (this.#expected?.size === 0) this.#end();
  }

  get flights(): Flights {
    return {
      dumps: this.#dumps,
      silent: [...(this.#expected ?? [])],
      absent: this.#absent,
      unreadable: this.#unreadable,
      unanswered: this.#expected === null,
    };
  }
}
