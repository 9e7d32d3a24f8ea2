/** One of the two members at the ends of a long pipe: carries out the calls that it is told of, and says how long each took. */
import { join, sharedTensor } from '../../src/index.ts';

export interface PipeTask {
  readonly address: string;
  readonly token: string;
  readonly encryption: 'off-loopback' | 'always';
  /** Of the largest call. */
  readonly bytes: number;
}

export type PipeCall = 'broadcast' | 'allReduce';

export interface PipeOrder {
  readonly call: PipeCall;
  readonly bytes: number;
}

export interface PipeReport {
  /** Seconds, on the machine's monotonic clock. */
  readonly start: number;
  readonly end: number;
  /** Connections by which the other is sent to. */
  readonly stripes: number;
}

const { address, token, encryption, bytes } = JSON.parse(process.argv[2] ?? '') as PipeTask; // written by bench/pipes.ts

function now(): number {
  return Number(process.hrtime.bigint()) / 1e9;
}

const group = await join(address, { token, encryption, startWorldSize: 2, transports: ['tcp'], timeout: 60_000 });
const input = sharedTensor('f32', bytes / 4).fill(1);
const out = sharedTensor('f32', bytes / 4).fill(0);

async function carryOut({ call, bytes }: PipeOrder): Promise<PipeReport> {
  await group.barrier();
  const start = now();
  if (call === 'broadcast') await group.broadcast(input.subarray(0, bytes / 4));
  else {
    const result = out.subarray(0, bytes / 4);
    await group.allReduce(input.subarray(0, bytes / 4), { out: result, algorithm: 'ring' });
    if (result[0] !== 2 || result.at(-1) !== 2) throw new Error('a wrong result');
  }
  const end = now();
  const { links } = await group.status();
  return { start, end, stripes: links[0]?.stripes ?? 0 };
}

process.on('message', (order: PipeOrder) => void carryOut(order).then((report) => process.send?.(report)));
process.on('disconnect', () => process.exit(0));
process.send?.('joined');
