/** The collectives of a benchmark, with inputs whose results are known. */
import { type Group, type Report, sharedTensor } from '../index.ts';
import { DTYPE_BYTES, type SingleTensor } from '../tensor.ts';
import type { BenchedOp, Plan } from './plan.ts';

/** What a benchmark needs of a group. */
export type Benchable = Pick<
  Group,
  'rank' | 'worldSize' | 'allReduce' | 'reduceScatter' | 'reduce' | 'allGather' | 'allToAll' | 'broadcast' | 'barrier'
>;

type Values = ReturnType<typeof sharedTensor>;

/** Inputs repeat after so many elements. */
const PERIOD = 5;

/** So few values, so small, that sums and products of them are exact in every dtype: a wrong one can't hide in rounding. */
function inputAt(rank: number, index: number, op: BenchedOp): number {
  return op === 'prod' ? 1 + ((index + rank) % PERIOD === 0 ? 1 : 0) : (index + rank) % PERIOD;
}

function reduced(worldSize: number, index: number, op: BenchedOp): number {
  const inputs = Array.from({ length: worldSize }, (_, rank) => inputAt(rank, index, op));
  switch (op) {
    case 'sum':
      return inputs.reduce((sum, value) => sum + value, 0);
    case 'avg':
      return inputs.reduce((sum, value) => sum + value, 0) / worldSize;
    case 'prod':
      return inputs.reduce((product, value) => product * value, 1);
    case 'min':
      return Math.min(...inputs);
    case 'max':
      return Math.max(...inputs);
  }
}

/** Bits of a whole number from 0 to 2,048 as f16. */
function halfBits(value: number): number {
  if (value === 0) return 0;
  const exponent = Math.floor(Math.log2(value));
  return ((exponent + 15) << 10) | Math.round((value / 2 ** exponent - 1) * 1024);
}

const scratch = new DataView(new ArrayBuffer(4));

function bfloatBits(value: number): number {
  scratch.setFloat32(0, value);
  return scratch.getUint16(0);
}

function fromHalf(bits: number): number {
  const exponent = (bits >> 10) & 31;
  return exponent === 0 ? (bits & 1023) * 2 ** -24 : (1 + (bits & 1023) / 1024) * 2 ** (exponent - 15);
}

function fromBfloat(bits: number): number {
  scratch.setUint32(0, bits << 16);
  return scratch.getFloat32(0);
}

/** What these two round to lies this close. */
const HALF_TOLERANCE = 1 / 128;

/** The input, the result, and the calls that make one of the other. Lengths are in elements. */
export class Work {
  readonly bytes: number;
  readonly count: number;
  readonly #group: Benchable;
  readonly #plan: Plan;
  readonly #input: Values;
  readonly #out: Values;

  constructor(group: Benchable, plan: Plan, bytes: number) {
    this.#group = group;
    this.#plan = plan;
    const { worldSize, rank } = group;
    const { collective, dtype, op } = plan;
    const part = Math.max(1, Math.floor(bytes / DTYPE_BYTES[dtype] / worldSize));
    const whole = collective === 'allReduce' || collective === 'broadcast' || collective === 'reduce';
    this.count = whole ? Math.max(1, Math.floor(bytes / DTYPE_BYTES[dtype])) : part * worldSize;
    this.bytes = this.count * DTYPE_BYTES[dtype];
    this.#input = sharedTensor(dtype, collective === 'allGather' ? part : this.count);
    this.#out = sharedTensor(dtype, collective === 'reduceScatter' ? part : this.count);
    // All-gather's parts, and all-to-all's, are told apart by their ranks.
    this.#fill(this.#input, (index) => inputAt(rank, index, op));
    this.#fill(this.#out, () => 0);
  }

  get hasInPlace(): boolean {
    return this.#plan.collective === 'allReduce';
  }

  /** Makes the input what it was: in place it has become the result. */
  reset(): void {
    this.#fill(this.#input, (index) => inputAt(this.#group.rank, index, this.#plan.op));
  }

  /** @param inPlace the result takes the place of the input */
  run(inPlace: boolean, measureError: boolean): Promise<Report> {
    const { collective, op, codec, algorithm, consistency } = this.#plan;
    const options = { codec, algorithm, consistency };
    const [input, out] = [this.#tensor(this.#input), this.#tensor(this.#out)];
    switch (collective) {
      case 'allReduce':
        return this.#group.allReduce(input, { ...options, op, measureError, ...(inPlace ? {} : { out }) });
      case 'reduceScatter':
        return this.#group.reduceScatter(input, { ...options, op, out });
      case 'reduce':
        return this.#group.reduce(input, { ...options, op, out, root: 0 });
      case 'allGather':
        return this.#group.allGather(input, out, options);
      case 'allToAll':
        return this.#group.allToAll(input, out, options);
      case 'broadcast':
        return this.#group.broadcast(this.#group.rank === 0 ? input : out, { ...options, root: 0 });
    }
  }

  /** How many elements of this rank's result are not what they should be. */
  wrong(inPlace: boolean): number {
    const { collective } = this.#plan;
    if ((collective === 'reduce' || collective === 'broadcast') && this.#isRoot === (collective === 'broadcast'))
      return 0;
    const result = inPlace ? this.#input : this.#out;
    let wrong = 0;
    let index = 0;
    for (const expected of this.#expected(result.length)) {
      if (!this.#matches(result[index++]!, expected)) wrong += 1; // as many as it is long
    }
    return wrong;
  }

  get #isRoot(): boolean {
    return this.#group.rank === 0;
  }

  *#expected(length: number): Generator<number> {
    const { collective, op } = this.#plan;
    const { rank, worldSize } = this.#group;
    const part = this.count / worldSize;
    const sums = Array.from({ length: PERIOD }, (_, index) => reduced(worldSize, index, op));
    for (let index = 0; index < length; index++) {
      if (collective === 'allGather') yield inputAt(Math.floor(index / part), index % part, op);
      else if (collective === 'allToAll') yield inputAt(Math.floor(index / part), rank * part + (index % part), op);
      else if (collective === 'broadcast') yield inputAt(0, index, op);
      else yield sums[(collective === 'reduceScatter' ? rank * part + index : index) % PERIOD]!;
    }
  }

  #matches(found: number | bigint, expected: number): boolean {
    const { dtype } = this.#plan;
    if (dtype === 'f16' || dtype === 'bf16') {
      const value = dtype === 'f16' ? fromHalf(Number(found)) : fromBfloat(Number(found));
      return Math.abs(value - expected) <= expected * HALF_TOLERANCE;
    }
    if (dtype === 'f32') return found === Math.fround(expected);
    if (dtype === 'f64') return found === expected;
    // Products and sums of integers wrap round, and averages are cut off.
    const bits = 8 * DTYPE_BYTES[dtype];
    return BigInt.asUintN(bits, BigInt(found)) === BigInt.asUintN(bits, BigInt(Math.trunc(expected)));
  }

  #fill(values: Values, at: (index: number) => number): void {
    const { dtype } = this.#plan;
    const period = Array.from({ length: PERIOD }, (_, index) => at(index));
    if (values instanceof BigInt64Array || values instanceof BigUint64Array) {
      for (let index = 0; index < values.length; index++) values[index] = BigInt(period[index % PERIOD]!);
      return;
    }
    const encode = dtype === 'f16' ? halfBits : dtype === 'bf16' ? bfloatBits : (value: number) => value;
    const encoded = period.map(encode);
    for (let index = 0; index < values.length; index++) values[index] = encoded[index % PERIOD]!;
  }

  #tensor(values: Values): SingleTensor {
    const { dtype } = this.#plan;
    return dtype === 'f16' || dtype === 'bf16' ? { dtype, data: values as Uint16Array<ArrayBufferLike> } : values;
  }
}
