/** What the training thread asks of its engine about shared state, and is answered: data that can cross threads. */
import type { EntryShape } from './layout.ts';
import type { Manifest } from './manifest.ts';

/** A state for the engine to look after. */
export interface StateSpec {
  /** Of several states of one run. */
  readonly tag: string;
  readonly shapes: readonly EntryShape[];
  /** Memory of each shape, which the engine can reach. */
  readonly memory: readonly Uint8Array[];
  readonly revision: number;
}

export type StateAsk =
  /** Another state, or other memory, under its tag. */
  | { readonly type: 'attach'; readonly spec: StateSpec }
  /** A sync begins: looks at the contents. `changed`: names of the entries that may be others; null: all. */
  | {
      readonly type: 'begin';
      readonly tag: string;
      readonly revision: number;
      readonly changed: readonly string[] | null;
    }
  /** Gets ready to hold what others hold. */
  | {
      readonly type: 'fetch';
      readonly tag: string;
      readonly revision: number;
      readonly hash: Uint8Array;
      readonly holders: readonly string[];
      readonly timeoutMs: number;
    }
  /** All others are ready: holds it. */
  | {
      readonly type: 'settle';
      readonly tag: string;
      readonly revision: number;
      readonly hash: Uint8Array;
      /** Members that had diverged. */
      readonly diverged: number;
    }
  /** A sync has failed: holds what it held. */
  | { readonly type: 'abandon'; readonly tag: string }
  /** Who of these peers holds the highest revision of a state that this one has attached. */
  | { readonly type: 'find'; readonly tag: string; readonly peers: readonly string[] }
  /** The engine need not look after it any more. */
  | { readonly type: 'detach'; readonly tag: string }
  /** What was agreed last, for whoever keeps it. */
  | { readonly type: 'manifest'; readonly tag: string };

/** What a peer holds, as the engine sees it. */
export interface Holding {
  readonly isWhole: boolean;
  readonly isSynced: boolean;
  readonly shape: Uint8Array;
  readonly hash: Uint8Array;
  readonly ready: Uint8Array | null;
}

export interface Settlement {
  /** Bytes of pieces. */
  readonly sent: number;
  readonly received: number;
  /** By the peer that they came from. */
  readonly from: readonly string[];
  /** That came before this peer was a member. */
  readonly prefetched: number;
  /** The contents are others than at the beginning. */
  readonly isChanged: boolean;
}

/** What other peers hold. */
export interface Finding {
  readonly revision: number;
  readonly hash: Uint8Array;
  readonly holders: readonly string[];
}

/** `attach`, `abandon`, `detach`: nothing; nor `find`, where nobody holds any. */
export interface StateAnswers {
  readonly attach: null;
  readonly begin: Holding;
  readonly fetch: Holding;
  readonly settle: Settlement;
  readonly abandon: null;
  readonly find: Finding | null;
  readonly detach: null;
  readonly manifest: Manifest;
}

/** What came before a peer was a member. */
export interface Prefetched {
  readonly bytes: number;
  /** Of the state, if all of it is here; else null. */
  readonly revision: number | null;
}

/** A shared state as it is now, and what has become of it since this peer came. */
export interface StateStatus {
  readonly tag: string;
  /** That all had after the last sync. */
  readonly revision: number;
  /** Of its contents then, in hex; null before the first. */
  readonly hash: string | null;
  /** Length of its contents, and how many pieces they are cut into. */
  readonly bytes: number;
  readonly pieces: number;
  readonly syncs: number;
  /** Bytes of contents given to others, and taken from them. */
  readonly sent: number;
  readonly received: number;
  /** How often a member held something else than the others, though it was in step. */
  readonly diverged: number;
}
