/** What a snapshot holds: named entries as plain bytes, and where in the run they were agreed on. */
import { SkeinError } from '../errors.ts';
import type { EntryType } from '../state/layout.ts';

export interface SnapshotEntry {
  readonly name: string;
  readonly type: EntryType;
  /** Revision of the state in which it changed last. */
  readonly revision: number;
  /** Little-endian: of a number its f64, of a bigint its i64, of a boolean one byte. */
  readonly bytes: Uint8Array;
}

/** What all members agreed on, and what is this peer's own. */
export interface Snapshot {
  readonly run: string;
  readonly epoch: number;
  /** Of the shared state: the later one of two has the higher. With `group.steps({ state })` it is the index of a turn. */
  readonly revision: number;
  /** Of the shared state, as the members agreed on it (hex). */
  readonly hash: string;
  readonly shared: readonly SnapshotEntry[];
  /** Nothing: there is nothing of its own. */
  readonly own: readonly SnapshotEntry[];
}

/** A snapshot could not be written or read. */
export class SnapshotError extends SkeinError {
  constructor(message: string, cause?: unknown) {
    super('SKEIN_SNAPSHOT', message, { cause, phase: 'snapshot' });
  }
}
