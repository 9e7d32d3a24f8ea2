/** A store in the memory of one process, on any clock: forgets everything with its process. */
import type { Clock } from '../transport/clock.ts';
import { type Change, type Entry, type Guard, type Lease, type Store, StoreError } from './store.ts';

interface Held extends Entry {
  readonly lease: string | null;
}

interface LeaseRecord {
  readonly ms: number;
  endsAt: number;
}

interface Waiter {
  readonly key: string;
  readonly wake: () => void;
}

export class MemoryStore implements Store {
  readonly isShared: boolean;
  readonly #clock: Clock;
  readonly #entries: Map<string, Held> = new Map();
  readonly #leases: Map<string, LeaseRecord> = new Map();
  readonly #waiters: Set<Waiter> = new Set();
  #revision: number;
  #granted = 0;

  /**
   * @param isShared several coordinators of this process, or of this simulation, elect one among them
   * @param entries what it holds from the start
   */
  constructor(clock: Clock, isShared: boolean, entries: readonly Entry[] = []) {
    this.#clock = clock;
    this.isShared = isShared;
    for (const entry of entries) this.#entries.set(entry.key, { ...entry, lease: null });
    this.#revision = Math.max(0, ...entries.map(({ modified }) => modified));
  }

  /** Of the last change. */
  get revision(): number {
    return this.#revision;
  }

  async get(key: string): Promise<Entry | null> {
    const held = this.#entries.get(key);
    return held === undefined ? null : plain(held);
  }

  async list(prefix: string): Promise<readonly Entry[]> {
    return this.entries((key) => key.startsWith(prefix));
  }

  async commit(guards: readonly Guard[], changes: readonly Change[]): Promise<number | null> {
    if (!this.admits(guards, changes)) return null;
    this.#apply(changes);
    return this.#revision;
  }

  async grant(ms: number): Promise<Lease> {
    this.#granted += 1;
    const id = `${this.#granted}`;
    this.#leases.set(id, { ms, endsAt: this.#clock.now() + ms });
    this.#clock.schedule(ms, () => this.#expire(id));
    return { id, ms };
  }

  async keepAlive(id: string): Promise<Lease | null> {
    const lease = this.#leases.get(id);
    if (lease === undefined) return null;
    lease.endsAt = this.#clock.now() + lease.ms;
    return { id, ms: lease.ms };
  }

  async revoke(id: string): Promise<void> {
    if (!this.#leases.delete(id)) return;
    const bound = [...this.#entries.values()].filter(({ lease }) => lease === id);
    if (bound.length > 0) this.#apply(bound.map(({ key }) => ({ delete: key })));
  }

  changed(key: string, after: number, withinMs: number, signal: AbortSignal): Promise<void> {
    const held = this.#entries.get(key);
    const isChanged = held === undefined ? after > 0 : held.modified > after;
    if (isChanged || signal.aborted) return Promise.resolve();
    return new Promise((resolve) => {
      const wake = () => {
        this.#waiters.delete(waiter);
        cancel();
        signal.removeEventListener('abort', wake);
        resolve();
      };
      const waiter: Waiter = { key, wake };
      const cancel = this.#clock.schedule(withinMs, wake);
      this.#waiters.add(waiter);
      signal.addEventListener('abort', wake, { once: true });
    });
  }

  async close(): Promise<void> {}

  /** Those that are chosen, in the order of their keys. */
  entries(isChosen: (key: string, hasLease: boolean) => boolean): Entry[] {
    const found = [...this.#entries.values()].filter(({ key, lease }) => isChosen(key, lease !== null));
    return found.sort((left, right) => (left.key < right.key ? -1 : 1)).map(plain);
  }

  /** Whether these changes would be made. @throws StoreError when one names a lease that has ended */
  admits(guards: readonly Guard[], changes: readonly Change[]): boolean {
    if (!guards.every((guard) => this.#holds(guard))) return false;
    for (const change of changes)
      if ('put' in change && change.lease !== undefined && !this.#leases.has(change.lease))
        throw new StoreError(`The lease ${change.lease} has ended.`);
    return true;
  }

  #holds(guard: Guard): boolean {
    const held = this.#entries.get(guard.key);
    if ('created' in guard) return (held?.created ?? 0) === guard.created;
    return (held?.modified ?? 0) === guard.modified;
  }

  #apply(changes: readonly Change[]): void {
    this.#revision += 1;
    const touched = new Set<string>();
    for (const change of changes) {
      const key = 'put' in change ? change.put : change.delete;
      touched.add(key);
      if ('put' in change) {
        const created = this.#entries.get(key)?.created ?? this.#revision;
        const { value, lease = null } = change;
        this.#entries.set(key, { key, value, created, modified: this.#revision, lease });
      } else {
        this.#entries.delete(key);
      }
    }
    for (const waiter of [...this.#waiters]) if (touched.has(waiter.key)) waiter.wake();
  }

  #expire(id: string): void {
    const lease = this.#leases.get(id);
    if (lease === undefined) return;
    const left = lease.endsAt - this.#clock.now();
    if (left <= 0) void this.revoke(id);
    else this.#clock.schedule(left, () => this.#expire(id));
  }
}

function plain({ key, value, created, modified }: Held): Entry {
  return { key, value, created, modified };
}
