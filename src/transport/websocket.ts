/**
 * Control connections through HTTP, for browsers, which can open no other socket. A WebSocket is a channel of messages like one
 * of WebRTC, so it becomes a byte stream in the same way (`channel-connection.ts`), with credit instead of pausing. What is here is
 * written for the standard's interface, which a browser and the package `ws` have in common.
 */
import { ConnectError } from '../errors.ts';
import { ChannelConnection } from './channel-connection.ts';
import type { Clock } from './clock.ts';
import { BUFFERED_LOW_BYTES, type RtcChannel, type RtcChannelHandler } from './rtc.ts';
import { type Connection, type DialOptions, NO_BINDING, type Visit } from './transport.ts';

/** Bytes of a message: a server refuses longer ones before it has read them. */
export const MAX_WEBSOCKET_MESSAGE_BYTES: number = 64 * 1024;

/** Between looks at `bufferedAmount`: a WebSocket does not tell when it has fallen (ms). */
const LOOK_MS = 5;

const OPEN = 1;

/** What we use of a WebSocket. */
export interface WebSocketLike {
  binaryType: string;
  readonly bufferedAmount: number;
  readonly readyState: number;
  send(message: Uint8Array<ArrayBuffer> | string): void;
  close(): void;
  /** Closes without a farewell; a browser has no such thing. */
  terminate?(): void;
  addEventListener(type: 'open' | 'close' | 'error', listener: (event: object) => void): void;
  addEventListener(type: 'message', listener: (event: { readonly data: unknown }) => void): void;
}

class SocketChannel implements RtcChannel {
  readonly maxMessageSize: number = MAX_WEBSOCKET_MESSAGE_BYTES;
  handler: RtcChannelHandler;
  readonly #socket: WebSocketLike;
  readonly #clock: Clock;
  #stopLooking: (() => void) | null = null;
  #closed = false;

  constructor(socket: WebSocketLike, clock: Clock, handler: RtcChannelHandler) {
    this.#socket = socket;
    this.#clock = clock;
    this.handler = handler;
    socket.binaryType = 'arraybuffer';
    socket.addEventListener('open', () => {
      if (!this.#closed) this.handler.onOpen();
    });
    socket.addEventListener('message', ({ data }) => {
      if (this.#closed) return;
      if (typeof data === 'string') this.handler.onMessage(data);
      else if (data instanceof ArrayBuffer) this.handler.onMessage(new Uint8Array(data));
    });
    // Why it failed a browser tells nobody; `close` follows.
    socket.addEventListener('error', () => {});
    socket.addEventListener('close', () => this.#lose());
  }

  get bufferedAmount(): number {
    return this.#closed ? 0 : this.#socket.bufferedAmount;
  }

  send(message: Uint8Array | string): void {
    if (this.#closed || this.#socket.readyState !== OPEN) return;
    // A copy: `ws` keeps what it was given until it is sent, and browsers refuse shared memory.
    this.#socket.send(typeof message === 'string' ? message : message.slice());
    if (this.#stopLooking === null && this.#socket.bufferedAmount > BUFFERED_LOW_BYTES) this.#look();
  }

  #look(): void {
    this.#stopLooking = this.#clock.schedule(LOOK_MS, () => {
      this.#stopLooking = null;
      if (this.#socket.bufferedAmount > BUFFERED_LOW_BYTES) this.#look();
      else this.handler.onBufferedAmountLow();
    });
  }

  /** Closes it, and tells nobody here. */
  close(): void {
    if (this.#closed) return;
    this.#forget();
    if (this.#socket.terminate !== undefined) this.#socket.terminate();
    else this.#socket.close();
  }

  #lose(): void {
    if (this.#closed) return;
    this.#forget();
    this.handler.onClose();
  }

  #forget(): void {
    this.#closed = true;
    this.#stopLooking?.();
  }
}

const IDLE: RtcChannelHandler = {
  onOpen: () => {},
  onMessage: () => {},
  onBufferedAmountLow: () => {},
  onClose: () => {},
};

interface SocketEnd {
  readonly remote: string;
  /** Of the TLS below it, where it is known to both ends: where that ends at a proxy, or is a browser's, it is not. */
  readonly binding: Uint8Array;
  readonly visit?: Visit;
}

function connectionOver(channel: SocketChannel, end: SocketEnd, clock: Clock, dialled: boolean): Connection {
  const session = { path: null, close: () => channel.close() };
  return new ChannelConnection({ ...end, session, channel, clock, dialled, relayOnly: false });
}

/** The server's end of a WebSocket that is open. */
export function acceptWebSocket(socket: WebSocketLike, end: SocketEnd, clock: Clock): Connection {
  return connectionOver(new SocketChannel(socket, clock, IDLE), end, clock, false);
}

/**
 * The other end.
 *
 * @param open makes the WebSocket
 * @param bindingOf of an open one (`Connection.binding`)
 * @throws ConnectError when nobody answers, on time-out, or when the signal aborts
 */
export function dialWebSocket(
  open: (url: string) => WebSocketLike,
  url: string,
  { timeoutMs, signal }: DialOptions,
  clock: Clock,
  bindingOf: () => Uint8Array = () => NO_BINDING,
): Promise<Connection> {
  const remote = url.replace(/\/$/, '');
  return new Promise((resolve, reject) => {
    const fail = (message: string, cause?: unknown) => {
      settle();
      channel?.close();
      reject(new ConnectError(message, { cause, phase: 'dial' }));
    };
    const onAbort = () => fail(`Dialling ${remote} was cancelled.`, signal?.reason);
    const stopTimer = clock.schedule(timeoutMs, () => fail(`${remote} did not answer within ${timeoutMs} ms.`));
    const settle = () => {
      stopTimer();
      signal?.removeEventListener('abort', onAbort);
    };
    let channel: SocketChannel | null = null;
    if (signal?.aborted === true) {
      onAbort();
      return;
    }
    signal?.addEventListener('abort', onAbort, { once: true });
    const handler: RtcChannelHandler = {
      ...IDLE,
      onOpen: () => {
        settle();
        resolve(connectionOver(opened, { remote, binding: bindingOf() }, clock, true));
      },
      onClose: () => fail(`Nobody could be reached at ${remote}, or nobody who speaks WebSocket.`),
    };
    let socket: WebSocketLike;
    try {
      socket = open(url);
    } catch (cause) {
      fail(`${remote} can't be dialled from here: ${cause instanceof Error ? cause.message : cause}.`, cause);
      return;
    }
    const opened = new SocketChannel(socket, clock, handler);
    channel = opened;
  });
}
