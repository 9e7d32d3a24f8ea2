/**
 * Steps done and steps lost. A *step* is what lies between two boundaries; each peer that takes part does its *share* of it. A share
 * is done when the peer gets to the next boundary without a failed call, or ends well after a result; it is lost when the
 * peer is killed or fails in it, which throws away what it had computed. A step is lost when it was begun and nobody's share of it
 * was done. What was under way when the run was stopped is neither.
 */
import { type Ended, endOf, type Life } from './observations.ts';

export interface StepCounts {
  readonly done: number;
  readonly lost: number;
  readonly sharesDone: number;
  readonly sharesLost: number;
}

interface Share {
  readonly step: number;
  state: 'open' | 'done' | 'lost';
}

function sharesOf(life: Life, end: Ended | undefined): readonly Share[] {
  const shares: Share[] = [];
  let completed = false;
  for (const line of life.lines) {
    const current = shares.at(-1);
    if (line.type === 'boundary') {
      if (current?.state === 'open') current.state = 'done';
      shares.push({ step: line.boundary, state: 'open' });
      completed = false;
    } else if (line.type === 'settled') completed = true;
    else if (line.type === 'failed' && current !== undefined) current.state = 'lost';
  }
  const last = shares.at(-1);
  if (last?.state !== 'open' || end === undefined) return shares;
  if (end.how !== 0) last.state = 'lost';
  else if (completed) last.state = 'done';
  // Else it left at the boundary, and had no share in what followed.
  else shares.pop();
  return shares;
}

export function countSteps(lives: readonly Life[], ended: readonly Ended[]): StepCounts {
  const steps = new Map<number, Share['state']>();
  let [sharesDone, sharesLost] = [0, 0];
  for (const life of lives) {
    for (const { step, state } of sharesOf(life, endOf(life, ended))) {
      if (state === 'done') sharesDone++;
      if (state === 'lost') sharesLost++;
      const before = steps.get(step);
      if (before === undefined || state === 'done' || (state === 'open' && before === 'lost')) steps.set(step, state);
    }
  }
  const states = [...steps.values()];
  const count = (wanted: Share['state']) => states.filter((state) => state === wanted).length;
  return { done: count('done'), lost: count('lost'), sharesDone, sharesLost };
}
