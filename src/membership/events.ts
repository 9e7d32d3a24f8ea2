/**
 * What goes into a coordinator's machine, and what comes out of it (`coordinator.ts`): plain data, for whoever feeds it, carries out
 * what it wants, or looks on.
 */
import type { WayCosts } from '../costs.ts';
import type { CoordinatorMessage, PeerDescription } from '../wire/coordinator-messages.ts';
import type { PeerMessage, RunReport } from '../wire/peer-messages.ts';
import type { KnownLink } from './rings.ts';
import type { Pair } from './ways.ts';

export type PeerId = string;

export type PeerState = 'warming' | 'ready' | 'member';

/** What must outlive a coordinator: its successor speaks with a higher term, and never gives an epoch twice. */
export interface StoredRun {
  readonly term: number;
  readonly epoch: number;
  readonly members: readonly PeerId[];
}

export type CoordinatorEvent =
  | {
      readonly type: 'joined';
      readonly connection: number;
      readonly description: PeerDescription;
      readonly startWorldSize: number;
      readonly name: string;
    }
  | {
      readonly type: 'resumed';
      readonly connection: number;
      readonly description: PeerDescription;
      readonly startWorldSize: number;
      readonly name: string;
      readonly report: RunReport;
    }
  | { readonly type: 'message'; readonly peerId: PeerId; readonly message: PeerMessage }
  | { readonly type: 'closed'; readonly peerId: PeerId }
  /** By an administrator. */
  | { readonly type: 'dismissed'; readonly peerId: PeerId }
  | { readonly type: 'tick' };

export type CoordinatorEffect =
  /** To be stored before anything that follows is carried out. */
  | { readonly type: 'store'; readonly run: StoredRun }
  /** The connection on which a peer joined now belongs to `peerId`. */
  | { readonly type: 'assign'; readonly connection: number; readonly peerId: PeerId }
  | { readonly type: 'send'; readonly peerId: PeerId; readonly message: CoordinatorMessage }
  /** After everything sent so far has left. */
  | { readonly type: 'close'; readonly peerId: PeerId; readonly reason: string }
  | { readonly type: 'note'; readonly text: string };

/** Why a connection is closed whose peer has another one. */
export const BACK = 'it came back by another connection';

/** What a run looks like. */
export interface CoordinatorSnapshot {
  readonly term: number;
  readonly epoch: number;
  readonly generation: number;
  readonly members: readonly PeerId[];
  /** Still connecting to the members. */
  readonly warming: readonly PeerId[];
  /** Come in at the next boundary. */
  readonly ready: readonly PeerId[];
  /** Everybody who is here. */
  readonly peers: readonly { readonly peerId: PeerId; readonly site: string; readonly state: PeerState }[];
  /** Held by some members, and not yet by all. */
  readonly openCollectives: number;
  /** The oldest of these: how many hold it, and who does not, as far as they are told. */
  readonly collectives: readonly { readonly id: string; readonly held: number; readonly awaited: readonly PeerId[] }[];
  /** Restarted, and waiting for the members' reports. */
  readonly recovering: boolean;
  /** The members in the order of the ring. */
  readonly ring: readonly PeerId[];
  /** Members that can't reach one another. */
  readonly cuts: readonly Pair[];
  /** What the ways between them were measured to be worth. */
  readonly links: readonly KnownLink[];
  /** By which figures they choose algorithms; null: there is no view. */
  readonly costs: WayCosts | null;
}
