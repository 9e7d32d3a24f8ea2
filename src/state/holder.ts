/**
 * Answers what other peers ask of the states here. Pieces are copied out of the live memory when their turn comes: whoever asked
 * finds out by their hash whether they were torn. Two answers at most are on the way to a peer, the others wait as the asks that they are.
 *
 * Those who ask while a sync is under way are waited for, so they are answered at once. All others get what is left over: so many
 * bytes per second together, that the steps here go on as before.
 */
import type { FrameHeader } from '../wire/frame.ts';
import { STATE_PIECE_BYTES } from '../wire/limits.ts';
import { HASH_BYTES } from './digest.ts';
import { type Ask, answerFrame, MAX_ASKS, NOTHING, PIECES, readAsk, SUMMARY, TABLE, writeSummary } from './exchange.ts';
import { bytesOfPieces } from './layout.ts';
import type { StatePort } from './port.ts';
import type { Replica } from './replica.ts';
import { MAX_BATCH_PIECES } from './schedule.ts';

/** Answers on the way to one peer. */
const MAX_ANSWERS = 2;

/** What peers in no sync get of one holder, and how much of it at once (bytes per second, bytes). */
const LEISURE_BYTES_PER_SECOND: number = 24 * 1024 * 1024;
const LEISURE_BURST_BYTES: number = 2 * STATE_PIECE_BYTES;

export interface Held {
  readonly replica: Replica;
  /** A sync is under way. */
  isUrgent: boolean;
  /** Bytes of pieces that were sent, in all. */
  sent: number;
}

interface Queue {
  readonly asks: { readonly sequence: number; readonly ask: Ask }[];
  answers: number;
  /** Stops what waits for the next turn; null: nothing does. */
  cancel: (() => void) | null;
}

export class Holder {
  readonly #port: StatePort;
  /** By the name of the state with its shape. */
  readonly #held: Map<number, Held> = new Map();
  readonly #queues: Map<string, Queue> = new Map();
  /** Bytes that may be sent at leisure now, and when that was so. */
  #credit: number = LEISURE_BURST_BYTES;
  #creditAt = 0;

  constructor(port: StatePort) {
    this.#port = port;
  }

  hold(tag: number, held: Held): void {
    this.#held.set(tag, held);
  }

  drop(tag: number): void {
    this.#held.delete(tag);
  }

  /** @returns what is wrong with it, or null */
  onAsk(from: string, header: FrameHeader): string | null {
    const queue = this.#queues.get(from) ?? { asks: [], answers: 0, cancel: null };
    this.#queues.set(from, queue);
    if (queue.asks.length + queue.answers >= MAX_ASKS) return 'it asked for more than it may at once';
    queue.asks.push({ sequence: header.sequence, ask: readAsk(header) });
    this.#pump(from, queue);
    return null;
  }

  /** Nothing gets to a peer any more. */
  onLinkLost(peerId: string): void {
    const queue = this.#queues.get(peerId);
    queue?.asks.splice(0);
    queue?.cancel?.();
    if (queue?.answers === 0) this.#queues.delete(peerId);
  }

  /** There is more room, or more haste, than there was. */
  hurry(): void {
    for (const [peerId, queue] of this.#queues) this.#pump(peerId, queue);
  }

  close(): void {
    for (const peerId of [...this.#queues.keys()]) this.onLinkLost(peerId);
    this.#held.clear();
  }

  #pump(peerId: string, queue: Queue): void {
    queue.cancel?.();
    queue.cancel = null;
    for (let next = queue.asks[0]; next !== undefined && queue.answers < MAX_ANSWERS; next = queue.asks[0]) {
      const { sequence, ask } = next;
      const held = this.#held.get(ask.tag);
      const bytes = held === undefined ? -1 : answerBytes(held.replica, ask);
      const waitMs = held !== undefined && ask.kind === PIECES && bytes > 0 ? this.#spend(held, bytes) : 0;
      if (waitMs > 0) {
        queue.cancel = this.#port.schedule(waitMs, () => this.#pump(peerId, queue));
        return;
      }
      queue.asks.shift();
      queue.answers += 1;
      const onFlushed = () => {
        queue.answers -= 1;
        this.#pump(peerId, queue);
      };
      if (held === undefined || bytes < 0) {
        this.#port.send(peerId, answerFrame(sequence, { ...ask, kind: NOTHING }, 0), null, onFlushed);
        continue;
      }
      const buffer = this.#port.takeBuffer(bytes);
      fill(held.replica, ask, buffer);
      if (ask.kind === PIECES) held.sent += bytes;
      this.#port.send(peerId, answerFrame(sequence, ask, bytes), buffer, () => {
        this.#port.giveBuffer(buffer);
        onFlushed();
      });
    }
    if (queue.asks.length + queue.answers === 0) this.#queues.delete(peerId);
  }

  /** Takes so many bytes from what may be sent now. @returns how long to wait if that is not so much (ms) */
  #spend({ isUrgent }: Held, bytes: number): number {
    if (isUrgent || this.#port.isResting()) return 0;
    const now = this.#port.now();
    const more = ((now - this.#creditAt) * LEISURE_BYTES_PER_SECOND) / 1_000;
    this.#credit = Math.min(LEISURE_BURST_BYTES, this.#credit + more);
    this.#creditAt = now;
    if (this.#credit < bytes) return Math.ceil(((bytes - this.#credit) * 1_000) / LEISURE_BYTES_PER_SECOND);
    this.#credit -= bytes;
    return 0;
  }
}

/** Length of the whole table of a replica, as it is told (bytes). */
export function tableBytes({ layout }: Pick<Replica, 'layout'>): number {
  return 8 * layout.entries.length + HASH_BYTES * layout.pieces;
}

/** @returns −1 for what there is not */
function answerBytes(replica: Replica, { kind, first, count }: Ask): number {
  const { layout, hash } = replica;
  if (hash === null) return -1;
  if (kind === SUMMARY) return writeSummary({ revision: 0, hash, isSynced: false }).length;
  if (kind === TABLE) {
    const start = first * STATE_PIECE_BYTES;
    const all = tableBytes(replica);
    return start < all ? Math.min(STATE_PIECE_BYTES, all - start) : -1;
  }
  const isThere = kind === PIECES && count > 0 && count <= MAX_BATCH_PIECES && first + count <= layout.pieces;
  const bytes = isThere ? bytesOfPieces(layout, first, count) : -1;
  return bytes <= STATE_PIECE_BYTES ? bytes : -1;
}

/** @param ask of which `answerBytes` says that there is something */
function fill(replica: Replica, { kind, first, count }: Ask, into: Uint8Array): void {
  if (kind === PIECES) replica.read(first, count, into);
  else if (kind === SUMMARY) {
    const { revision, isSynced } = replica;
    into.set(writeSummary({ revision, hash: replica.hash!, isSynced })); // as there is an answer
  } else {
    const start = first * STATE_PIECE_BYTES;
    const revisions = new Uint8Array(replica.revisions.buffer);
    into.set(revisions.subarray(start, start + into.length));
    const rest = Math.max(0, start - revisions.length);
    const at = Math.min(into.length, Math.max(0, revisions.length - start));
    into.set(replica.table.subarray(rest, rest + into.length - at), at);
  }
}
