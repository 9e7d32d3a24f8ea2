/**
 * How often a campaign comes to each part of the protocol: V8 counts the calls of every method of the machines. One that is
 * never called means that the simulator has a blind spot.
 */
import { Session } from 'node:inspector/promises';

/** The machines; what handles an event or makes a transition there is a method of its own. */
const MACHINES =
  /\/src\/(membership\/(coordinator|detector|history|paths|recovery)|collectives\/(collectives|executor|arrivals|context|inbound|operation|ports|recent|relay|residuals|routes|salvage))\.js$/;

/**
 * In which the simulation has no part: what tells people how things are, which it asks for only when a run fails, and what
 * happens to peers that break the protocol, which its peers never do (the fuzzers see to those).
 */
const ELSEWHERE = new Set(['snapshot', 'inState', 'get waitsFor', 'waitsFor', '#expel', '#busiest']);

export interface Visit {
  /** `membership/coordinator onDone`. */
  readonly place: string;
  readonly count: number;
}

export async function countVisits(run: () => Promise<void>): Promise<Visit[]> {
  const session = new Session();
  session.connect();
  await session.post('Profiler.enable');
  await session.post('Profiler.startPreciseCoverage', { callCount: true, detailed: false });
  await run();
  const { result } = await session.post('Profiler.takePreciseCoverage');
  session.disconnect();
  const visits: Visit[] = [];
  for (const script of result) {
    const machine = MACHINES.exec(script.url)?.[1];
    if (machine === undefined) continue;
    for (const { functionName, ranges } of script.functions) {
      if (functionName === '' || functionName.startsWith('<') || ELSEWHERE.has(functionName)) continue;
      visits.push({ place: `${machine} ${functionName}`, count: ranges[0]?.count ?? 0 });
    }
  }
  return visits.sort((left, right) => left.place.localeCompare(right.place));
}
