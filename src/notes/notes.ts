/**
 * A peer's copy of the run's notes. Reading and writing are immediate; what is written is sent after a moment, and merged by the
 * coordinator with what others write. Whenever there is a connection to a coordinator again, perhaps to one that knows nothing,
 * each side tells the other what that lacks: the peers together remember, and what was written meanwhile on both sides is merged.
 *
 *     asking ──answer: what this peer lacks, and the coordinator's vector──▶ in step: writes are sent as they come
 *        ▲                                                                      │
 *        └────────────────────── coordinator lost, or messages left out ────────┘
 */
import { ArgumentError } from '../index.ts';
import {
  mergeUpdates,
  type NoteNumber,
  type NotePlace,
  NotesDocument,
  type NotesState,
  type NoteValue,
  readVector,
} from '../notes-document.ts';
import type { NotedMessage } from '../wire/coordinator-messages.ts';
import { MAX_NOTE_BYTES, MAX_NOTE_KEY_LENGTH, NOTES_ROOM_BYTES } from '../wire/limits.ts';
import type { NotesMessage } from '../wire/peer-messages.ts';

/** Between messages with what was written here (ms): half as many as a coordinator allows. */
const PACE_MS = 50;

const MAX_DEPTH = 32;

/** Of a document without anything. */
const EMPTY = new Uint8Array([0, 0]);

/** What stands for messages that were left out. */
const LEFT_OUT: NotedMessage = { edition: 0, fresh: false, vector: null, update: null };

/** A note that was written or deleted, here or elsewhere. */
export interface NoteChange extends NotePlace {
  /** undefined: it was deleted. */
  readonly value: NoteValue | undefined;
  /** It was written by another peer, or the coordinator deleted it. */
  readonly isRemote: boolean;
}

export interface NotesPort {
  /** null: a message was read. */
  send(message: NotesMessage | null): void;
  /** Milliseconds from now; returns what cancels it. */
  schedule(delayMs: number, task: () => void): () => void;
}

/** Notes of one author. */
export interface OwnNotes {
  /** What this peer has noted under a key; undefined: nothing. */
  get(key: string): NoteValue | undefined;
  /** @throws ArgumentError as `Notes.set` */
  set(key: string, value: NoteValue): void;
  /** Takes one of this peer's notes away. */
  delete(key: string): void;
}

function checkValue(value: unknown, depth = 0): void {
  if (depth > MAX_DEPTH) throw new ArgumentError(`A note may be ${MAX_DEPTH} deep at most.`);
  if (value === null || typeof value === 'boolean' || typeof value === 'string') return;
  if (typeof value === 'number' && Number.isFinite(value)) return;
  if (Array.isArray(value)) {
    for (const one of value) checkValue(one, depth + 1);
    return;
  }
  const prototype = typeof value === 'object' ? Object.getPrototypeOf(value) : undefined;
  if (prototype !== Object.prototype && prototype !== null)
    throw new ArgumentError(
      `A note is plain data: null, a boolean, a finite number, a string, or lists and plain objects of these; not ${String(value)}.`,
    );
  for (const one of Object.values(value as object)) checkValue(one, depth + 1);
}

function checkKey(key: string): void {
  if (typeof key !== 'string' || key === '' || key.length > MAX_NOTE_KEY_LENGTH)
    throw new ArgumentError(`The key of a note is a string of 1 to ${MAX_NOTE_KEY_LENGTH} characters.`);
}

interface Written {
  readonly place: NotePlace;
  readonly json: string;
  readonly number: NoteNumber;
  /** While there was no coordinator. */
  readonly isApart: boolean;
}

interface Waiter {
  readonly resolve: () => void;
  /** Answers on one connection that it waits for. */
  left: number;
  readonly of: number;
}

export class Notes {
  /** This peer's own notes: others see them, and they are gone when it is. */
  readonly own: OwnNotes;
  readonly #peerId: string;
  readonly #port: NotesPort;
  #document: NotesDocument;
  #edition = 0;
  /** What was last written here to each place that the coordinator may not have yet. */
  readonly #unsure: Map<string, Written> = new Map();
  /** This peer's own notes, as JSON. */
  readonly #mine: Map<string, string> = new Map();
  readonly #listeners: Set<(change: NoteChange) => void> = new Set();
  #inStep = false;
  #pending: Uint8Array[] = [];
  #cancel: (() => void) | null = null;
  #waiters: Waiter[] = [];
  /** Under way on this connection. */
  #questions = 0;
  /** As `NotesDesk` measures. */
  #size = 0;

  /** @internal use `openNotes()` */
  constructor(peerId: string, port: NotesPort) {
    this.#port = port;
    this.own = {
      get: (key) => this.#document.get({ peerId, key }),
      set: (key, value) => this.#mine.set(key, this.#set({ peerId, key }, value)),
      delete: (key) => {
        this.#mine.delete(key);
        this.#delete({ peerId, key });
      },
    };
    this.#peerId = peerId;
    this.#document = this.#makeDocument(EMPTY);
  }

  #makeDocument(content: Uint8Array): NotesDocument {
    const document = new NotesDocument();
    document.apply(content);
    document.onWritten((update) => this.#onWritten(update));
    document.onChange((place, isRemote) => this.#tell(place, isRemote));
    return document;
  }

  #tell(place: NotePlace, isRemote: boolean): void {
    const { peerId, key } = place;
    const value = this.#document.get(place);
    // A coordinator that was restarted may have taken this peer to be gone.
    if (isRemote && peerId === this.#peerId && value === undefined && this.#mine.has(key))
      queueMicrotask(() => this.#renew(place));
    for (const listener of [...this.#listeners]) listener({ ...place, value, isRemote });
  }

  #renew(place: NotePlace): void {
    const mine = this.#mine.get(place.key);
    if (mine !== undefined && this.#document.get(place) === undefined) this.#write(place, mine);
  }

  // --- reading and writing -----------------------------------------------------------------------------------------

  /** What all share under a key; undefined: nothing. */
  get(key: string): NoteValue | undefined {
    return this.#document.get({ peerId: null, key });
  }

  /**
   * Writes for all. Of what several write under one key at the same time, all see the same one in the end.
   *
   * @param value plain data, of at most 16 KiB as JSON
   * @throws ArgumentError when it is something else, or there would be more than 192 KiB of notes in the run
   */
  set(key: string, value: NoteValue): void {
    this.#set({ peerId: null, key }, value);
  }

  /** Takes what is shared under a key away, for all. */
  delete(key: string): void {
    this.#delete({ peerId: null, key });
  }

  /** Another peer's own notes; null where it has none. */
  of(peerId: string): Readonly<Record<string, NoteValue>> | null {
    const { own } = this.#document.state;
    return Object.hasOwn(own, peerId) ? own[peerId]! : null; // it has
  }

  /** All of it, as plain data. */
  toJSON(): NotesState {
    return this.#document.state;
  }

  /** `change`: a note was written or deleted, here or elsewhere. */
  on(_event: 'change', listener: (change: NoteChange) => void): this {
    this.#listeners.add(listener);
    return this;
  }

  /** Takes back an `on`. */
  off(_event: 'change', listener: (change: NoteChange) => void): this {
    this.#listeners.delete(listener);
    return this;
  }

  /**
   * Resolves when the coordinator has what was written here so far, and passes it on. While there is none, it waits for one; a peer that
   * has left waits in vain.
   */
  flush(): Promise<void> {
    // What the first answer shows to be missing is sent then, and has come when the second is there.
    return this.#answers(2);
  }

  /** Returns it as JSON. */
  #set(place: NotePlace, value: NoteValue): string {
    checkKey(place.key);
    checkValue(value);
    const json = JSON.stringify(value);
    const bytes = new TextEncoder().encode(json).length;
    if (bytes > MAX_NOTE_BYTES)
      throw new ArgumentError(`A note has at most ${MAX_NOTE_BYTES} bytes as JSON; this one has ${bytes}.`);
    if (this.#size + bytes > NOTES_ROOM_BYTES) this.#size = this.#document.size;
    if (this.#size + bytes > NOTES_ROOM_BYTES)
      throw new ArgumentError(
        `There are ${this.#size} bytes of notes in this run, and at most ${NOTES_ROOM_BYTES}: delete some, or write fewer.`,
      );
    this.#write(place, json);
    return json;
  }

  #delete(place: NotePlace): void {
    if (this.#document.get(place) !== undefined) this.#write(place, '');
  }

  #write(place: NotePlace, json: string): void {
    const number = this.#document.set(place, json);
    this.#unsure.set(JSON.stringify(place), { place, json, number, isApart: !this.#inStep });
  }

  // --- the coordinator ---------------------------------------------------------------------------------------------

  /** @internal There is a connection, perhaps to a coordinator that knows nothing. */
  onConnected(): void {
    for (const waiter of this.#waiters) waiter.left = waiter.of;
    this.#questions = 0;
    this.#ask();
  }

  /** @internal What is written now is sent when there is a connection again. */
  onLost(): void {
    this.#inStep = false;
    this.#pending = [];
  }

  /** @internal `message` null: some were left out */
  onMessage(message: NotedMessage | null): void {
    this.#port.send(null);
    const { edition, fresh, vector, update } = message ?? LEFT_OUT;
    if (fresh && edition > this.#edition) this.#replace(edition, vector, update ?? EMPTY);
    if (fresh || update === null) {
      // The next answer tells what is missing.
      this.onLost();
      this.onConnected();
      return;
    }
    this.#edition = edition;
    this.#size += update.length;
    this.#document.apply(update);
    if (vector === null) return;
    this.#questions -= 1;
    this.#forget(readVector(vector));
    const rest = this.#document.updateFor(vector);
    this.#pending = [];
    this.#inStep = true;
    if (rest !== null) this.#send(null, rest);
    for (const waiter of this.#waiters) {
      waiter.left -= 1;
      if (waiter.left === 0) waiter.resolve();
    }
    this.#waiters = this.#waiters.filter(({ left }) => left > 0);
    if (this.#waiters.length > 0 && this.#questions === 0) this.#ask();
  }

  #forget(isThere: (number: NoteNumber) => boolean): void {
    for (const [where, { number }] of this.#unsure) if (isThere(number)) this.#unsure.delete(where);
  }

  /** The coordinator has begun another edition. What was written here and is not in it is written again. */
  #replace(edition: number, vector: Uint8Array | null, update: Uint8Array): void {
    const before = new Map([...this.#document.entries()].map((entry) => [JSON.stringify(entry[0]), entry]));
    // One that missed an edition knows only of what it wrote apart that nobody has it.
    if (vector !== null && edition === this.#edition + 1) this.#forget(readVector(vector));
    else for (const [where, { isApart }] of this.#unsure) if (!isApart) this.#unsure.delete(where);
    const unsure = [...this.#unsure.values()];
    this.#unsure.clear();
    this.#edition = edition;
    this.#document.destroy();
    this.#document = this.#makeDocument(update);
    this.#size = this.#document.size;
    this.#inStep = false;
    for (const { place, json } of unsure) this.#write(place, json);
    for (const [place, json] of [...this.#document.entries()]) {
      const where = JSON.stringify(place);
      if (before.get(where)?.[1] !== json) this.#tell(place, true);
      before.delete(where);
    }
    for (const [place] of before.values()) this.#tell(place, true);
  }

  #send(vector: Uint8Array | null, update: Uint8Array | null): void {
    this.#port.send({ edition: this.#edition, vector, update });
  }

  #ask(): void {
    this.#questions += 1;
    this.#send(this.#document.vector, null);
  }

  /** @internal */
  opened(): Promise<void> {
    return this.#answers(1);
  }

  #answers(count: number): Promise<void> {
    return new Promise((resolve) => {
      // Questions that are under way may be answered without what was written since.
      this.#waiters.push({ resolve, left: count + this.#questions, of: count });
      if (this.#questions === 0) this.#ask();
    });
  }

  #onWritten(update: Uint8Array): void {
    this.#size += update.length;
    if (!this.#inStep) return;
    this.#pending.push(update);
    this.#cancel ??= this.#port.schedule(PACE_MS, () => {
      this.#cancel = null;
      const pending = this.#pending.splice(0);
      if (pending.length > 0) this.#send(null, mergeUpdates(pending));
    });
  }
}
