/**
 * A member for the benchmark of shared state: trains step after step, of which each begins with a boundary and a sync, and tells how long
 * they took. Times are seconds of the machine's monotonic clock, the same in all processes.
 */
import { join, type SharedState, sharedTensor } from '../../src/index.ts';

export interface StateTask {
  readonly address: string;
  readonly startWorldSize: number;
  /** Bytes of the state, and of what of it each step changes. */
  readonly bytes: number;
  readonly changedBytes: number;
  /** How long a step computes (ms): as on an accelerator, without a processor. */
  readonly computeMs: number;
  /** A sync is told what has changed. */
  readonly tells: boolean;
}

export type StateMessage =
  | { readonly type: 'joining'; readonly at: number }
  | {
      readonly type: 'step';
      readonly index: number;
      readonly worldSize: number;
      readonly joined: number;
      readonly start: number;
      readonly synced: number;
      readonly end: number;
      readonly received: number;
      readonly prefetched: number;
      readonly sources: number;
      readonly hash: string;
    };

const task = JSON.parse(process.argv[2] ?? '') as StateTask; // written by bench/state.ts

function now(): number {
  return Number(process.hrtime.bigint()) / 1e9;
}

function tell(message: StateMessage): void {
  process.send?.(message);
}

let isLeaving = false;
process.on('message', () => {
  isLeaving = true;
});
process.on('disconnect', () => process.exit(0));

const { address, startWorldSize, bytes, changedBytes, computeMs, tells } = task;
const weights = sharedTensor('f32', changedBytes / 4);
const rest = sharedTensor('f32', (bytes - changedBytes) / 4);
const gradients = sharedTensor('f32', 256 * 1024);
// The founders have something in every page that newcomers have not.
if (startWorldSize > 1) for (let at = 0; at < rest.length; at += 1_024) rest[at] = 1 + (at % 1_000);
const state: SharedState = { revision: 0, entries: { weights, rest } };
tell({ type: 'joining', at: now() });
const group = await join(address, { startWorldSize, timeout: 120_000, state });
const sync = tells ? { changed: ['weights'] } : {};
let start = now();
for await (const step of group.steps({ state, sync })) {
  const synced = now();
  await new Promise((resolve) => setTimeout(resolve, computeMs));
  gradients.fill(1);
  await group.allReduce(gradients, { op: 'avg' });
  // One value in every cache line: what it costs is not what is measured.
  for (let at = 0; at < weights.length; at += 16) weights[at]! += gradients[at % gradients.length]!;
  const end = now();
  const { received, prefetched, from, hash } = step.sync!; // with `syncEvery` 1 there is one
  const { index, worldSize, joined } = step;
  const sources = from.length;
  tell({
    type: 'step',
    index,
    worldSize,
    joined: joined.length,
    start,
    synced,
    end,
    received,
    prefetched,
    sources,
    hash,
  });
  if (isLeaving) break;
  start = now();
}
await group.leave();
process.exit(0);
