/**
 * What members tell one another in a sync, and what follows from it: 64 bytes each, gathered by all, from which every member
 * derives the same plan.
 *
 *      0          8       9          10      16      32     48      64
 *     ┌──────────┬───────┬──────────┬───────┬───────┬──────┬───────┐
 *     │ revision │ flags │ strategy │ zero  │ shape │ hash │ ready │
 *     └──────────┴───────┴──────────┴───────┴───────┴──────┴───────┘
 *
 * Every round of a sync is such a census, so it does not matter whether two members are in the same one: what they tell stands
 * by itself. A sync has ended when all hold what they are to hold, or have it ready (`settled`).
 */
import { HASH_BYTES, sameHash, toHex } from './digest.ts';
import { STRATEGIES, type SyncStrategy } from './strategy.ts';

export interface Row {
  readonly revision: number;
  /** It holds one revision, and not parts of two. */
  readonly isWhole: boolean;
  /** It has been through a sync with this run. */
  readonly isSynced: boolean;
  readonly strategy: SyncStrategy;
  readonly shape: Uint8Array;
  /** Of what it holds. */
  readonly hash: Uint8Array;
  /** Of what it has fetched, all of it, and will hold when all others do; null for nothing. */
  readonly ready: Uint8Array | null;
}

/** Between what was decided and what is left to do. */
export interface SyncPlan {
  /** What all are to hold. */
  readonly revision: number;
  readonly hash: Uint8Array;
  /** Who holds it. */
  readonly holders: readonly string[];
  /** Who has to fetch it. */
  readonly behind: readonly string[];
  /** Were in step, tell the same revision, and hold something else: a bit has flipped there, or somebody's update is not the others'. */
  readonly diverged: readonly string[];
  /** Newcomers that fit in with nobody who was in step, and why: the others go on as if they were not there. */
  readonly outsiders: ReadonlyMap<string, string>;
  readonly isSettled: boolean;
}

/** Why there can be no plan: all members see the same. */
export interface NoPlan {
  readonly code: 'mismatch' | 'lost';
  readonly reason: string;
}

export const ROW_BYTES = 64;

const WHOLE = 1;
const SYNCED = 2;
const READY = 4;

export function writeRow(row: Row): Uint8Array {
  const bytes = new Uint8Array(ROW_BYTES);
  new DataView(bytes.buffer).setFloat64(0, row.revision, true);
  bytes[8] = (row.isWhole ? WHOLE : 0) | (row.isSynced ? SYNCED : 0) | (row.ready === null ? 0 : READY);
  bytes[9] = STRATEGIES.indexOf(row.strategy);
  bytes.set(row.shape, 16);
  bytes.set(row.hash, 32);
  if (row.ready !== null) bytes.set(row.ready, 48);
  return bytes;
}

/** @returns null when it is none */
export function readRow(bytes: Uint8Array): Row | null {
  const revision = new DataView(bytes.buffer, bytes.byteOffset, ROW_BYTES).getFloat64(0, true);
  const strategy = STRATEGIES[bytes[9]!];
  const flags = bytes[8]!;
  if (strategy === undefined || !Number.isSafeInteger(revision) || revision < 0 || flags > 7) return null;
  return {
    revision,
    isWhole: (flags & WHOLE) !== 0,
    isSynced: (flags & SYNCED) !== 0,
    strategy,
    shape: bytes.slice(16, 32),
    hash: bytes.slice(32, 48),
    ready: (flags & READY) === 0 ? null : bytes.slice(48, 48 + HASH_BYTES),
  };
}

type Member = readonly [peerId: string, row: Row];

/** @param rows of all members that take part, by rank */
export function makePlan(rows: ReadonlyMap<string, Row>): SyncPlan | NoPlan {
  const outsiders = outsidersOf([...rows]);
  const members = [...rows].filter(([peerId]) => !outsiders.has(peerId));
  const leader = chooseLeader(members);
  if ('code' in leader) return leader;
  const { revision, hash } = leader;
  const has = ([, row]: Member) => sameHash(row.hash, hash) || (row.ready !== null && sameHash(row.ready, hash));
  const behind = members.filter((member) => !has(member));
  const isDiverged = ([, row]: Member) =>
    row.isSynced && row.isWhole && row.revision === revision && !sameHash(row.hash, hash);
  return {
    revision,
    hash,
    holders: idsOf(members.filter(([, row]) => sameHash(row.hash, hash))),
    behind: idsOf(behind),
    diverged: idsOf(members.filter(isDiverged)),
    outsiders,
    isSettled: behind.length === 0,
  };
}

/** One newcomer with other entries must not stop those who are in step. At the start of a run nobody is. */
function outsidersOf(members: readonly Member[]): Map<string, string> {
  const outsiders = new Map<string, string>();
  const known = members.find(([, row]) => row.isSynced);
  if (known === undefined) return outsiders;
  for (const member of members) {
    const reason = member[1].isSynced ? null : misfit([known, member]);
    if (reason !== null) outsiders.set(member[0], reason);
  }
  return outsiders;
}

function idsOf(members: readonly Member[]): string[] {
  return members.map(([peerId]) => peerId);
}

function chooseLeader(members: readonly Member[]): Row | NoPlan {
  const reason = misfit(members);
  if (reason !== null) return { code: 'mismatch', reason };
  const ways = new Set(members.map(([, row]) => row.strategy));
  const whole = members.filter(([, row]) => row.isWhole && row.strategy !== 'receive-only');
  const senders = whole.filter(([, row]) => row.strategy === 'send-only');
  const [sender] = senders;
  if (sender !== undefined) {
    const other = senders.find(([, row]) => !sameHash(row.hash, sender[1].hash));
    if (other === undefined) return highest(senders);
    return { code: 'mismatch', reason: `${sender[0]} and ${other[0]} both send, and hold different states` };
  }
  if (whole.length === 0) {
    const reason = 'no member holds a whole state that the others could take: those that did are gone, or only receive';
    return { code: 'lost', reason };
  }
  return ways.has('highest-revision') ? mostFrequent(atHighest(whole)) : mostFrequent(inStep(whole));
}

/** Why members can't follow one another; null: they can. */
function misfit(members: readonly Member[]): string | null {
  const odd = oddShapes(members);
  if (odd !== null) return odd;
  const ways = new Set(members.map(([, row]) => row.strategy));
  if (!ways.has('majority') || !ways.has('highest-revision')) return null;
  return `${names(members, 'majority')} would follow the majority, and ${names(members, 'highest-revision')} the highest revision`;
}

/** Whose entries are others than those of most. */
function oddShapes(members: readonly Member[]): string | null {
  const by = groupBy(members, ([, row]) => toHex(row.shape));
  if (by.length < 2) return null;
  const [, ...odd] = by;
  const text = odd.map((group) => idsOf(group).join(', ')).join('; ');
  return `the entries of ${text} have other names, types or lengths than those of ${idsOf(by[0]!).join(', ')}`;
}

function names(members: readonly Member[], strategy: SyncStrategy): string {
  return idsOf(members.filter(([, row]) => row.strategy === strategy)).join(', ');
}

/** Those that have been through a sync, if there are any: newcomers have no say in what the run has learnt. */
function inStep(members: readonly Member[]): readonly Member[] {
  const synced = members.filter(([, row]) => row.isSynced);
  return synced.length > 0 ? synced : members;
}

function atHighest(members: readonly Member[]): readonly Member[] {
  const { revision } = highest(members);
  return members.filter(([, row]) => row.revision === revision);
}

/** @param members one at least */
function highest(members: readonly Member[]): Row {
  return members.map(([, row]) => row).reduce((best, row) => (row.revision > best.revision ? row : best));
}

/** What most hold; of several as frequent the highest revision, of several such what the lowest rank holds. */
function mostFrequent(members: readonly Member[]): Row {
  const groups = groupBy(members, ([, { revision, hash }]) => `${revision} ${toHex(hash)}`);
  const most = groups.filter((group) => group.length === groups[0]!.length);
  return highest(most.map((group) => group[0]!));
}

/** Groups of one key, the largest first; each in the order of ranks, and so are groups of one size. */
function groupBy(members: readonly Member[], keyOf: (member: Member) => string): Member[][] {
  const groups = new Map<string, Member[]>();
  for (const member of members) {
    const key = keyOf(member);
    const group = groups.get(key);
    if (group === undefined) groups.set(key, [member]);
    else group.push(member);
  }
  return [...groups.values()].sort((left, right) => right.length - left.length);
}
