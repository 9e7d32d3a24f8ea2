/**
 * Where coordinators keep what must outlive them: keys and values, changed in transactions that can be guarded, some of them bound
 * to a lease. A subset of what etcd offers, with etcd's meaning of revisions: each transaction that changes something has a
 * higher one than all before it.
 *
 * All calls end, with a `StoreError` if need be: a driver that talks to others has a deadline for each. After one the change may
 * have been made or not, or be made yet: a guard on the key's own revision makes that harmless.
 */
import { SkeinError } from '../errors.ts';

/** A key of a store, and what stands there. */
export interface Entry {
  readonly key: string;
  readonly value: string;
  /** Revision in which the key came to be: another one when it was deleted and made again. */
  readonly created: number;
  /** Revision of its last change. */
  readonly modified: number;
}

/** What must hold for a transaction to be carried out. Revision 0: there is no such key. */
export type Guard =
  | { readonly key: string; readonly created: number }
  | { readonly key: string; readonly modified: number };

/** What a transaction does to a key. */
export type Change =
  /** With a lease the key goes when the lease ends. */
  { readonly put: string; readonly value: string; readonly lease?: string } | { readonly delete: string };

/** A time after which keys vanish, unless it is renewed. */
export interface Lease {
  readonly id: string;
  /** Milliseconds for which it was granted: perhaps more than was asked for. */
  readonly ms: number;
}

/** Where a coordinator keeps what a successor must know; `Coordinator.listen` takes one of your own. */
export interface Store {
  /** Several coordinators may use it at once: they elect one among them that leads. */
  readonly isShared: boolean;
  /** What stands there now, or null. */
  get(key: string): Promise<Entry | null>;
  /** All whose keys begin like this, in the order of their keys, as they were at one moment. */
  list(prefix: string): Promise<readonly Entry[]>;
  /** All changes or, where a guard does not hold, none. The revision, or null. etcd takes 128 guards and 128 changes. */
  commit(guards: readonly Guard[], changes: readonly Change[]): Promise<number | null>;
  /** Makes a lease of at least so many milliseconds. */
  grant(ms: number): Promise<Lease>;
  /** From now on it has its whole time again; null when it has ended. */
  keepAlive(id: string): Promise<Lease | null>;
  /** Ends a lease, and its keys with it. */
  revoke(id: string): Promise<void>;
  /** Resolves when the key has changed after this revision, and at the latest after so many milliseconds, or when aborted. */
  changed(key: string, after: number, withinMs: number, signal: AbortSignal): Promise<void>;
  /** Lets go of what it holds. Leases run out by themselves. */
  close(): Promise<void>;
}

/** The store could not be reached, or could not do what it was asked for. */
export class StoreError extends SkeinError {
  constructor(message: string, cause?: unknown) {
    super('SKEIN_STORE', message, { cause, phase: 'store' });
  }
}
