/** Fetches what a replica lacks from those who hold it: from several at once, each piece checked by its hash. */
import { hashTag } from '../wire/frame.ts';
import { STATE_PIECE_BYTES } from '../wire/limits.ts';
import type { Asker } from './asker.ts';
import {
  PIECES,
  readSummary,
  SPARE_PIECES,
  SUMMARY,
  SUMMARY_BYTES,
  type Summary,
  SYNC_SUMMARY,
  TABLE,
} from './exchange.ts';
import type { Hasher } from './hash.ts';
import { tableBytes } from './holder.ts';
import { placeOf, wireName } from './layout.ts';
import type { StatePort } from './port.ts';
import { checkTarget, type Replica, type Target } from './replica.ts';
import { type Batch, makeBatches, Schedule } from './schedule.ts';

/** Asks that one source has at once. */
const WINDOW = 4;

/** How often a source may give a wrong piece in a sync: then it is asked no more. */
const MAX_WRONG = 3;

/** How long a summary is awaited, and how long a table before the next source is asked for it as well (ms). */
const SUMMARY_MS = 2_000;
const HESITATION_MS = 1_000;

/** Between looks for what is late (ms). */
const LOOK_MS = 250;

export interface FetchOptions {
  readonly tag: string;
  readonly sources: readonly string[];
  /** When to end in any case. */
  readonly until: number;
  /**
   * The sources hold the target and stand still. Otherwise they go on: what they have changed since does not come in this
   * pass, and that is nobody's fault.
   */
  readonly isStill: boolean;
  /** What comes is of use still. What comes later may be of an older revision than what is there by then. */
  isWanted(): boolean;
  onBytes(source: string, bytes: number): void;
}

export class Fetcher {
  readonly #port: StatePort;
  readonly #asker: Asker;
  readonly #hasher: Hasher;

  constructor(port: StatePort, asker: Asker, hasher: Hasher) {
    this.#port = port;
    this.#asker = asker;
    this.#hasher = hasher;
  }

  /**
   * What a peer holds of a state; null when it can't be asked, or holds none of this shape.
   *
   * @param inSync what it brings into a sync, which may not have begun yet
   */
  async summary(replica: Replica, tag: string, peerId: string, inSync: boolean): Promise<Summary | null> {
    const name = hashTag(wireName(tag, replica.shape));
    const ask = { kind: inSync ? SYNC_SUMMARY : SUMMARY, tag: name, first: 0, count: 0 };
    const answer = await this.#asker.ask(peerId, ask, SUMMARY_BYTES, SUMMARY_MS);
    if (answer === null) return null;
    const summary = readSummary(answer);
    this.#port.giveBuffer(answer);
    return summary;
  }

  /**
   * The hashes of all pieces of a state whose hash is known, from the first source that tells the right ones; null: none does in time. One
   * is asked after the other, the next when the one before is late.
   */
  target(
    replica: Replica,
    tag: string,
    known: Pick<Target, 'revision' | 'hash'>,
    sources: readonly string[],
    until: number,
  ): Promise<Target | null> {
    return new Promise((resolve) => {
      let next = 0;
      let open = 0;
      let isOver = false;
      const end = (target: Target | null) => {
        isOver = true;
        stopTimer();
        resolve(target);
      };
      const askNext = () => {
        const source = sources[next];
        if (isOver || source === undefined) return;
        next += 1;
        open += 1;
        const stop = this.#port.schedule(HESITATION_MS, askNext);
        void this.#targetOf(replica, tag, known, source).then((target) => {
          stop();
          open -= 1;
          if (isOver) return;
          if (target !== null || (open === 0 && next >= sources.length)) end(target);
          else askNext();
        });
      };
      const stopTimer = this.#port.schedule(Math.max(0, until - this.#port.now()), () => end(null));
      if (sources.length === 0) end(null);
      askNext();
    });
  }

  async #targetOf(
    replica: Replica,
    tag: string,
    { revision, hash }: Pick<Target, 'revision' | 'hash'>,
    source: string,
  ): Promise<Target | null> {
    const told = await this.#table(replica, tag, source);
    if (told === null) return null;
    const entries = replica.layout.entries.length;
    const revisions = new Float64Array(told.buffer, 0, entries);
    const target = { revision, hash, table: told.subarray(8 * entries), revisions };
    return checkTarget(replica.layout, target, this.#hasher) === null ? target : null;
  }

  async #table(replica: Replica, tag: string, source: string): Promise<Uint8Array | null> {
    const name = hashTag(wireName(tag, replica.shape));
    const told = new Uint8Array(tableBytes(replica));
    for (let page = 0; page * STATE_PIECE_BYTES < told.length; page++) {
      const start = page * STATE_PIECE_BYTES;
      const bytes = Math.min(STATE_PIECE_BYTES, told.length - start);
      const answer = await this.#asker.ask(source, { kind: TABLE, tag: name, first: page, count: 0 }, bytes);
      if (answer === null) return null;
      told.set(answer, start);
      this.#port.giveBuffer(answer);
    }
    return told;
  }

  /** @returns whether all that was missing has come */
  pieces(replica: Replica, target: Target, options: FetchOptions): Promise<boolean> {
    const { sources, until } = options;
    const schedule = new Schedule(makeBatches(replica.layout, replica.lacks(target)), sources);
    return new Promise((resolve) => {
      let isOver = false;
      const wake: (() => void)[] = [];
      let stopTimer = () => {};
      const look = () => {
        stopTimer();
        isOver ||= schedule.isDone || schedule.isStuck || this.#port.now() >= until || !options.isWanted();
        for (const one of wake.splice(0)) one();
        if (isOver) resolve(schedule.isDone);
        else stopTimer = this.#port.schedule(LOOK_MS, look);
      };
      const around = {
        isOver: () => isOver,
        changed: look,
        change: () => new Promise<void>((woken) => void wake.push(woken)),
      };
      // Each source gets its first ask before any gets its second.
      for (let turn = 0; turn < WINDOW; turn++)
        for (const source of sources) void this.#work(replica, target, source, schedule, options, around);
      look();
    });
  }

  async #work(
    replica: Replica,
    target: Target,
    source: string,
    schedule: Schedule,
    { tag, isStill, isWanted: isAnyWanted, onBytes }: FetchOptions,
    around: { isOver(): boolean; changed(): void; change(): Promise<void> },
  ): Promise<void> {
    const name = hashTag(wireName(tag, replica.shape));
    let wrong = 0;
    while (!around.isOver() && schedule.has(source)) {
      const batch = schedule.take(source, this.#port.now());
      if (batch === null) {
        await around.change();
        continue;
      }
      const { first, count, bytes } = batch;
      const answer = await this.#asker.ask(
        source,
        { kind: isStill ? PIECES : SPARE_PIECES, tag: name, first, count },
        bytes,
      );
      if (answer === null) {
        schedule.drop(source);
      } else {
        onBytes(source, bytes);
        // What comes after the end must not get to its place: it may be another revision's by now.
        const isWanted = !around.isOver() && isAnyWanted() && schedule.onCame(batch);
        const rest = isWanted ? this.#take(replica, target, batch, answer) : [];
        if (!isWanted) this.#port.giveBuffer(answer);
        if (isStill && rest.length > 0) {
          wrong += 1;
          schedule.add(makeBatches(replica.layout, rest));
          if (wrong >= MAX_WRONG) schedule.drop(source);
        }
      }
      around.changed();
    }
  }

  /** @returns the pieces that are not what they should be */
  #take(replica: Replica, target: Target, { first, count }: Batch, answer: Uint8Array): number[] {
    const wrong: number[] = [];
    let at = 0;
    let isKept = false;
    for (let piece = first; piece < first + count; piece++) {
      const { bytes } = placeOf(replica.layout, piece);
      const came = answer.subarray(at, at + bytes);
      at += bytes;
      if (!replica.isOf(target, piece, came)) wrong.push(piece);
      else if (replica.put(target, piece, came)) isKept = true;
    }
    if (!isKept) this.#port.giveBuffer(answer);
    return wrong;
  }
}
