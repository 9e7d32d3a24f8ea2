/** The ways out of the collectives, which the engine lends them: each part takes those that it needs. */
import type { PeerMessage } from '../wire/peer-messages.ts';
import type { PeerId } from './call.ts';
import type { LinkPort } from './ports.ts';
import type { Workspace } from './workspace.ts';

export interface Surroundings {
  readonly self: PeerId;
  readonly workspace: Workspace;
  /** Milliseconds, monotonic. */
  now(): number;
  link(peerId: PeerId): LinkPort;
  /** Whether the coordinator has introduced a peer. */
  knows(peerId: PeerId): boolean;
  /** To the coordinator. */
  control(message: PeerMessage): void;
  takeScratch(byteLength: number): Uint8Array;
  giveScratch(memory: Uint8Array): void;
}
