/** The figures of a run of chaos, as the terminal, the page and programs get them. */
import type { PacketCounts } from './packets.ts';
import { FAULT_KINDS, type FaultKind, type Inflicted, MOMENTS, type Moment } from './plan.ts';
import type { Verdict } from './verdict.ts';

export interface Summary {
  readonly command: string;
  readonly seed: number;
  readonly peers: number;
  /** Collectives per second without faults; null when that was not measured. */
  readonly calmRate: number | null;
  readonly verdict: Verdict;
  readonly recoveries: readonly RecoverySummary[];
  readonly moments: readonly MomentSummary[];
  /** What the relay did; null when there was none. */
  readonly packets: PacketCounts | null;
}

export interface RecoverySummary {
  readonly kind: FaultKind;
  readonly count: number;
  readonly medianMs: number;
  readonly p99Ms: number;
  readonly maxMs: number;
}

function quantile(sorted: readonly number[], share: number): number {
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? 0;
}

/** The pauses by kind of fault; kinds without any are left out. */
export function summarizeRecoveries({ recoveries }: Verdict): readonly RecoverySummary[] {
  return FAULT_KINDS.flatMap((kind) => {
    const pauses = recoveries.filter((one) => one.kind === kind).map((one) => one.pauseMs);
    if (pauses.length === 0) return [];
    const sorted = pauses.sort((left, right) => left - right);
    const [medianMs, p99Ms, maxMs] = [0.5, 0.99, 1].map((share) => quantile(sorted, share)) as [number, number, number];
    return [{ kind, count: sorted.length, medianMs, p99Ms, maxMs }];
  });
}

/** Faults that waited for a moment. */
interface MomentSummary {
  readonly moment: Moment;
  readonly waited: number;
  /** For how many it came; the others were inflicted without it. */
  readonly hit: number;
}

export function summarizeMoments(inflicted: readonly Inflicted[]): readonly MomentSummary[] {
  return MOMENTS.flatMap((moment) => {
    const waiting = inflicted.filter((one) => one.fault.moment === moment);
    return waiting.length === 0
      ? []
      : [{ moment, waited: waiting.length, hit: waiting.filter((one) => one.hit).length }];
  });
}

const MOMENT_TEXTS: Readonly<Record<Moment, string>> = {
  now: 'at random times',
  begun: 'as a collective began',
  settled: 'as one ended',
  recovery: 'during a recovery',
  view: 'as a view was formed',
  'coordinator-back': 'as the coordinator came back',
};

/** Names and values of what is not in a table. */
export function figures(summary: Summary): readonly (readonly [string, string])[] {
  const { verdict, moments, calmRate, packets } = summary;
  const { steps, rate, equalState } = verdict;
  const failed = Object.entries(verdict.failed).map(([code, count]) => `${count} × ${code}`);
  const kept =
    calmRate === null ? '' : `, ${((rate / calmRate) * 100).toFixed(0)} % of the calm run's ${calmRate.toFixed(1)}`;
  const shown = moments.map(({ moment, waited, hit }) =>
    moment === 'now' ? `${hit} ${MOMENT_TEXTS[moment]}` : `${hit} of ${waited} ${MOMENT_TEXTS[moment]}`,
  );
  const total = moments.reduce((sum, one) => sum + one.waited, 0);
  const lines: (readonly [string, string])[] = [
    ['faults', total === 0 ? 'none' : `${total}: ${shown.join(', ')}`],
    ['steps', `${steps.done} done, ${steps.lost} lost`],
    ["peers' shares of steps", `${steps.sharesDone} done, ${steps.sharesLost} lost`],
    ['collectives', `${verdict.collectives} completed, ${verdict.redone} of them begun anew`],
    ['calls that failed', failed.length === 0 ? 'none' : failed.join(', ')],
    ['collectives per second', `${rate.toFixed(1)}${kept}`],
    ['equal results at the end', equalState === null ? 'unknown: nobody was left' : equalState ? 'yes' : 'NO'],
  ];
  if (packets !== null) {
    const { passed, overtook, corrupted, dropped } = packets;
    lines.push([
      'packets by way of the relay',
      `${passed}, ${overtook} overtook, ${corrupted} damaged, ${dropped} dropped`,
    ]);
  }
  return lines;
}
