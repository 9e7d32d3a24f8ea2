/** What the simulated users do at each step, and what must come of it: pure functions of the seed. */
import { shareOf } from '../../src/collectives/partition.ts';
import { makePlan } from '../../src/collectives/plan.ts';
import { type AlgorithmLabel, type ChunkProgram, isProgramLabel } from '../../src/collectives/program.ts';
import { Expressions, runSymbolically } from '../../src/collectives/symbolic.ts';
import type { AllReduceStream, CollectiveKind, Group, ReduceOp, Report } from '../../src/index.ts';
import { mix } from './random.ts';

export type Numbers = Float32Array | Float64Array | Int32Array | Uint8Array;
type SimDtype = 'f32' | 'f64' | 'i32' | 'u8';

/** One collective of one step, the same on all members. */
export interface Planned {
  readonly boundary: number;
  readonly index: number;
  readonly kind: CollectiveKind;
  readonly dtype: SimDtype;
  readonly count: number;
  readonly op: ReduceOp;
  readonly codec: 'f32' | 'bf16' | 'int8';
  /** With int8: keeps what it drops, and at times forgets it. */
  readonly errorFeedback: boolean;
  readonly algorithm: 'auto' | 'ring' | 'tree';
  readonly consistency: 'commit' | 'eager';
  readonly recovery: 'restart' | 'salvage' | 'fail';
  readonly stragglers: 'wait' | 'exclude';
  readonly tag: string;
  /** The rank of the root, modulo the world size. */
  readonly root: number;
  readonly inPlace: boolean;
  /** Inputs whose sums depend on the order in which they are added. */
  readonly isOrdered: boolean;
}

const KINDS: readonly CollectiveKind[] = [
  'allReduce',
  'allReduce',
  'allReduce',
  'allReduce',
  'broadcast',
  'reduce',
  'reduceScatter',
  'allGather',
  'gather',
  'scatter',
  'allToAll',
  'barrier',
];
const COUNTS = [0, 1, 2, 5, 64, 64, 1_000, 1_000, 3_000, 3_000, 3_000, 8_000];

/** A rank that passes on more segments than there are slots keeps the rest in scratch. */
const REDUCE_COUNTS = [0, 1, 64, 3_000, 24_000];

function drawPlanned(seed: number, boundary: number, index: number): Planned {
  let asked = 0;
  const draw = <T>(choices: readonly T[]): T => choices[mix(seed, boundary, index, asked++) % choices.length]!;
  const kind = draw(KINDS);
  const dtype = draw<SimDtype>(['f32', 'f32', 'f32', 'f64', 'i32', 'u8']);
  const isAllReduce = kind === 'allReduce';
  const consistency = draw<Planned['consistency']>(['commit', 'commit', 'commit', 'commit', 'eager']);
  const count = kind === 'barrier' ? 1 : draw(kind === 'reduce' ? REDUCE_COUNTS : COUNTS);
  const op = draw<ReduceOp>(['sum', 'sum', 'avg', 'min', 'max']);
  const codec: Planned['codec'] = isAllReduce && dtype === 'f32' ? draw(['f32', 'f32', 'bf16']) : 'f32';
  const turn = mix(seed, boundary, index, 98) % 4;
  const planned: Omit<Planned, 'isOrdered'> = {
    boundary,
    index,
    kind,
    dtype,
    count,
    op,
    codec: codec === 'bf16' && turn < 3 && (op === 'sum' || op === 'avg') ? 'int8' : codec,
    errorFeedback: turn < 2,
    algorithm: isAllReduce ? draw(['auto', 'ring', 'tree']) : 'auto',
    consistency,
    recovery: draw(['restart', 'restart', 'salvage', 'salvage', 'fail']),
    stragglers: isAllReduce && consistency === 'commit' ? draw(['wait', 'exclude']) : 'wait',
    tag: draw(['', '', 'a', 'b', `t${index}`]),
    root: draw([0, 0, 1, 2]),
    inPlace: draw([true, false]),
  };
  // Of what was salvaged nobody tells how it was added.
  const isFloat = dtype === 'f64' || (dtype === 'f32' && planned.codec === 'f32');
  const isOrdered = isAllReduce && isFloat && planned.recovery !== 'salvage' && draw([true, false]);
  const isMedian = isAllReduce && isFloat && planned.algorithm === 'auto' && mix(seed, boundary, index, 97) % 2 === 0;
  return isMedian ? { ...planned, op: 'median', isOrdered: false } : { ...planned, isOrdered };
}

/** What many ask for again and again, made once. Forgotten all at once when it is too much. */
class Made<T> {
  readonly #values: Map<string, T> = new Map();
  readonly #most: number;

  constructor(most: number) {
    this.#most = most;
  }

  get(key: string, make: () => T): T {
    let value = this.#values.get(key);
    if (value !== undefined) return value;
    if (this.#values.size >= this.#most) this.#values.clear();
    value = make();
    this.#values.set(key, value);
    return value;
  }
}

const plans = new Made<readonly Planned[]>(64);

/** None to four collectives, all under way at once. */
export function stepPlan(seed: number, boundary: number): readonly Planned[] {
  return plans.get(`${seed} ${boundary}`, () => {
    const count = [0, 1, 1, 1, 2, 4][mix(seed, boundary, 99) % 6]!;
    return Array.from({ length: count }, (_, index) => drawPlanned(seed, boundary, index));
  });
}

const keys = new Made<number>(256);

function keyOf(peerId: string): number {
  return keys.get(peerId, () => {
    let key = 7;
    for (let index = 0; index < peerId.length; index++) key = mix(key, peerId.charCodeAt(index));
    return key;
  });
}

/** Of any simulated run. */
const MOST_MEMBERS = 16;

/** Elements after which an input repeats: prime, so that no chunk or segment begins like its neighbour. */
const PERIOD = 13;

/**
 * A peer's input begins with these: small whole numbers, whose sums are exact in every dtype and codec, or, where the order
 * counts, fractions that are not.
 */
function patternOf(peerId: string, { boundary, index, isOrdered }: Planned): readonly number[] {
  const key = mix(keyOf(peerId), boundary, index);
  return Array.from({ length: PERIOD }, (_, at) => (isOrdered ? mix(key, at) / 1_001 : mix(key, at) % 8));
}

/** Values from the `start`-th on of an endless repetition of a pattern. */
function repeat(dtype: SimDtype, pattern: readonly number[], start: number, count: number): Numbers {
  const values = make(dtype, count);
  const first = Math.min(PERIOD, count);
  for (let at = 0; at < first; at++) values[at] = pattern[(start + at) % PERIOD]!;
  for (let filled = first; filled < count; filled *= 2) values.copyWithin(filled, 0, filled);
  return values;
}

function make(dtype: SimDtype, count: number): Numbers {
  switch (dtype) {
    case 'f32':
      return new Float32Array(count);
    case 'f64':
      return new Float64Array(count);
    case 'i32':
      return new Int32Array(count);
    case 'u8':
      return new Uint8Array(count);
    default:
      return dtype satisfies never;
  }
}

/** One call of one user. */
export interface Call {
  readonly planned: Planned;
  readonly peerId: string;
  readonly worldSize: number;
  /** Peer that is the root. */
  readonly rootId: string;
  readonly input: Numbers;
  readonly output: Numbers;
  /** Of a stream: what it handed back, in the output's order, by the time the call had succeeded; else null. */
  readonly handed: Handed | null;
  readonly outcome: Promise<Report>;
}

interface Handed {
  /** As they were when they were handed back last. */
  readonly values: Numbers;
  /** How often each element was handed back. */
  readonly times: Uint8Array;
}

function inputCount(planned: Planned, worldSize: number, isRoot: boolean): number {
  if (planned.kind === 'scatter') return isRoot ? planned.count * worldSize : 0;
  return planned.kind === 'allToAll' ? planned.count * worldSize : planned.count;
}

function outputCount({ kind, count }: Planned, worldSize: number, rank: number, isRoot: boolean): number {
  if (kind === 'allGather' || kind === 'allToAll') return count * worldSize;
  if (kind === 'gather') return isRoot ? count * worldSize : 0;
  return kind === 'reduceScatter' ? shareOf(count, worldSize, rank).count : count;
}

/** Milliseconds from one part of a stream to the next. */
const PART_MS = [0, 0, 1, 5, 20, 80];

/** Makes an all-reduce of parts in an order of this peer's own, and uses what comes back. */
async function streamed(
  stream: AllReduceStream,
  { values, times }: Handed,
  output: Numbers,
  sleep: (ms: number) => Promise<void>,
  key: number,
): Promise<Report> {
  const parts = Array.from({ length: 1 + (mix(key, 1) % 5) }, (_, part) => part);
  parts.sort((left, right) => mix(key, 2, left) - mix(key, 2, right));
  const ready = async () => {
    for (const part of parts) {
      await sleep(PART_MS[mix(key, 3, part) % PART_MS.length]!);
      const { start, count } = shareOf(output.length, parts.length, part);
      stream.ready(start, count);
    }
  };
  void ready();
  for await (const { offset, length } of stream) {
    for (let at = offset; at < offset + length; at++) times[at]! += 1;
    values.set(output.subarray(offset, offset + length) as Uint8Array, offset); // of the same dtype
  }
  return stream.report;
}

/**
 * Makes the call on a group. `wrong`: with a count of its own.
 * @param options `sleep`: all-reduces are streams, whose parts come so long after one another; null: they are not
 */
export function call(
  group: Group,
  planned: Planned,
  wrong: boolean,
  options: {
    readonly timeout: number;
    readonly signal: AbortSignal;
    readonly sleep: ((ms: number) => Promise<void>) | null;
  },
): Call {
  const asked = wrong ? { ...planned, count: planned.count + 1 } : planned;
  const { kind, dtype, op, codec, algorithm, consistency, recovery, stragglers, errorFeedback, tag } = asked;
  const { worldSize, rank, peerId } = group;
  const rootRank = asked.root % worldSize;
  const rootId = group.members[rootRank]!.peerId; // a rank of the view
  const isRoot = rootId === peerId;
  const input = inputOf(peerId, planned, inputCount(asked, worldSize, isRoot));
  const output =
    asked.inPlace && (kind === 'allReduce' || kind === 'reduce' || kind === 'broadcast')
      ? input
      : make(dtype, outputCount(asked, worldSize, rank, isRoot));
  const { timeout, signal, sleep } = options;
  const common = { timeout, signal, tag, consistency, recovery, algorithm, codec };
  const out = output === input ? {} : { out: output };
  const handed =
    sleep === null || kind !== 'allReduce' ? null : { values: output.slice(), times: new Uint8Array(output.length) };
  const key = mix(keyOf(peerId), planned.boundary, planned.index, 7);
  const start = (): Promise<Report> => {
    switch (kind) {
      case 'allReduce': {
        if (codec === 'int8' && mix(keyOf(peerId), planned.boundary, planned.index) % 8 === 0)
          group.dropErrorFeedback(tag);
        const settings = {
          ...{ ...common, op, stragglers, ...out },
          ...(codec === 'int8' ? { errorFeedback, measureError: true } : {}),
        };
        return sleep === null || handed === null
          ? group.allReduce(input, settings)
          : streamed(group.allReduceStream(input, settings), handed, output, sleep, key);
      }
      case 'reduce':
        return group.reduce(input, { ...common, op, root: rootId, ...out });
      case 'broadcast':
        output.set(input);
        return group.broadcast(output, { ...common, root: rootId });
      case 'reduceScatter':
        return group.reduceScatter(input, { ...common, op, ...out });
      case 'allGather':
        return group.allGather(input, output, common);
      case 'gather':
        return group.gather(input, isRoot ? output : undefined, { ...common, root: rootId });
      case 'scatter':
        return group.scatter(isRoot ? input : undefined, output, { ...common, root: rootId });
      case 'allToAll':
        return group.allToAll(input, output, common);
      case 'barrier':
        return group.barrier({ timeout, signal, tag, consistency, recovery });
      default:
        return kind satisfies never;
    }
  };
  // What a broadcast must not change when it fails is where its result goes.
  const guarded = kind === 'broadcast' ? output : input;
  return { planned: asked, peerId, worldSize, rootId, input: guarded, output, handed, outcome: start() };
}

function inputOf(peerId: string, planned: Planned, count: number, start = 0): Numbers {
  return repeat(planned.dtype, patternOf(peerId, planned), start, count);
}

/** Whether the input of a call is what it was made of. */
export function isAsMade({ planned, peerId, input }: Call): boolean {
  const pattern = repeat(planned.dtype, patternOf(peerId, planned), 0, Math.min(PERIOD, input.length));
  const bytes = Buffer.from(input.buffer, input.byteOffset, input.byteLength);
  const period = PERIOD * input.BYTES_PER_ELEMENT;
  if (!bytes.subarray(0, period).equals(Buffer.from(pattern.buffer))) return false;
  // The rest repeats it.
  return bytes.length <= period || bytes.subarray(period).equals(bytes.subarray(0, bytes.length - period));
}

function combine(op: ReduceOp, left: number, right: number): number {
  if (op === 'min') return Math.min(left, right);
  return op === 'max' ? Math.max(left, right) : left + right;
}

function medianOf(values: readonly number[]): number {
  const sorted = values.toSorted((left, right) => left - right);
  return (sorted[(sorted.length - 1) >> 1]! + sorted[sorted.length >> 1]!) / 2;
}

/** Computes what expressions stand for, over the first elements of the inputs. */
class Evaluation extends Expressions {
  readonly #planned: Planned;
  readonly #contributors: readonly string[];
  readonly #values: Map<number, Numbers> = new Map();

  constructor(planned: Planned, contributors: readonly string[]) {
    super();
    this.#planned = planned;
    this.#contributors = contributors;
  }

  override leaf(rank: number): number {
    const expression = super.leaf(rank);
    const { dtype } = this.#planned;
    this.#values.set(expression, repeat(dtype, patternOf(this.#contributors[rank]!, this.#planned), 0, PERIOD));
    return expression;
  }

  override node(left: number, right: number): number {
    const expression = super.node(left, right);
    const { op, dtype } = this.#planned;
    const [one, other] = [this.valuesOf(left), this.valuesOf(right)];
    const values = make(dtype, PERIOD);
    for (let at = 0; at < PERIOD; at++) values[at] = combine(op, one[at]!, other[at]!);
    this.#values.set(expression, values);
    return expression;
  }

  valuesOf(expression: number): Numbers {
    return this.#values.get(expression)!; // set when its number was given
  }
}

/**
 * What the programs of an all-reduce make of the inputs, added in their order. The inputs repeat after `PERIOD` elements, and
 * so does what is made of them element by element.
 *
 * @param contributors in the order of the programs' ranks
 */
function inProgramOrder(planned: Planned, contributors: readonly string[], algorithm: AlgorithmLabel): Numbers {
  const { kind, op, dtype, count } = planned;
  const result = make(dtype, count);
  const worldSize = contributors.length;
  if (isProgramLabel(algorithm)) throw new Error('the workload has no programs of its own');
  const request = { kind, algorithm, worldSize, count, root: 0 };
  const plans = contributors.map((_, rank) => makePlan(request, rank));
  for (const { id, count: length, output } of plans[0]!.chunks) {
    const programs = plans.flatMap(({ chunks }, rank) =>
      chunks.filter((chunk) => chunk.id === id).map((chunk): [number, ChunkProgram] => [rank, chunk]),
    );
    const evaluation = new Evaluation(planned, contributors);
    const run = runSymbolically(new Map(programs), evaluation);
    if (!run.ok) throw new Error(`no program of an all-reduce: ${run.reason}`);
    const values = evaluation.valuesOf(run.values.get(0)!.expression); // every rank ends with the same
    if (op === 'avg') for (let at = 0; at < PERIOD; at++) values[at] = values[at]! / worldSize;
    result.set(repeat(dtype, [...values], output ?? 0, length) as Uint8Array, output ?? 0); // of the same dtype
  }
  return result;
}

/** As `inProgramOrder`, of exact numbers, which may be added in any order. */
function reduced(planned: Planned, contributors: readonly string[]): Numbers {
  const { op, dtype, count } = planned;
  const inputs = contributors.map((peerId) => patternOf(peerId, planned));
  const results = make(dtype, PERIOD);
  for (let index = 0; index < PERIOD; index++) {
    const values = inputs.map((input) => input[index]!);
    const value = op === 'median' ? medianOf(values) : values.reduce((left, right) => combine(op, left, right));
    results[index] = op === 'avg' ? value / inputs.length : value;
  }
  if (planned.codec === 'bf16') roundToBf16(results);
  return repeat(dtype, [...results], 0, count);
}

/** To nearest even, as the finished value travels. */
function roundToBf16(values: Numbers): void {
  const bits = new Uint32Array(values.buffer);
  for (let index = 0; index < bits.length; index++) {
    const value = bits[index]!;
    bits[index] = (value + 0x7fff + ((value >>> 16) & 1)) & 0xffff0000;
  }
}

function joined(dtype: SimDtype, parts: readonly Numbers[]): Numbers {
  const result = make(
    dtype,
    parts.reduce((sum, part) => sum + part.length, 0),
  );
  let at = 0;
  for (const part of parts) {
    result.set(part as Uint8Array, at); // all parts have the result's dtype
    at += part.length;
  }
  return result;
}

/** Results that were asked for last: every rank asks for the same. */
const results = new Made<Numbers>(16);

function reducedOnce(planned: Planned, contributors: readonly string[], algorithm: AlgorithmLabel): Numbers {
  return results.get(`${planned.boundary} ${planned.index} ${algorithm} ${contributors.join()}`, () =>
    planned.isOrdered ? inProgramOrder(planned, contributors, algorithm) : reduced(planned, contributors),
  );
}

function gatheredOnce(planned: Planned, contributors: readonly string[]): Numbers {
  return results.get(`${planned.boundary} ${planned.index} ${contributors.join()}`, () =>
    joined(
      planned.dtype,
      contributors.map((one) => inputOf(one, planned, planned.count)),
    ),
  );
}

/**
 * How far an element may be from what is expected: a codec drops something of each contribution and of each sum on the way, and
 * what is kept of that comes back in a later call, perhaps of fewer members. Inputs are 7 at most.
 */
export function tolerance({ codec, op, algorithm }: Planned, contributors: number): number {
  if (codec !== 'int8') return 0;
  const encodings = algorithm === 'auto' ? contributors + MOST_MEMBERS : contributors * MOST_MEMBERS;
  // Never so much that a contribution could be missing.
  return Math.min((7 / 253) * 2 * encodings, 6) / (op === 'avg' ? contributors : 1);
}

/** What the output must begin with after a success; null where this rank gets nothing. */
export function expected(
  { planned, peerId, rootId }: Call,
  { contributors, algorithm }: Pick<Report, 'contributors' | 'algorithm'>,
): Numbers | null {
  const { kind, count, dtype } = planned;
  const rank = contributors.indexOf(peerId);
  const ranks = contributors.length;
  switch (kind) {
    case 'allReduce':
      return reducedOnce(planned, contributors, algorithm);
    case 'reduce':
      return peerId === rootId ? reducedOnce(planned, contributors, algorithm) : null;
    case 'reduceScatter': {
      const { start, count: length } = shareOf(count, ranks, rank);
      return reducedOnce(planned, contributors, algorithm).slice(start, start + length);
    }
    case 'broadcast':
      return inputOf(rootId, planned, count);
    case 'allGather':
      return gatheredOnce(planned, contributors);
    case 'gather':
      return peerId === rootId ? gatheredOnce(planned, contributors) : null;
    case 'scatter':
      return inputOf(rootId, planned, count, rank * count);
    case 'allToAll':
      return joined(
        dtype,
        contributors.map((one) => inputOf(one, planned, count, rank * count)),
      );
    case 'barrier':
      return null;
    default:
      return kind satisfies never;
  }
}
