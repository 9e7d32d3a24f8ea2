/**
 * What `algorithm: 'auto'` means: the algorithm for which a cost model promises the least time. A pure function of what
 * all ranks agree on, so that they choose alike without asking one another.
 *
 * α seconds a hop, β seconds a byte sent, γ seconds a byte reduced, n bytes, N ranks, s bytes of a segment (or n, if less).
 * Terms as in R. Thakur, R. Rabenseifner, W. Gropp, "Optimization of Collective Communication Operations in MPICH" (2005),
 * and, for the two trees, P. Sanders, J. Speck, J. L. Träff, "Two-tree algorithms for full bandwidth broadcast, reduction
 * and scan" (2009). Segments travel in a pipeline, so a path of h hops costs h·α, its bandwidth term once, and one
 * segment more for each hop after the first.
 */

import { isRobust, type ReduceOp } from '../tensor.ts';
import { type Codec, isBlockCodec } from './codec.ts';
import { algorithmsOf } from './plan.ts';
import type { Algorithm, CollectiveKind } from './program.ts';
import { SEGMENT_BYTES } from './workspace.ts';

/** Measured between processes on one host; `npm run bench` gives the figures to set here. */
const COST = {
  /** α: from a send to the receiver's next instruction. */
  hopSeconds: 40e-6,
  /** β: one byte out of a rank. */
  byteSeconds: 1e-9,
  /** γ: one byte (of f32) accumulated, with the copies to and from the caller's tensors. */
  reduceByteSeconds: 0.8e-9,
  /** What one more message costs a rank that sends many at once. */
  messageSeconds: 5e-6,
  /** How much slower bytes go when all ranks send to all at once than along a ring. */
  crowding: 1.25,
  /** s: what the executor sends at a time. */
  segmentBytes: SEGMENT_BYTES,
} as const;

export interface Choice {
  readonly kind: CollectiveKind;
  readonly worldSize: number;
  /** Bytes of the request's `count` elements. */
  readonly bytes: number;
  readonly codec: Codec;
  /** null for kinds that reduce nothing. */
  readonly op: ReduceOp | null;
}

/** Seconds that the model gives an algorithm; infinite for one that the kind does not have. */
export function predictSeconds(choice: Choice, algorithm: Algorithm): number {
  const { hopSeconds: alpha, byteSeconds: beta, reduceByteSeconds: gamma } = COST;
  const ranks = choice.worldSize;
  const bytes = choice.bytes;
  const segment = Math.min(bytes, COST.segmentBytes);
  const rounds = Math.ceil(Math.log2(ranks));
  switch (`${choice.kind}/${algorithm}` as const) {
    case 'allReduce/ring': {
      // 2(N−1)α + 2(N−1)/N·nβ + (N−1)/N·nγ
      const share = ((ranks - 1) / ranks) * bytes;
      return 2 * (ranks - 1) * alpha + 2 * share * beta + share * gamma;
    }
    case 'allReduce/tree': {
      // h = ⌊log2 N⌋, up and down: 2hα + 2nβ + (2h−2)sβ + nγ. An inner node sends half the vector to its parent and to two
      // children in one tree, and once as a leaf of the other: 2n. Between two ranks it is n, as in the ring.
      const hops = 2 * Math.floor(Math.log2(ranks));
      const sent = ranks <= 2 ? bytes : 2 * bytes;
      const fill = Math.max(0, hops - 2) * Math.min(bytes / 2, segment);
      return hops * alpha + (sent + fill) * beta + bytes * gamma;
    }
    case 'allReduce/doubling':
    case 'barrier/doubling': {
      // log2 N · (α + nβ + nγ); two hops more, one of them with a reduction, when N is no power of two
      const full = Math.floor(Math.log2(ranks));
      const folds = full === rounds ? 0 : 1;
      return (full + 2 * folds) * (alpha + bytes * beta) + (full + folds) * bytes * gamma;
    }
    case 'allReduce/direct': {
      // 2(α + (N−1)(message + crowding·n/N·β)) + (N−1)/N·nγ
      const share = bytes / ranks;
      const phase = alpha + (ranks - 1) * (COST.messageSeconds + COST.crowding * share * beta);
      return 2 * phase + (ranks - 1) * share * gamma;
    }
    case 'broadcast/ring':
      // (N−1)α + nβ + (N−2)sβ
      return (ranks - 1) * alpha + (bytes + Math.max(0, ranks - 2) * segment) * beta;
    case 'broadcast/tree':
      // ⌈log2 N⌉(α + nβ): the root sends the vector that often
      return rounds * (alpha + bytes * beta);
    case 'reduce/ring':
      // as broadcast, and nγ + (N−2)sγ
      return (ranks - 1) * alpha + (bytes + Math.max(0, ranks - 2) * segment) * (beta + gamma);
    case 'reduce/tree':
      return rounds * (alpha + bytes * (beta + gamma));
    case 'reduceScatter/ring': {
      // (N−1)α + (N−1)/N·n(β + γ)
      const share = ((ranks - 1) / ranks) * bytes;
      return (ranks - 1) * alpha + share * (beta + gamma);
    }
    case 'reduceScatter/direct': {
      // the first half of allReduce/direct: α + (N−1)(message + crowding·n/N·β) + (N−1)/N·nγ
      const share = bytes / ranks;
      const others = ranks - 1;
      return alpha + others * (COST.messageSeconds + COST.crowding * share * beta) + others * share * gamma;
    }
    case 'allGather/ring':
      // (N−1)(α + nβ), n the bytes of one part
      return (ranks - 1) * (alpha + bytes * beta);
    case 'allGather/direct':
    case 'allToAll/direct':
    case 'gather/direct':
    case 'scatter/direct':
      // α + (N−1)(message + crowding·nβ)
      return alpha + (ranks - 1) * (COST.messageSeconds + COST.crowding * bytes * beta);
    default:
      return Number.POSITIVE_INFINITY;
  }
}

/**
 * What `auto` chooses among. Robust averages need all contributions at one rank, so they go straight. So do, in an all-reduce, codecs
 * that share scales: they are coarse, and what they drop adds up at each hop, of which there are two that way whatever N is. With
 * any codec that drops bits, recursive doubling is out: there every rank computes the result for itself, from its own exact value and
 * its partner's rounded one, so two ranks would differ. What else adds up was not measured to be faster straight.
 */
function candidatesFor({ kind, codec, op }: Choice): readonly Algorithm[] {
  const offered = algorithmsOf(kind);
  if (isRobust(op)) return ['direct'];
  if (kind !== 'allReduce' && kind !== 'reduceScatter') return offered;
  if (kind === 'allReduce' && isBlockCodec(codec)) return ['direct'];
  return offered.filter((name) => name !== 'direct' && (codec === 'f32' || name !== 'doubling'));
}

/** The algorithm that `auto` stands for. */
export function chooseAlgorithm(choice: Choice): Algorithm {
  const [first, ...rest] = candidatesFor(choice);
  if (first === undefined) throw new Error(`${choice.kind} has no algorithm`); // candidatesFor is never empty
  let best = first;
  for (const algorithm of rest) {
    if (predictSeconds(choice, algorithm) < predictSeconds(choice, best)) best = algorithm;
  }
  return best;
}
