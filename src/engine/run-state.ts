/** A run as whoever looks on is shown it: plain data. */
import type { CoordinatorSnapshot } from '../membership/coordinator.ts';

interface PeerState {
  readonly peerId: string;
  readonly site: string;
  /** How it reaches the coordinator; null: it doesn't at the moment. */
  readonly path: string | null;
}

export interface RunState {
  readonly run: string;
  readonly term: number;
  readonly epoch: number;
  readonly generation: number;
  /** Restarted, and waiting for the members' reports. */
  readonly recovering: boolean;
  readonly members: readonly (PeerState & { readonly rank: number })[];
  /** `warming`: still connects to the members. `ready`: comes in at the next boundary. */
  readonly joining: readonly (PeerState & { readonly state: 'warming' | 'ready' })[];
  /** Held by some members and not yet by all: the first of them, and how many there are. */
  readonly collectives: CoordinatorSnapshot['collectives'];
  readonly openCollectives: number;
}

/** @param pathOf a peer's connection to the coordinator */
export function runState(
  run: string,
  snapshot: CoordinatorSnapshot,
  pathOf: (peerId: string) => string | null,
): RunState {
  const { term, epoch, generation, recovering, collectives, openCollectives } = snapshot;
  const peers = new Map(snapshot.peers.map((peer) => [peer.peerId, peer]));
  const joining = snapshot.peers.flatMap(({ peerId, site, state }) =>
    state === 'member' ? [] : [{ peerId, site, path: pathOf(peerId), state }],
  );
  const members = snapshot.members.map((peerId, rank) => ({
    peerId,
    rank,
    site: peers.get(peerId)?.site ?? '',
    path: pathOf(peerId),
  }));
  return { run, term, epoch, generation, recovering, members, joining, collectives, openCollectives };
}
