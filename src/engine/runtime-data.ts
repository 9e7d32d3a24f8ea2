/** What a peer's engine is given, and what it tells of itself: plain data, which may cross from thread to thread. */
import type { PeerId } from '../collectives/call.ts';
import type { Member } from '../collectives/context.ts';
import type { WayCosts } from '../costs.ts';
import type { SlowPeer } from '../membership/stragglers.ts';
import type { StateStatus } from '../state/asks.ts';
import type { Address } from '../transport/transport.ts';
import type { NotedMessage } from '../wire/coordinator-messages.ts';
import type { TransportKind } from './host.ts';
import type { PathFailure, PathKind } from './path-race.ts';
import type { Security } from './security.ts';

export interface RuntimeOptions {
  /** Of those that may coordinate the run: one of them leads. */
  readonly coordinators: readonly Address[];
  readonly run: string;
  readonly token: string;
  readonly security: Security;
  /** Default of the calls. */
  readonly minWorldSize: number;
  /** Ready peers that the first view needs. */
  readonly startWorldSize: number;
  /** What this process is called, the same after a restart; may be empty. */
  readonly name: string;
  readonly site: string;
  readonly transports: readonly TransportKind[];
  readonly stripes: number;
  /** Milliseconds until a view must have formed. */
  readonly timeoutMs: number;
  /** Milliseconds before a better path to a peer is looked for; tests shorten it. */
  readonly probeMs?: number;
  /** Folder to which the flight record is written when a call fails, or when somebody asks; without it, nothing is written. */
  readonly flight?: string;
}

/** A boundary that was passed: the view from here on, and what has changed. */
export interface Admission {
  /** Number of the boundary, the same on all members that pass it; it only grows. */
  readonly boundary: number;
  readonly epoch: number;
  readonly worldSize: number;
  readonly joined: readonly PeerId[];
  readonly left: readonly PeerId[];
}

interface RuntimeView {
  readonly epoch: number;
  readonly members: readonly Member[];
}

export type RuntimeEvent =
  | { readonly type: 'view'; readonly view: RuntimeView }
  | { readonly type: 'peer-lost'; readonly peerId: PeerId; readonly reason: string; readonly epoch: number }
  | { readonly type: 'slow-peer'; readonly slow: SlowPeer; readonly epoch: number }
  | { readonly type: 'path'; readonly peerId: PeerId; readonly path: PathKind | null }
  /** null: some were left out, as too many were unread. */
  | { readonly type: 'notes'; readonly message: NotedMessage | null }
  | { readonly type: 'coordinator-lost'; readonly reason: string }
  | { readonly type: 'coordinator-back' }
  | { readonly type: 'refused'; readonly reason: string }
  | { readonly type: 'evicted'; readonly reason: string };

/** How another peer is reached, or why it is not. */
export interface LinkStatus {
  readonly peerId: PeerId;
  readonly path: string | null;
  /** Better ways that were last tried in vain, and why. */
  readonly failures: readonly PathFailure[];
  readonly up: boolean;
  /** Connections by which it is sent to. */
  readonly stripes: number;
  readonly queuedBytes: number;
  /** What the way to it was last measured to carry; null where nothing was sent by which that could be, and between peers on one host. */
  readonly bytesPerSecond: number | null;
  /** Half of the shortest of the last round trips (ms); null where none was measured. */
  readonly delayMs: number | null;
}

export interface RuntimeStatus {
  /** The members in the order of the ring: each sends to the next, and the last to the first. */
  readonly ring: readonly PeerId[];
  readonly links: readonly LinkStatus[];
  /** What is shared, by tag. */
  readonly states: readonly StateStatus[];
  /** By what `algorithm: 'auto'` chooses: as the coordinator has told all members of the view. */
  readonly costs: WayCosts;
  readonly collectives: readonly {
    readonly op: string;
    readonly state: string;
    readonly waitsFor: string;
    readonly elapsed: number;
  }[];
}
