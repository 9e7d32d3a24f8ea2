/** Options of DiLoCo, their defaults, and the checks on them. */
import { type AllReduceOptions, ArgumentError, type Codec, type Rounding } from '../index.ts';
import type { FragmentPattern } from './layout.ts';
import { type OuterOptions, type ResolvedOuter, resolveOuter } from './outer.ts';

/** Options of `createDiloco`. */
export interface DilocoOptions {
  /**
   * Inner steps of a round (H). A function of the round's number, the same on all peers, makes rounds of unequal length.
   * @default 100
   */
  readonly every?: number | ((round: number) => number);
  readonly outer?: OuterOptions;
  readonly fragments?: FragmentOptions;
  /**
   * When an outer gradient is applied. `now`: in its own round (DiLoCo; Streaming DiLoCo with `fragments`). `later`: a
   * round later, while which it travels. `eager`: as `later`, but each peer adds its own part at once (arXiv 2502.12996);
   * with neither `outer.clip` nor `outer.dampening`.
   * @default 'now'
   */
  readonly apply?: 'now' | 'later' | 'eager';
  readonly wire?: WireOptions;
  readonly pace?: PaceOptions;
}

/** Streaming DiLoCo (arXiv 2501.18512): parts of the model that are communicated one after the other. */
export interface FragmentOptions {
  /** @default 1 */
  readonly count?: number;
  /** @default 'sequential' */
  readonly pattern?: FragmentPattern;
  /** Inner steps that go on while a fragment travels (τ). It is sent so many steps before its turn. @default 0 */
  readonly overlap?: number;
  /**
   * What stays of the local parameters when a fragment's turn comes: θ = mixing · local + (1 − mixing) · global. 0 takes
   * the global ones, 1 ignores what was communicated. The paper uses 0.5 with an overlap. @default 0
   */
  readonly mixing?: number;
}

/** How DiLoCo communicates. */
export interface WireOptions {
  /** How outer gradients travel; one for each fragment, or one for all. @default 'f32' */
  readonly codec?: Codec | readonly Codec[];
  /**
   * What a codec drops of this peer's outer gradients is added to its next ones. Kept per peer and fragment, never shared: a
   * newcomer begins without. Fragments that travel in f32 need none. @default false; `topk` needs a word about it
   */
  readonly errorFeedback?: boolean;
  /** Of int8, int4 and e3m0. @default 'nearest' */
  readonly rounding?: Rounding;
  /** Begins the tags of all collectives: runs in one group need different ones. @default 'diloco' */
  readonly tag?: string;
  /** Of each collective, in milliseconds. A round that takes longer is lost, and merged into the next. @default the group's */
  readonly timeout?: number;
  /** @default the group's */
  readonly minWorldSize?: number;
}

/** Unequal peers (FedCompass, arXiv 2309.14675). */
export interface PaceOptions {
  /** Samples in an inner step of this peer: contributions are weighted by samples. May differ between peers. @default 1 */
  readonly samples?: number;
  /** Steps in a round are from `fewest` … @default `every` */
  readonly fewest?: number;
  /** … to `most`, in proportion to each peer's measured speed. @default `every` */
  readonly most?: number;
  /** A clock in milliseconds. @default performance.now */
  readonly now?: () => number;
}

export type Encoding = Pick<AllReduceOptions, 'codec' | 'errorFeedback' | 'rounding'>;

export interface ResolvedDiloco {
  readonly every: (round: number) => number;
  readonly outer: ResolvedOuter;
  readonly fragments: Required<FragmentOptions>;
  readonly apply: 'now' | 'later' | 'eager';
  /** Of each fragment: how its outer gradients travel. */
  readonly encodings: readonly Encoding[];
  readonly tag: string;
  /** Handed on to every collective. */
  readonly call: { readonly timeout?: number; readonly minWorldSize?: number };
  readonly samples: number;
  readonly fewest: number | undefined;
  readonly most: number | undefined;
  readonly now: () => number;
}

function checkWhole(value: number, least: number, name: string): number {
  if (Number.isInteger(value) && value >= least) return value;
  throw new ArgumentError(`\`${name}\` must be a whole number of at least ${least}, not ${value}.`);
}

function resolveFragments(options: FragmentOptions): Required<FragmentOptions> {
  const { count = 1, pattern = 'sequential', overlap = 0, mixing = 0 } = options;
  if (!(mixing >= 0 && mixing <= 1))
    throw new ArgumentError(`\`fragments.mixing\` must be from 0 to 1, not ${mixing}.`);
  if (pattern !== 'sequential' && pattern !== 'strided') {
    throw new ArgumentError(`\`fragments.pattern\` must be 'sequential' or 'strided', not ${JSON.stringify(pattern)}.`);
  }
  return {
    count: checkWhole(count, 1, 'fragments.count'),
    pattern,
    overlap: checkWhole(overlap, 0, 'fragments.overlap'),
    mixing,
  };
}

function resolveEncodings(wire: WireOptions, count: number): Encoding[] {
  const { codec = 'f32', errorFeedback, rounding } = wire;
  const codecs = typeof codec === 'string' ? Array.from({ length: count }, () => codec) : codec;
  if (codecs.length !== count) {
    throw new ArgumentError(`\`wire.codec\` names ${codecs.length} codecs for ${count} fragments.`);
  }
  // What a codec can't make use of is left out, so that one word can be said for fragments of different codecs.
  return codecs.map((one) => ({
    codec: one,
    ...(errorFeedback === undefined || one === 'f32' ? {} : { errorFeedback }),
    ...(rounding === undefined || !['int8', 'int4', 'e3m0'].includes(one) ? {} : { rounding }),
  }));
}

/** @throws ArgumentError */
export function resolveDiloco(options: DilocoOptions): ResolvedDiloco {
  const { every = 100, apply = 'now', wire = {}, pace = {} } = options;
  const fragments = resolveFragments(options.fragments ?? {});
  if (!['now', 'later', 'eager'].includes(apply)) {
    throw new ArgumentError(`\`apply\` must be 'now', 'later' or 'eager', not ${JSON.stringify(apply)}.`);
  }
  if (apply !== 'now' && (fragments.overlap > 0 || fragments.mixing > 0)) {
    throw new ArgumentError(`\`apply: '${apply}'\` overlaps a whole round by itself: leave out overlap and mixing.`);
  }
  const outer = resolveOuter(options.outer);
  // Eager updates keep apart how an outer step answers to two gradients, which needs a step that is linear in them.
  if (apply === 'eager' && (outer.clip !== Number.POSITIVE_INFINITY || outer.dampening > 0)) {
    throw new ArgumentError("`apply: 'eager'` needs an outer step without clip and dampening: use `apply: 'later'`.");
  }
  const samples = pace.samples ?? 1;
  if (!(samples > 0 && Number.isFinite(samples)))
    throw new ArgumentError(`\`pace.samples\` must be above 0, not ${samples}.`);
  return {
    every: typeof every === 'number' ? () => every : every,
    outer,
    fragments,
    apply,
    encodings: resolveEncodings(wire, fragments.count),
    tag: wire.tag ?? 'diloco',
    call: {
      ...(wire.timeout === undefined ? {} : { timeout: wire.timeout }),
      ...(wire.minWorldSize === undefined ? {} : { minWorldSize: wire.minWorldSize }),
    },
    samples,
    fewest: pace.fewest,
    most: pace.most,
    now: pace.now ?? (() => performance.now()),
  };
}

/** Bounds of a round's steps. @throws ArgumentError when fragments would overtake one another */
export function boundsOf(options: ResolvedDiloco, round: number): { every: number; fewest: number; most: number } {
  const every = checkWhole(options.every(round), 1, 'every');
  const fewest = checkWhole(options.fewest ?? every, 1, 'pace.fewest');
  const most = checkWhole(options.most ?? every, fewest, 'pace.most');
  const { count, overlap } = options.fragments;
  if (Math.floor(fewest / count) <= overlap) {
    throw new ArgumentError(
      `A round of ${fewest} steps leaves ${Math.floor(fewest / count)} for each of ${count} fragments, which must be more than the overlap of ${overlap}.`,
    );
  }
  return { every, fewest, most };
}
