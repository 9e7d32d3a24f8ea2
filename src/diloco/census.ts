/**
 * What the members tell one another at the start of a round: 40 bytes each. From it every peer derives the same answers:
 * who leads, who must be given the shared state, how many steps each peer makes, and what each contribution weighs.
 */
import type { Group, PeerId, Report } from '../index.ts';
import { stepCounts } from './pace.ts';

/** Of a peer that has no shared state yet. */
export const NEWCOMER = -1;

export interface Entry {
  /** Outer steps that its shared state contains, all fragments together; `NEWCOMER` at first. */
  readonly version: number;
  /** Of its shared state. */
  readonly hash: number;
  /** Rounds done. */
  readonly round: number;
  /** Samples in one inner step. */
  readonly samples: number;
  /** Inner steps per second; 0 when not measured. */
  readonly speed: number;
}

export interface Bounds {
  readonly every: number;
  readonly fewest: number;
  readonly most: number;
}

/** What follows from a census, the same on all peers that took part. */
export interface Plan {
  /** Who has the newest shared state; of several the one of lowest rank. */
  readonly leader: PeerId;
  /** Whose shared state is not the leader's. */
  readonly behind: ReadonlySet<PeerId>;
  /** Inner steps of each peer in the coming round. */
  readonly steps: ReadonlyMap<PeerId, number>;
  /** Samples of each peer in the coming round; 0 for newcomers, whose inner optimisers are cold. */
  readonly weights: ReadonlyMap<PeerId, number>;
}

/** @throws what `group.allGather` throws */
export async function takeCensus(
  group: Group,
  entry: Entry,
  call: { readonly tag: string; readonly timeout?: number; readonly minWorldSize?: number },
): Promise<{ entries: ReadonlyMap<PeerId, Entry>; report: Report }> {
  const own = Float64Array.of(entry.version, entry.hash, entry.round, entry.samples, entry.speed);
  const all = new Float64Array(own.length * group.worldSize);
  const report = await group.allGather(own, all, call);
  const entries = new Map<PeerId, Entry>();
  for (const [rank, peerId] of report.contributors.entries()) {
    const at = rank * own.length;
    const [version, hash, round, samples, speed] = [...all.subarray(at, at + own.length)];
    entries.set(peerId, { version: version!, hash: hash!, round: round!, samples: samples!, speed: speed! });
  }
  return { entries, report };
}

/**
 * @param entries by rank
 * @param boundsOf the bounds of a round
 */
export function makePlan(entries: ReadonlyMap<PeerId, Entry>, boundsOf: (round: number) => Bounds): Plan {
  const members = [...entries];
  const newest = Math.max(...members.map(([, entry]) => entry.version));
  const [leader, state] = members.find(([, entry]) => entry.version === newest)!; // the maximum is one of them
  const behind = members.filter(([, entry]) => entry.version !== newest || entry.hash !== state.hash);
  const { every, fewest, most } = boundsOf(state.round);
  const speeds = members.map(([, entry]) => entry.speed);
  const counts = stepCounts(every, speeds, fewest, most);
  const steps = new Map(members.map(([peerId], rank) => [peerId, counts[rank]!]));
  // Where all are newcomers, the run begins, and all count.
  const weightOf = (peerId: PeerId, { version, samples }: Entry) =>
    version === NEWCOMER && newest !== NEWCOMER ? 0 : samples * steps.get(peerId)!;
  const weights = new Map(members.map(([peerId, entry]) => [peerId, weightOf(peerId, entry)]));
  return { leader, behind: new Set(behind.map(([peerId]) => peerId)), steps, weights };
}
