/**
 * How a coordinator that was restarted finds out what the run is: it waits for its members' reports, and makes the run of them.
 *
 * Views are merged by generation; of two reports of one generation the one with the higher epoch is newer, as losses only
 * shrink a generation and raise its epoch. Who is in no newest view was lost before, and must not come back.
 */
import { MAX_REPORTED_FAILURES, MAX_REPORTED_VIEWS, MAX_TEXT_LENGTH } from '../wire/limits.ts';
import type { WireView } from '../wire/parts.ts';
import type { RunReport } from '../wire/peer-messages.ts';
import type { Failure } from './agreement.ts';
import type { PeerId } from './events.ts';
import type { Generation } from './generations.ts';
import { type Lost, namesIn } from './roster.ts';

export interface Rebuilt {
  /** Highest that anybody has heard of. */
  readonly epoch: number;
  /** Highest that anybody has passed. */
  readonly boundary: number;
  /** Oldest first. */
  readonly views: readonly WireView[];
}

export function rebuild(reports: Iterable<RunReport>): Rebuilt {
  const views = new Map<number, WireView>();
  let epoch = 0;
  let boundary = 0;
  for (const report of reports) {
    boundary = Math.max(boundary, report.boundary);
    epoch = Math.max(epoch, report.epoch);
    for (const view of report.views) {
      const known = views.get(view.generation);
      if (known === undefined || known.epoch < view.epoch) views.set(view.generation, view);
    }
  }
  const sorted = [...views.values()].sort((left, right) => left.generation - right.generation);
  return { epoch, boundary, views: sorted };
}

/** Members of the newest view that is reported: whom a coordinator waits for. */
export function newestMembers(reports: Iterable<RunReport>): readonly PeerId[] {
  return membersOf(rebuild(reports).views.at(-1));
}

/** As the coordinator before this one has made them; who came in with each is who was not in the one before. */
export function generationsOf(views: readonly WireView[]): Generation[] {
  return views.map((view, index) => {
    const members = membersOf(view);
    const before = membersOf(views[index - 1]);
    const joined = members.filter((peerId) => !before.includes(peerId));
    const ring = [...view.members].sort((left, right) => left.place - right.place).map(({ peerId }) => peerId);
    return { ...view, members, joined, ring };
  });
}

function membersOf(view: WireView | undefined): PeerId[] {
  return view?.members.map((member) => member.peerId) ?? [];
}

export class Recovery {
  /** When its patience ends. */
  readonly until: number;
  readonly #reports: Map<PeerId, RunReport> = new Map();
  #awaited: ReadonlySet<PeerId>;

  constructor(awaited: readonly PeerId[], until: number) {
    this.until = until;
    this.#awaited = new Set(awaited);
  }

  get reports(): ReadonlyMap<PeerId, RunReport> {
    return this.#reports;
  }

  awaits(peerId: PeerId): boolean {
    return this.#awaited.has(peerId);
  }

  /** Those of whom it tells are waited for, too. */
  add(peerId: PeerId, report: RunReport): void {
    this.#reports.set(peerId, report);
    this.#awaited = new Set([...this.#awaited, ...newestMembers(this.#reports.values())]);
  }

  isComplete(isHere: (peerId: PeerId) => boolean): boolean {
    return [...this.#awaited].every(isHere);
  }

  /** A peer tells of a failure after its report: it is as if it had reported that. Whether it has reported at all. */
  addFailure(by: PeerId, failure: Failure): boolean {
    const report = this.#reports.get(by);
    if (report === undefined) return false;
    const failed = [...report.failed, { ...failure, message: failure.message.slice(0, MAX_TEXT_LENGTH) }];
    this.#reports.set(by, { ...report, failed: failed.slice(-MAX_REPORTED_FAILURES) });
    return true;
  }

  /** Who reported, or is named in a report, and is not in the newest view. */
  strangers(): PeerId[] {
    const present = new Set(newestMembers(this.#reports.values()));
    const named = new Set([...this.#reports.values()].flatMap((report) => [...namesIn(report)]));
    return [...this.#reports.keys(), ...named].filter((peerId) => !present.has(peerId));
  }

  /** Members so far behind that nobody remembers what was decided at their next boundaries. */
  laggards(): Lost[] {
    let horizon = 0;
    for (const { views } of this.#reports.values())
      if (views.length === MAX_REPORTED_VIEWS) horizon = Math.max(horizon, views[0]!.boundary);
    const behind = [...this.#reports].filter(([, report]) => report.boundary < horizon);
    return behind.map(([peerId]) => ({ peerId, reason: 'it was too far behind when the coordinator was restarted' }));
  }
}
