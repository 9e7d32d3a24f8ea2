/**
 * A network in memory, for simulations: the same promises as a socket, with weather that a seed decides. Bytes take time,
 * arrive in pieces of any size, wait while the reader pauses, and are lost when a connection is cut; connections
 * delay one another in no way, so stripes overtake each other. With a `VirtualClock` a run repeats exactly.
 *
 *     write ──▶ queue ──window──▶ on the way ──delay──▶ arrived ──unless paused──▶ onData
 *               (not copied)      (copied: flushed)      (counts against the window)
 */
import { xorshift128plus } from 'pure-rand/generator/xorshift128plus';
import { ConnectError, ProtocolError } from '../errors.ts';
import type { Clock } from './clock.ts';
import {
  type Address,
  type Connection,
  type ConnectionHandler,
  type DialOptions,
  IDLE_HANDLER,
  type Listener,
  NO_BINDING,
  type Transport,
} from './transport.ts';

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

/** A process on the network. What happens in it goes through it, so that a simulation can stop it, or let it die. */
export interface Host {
  readonly name: string;
  /** Its timers. */
  readonly clock: Clock;
  /** Runs a task in the process: now; when it is stopped, as soon as it goes on; never, when it is dead. */
  run(task: () => void): void;
}

const FAIR: Weather = {
  latencyMs: 0,
  jitterMs: 0,
  bytesPerMs: Number.POSITIVE_INFINITY,
  maxPieceBytes: 64 * 1024,
  windowBytes: 256 * 1024,
  cutChance: 0,
};

/** What is on its way is copied to pieces of such slabs: memory of its own for each would cost more than the copy (bytes). */
const SLAB_BYTES = 32 * 1024;

/** A piece on its way; null: the sender's end. */
interface Travelling {
  readonly bytes: Uint8Array | null;
  /** `lost`: it does not arrive, and its connection is cut. `torn`: it arrives, and its connection is cut then. */
  readonly fate: 'arrives' | 'lost' | 'torn';
}

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
  readonly #listeners: Map<string, { readonly host: Host; readonly onConnection: (connection: Connection) => void }> =
    new Map();
  readonly #connections: Set<MemoryConnection> = new Set();
  /** Processes that have died. */
  readonly #gone: WeakSet<Host> = new WeakSet();
  readonly #random: () => number;
  #isBlocked: (from: string, to: string) => boolean = () => false;
  #weatherOf: (from: string, to: string) => Partial<Weather> | null = () => null;
  /** The network's weather with the changes that the rule has told so far. */
  readonly #shaped: WeakMap<Partial<Weather>, Weather> = new WeakMap();
  #slab: Uint8Array = new Uint8Array(0);
  #slabUsed = 0;
  /** What could not go where it is blocked. */
  readonly #held: { readonly from: string; readonly to: string; readonly go: () => void }[] = [];

  readonly #onRefused: (host: string, remote: string, reason: ProtocolError) => void;

  /** `onRefused`: a host closes a connection because the other end has broken the protocol. */
  constructor(options: {
    readonly clock: Clock;
    readonly seed: number;
    readonly weather?: Partial<Weather>;
    readonly onRefused?: (host: string, remote: string, reason: ProtocolError) => void;
  }) {
    this.clock = options.clock;
    this.#onRefused = options.onRefused ?? (() => {});
    this.weather = { ...FAIR, ...options.weather };
    const generator = xorshift128plus(options.seed);
    this.#random = () => (generator.next() >>> 0) / 2 ** 32;
  }

  /** Ends of connections that are open: two each. */
  get openEnds(): number {
    return this.#connections.size;
  }

  /** Bytes that hosts keep because the network has no room for them. */
  get queuedBytes(): number {
    let bytes = 0;
    for (const connection of this.#connections) bytes += connection.queuedBytes;
    return bytes;
  }

  /** The network as seen from one host; a name stands for a process that always runs. */
  transport(from: Host | string): Transport {
    const host = typeof from === 'string' ? { name: from, clock: this.clock, run: (task: () => void) => task() } : from;
    return {
      kind: 'memory',
      listen: async (address, onConnection) => this.#listen(host, memoryName(address), onConnection),
      dial: async (address, options) => this.#dial(host, memoryName(address), options),
    };
  }

  /**
   * Drops everything that goes from one host to another where the rule says so, until `heal`. Connections stand still, as TCP's
   * do, and go on afterwards; dialling runs out of time. What is on its way is delivered.
   */
  block(rule: (from: string, to: string) => boolean): void {
    this.#isBlocked = rule;
    for (const held of this.#held.splice(0)) this.deliver(held.from, held.to, held.go);
    for (const connection of [...this.#connections]) connection.goOn();
  }

  /** Parts the hosts into groups that can't reach one another. */
  partition(group: (host: string) => unknown): void {
    this.block((from, to) => group(from) !== group(to));
  }

  heal(): void {
    this.block(() => false);
  }

  /** Weather of its own for what goes from one host to another; null for the network's. What the rule returns must not change. */
  shape(rule: (from: string, to: string) => Partial<Weather> | null): void {
    this.#weatherOf = rule;
  }

  /** Cuts every connection of a host. */
  cut(host: string): void {
    for (const connection of [...this.#connections]) if (connection.host.name === host) connection.destroy();
  }

  /** Cuts every connection between two hosts. `midWrite`: each direction as soon as it has sent part of a write. */
  cutBetween(one: string, other: string, midWrite = false): void {
    for (const connection of [...this.#connections]) {
      const { host, remoteHost } = connection;
      const isOneWay = host.name === one && remoteHost === other;
      if (midWrite && (isOneWay || (host.name === other && remoteHost === one))) connection.tearNext(true);
      else if (isOneWay) connection.destroy();
    }
  }

  /** Forgets the cuts of `cutBetween` that have not come about yet. */
  spare(): void {
    for (const connection of this.#connections) connection.tearNext(false);
  }

  /**
   * A process has died: nobody listens there any more. `silent`: its machine went with it, so nobody is told, and the other
   * ends of its connections stay open.
   */
  down(host: Host, silent: boolean): void {
    this.#gone.add(host);
    for (const [name, listener] of this.#listeners) if (listener.host === host) this.#listeners.delete(name);
    for (const connection of [...this.#connections]) {
      if (connection.host !== host) continue;
      if (silent) connection.vanish();
      else connection.destroy();
    }
  }

  /** @internal */
  reaches(from: string, to: string): boolean {
    return !this.#isBlocked(from, to);
  }

  /** Runs `go` when what is sent now from one host reaches the other. @internal */
  deliver(from: string, to: string, go: () => void): void {
    if (this.reaches(from, to)) this.clock.schedule(this.weatherOf(from, to).latencyMs, go);
    else this.#held.push({ from, to, go });
  }

  /** @internal */
  weatherOf(from: string, to: string): Weather {
    const own = this.#weatherOf(from, to);
    if (own === null) return this.weather;
    let weather = this.#shaped.get(own);
    if (weather === undefined) {
      weather = { ...this.weather, ...own };
      this.#shaped.set(own, weather);
    }
    return weather;
  }

  /** A copy of some bytes, for their way. @internal */
  copy(bytes: Uint8Array): Uint8Array {
    const { length } = bytes;
    if (length > SLAB_BYTES / 4) return bytes.slice();
    if (this.#slabUsed + length > this.#slab.length) {
      this.#slab = new Uint8Array(SLAB_BYTES);
      this.#slabUsed = 0;
    }
    const copy = this.#slab.subarray(this.#slabUsed, this.#slabUsed + length);
    copy.set(bytes);
    this.#slabUsed += length;
    return copy;
  }

  /** @internal */
  refused(host: string, remote: string, reason: ProtocolError): void {
    this.#onRefused(host, remote, reason);
  }

  /** Uniform in [0, 1). @internal */
  random(): number {
    return this.#random();
  }

  /** @internal */
  forget(connection: MemoryConnection): void {
    this.#connections.delete(connection);
  }

  #listen(host: Host, name: string, onConnection: (connection: Connection) => void): Listener {
    if (this.#listeners.has(name)) {
      throw new ConnectError(`Can't listen on memory ${name}: somebody does already.`, { phase: 'listen' });
    }
    const listener = { host, onConnection };
    this.#listeners.set(name, listener);
    return {
      address: { kind: 'memory', name },
      close: async () => {
        if (this.#listeners.get(name) === listener) this.#listeners.delete(name);
      },
    };
  }

  #dial(host: Host, name: string, options: DialOptions): Promise<Connection> {
    const { signal, timeoutMs } = options;
    const dialledAt = this.clock.now();
    return new Promise((resolve, reject) => {
      let settled = false;
      const settle = () => {
        settled = true;
        stopTimer();
        signal?.removeEventListener('abort', onAbort);
      };
      const fail = (message: string) => {
        if (settled) return;
        settle();
        options.onReadBufferFree?.();
        reject(new ConnectError(message, { cause: signal?.reason, phase: 'dial' }));
      };
      const onAbort = () => fail(`Dialling memory ${name} was cancelled.`);
      const stopTimer = host.clock.schedule(timeoutMs, () =>
        fail(`memory ${name} did not answer within ${timeoutMs} ms.`),
      );
      const target = this.#listeners.get(name)?.host.name ?? name;
      const arrive = () => {
        const listener = this.#listeners.get(name);
        if (listener === undefined) {
          this.deliver(target, host.name, () =>
            host.run(() => fail(`Nobody could be reached at memory ${name}: it refuses connections.`)),
          );
          return;
        }
        const near = new MemoryConnection(
          this,
          host,
          listener.host,
          `memory ${name}`,
          options.onReadBufferFree ?? null,
        );
        const far = new MemoryConnection(this, listener.host, host, `memory ${host.name}`, null);
        near.join(far);
        for (const connection of [near, far]) this.#connections.add(connection);
        listener.host.run(() => {
          far.open();
          listener.onConnection(far);
        });
        this.deliver(target, host.name, () => {
          if (this.#gone.has(host)) near.destroy();
          host.run(() => {
            if (settled) {
              near.destroy();
              return;
            }
            settle();
            if (near.closed) {
              reject(new ConnectError(`The connection to memory ${name} was reset.`, { phase: 'dial' }));
              return;
            }
            near.roundTripMs = this.clock.now() - dialledAt;
            near.open();
            resolve(near);
          });
        });
      };
      if (signal?.aborted === true) onAbort();
      else {
        signal?.addEventListener('abort', onAbort, { once: true });
        this.deliver(host.name, target, arrive);
      }
    });
  }
}

/** One end. It owns the direction that it writes to: the queue, what is on the way, and what has arrived at the other end. */
class MemoryConnection implements Connection {
  readonly host: Host;
  readonly remoteHost: string;
  readonly remote: string;
  readonly binding: Uint8Array = NO_BINDING;
  handler: ConnectionHandler = IDLE_HANDLER;
  queuedBytes = 0;
  roundTripMs?: number;
  readonly #network: MemoryNetwork;
  readonly #onFree: (() => void) | null;
  #other: MemoryConnection | null = null;
  readonly #queue: Write[] = [];
  /** Bytes that have left here, and of which the other end has not said that it took them. */
  #window = 0;
  /** Bytes that were taken here, and of which the other end has not been told. */
  #taken = 0;
  /** Pieces at this end that wait to be read; null: the other side has ended. */
  readonly #arrived: (Uint8Array | null)[] = [];
  /** What is on the way, in order: each arrival is that of the oldest, so that no rounding of a clock can reorder them. */
  readonly #travelling: Travelling[] = [];
  #lastArrival = 0;
  #corks = 0;
  #pumpDue = false;
  /** Nothing is delivered before the process has the connection, or while it pauses. */
  #paused = true;
  #ending = false;
  #endSent = false;
  #endReceived = false;
  #closed = false;
  /** A piece was lost on the way: nothing that was sent after it arrives. */
  #broken = false;
  /** Is to be cut in the middle of a write. */
  #tears = false;

  constructor(network: MemoryNetwork, host: Host, remoteHost: Host, remote: string, onFree: (() => void) | null) {
    this.#network = network;
    this.host = host;
    this.remoteHost = remoteHost.name;
    this.remote = remote;
    this.#onFree = onFree;
  }

  join(other: MemoryConnection): void {
    this.#other = other;
    other.#other = this;
  }

  get closed(): boolean {
    return this.#closed;
  }

  /** The process has it now, and sets its handler in this turn. */
  open(): void {
    this.resume();
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
    this.host.clock.schedule(0, this.#read);
  }

  end(): void {
    this.#ending = true;
    this.#schedulePump();
  }

  destroy(reason?: Error): void {
    const other = this.#other;
    if (this.#closed) return;
    if (reason instanceof ProtocolError) this.#network.refused(this.host.name, this.remoteHost, reason);
    this.#close(reason);
    if (other === null) return;
    this.#network.deliver(this.host.name, other.host.name, () =>
      other.#close(new ConnectError(`The connection to ${other.remote} was reset.`)),
    );
  }

  /** Whether to cut the connection when the next piece that is not the last of its write has arrived. */
  tearNext(tears: boolean): void {
    this.#tears = tears;
  }

  /** The machine at this end is gone, and nobody tells the other end. */
  vanish(): void {
    this.#close();
  }

  #schedulePump(): void {
    if (this.#pumpDue) return;
    this.#pumpDue = true;
    this.host.clock.schedule(0, this.#onPumpDue);
  }

  readonly #onPumpDue = (): void => {
    this.#pumpDue = false;
    this.pump();
  };

  /** What was blocked may not be any more. */
  goOn(): void {
    this.#acknowledge();
    this.#schedulePump();
  }

  /** Sends what the window allows. */
  pump(): void {
    const other = this.#other;
    if (this.#closed || other === null || this.#corks > 0) return;
    if (!this.#network.reaches(this.host.name, other.host.name)) return;
    const weather = this.#network.weatherOf(this.host.name, other.host.name);
    const flushed: Write[] = [];
    for (let room = weather.windowBytes - this.#window; this.#queue.length > 0 && room > 0; ) {
      room -= this.#sendPiece(this.#queue[0]!, room, weather);
      if (isTaken(this.#queue[0]!)) flushed.push(this.#queue.shift()!);
    }
    if (this.#queue.length === 0 && this.#ending && !this.#endSent) {
      this.#endSent = true;
      this.#travel(0, weather, { bytes: null, fate: 'arrives' });
      if (this.#endReceived) this.#close();
    }
    for (const write of flushed) write.onFlushed?.();
    if (flushed.length > 0 && !this.#closed) this.handler.onFlushed?.();
  }

  /** @returns bytes sent */
  #sendPiece(write: Write, room: number, weather: Weather): number {
    const fromHead = write.taken < write.head.length;
    const source = fromHead ? write.head : (write.body ?? write.head);
    const start = fromHead ? write.taken : write.taken - write.head.length;
    const drawn = 1 + Math.floor(this.#network.random() * weather.maxPieceBytes);
    const end = Math.min(source.length, start + drawn, start + room);
    const length = end - start;
    write.taken += length;
    this.queuedBytes -= length;
    this.#window += length;
    if (length === 0) return 0;
    const isCut = this.#network.random() < weather.cutChance;
    const isTorn = this.#tears && !isTaken(write);
    const bytes = this.#network.copy(source.subarray(start, end));
    this.#travel(length, weather, { bytes, fate: isTorn ? 'torn' : isCut ? 'lost' : 'arrives' });
    return length;
  }

  /** So many bytes, sent now, arrive in their time: never before what was sent earlier. */
  #travel(bytes: number, weather: Weather, what: Travelling): void {
    const { clock } = this.#network;
    const drawn = weather.latencyMs + this.#network.random() * weather.jitterMs;
    this.#lastArrival = Math.max(this.#lastArrival, clock.now() + drawn) + bytes / weather.bytesPerMs;
    this.#travelling.push(what);
    clock.schedule(this.#lastArrival - clock.now(), this.#onTravelled);
  }

  /** The oldest that is on the way is there. */
  readonly #onTravelled = (): void => {
    const { bytes, fate } = this.#travelling.shift()!; // one was scheduled for each
    const other = this.#other!; // to which it was sent
    if (this.#broken && bytes !== null) return;
    if (fate !== 'lost') other.#arrive(bytes);
    if (fate === 'arrives') return;
    this.#broken = true;
    this.destroy(new ConnectError('The simulated link was cut.'));
  };

  #arrive(piece: Uint8Array | null): void {
    if (this.#closed) return;
    this.#arrived.push(piece);
    this.host.run(this.#read);
  }

  readonly #read = (): void => {
    while (!this.#closed && !this.#paused && this.#arrived.length > 0) {
      const piece = this.#arrived.shift()!;
      if (piece === null) {
        this.#endReceived = true;
        this.handler.onEnd();
        if (this.#endSent) this.#close();
        return;
      }
      this.handler.onData(piece);
      this.#taken += piece.length;
      this.#acknowledge();
    }
  };

  /** Tells the other end what was taken, so that it may send more. */
  #acknowledge(): void {
    const other = this.#other;
    if (other === null || this.#taken === 0 || !this.#network.reaches(this.host.name, other.host.name)) return;
    other.#window -= this.#taken;
    this.#taken = 0;
    if (other.#queue.length > 0) other.#schedulePump();
  }

  #close(error?: Error): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#network.forget(this);
    const dropped = this.#queue.splice(0);
    this.#arrived.length = 0;
    this.queuedBytes = 0;
    this.host.clock.schedule(0, () => {
      for (const { onFlushed } of dropped) onFlushed?.();
      this.#onFree?.();
      this.handler.onClose(error);
    });
  }
}

function isTaken({ head, body, taken }: Write): boolean {
  return taken === head.length + (body?.length ?? 0);
}

function memoryName(address: Address): string {
  if (address.kind !== 'memory') {
    throw new ConnectError(`A simulated network can't use an address of kind ${address.kind}.`);
  }
  return address.name;
}
