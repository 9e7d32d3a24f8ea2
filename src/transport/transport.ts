/**
 * How bytes move. A `Transport` opens `Connection`s: duplex, ordered, reliable byte streams. Everything above (frames,
 * stripes, handshakes) is written once, on this interface, and every transport passes the same conformance suite.
 */

/**
 * A place to dial. `tcp`, `tls`: host and port (IPv6 without brackets), in the clear or encrypted. `unix`: a socket's path.
 * `webrtc`: a peer, who is reached through signalling first. `ws`: a coordinator, through HTTP. `memory`: a name in a simulated network.
 */
export type Address =
  | { readonly kind: 'tcp'; readonly host: string; readonly port: number }
  | { readonly kind: 'tls'; readonly host: string; readonly port: number }
  | { readonly kind: 'unix'; readonly path: string }
  | { readonly kind: 'webrtc'; readonly peerId: string }
  | { readonly kind: 'ws'; readonly url: string }
  | { readonly kind: 'memory'; readonly name: string };

export interface ConnectionHandler {
  /** Bytes arrived. `bytes` is valid only during the call: it is a window on a buffer that the next read overwrites. */
  onData(bytes: Uint8Array): void;
  /** Bytes of a `write` have left, and its own `onFlushed` was called. */
  onFlushed?(): void;
  /** The other side has ended its direction, after everything it wrote was delivered. */
  onEnd(): void;
  /** The connection is gone, in both directions; called exactly once, last. `error` is absent after an orderly close. */
  onClose(error?: Error): void;
}

/** Of a connection that nobody has taken yet. */
export const IDLE_HANDLER: ConnectionHandler = { onData: () => {}, onEnd: () => {}, onClose: () => {} };
/** Of connections that nobody can stand in the middle of, or that are not protected against it. */
export const NO_BINDING: Uint8Array = new Uint8Array(0);

/** What an HTTP port tells of somebody who has come by it, to those who find out who it is. */
export interface Visit {
  /** What it is counted by as long as it has not shown who it is; null: it is not. */
  readonly origin: string | null;
  /** It has shown who it is: it may send as much as it likes. */
  trust(): void;
}

export interface Connection {
  /** For messages and logs, e.g. `tcp 127.0.0.1:7400`. */
  readonly remote: string;
  /**
   * What only the two ends of this very connection have in common (channel binding), where it is encrypted; otherwise empty. Proofs
   * cover it, so that they are worth nothing on any other connection.
   */
  readonly binding: Uint8Array;
  /** Of a WebSocket that was accepted. Browsers tell a page nothing of TLS: who comes so may do without the binding. */
  readonly visit?: Visit;
  /** Bytes accepted by `write` that have not left this process yet. */
  readonly queuedBytes: number;
  /** Its bytes go through a TURN server: now, if a direct path may still be found. */
  readonly relayed?: boolean;
  /** It looks for no direct path any more. */
  readonly relayOnly?: boolean;
  /** Of one that was dialled: until the other end's system answered (ms). That is a round trip, and what this process was late to notice. */
  readonly roundTripMs?: number;
  /** It is gone, or will be by the end of this turn. */
  readonly closed: boolean;
  /** Must be set in the same turn of the event loop in which the connection was handed over; nothing is delivered before that. */
  handler: ConnectionHandler;
  /**
   * Queues `head`, then `body`, in one system call where possible. The views must stay unchanged until `onFlushed` is called,
   * which happens once the kernel has taken all of it, or the connection is gone (exactly once, never synchronously).
   * Writing to a closed connection does nothing but call `onFlushed`.
   */
  write(head: Uint8Array, body: Uint8Array | null, onFlushed: (() => void) | null): void;
  /**
   * As `write`, but the bytes may wait until everything else that has arrived in this turn of the event loop was dealt with, to leave
   * together with what is written by then. Not every transport has it.
   */
  writeSoon?(bytes: Uint8Array): void;
  /** Writes from here to `uncork` leave together, in as few system calls as possible. Calls nest. */
  cork(): void;
  uncork(): void;
  /** Stops delivery (back-pressure reaches the sender through the kernel's buffers) until `resume`. Bytes of a read in progress may still come. */
  pause(): void;
  resume(): void;
  /** Half-close: everything written is delivered, then the peer sees `onEnd`. */
  end(): void;
  /**
   * Abrupt: drops what is queued. `onClose(reason)` follows; the other end sees a reset, or `onEnd` in the middle of
   * things, after which it must `end` too. May be called twice.
   */
  destroy(reason?: Error): void;
}

export interface DialOptions {
  /** Milliseconds until the attempt fails. */
  readonly timeoutMs: number;
  readonly signal?: AbortSignal;
  /**
   * Memory that reads go into, reused for every read (the hot path of bulk data: cache-hot, no allocation). The transport
   * may ignore it; then `onData` gets views on its own buffers.
   */
  readonly readBuffer?: Uint8Array;
  /**
   * `only`: by a TURN server, where the transport knows of one, as a direct path was looked for a moment ago, and not found.
   * `never`: no TURN server is asked from here; the other end may offer one of its own. @default where no direct path is found soon
   */
  readonly relay?: 'only' | 'never';
  /** Called once when the transport has no more use for `readBuffer`, also when the attempt fails. */
  readonly onReadBufferFree?: () => void;
}

export interface Listener {
  /** Where it can be dialled, with the port that was given. */
  readonly address: Address;
  /** Stops accepting; open connections stay. Resolves when the socket is gone. */
  close(): Promise<void>;
}

export interface Transport {
  readonly kind: Address['kind'];
  listen(address: Address, onConnection: (connection: Connection) => void): Promise<Listener>;
  /** @throws ConnectError when nobody answers, on time-out, or when `signal` aborts. */
  dial(address: Address, options: DialOptions): Promise<Connection>;
}
