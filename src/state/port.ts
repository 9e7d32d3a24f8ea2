/** What shared state needs of its engine. */
export interface StatePort {
  /** Milliseconds, monotonic. */
  now(): number;
  /** Runs `task` once, after `delayMs`; returns what cancels it. */
  schedule(delayMs: number, task: () => void): () => void;
  /** Frames can be sent to a peer. */
  isUp(peerId: string): boolean;
  /** What is computed here takes processors from a peer. */
  sharesHost(peerId: string): boolean;
  /** Sends a frame; what is queued is lost if the link is. The views stay unchanged until `onFlushed`, which is called in any case. */
  send(peerId: string, head: Uint8Array, body: Uint8Array | null, onFlushed: (() => void) | null): void;
  /** No step is under way here that could be slowed down. */
  isResting(): boolean;
  /** Memory for an answer. */
  takeBuffer(byteLength: number): Uint8Array;
  giveBuffer(buffer: Uint8Array): void;
}
