/**
 * A user's shared state as memory that the engine can reach: tensors on shared memory as they are, all else in copies, which are
 * brought up to date on either side (`push`, `pull`).
 */
import { ArgumentError } from '../errors.ts';
import { copyBytes } from '../kernels/copy.ts';
import { type PlainTensor, type SingleTensor, sharedMemory, tensorParts } from '../tensor.ts';
import type { StateSpec } from './asks.ts';
import { type EntryShape, type EntryType, layOut } from './layout.ts';

/** A tensor, which stays where it is, or one value, which is replaced. */
export type SharedEntry = SingleTensor | number | bigint | boolean;

/**
 * What all members are to hold alike: parameters, the state of an optimiser, the number of a step.
 *
 * @example const state: SharedState = { revision: 0, entries: { weights: sharedTensor('f32', 1_000_000), learningRate: 0.1 } };
 */
export interface SharedState {
  /**
   * The version of the contents. 0: fresh, of no value to anybody who has more. Whoever changes the contents adds 1, in step with the
   * others (`group.steps({ state })` does so); `syncState` sets it to that of the contents that all have now.
   */
  revision: number;
  /**
   * By name; the same names, types and lengths on all members. Numbers (as f64), bigints (as i64) and booleans are replaced in this
   * object. Tensors on shared memory (`sharedTensor`) need no copy.
   */
  readonly entries: Record<string, SharedEntry>;
}

const SCALAR_BYTES = 8;

const MAX_ENTRIES = 65_536;

interface Slot {
  readonly shape: EntryShape;
  /** Where the engine finds it. */
  readonly memory: Uint8Array;
  /** The tensor of which `memory` is a copy; null where it is the tensor itself, or a value. */
  readonly original: Uint8Array | null;
  /** Null for a value. */
  readonly array: PlainTensor | null;
}

function scalarType(value: SharedEntry): EntryType | null {
  if (typeof value === 'number') return 'number';
  if (typeof value === 'bigint') return 'bigint';
  return typeof value === 'boolean' ? 'boolean' : null;
}

export class StateMemory {
  readonly state: SharedState;
  /** In the order of the layout. */
  readonly #slots: readonly Slot[];

  /** @param mustShare the engine is a thread of its own @throws ArgumentError when an entry is none */
  constructor(state: SharedState, mustShare: boolean) {
    checkRevision(state.revision);
    const names = Object.keys(state.entries ?? {});
    if (names.length === 0 || names.length > MAX_ENTRIES)
      throw new ArgumentError(`A shared state has 1 to ${MAX_ENTRIES} entries, not ${names.length}.`);
    this.state = state;
    const slots = new Map(names.map((name) => [name, slotOf(name, state.entries[name]!, mustShare)]));
    this.#slots = layOut([...slots.values()].map(({ shape }) => shape)).entries.map(({ name }) => slots.get(name)!);
  }

  spec(tag: string): StateSpec {
    const { revision } = this.state;
    const shapes = this.#slots.map(({ shape }) => shape);
    return { tag, shapes, memory: this.#slots.map(({ memory }) => memory), revision };
  }

  /** Whether the entries are those that they were: the same arrays, and values of the same types. */
  isOf(state: SharedState): boolean {
    const names = Object.keys(state.entries);
    if (state !== this.state || names.length !== this.#slots.length) return false;
    return this.#slots.every(({ shape, array }) => {
      const value = state.entries[shape.name];
      if (value === undefined) return false;
      return array === null ? scalarType(value) === shape.type : arrayOf(value) === array;
    });
  }

  /** What the user has goes to where the engine sees it. */
  push(): void {
    for (const { shape, memory, original, array } of this.#slots) {
      if (original !== null) copyBytes(memory, original, 0);
      else if (array === null) writeScalar(memory, this.state.entries[shape.name]!);
    }
  }

  /** What the engine has put there goes to the user. */
  pull(): void {
    for (const { shape, memory, original, array } of this.#slots) {
      if (original !== null) copyBytes(original, memory, 0);
      else if (array === null) readScalar(this.state, shape, memory);
    }
  }
}

export function checkRevision(revision: number): void {
  if (!Number.isSafeInteger(revision) || revision < 0)
    throw new ArgumentError(`The revision of a shared state is a whole number from 0, not ${revision}.`);
}

function arrayOf(value: SharedEntry): PlainTensor | null {
  if (typeof value !== 'object' || value === null) return null;
  return 'dtype' in value ? value.data : value;
}

function slotOf(name: string, value: SharedEntry, mustShare: boolean): Slot {
  const scalar = scalarType(value);
  if (scalar !== null) {
    const memory = new Uint8Array(sharedMemory(SCALAR_BYTES));
    return { shape: { name, type: scalar, bytes: SCALAR_BYTES }, memory, original: null, array: null };
  }
  const [part] = tensorParts(value as SingleTensor, `entry ${JSON.stringify(name)}`); // refused when it is none
  const { dtype, bytes } = part!;
  const shape = { name, type: dtype, bytes: bytes.length };
  const isReached = !mustShare || bytes.buffer instanceof SharedArrayBuffer;
  const array = arrayOf(value);
  if (isReached) return { shape, memory: bytes, original: null, array };
  return { shape, memory: new Uint8Array(sharedMemory(bytes.length)), original: bytes, array };
}

function writeScalar(memory: Uint8Array, value: SharedEntry): void {
  const view = new DataView(memory.buffer, memory.byteOffset);
  if (typeof value === 'number') view.setFloat64(0, value, true);
  else if (typeof value === 'bigint') view.setBigInt64(0, value, true);
  else view.setUint8(0, value === true ? 1 : 0);
}

function readScalar({ entries }: SharedState, { name, type }: EntryShape, memory: Uint8Array): void {
  const view = new DataView(memory.buffer, memory.byteOffset);
  if (type === 'number') entries[name] = view.getFloat64(0, true);
  else if (type === 'bigint') entries[name] = view.getBigInt64(0, true);
  else entries[name] = view.getUint8(0) === 1;
}
