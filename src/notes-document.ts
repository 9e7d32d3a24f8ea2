/**
 * What a run notes down, as a document that merges: two maps of a Yjs document, one that all share, and one with each peer's own under
 * `<peer>\0<key>`. Values are JSON in strings, so that whatever else somebody puts there is told apart and taken for nothing.
 */
import * as Y from 'yjs';
import { MAX_NOTE_BYTES, MAX_NOTE_KEY_LENGTH } from './wire/limits.ts';

/** What a note may be: plain data. */
export type NoteValue = null | boolean | number | string | readonly NoteValue[] | { readonly [key: string]: NoteValue };

/** All notes of a run. */
export interface NotesState {
  readonly shared: Readonly<Record<string, NoteValue>>;
  /** By peer. */
  readonly own: Readonly<Record<string, Readonly<Record<string, NoteValue>>>>;
}

/** Which note: of a peer, or shared (null). */
export interface NotePlace {
  readonly peerId: string | null;
  readonly key: string;
}

/** Of something written: the how manieth by whom. */
export interface NoteNumber {
  readonly client: number;
  readonly clock: number;
}

/** An update that says nothing. */
const EMPTY_BYTES = 2;

/** Roots of the document; one that has others is none of ours. */
const ROOTS = 2;

function placeOf(text: string): NotePlace | null {
  const at = text.indexOf('\0');
  return at < 0 ? null : { peerId: text.slice(0, at), key: text.slice(at + 1) };
}

function textOf({ peerId, key }: NotePlace): string {
  return peerId === null ? key : `${peerId}\0${key}`;
}

/** undefined: it is no note. */
function parseNote(text: unknown): NoteValue | undefined {
  if (typeof text !== 'string' || text.length > MAX_NOTE_BYTES) return undefined;
  try {
    return JSON.parse(text) as NoteValue; // what JSON can say
  } catch {
    return undefined;
  }
}

function isNote(key: string, value: unknown): boolean {
  return key.length > 0 && key.length <= MAX_NOTE_KEY_LENGTH && parseNote(value) !== undefined;
}

export class NotesDocument {
  readonly #doc: Y.Doc = new Y.Doc();
  readonly #shared: Y.Map<unknown> = this.#doc.getMap('shared');
  readonly #own: Y.Map<unknown> = this.#doc.getMap('own');

  #mapOf({ peerId }: NotePlace): Y.Map<unknown> {
    return peerId === null ? this.#shared : this.#own;
  }

  get(place: NotePlace): NoteValue | undefined {
    return parseNote(this.#mapOf(place).get(textOf(place)));
  }

  /**
   * @param json of the value; nothing deletes it: what is not JSON is no note, and unlike a deletion it has a number
   * @returns the number
   */
  set(place: NotePlace, json: string): NoteNumber {
    this.#mapOf(place).set(textOf(place), json);
    const { store, clientID } = this.#doc;
    return { client: clientID, clock: Y.getState(store, clientID) - 1 };
  }

  /** Deletes all of peers that are not among these, and what is no note. */
  sweep(peers: ReadonlySet<string>): void {
    this.#doc.transact(() => {
      for (const [key, value] of this.#shared) if (!isNote(key, value)) this.#shared.delete(key);
      for (const [text, value] of this.#own) {
        const place = placeOf(text);
        if (place === null || !peers.has(place.peerId!) || !isNote(place.key, value)) this.#own.delete(text); // own ones have a peer
      }
    });
  }

  /** All notes, as JSON. */
  *entries(): Generator<readonly [NotePlace, string]> {
    for (const map of [this.#shared, this.#own]) {
      for (const [text, json] of map) {
        const place = map === this.#shared ? { peerId: null, key: text } : placeOf(text);
        if (place !== null && isNote(place.key, json)) yield [place, json as string]; // a note is one
      }
    }
  }

  get state(): NotesState {
    const shared: Record<string, NoteValue> = {};
    const own: Record<string, Record<string, NoteValue>> = {};
    const put = (record: Record<string, unknown>, key: string, value: unknown) =>
      // Also one that is called as something that all objects have.
      Object.defineProperty(record, key, { value, enumerable: true, configurable: true, writable: true });
    for (const [{ peerId, key }, json] of this.entries()) {
      if (peerId !== null && !Object.hasOwn(own, peerId)) put(own, peerId, {});
      put(peerId === null ? shared : own[peerId]!, key, parseNote(json)); // made above
    }
    return { shared, own };
  }

  /** Tells of each change: where, and whether it came with an update. */
  onChange(listener: (place: NotePlace, isRemote: boolean) => void): void {
    for (const map of [this.#shared, this.#own]) {
      map.observe(({ keysChanged, transaction }) => {
        for (const key of keysChanged) {
          if (key === null) continue; // of a list, which a map is not
          const place = map === this.#shared ? { peerId: null, key } : placeOf(key);
          if (place !== null) listener(place, !transaction.local);
        }
      });
    }
  }

  /** Hands out what was written here, for the others. */
  onWritten(listener: (update: Uint8Array) => void): void {
    this.#doc.on('update', (update: Uint8Array, _origin: unknown, _doc: unknown, transaction: Y.Transaction) => {
      if (transaction.local) listener(update);
    });
  }

  /** What this document has: updates that another one lacks are told apart by it. */
  get vector(): Uint8Array {
    return Y.encodeStateVector(this.#doc);
  }

  /**
   * What a document lacks that has this vector; of no vector, everything. null: nothing.
   *
   * @throws Error when it is no vector
   */
  updateFor(vector: Uint8Array | null): Uint8Array | null {
    const update = Y.encodeStateAsUpdate(this.#doc, vector ?? undefined);
    return update.length <= EMPTY_BYTES ? null : update;
  }

  /** Bytes of all of it. */
  get size(): number {
    return Y.encodeStateAsUpdate(this.#doc).length;
  }

  /**
   * Merges an update.
   *
   * @throws Error when it is none; the document may be half-way changed then
   */
  apply(update: Uint8Array): void {
    Y.applyUpdate(this.#doc, update);
  }

  /** It has parts that belong to others which are not there, or is not of our making. */
  get isStrange(): boolean {
    const { store, share } = this.#doc;
    return store.pendingStructs !== null || store.pendingDs !== null || share.size > ROOTS;
  }

  destroy(): void {
    this.#doc.destroy();
  }
}

/** One update of several. */
export function mergeUpdates(updates: readonly Uint8Array[]): Uint8Array {
  return updates.length === 1 ? updates[0]! : Y.mergeUpdates([...updates]); // there is one
}

/** Tells of what somebody has written whether it is in a document of this vector. */
export function readVector(vector: Uint8Array): (number: NoteNumber) => boolean {
  const clocks = Y.decodeStateVector(vector);
  return ({ client, clock }) => clock < (clocks.get(client) ?? 0);
}
