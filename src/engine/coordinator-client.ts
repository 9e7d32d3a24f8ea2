/**
 * A peer's way to the coordinator. When the connection is lost it dials again and again, and comes back with a report of the
 * run, to the same coordinator or to one that took its place.
 *
 *     connected ──lost──▶ seeking ──resumed──▶ connected
 *
 * What is said while it seeks is in the report; what is said after the report was made is kept, and sent when it is back.
 */
import { ConnectError, ProtocolError, SkeinError } from '../errors.ts';
import { Lifecycle } from '../lifecycle.ts';
import type { Address } from '../transport/transport.ts';
import { MAX_OPEN_COLLECTIVES } from '../wire/limits.ts';
import type { CoordinatorMessage, PeerMessage, RunReport } from '../wire/messages.ts';
import { type Credentials, type Greeted, greet, type PeerConnection } from './greeting.ts';
import type { Platform } from './platform.ts';

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

async function enter(platform: Platform, address: Address, credentials: Credentials): Promise<Greeted> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await greet(platform, address, credentials, null, new AbortController().signal);
    } catch (error) {
      const isBusy = error instanceof ConnectError && error.phase === 'handshake';
      if (!isBusy || attempt === ENTER_ATTEMPTS) throw error;
    }
    const delayMs = withChance(platform, ENTER_FIRST_MS * 2 ** (attempt - 1));
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
  readonly #address: Address;
  readonly #credentials: Credentials;
  readonly #events: ClientEvents;
  readonly #abort: AbortController = new AbortController();
  /** Highest heard so far: lower ones are refused. */
  readonly #fence: { term: number; epoch: number };
  #connection: PeerConnection | null = null;
  #state: ClientState = 'connected';
  /** What it would have said since the last report. */
  readonly #unsaid: PeerMessage[] = [];
  #cancelSeek: () => void = () => {};

  /** @throws ConnectError, UnauthorizedError, ProtocolError; see `greet` */
  static async connect(
    platform: Platform,
    address: Address,
    credentials: Credentials,
    events: ClientEvents,
  ): Promise<CoordinatorClient> {
    const greeted = await enter(platform, address, credentials);
    const { message, term, epoch } = greeted.answer;
    if (message.type !== 'welcome') {
      greeted.connection.fail('it is no answer to a newcomer');
      throw new ProtocolError(`The coordinator answered a newcomer with ${message.type}.`, { phase: 'join' });
    }
    const client = new CoordinatorClient(platform, address, credentials, events, message, { term, epoch });
    client.#take(greeted);
    return client;
  }

  private constructor(
    platform: Platform,
    address: Address,
    credentials: Credentials,
    events: ClientEvents,
    welcome: Welcome,
    fence: { term: number; epoch: number },
  ) {
    this.#platform = platform;
    this.#address = address;
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
      const report = () => {
        this.#unsaid.length = 0;
        return { ...this.#events.report(), ...this.#fence };
      };
      greet(this.#platform, this.#address, this.#credentials, report, this.#abort.signal).then(
        (greeted) => this.#onAnswer(greeted),
        (error: unknown) => this.#onSeekFailed(error, delayMs),
      );
    });
  }

  #onAnswer(greeted: Greeted): void {
    const { message, term } = greeted.answer;
    if (this.#abort.signal.aborted) {
      greeted.connection.fail('this peer has closed');
    } else if (message.type === 'evicted') {
      this.#end();
      greeted.connection.fail('this peer was evicted');
      this.#events.onMessage(message);
    } else {
      this.#fence.term = Math.max(this.#fence.term, term);
      this.#take(greeted);
      for (const unsaid of this.#unsaid.splice(0)) this.send(unsaid);
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
