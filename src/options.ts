/** Options of the public calls, their defaults, and the checks on them. */
import type { Consistency, PeerId, Recovery, StragglerPolicy } from './collectives/call.ts';
import { CODECS, type Codec, isBlockCodec, ROUNDINGS, type Rounding, roundsByChance } from './collectives/codec.ts';
import { algorithmsOf } from './collectives/plan.ts';
import type { Algorithm, CollectiveKind, Rank } from './collectives/program.ts';
import { type CallProgram, worldOf } from './collectives/program-code.ts';
import { hasRobustAverages } from './collectives/robust.ts';
import type { Program } from './collectives/user-program.ts';
import type { RuntimeOptions } from './engine/runtime-data.ts';
import type { EncryptionOptions, Security } from './engine/security.ts';
import { ArgumentError } from './errors.ts';
import type { SharedState } from './state/memory.ts';
import { STRATEGIES, type SyncStrategy } from './state/strategy.ts';
import { type Dtype, isFloat, isRobust, REDUCE_OPS, type ReduceOp, type Tensor } from './tensor.ts';
import { parseCoordinatorAddress } from './transport/address.ts';
import { MAX_STRIPES, MAX_TAG_LENGTH, MAX_WORLD_SIZE } from './wire/limits.ts';

/** Options of `join()`. What is left out comes from the environment, which `skein launch` sets. */
export interface JoinOptions extends EncryptionOptions {
  /** Name of the job. @default SKEIN_RUN, else 'default' */
  readonly run?: string;
  /** The coordinator's token, or a pass that was made from it (`makePass`). @default SKEIN_TOKEN, else none */
  readonly token?: string;
  /** Quorum: members without which boundaries and collectives wait. @default SKEIN_MIN_WORLD_SIZE, else 1 */
  readonly minWorldSize?: number;
  /** Peers that must be ready before the first view forms; later ones come in at boundaries. @default SKEIN_WORLD_SIZE, else `minWorldSize` */
  readonly startWorldSize?: number;
  /**
   * What this process is called, the same after a restart: one that dies again and again is let in ever later.
   * @default SKEIN_NAME, else the process's number in its launch (`skein launch`), else none
   */
  readonly name?: string;
  /** Where this peer is: peers of one site are close to one another. @default '' */
  readonly site?: string;
  /**
   * Ways to reach other peers, best first. `webrtc` also gets through NATs, where the coordinator names STUN and TURN servers.
   * @default SKEIN_TRANSPORTS (as `unix,tcp,webrtc`), else ['unix', 'tcp']; in a browser ['webrtc']
   */
  readonly transports?: readonly ('unix' | 'tcp' | 'webrtc')[];
  /**
   * Parallel connections per link and direction, at first: what one of them holds in the kernel is soon full. Over a long way that is
   * fast as well there will be more, up to 16, once it is in use. @default 2
   */
  readonly stripes?: number;
  /**
   * `worker`: a thread of its own, so that a busy training thread delays nothing. `inline`: this thread.
   * @default 'worker'; in a browser `inline` where it has to be
   */
  readonly engine?: 'worker' | 'inline';
  /** Milliseconds that joining, and each later call that names no time-out of its own, may take. @default 300000 */
  readonly timeout?: number;
  /**
   * Folder for this peer's flight record, what is known of its last 1,000 collectives: it is written there as JSON, one file per peer, when a
   * call fails, on SIGUSR2, and when somebody touches the file `request` in it. `skein doctor` reads it. Not in browsers.
   * @default SKEIN_FLIGHT, else none: nothing is written, and SIGUSR2 is left alone; `skein doctor` can ask a live run all the same
   */
  readonly flight?: string;
  /** Cancels joining. */
  readonly signal?: AbortSignal;
  /**
   * What the members share: if they do, it is fetched in the background while they go on, and this peer is admitted when it has nearly
   * all of it. Its tensors belong to the engine until then, and are not to be written before the first sync. Of revision 0 (fresh), it is
   * fetched into place; of a higher one it is replaced in the first sync, if the members' is newer.
   */
  readonly state?: SharedState;
  /**
   * A folder of snapshots (`group.snapshot({ directory })`), of which the latest that is whole is put into `state` before this peer joins; where it is empty,
   * or not there, `state` stays as it is. Syncs follow the highest revision then, if they are told nothing else, so that peers whose
   * snapshots are of different age agree on the latest: give it on all peers or on none. Not in a browser. @default none
   */
  readonly resumeFrom?: string;
}

/** Options of every collective. */
export interface CallOptions {
  /** Tells concurrent collectives apart: calls with one tag are matched in order, calls with different tags in any order. @default '' */
  readonly tag?: string;
  /** Milliseconds. @default the group's */
  readonly timeout?: number;
  readonly signal?: AbortSignal;
  /** Members without which the call waits. @default the group's */
  readonly minWorldSize?: number;
  /**
   * What happens when a peer is lost. `restart`: the collective is redone among the others. `salvage`: an all-reduce keeps what
   * all others had finished, with the lost peer's part in it, and redoes the rest (others: as `restart`). `fail`: PeerLostError.
   * @default 'restart'
   */
  readonly recovery?: Recovery;
  /** When a call counts as done. @default 'commit' */
  readonly consistency?: Consistency;
}

/** What an input of floats must be like. */
export interface GuardOptions {
  /** No element may be a NaN or an infinity. @default false */
  readonly finite?: boolean;
  /** Largest Euclidean norm over all tensors of the call; what is not finite exceeds any. @default none */
  readonly maxNorm?: number;
}

/** Options of collectives that move tensors. */
export interface TransferOptions extends CallOptions {
  /** How it travels: README.md says which are for what. In all-reduces also a program of your own (`defineProgram`). @default 'auto' */
  readonly algorithm?: Algorithm | 'auto' | Program;
  /**
   * How f32 values travel. `bf16`, `f16`: 2 bytes each. `int8`, `int4`, `e3m0`: 8 or 4 bits each and a scale per block, for
   * sums and averages. `topk`: one element in 64 (all-reduce only). README.md has a table of their errors. @default 'f32'
   */
  readonly codec?: Codec;
  /** With `int8`, `int4` and `e3m0`: to the nearest, or up or down by a chance that makes the mean exact. @default 'nearest' */
  readonly rounding?: Rounding;
  /**
   * Looks at this peer's own input before anything of it is sent. If it is poisoned the call fails for all members: here with a
   * `PoisonedInputError` that says what was found, on the others with a `WithdrawnError` that names this peer. No tensor changes.
   * Each member looks for itself, and may look for something else. @default nothing is looked for
   */
  readonly guard?: GuardOptions;
  /** Called about twenty times with the share of this peer's part that is done, 0 to 1. */
  readonly onProgress?: (share: number) => void;
}

/** Options of collectives that combine tensors. */
export interface ReduceOptions extends TransferOptions {
  /**
   * `median`, `trimmed-mean` and `centered-clip` withstand some poisoned contributions: f32 and f64, in `allReduce` and
   * `reduceScatter`, straight to the owner of each part (`src/collectives/robust.ts` defines them). @default 'sum'
   */
  readonly op?: ReduceOp;
  /**
   * With `trimmed-mean`: of N contributions to each element the ⌊trim · N⌋ lowest and as many of the highest are left out. From 0
   * to below 0.5; the same on all members. @default 0.2
   */
  readonly trim?: number;
  /**
   * With `centered-clip`, which has no default for it: how far from the median of an element a contribution may pull. About what
   * sound contributions differ by. The same on all members.
   */
  readonly clipRadius?: number;
  /** Receives the result instead of the tensor. Its contents are undefined when the call fails. */
  readonly out?: Tensor;
}

/** Options of `allReduce` and `allReduceSync`. */
export interface AllReduceOptions extends ReduceOptions {
  /**
   * With a codec that drops bits: what this peer's encodings drop is kept under the call's tag (as much memory as the
   * tensor, and as much again during the call) and added to the input of the next call there. A call that fails leaves it as it was;
   * another shape, `dropErrorFeedback` and leaving drop it. `topk` needs a word about it, either way. @default false
   */
  readonly errorFeedback?: boolean;
  /** With a codec that drops bits: `report.error` says how much. @default false */
  readonly measureError?: boolean;
  /**
   * `exclude`: once this call has waited 3 to 4 s for a member that waits for nobody, the others go on without it, as long as
   * `minWorldSize` are left. It stays a member; its own call fails with an `ExcludedError`. Not with `consistency: 'eager'`.
   * @default 'wait'
   */
  readonly stragglers?: StragglerPolicy;
}

/** As for `allReduce`, but for `guard`, which looks at the whole tensor before anything of it is sent. */
export type AllReduceStreamOptions = Omit<AllReduceOptions, 'guard'>;

/** Options of `syncState`, and of the syncs that `steps` makes. */
export interface SyncOptions extends Pick<CallOptions, 'tag' | 'timeout' | 'minWorldSize'> {
  /**
   * Whom this peer follows. `majority`: what most of those hold that were in step before. `highest-revision`: the highest revision, for
   * restarts from checkpoints of different age. `send-only`: the others take what this peer holds. `receive-only`: this peer
   * takes what the others hold. The first two don't go together. @default 'majority'; after `resumeFrom` 'highest-revision'
   */
  readonly strategy?: SyncStrategy;
  /**
   * Names of the entries that were written since the last sync, where that is known: only these are hashed again, and of the others
   * 4 MiB in turn, at each sync but those that bring a newcomer in, so that a bit that flips there is found later. @default all are hashed
   */
  readonly changed?: readonly string[];
}

/** Options of collectives in which one member is special. */
export interface RootOptions extends TransferOptions {
  /** Rank or id of the root peer. An id is safer: ranks shift when a peer is lost. @default 0 */
  readonly root?: Rank | PeerId;
}

/** Options of `reduce`. */
export interface RootedReduceOptions extends ReduceOptions {
  /** Rank or id of the root peer. @default 0 */
  readonly root?: Rank | PeerId;
}

const TRANSPORTS = ['unix', 'tcp', 'webrtc'] as const;

/** Of five contributions one may be poisoned, of ten two. */
const DEFAULT_TRIM = 0.2;

const DEFAULT_TIMEOUT_MS = 300_000;
const MAX_TIMEOUT_MS = 2 ** 31 - 1;

function checkInteger(value: number, least: number, most: number, name: string): number {
  if (!Number.isInteger(value) || value < least || value > most) {
    throw new ArgumentError(`\`${name}\` must be a whole number from ${least} to ${most}, not ${value}.`);
  }
  return value;
}

function checkChoice<T extends string>(value: string, choices: readonly T[], name: string): T {
  const chosen = choices.find((choice) => choice === value);
  if (chosen === undefined) {
    throw new ArgumentError(`\`${name}\` must be one of ${choices.join(', ')}, not ${JSON.stringify(value)}.`);
  }
  return chosen;
}

export function checkTimeout(value: number): number {
  if (!(value > 0 && value <= MAX_TIMEOUT_MS)) {
    throw new ArgumentError(`\`timeout\` must be between 1 and ${MAX_TIMEOUT_MS} ms, not ${value}.`);
  }
  return value;
}

export function checkMinWorldSize(value: number): number {
  return checkInteger(value, 1, MAX_WORLD_SIZE, 'minWorldSize');
}

function checkName(name: string): string {
  if (typeof name === 'string' && name.length <= 256) return name;
  throw new ArgumentError('`name` must be a string of at most 256 characters.');
}

export interface ResolvedJoin {
  readonly runtime: RuntimeOptions;
  readonly engine: 'worker' | 'inline';
  /** Of syncs that name none. @default 'majority' */
  readonly strategy?: SyncStrategy;
  /** File to which what happens is written, for whoever watches from outside. */
  readonly observe?: string;
}

function numberFrom(text: string | undefined): number | undefined {
  return text === undefined || text === '' ? undefined : Number(text);
}

/**
 * Fills in environment variables and defaults; what the caller gives comes first.
 *
 * @param secure says what is encrypted, and how
 */
export function resolveJoin(
  address: string | readonly string[] | undefined,
  options: JoinOptions,
  environment: Readonly<Record<string, string | undefined>>,
  secure: (options: EncryptionOptions, token: string) => Security,
): ResolvedJoin {
  const named = address ?? environment['SKEIN_COORDINATOR'] ?? [];
  const addresses = typeof named === 'string' ? named.split(',') : named;
  if (addresses.every((one) => one === '')) {
    throw new ArgumentError(
      'No coordinator is named: call join(address), or set SKEIN_COORDINATOR (`skein launch` does).',
    );
  }
  const asked = options.transports ?? (environment['SKEIN_TRANSPORTS'] || 'unix,tcp').split(',');
  if (asked.length === 0) throw new ArgumentError('`transports` is empty: name at least one.');
  const transports = asked.map((kind) => checkChoice(kind, TRANSPORTS, 'transports'));
  const minWorldSize = checkMinWorldSize(options.minWorldSize ?? numberFrom(environment['SKEIN_MIN_WORLD_SIZE']) ?? 1);
  const startWorldSize = checkInteger(
    options.startWorldSize ?? numberFrom(environment['SKEIN_WORLD_SIZE']) ?? minWorldSize,
    1,
    MAX_WORLD_SIZE,
    'startWorldSize',
  );
  const token = options.token ?? environment['SKEIN_TOKEN'] ?? '';
  const observe = environment['SKEIN_OBSERVE'];
  const probeMs = numberFrom(environment['SKEIN_PROBE_MS']);
  const flight = options.flight ?? environment['SKEIN_FLIGHT'] ?? '';
  return {
    ...(observe === undefined || observe === '' ? {} : { observe }),
    engine: checkChoice(options.engine ?? 'worker', ['worker', 'inline'], 'engine'),
    ...(options.resumeFrom === undefined ? {} : { strategy: 'highest-revision' }),
    runtime: {
      ...(probeMs === undefined ? {} : { probeMs }),
      ...(flight === '' ? {} : { flight }),
      coordinators: addresses.map((one) => parseCoordinatorAddress(one.trim())),
      run: options.run ?? environment['SKEIN_RUN'] ?? 'default',
      token,
      security: secure(options, token),
      minWorldSize,
      startWorldSize: Math.max(startWorldSize, minWorldSize),
      name: checkName(options.name ?? environment['SKEIN_NAME'] ?? environment['SKEIN_LOCAL_RANK'] ?? ''),
      site: options.site ?? '',
      transports,
      stripes: checkInteger(options.stripes ?? 2, 1, MAX_STRIPES, 'stripes'),
      timeoutMs: checkTimeout(options.timeout ?? DEFAULT_TIMEOUT_MS),
    },
  };
}

export interface ResolvedSync {
  readonly tag: string;
  readonly strategy: SyncStrategy;
  readonly changed: readonly string[] | null;
  readonly timeoutMs: number;
  readonly minWorldSize: number;
}

/** Longest tag of a shared state: its collectives have tags of their own. */
const MAX_STATE_TAG_LENGTH: number = MAX_TAG_LENGTH - 20;

/** @throws ArgumentError */
export function resolveSync(
  options: SyncOptions,
  defaults: { readonly timeoutMs: number; readonly minWorldSize: number; readonly strategy: SyncStrategy },
): ResolvedSync {
  const tag = options.tag ?? '';
  if (typeof tag !== 'string' || tag.length > MAX_STATE_TAG_LENGTH) {
    throw new ArgumentError(`The \`tag\` of a state must be a string of at most ${MAX_STATE_TAG_LENGTH} characters.`);
  }
  return {
    tag,
    strategy: checkChoice(options.strategy ?? defaults.strategy, STRATEGIES, 'strategy'),
    changed: options.changed ?? null,
    timeoutMs: checkTimeout(options.timeout ?? defaults.timeoutMs),
    minWorldSize: checkMinWorldSize(options.minWorldSize ?? defaults.minWorldSize),
  };
}

/** The part of a call that comes from its options. */
export interface ResolvedCall {
  readonly tag: string;
  readonly op: ReduceOp;
  readonly trim: number | null;
  readonly clipRadius: number | null;
  readonly guard: { readonly maxNorm: number | null } | null;
  readonly algorithm: Algorithm | 'auto' | CallProgram;
  readonly codec: Codec;
  readonly rounding: Rounding;
  readonly errorFeedback: boolean;
  readonly measureError: boolean;
  readonly consistency: Consistency;
  readonly recovery: Recovery;
  readonly stragglers: StragglerPolicy;
  readonly minWorldSize: number;
  readonly timeoutMs: number;
}

/** What the options of a call must fit. */
interface CallShape {
  readonly kind: CollectiveKind;
  readonly dtype: Dtype;
  readonly reduces: boolean;
}

/** Robust averages: where they can be had, and what goes with each. */
function resolveRobust(
  options: AllReduceOptions,
  { kind, dtype, reduces }: CallShape,
): Pick<ResolvedCall, 'op' | 'trim' | 'clipRadius'> {
  const op = checkChoice(options.op ?? 'sum', REDUCE_OPS, 'op');
  const { trim, clipRadius, algorithm = 'auto' } = options;
  const refuse = (reason: string): never => {
    throw new ArgumentError(reason);
  };
  if (trim !== undefined && op !== 'trimmed-mean') refuse(`\`trim\` is for \`op: 'trimmed-mean'\`, not for ${op}.`);
  if (clipRadius !== undefined && op !== 'centered-clip') {
    refuse(`\`clipRadius\` is for \`op: 'centered-clip'\`, not for ${op}.`);
  }
  if (!reduces || !isRobust(op)) return { op, trim: null, clipRadius: null };
  if (kind !== 'allReduce' && kind !== 'reduceScatter') {
    refuse(`\`op: '${op}'\` is for allReduce and reduceScatter, not for ${kind}.`);
  }
  if (!hasRobustAverages(dtype)) refuse(`\`op: '${op}'\` works on f32 and f64 tensors, not on ${dtype}.`);
  if (algorithm !== 'auto' && algorithm !== 'direct') {
    refuse(
      `\`op: '${op}'\` goes 'direct', where one rank sees all contributions to an element, not by '${nameOf(algorithm)}'.`,
    );
  }
  if (options.codec === 'topk') {
    refuse(`Codec topk can't be used with \`op: '${op}'\`: most elements would have a zero from most members.`);
  }
  if (options.errorFeedback === true) {
    refuse(`\`errorFeedback\` makes up for what sums and averages lose, not for ${op}.`);
  }
  if (trim !== undefined && !(trim >= 0 && trim < 0.5)) {
    refuse(`\`trim\` must be from 0 to below 0.5, not ${trim}: it is left out at both ends.`);
  }
  if (
    op === 'centered-clip' &&
    !(clipRadius !== undefined && clipRadius > 0 && clipRadius < Number.POSITIVE_INFINITY)
  ) {
    refuse(`\`op: 'centered-clip'\` needs a positive \`clipRadius\`, about what sound contributions differ by.`);
  }
  return { op, trim: op === 'trimmed-mean' ? (trim ?? DEFAULT_TRIM) : null, clipRadius: clipRadius ?? null };
}

function resolveGuard(guard: GuardOptions | undefined, dtype: Dtype): ResolvedCall['guard'] {
  if (guard === undefined) return null;
  const { finite = false, maxNorm } = guard;
  if (!finite && maxNorm === undefined) {
    throw new ArgumentError('`guard` looks for nothing: set `finite: true`, or a `maxNorm`.');
  }
  if (maxNorm !== undefined && !(maxNorm >= 0 && maxNorm < Number.POSITIVE_INFINITY)) {
    throw new ArgumentError(`\`guard.maxNorm\` must be a number from 0, not ${maxNorm}.`);
  }
  if (!isFloat(dtype)) throw new ArgumentError(`\`guard\` is for floats, not for ${dtype}.`);
  return { maxNorm: maxNorm ?? null };
}

type CodecOptions = Pick<ResolvedCall, 'codec' | 'rounding' | 'errorFeedback' | 'measureError'>;

/** What a codec can be used for, and what goes with it. */
function resolveCodec(options: AllReduceOptions, { kind, dtype, reduces }: CallShape): CodecOptions {
  const codec = checkChoice(options.codec ?? 'f32', CODECS, 'codec');
  const rounding = checkChoice(options.rounding ?? 'nearest', ROUNDINGS, 'rounding');
  const { errorFeedback, measureError = false, op = 'sum', algorithm } = options;
  const drops = codec !== 'f32';
  const refuse = (reason: string): never => {
    throw new ArgumentError(reason);
  };
  if (drops && dtype !== 'f32') refuse(`Codec ${codec} works on f32 tensors, not on ${dtype}.`);
  if (drops && algorithm === 'doubling') {
    refuse(
      `Codec ${codec} can't be used with 'doubling', whose ranks each compute the result: they would differ. Use 'ring', 'tree', 'halving' or 'direct'.`,
    );
  }
  if (isBlockCodec(codec) && reduces && op !== 'sum' && op !== 'avg' && !isRobust(op)) {
    refuse(`Codec ${codec} is for sums and averages, not for ${op}: use bf16 or f16.`);
  }
  if (codec === 'topk') {
    if (kind !== 'allReduce') refuse(`Codec topk is for allReduce, not for ${kind}: most elements would be lost.`);
    if (algorithm !== undefined && algorithm !== 'auto' && algorithm !== 'direct') {
      refuse(`Codec topk goes 'direct', not by '${nameOf(algorithm)}', where it would drop most of every partial sum.`);
    }
    if (errorFeedback === undefined) {
      refuse(
        'Codec topk drops 63 of 64 elements: say `errorFeedback: true`, or `false` if you keep what is dropped yourself.',
      );
    }
  }
  if (rounding === 'stochastic' && !roundsByChance(codec)) {
    refuse(`Rounding by chance is for int8, int4 and e3m0, not for ${codec}.`);
  }
  for (const [name, wanted] of Object.entries({ errorFeedback, measureError })) {
    if (wanted !== true) continue;
    if (kind !== 'allReduce') refuse(`\`${name}\` is for allReduce, not for ${kind}.`);
    if (!drops) refuse(`\`${name}\` is for codecs that drop something; f32 does not.`);
  }
  return { codec, rounding, errorFeedback: errorFeedback === true, measureError: measureError === true };
}

function nameOf(algorithm: Algorithm | 'auto' | Program): string {
  return typeof algorithm === 'string' ? algorithm : algorithm.name;
}

/** By what it can do: the class, and what proves programs, is only loaded by those who have one. */
function isProgram(algorithm: Algorithm | 'auto' | Program): algorithm is Program {
  return typeof algorithm === 'object' && algorithm !== null && 'forCall' in algorithm;
}

/** What a call travels by; a program is proved here, for the world that there is and those that may become of it. */
function resolveAlgorithm(
  { algorithm = 'auto', codec = 'f32' }: AllReduceOptions,
  { kind }: CallShape,
  worldSize: number,
  minWorldSize: number,
): ResolvedCall['algorithm'] {
  if (isProgram(algorithm)) {
    if (kind !== 'allReduce') throw new ArgumentError(`A program of your own is for allReduce, not for ${kind}.`);
    const program = algorithm.forCall(worldSize, minWorldSize);
    const world = worldOf(program, worldSize, codec !== 'f32');
    if (typeof world === 'string') throw new ArgumentError(world);
    return program;
  }
  return algorithm === 'auto' ? algorithm : checkChoice(algorithm, algorithmsOf(kind), 'algorithm');
}

export function resolveCall(
  options: AllReduceOptions,
  defaults: { readonly timeoutMs: number; readonly minWorldSize: number; readonly worldSize: number },
  shape: CallShape,
): ResolvedCall {
  const tag = options.tag ?? '';
  if (typeof tag !== 'string' || tag.length > MAX_TAG_LENGTH) {
    throw new ArgumentError(`\`tag\` must be a string of at most ${MAX_TAG_LENGTH} characters.`);
  }
  const minWorldSize = checkMinWorldSize(options.minWorldSize ?? defaults.minWorldSize);
  const consistency = checkChoice(options.consistency ?? 'commit', ['commit', 'eager'], 'consistency');
  const stragglers = checkChoice(options.stragglers ?? 'wait', ['wait', 'exclude'], 'stragglers');
  if (stragglers === 'exclude' && shape.kind !== 'allReduce') {
    throw new ArgumentError(`\`stragglers: 'exclude'\` is for allReduce, not for ${shape.kind}.`);
  }
  if (stragglers === 'exclude' && consistency === 'eager') {
    throw new ArgumentError(
      "`stragglers: 'exclude'` needs `consistency: 'commit'`: with 'eager' some may have returned with the straggler's part.",
    );
  }
  return {
    tag,
    algorithm: resolveAlgorithm(options, shape, defaults.worldSize, minWorldSize),
    ...resolveRobust(options, shape),
    ...resolveCodec(options, shape),
    guard: resolveGuard(options.guard, shape.dtype),
    consistency,
    stragglers,
    recovery: checkChoice(options.recovery ?? 'restart', ['restart', 'salvage', 'fail'], 'recovery'),
    minWorldSize,
    timeoutMs: checkTimeout(options.timeout ?? defaults.timeoutMs),
  };
}
