/**
 * Answers what other peers ask of the states here. Pieces are copied out of the live memory when their turn comes: whoever asked
 * finds out by their hash whether they were torn. Two answers at most are on the way to a peer, the others wait as the asks that they are.
 *
 * Those who ask for a sync that is under way are waited for, so they are answered at once. All others get what the steps here can spare.
 */
import type { FrameHeader } from '../wire/frame.ts';
import { STATE_PIECE_BYTES } from '../wire/limits.ts';
import { HASH_BYTES } from './digest.ts';
import {
  type Ask,
  answerFrame,
  MAX_ASKS,
  NOTHING,
  PIECES,
  readAsk,
  SPARE_PIECES,
  SUMMARY,
  SYNC_SUMMARY,
  TABLE,
  writeSummary,
} from './exchange.ts';
import { bytesOfPieces } from './layout.ts';
import type { Leisure } from './leisure.ts';
import type { StatePort } from './port.ts';
import type { Replica } from './replica.ts';
import { MAX_BATCH_PIECES } from './schedule.ts';

/** Answers on the way to one peer. */
const MAX_ANSWERS = 2;

/** Members wait for one another at every boundary; when they have done so for longer, there is no step that could be slowed down (ms). */
const REST_MS = 1_000;

export interface Held {
  readonly replica: Replica;
  /** For whom no sync waits. */
  readonly leisure: Leisure;
  /** A sync is under way. */
  isUrgent: boolean;
  /** Bytes of pieces that were sent, in all. */
  sent: number;
}

interface Request {
  readonly sequence: number;
  readonly ask: Ask;
}

interface Queue {
  readonly asks: Request[];
  /** What is to be told in a sync that has not begun. */
  awaiting: Request[];
  answers: number;
  /** Stops what waits for the next turn; null: nothing does. */
  cancel: (() => void) | null;
}

export class Holder {
  readonly #port: StatePort;
  /** By the name of the state with its shape. */
  readonly #held: Map<number, Held> = new Map();
  readonly #queues: Map<string, Queue> = new Map();

  /** Since when no step has been under way, as far as is known; null: one is. */
  #restingSince: number | null = null;

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
    const queue = this.#queues.get(from) ?? { asks: [], awaiting: [], answers: 0, cancel: null };
    this.#queues.set(from, queue);
    if (openAsks(queue) >= MAX_ASKS) return 'it asked for more than it may at once';
    const request = { sequence: header.sequence, ask: readAsk(header) };
    if (this.#isEarly(request)) queue.awaiting.push(request);
    else enqueue(queue.asks, request);
    this.#pump(from, queue);
    return null;
  }

  #isEarly({ ask }: Request): boolean {
    return ask.kind === SYNC_SUMMARY && this.#held.get(ask.tag)?.isUrgent === false;
  }

  /** Somebody waits for what the sync that has begun brings. */
  isAwaited({ name }: { readonly name: number }): boolean {
    return [...this.#queues.values()].some(({ awaiting }) => awaiting.some(({ ask }) => ask.tag === name));
  }

  /** Nothing gets to a peer any more. */
  onLinkLost(peerId: string): void {
    const queue = this.#queues.get(peerId);
    queue?.asks.splice(0);
    queue?.awaiting.splice(0);
    queue?.cancel?.();
    if (queue?.answers === 0) this.#queues.delete(peerId);
  }

  /** There is more room, or more haste, than there was. */
  hurry(): void {
    for (const [peerId, queue] of this.#queues) {
      for (const request of queue.awaiting) if (!this.#isEarly(request)) enqueue(queue.asks, request);
      queue.awaiting = queue.awaiting.filter((request) => this.#isEarly(request));
      this.#pump(peerId, queue);
    }
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
      const waitMs = held !== undefined && isOfPieces(ask) && bytes > 0 ? this.#waitFor(held, ask, bytes) : 0;
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
      if (isOfPieces(ask)) held.sent += bytes;
      this.#port.send(peerId, answerFrame(sequence, ask, bytes), buffer, () => {
        this.#port.giveBuffer(buffer);
        onFlushed();
      });
    }
    if (openAsks(queue) === 0) this.#queues.delete(peerId);
  }

  /** @returns how long to wait until so many bytes may be sent (ms) */
  #waitFor({ isUrgent, leisure }: Held, { kind }: Ask, bytes: number): number {
    const now = this.#port.now();
    this.#restingSince = this.#port.isResting() ? (this.#restingSince ?? now) : null;
    const isResting = this.#restingSince !== null && now - this.#restingSince >= REST_MS;
    return isResting || (isUrgent && kind === PIECES) ? 0 : leisure.spend(bytes, now);
  }
}

/** What may have to wait must not keep what may not. */
function enqueue(asks: Request[], request: Request): void {
  const spare = request.ask.kind === SPARE_PIECES ? -1 : asks.findIndex(({ ask }) => ask.kind === SPARE_PIECES);
  if (spare < 0) asks.push(request);
  else asks.splice(spare, 0, request);
}

function isOfPieces({ kind }: Ask): boolean {
  return kind === PIECES || kind === SPARE_PIECES;
}

function openAsks({ asks, awaiting, answers }: Queue): number {
  return asks.length + awaiting.length + answers;
}

/** Length of the whole table of a replica, as it is told (bytes). */
export function tableBytes({ layout }: Pick<Replica, 'layout'>): number {
  return 8 * layout.entries.length + HASH_BYTES * layout.pieces;
}

/** @returns −1 for what there is not */
function answerBytes(replica: Replica, ask: Ask): number {
  const { kind, first, count } = ask;
  const { layout, hash } = replica;
  if (hash === null) return -1;
  if (kind === SUMMARY || kind === SYNC_SUMMARY) return writeSummary({ revision: 0, hash, isSynced: false }).length;
  if (kind === TABLE) {
    const start = first * STATE_PIECE_BYTES;
    const all = tableBytes(replica);
    return start < all ? Math.min(STATE_PIECE_BYTES, all - start) : -1;
  }
  const isThere = isOfPieces(ask) && count > 0 && count <= MAX_BATCH_PIECES && first + count <= layout.pieces;
  const bytes = isThere ? bytesOfPieces(layout, first, count) : -1;
  return bytes <= STATE_PIECE_BYTES ? bytes : -1;
}

/** @param ask of which `answerBytes` says that there is something */
function fill(replica: Replica, ask: Ask, into: Uint8Array): void {
  const { kind, first, count } = ask;
  if (isOfPieces(ask)) replica.read(first, count, into);
  else if (kind === SUMMARY || kind === SYNC_SUMMARY) {
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
