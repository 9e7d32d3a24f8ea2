/**
 * The states that this peer shares with the others, and its copies of them. What syncs and what makes snapshots is loaded when it is
 * first asked for: most groups share nothing, and pages should not have to load it.
 */
import type { PeerId } from '../collectives/call.ts';
import type { Disk, Keeper, Resumed } from '../snapshot/keeper.ts';
import type { Prefetched } from '../state/asks.ts';
import type { SharedState, StateMemory } from '../state/memory.ts';
import type { Agreed, Sharing, SharingCall, SharingPort } from '../state/sharing.ts';
import type { SyncReport } from '../state/sync.ts';

/** Where snapshots are on disk; there are none in a browser. */
export interface Folders {
  readonly disk: Disk;
  readonly resumed: Resumed | null;
}

/** What it needs of its group. */
interface Port {
  readonly self: PeerId;
  readonly run: string;
  readonly name: string;
  /** The engine is a thread of its own. */
  readonly isThread: boolean;
  readonly timeoutMs: number;
  readonly minWorldSize: number;
  readonly folders: Folders | null;
  /** Milliseconds, monotonic: the engine's. */
  readonly now: () => number;
  readonly ask: SharingPort['engine'];
  epoch(): number;
  members(): readonly { readonly peerId: PeerId }[];
  /** Everybody's bytes, by rank. */
  gather(
    bytes: Uint8Array,
    options: { readonly tag: string; readonly timeout: number; readonly minWorldSize: number },
  ): Promise<ReadonlyMap<PeerId, Uint8Array>>;
}

export class Keeping {
  readonly #port: Port;
  /** The shared state that this peer has joined with. */
  #joinedWith: StateMemory | null = null;
  #sharing: Promise<Sharing> | null = null;
  #keeper: Promise<Keeper> | null = null;

  constructor(port: Port) {
    this.#port = port;
  }

  /** The engine has looked after a state since before this peer was a member. */
  adopt(memory: StateMemory, prefetched: Prefetched | null): void {
    this.#joinedWith = memory;
    if (prefetched === null || prefetched.bytes === 0) return;
    memory.pull();
    if (prefetched.revision !== null) memory.state.revision = prefetched.revision;
  }

  async sync(state: SharedState, call: SharingCall): Promise<SyncReport> {
    this.#sharing ??= this.#openSharing();
    return (await this.#sharing).sync(state, call);
  }

  /** What the members agreed upon in the last sync of a state; undefined: there was none. */
  async agreed(tag: string): Promise<Agreed | undefined> {
    return (await this.#sharing)?.agreed(tag);
  }

  keeper(): Promise<Keeper> {
    this.#keeper ??= this.#openKeeper();
    return this.#keeper;
  }

  /** Waits for what is being written. @throws SnapshotError when it failed */
  async close(): Promise<void> {
    await (await this.#keeper)?.close();
  }

  async #openSharing(): Promise<Sharing> {
    const { Sharing } = await import('../state/sharing.ts');
    const { self, isThread, now, ask, gather } = this.#port;
    const port: SharingPort = {
      self,
      isThread,
      now,
      engine: ask,
      gather: (tag, row, timeout, minWorldSize) => gather(row, { tag: `skein.state:${tag}`, timeout, minWorldSize }),
    };
    return new Sharing(port, this.#joinedWith);
  }

  async #openKeeper(): Promise<Keeper> {
    const { Keeper } = await import('../snapshot/keeper.ts');
    const group = this.#port;
    const { run, name, self, isThread, timeoutMs, minWorldSize, folders } = group;
    return new Keeper({
      run,
      name,
      self,
      isThread,
      timeoutMs,
      disk: folders?.disk ?? null,
      resumed: folders?.resumed ?? null,
      engine: group.ask,
      gather: (bytes, timeout) => group.gather(bytes, { tag: 'skein.snapshot', timeout, minWorldSize }),
      get epoch() {
        return group.epoch();
      },
      get others() {
        return group
          .members()
          .map((member) => member.peerId)
          .filter((peerId) => peerId !== self);
      },
    });
  }
}
