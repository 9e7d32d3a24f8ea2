/**
 * What a coordinator that was restarted makes of its members' reports: pure functions.
 *
 * Views are merged by generation; of two reports of one generation the one with the higher epoch is newer, as losses only
 * shrink a generation and raise its epoch.
 */
import type { WireView } from '../wire/parts.ts';
import type { RunReport } from '../wire/peer-messages.ts';

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
export function newestMembers(reports: Iterable<RunReport>): readonly string[] {
  const newest = rebuild(reports).views.at(-1);
  return newest?.members.map((member) => member.peerId) ?? [];
}
