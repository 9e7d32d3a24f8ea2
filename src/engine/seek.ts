/**
 * Finds the coordinator that leads among those whose addresses a peer was given. They are asked in turn, each with a head start:
 * one that is stopped takes connections and says nothing. One that stands by names the leader, who is asked next, as whoever
 * knows the token may say who coordinates.
 */
import { ConnectError, SkeinError } from '../errors.ts';
import { parseCoordinatorAddress } from '../transport/address.ts';
import type { Address } from '../transport/transport.ts';
import type { RunReport } from '../wire/peer-messages.ts';
import { type Credentials, type Greeted, greet, StandbyError } from './greeting.ts';
import type { Platform } from './platform.ts';

/** How long each may take before the next is asked as well (ms). */
const HEAD_START_MS = 400;

/** As long as some are silent, those that can't serve yet are asked again, so long after their answer (ms). */
const AGAIN_MS = 200;

/** Leaders that are named in one round and were no addresses of ours. */
const MAX_NAMED = 2;

export interface Search {
  /** The one that led last comes first. */
  readonly addresses: readonly Address[];
  readonly credentials: Credentials;
  readonly report: (() => RunReport) | null;
  /** Whoever speaks with a lower one was replaced. */
  readonly leastTerm: number;
  readonly signal: AbortSignal;
}

export interface Found {
  readonly greeted: Greeted;
  readonly address: Address;
  /** What it was told. */
  readonly report: RunReport | null;
}

/**
 * One round: until one answers, or none is left that may answer yet.
 *
 * @throws as `greet`; ConnectError as long as one of them may lead later
 */
export function seek(platform: Platform, search: Search): Promise<Found> {
  return new Promise((resolve, reject) => new Round(platform, search, resolve, reject).start());
}

class Round {
  readonly #platform: Platform;
  readonly #search: Search;
  readonly #resolve: (found: Found) => void;
  readonly #reject: (error: unknown) => void;
  readonly #abort: AbortController;
  readonly #queue: Address[];
  readonly #asked: Set<string> = new Set();
  /** That can't serve, but may soon. */
  readonly #notYet: Address[] = [];
  readonly #errors: unknown[] = [];
  #named = 0;
  #open = 0;
  #isOver = false;
  #stopTimer: () => void = () => {};

  constructor(platform: Platform, search: Search, resolve: (found: Found) => void, reject: (error: unknown) => void) {
    this.#platform = platform;
    this.#search = search;
    this.#resolve = resolve;
    this.#reject = reject;
    this.#abort = platform.abortController();
    this.#queue = [...search.addresses];
  }

  start(): void {
    const { signal } = this.#search;
    if (signal.aborted) this.#abort.abort();
    else signal.addEventListener('abort', this.#onAborted, { once: true });
    this.#askNext();
  }

  readonly #onAborted = () => this.#abort.abort();

  #askNext(): void {
    this.#stopTimer();
    const address = this.#queue.shift();
    if (address === undefined) {
      if (this.#open === 0) this.#end(() => this.#reject(this.#reason));
      return;
    }
    this.#asked.add(keyOf(address));
    this.#open += 1;
    const { credentials, report } = this.#search;
    let told: RunReport | null = null;
    const tell = report === null ? null : () => (told = report());
    greet(this.#platform, address, credentials, tell, this.#abort.signal).then(
      (greeted) => this.#onGreeted({ greeted, address, report: told }),
      (error: unknown) => this.#onFailed(error, address),
    );
    this.#plan();
  }

  /** What comes next, if nobody answers: the next address, or those that can't serve yet once more. */
  #plan(): void {
    if (this.#queue.length > 0) this.#later(HEAD_START_MS, () => this.#askNext());
    else if (this.#notYet.length > 0 && this.#open > 0)
      this.#later(AGAIN_MS, () => {
        this.#queue.push(...this.#notYet.splice(0));
        this.#askNext();
      });
  }

  #onGreeted(found: Found): void {
    const { greeted } = found;
    const { message, term } = greeted.answer;
    if (this.#isOver) {
      greeted.connection.fail('another coordinator has answered');
    } else if (term < this.#search.leastTerm && this.#isChoice(message.type)) {
      greeted.connection.fail('it is a coordinator that was replaced');
      const text = `The coordinator at ${greeted.connection.remote} speaks with term ${term}, and ${this.#search.leastTerm} has been heard: it was replaced.`;
      this.#onFailed(new ConnectError(text, { phase: 'join' }), found.address);
    } else {
      this.#end(() => this.#resolve(found));
    }
  }

  /** Where there is only one, which has lost its store, its word that the run went on must do. */
  #isChoice(type: string): boolean {
    return type !== 'evicted' || this.#search.addresses.length > 1 || this.#named > 0;
  }

  #later(ms: number, then: () => void): void {
    this.#stopTimer();
    this.#stopTimer = this.#platform.clock.schedule(ms, then);
  }

  #onFailed(error: unknown, address: Address): void {
    if (this.#isOver) return;
    this.#open -= 1;
    this.#errors.push(error);
    // Who comes by WebSocket can't come another way, or is not to.
    if (error instanceof StandbyError && error.leader !== null && address.kind !== 'ws') this.#putFirst(error.leader);
    if (isPassing(error)) this.#notYet.push(address);
    if (this.#open === 0 || this.#queue.length > 0) this.#askNext();
    else this.#plan();
  }

  #putFirst(text: string): void {
    let leader: Address;
    try {
      leader = parseCoordinatorAddress(text);
    } catch {
      return; // it has no address that peers could use
    }
    const key = keyOf(leader);
    if (this.#asked.has(key)) return;
    const at = this.#queue.findIndex((address) => keyOf(address) === key);
    if (at >= 0) this.#queue.splice(at, 1);
    else if (this.#named++ >= MAX_NAMED) return;
    this.#queue.unshift(leader);
  }

  /** One that may lead later is worth waiting for; who was here already also waits for one that can't be reached. */
  get #reason(): unknown {
    const isReturning = this.#search.report !== null;
    return (
      this.#errors.find((error) => error instanceof StandbyError) ??
      this.#errors.find((error) => isPassing(error) === isReturning) ??
      this.#errors[0]
    );
  }

  #end(tell: () => void): void {
    this.#isOver = true;
    this.#stopTimer();
    this.#search.signal.removeEventListener('abort', this.#onAborted);
    tell();
    this.#abort.abort();
  }
}

function isPassing(error: unknown): boolean {
  return error instanceof ConnectError || !(error instanceof SkeinError);
}

function keyOf(address: Address): string {
  return JSON.stringify(address);
}
