/** A member for the codec benchmark: makes the all-reduces that it is told to, and tells how long they took and what they sent. */
import { readFileSync } from 'node:fs';
import { type AllReduceOptions, join, sharedTensor } from '../../src/index.ts';
import type { MemberTask } from '../harness/ordered-swarm.ts';

export interface CodecTask extends MemberTask {
  /** Elements of f32. */
  readonly count: number;
}

/** Sent to a member: all-reduce once with these. */
export type CodecOrder = Pick<AllReduceOptions, 'codec' | 'algorithm' | 'errorFeedback'>;

export interface CodecReport {
  readonly seconds: number;
  /** Data frames, headers included. */
  readonly bytesSent: number;
  /** Bytes that left this process's network device meanwhile, the headers of TCP and IP included; 0 where it has no device of its own. */
  readonly deviceBytes: number;
}

const task = JSON.parse(process.argv[2] ?? '') as CodecTask; // written by codecs.ts

/** The device that its namespace gave it. */
function deviceBytes(): number {
  const line = readFileSync('/proc/self/net/dev', 'utf8')
    .split('\n')
    .find((text) => text.trim().startsWith('net:'));
  return line === undefined ? 0 : Number(line.split(':')[1]!.trim().split(/\s+/)[8]); // the ninth figure: bytes sent
}

const { address, token, worldSize, count } = task;
const group = await join(address, { startWorldSize: worldSize, token, timeout: 60_000, transports: ['tcp'] });
const input = sharedTensor('f32', count);
for (let index = 0; index < count; index++) input[index] = Math.sin(index * 0.7 + group.rank) * Math.cos(index * 0.013);
const out = sharedTensor('f32', count);

process.on('disconnect', () => process.exit(0));
process.on('message', async (order: CodecOrder) => {
  await group.barrier({ tag: 'ready' });
  const before = deviceBytes();
  const start = process.hrtime.bigint();
  const report = await group.allReduce(input, { ...order, out });
  const seconds = Number(process.hrtime.bigint() - start) / 1e9;
  // What is queued for the others has left when all have their results.
  await group.barrier({ tag: 'done' });
  const answer: CodecReport = { seconds, bytesSent: report.bytesSent, deviceBytes: deviceBytes() - before };
  process.send?.(answer);
});
process.send?.({ ready: true });
