/**
 * What `algorithm: 'auto'` means: the algorithm for which a cost model promises the least time. A pure function of what
 * all ranks agree on, so that they choose alike without asking one another.
 *
 * An algorithm is told by how often a rank has to do what takes time (`Work`), and that by what it takes (`costs.ts`):
 *
 *     σ·C + hops·max(α, delay) + max(hops, σ·messages)·μ + (bytes + fill)·max(σ·(1 + κ·(senders − 1))·β, 1/rate) + σ·reduced·γ
 *
 * σ members share a processor. Hops, bytes and reductions as in R. Thakur, R. Rabenseifner, W. Gropp, "Optimization of
 * Collective Communication Operations in MPICH" (2005), and, for the two trees, P. Sanders, J. Speck, J. L. Träff, "Two-tree algorithms for full
 * bandwidth broadcast, reduction and scan" (2009). Segments travel in a pipeline, so a path of h hops costs its bytes once, and a segment
 * more for each further hop. Nothing is computed here but sums, products and quotients, which are the same in every engine.
 */

import { PROCESSOR, type ProcessorFigures, UNMEASURED, type WayCosts, type WayFigures } from '../costs.ts';
import { isRobust, type ReduceOp } from '../tensor.ts';
import { type Codec, isBlockCodec } from './codec.ts';
import { algorithmsOf } from './plan.ts';
import type { Algorithm, CollectiveKind, Sites } from './program.ts';
import { ORDERLESS } from './ring.ts';
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

/** How often a rank has to do what costs time. */
interface Work {
  /** Instructions that wait for one another, on the longest path. */
  readonly hops: number;
  /** Messages out of a rank. */
  readonly messages: number;
  /** Ranks that send to a rank at the same time. */
  readonly senders: number;
  /** Bytes out of a rank. */
  readonly bytes: number;
  /** Bytes that pass before all ranks have something to do: a segment for each further hop of a pipeline. */
  readonly fill: number;
  /** Bytes accumulated. */
  readonly reduced: number;
}

const NOTHING: Work = { hops: 0, messages: 0, senders: 1, bytes: 0, fill: 0, reduced: 0 };

/** Messages of a vector of so many bytes: one at least. */
function segmentsOf(bytes: number): number {
  return Math.max(1, Math.ceil(bytes / SEGMENT_BYTES));
}

/** ⌊log2⌋ of a whole number from 1, the same in every engine. */
function levels(size: number): number {
  return 31 - Math.clz32(size);
}

/** ⌈log2⌉ of a whole number from 1. */
function rounds(size: number): number {
  return 32 - Math.clz32(size - 1);
}

/** Recursive halving, one way: (N−1)/N·n in ⌈log2 N⌉ hops. Each part goes by a tree of its own, so a rank sends N−1 messages. */
function halvingWork(ranks: number, bytes: number): Work {
  const others = ranks - 1;
  const sent = (others / ranks) * bytes;
  const messages = others * segmentsOf(bytes / ranks);
  return { ...NOTHING, hops: rounds(ranks), messages, senders: rounds(ranks), bytes: sent };
}

/** What goes straight to all others, one way. */
function straightWork(ranks: number, part: number): Work {
  const others = ranks - 1;
  const messages = others * segmentsOf(part);
  return { ...NOTHING, hops: 1, messages, senders: others, bytes: others * part };
}

/** There and back. */
function twice({ hops, messages, senders, bytes, fill }: Work, reduced: number): Work {
  return { hops: 2 * hops, messages: 2 * messages, senders, bytes: 2 * bytes, fill: 2 * fill, reduced };
}

/** What an algorithm that knows nothing of sites has to do; null for one that the kind does not have. */
function workOf({ kind, worldSize: ranks, bytes }: Choice, algorithm: Algorithm): Work | null {
  const others = ranks - 1;
  const share = (others / ranks) * bytes;
  const segment = Math.min(bytes, SEGMENT_BYTES);
  switch (`${kind}/${algorithm}` as const) {
    case 'allReduce/ring': {
      const messages = 2 * others * segmentsOf(bytes / ranks);
      return { ...NOTHING, hops: 2 * others, messages, bytes: 2 * share, reduced: share };
    }
    case 'allReduce/tree': {
      // h = ⌊log2 N⌋ up, and down again. An inner node sends half the vector to its parent and to two children in one tree, and once
      // as a leaf of the other; there are as many edges as in a ring, twice.
      const hops = 2 * levels(ranks);
      const messages = 4 * (others / ranks) * segmentsOf(bytes / 2);
      const fill = Math.max(0, hops - 2) * Math.min(bytes / 2, SEGMENT_BYTES);
      return { hops, messages, senders: Math.min(others, 2), bytes: 2 * share, fill, reduced: share };
    }
    case 'allReduce/doubling':
    case 'barrier/doubling': {
      // log2 N hops; two more, one of them with a reduction, when N is no power of two
      const full = levels(ranks);
      const folds = full === rounds(ranks) ? 0 : 1;
      const hops = full + 2 * folds;
      const messages = hops * segmentsOf(bytes);
      return { ...NOTHING, hops, messages, bytes: hops * bytes, reduced: (full + folds) * bytes };
    }
    case 'allReduce/halving':
      return twice(halvingWork(ranks, bytes), share);
    case 'reduceScatter/halving':
      return { ...halvingWork(ranks, bytes), reduced: share };
    case 'allReduce/direct':
      return twice(straightWork(ranks, bytes / ranks), share);
    case 'reduceScatter/direct':
      return { ...straightWork(ranks, bytes / ranks), reduced: share };
    case 'broadcast/ring':
    case 'reduce/ring': {
      // The whole vector makes one lap, in a pipeline.
      const fill = Math.max(0, ranks - 2) * segment;
      const reduced = kind === 'reduce' ? bytes + fill : 0;
      return { ...NOTHING, hops: others, messages: segmentsOf(bytes), bytes, fill, reduced };
    }
    case 'broadcast/tree':
    case 'reduce/tree': {
      // The root has to do with the vector ⌈log2 N⌉ times.
      const hops = rounds(ranks);
      const work = { ...NOTHING, hops, messages: hops * segmentsOf(bytes), bytes: hops * bytes };
      return kind === 'reduce' ? { ...work, reduced: hops * bytes } : work;
    }
    case 'reduceScatter/ring': {
      const messages = others * segmentsOf(bytes / ranks);
      return { ...NOTHING, hops: others, messages, bytes: share, reduced: share };
    }
    case 'allGather/ring': {
      const messages = others * segmentsOf(bytes);
      return { ...NOTHING, hops: others, messages, bytes: others * bytes };
    }
    case 'allGather/direct':
    case 'allToAll/direct':
    case 'gather/direct':
    case 'scatter/direct':
      return straightWork(ranks, bytes);
    default:
      return null;
  }
}

/** Some work, and the ways by which it goes. */
interface Stage {
  readonly work: Work;
  readonly way: WayFigures;
}

/** The stages of an algorithm, one after the other; null for one that the kind does not have. */
function stagesOf(choice: Choice, algorithm: Algorithm, costs: WayCosts): readonly Stage[] | null {
  if (algorithm === 'hierarchical') return hierarchicalStages(choice, costs);
  const work = workOf(choice, algorithm);
  if (work === null) return null;
  const { near, far, ring } = costs;
  const { kind, worldSize: ranks } = choice;
  if (algorithm === 'ring' && ring !== null && ORDERLESS.has(kind)) return [{ work, way: ring }];
  const { sites, crossings } = spreadOf(choice);
  if (sites === 1) return [{ work, way: near }];
  if (algorithm === 'ring') {
    // Only some hops are long; in a pipeline the slowest link sets the rate.
    const part = crossings / ranks;
    const hopSeconds = part * far.hopSeconds + (1 - part) * near.hopSeconds;
    return [{ work, way: { hopSeconds, byteSeconds: Math.max(near.byteSeconds, far.byteSeconds) } }];
  }
  const long = longWork(choice, algorithm);
  if (long === null) return [{ work, way: far }];
  const short = { ...work, hops: work.hops - long.hops, bytes: work.bytes - long.bytes };
  return [
    { work: short, way: near },
    { work: long, way: far },
  ];
}

/** What of recursive doubling or halving goes between sites; null where that is not looked into, as partners change from chunk to chunk. */
function longWork({ kind, worldSize: ranks, sites, bytes }: Choice, algorithm: Algorithm): Work | null {
  if (sites === undefined || levels(ranks) !== rounds(ranks)) return null;
  if (algorithm !== 'doubling' && algorithm !== 'halving') return null;
  const times = kind === 'allReduce' && algorithm === 'halving' ? 2 : 1;
  let [hops, sent] = [0, 0];
  for (let distance = 1, left = bytes / 2; distance < ranks; distance *= 2, left /= 2) {
    // A rank's partner is at this distance, and halving sends it half of what is left.
    if (sites.every((site, rank) => sites[rank ^ distance] === site)) continue;
    hops += times;
    sent += times * (algorithm === 'halving' ? left : bytes);
  }
  return { ...NOTHING, hops, bytes: sent };
}

/**
 * Between the ranks and the owners through sites: what halving does in the largest site, and then what it does between as many sites, of
 * which each sends (k−1)/k·n by the ranks of the smallest one. All in all a rank sends as many messages as in halving.
 */
function hierarchicalStages(choice: Choice, { near, far }: WayCosts): readonly Stage[] | null {
  const { kind, worldSize: ranks, bytes } = choice;
  if (kind !== 'allReduce' && kind !== 'reduceScatter') return null;
  const { sites, most, fewest } = spreadOf(choice);
  const share = ((ranks - 1) / ranks) * bytes;
  const senders = rounds(most) + rounds(sites);
  const between = { ...halvingWork(sites, bytes / fewest), messages: 0, senders };
  const within = { ...halvingWork(most, bytes), messages: halvingWork(ranks, bytes).messages, senders };
  const stages = [
    { work: within, way: near },
    { work: between, way: far },
  ];
  const isBack = kind === 'allReduce';
  return stages.map(({ work, way }, index) => {
    const reduced = index === 0 ? share : 0;
    return { work: isBack ? twice(work, reduced) : { ...work, reduced }, way };
  });
}

/**
 * Members that share a processor wait for one another, but not while they wait for a hop. Bytes leave while others arrive, so the slower of
 * way and processors counts.
 */
function secondsOf({ work, way }: Stage, sharing: number, processor: ProcessorFigures): number {
  const { hopSeconds, messageSeconds, byteSeconds, reduceByteSeconds, crowding } = processor;
  const crowded = 1 + crowding * (work.senders - 1);
  return (
    work.hops * Math.max(hopSeconds, way.hopSeconds) +
    Math.max(work.hops, sharing * work.messages) * messageSeconds +
    sharing * work.reduced * reduceByteSeconds +
    (work.bytes + work.fill) * Math.max(sharing * crowded * byteSeconds, way.byteSeconds)
  );
}

/**
 * Seconds that the model gives an algorithm; infinite for one that the kind does not have.
 *
 * @param costs what all ranks agree on
 * @param processor only who looks for better figures has others
 */
export function predictSeconds(
  choice: Choice,
  algorithm: Algorithm,
  costs: WayCosts = UNMEASURED,
  processor: ProcessorFigures = PROCESSOR,
): number {
  const stages = stagesOf(choice, algorithm, costs);
  if (stages === null) return Number.POSITIVE_INFINITY;
  const sharing = Math.max(1, costs.sharing);
  return stages.reduce((sum, stage) => sum + secondsOf(stage, sharing, processor), sharing * processor.callSeconds);
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
export function explainChoice(choice: Choice, costs: WayCosts = UNMEASURED): readonly Prediction[] {
  return candidatesFor(choice)
    .map((algorithm) => ({ algorithm, seconds: predictSeconds(choice, algorithm, costs) }))
    .sort((left, right) => rounded(left.seconds) - rounded(right.seconds));
}

function rounded(seconds: number): number {
  return Number(seconds.toPrecision(DIGITS));
}

/** The algorithm that `auto` stands for. */
export function chooseAlgorithm(choice: Choice, costs: WayCosts = UNMEASURED): Algorithm {
  return explainChoice(choice, costs)[0]!.algorithm; // no kind is without candidates
}
