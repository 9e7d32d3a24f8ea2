/**
 * Snapshots as a member of a group makes them. All members hold the shared state alike, so each freezes its own copy of it, and no byte
 * moves; what is a peer's own goes round the ring (`ring.ts`), and to a folder goes what was frozen, while the training goes on.
 */
import { ArgumentError, MismatchError } from '../errors.ts';
import type { Manifest } from '../state/manifest.ts';
import { type SharedState, StateMemory } from '../state/memory.ts';
import type { Agreed } from '../state/sharing.ts';
import { entriesOf, type Frozen, freeze, frozenOf, hashOf, thaw } from './contents.ts';
import { Ring, type RingPort } from './ring.ts';
import { type Snapshot, type SnapshotEntry, SnapshotError } from './snapshot.ts';

/** Options of `group.snapshot()`. */
export interface SnapshotOptions {
  /** The shared state's. @default '' */
  readonly tag?: string;
  /**
   * What is this peer's own (parameters that are not shared, what error feedback has kept, where in its data it is): the member after this one, round the
   * ring, keeps a copy. Its revision becomes that of the shared state. Needs a `name` in `join()`, by which it can be had again (`recall`).
   */
  readonly own?: SharedState;
  /** Folder to which it is written as well: for this peer alone. @default none: it is kept in memory only */
  readonly directory?: string | undefined;
  /** Snapshots that are kept in the folder. @default 2 */
  readonly keep?: number;
  /** Milliseconds. @default the group's */
  readonly timeout?: number;
}

/** What `group.snapshot()` has kept. */
export interface SnapshotReport {
  readonly revision: number;
  /** Of the shared state (hex): the same on all members. */
  readonly hash: string;
  /** Peer that keeps a copy of `own`; null: there is none. */
  readonly keptBy: string | null;
  /**
   * Path of the manifest, when all is on the disk; the training need not wait for it. Null without a `directory`. Where it fails, the next
   * `snapshot` and `leave` fail for the same reason.
   */
  readonly written: Promise<string> | null;
}

/** What was read when this peer joined. */
export interface Resumed {
  readonly directory: string;
  readonly revision: number;
  /** What was this peer's own. */
  readonly own: readonly SnapshotEntry[];
}

/** Writes to folders: there are none in a browser. */
export interface Disk {
  write(directory: string, snapshot: Snapshot, keep: number): Promise<string>;
  close(): Promise<void>;
}

export interface KeeperPort extends RingPort {
  readonly run: string;
  readonly epoch: number;
  /** Of the other members. */
  readonly others: readonly string[];
  /** The engine is a thread of its own. */
  readonly isThread: boolean;
  readonly timeoutMs: number;
  readonly disk: Disk | null;
  readonly resumed: Resumed | null;
}

/** What each member tells: revision (−1: its copy is not what was agreed upon), bytes of its offer, hash in hex. */
const ROW_BYTES = 44;

const DEFAULT_KEEP = 2;
const MAX_KEEP = 1_000;

export class Keeper {
  readonly #port: KeeperPort;
  readonly #ring: Ring;
  /** By the tag of the state. */
  readonly #frozen: Map<string, Frozen> = new Map();
  #own: { readonly memory: StateMemory; readonly frozen: Frozen } | null = null;
  /** The last write: its memory is not to be changed before it is over. */
  #writing: Promise<unknown> = Promise.resolve();
  #isBusy = false;

  constructor(port: KeeperPort) {
    this.#port = port;
    this.#ring = new Ring(port);
  }

  /** Waits for what is being written. @throws SnapshotError when it failed */
  async close(): Promise<void> {
    try {
      await this.#writing;
    } finally {
      await this.#port.disk?.close();
    }
  }

  async snapshot(agreed: Agreed, options: SnapshotOptions): Promise<SnapshotReport> {
    const { tag = '', own, directory, keep = DEFAULT_KEEP, timeout = this.#port.timeoutMs } = options;
    this.#check(agreed, own, directory, keep);
    if (this.#isBusy) throw new ArgumentError('A snapshot is being made: wait for it.');
    this.#isBusy = true;
    try {
      // The memory of the last one is used again.
      const failure: unknown = await this.#writing.then(() => null).catch((error: unknown) => error);
      this.#writing = Promise.resolve();
      const frozen = freeze(agreed.memory.state, agreed.memory, this.#frozen.get(tag) ?? null);
      const ownFrozen = own === undefined ? null : this.#freezeOwn(own, agreed.revision);
      this.#frozen.delete(tag); // until it is known to be what was agreed upon
      const manifest = await this.#port.engine({ type: 'manifest', tag });
      const isRight = manifest.hash === agreed.hash && (await hashOf(frozen)) === agreed.hash;
      if (isRight) this.#frozen.set(tag, frozen);
      const keptBy = await this.#agree(agreed, isRight, ownFrozen, timeout);
      if (failure !== null) throw failure;
      const written =
        directory === undefined ? null : this.#write(directory, keep, agreed, frozen, ownFrozen, manifest);
      return { revision: agreed.revision, hash: agreed.hash, keptBy, written };
    } finally {
      this.#isBusy = false;
    }
  }

  #check(agreed: Agreed, own: SharedState | undefined, directory: string | undefined, keep: number): void {
    const { name, disk } = this.#port;
    const { revision } = agreed.memory.state;
    if (revision !== agreed.revision)
      throw new ArgumentError(
        `The state has revision ${revision}, and was in step at revision ${agreed.revision}: make snapshots when a sync has just been (\`step.sync\` is not null), before the state is changed.`,
      );
    if (own !== undefined && name === '')
      throw new ArgumentError("What is this peer's own needs a `name` in join(): by that it can have it again.");
    if (directory !== undefined && disk === null)
      throw new ArgumentError('There are no folders in a browser: leave out `directory`.');
    if (!Number.isInteger(keep) || keep < 1 || keep > MAX_KEEP)
      throw new ArgumentError(`\`keep\` must be a whole number from 1 to ${MAX_KEEP}, not ${keep}.`);
  }

  #freezeOwn(own: SharedState, revision: number): Frozen {
    const old = this.#own;
    own.revision = revision;
    const memory = old?.memory.isOf(own) === true ? old.memory : new StateMemory(own, false);
    const frozen = freeze(own, memory, old?.frozen ?? null);
    this.#own = { memory, frozen };
    return frozen;
  }

  /**
   * All members make the same snapshot; whoever has something of its own gives it to the next one.
   *
   * @param isRight what was frozen is what was agreed upon; where it is not, the others must be told
   */
  async #agree(
    { revision, hash }: Agreed,
    isRight: boolean,
    own: Frozen | null,
    timeoutMs: number,
  ): Promise<string | null> {
    const offer = await this.#ring.offer(own);
    const rows = await this.#port.gather(writeRow(isRight ? revision : -1, offer.length, hash), timeoutMs);
    if (!isRight) {
      const text = `The state was changed since it was in step at revision ${revision}: make the snapshot first, await it, and change the state then.`;
      throw new SnapshotError(text);
    }
    let longest = 0;
    for (const [peerId, row] of rows) {
      const told = readRow(row);
      if (told.revision !== revision || told.hash !== hash) {
        const what =
          told.revision < 0 ? 'has changed its state since the last sync' : `makes one of revision ${told.revision}`;
        const text = `There is no snapshot of revision ${revision}: ${peerId} ${what}. All members make theirs after the same sync.`;
        throw new MismatchError(text, { peer: peerId });
      }
      longest = Math.max(longest, told.offerBytes);
    }
    if (longest === 0) return null;
    const padded = new Uint8Array(longest);
    padded.set(offer);
    return this.#ring.exchange(await this.#port.gather(padded, timeoutMs), timeoutMs);
  }

  #write(
    directory: string,
    keep: number,
    { revision, hash }: Agreed,
    frozen: Frozen,
    own: Frozen | null,
    manifest: Manifest,
  ): Promise<string> {
    const { run, epoch, disk } = this.#port;
    const revisions = manifest.entries.map((entry) => entry.revision);
    const shared = entriesOf(frozen, revisions);
    const snapshot = { run, epoch, revision, hash, shared, own: own === null ? [] : entriesOf(own) };
    const written = disk!.write(directory, snapshot, keep); // checked before
    this.#writing = written;
    written.catch(() => {}); // the next snapshot tells, if nobody waits for it
    return written;
  }

  /** Puts the last snapshot back. @returns its revision */
  restore(tag: string, state: SharedState): number {
    const frozen = this.#frozen.get(tag);
    if (frozen === undefined) throw new SnapshotError('This peer has made no snapshot that could be restored.');
    thaw(state, frozen, 'The snapshot');
    return frozen.revision;
  }

  /** @returns null where nobody keeps anything, nor the folder from which this peer resumed */
  async recall(
    own: SharedState,
    timeoutMs: number,
  ): Promise<{ readonly revision: number; readonly from: string } | null> {
    const { name, isThread, others, resumed } = this.#port;
    if (name === '') throw new ArgumentError('What is kept is known by the `name` in join(), and this peer has none.');
    const memory = new StateMemory(own, isThread);
    memory.push();
    const { shapes, memory: bytes } = memory.spec('');
    const kept = await this.#ring.recall(shapes, bytes, others, timeoutMs);
    const stored = resumed !== null && resumed.own.length > 0 ? resumed : null;
    if (stored !== null && stored.revision > (kept?.revision ?? 0)) {
      thaw(own, frozenOf(stored.own, stored.revision), `What is this peer's own in ${stored.directory}`);
      return { revision: stored.revision, from: stored.directory };
    }
    if (kept === null) return null;
    memory.pull();
    own.revision = kept.revision;
    return kept;
  }
}

function writeRow(revision: number, offerBytes: number, hash: string): Uint8Array {
  const row = new Uint8Array(ROW_BYTES);
  const view = new DataView(row.buffer);
  view.setFloat64(0, revision, true);
  view.setUint32(8, offerBytes, true);
  row.set(new TextEncoder().encode(hash), 12);
  return row;
}

function readRow(row: Uint8Array): { readonly revision: number; readonly offerBytes: number; readonly hash: string } {
  const view = new DataView(row.buffer, row.byteOffset);
  const hash = new TextDecoder().decode(row.slice(12));
  return { revision: view.getFloat64(0, true), offerBytes: view.getUint32(8, true), hash };
}
