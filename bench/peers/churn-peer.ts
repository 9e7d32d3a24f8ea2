/**
 * A member for the churn benchmark: all-reduces step after step with a boundary before each, tells when each result was
 * there, and dies in the middle of one when it is asked to. Times are of the machine's monotonic clock, the same in all processes.
 */
import { writeSync } from 'node:fs';
import { join, sharedTensor } from '../../src/index.ts';

export interface ChurnTask {
  readonly address: string;
  readonly startWorldSize: number;
  /** Bytes of f32. */
  readonly bytes: number;
}

export interface StepReport {
  readonly peerId: string;
  readonly worldSize: number;
  /** Newcomers that came in at the boundary before this step. */
  readonly joined: number;
  /** Seconds on the monotonic clock. */
  readonly start: number;
  readonly admitted: number;
  readonly end: number;
}

/** Sent to a member: die when this share of the next all-reduce is done. */
export interface DieOrder {
  readonly dieAt: number;
}

const task = JSON.parse(process.argv[2] ?? '') as ChurnTask; // written by churn.ts

function now(): number {
  return Number(process.hrtime.bigint()) / 1e9;
}

let dieAt: number | null = null;
process.on('message', (order: DieOrder) => {
  dieAt = order.dieAt;
});
process.on('disconnect', () => process.exit(0));

const group = await join(task.address, { startWorldSize: task.startWorldSize, timeout: 60_000 });
const input = sharedTensor('f32', task.bytes / 4).fill(1);
const out = sharedTensor('f32', task.bytes / 4).fill(0);
let start = now();
for await (const step of group.steps()) {
  const admitted = now();
  const share = dieAt;
  const onProgress = (done: number) => {
    if (share === null || done < share) return;
    // Written at once: nothing that is queued outlives the next line.
    writeSync(1, `${now()}\n`);
    process.kill(process.pid, 'SIGKILL');
  };
  const report = await group.allReduce(input, { out, algorithm: 'ring', ...(share === null ? {} : { onProgress }) });
  const end = now();
  if (out[0] !== report.worldSize || out.at(-1) !== report.worldSize) throw new Error('churn: wrong result');
  const { worldSize } = report;
  const message: StepReport = {
    peerId: group.peerId,
    worldSize,
    joined: step.joined.length,
    start,
    admitted,
    end,
  };
  process.send?.(message);
  start = now();
}
