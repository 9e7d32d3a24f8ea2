/**
 * What `algorithm: 'auto'` means: the algorithm for which a cost model promises the least time. A pure function of what
 * all ranks agree on, so that they choose alike without asking one another.
 *
 * α seconds a hop, β seconds a byte sent, γ seconds a byte reduced, μ seconds a further message, κ for crowded links, n bytes, N ranks,
 * s bytes of a segment (or n, if less).
 * Terms as in R. Thakur, R. Rabenseifner, W. Gropp, "Optimization of Collective Communication Operations in MPICH" (2005),
 * and, for the two trees, P. Sanders, J. Speck, J. L. Träff, "Two-tree algorithms for full bandwidth broadcast, reduction
 * and scan" (2009). Segments travel in a pipeline, so a path of h hops costs h·α, its bandwidth term once, and one
 * segment more for each hop after the first.
 */

import { isRobust, type ReduceOp } from '../tensor.ts';
import { type Codec, isBlockCodec } from './codec.ts';
import { type CostFigures, type Costs, DEFAULT_COSTS } from './costs.ts';
import { algorithmsOf } from './plan.ts';
import type { Algorithm, CollectiveKind, Sites } from './program.ts';
import { SEGMENT_BYTES } from './workspace.ts';

export interface Choice {
  readonly kind: CollectiveKind;
  readonly worldSize: number;
  /** As in a `PlanRequest`. */
  readonly sites?: Sites;
  /** Bytes of the request's `count` elements. */
  readonly bytes: number;
  readonly codec: Codec;
  /** null for kinds that reduce nothing. */
  readonly op: ReduceOp | null;
}

/** How ranks are spread over sites. */
interface Spread {
  readonly sites: number;
  /** Ranks of the largest and of the smallest site. */
  readonly most: number;
  readonly fewest: number;
  /** Pairs of neighbours in the ring of ranks that are in different sites. */
  readonly crossings: number;
}

function spreadOf({ worldSize, sites }: Choice): Spread {
  if (sites === undefined) return { sites: 1, most: worldSize, fewest: worldSize, crossings: 0 };
  const sizes: number[] = [];
  let crossings = 0;
  for (const [rank, site] of sites.entries()) {
    sizes[site] = (sizes[site] ?? 0) + 1;
    if (sites[(rank + 1) % worldSize] !== site) crossings += 1;
  }
  return { sites: sizes.length, most: Math.max(...sizes), fewest: Math.min(...sizes), crossings };
}

/**
 * What an algorithm that knows nothing of sites pays: the long way at every hop, but for the ring, of whose hops only some are
 * long; in a pipeline its slowest link sets the rate.
 */
function flatFigures(spread: Spread, algorithm: Algorithm, worldSize: number, { near, far }: Costs): CostFigures {
  if (spread.sites === 1) return near;
  if (algorithm !== 'ring') return far;
  const share = spread.crossings / worldSize;
  return {
    ...far,
    hopSeconds: share * far.hopSeconds + (1 - share) * near.hopSeconds,
    byteSeconds: Math.max(near.byteSeconds, far.byteSeconds),
  };
}

/** ⌊log2⌋ of a whole number from 1, the same in every engine. */
function levels(size: number): number {
  return 31 - Math.clz32(size);
}

/** ⌈log2⌉ of a whole number from 1. */
function rounds(size: number): number {
  return 32 - Math.clz32(size - 1);
}

/**
 * Seconds that the model gives an algorithm; infinite for one that the kind does not have.
 *
 * @param costs what all ranks agree on
 */
export function predictSeconds(choice: Choice, algorithm: Algorithm, costs: Costs = DEFAULT_COSTS): number {
  const { worldSize: ranks, bytes } = choice;
  const spread = spreadOf(choice);
  const figures = flatFigures(spread, algorithm, ranks, costs);
  const { hopSeconds: alpha, byteSeconds: beta, reduceByteSeconds: gamma, messageSeconds, crowding } = figures;
  const segment = Math.min(bytes, SEGMENT_BYTES);
  const others = ranks - 1;
  const share = (others / ranks) * bytes;
  switch (`${choice.kind}/${algorithm}` as const) {
    case 'allReduce/ring':
      // 2(N−1)α + 2(N−1)/N·nβ + (N−1)/N·nγ
      return 2 * others * alpha + 2 * share * beta + share * gamma;
    case 'allReduce/tree': {
      // h = ⌊log2 N⌋, up and down: 2hα + 2nβ + (2h−2)sβ + nγ. An inner node sends half the vector to its parent and to two
      // children in one tree, and once as a leaf of the other: 2n. Between two ranks it is n, as in the ring.
      const hops = 2 * levels(ranks);
      const sent = ranks <= 2 ? bytes : 2 * bytes;
      const fill = Math.max(0, hops - 2) * Math.min(bytes / 2, segment);
      return hops * alpha + (sent + fill) * beta + bytes * gamma;
    }
    case 'allReduce/doubling':
    case 'barrier/doubling': {
      // log2 N · (α + nβ + nγ); two hops more, one of them with a reduction, when N is no power of two
      const full = levels(ranks);
      const folds = full === rounds(ranks) ? 0 : 1;
      return (full + 2 * folds) * (alpha + bytes * beta) + (full + folds) * bytes * gamma;
    }
    case 'allReduce/halving':
      // 2⌈log2 N⌉α + 2(N−1−⌈log2 N⌉)μ + 2(N−1)/N·n·√κ·β + (N−1)/N·nγ
      return 2 * halvingPhase(ranks, bytes, figures) + share * gamma;
    case 'reduceScatter/halving':
      return halvingPhase(ranks, bytes, figures) + share * gamma;
    case 'allReduce/hierarchical':
      return 2 * hierarchicalPhase(spread, bytes, costs) + share * costs.near.reduceByteSeconds;
    case 'reduceScatter/hierarchical':
      return hierarchicalPhase(spread, bytes, costs) + share * costs.near.reduceByteSeconds;
    case 'allReduce/direct': {
      // 2(α + (N−1)(μ + κ·n/N·β)) + (N−1)/N·nγ
      return 2 * (alpha + others * messageSeconds + crowding * share * beta) + share * gamma;
    }
    case 'broadcast/ring':
      // (N−1)α + nβ + (N−2)sβ
      return others * alpha + (bytes + Math.max(0, ranks - 2) * segment) * beta;
    case 'broadcast/tree':
      // ⌈log2 N⌉(α + nβ): the root sends the vector that often
      return rounds(ranks) * (alpha + bytes * beta);
    case 'reduce/ring':
      // as broadcast, and nγ + (N−2)sγ
      return others * alpha + (bytes + Math.max(0, ranks - 2) * segment) * (beta + gamma);
    case 'reduce/tree':
      return rounds(ranks) * (alpha + bytes * (beta + gamma));
    case 'reduceScatter/ring':
      // (N−1)α + (N−1)/N·n(β + γ)
      return others * alpha + share * (beta + gamma);
    case 'reduceScatter/direct':
      // the first half of allReduce/direct: α + (N−1)(μ + κ·n/N·β) + (N−1)/N·nγ
      return alpha + others * messageSeconds + crowding * share * beta + share * gamma;
    case 'allGather/ring':
      // (N−1)(α + nβ), n the bytes of one part
      return others * (alpha + bytes * beta);
    case 'allGather/direct':
    case 'allToAll/direct':
    case 'gather/direct':
    case 'scatter/direct':
      // α + (N−1)(μ + κ·nβ)
      return alpha + others * (messageSeconds + crowding * bytes * beta);
    default:
      return Number.POSITIVE_INFINITY;
  }
}

/** Several partners, but not all at once: links are crowded by half, on a logarithmic scale. */
function halfCrowded({ crowding, byteSeconds }: CostFigures, ranks: number): number {
  return (ranks > 2 ? Math.sqrt(crowding) : 1) * byteSeconds;
}

/** One way of recursive halving, without what adding up costs. A rank sends N−1 messages, of which one a round is in α. */
function halvingPhase(ranks: number, bytes: number, figures: CostFigures): number {
  const extra = ranks - 1 - rounds(ranks);
  const sent = ((ranks - 1) / ranks) * bytes;
  return rounds(ranks) * figures.hopSeconds + extra * figures.messageSeconds + sent * halfCrowded(figures, ranks);
}

/**
 * One way between the ranks and the owners through sites: that of halving in the largest site, and between as many sites, of which
 * each sends (k−1)/k·n by the ranks of the smallest one.
 */
function hierarchicalPhase({ sites, most, fewest }: Spread, bytes: number, { near, far }: Costs): number {
  const sent = ((sites - 1) / sites) * (bytes / fewest);
  const between = rounds(sites) * far.hopSeconds + sent * halfCrowded(far, sites * fewest);
  return halvingPhase(most, bytes, near) + between;
}

/**
 * What `auto` chooses among. What knows of sites is worth something where there are several, and not each rank is one. Robust averages need all contributions at one rank, so they go straight. So do, in an all-reduce, codecs
 * that share scales: they are coarse, and what they drop adds up at each hop, of which there are two that way whatever N is. With
 * any codec that drops bits, recursive doubling is out: there every rank computes the result for itself, from its own exact value and
 * its partner's rounded one, so two ranks would differ. What else adds up was not measured to be faster straight.
 */
function candidatesFor(choice: Choice): readonly Algorithm[] {
  const { kind, codec, op } = choice;
  const { sites, most } = spreadOf(choice);
  const offered = algorithmsOf(kind).filter((name) => name !== 'hierarchical' || (sites > 1 && most > 1));
  if (isRobust(op)) return ['direct'];
  if (kind !== 'allReduce' && kind !== 'reduceScatter') return offered;
  if (kind === 'allReduce' && isBlockCodec(codec)) return ['direct'];
  return offered.filter((name) => name !== 'direct' && (codec === 'f32' || name !== 'doubling'));
}

/** What the model says of an algorithm. */
export interface Prediction {
  readonly algorithm: Algorithm;
  readonly seconds: number;
}

/** Predictions that differ less are equal: the same sum in another order. */
const DIGITS = 9;

/** Why `auto` chooses what it does: its candidates, the best first. Of equals the simpler comes first. */
export function explainChoice(choice: Choice, costs: Costs = DEFAULT_COSTS): readonly Prediction[] {
  return candidatesFor(choice)
    .map((algorithm) => ({ algorithm, seconds: predictSeconds(choice, algorithm, costs) }))
    .sort((left, right) => rounded(left.seconds) - rounded(right.seconds));
}

function rounded(seconds: number): number {
  return Number(seconds.toPrecision(DIGITS));
}

/** The algorithm that `auto` stands for. */
export function chooseAlgorithm(choice: Choice, costs: Costs = DEFAULT_COSTS): Algorithm {
  return explainChoice(choice, costs)[0]!.algorithm; // no kind is without candidates
}
