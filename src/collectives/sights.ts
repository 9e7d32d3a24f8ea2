/** What open calls show of the other peers at one look: from whom something should arrive, and for whom they wait. */
import { MAX_TOLD_STRAGGLING } from '../wire/limits.ts';
import type { Excludable } from '../wire/peer-messages.ts';
import type { PeerId } from './call.ts';
import type { Operation } from './operation.ts';

/** How calls wait for a peer. */
export interface Wait {
  due: boolean;
  blocked: boolean;
  readonly calls: Excludable[];
}

/** Calls younger than this wait for nobody in particular (ms). */
const WORTH_WATCHING_MS = 200;

/**
 * Peers of which something should arrive, as an attempt here is under way with them or through them. Also when this rank
 * has done its part: what it sent may never have left the kernel. Where one way is cut others may be, so there all are watched.
 */
export function awaitedBy(open: readonly Operation[], self: PeerId): Set<PeerId> {
  const awaited = new Set<PeerId>();
  for (const { attempt, state, context } of open) {
    if ((state !== 'running' && state !== 'held') || attempt === null) continue;
    if (context?.cuts.empty === false) for (const { peerId } of attempt.members) awaited.add(peerId);
    else for (const { via } of attempt.ports.values()) awaited.add(via);
  }
  awaited.delete(self);
  return awaited;
}

/**
 * Whom calls that have been under way for a while wait for: `due`, something should come from it; `blocked`, its link takes
 * no more; `calls`, those that could do without it.
 */
export function waitsOf(open: readonly Operation[], now: number): Map<PeerId, Wait> {
  const waits = new Map<PeerId, Wait>();
  const old = now - WORTH_WATCHING_MS;
  for (const operation of open) {
    const { attempt, state, startedAt } = operation;
    if (state !== 'running' || attempt === null || startedAt > old) continue;
    const { id, spare } = operation;
    const due = new Set(attempt.transfer.waitsFor.map((rank) => attempt.members[rank]?.peerId));
    for (const [peerId, port] of attempt.ports) {
      const wait = waits.get(peerId) ?? { due: false, blocked: false, calls: [] };
      const isDue = due.has(peerId) || !port.allowed;
      wait.due ||= isDue;
      if (isDue && spare > 0 && wait.calls.length < MAX_TOLD_STRAGGLING)
        wait.calls.push({ id, epoch: attempt.epoch, spare });
      wait.blocked ||= port.allowed && !port.writable;
      waits.set(peerId, wait);
    }
  }
  return waits;
}
