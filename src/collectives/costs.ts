/**
 * What paths between members cost: the figures of the model by which `auto` chooses (select.ts). All ranks must choose by the same
 * ones. Today each takes `DEFAULT_COSTS`; figures made of measured ways (`calibrate`) may only come to a peer as a fact of its view
 * (`ViewOf.costs`), which the coordinator has given to all of its members: then they are the same for every call that belongs to it.
 */
import type { Rank, Sites } from './program.ts';

/** What a class of paths costs. Plain data, so that figures can be agreed and handed on. */
export interface CostFigures {
  /** α: from a send to the receiver's next instruction. */
  readonly hopSeconds: number;
  /** β: one byte out of a rank. */
  readonly byteSeconds: number;
  /** γ: one byte (of f32) accumulated, with the copies to and from the caller's tensors. */
  readonly reduceByteSeconds: number;
  /** μ: what one more message costs a rank that sends many at once. */
  readonly messageSeconds: number;
  /** κ: how much slower bytes go when all ranks send to all at once than along a ring. */
  readonly crowding: number;
}

/** Paths within a site, and between sites. */
export interface Costs {
  readonly near: CostFigures;
  readonly far: CostFigures;
}

/**
 * Measured between processes on one host (`npm run bench:algorithms` gives the figures to set here); between sites a good line of
 * 1 Gbit/s over 20 ms is supposed.
 */
export const DEFAULT_COSTS: Costs = {
  near: {
    hopSeconds: 40e-6,
    byteSeconds: 1e-9,
    reduceByteSeconds: 0.8e-9,
    messageSeconds: 5e-6,
    crowding: 1.25,
  },
  far: {
    hopSeconds: 10e-3,
    byteSeconds: 8e-9,
    reduceByteSeconds: 0.8e-9,
    messageSeconds: 5e-6,
    crowding: 1.25,
  },
};

/** A way from one rank to another as it was measured; null: it was not. */
export interface MeasuredWay {
  readonly from: Rank;
  readonly to: Rank;
  readonly bytesPerSecond: number | null;
  /** Half of a round trip, milliseconds. */
  readonly delayMs: number | null;
}

/** Figures are told apart in steps of this factor, so that noise changes none. */
const STEP = 2 ** 0.25;

function median(values: readonly number[]): number | null {
  const sorted = [...values].sort((left, right) => left - right);
  return sorted[sorted.length >> 1] ?? null;
}

/** A figure from what was measured: no less than `floor`, in steps from there. */
function stepped(measured: number | null, floor: number): number | null {
  if (measured === null) return null;
  return floor * STEP ** Math.round(Math.log2(Math.max(1, measured / floor)) / Math.log2(STEP));
}

function calibrated(ways: readonly MeasuredWay[], known: CostFigures, floor: CostFigures): CostFigures {
  const delay = median(ways.flatMap(({ delayMs }) => (delayMs === null ? [] : [delayMs / 1_000])));
  const perByte = median(ways.flatMap(({ bytesPerSecond: rate }) => (rate === null ? [] : [1 / rate])));
  return {
    ...known,
    hopSeconds: stepped(delay === null ? null : floor.hopSeconds + delay, floor.hopSeconds) ?? known.hopSeconds,
    byteSeconds: stepped(perByte, floor.byteSeconds) ?? known.byteSeconds,
  };
}

/**
 * Figures for these members, from measured ways between them. The median of each class counts, as one bad way is a matter for the order of
 * the ring. What a hop or a byte costs the processor is never less than between processes of one host, so the figures for these are
 * the least that come out; what was not measured stays as it is in `known`.
 *
 * @param sites of each rank
 */
export function calibrate(ways: readonly MeasuredWay[], sites: Sites, known: Costs = DEFAULT_COSTS): Costs {
  const isNear = ({ from, to }: MeasuredWay): boolean => sites[from] === sites[to];
  const floor = DEFAULT_COSTS.near;
  return {
    near: calibrated(ways.filter(isNear), known.near, floor),
    far: calibrated(
      ways.filter((way) => !isNear(way)),
      known.far,
      floor,
    ),
  };
}
