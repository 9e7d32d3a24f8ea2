/** The shared states of one group, on the training thread. */
import { ArgumentError } from '../errors.ts';
import { checkRevision, type SharedState, StateMemory } from './memory.ts';
import { type SyncCall, type SyncPort, type SyncReport, synchronise } from './sync.ts';

export interface SharingPort extends Omit<SyncPort, 'gather'> {
  /** The engine is a thread of its own, which sees shared memory only. */
  readonly isThread: boolean;
  /** As `SyncPort.gather`, for the state of a tag. */
  gather(tag: string, row: Uint8Array, timeoutMs: number, minWorldSize: number): ReturnType<SyncPort['gather']>;
}

export interface SharingCall extends Omit<SyncCall, 'revision'> {
  readonly minWorldSize: number;
}

/** A state, and what the members agreed upon when they synced it last. */
export interface Agreed {
  readonly memory: StateMemory;
  readonly revision: number;
  /** In hex. */
  readonly hash: string;
}

export class Sharing {
  readonly #port: SharingPort;
  /** By tag. */
  readonly #states: Map<string, StateMemory> = new Map();
  readonly #agreed: Map<string, Agreed> = new Map();
  readonly #syncing: Set<string> = new Set();

  /** @param first under the tag '', which the engine has already */
  constructor(port: SharingPort, first: StateMemory | null) {
    this.#port = port;
    if (first !== null) this.#states.set('', first);
  }

  /** @throws ArgumentError, and what `synchronise` throws */
  async sync(state: SharedState, call: SharingCall): Promise<SyncReport> {
    const { tag } = call;
    checkRevision(state.revision);
    const unknown = call.changed?.find((name) => !(name in state.entries));
    if (unknown !== undefined)
      throw new ArgumentError(`There is no entry ${JSON.stringify(unknown)} that could have \`changed\`.`);
    if (this.#syncing.has(tag)) throw new ArgumentError('A sync of this state is under way: wait for it.');
    this.#syncing.add(tag);
    try {
      const memory = await this.#memoryOf(state, tag);
      memory.push();
      const port: SyncPort = {
        ...this.#port,
        gather: (row, timeoutMs) => this.#port.gather(tag, row, timeoutMs, call.minWorldSize),
      };
      const { report, isChanged } = await synchronise(port, { ...call, revision: state.revision });
      if (isChanged) memory.pull();
      state.revision = report.revision;
      this.#agreed.set(tag, { memory, revision: report.revision, hash: report.hash });
      return report;
    } finally {
      this.#syncing.delete(tag);
    }
  }

  /** For whoever keeps it. */
  agreed(tag: string): Agreed | undefined {
    return this.#agreed.get(tag);
  }

  async #memoryOf(state: SharedState, tag: string): Promise<StateMemory> {
    const known = this.#states.get(tag);
    if (known?.isOf(state) === true) return known;
    const memory = new StateMemory(state, this.#port.isThread);
    await this.#port.engine({ type: 'attach', spec: memory.spec(tag) });
    this.#states.set(tag, memory);
    return memory;
  }
}
