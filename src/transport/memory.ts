/**
 * A network in memory, for simulations: the same promises as a socket, with weather that a seed decides. Bytes take time,
 * arrive in pieces of any size, wait while the reader pauses, and are lost when a connection is cut; connections
 * delay one another in no way, so stripes overtake each other. With a `VirtualClock` a run repeats exactly.
 *
 *     write ──▶ queue ──window──▶ on the way ──delay──▶ arrived ──unless paused──▶ onData
 *               (not copied)      (copied: flushed)      (counts against the window)
 */
import { xorshift128plus } from 'pure-rand/generator/xorshift128plus';
import { ConnectError } from '../errors.ts';
import type { Clock } from './clock.ts';
import type { Address, Connection, ConnectionHandler, DialOptions, Listener, Transport } from './transport.ts';

export interface Weather {
  /** Milliseconds that a piece is on its way at least. */
  readonly latencyMs: number;
  /** Milliseconds that it may take longer; order within a connection is kept. */
  readonly jitterMs: number;
  /** Rate of one direction of a connection; `Infinity` for no limit. */
  readonly bytesPerMs: number;
  /** Bytes travel in pieces of 1 to so many. */
  readonly maxPieceBytes: number;
  /** Bytes that one direction holds before the sender has to keep them: what the kernels' buffers are to a socket. */
  readonly windowBytes: number;
  /** Chance that a piece is not delivered, but cuts its connection. */
  readonly cutChance: number;
}

const FAIR: Weather = {
  latencyMs: 0,
  jitterMs: 0,
  bytesPerMs: Number.POSITIVE_INFINITY,
  maxPieceBytes: 64 * 1024,
  windowBytes: 256 * 1024,
  cutChance: 0,
};

const IDLE: ConnectionHandler = { onData: () => {}, onEnd: () => {}, onClose: () => {} };

interface Write {
  readonly head: Uint8Array;
  readonly body: Uint8Array | null;
  readonly onFlushed: (() => void) | null;
  /** Bytes taken so far. */
  taken: number;
}

export class MemoryNetwork {
  readonly clock: Clock;
  readonly weather: Weather;
  readonly #listeners: Map<string, (connection: Connection) => void> = new Map();
  readonly #connections: Set<MemoryConnection> = new Set();
  readonly #random: () => number;
  #group: ((name: string) => unknown) | null = null;

  constructor(options: { readonly clock: Clock; readonly seed: number; readonly weather?: Partial<Weather> }) {
    this.clock = options.clock;
    this.weather = { ...FAIR, ...options.weather };
    const generator = xorshift128plus(options.seed);
    this.#random = () => (generator.next() >>> 0) / 2 ** 32;
  }

  /** Ends of connections that are open: two each. */
  get openEnds(): number {
    return this.#connections.size;
  }

  /** The network as seen from one host. */
  transport(host: string): Transport {
    return {
      kind: 'memory',
      listen: async (address, onConnection) => this.#listen(memoryName(address), onConnection),
      dial: async (address, options) => this.#dial(host, memoryName(address), options),
    };
  }

  /**
   * Parts the hosts: connections between different groups stand still, dialling fails, until `heal`. What is on its way is kept.
   *
   * @param group the group of a host
   */
  partition(group: (host: string) => unknown): void {
    this.#group = group;
  }

  heal(): void {
    this.#group = null;
    for (const connection of [...this.#connections]) connection.pump();
  }

  /** Cuts every connection of a host, as when it dies. */
  cut(host: string): void {
    for (const connection of [...this.#connections]) if (connection.host === host) connection.destroy();
  }

  /** @internal */
  reaches(from: string, to: string): boolean {
    return this.#group === null || this.#group(from) === this.#group(to);
  }

  /** Uniform in [0, 1). @internal */
  random(): number {
    return this.#random();
  }

  /** @internal */
  forget(connection: MemoryConnection): void {
    this.#connections.delete(connection);
  }

  #listen(name: string, onConnection: (connection: Connection) => void): Listener {
    if (this.#listeners.has(name)) {
      throw new ConnectError(`Can't listen on memory ${name}: somebody does already.`, { phase: 'listen' });
    }
    this.#listeners.set(name, onConnection);
    return {
      address: { kind: 'memory', name },
      close: async () => {
        if (this.#listeners.get(name) === onConnection) this.#listeners.delete(name);
      },
    };
  }

  #dial(host: string, name: string, options: DialOptions): Promise<Connection> {
    const { signal, timeoutMs } = options;
    return new Promise((resolve, reject) => {
      const settle = () => {
        stopTimer();
        stopDial();
        signal?.removeEventListener('abort', onAbort);
      };
      const fail = (message: string) => {
        settle();
        options.onReadBufferFree?.();
        reject(new ConnectError(message, { cause: signal?.reason, phase: 'dial' }));
      };
      const onAbort = () => fail(`Dialling memory ${name} was cancelled.`);
      const stopTimer = this.clock.schedule(timeoutMs, () =>
        fail(`memory ${name} did not answer within ${timeoutMs} ms.`),
      );
      const roundTripMs = 2 * this.weather.latencyMs;
      const stopDial = this.clock.schedule(roundTripMs, () => {
        const accept = this.#listeners.get(name);
        if (accept === undefined || !this.reaches(host, name)) {
          fail(`Nobody could be reached at memory ${name}.`);
          return;
        }
        settle();
        const near = new MemoryConnection(this, host, `memory ${name}`, options.onReadBufferFree ?? null);
        const far = new MemoryConnection(this, name, `memory ${host}`, null);
        near.join(far);
        for (const connection of [near, far]) this.#connections.add(connection);
        accept(far);
        resolve(near);
      });
      if (signal?.aborted === true) onAbort();
      else signal?.addEventListener('abort', onAbort, { once: true });
    });
  }
}

/** One end. It owns the direction that it writes to: the queue, what is on the way, and what has arrived at the other end. */
class MemoryConnection implements Connection {
  readonly host: string;
  readonly remote: string;
  handler: ConnectionHandler = IDLE;
  queuedBytes = 0;
  readonly #network: MemoryNetwork;
  readonly #onFree: (() => void) | null;
  #other: MemoryConnection | null = null;
  readonly #queue: Write[] = [];
  /** Bytes that have left here, and that the other end has not taken. */
  #window = 0;
  /** Pieces at this end that wait to be read; null: the other side has ended. */
  readonly #arrived: (Uint8Array | null)[] = [];
  /** What is on the way, in order: each arrival runs the oldest, so that no rounding of a clock can reorder them. */
  readonly #travelling: (() => void)[] = [];
  #lastArrival = 0;
  #corks = 0;
  #paused = false;
  #ending = false;
  #endSent = false;
  #endReceived = false;
  #closed = false;

  constructor(network: MemoryNetwork, host: string, remote: string, onFree: (() => void) | null) {
    this.#network = network;
    this.host = host;
    this.remote = remote;
    this.#onFree = onFree;
  }

  join(other: MemoryConnection): void {
    this.#other = other;
    other.#other = this;
  }

  write(head: Uint8Array, body: Uint8Array | null, onFlushed: (() => void) | null): void {
    if (this.#closed || this.#ending) {
      if (onFlushed !== null) queueMicrotask(onFlushed);
      return;
    }
    this.queuedBytes += head.length + (body?.length ?? 0);
    this.#queue.push({ head, body, onFlushed, taken: 0 });
    this.#schedulePump();
  }

  cork(): void {
    this.#corks += 1;
  }

  uncork(): void {
    this.#corks -= 1;
    this.#schedulePump();
  }

  pause(): void {
    this.#paused = true;
  }

  resume(): void {
    this.#paused = false;
    this.#network.clock.schedule(0, () => this.#read());
  }

  end(): void {
    this.#ending = true;
    this.#schedulePump();
  }

  destroy(reason?: Error): void {
    const other = this.#other;
    if (this.#closed) return;
    this.#close(reason);
    if (other === null) return;
    const { clock, weather } = this.#network;
    clock.schedule(weather.latencyMs, () =>
      other.#close(new ConnectError(`The connection to ${other.remote} was reset.`)),
    );
  }

  #schedulePump(): void {
    this.#network.clock.schedule(0, () => this.pump());
  }

  /** Sends what the window allows. */
  pump(): void {
    const other = this.#other;
    if (this.#closed || other === null || this.#corks > 0 || !this.#network.reaches(this.host, other.host)) return;
    const { weather } = this.#network;
    while (this.#queue.length > 0) {
      const room = weather.windowBytes - this.#window;
      if (room <= 0) return;
      this.#sendPiece(this.#queue[0]!, room, other);
    }
    if (this.#ending && !this.#endSent) {
      this.#endSent = true;
      this.#travel(0, () => other.#arrive(null));
      if (this.#endReceived) this.#close();
    }
  }

  #sendPiece(write: Write, room: number, other: MemoryConnection): void {
    const { weather } = this.#network;
    const fromHead = write.taken < write.head.length;
    const source = fromHead ? write.head : (write.body ?? write.head);
    const start = fromHead ? write.taken : write.taken - write.head.length;
    const drawn = 1 + Math.floor(this.#network.random() * weather.maxPieceBytes);
    const bytes = source.slice(start, start + Math.min(drawn, room));
    write.taken += bytes.length;
    this.queuedBytes -= bytes.length;
    this.#window += bytes.length;
    if (write.taken === write.head.length + (write.body?.length ?? 0)) {
      this.#queue.shift();
      this.#network.clock.schedule(0, () => {
        write.onFlushed?.();
        if (!this.#closed) this.handler.onFlushed?.();
      });
    }
    if (bytes.length === 0) return;
    const isCut = this.#network.random() < weather.cutChance;
    this.#travel(bytes.length, () =>
      isCut ? this.destroy(new ConnectError('The simulated link was cut.')) : other.#arrive(bytes),
    );
  }

  /** Runs `task` when so many bytes, sent now, arrive: never before what was sent earlier. */
  #travel(bytes: number, task: () => void): void {
    const { clock, weather } = this.#network;
    const drawn = weather.latencyMs + this.#network.random() * weather.jitterMs;
    this.#lastArrival = Math.max(this.#lastArrival, clock.now() + drawn) + bytes / weather.bytesPerMs;
    this.#travelling.push(task);
    clock.schedule(this.#lastArrival - clock.now(), () => this.#travelling.shift()?.());
  }

  #arrive(piece: Uint8Array | null): void {
    if (this.#closed) return;
    this.#arrived.push(piece);
    this.#read();
  }

  #read(): void {
    while (!this.#closed && !this.#paused && this.#arrived.length > 0) {
      const piece = this.#arrived.shift()!;
      if (piece === null) {
        this.#endReceived = true;
        this.handler.onEnd();
        if (this.#endSent) this.#close();
        return;
      }
      this.handler.onData(piece);
      const other = this.#other!; // joined before anything can arrive
      other.#window -= piece.length;
      other.#schedulePump();
    }
  }

  #close(error?: Error): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#network.forget(this);
    const dropped = this.#queue.splice(0);
    this.#arrived.length = 0;
    this.queuedBytes = 0;
    this.#network.clock.schedule(0, () => {
      for (const { onFlushed } of dropped) onFlushed?.();
      this.#onFree?.();
      this.handler.onClose(error);
    });
  }
}

function memoryName(address: Address): string {
  if (address.kind !== 'memory') {
    throw new ConnectError(`A simulated network can't use an address of kind ${address.kind}.`);
  }
  return address.name;
}
