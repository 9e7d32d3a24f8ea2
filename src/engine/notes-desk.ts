/**
 * Where a coordinator merges what the peers of a run note down, and passes it on. It believes none of them: an update that is too long,
 * too frequent, no update, or that builds on what its sender never told is undone, and its sender is cut off.
 */
import type { PeerId } from '../membership/events.ts';
import { mergeUpdates, NotesDocument, type NotesState } from '../notes-document.ts';
import type { CoordinatorMessage, NotedMessage } from '../wire/coordinator-messages.ts';
import { MAX_NOTES_BYTES, NOTES_BURST, NOTES_PER_SECOND } from '../wire/limits.ts';
import type { NotesMessage } from '../wire/peer-messages.ts';

/** What it needs of a run. */
interface Around {
  /** All peers of the run; null while the run is not rebuilt yet, and nobody knows. */
  peers(): readonly PeerId[] | null;
  send(peerId: PeerId, message: CoordinatorMessage): void;
  /** Ends a peer's connection. */
  refuse(peerId: PeerId, reason: string): void;
}

/** Between looks for peers that are gone (ms). */
const SWEEP_MS = 1_000;

/** Updates that are kept one by one, so that the next can be undone. */
const MAX_UPDATES = 64;

const COMPACT_BYTES: number = MAX_NOTES_BYTES / 4;

/** What a note costs beside its key and value, about. */
const NOTE_OVERHEAD_BYTES = 40;

/** All of a document of which nothing is missing. */
const NOTHING = new Uint8Array([0, 0]);

interface Reader {
  /** So many messages it may send now. */
  left: number;
  at: number;
}

export class NotesDesk {
  readonly #around: Around;
  readonly #compactBytes: number;
  #document: NotesDocument;
  /** null: none is known; the first peer that comes tells. */
  #edition: number | null = null;
  /** Its content is that of these, the oldest first. */
  #updates: Uint8Array[] = [];
  /** Bytes of the document when it was last measured, and of what came since. */
  #size = 0;
  /** Peers that have asked for what is noted, on the connections that they have. */
  readonly #readers: Map<PeerId, Reader> = new Map();
  /** To be passed on with the next tick. */
  #news: { readonly from: PeerId | null; readonly update: Uint8Array }[] = [];
  #sweptAt = Number.NEGATIVE_INFINITY;

  /** @param compactBytes a document that is longer is written anew when less than half of it is notes */
  constructor(around: Around, compactBytes: number = COMPACT_BYTES) {
    this.#around = around;
    this.#compactBytes = compactBytes;
    this.#document = this.#make();
  }

  #make(): NotesDocument {
    const document = new NotesDocument();
    document.onWritten((update) => {
      this.#updates.push(update);
      this.#news.push({ from: null, update });
    });
    return document;
  }

  /** Bytes of all that it keeps, about. */
  get size(): number {
    return this.#size;
  }

  get state(): NotesState {
    return this.#document.state;
  }

  /** A peer's connection is gone: it will ask again on the next one. */
  left(peerId: PeerId): void {
    this.#readers.delete(peerId);
  }

  onMessage(from: PeerId, { edition, vector, update }: NotesMessage, now: number): void {
    const reader = this.#readers.get(from) ?? { left: NOTES_BURST, at: now };
    reader.left = Math.min(NOTES_BURST, reader.left + ((now - reader.at) * NOTES_PER_SECOND) / 1_000) - 1;
    reader.at = now;
    if (reader.left < 0) {
      this.#refuse(from, 'it sends notes more often than the protocol allows');
      return;
    }
    // What was on its way from an earlier connection may build on what only that coordinator knew.
    if (vector === null && !this.#readers.has(from)) return;
    this.#edition ??= edition;
    if (edition < this.#edition) {
      // What it has is of a document that was given up: it must write again what that did not have.
      this.#tell();
      this.#readers.set(from, reader);
      this.#around.send(from, this.#fresh(null));
      return;
    }
    this.#edition = edition; // of the same coordinator's run, before it died
    if (update !== null && !this.#merge(from, update)) return;
    if (vector === null) return;
    this.#tell();
    this.#readers.set(from, reader);
    const answer = this.#updateFor(vector);
    if (answer === undefined) this.#refuse(from, 'it asked for notes with what is no vector');
    else this.#around.send(from, this.#noted({ vector: this.#document.vector, update: answer ?? NOTHING }));
  }

  #noted(rest: Pick<NotedMessage, 'vector' | 'update'>): CoordinatorMessage {
    return { type: 'noted', edition: this.#edition ?? 0, fresh: false, ...rest };
  }

  /** The whole document; `vector`: what it has of the edition before, if that is known. */
  #fresh(vector: Uint8Array | null): CoordinatorMessage {
    const update = this.#document.updateFor(null) ?? NOTHING;
    return { type: 'noted', edition: this.#edition ?? 0, fresh: true, vector, update };
  }

  #updateFor(vector: Uint8Array): Uint8Array | null | undefined {
    try {
      return this.#document.updateFor(vector);
    } catch {
      return undefined;
    }
  }

  /** Whether it is part of the document now. */
  #merge(from: PeerId, update: Uint8Array): boolean {
    const wrong = this.#wrongWith(update);
    if (wrong !== null) {
      this.#rebuild();
      this.#refuse(from, wrong);
      return false;
    }
    this.#updates.push(update);
    if (this.#updates.length > MAX_UPDATES) this.#updates = [this.#document.updateFor(null) ?? update];
    this.#news.push({ from, update });
    return true;
  }

  #wrongWith(update: Uint8Array): string | null {
    try {
      this.#document.apply(update);
    } catch (error) {
      return `its notes can't be merged: ${error}`;
    }
    if (this.#document.isStrange) return 'its notes build on what it has not told';
    this.#size += update.length;
    if (this.#size > MAX_NOTES_BYTES) this.#size = this.#document.size;
    return this.#size > MAX_NOTES_BYTES ? `with its notes there are more than ${MAX_NOTES_BYTES} bytes of them` : null;
  }

  /** As it was before the last update. */
  #rebuild(): void {
    this.#document.destroy();
    this.#document = this.#make();
    for (const update of this.#updates) this.#document.apply(update);
    this.#size = this.#document.size;
  }

  #refuse(peerId: PeerId, reason: string): void {
    this.#readers.delete(peerId);
    this.#around.refuse(peerId, reason);
  }

  /** To be called every few dozen milliseconds. */
  tick(now: number): void {
    if (now - this.#sweptAt >= SWEEP_MS) {
      this.#sweptAt = now;
      const peers = this.#around.peers();
      if (peers !== null) this.#document.sweep(new Set(peers));
      this.#tell();
      if (this.#size > this.#compactBytes) this.#compact();
    }
    this.#tell();
  }

  /**
   * A key that is written over or deleted leaves a trace for ever. So a document of which most is traces gives way to another, with what is
   * noted and nothing else.
   */
  #compact(): void {
    this.#size = this.#document.size;
    const notes = [...this.#document.entries()];
    const bytes = notes.reduce((sum, [{ peerId, key }, json]) => {
      return sum + json.length + key.length + (peerId?.length ?? 0) + NOTE_OVERHEAD_BYTES;
    }, 0);
    if (this.#size <= this.#compactBytes || this.#size < 2 * bytes) return;
    const { vector } = this.#document;
    const next = new NotesDocument();
    for (const [place, json] of notes) next.set(place, json);
    this.#updates = [next.updateFor(null) ?? NOTHING];
    this.#edition = (this.#edition ?? 0) + 1;
    this.#rebuild();
    const message = this.#fresh(vector);
    for (const peerId of this.#readers.keys()) this.#around.send(peerId, message);
  }

  /** Passes on what has come since the last time: all of it in one message, to all but its only author. */
  #tell(): void {
    const news = this.#news.splice(0);
    if (news.length === 0) return;
    const [author] = new Set(news.map(({ from }) => from));
    const isOnly = news.every(({ from }) => from === author);
    const message = this.#noted({ vector: null, update: mergeUpdates(news.map(({ update }) => update)) });
    for (const peerId of this.#readers.keys()) if (!isOnly || peerId !== author) this.#around.send(peerId, message);
  }
}
