/**
 * A peer's way to the coordinator. When the connection is lost it dials again and again, and comes back with a report of the
 * run, to the same coordinator or to one that took its place.
 *
 *     connected ──lost──▶ seeking ──resumed──▶ connected
 *
 * What is said before a report is made is in it; what is said after that is kept, and sent when it is back.
 */
import { ConnectError, ProtocolError, SkeinError } from '../errors.ts';
import { Lifecycle } from '../lifecycle.ts';
import type { Address } from '../transport/transport.ts';
import type { CoordinatorMessage } from '../wire/coordinator-messages.ts';
import { MAX_OPEN_COLLECTIVES } from '../wire/limits.ts';
import type { PeerMessage, RunReport } from '../wire/peer-messages.ts';
import { type Credentials, type Greeted, type PeerConnection, StandbyError } from './greeting.ts';
import type { Platform } from './platform.ts';
import { type Found, seek } from './seek.ts';

export interface ClientEvents {
  onMessage(message: CoordinatorMessage): void;
  /** The connection is gone, and another is sought. */
  onLost(reason: string): void;
  /** There is a connection again. */
  onBack(): void;
  /** The coordinator will not have this peer back. */
  onRefused(error: SkeinError): void;
  /** What to tell a coordinator to which this peer comes back. */
  report(): Omit<RunReport, 'term' | 'epoch'>;
}

export type Welcome = Extract<CoordinatorMessage, { type: 'welcome' }>;

/** Wait before the coordinator is dialled again (ms): doubled from the first to the last, with a random part. */
const SEEK_FIRST_MS = 25;
const SEEK_LAST_MS = 500;

/** Messages kept for after the answer to a report: more than a peer can have to say about its open collectives. */
const MAX_UNSAID: number = 2 * MAX_OPEN_COLLECTIVES;

/** Attempts of a newcomer at a port that closes the connection before anything was said: so many others may be coming. */
const ENTER_ATTEMPTS = 8;
const ENTER_FIRST_MS = 50;

/** @param patienceMs how long it waits for one that leads, where those that are there stand by */
async function enter(
  platform: Platform,
  addresses: readonly Address[],
  credentials: Credentials,
  patienceMs: number,
): Promise<Found> {
  const { signal } = new AbortController();
  const until = platform.clock.now() + patienceMs;
  for (let attempt = 1; ; attempt++) {
    try {
      return await seek(platform, { addresses, credentials, report: null, leastTerm: 0, signal });
    } catch (error) {
      const standsBy = error instanceof StandbyError && platform.clock.now() < until;
      const isBusy = error instanceof ConnectError && error.phase === 'handshake';
      if (!standsBy && (!isBusy || attempt === ENTER_ATTEMPTS)) throw error;
    }
    const delayMs = withChance(platform, Math.min(SEEK_LAST_MS, ENTER_FIRST_MS * 2 ** (attempt - 1)));
    await new Promise<void>((resolve) => void platform.clock.schedule(delayMs, resolve));
  }
}

/** Half to all of it: those who were lost or refused together do not come back together. */
function withChance(platform: Platform, delayMs: number): number {
  return delayMs * (0.5 + platform.random(1)[0]! / 512);
}

type ClientState = 'connected' | 'seeking' | 'closed';

const LIFE = new Lifecycle<ClientState>('coordinator connection', {
  connected: ['seeking', 'closed'],
  seeking: ['connected', 'closed'],
  closed: [],
});

export class CoordinatorClient {
  readonly welcome: Welcome;
  readonly #platform: Platform;
  /** The one that led last comes first. */
  #addresses: readonly Address[];
  readonly #credentials: Credentials;
  readonly #events: ClientEvents;
  readonly #abort: AbortController = new AbortController();
  /** Highest heard so far: lower ones are refused. */
  readonly #fence: { term: number; epoch: number };
  #connection: PeerConnection | null = null;
  #state: ClientState = 'connected';
  /** What it would have said since it began to ask for a coordinator again. */
  readonly #unsaid: PeerMessage[] = [];
  /** By report: how much of that is in it. */
  #reported: WeakMap<RunReport, number> = new WeakMap();
  #cancelSeek: () => void = () => {};

  /**
   * @param addresses of those of which one leads
   * @param patienceMs how long it may take until one does, where some are there
   * @throws ConnectError, UnauthorizedError, ProtocolError; see `greet`
   */
  static async connect(
    platform: Platform,
    addresses: readonly Address[],
    credentials: Credentials,
    events: ClientEvents,
    patienceMs = 0,
  ): Promise<CoordinatorClient> {
    const { greeted, address } = await enter(platform, addresses, credentials, patienceMs);
    const { message, term, epoch } = greeted.answer;
    if (message.type !== 'welcome') {
      greeted.connection.fail('it is no answer to a newcomer');
      throw new ProtocolError(`The coordinator answered a newcomer with ${message.type}.`, { phase: 'join' });
    }
    const client = new CoordinatorClient(platform, addresses, credentials, events, message, { term, epoch });
    client.#prefer(address);
    client.#take(greeted);
    return client;
  }

  private constructor(
    platform: Platform,
    addresses: readonly Address[],
    credentials: Credentials,
    events: ClientEvents,
    welcome: Welcome,
    fence: { term: number; epoch: number },
  ) {
    this.#platform = platform;
    this.#addresses = addresses;
    this.#credentials = credentials;
    this.#events = events;
    this.welcome = welcome;
    this.#fence = fence;
  }

  send(message: PeerMessage): void {
    if (this.#connection !== null) this.#connection.send(message, this.#fence.term, this.#fence.epoch);
    else if (message.type !== 'beat' && this.#unsaid.length < MAX_UNSAID) this.#unsaid.push(message);
  }

  get connected(): boolean {
    return this.#connection !== null;
  }

  /** Gives up a connection on which nothing is heard, and seeks another. */
  renew(reason: string): void {
    this.#connection?.fail(reason);
  }

  /** Closes for good. */
  close(): void {
    this.#end();
    this.#cancelSeek();
    this.#connection?.fail('this peer closed it');
  }

  /** It is not sought any more. */
  #end(): void {
    this.#state = LIFE.step(this.#state, 'closed');
    this.#abort.abort();
  }

  /** It is asked first from now on; one that is not among the addresses was named by another, which will know the next one too. */
  #prefer(address: Address): void {
    const same = (other: Address) => JSON.stringify(other) === JSON.stringify(address);
    if (!this.#addresses.some(same)) return;
    this.#addresses = [address, ...this.#addresses.filter((other) => !same(other))];
  }

  #take({ connection, takeOver }: Greeted): void {
    this.#state = LIFE.step(this.#state, 'connected');
    this.#connection = connection;
    takeOver({
      onMessage: ({ term, epoch, message }) => {
        const fence = this.#fence;
        if (term < fence.term || epoch < fence.epoch) return; // fenced: a coordinator that was replaced
        fence.term = term;
        fence.epoch = epoch;
        this.#events.onMessage(message);
      },
      onClosed: (reason) => {
        this.#connection = null;
        if (this.#state !== 'closed') this.#state = LIFE.step(this.#state, 'seeking');
        this.#events.onLost(reason ?? 'it closed the connection');
        this.#seek(SEEK_FIRST_MS);
      },
    });
  }

  #seek(delayMs: number): void {
    if (this.#abort.signal.aborted) return;
    this.#cancelSeek = this.#platform.clock.schedule(withChance(this.#platform, delayMs), () => {
      this.#unsaid.length = 0; // all reports that are made from now on say it
      const report = () => {
        const made = { ...this.#events.report(), ...this.#fence };
        this.#reported.set(made, this.#unsaid.length);
        return made;
      };
      const { signal } = this.#abort;
      const search = { addresses: this.#addresses, credentials: this.#credentials, report, signal };
      seek(this.#platform, { ...search, leastTerm: this.#fence.term }).then(
        (found) => this.#onAnswer(found),
        (error: unknown) => this.#onSeekFailed(error, delayMs),
      );
    });
  }

  #onAnswer({ greeted, address, report }: Found): void {
    const { message, term } = greeted.answer;
    if (this.#abort.signal.aborted) {
      greeted.connection.fail('this peer has closed');
    } else if (message.type === 'evicted') {
      this.#end();
      greeted.connection.fail('this peer was evicted');
      this.#events.onMessage(message);
    } else {
      this.#fence.term = term;
      this.#prefer(address);
      this.#take(greeted);
      const reported = report === null ? 0 : (this.#reported.get(report) ?? 0);
      for (const unsaid of this.#unsaid.splice(0).slice(reported)) this.send(unsaid);
      if (this.connected) this.#events.onBack();
    }
  }

  #onSeekFailed(error: unknown, delayMs: number): void {
    if (this.#abort.signal.aborted) return;
    if (error instanceof ConnectError || !(error instanceof SkeinError)) {
      this.#seek(Math.min(SEEK_LAST_MS, 2 * delayMs));
    } else {
      this.#end();
      this.#events.onRefused(error);
    }
  }
}
