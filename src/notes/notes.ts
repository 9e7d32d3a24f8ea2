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
import { mergeUpdates, type NotePlace, NotesDocument, type NotesState, type NoteValue } from '../notes-document.ts';
import { MAX_NOTE_BYTES, MAX_NOTE_KEY_LENGTH, NOTES_ROOM_BYTES } from '../wire/limits.ts';
import type { NotesMessage } from '../wire/messages.ts';

/** Between messages with what was written here (ms): half as many as a coordinator allows. */
export const PACE_MS = 50;

const MAX_DEPTH = 32;

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
  get(key: string): NoteValue | undefined;
  /** @throws ArgumentError as `Notes.set` */
  set(key: string, value: NoteValue): void;
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

interface Waiter {
  readonly resolve: () => void;
  /** Answers on one connection that it waits for. */
  left: number;
  readonly of: number;
}

export class Notes {
  /** This peer's own notes: others see them, and they are gone when it is. */
  readonly own: OwnNotes;
  readonly #port: NotesPort;
  readonly #document: NotesDocument = new NotesDocument();
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
        this.#document.delete({ peerId, key });
      },
    };
    this.#document.onWritten((update) => this.#onWritten(update));
    this.#document.onChange((place, isRemote) => {
      // A coordinator that was restarted may have taken this peer to be gone.
      const mine = place.peerId === peerId && isRemote ? this.#mine.get(place.key) : undefined;
      if (mine !== undefined && !this.#document.has(place))
        queueMicrotask(() => {
          if (this.#mine.get(place.key) === mine) this.#document.set(place, mine);
        });
      if (this.#listeners.size === 0) return;
      const change = { ...place, value: this.#document.get(place), isRemote };
      for (const listener of [...this.#listeners]) listener(change);
    });
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

  delete(key: string): void {
    this.#document.delete({ peerId: null, key });
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
    this.#document.set(place, json);
    return json;
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

  /** @internal */
  onMessage({ vector, update }: NotesMessage): void {
    this.#port.send(null);
    if (update === null) {
      this.onLost();
      this.onConnected();
      return;
    }
    this.#size += update.length;
    this.#document.apply(update);
    if (vector === null) return;
    this.#questions -= 1;
    const rest = this.#document.updateFor(vector);
    this.#pending = [];
    this.#inStep = true;
    if (rest !== null) this.#port.send({ vector: null, update: rest });
    for (const waiter of this.#waiters) {
      waiter.left -= 1;
      if (waiter.left === 0) waiter.resolve();
    }
    this.#waiters = this.#waiters.filter(({ left }) => left > 0);
    if (this.#waiters.length > 0 && this.#questions === 0) this.#ask();
  }

  #ask(): void {
    this.#questions += 1;
    this.#port.send({ vector: this.#document.vector, update: null });
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
      if (pending.length > 0) this.#port.send({ vector: null, update: mergeUpdates(pending) });
    });
  }
}
