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
  readonly token?: string;
  readonly recovery?: 'restart' | 'salvage';
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

const { address, startWorldSize, token, recovery = 'restart' } = task;
const group = await join(address, { startWorldSize, timeout: 60_000, ...(token === undefined ? {} : { token }) });
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
  const options = { out, algorithm: 'ring', recovery, ...(share === null ? {} : { onProgress }) } as const;
  const report = await group.allReduce(input, options);
  const end = now();
  const first = report.ranges[0]?.contributors.length ?? report.worldSize;
  const last = report.ranges.at(-1)?.contributors.length ?? report.worldSize;
  if (out[0] !== first || out.at(-1) !== last) throw new Error('churn: wrong result');
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
