/**
 * What becomes of each collective of a run, as its coordinator knows it:
 *
 *     held by some ──▶ held by all whom it counts on: committed
 *                  ──▶ failed for all, as one of them says
 *                  ──▶ begun anew: without some (`exclusions.ts`), or after a loss (`decision.ts`)
 *
 * It tells the members of the collective's generation. Who does not know that yet is told of failures and exclusions along with its
 * view (`answers.ts`); who was away, when it is back (`catchUp`).
 *
 * Invariants: what was committed never fails, and what failed is never committed. A `done` counts only if it is of the attempt
 * that is under way.
 */
import { Recent } from '../recent.ts';
import type { CoordinatorMessage } from '../wire/coordinator-messages.ts';
import { MAX_OPEN_COLLECTIVES, MAX_REPORTED_FAILURES, MAX_TEXT_LENGTH } from '../wire/limits.ts';
import type { Exclusion } from '../wire/parts.ts';
import type { Excludable, PeerMessage, RunReport } from '../wire/peer-messages.ts';
import type { Effects } from './effects.ts';
import type { CoordinatorSnapshot, PeerId } from './events.ts';
import { Exclusions } from './exclusions.ts';
import { type Generation, type Generations, generationOf } from './generations.ts';
import type { PeerRecord, Roster } from './roster.ts';

/** A collective that some members hold. */
interface Held {
  readonly generation: number;
  readonly by: Set<PeerId>;
  /** So many members it could do without. */
  spare: number;
  /** When the last of them said so. */
  at: number;
}

type FailMessage = Extract<CoordinatorMessage, { type: 'fail' }>;

/** As one member says. */
export type Failure = RunReport['failed'][number];

/** Is held by all but a few, whom it could do without. */
interface Overdue {
  readonly missing: readonly PeerId[];
  readonly holder: PeerId;
  readonly call: Excludable;
}

/** All but a few hold a collective that could do without those few: they are waited for so long (ms). */
const HELD_PATIENCE_MS = 3_000;

/** Failed collectives that are remembered, to answer late messages about them only once, and to tell late members. */
const MAX_FAILED = 4_096;

/** Open collectives that a snapshot tells of, and members that one of them waits for. */
const MAX_SHOWN = 64;

export class Agreement {
  readonly #generations: Generations;
  readonly #roster: Pick<Roster, 'wasAnswered'>;
  readonly #effects: Effects;
  readonly #held: Map<string, Held> = new Map();
  readonly #failed: Map<string, { readonly generation: number; readonly message: FailMessage }> = new Map();
  /** Committed lately: nothing that is still said of them counts. */
  readonly #committed: Recent<string> = new Recent(2 * MAX_OPEN_COLLECTIVES);
  readonly #exclusions: Exclusions = new Exclusions();

  constructor(generations: Generations, roster: Pick<Roster, 'wasAnswered'>, effects: Effects) {
    this.#generations = generations;
    this.#roster = roster;
    this.#effects = effects;
  }

  // --- what members say --------------------------------------------------------------------------------------------

  /** A member holds a result. False where too many are held by some: it is not counted. */
  onDone(peerId: PeerId, message: Extract<PeerMessage, { type: 'done' }>, now: number): boolean {
    const { id, epoch, spare } = message;
    const generation = this.#generations.get(message.generation);
    // An attempt of an earlier epoch: `progress` tells what is held.
    if (generation === undefined || this.#failed.has(id)) return true;
    if (this.#exclusions.epochOf(id, generation.epoch) !== epoch) return true;
    const members = this.#exclusions.left(id, generation.members);
    if (!members.includes(peerId)) return true;
    let held = this.#held.get(id);
    if (held === undefined) {
      if (this.#held.size >= MAX_OPEN_COLLECTIVES * 2) return false;
      held = { generation: generation.generation, by: new Set(), spare: 0, at: now };
      this.#held.set(id, held);
    }
    held.by.add(peerId);
    held.spare = spare;
    held.at = now;
    if (held.by.size < members.length) return true;
    this.#held.delete(id);
    this.#committed.add(id);
    const commit = { type: 'commit', id, epoch } as const;
    for (const member of members) this.#effects.send(member, commit);
    return true;
  }

  /** Who holds the most collectives that are not committed yet. */
  busiest(): PeerId | null {
    const counts = new Map<PeerId, number>();
    for (const { by } of this.#held.values())
      for (const peerId of by) counts.set(peerId, (counts.get(peerId) ?? 0) + 1);
    const [most] = [...counts].sort(([, left], [, right]) => right - left);
    return most?.[0] ?? null;
  }

  /** It failed at a member, and does so at all, unless that does not concern them. */
  fail(by: PeerId, { id, generation: number, code, message }: Failure): void {
    const generation = this.#generations.get(number);
    if (generation === undefined || this.#failed.has(id) || !generation.members.includes(by)) return;
    if (this.#committed.has(id)) return; // members that don't know yet must not hear otherwise
    if (this.#exclusions.isExcluded(id, by)) return; // the others don't wait for it
    if (this.#failed.size >= MAX_FAILED)
      for (const oldest of this.#failed.keys()) {
        this.#failed.delete(oldest);
        break;
      }
    const fail = { type: 'fail', id, code, message: message.slice(0, MAX_TEXT_LENGTH), peerId: by } as const;
    this.#failed.set(id, { generation: number, message: fail });
    this.#held.delete(id);
    this.#tell(generation, fail);
  }

  // --- going on without somebody -----------------------------------------------------------------------------------

  /** Whether the attempt that `by` spoke of is still under way, and would be left with enough members. */
  canDoWithout(some: readonly PeerId[], by: PeerId, { id, epoch, spare }: Excludable): boolean {
    const generation = this.#generations.of(id);
    if (generation === undefined || this.#failed.has(id)) return false;
    if (this.#committed.has(id)) return false; // what `by` spoke of is over, though some may not know yet
    const members = this.#exclusions.left(id, generation.members);
    if (!members.includes(by) || !some.every((peerId) => members.includes(peerId))) return false;
    return !some.includes(by) && some.length <= spare && epoch === this.#exclusions.epochOf(id, generation.epoch);
  }

  /** Begins a collective anew without some, in an epoch of its own. */
  exclude(id: string, some: readonly PeerId[], epoch: number): void {
    this.#held.delete(id);
    const exclusion = { id, epoch, peers: [...this.#exclusions.peersOf(id), ...some] };
    this.#exclusions.add(exclusion);
    this.#tellExclusion(exclusion);
  }

  /** As another coordinator has decided. */
  addExclusion(exclusion: Exclusion): void {
    this.#exclusions.add(exclusion);
  }

  tellExclusions(): void {
    for (const exclusion of this.#exclusions.all) this.#tellExclusion(exclusion);
  }

  /** Those that have been held for long by all but a few. */
  overdue(now: number): Overdue[] {
    return [...this.#held].flatMap(([id, { generation: number, by, spare, at }]) => {
      const generation = this.#generations.get(number);
      const [holder] = by;
      if (spare === 0 || now - at < HELD_PATIENCE_MS || generation === undefined || holder === undefined) return [];
      const missing = this.#exclusions.left(id, generation.members).filter((peerId) => !by.has(peerId));
      const call = { id, epoch: this.#exclusions.epochOf(id, generation.epoch), spare };
      return [{ missing, holder, call }];
    });
  }

  // --- losses ------------------------------------------------------------------------------------------------------

  /** Of these generations nothing that is open counts as held: their members are asked. */
  reopen(generations: readonly number[]): void {
    for (const [id, { generation }] of this.#held) if (generations.includes(generation)) this.#held.delete(id);
  }

  /** No member is left who could hold anything. */
  dropHeld(): void {
    this.#held.clear();
  }

  /** All members whom a collective counts on that can still be committed; null where it can't. */
  awaitedFor(id: string): readonly PeerId[] | null {
    const generation = this.#generations.of(id);
    return generation === undefined || this.#failed.has(id) ? null : this.#exclusions.left(id, generation.members);
  }

  isCommitted(id: string): boolean {
    return this.#committed.has(id);
  }

  /** By a decision, which tells so. */
  onCommitted(id: string): void {
    this.#committed.add(id);
  }

  /** A member that was away may have missed what failed, and what went on without somebody. */
  catchUp({ peerId, answered }: Pick<PeerRecord, 'peerId' | 'answered'>): void {
    for (const { generation, message } of this.#failed.values())
      if ((this.#generations.get(generation)?.boundary ?? 0) <= answered) this.#effects.send(peerId, message);
    for (const exclusion of this.#exclusions.all) this.#tellExclusion(exclusion, [peerId]);
  }

  #tellExclusion(exclusion: Exclusion, to?: readonly PeerId[]): void {
    const generation = this.#generations.of(exclusion.id);
    if (generation !== undefined) this.#tell(generation, { type: 'exclude', ...exclusion }, to);
  }

  #tell({ boundary, members }: Generation, message: CoordinatorMessage, to: readonly PeerId[] = members): void {
    for (const member of to) if (this.#roster.wasAnswered(member, boundary)) this.#effects.send(member, message);
  }

  // --- what is known -----------------------------------------------------------------------------------------------

  /** Of a generation, as its view tells late members. */
  failuresOf(generation: Generation | undefined): Omit<FailMessage, 'type'>[] {
    const failed = [...this.#failed.values()].filter((one) => one.generation === generation?.generation);
    return failed.slice(-MAX_REPORTED_FAILURES).map(({ message: { type, ...verdict } }) => verdict);
  }

  /** The same of exclusions. */
  exclusionsOf(generation: Generation | undefined): Exclusion[] {
    const concerned = this.#exclusions.all.filter(({ id }) => generationOf(id) === generation?.generation);
    return concerned.slice(-MAX_REPORTED_FAILURES);
  }

  /** Generations were forgotten: nobody can miss what was excluded there. */
  prune(): void {
    this.#exclusions.forget((id) => this.#generations.of(id) === undefined);
  }

  /** For status pages: those held by some, oldest first. */
  snapshot(): Pick<CoordinatorSnapshot, 'openCollectives' | 'collectives'> {
    const collectives = [...this.#held].slice(0, MAX_SHOWN).map(([id, { generation, by }]) => {
      const members = this.#exclusions.left(id, this.#generations.get(generation)?.members ?? []);
      return { id, held: by.size, awaited: members.filter((peerId) => !by.has(peerId)).slice(0, MAX_SHOWN) };
    });
    return { openCollectives: this.#held.size, collectives };
  }
}
