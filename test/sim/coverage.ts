/**
 * Which parts of the protocol a campaign comes to: V8 knows of every method of the machines whether it was called. One that never
 * was means that the simulator has a blind spot.
 */
import { Session } from 'node:inspector/promises';

/** The machines, and what they compute with: all of both rooms, so that a new file counts from its first day. */
const MACHINES = /\/src\/((?:membership|collectives)\/[\w-]+)\.js$/;

/** What the simulation has no part in. */
const ELSEWHERE: ReadonlySet<string> = new Set([
  // Tell people how things are, for which it asks only when a run fails.
  'membership/coordinator snapshot',
  'membership/agreement snapshot',
  'membership/roster inState',
  'membership/tuning ringOf',
  'membership/tuning get links',
  'membership/rings get links',
  'membership/link-rates of',
  'collectives/collectives get ring',
  'collectives/collectives flight',
  'collectives/collectives get next',
  'collectives/context get next',
  'collectives/flight tell',
  'collectives/flight at',
  // Of a call that goes on without another before it is made here, for which the others must be seconds ahead.
  'collectives/context foretellExclusion',
  // Of more neighbours than a simulation has peers.
  'collectives/flight get lastAt',
  // Of more calls than a simulated peer makes.
  'collectives/flight get isOpen',
  'collectives/operation awaits',
  'membership/paths of',
  // Of coordinators that die when a member has just been excluded, or was let in and lost again before it knew: seldom, and in tests of their own.
  'membership/agreement addExclusion',
  'membership/roster bury',
  // For peers that break the protocol, which its own never do: the fuzzers see to those.
  'membership/coordinator #expel',
  'membership/agreement busiest',
]);

export interface Visit {
  /** `membership/agreement onDone`. */
  readonly place: string;
  readonly visited: boolean;
}

export async function findVisits(run: () => Promise<void>): Promise<Visit[]> {
  const session = new Session();
  session.connect();
  await session.post('Profiler.enable');
  // To count the calls would keep V8 from compiling what is called often, and take twice as long.
  await session.post('Profiler.startPreciseCoverage', { callCount: false, detailed: false });
  await run();
  const { result } = await session.post('Profiler.takePreciseCoverage');
  session.disconnect();
  const visits: Visit[] = [];
  for (const script of result) {
    const machine = MACHINES.exec(script.url)?.[1];
    if (machine === undefined) continue;
    for (const { functionName, ranges } of script.functions) {
      if (functionName === '' || functionName.startsWith('<')) continue;
      const place = `${machine} ${functionName}`;
      if (!ELSEWHERE.has(place)) visits.push({ place, visited: (ranges[0]?.count ?? 0) > 0 });
    }
  }
  return visits.sort((left, right) => left.place.localeCompare(right.place));
}
