/**
 * A look at this peer's own input before a byte of it is sent: what can be refused here need not be averaged away by all others.
 */
import { DTYPE_BYTES, type FloatDtype } from '../tensor.ts';
import type { Pieces } from './pieces.ts';
import { STAGE_BYTES, type Workspace } from './workspace.ts';

/** What an input must be like. */
export interface Guard {
  /** Largest Euclidean norm over all tensors of the call; null: any, as long as every element is finite. */
  readonly maxNorm: number | null;
  /** Elements of each of the call's tensors, in their order. */
  readonly tensors: readonly number[];
}

/** What is wrong with an input, in words; null: nothing. It is read once. */
export function poisonIn(workspace: Workspace, dtype: FloatDtype, input: Pieces, guard: Guard): string | null {
  const count = guard.tensors.reduce((sum, length) => sum + length, 0);
  const most = STAGE_BYTES / Math.max(DTYPE_BYTES[dtype], DTYPE_BYTES.f32);
  let energy = 0;
  for (let start = 0; start < count; start += most) {
    const values = loaded(workspace, dtype, input, start, Math.min(most, count - start));
    const part = dtype === 'f64' ? energyOf(values) : workspace.kernels.energy(workspace.stageArrived, values.length);
    // Squares of f32 can't overflow in f64; those of f64 can, of numbers that are finite.
    const stranger = Number.isFinite(part) ? -1 : indexOfStranger(values);
    if (stranger >= 0) return `${placeOf(start + stranger, guard.tensors)} is ${values[stranger]}`;
    energy += part;
  }
  const norm = Math.sqrt(energy);
  const { maxNorm } = guard;
  return maxNorm === null || norm <= maxNorm
    ? null
    : `its Euclidean norm is ${norm}, above the \`maxNorm\` of ${maxNorm}`;
}

/** Part of the input as numbers in the arena: f64 as it is, all else as f32. */
function loaded(
  { bytes, kernels, stageArrived, stageWire }: Workspace,
  dtype: FloatDtype,
  input: Pieces,
  start: number,
  count: number,
): Float32Array | Float64Array {
  const size = DTYPE_BYTES[dtype];
  const to = dtype === 'f32' || dtype === 'f64' ? stageArrived : stageWire;
  input.copyTo(bytes, to, start * size, (start + count) * size);
  if (dtype === 'f64') return new Float64Array(bytes.buffer, bytes.byteOffset + to, count);
  if (dtype !== 'f32') kernels.decode(dtype, stageArrived, to, count);
  return new Float32Array(bytes.buffer, bytes.byteOffset + stageArrived, count);
}

function energyOf(values: Float32Array | Float64Array): number {
  let sum = 0;
  for (let index = 0; index < values.length; index++) sum += values[index]! ** 2;
  return sum;
}

function indexOfStranger(values: Float32Array | Float64Array): number {
  for (let index = 0; index < values.length; index++) if (!Number.isFinite(values[index])) return index;
  return -1;
}

/** `element 7 of tensor 2`, of an index that counts through all tensors of the call. */
function placeOf(index: number, tensors: readonly number[]): string {
  let tensor = 0;
  let element = index;
  while (element >= (tensors[tensor] ?? Number.POSITIVE_INFINITY)) {
    element -= tensors[tensor]!; // the bound was no infinity
    tensor += 1;
  }
  return `element ${element} of tensor ${tensor}`;
}
