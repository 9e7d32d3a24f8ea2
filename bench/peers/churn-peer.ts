/**
 * A member for the benchmarks of churn and recovery: all-reduces step after step with a boundary before each, tells when each
 * result was there, and dies in the middle of one, or is late for one, when it is asked to. Times are seconds of the
 * machine's monotonic clock, the same in all processes.
 */
import { writeSync } from 'node:fs';
import { ExcludedError, join, sharedTensor } from '../../src/index.ts';

export interface ChurnTask {
  readonly address: string;
  readonly startWorldSize: number;
  /** Bytes of f32. */
  readonly bytes: number;
  readonly token?: string;
  readonly recovery?: 'restart' | 'salvage';
  readonly stragglers?: 'wait' | 'exclude';
}

export interface StepReport {
  readonly type: 'step';
  readonly peerId: string;
  readonly worldSize: number;
  /** Newcomers that came in at the boundary before this step. */
  readonly joined: number;
  readonly start: number;
  readonly admitted: number;
  readonly end: number;
}

/** The group has told that something is not as it was. */
export interface NoticeReport {
  readonly type: 'notice';
  readonly event: 'view' | 'coordinator-lost' | 'slow-peer';
  readonly at: number;
}

/** It is late for its next all-reduce from now on. */
export interface LateReport {
  readonly type: 'late';
  readonly at: number;
}

export type ChurnMessage = StepReport | NoticeReport | LateReport;

/** Die when this share of the next all-reduce is done, or come to it so late. */
export type ChurnOrder = { readonly dieAt: number } | { readonly lateMs: number };

const task = JSON.parse(process.argv[2] ?? '') as ChurnTask; // written by harness/member.ts

function now(): number {
  return Number(process.hrtime.bigint()) / 1e9;
}

function tell(message: ChurnMessage): void {
  process.send?.(message);
}

let dieAt: number | null = null;
let lateMs = 0;
process.on('message', (order: ChurnOrder) => {
  if ('dieAt' in order) dieAt = order.dieAt;
  else lateMs = order.lateMs;
});
process.on('disconnect', () => process.exit(0));

const { address, startWorldSize, token, recovery = 'restart', stragglers = 'wait' } = task;
const group = await join(address, { startWorldSize, timeout: 60_000, ...(token === undefined ? {} : { token }) });
for (const event of ['view', 'coordinator-lost', 'slow-peer'] as const)
  group.on(event, () => tell({ type: 'notice', event, at: now() }));
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
  if (lateMs > 0) {
    tell({ type: 'late', at: now() });
    await new Promise((resolve) => setTimeout(resolve, lateMs));
    lateMs = 0;
  }
  const options = { out, algorithm: 'ring', recovery, stragglers, ...(share === null ? {} : { onProgress }) } as const;
  try {
    const report = await group.allReduce(input, options);
    const end = now();
    const first = report.ranges[0]?.contributors.length ?? report.worldSize;
    const last = report.ranges.at(-1)?.contributors.length ?? report.worldSize;
    if (out[0] !== first || out.at(-1) !== last) throw new Error('churn: wrong result');
    const { worldSize } = report;
    const { peerId } = group;
    tell({ type: 'step', peerId, worldSize, joined: step.joined.length, start, admitted, end });
  } catch (error) {
    if (!(error instanceof ExcludedError)) throw error;
  }
  start = now();
}
