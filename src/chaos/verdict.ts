/** What came of a run of chaos: which invariants were broken, and what the faults cost. Pure functions of what was observed. */
import type { ObservedLine } from '../observe.ts';
import { isExcused } from './blame.ts';
import { type Ended, endOf, type Life } from './observations.ts';
import { describeFault, type Fault, type Inflicted } from './plan.ts';
import { countSteps, type StepCounts } from './steps.ts';

export interface Evidence {
  readonly lives: readonly Life[];
  readonly inflicted: readonly Inflicted[];
  readonly ended: readonly Ended[];
  /** How the coordinator ended by itself. */
  readonly coordinatorEnds: readonly (number | string)[];
  /** When faults could begin, when the last one was over, and when the run was stopped (ms since 1970). */
  readonly from: number;
  readonly calmFrom: number;
  readonly to: number;
  /** Milliseconds after a fault in which its victim may still fail by it. */
  readonly blameMs: number;
  /** Milliseconds in which a peer that goes on completes something. */
  readonly pauseMs: number;
}

interface Recovery {
  readonly fault: string;
  readonly kind: Fault['kind'];
  /** The longest pause between two results on the slowest peer that was not its victim, from this fault until the next. */
  readonly pauseMs: number;
}

export interface Verdict {
  /** Invariants that were broken, in words; none is how it must be. */
  readonly broken: readonly string[];
  readonly recoveries: readonly Recovery[];
  /** Collectives that somebody completed. */
  readonly collectives: number;
  readonly steps: StepCounts;
  /** Of the collectives, how many were begun anew because a peer or a link was lost. */
  readonly redone: number;
  /** Calls that failed, by code. */
  readonly failed: Readonly<Record<string, number>>;
  /** Completed collectives per second, from the first fault's time to the end. */
  readonly rate: number;
  /** Whether the last collective that all living peers completed had the same result on all; null when there is none. */
  readonly equalState: boolean | null;
}

/** Codes for which no fault is a reason, whatever hit the peer that got them. */
const NEVER: ReadonlySet<string> = new Set(['SKEIN_MISMATCH', 'SKEIN_PROTOCOL', 'SKEIN_UNAUTHORIZED']);

/** Who had its first result so shortly before the end may have no other (ms). */
const NEWCOMER_MS = 1_000;

type Settled = Extract<ObservedLine, { type: 'settled' }>;

function settledOf(life: Life): Settled[] {
  return life.lines.flatMap((line) => (line.type === 'settled' ? [line] : []));
}

/** All that report one collective must agree on its epoch, its contributors and, where all hold it, its result. */
function disagreements(lives: readonly Life[]): string[] {
  const known = new Map<string, { readonly line: Settled; readonly life: Life }>();
  const broken: string[] = [];
  for (const life of lives) {
    for (const line of settledOf(life)) {
      const { id, epoch, contributors } = line.report;
      const other = known.get(id);
      if (other === undefined) {
        known.set(id, { line, life });
        continue;
      }
      const before = other.line;
      const where = `collective ${id} on peer ${life.index} and on peer ${other.life.index}`;
      if (before.report.epoch !== epoch) broken.push(`agreement: ${where} is of different epochs`);
      else if (before.report.contributors.join() !== contributors.join())
        broken.push(`agreement: ${where} has different contributors`);
      else if (before.hash !== line.hash) broken.push(`agreement: ${where} has different results`);
    }
  }
  return broken;
}

function brokenLives(lives: readonly Life[]): string[] {
  const broken: string[] = [];
  for (const { index, lines } of lives) {
    let peerId: string | undefined;
    let epoch = 0;
    for (const line of lines) {
      if (line.type === 'joined') {
        // A process may join again, for example when it was evicted: what it was before does not count any more.
        peerId = line.peerId;
        epoch = 0;
      } else if (line.type === 'view') {
        if (line.epoch < epoch) broken.push(`epochs: peer ${index} went from epoch ${epoch} back to ${line.epoch}`);
        epoch = line.epoch;
      } else if (line.type === 'failed' && NEVER.has(line.code)) {
        broken.push(`errors: peer ${index} got ${line.code}, which no fault may cause: ${line.message}`);
      } else if (line.type === 'settled' && peerId !== undefined && !line.report.contributors.includes(peerId)) {
        broken.push(`agreement: peer ${index} completed ${line.report.id} without having contributed`);
      }
    }
  }
  return broken;
}

function unexplainedEnds(evidence: Evidence): string[] {
  const { inflicted, blameMs } = evidence;
  const ends = evidence.ended.flatMap(({ index, at, how, byFault }) =>
    byFault || how === 0 || isExcused(index, at, inflicted, blameMs)
      ? []
      : [`exit: peer ${index} ended with ${how}, for which no fault is a reason`],
  );
  const evictions = evidence.lives.flatMap(({ index, lines }) =>
    lines.flatMap((line) =>
      line.type !== 'evicted' || line.at > evidence.to || isExcused(index, line.at, inflicted, blameMs)
        ? []
        : [`eviction: peer ${index} was evicted (${line.reason}), for which no fault is a reason`],
    ),
  );
  const coordinator = evidence.coordinatorEnds.map((how) => `exit: the coordinator ended by itself with ${how}`);
  return [...ends, ...evictions, ...coordinator];
}

/** Since the weather is calm, everybody who lives must have come back, and from then on go on until the end. */
function hangs({ lives, ended, calmFrom, to, pauseMs }: Evidence): string[] {
  const latest = new Map<number, Life>();
  for (const life of lives) {
    const before = latest.get(life.index);
    if (before === undefined || before.restarts < life.restarts) latest.set(life.index, life);
  }
  return [...latest.values()].flatMap((life) => {
    if (endOf(life, ended)?.how === 0) return [];
    const times = settledOf(life).flatMap(({ at }) => (at >= calmFrom && at <= to ? [at] : []));
    const name = `progress: peer ${life.index}`;
    if (times.length === 0) return [`${name} completed nothing in the ${seconds(to - calmFrom)} after the storm`];
    const pause = longestGap([...times, to]);
    return pause <= pauseMs
      ? []
      : [`${name} went on after the storm, and then completed nothing for ${seconds(pause)}`];
  });
}

function seconds(ms: number): string {
  return `${(ms / 1_000).toFixed(0)} s`;
}

function longestGap(times: readonly number[]): number {
  return times.reduce((longest, time, index) => Math.max(longest, time - (times[index - 1] ?? time)), 0);
}

/** The longest time between two results of one process (ms). */
export function longestPause(lives: readonly Life[]): number {
  return Math.max(0, ...lives.map((life) => longestGap(settledOf(life).map((line) => line.at))));
}

/** What is said several times is said once. */
function counted(texts: readonly string[]): readonly string[] {
  const counts = new Map<string, number>();
  for (const text of texts) counts.set(text, (counts.get(text) ?? 0) + 1);
  return [...counts].map(([text, count]) => (count === 1 ? text : `${text} (${count} times)`));
}

function recoveryOf(one: Inflicted, next: number, lives: readonly Life[]): Recovery {
  let pauseMs = 0;
  for (const life of lives) {
    if (one.fault.kind !== 'coordinator' && one.fault.victim === life.index) continue;
    const times = settledOf(life).map((line) => line.at);
    for (let index = 1; index < times.length; index++) {
      const [from, to] = [times[index - 1]!, times[index]!];
      if (to > one.at && from < next) pauseMs = Math.max(pauseMs, to - Math.max(from, one.at));
    }
  }
  return { fault: describeFault(one.fault), kind: one.fault.kind, pauseMs };
}

/** Whether the peers that live at the end hold the same result of the last collective that all of them completed. */
function compareEnds(evidence: Evidence): { readonly equal: boolean | null; readonly apart: boolean } {
  const { lives, ended, calmFrom, to } = evidence;
  const sharedOf = (life: Life) => settledOf(life).filter((line) => line.hash !== null);
  // Those that lived after the storm, or had done all their work before its end.
  const holders = lives.flatMap((life) => {
    const lines = sharedOf(life);
    const end = endOf(life, ended);
    const isDone = end?.how === 0 && !end.byFault;
    return lines.some((line) => isDone || line.at >= calmFrom) ? [lines] : [];
  });
  const last = lastCommon(holders);
  // Who has done its work may have gone before another came, and of a newcomer's first result the others' records may lack.
  const stayed = lives
    .filter((life) => endOf(life, ended) === undefined)
    .map((life) => sharedOf(life).filter((line) => line.at >= calmFrom))
    .filter((lines) => (lines[0]?.at ?? to) < to - NEWCOMER_MS);
  const apart = stayed.length > 0 && lastCommon(stayed) === null;
  return { equal: last === null ? null : new Set(last).size === 1, apart };
}

/** What each holds of the last collective that all of them completed; null when there is none. */
function lastCommon(holders: readonly (readonly Settled[])[]): readonly (string | null)[] | null {
  const results = holders.map((lines) => new Map(lines.map((line) => [line.report.id, line.hash])));
  const [first] = results;
  const id = [...(first?.keys() ?? [])].findLast((one) => results.every((other) => other.has(one)));
  return id === undefined ? null : results.map((one) => one.get(id) ?? null);
}

export function judge(evidence: Evidence): Verdict {
  const { lives, inflicted, from, to } = evidence;
  const failed: Record<string, number> = {};
  const redone = new Set<string>();
  const all = new Set<string>();
  const during = new Set<string>();
  for (const life of lives) {
    for (const line of life.lines) {
      if (line.type === 'failed') failed[line.code] = (failed[line.code] ?? 0) + 1;
      if (line.type !== 'settled') continue;
      all.add(line.report.id);
      if (line.report.retries > 0) redone.add(line.report.id);
      if (line.at >= from && line.at <= to) during.add(line.report.id);
    }
  }
  const { equal: equalState, apart } = compareEnds(evidence);
  const broken = [...disagreements(lives), ...brokenLives(lives), ...unexplainedEnds(evidence)];
  if (all.size > 0) broken.push(...hangs(evidence));
  else broken.push('progress: no peer ever completed a collective: does the script use Skein, and all peers make one?');
  if (equalState === false) broken.push('parity: the peers ended with different results of their last collective');
  if (apart) broken.push('parity: the peers that were left had completed no collective together since the storm');
  return {
    broken: counted(broken),
    recoveries: inflicted.map((one, index) => recoveryOf(one, inflicted[index + 1]?.at ?? to, lives)),
    steps: countSteps(lives, evidence.ended),
    collectives: all.size,
    redone: redone.size,
    failed,
    rate: during.size / Math.max(1e-3, (to - from) / 1_000),
    equalState,
  };
}
