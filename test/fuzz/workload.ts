/** The calls of the recorded run: small and bulk, with and without a codec, of every shape. */
import type { CallSpec } from '../../src/collectives/call.ts';
import { tensorSizes } from '../../src/collectives/plan.ts';
import { Workspace } from '../../src/collectives/workspace.ts';
import type { EngineMemory } from '../../src/engine/memory.ts';
import { ArenaPool } from '../../src/engine/memory.ts';
import { loadKernels } from '../../src/kernels/load.ts';

/** Small, so that a few thousand elements are several segments. */
const SEGMENT_BYTES = 4_096;

export const WORLD_SIZE = 3;

type Shape = Pick<CallSpec, 'kind' | 'algorithm' | 'count'> & Partial<Pick<CallSpec, 'op' | 'codec' | 'consistency'>>;

const SHAPES: readonly Shape[] = [
  { kind: 'allReduce', algorithm: 'ring', count: 3_001 },
  { kind: 'allReduce', algorithm: 'tree', count: 2_500 },
  { kind: 'allReduce', algorithm: 'ring', count: 30_000 }, // above what is sent unasked
  { kind: 'allReduce', algorithm: 'ring', count: 3_000, codec: 'bf16' },
  { kind: 'allReduce', algorithm: 'auto', count: 3_000, codec: 'int8' },
  { kind: 'allReduce', algorithm: 'auto', count: 3_000, op: 'median' },
  { kind: 'allReduce', algorithm: 'ring', count: 7, consistency: 'eager' },
  { kind: 'reduceScatter', algorithm: 'auto', count: 2_000 },
  { kind: 'allToAll', algorithm: 'auto', count: 700 },
  { kind: 'allGather', algorithm: 'auto', count: 1_100 },
  { kind: 'barrier', algorithm: 'auto', count: 0 },
];

const reduces = (kind: CallSpec['kind']) => kind === 'allReduce' || kind === 'reduceScatter';

export interface WorkloadCall {
  readonly spec: Omit<CallSpec, 'input' | 'output'>;
  readonly inputBytes: number;
  readonly outputBytes: number;
}

export const WORKLOAD: readonly WorkloadCall[] = SHAPES.map((shape, index) => {
  const request = { ...shape, algorithm: 'ring' as const, worldSize: WORLD_SIZE, root: 0 };
  // The largest that any rank needs: a call may be given more than it needs.
  const sizes = Array.from({ length: WORLD_SIZE }, (_, rank) => tensorSizes(request, rank));
  return {
    spec: {
      tag: `call ${index}`,
      dtype: 'f32',
      op: reduces(shape.kind) ? 'sum' : null,
      trim: null,
      clipRadius: null,
      codec: 'f32',
      rounding: 'nearest',
      errorFeedback: false,
      measureError: false,
      root: null,
      laidOutFor: null,
      consistency: 'commit',
      recovery: 'restart',
      stragglers: 'wait',
      minWorldSize: 1,
      timeoutMs: 30_000,
      guard: null,
      stream: null,
      atomic: true,
      ...shape,
    },
    inputBytes: 4 * Math.max(...sizes.map(({ input }) => input)),
    outputBytes: 4 * Math.max(...sizes.map(({ output }) => output)),
  };
});

/** The memory of an engine, with small segments. */
export async function smallMemory(): Promise<EngineMemory> {
  const kernels = await loadKernels(2 * 1024 * 1024);
  return {
    workspace: new Workspace(kernels, SEGMENT_BYTES),
    readBuffers: new ArenaPool(kernels, 64 * 1024, 4),
    carries: new ArenaPool(kernels, 64, 16),
  };
}
