/**
 * Which faults are a reason for a peer to fail. The coordinator evicts whom it has not heard for longer than the detector's
 * bound; so only what silences a peer towards the coordinator for that long, or ends it, excuses its eviction, and its failure by
 * that. All else must pass without harm. Pure functions of what was inflicted.
 */
import { type Inflicted, LOST_AFTER_MS } from './plan.ts';

/** From so many lost packets of a hundred on, a heartbeat may be lost several times in a row. */
const HEAVY_LOSS_PERCENT = 20;

/** A peer was last heard a heartbeat before it was silenced, and needs a moment until it is heard again (ms). */
const SLACK_MS = 500;

interface Silence {
  readonly from: number;
  readonly until: number;
}

/**
 * On a network that passes nothing TCP tries again after pauses that double: the first try after the end may come as long after
 * it as the beginning lies before it.
 */
function withBackOff({ at, until }: Inflicted): Silence {
  return { from: at, until: until + (until - at) + SLACK_MS };
}

/** When the coordinator may have heard nothing of a peer because of a fault; null when it could hear it all the time. */
function silenceOf(one: Inflicted, index: number): Silence | null {
  const { fault, at, until } = one;
  if (fault.kind === 'coordinator' || fault.victim !== index) return null;
  switch (fault.kind) {
    case 'stop':
      return { from: at, until: until + SLACK_MS };
    case 'partition':
      return fault.others.includes('coordinator') ? withBackOff(one) : null;
    case 'loss':
      return fault.percent >= HEAVY_LOSS_PERCENT ? withBackOff(one) : null;
    case 'kill':
    case 'restart':
    case 'slow':
    case 'delay':
    case 'reorder':
    case 'corrupt':
      return null;
    default:
      return fault satisfies never;
  }
}

/** Silences that follow one another without a pause are one. */
function silencesOf(index: number, inflicted: readonly Inflicted[]): readonly Silence[] {
  const silences = inflicted.flatMap((one) => silenceOf(one, index) ?? []);
  const merged: Silence[] = [];
  for (const next of silences.sort((left, right) => left.from - right.from)) {
    const last = merged.at(-1);
    if (last === undefined || next.from > last.until) merged.push(next);
    else merged[merged.length - 1] = { from: last.from, until: Math.max(last.until, next.until) };
  }
  return merged;
}

function wasEnded({ fault }: Inflicted, index: number): boolean {
  return (fault.kind === 'kill' || fault.kind === 'restart') && fault.victim === index;
}

/**
 * Whether a peer may have been evicted, or have failed because it was lost, at this time.
 * @param blameMs so long after a fault its victim may still fail by it: it finds out when it next needs the others
 */
export function isExcused(index: number, at: number, inflicted: readonly Inflicted[], blameMs: number): boolean {
  const ends = inflicted.filter((one) => wasEnded(one, index)).map((one) => ({ from: one.at, until: one.until }));
  const losses = silencesOf(index, inflicted).filter(({ from, until }) => until - from > LOST_AFTER_MS);
  return [...ends, ...losses].some(({ from, until }) => at >= from && at <= until + blameMs);
}
