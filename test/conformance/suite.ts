/**
 * What every transport promises, as one suite. It talks to `Transport` alone; what it needs to know of a particular one is
 * in `TransportUnderTest`.
 */
import { afterEach, beforeEach, describe, expect, type TestContext, test } from 'vitest';
import { ConnectError } from '../../src/errors.ts';
import type { Address, Connection, DialOptions, Listener, Transport } from '../../src/transport/transport.ts';

export interface TransportUnderTest {
  readonly transport: Transport;
  /** An address to listen on; the listener tells where it can be dialled. */
  address(): Address;
  /** An address where nobody listens. */
  nobody(): Address;
  /** Operating-system resources (or their like) that are held now. */
  resources(): number;
}

const DEADLINE_MS = 20_000;

/** Both ends of a connection, with what each has seen. */
interface Pair {
  readonly near: End;
  readonly far: End;
}

/** One end: counts and checks what arrives. */
class End {
  readonly connection: Connection;
  readonly events: string[] = [];
  received = 0;
  /** Of a stream made by `pattern(seed, …)`; null: contents are not looked at. */
  expects: number | null = null;
  wrong: string | null = null;
  closeError: Error | undefined;
  readonly #waiters: { readonly condition: () => boolean; readonly resolve: () => void }[] = [];

  constructor(connection: Connection) {
    this.connection = connection;
    connection.handler = {
      onData: (bytes) => {
        this.#check(bytes);
        this.received += bytes.length;
        this.#changed();
      },
      onEnd: () => {
        this.events.push('end');
        this.#changed();
      },
      onClose: (error) => {
        this.events.push('close');
        this.closeError = error;
        this.#changed();
      },
    };
  }

  #check(bytes: Uint8Array): void {
    if (this.events.length > 0) this.wrong ??= `${bytes.length} bytes after ${this.events.join(', ')}`;
    if (this.expects === null || this.wrong !== null) return;
    const expected = patternAt(this.expects, this.received, bytes.length);
    if (Buffer.compare(bytes, expected) === 0) return;
    const index = bytes.findIndex((byte, at) => byte !== expected[at]);
    this.wrong = `byte ${this.received + index} is wrong`;
  }

  get ended(): boolean {
    return this.events.includes('end');
  }

  get closed(): boolean {
    return this.events.includes('close');
  }

  #changed(): void {
    for (const waiter of [...this.#waiters]) {
      if (!waiter.condition()) continue;
      this.#waiters.splice(this.#waiters.indexOf(waiter), 1);
      waiter.resolve();
    }
  }

  /** Resolves when `condition` holds after something happened at this end. */
  until(what: string, condition: () => boolean): Promise<void> {
    return within(
      what,
      new Promise((resolve) => {
        if (condition()) resolve();
        else this.#waiters.push({ condition, resolve });
      }),
    );
  }
}

function within<T>(what: string, promise: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout;
  const deadline = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: not within ${DEADLINE_MS} ms`)), DEADLINE_MS);
  });
  return Promise.race([promise, deadline]).finally(() => clearTimeout(timer));
}

/** The longest stream of the suite. */
const LONGEST = 24_000_000;

/** What all streams are cut from, each from where its seed says: to make every byte anew would take longer than to carry it. */
const PATTERN = new Uint8Array(LONGEST + 1_000);
for (let at = 0; at < PATTERN.length; at++) PATTERN[at] = Math.imul(at, 0x9e3779b1) >>> 21;

/** Not to be written to. */
function patternAt(seed: number, start: number, length: number): Uint8Array {
  return PATTERN.subarray(seed + start, seed + start + length);
}

function pattern(seed: number, start: number, length: number): Uint8Array {
  return patternAt(seed, start, length).slice();
}

const pause = (ms: number): Promise<void> => new Promise((resolve) => void setTimeout(resolve, ms));

const EMPTY = new Uint8Array(0);
const NOBODY_LISTENS = () => {};

/** @param requires skips or fails a test where the machine lacks what the transport needs */
export function describeTransport(
  name: string,
  open: () => Promise<TransportUnderTest> | TransportUnderTest,
  requires: (context: TestContext) => void = () => {},
): void {
  describe(`transport ${name}`, () => {
    const listeners: Listener[] = [];
    const connections: Connection[] = [];

    beforeEach((context) => requires(context));

    afterEach(async () => {
      for (const connection of connections.splice(0)) connection.destroy();
      await Promise.all(listeners.splice(0).map((listener) => listener.close()));
    });

    async function listen(
      under: TransportUnderTest,
      onConnection: (connection: Connection) => void = NOBODY_LISTENS,
    ): Promise<Listener> {
      const listener = await under.transport.listen(under.address(), (connection) => {
        connections.push(connection);
        onConnection(connection);
      });
      listeners.push(listener);
      return listener;
    }

    async function dial(
      under: TransportUnderTest,
      address: Address,
      options?: Partial<DialOptions>,
    ): Promise<Connection> {
      const connection = await under.transport.dial(address, { timeoutMs: DEADLINE_MS, ...options });
      connections.push(connection);
      return connection;
    }

    async function pair(under: TransportUnderTest, options?: Partial<DialOptions>): Promise<Pair> {
      let accepted: (end: End) => void;
      const far = new Promise<End>((resolve) => {
        accepted = resolve;
      });
      const listener = await listen(under, (connection) => accepted(new End(connection)));
      const near = new End(await dial(under, listener.address, options));
      return { near, far: await within('the connection is accepted', far) };
    }

    /** Writes a stream in pieces of changing size, at most `ahead` bytes before they are flushed. */
    async function stream(connection: Connection, seed: number, total: number): Promise<void> {
      let flushed = 0;
      let expected = 0;
      let written = 0;
      for (let round = 0; written < total; round++) {
        const size = Math.min(total - written, 1 + ((round * 7_919) % 150_000));
        const bytes = pattern(seed, written, size);
        const head = bytes.subarray(0, Math.min(size, round % 41));
        const body = bytes.subarray(head.length);
        expected += 1;
        await within(
          `write ${round} is flushed`,
          new Promise<void>((resolve) => {
            connection.write(head, round % 5 === 0 && head.length === size ? null : body, () => {
              flushed += 1;
              // The transport has no more use for the memory: the next owner may fill it with anything.
              bytes.fill(0xee);
              resolve();
            });
          }),
        );
        written += size;
      }
      expect(flushed).toBe(expected);
    }

    for (const readBuffer of [undefined, new Uint8Array(48 * 1024)]) {
      const how = readBuffer === undefined ? '' : ' into a given buffer';

      test(`delivers both directions in order and intact under load${how}`, async () => {
        const under = await open();
        const { near, far } = await pair(under, readBuffer === undefined ? {} : { readBuffer });
        const total = 6_000_000;
        near.expects = 11;
        far.expects = 77;
        await Promise.all([stream(near.connection, 77, total), stream(far.connection, 11, total)]);
        await Promise.all([
          near.until('everything arrives', () => near.received === total),
          far.until('everything arrives', () => far.received === total),
        ]);
        expect([near.wrong, far.wrong]).toEqual([null, null]);
        expect(near.connection.queuedBytes + far.connection.queuedBytes).toBe(0);
      });

      test(`holds the writer back while the reader pauses${how}, and loses nothing`, async () => {
        const under = await open();
        const { near, far } = await pair(under, readBuffer === undefined ? {} : { readBuffer });
        near.expects = 3;
        near.connection.pause();
        const total = LONGEST;
        const piece = pattern(3, 0, total);
        let flushed = 0;
        const step = 100_000;
        for (let at = 0; at < total; at += step) {
          far.connection.write(piece.subarray(at, at + step), null, () => {
            flushed += 1;
          });
        }
        // Long enough for anything that would leak through to do so.
        await pause(150);
        const taken = near.received;
        expect(taken).toBeLessThan(total / 4);
        expect(far.connection.queuedBytes).toBeGreaterThan(total / 4);
        expect(flushed).toBeLessThan((total / step) * 0.75);
        await pause(50);
        expect(near.received).toBe(taken);
        near.connection.resume();
        await near.until('everything arrives', () => near.received === total);
        expect(near.wrong).toBeNull();
        for (let wait = 0; flushed < total / step && wait < 100; wait++) await pause(10);
        expect(flushed).toBe(total / step);
        expect(far.connection.queuedBytes).toBe(0);
      });

      test(`half-closes: the other direction goes on${how}`, async () => {
        const under = await open();
        const { near, far } = await pair(under, readBuffer === undefined ? {} : { readBuffer });
        far.expects = 5;
        near.expects = 6;
        near.connection.write(pattern(5, 0, 1_000_000), null, null);
        near.connection.end();
        await far.until('the end is seen', () => far.ended);
        expect(far.received).toBe(1_000_000);
        expect(far.closed).toBe(false);
        far.connection.write(pattern(6, 0, 2_000_000), null, null);
        far.connection.end();
        await Promise.all([near.until('it closes', () => near.closed), far.until('it closes', () => far.closed)]);
        expect(near.received).toBe(2_000_000);
        for (const end of [near, far]) {
          expect(end.wrong).toBeNull();
          expect(end.events).toEqual(['end', 'close']);
          expect(end.closeError).toBeUndefined();
        }
      });
    }

    test('delivers nothing before the handler is set, and everything after', async () => {
      const under = await open();
      let accepted: (connection: Connection) => void = NOBODY_LISTENS;
      const arrival = new Promise<Connection>((resolve) => {
        accepted = resolve;
      });
      const listener = await listen(under, (connection) => {
        connection.pause();
        accepted(connection);
      });
      const near = await dial(under, listener.address);
      near.write(pattern(9, 0, 5_000), null, null);
      const connection = await within('the connection is accepted', arrival);
      await pause(30);
      const far = new End(connection);
      far.expects = 9;
      connection.resume();
      await far.until('everything arrives', () => far.received === 5_000);
      expect(far.wrong).toBeNull();
    });

    test('sends what is written between cork and uncork after the last uncork', async () => {
      const under = await open();
      const { near, far } = await pair(under);
      far.expects = 4;
      near.connection.cork();
      near.connection.cork();
      near.connection.write(pattern(4, 0, 100), null, null);
      near.connection.uncork();
      near.connection.write(pattern(4, 100, 50), pattern(4, 150, 850), null);
      await pause(30);
      expect(far.received).toBe(0);
      near.connection.uncork();
      await far.until('everything arrives', () => far.received === 1_000);
      expect(far.wrong).toBeNull();
    });

    test('resets: both ends close once, and every write is given back once', async () => {
      const under = await open();
      const { near, far } = await pair(under);
      far.connection.pause();
      const flushes = new Array<number>(200).fill(0);
      for (let index = 0; index < flushes.length; index++) {
        near.connection.write(pattern(1, 0, 40), pattern(1, 0, 100_000), () => {
          flushes[index]! += 1;
        });
      }
      const reason = new Error('enough');
      near.connection.destroy(reason);
      near.connection.destroy();
      await near.until('it closes, although nobody reads', () => near.closed);
      far.connection.resume();
      await far.until('the other end sees it', () => far.ended || far.closed);
      far.connection.end();
      await far.until('the other end closes', () => far.closed);
      expect(far.received).toBeLessThan(200 * 100_040);
      await pause(30);
      expect(near.closeError).toBe(reason);
      expect(near.events).toEqual(['close']);
      expect(far.events.filter((event) => event === 'close')).toHaveLength(1);
      expect(far.events.at(-1)).toBe('close');
      expect(flushes.every((count) => count === 1)).toBe(true);
    });

    test('gives back what is written to a closed connection, not in the same turn', async () => {
      const under = await open();
      const { near } = await pair(under);
      near.connection.destroy();
      await near.until('it closes', () => near.closed);
      let flushed = 0;
      near.connection.write(pattern(1, 0, 10), EMPTY, () => {
        flushed += 1;
      });
      expect(flushed).toBe(0);
      await pause(10);
      expect(flushed).toBe(1);
      expect(near.connection.queuedBytes).toBe(0);
    });

    test('fails to dial where nobody listens', async () => {
      const under = await open();
      let freed = 0;
      const readBuffer = new Uint8Array(1024);
      const onReadBufferFree = () => {
        freed += 1;
      };
      const attempt = dial(under, under.nobody(), { readBuffer, onReadBufferFree });
      await expect(within('dialling fails', attempt)).rejects.toThrow(ConnectError);
      await pause(10);
      expect(freed).toBe(1);
    });

    test('stops dialling when it is cancelled', async () => {
      const under = await open();
      const listener = await listen(under);
      await expect(dial(under, listener.address, { signal: AbortSignal.abort() })).rejects.toThrow(/cancelled/);
      const controller = new AbortController();
      const attempt = dial(under, listener.address, { signal: controller.signal });
      controller.abort();
      await expect(within('dialling ends', attempt)).rejects.toThrow(/cancelled/);
    });

    test('refuses addresses of another kind', async () => {
      const under = await open();
      const foreign: Address =
        under.transport.kind === 'tcp' ? { kind: 'memory', name: 'x' } : { kind: 'tcp', host: '127.0.0.1', port: 1 };
      await expect(under.transport.dial(foreign, { timeoutMs: 100 })).rejects.toThrow(ConnectError);
      await expect(under.transport.listen(foreign, NOBODY_LISTENS)).rejects.toThrow(ConnectError);
    });

    test('refuses to listen twice on one address', async () => {
      const under = await open();
      const listener = await listen(under);
      await expect(under.transport.listen(listener.address, NOBODY_LISTENS)).rejects.toThrow(ConnectError);
    });

    test('a listener that closes lets open connections live, and takes no new ones', async () => {
      const under = await open();
      const { near, far } = await pair(under);
      const [listener] = listeners;
      // A server's close is complete only when its connections are gone, so it is not awaited here.
      void listener!.close();
      await pause(20);
      await expect(dial(under, listener!.address)).rejects.toThrow(ConnectError);
      far.expects = 2;
      near.connection.write(pattern(2, 0, 1_000), null, null);
      await far.until('bytes still arrive', () => far.received === 1_000);
    });

    test('opens and closes 1,000 connections and leaks nothing', async () => {
      const under = await open();
      const before = under.resources();
      let accepted = 0;
      let closed = 0;
      let freed = 0;
      const listener = await listen(under, (connection) => {
        accepted += 1;
        connection.handler = {
          onData: (bytes) => connection.write(bytes.slice(), null, null),
          onEnd: () => connection.end(),
          onClose: () => {
            closed += 1;
          },
        };
      });
      const one = async (index: number) => {
        const readBuffer = new Uint8Array(64);
        const onReadBufferFree = () => {
          freed += 1;
        };
        const end = new End(await dial(under, listener.address, { readBuffer, onReadBufferFree }));
        end.connection.write(pattern(index, 0, 100), null, null);
        end.expects = index;
        await end.until('the echo arrives', () => end.received === 100);
        expect(end.wrong).toBeNull();
        if (index % 2 === 0) end.connection.end();
        else end.connection.destroy();
        await end.until('it closes', () => end.closed);
      };
      for (let batch = 0; batch < 20; batch++) {
        await Promise.all(Array.from({ length: 50 }, (_, index) => one(batch * 50 + index)));
      }
      for (let wait = 0; closed < 1_000 && wait < 200; wait++) await pause(10);
      expect([accepted, closed, freed]).toEqual([1_000, 1_000, 1_000]);
      await listener.close();
      await pause(10);
      expect(under.resources()).toBeLessThanOrEqual(before);
    });
  });
}
