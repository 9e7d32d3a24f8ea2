/**
 * What the engine is to do in a collective, made of the tensors that its caller gives: which memory is read and written, and how many
 * elements are concerned. Pure functions; what does not fit is refused here.
 */
import type { PeerId } from '../collectives/call.ts';
import { shareOf } from '../collectives/partition.ts';
import type { CollectiveKind, Rank } from '../collectives/program.ts';
import { ArgumentError } from '../errors.ts';
import { DTYPE_BYTES, type Dtype, sharedMemory, type Tensor, type TensorPart, tensorParts } from '../tensor.ts';

/** What a collective needs beyond its options. */
export interface Shape {
  readonly kind: CollectiveKind;
  readonly input: readonly TensorPart[];
  readonly output: readonly TensorPart[];
  readonly inPlace: boolean;
  readonly dtype: Dtype;
  readonly count: number;
  readonly root: PeerId | null;
  readonly laidOutFor: number | null;
  readonly reduces: boolean;
}

/** Where a rank is among the others. */
interface Place {
  readonly worldSize: number;
  readonly rank: Rank;
}

/** Whose the result is, or whose tensor is spread. */
interface Rooted {
  readonly root: PeerId;
  /** It is this peer. */
  readonly isRoot: boolean;
  readonly worldSize: number;
}

/** What a barrier passes round; its value does not matter. */
const TOKEN: TensorPart = { dtype: 'u8', count: 1, bytes: new Uint8Array(sharedMemory(1)) };
const TOKEN_OUT: TensorPart = { dtype: 'u8', count: 1, bytes: new Uint8Array(sharedMemory(1)) };

export function allReduceShape(tensor: Tensor, out: Tensor | undefined): Shape {
  const input = tensorParts(tensor, 'tensor');
  const output = out === undefined ? input : tensorParts(out, 'out');
  const count = countOf(input);
  checkOut(input, output, count);
  return { ...shapeOf('allReduce', input, output), inPlace: out === undefined, count, reduces: true };
}

export function reduceShape(tensor: Tensor, out: Tensor | undefined, root: PeerId): Shape {
  return { ...allReduceShape(tensor, out), kind: 'reduce', root };
}

export function broadcastShape(tensor: Tensor, root: PeerId): Shape {
  const parts = tensorParts(tensor, 'tensor');
  return { ...shapeOf('broadcast', parts, parts), inPlace: true, count: countOf(parts), root };
}

export function reduceScatterShape(tensor: Tensor, out: Tensor | undefined, { worldSize, rank }: Place): Shape {
  const input = tensorParts(tensor, 'tensor');
  const count = countOf(input);
  const share = shareOf(count, worldSize, rank);
  const output = out === undefined ? cut(input, share.start, share.count) : tensorParts(out, 'out');
  checkOut(input, output, share.count);
  const inPlace = out === undefined;
  return { ...shapeOf('reduceScatter', input, output), inPlace, count, laidOutFor: worldSize, reduces: true };
}

export function allGatherShape(part: Tensor, out: Tensor, worldSize: number): Shape {
  const input = tensorParts(part, 'part');
  const output = tensorParts(out, 'out');
  const count = countOf(input);
  checkOut(input, output, count * worldSize);
  return { ...shapeOf('allGather', input, output), count };
}

export function gatherShape(part: Tensor, out: Tensor | undefined, { root, isRoot, worldSize }: Rooted): Shape {
  const input = tensorParts(part, 'part');
  const output = out === undefined ? [] : tensorParts(out, 'out');
  const count = countOf(input);
  if (isRoot) checkOut(input, output, count * worldSize);
  return { ...shapeOf('gather', input, output), count, root };
}

export function scatterShape(tensor: Tensor | undefined, part: Tensor, { root, isRoot, worldSize }: Rooted): Shape {
  const output = tensorParts(part, 'part');
  const input = tensor === undefined ? [] : tensorParts(tensor, 'tensor');
  const count = countOf(output);
  const { dtype } = output[0]!; // a tensor has at least one part
  if (isRoot && (countOf(input) < count * worldSize || input[0]?.dtype !== dtype)) {
    throw new ArgumentError(
      `The root of a scatter needs ${count * worldSize} elements of ${dtype}, ${count} for each of ${worldSize} members.`,
    );
  }
  return { ...shapeOf('scatter', input, output), dtype, count, root, laidOutFor: worldSize };
}

export function allToAllShape(tensor: Tensor, out: Tensor, worldSize: number): Shape {
  const input = tensorParts(tensor, 'tensor');
  const output = tensorParts(out, 'out');
  const total = countOf(input);
  if (total % worldSize !== 0)
    throw new ArgumentError(`All-to-all cuts the tensor in ${worldSize} equal parts; ${total} elements can't be.`);
  checkOut(input, output, total);
  return { ...shapeOf('allToAll', input, output), count: total / worldSize, laidOutFor: worldSize };
}

export function barrierShape(): Shape {
  return { ...shapeOf('barrier', [TOKEN], [TOKEN_OUT]), count: 1 };
}

export function bytesOf(parts: readonly TensorPart[]): number {
  return parts.reduce((sum, { bytes }) => sum + bytes.length, 0);
}

/** Whether there is memory that is part of both. */
export function overlap(left: readonly TensorPart[], right: readonly TensorPart[]): boolean {
  return left.some(({ bytes: one }) =>
    right.some(({ bytes: other }) => {
      const isApart =
        one.byteOffset + one.length <= other.byteOffset || other.byteOffset + other.length <= one.byteOffset;
      return one.buffer === other.buffer && !isApart;
    }),
  );
}

function shapeOf(kind: CollectiveKind, input: readonly TensorPart[], output: readonly TensorPart[]): Shape {
  const dtype = (input[0] ?? output[0])?.dtype ?? 'u8';
  return { kind, input, output, inPlace: false, dtype, count: 0, root: null, laidOutFor: null, reduces: false };
}

function countOf(parts: readonly TensorPart[]): number {
  return parts.reduce((sum, part) => sum + part.count, 0);
}

function checkOut(input: readonly TensorPart[], output: readonly TensorPart[], count: number): void {
  if (output[0]?.dtype === input[0]?.dtype && countOf(output) >= count) return;
  const have = `${countOf(output)} elements of ${output[0]?.dtype ?? 'nothing'}`;
  throw new ArgumentError(`The output has ${have}; ${count} of ${input[0]?.dtype ?? 'nothing'} are needed.`);
}

/** Elements `start` to `start + count` of fused tensors. */
function cut(parts: readonly TensorPart[], start: number, count: number): TensorPart[] {
  const cut: TensorPart[] = [];
  let first = 0;
  for (const part of parts) {
    const from = Math.max(start, first) - first;
    const to = Math.min(start + count, first + part.count) - first;
    const size = DTYPE_BYTES[part.dtype];
    if (to > from)
      cut.push({ dtype: part.dtype, count: to - from, bytes: part.bytes.subarray(from * size, to * size) });
    first += part.count;
  }
  const [any] = parts;
  return cut.length > 0 || any === undefined ? cut : [{ dtype: any.dtype, count: 0, bytes: any.bytes.subarray(0, 0) }];
}
