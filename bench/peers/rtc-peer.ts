/** One of two Skein peers with a WebRTC link between them, which does what it is told and says how long it took. */
import { join, sharedTensor } from '../../src/index.ts';

export interface RtcTask {
  readonly address: string;
  readonly stripes: number;
}

export type RtcReport = { readonly type: 'ready' } | { readonly type: 'done'; readonly seconds: number };
export interface RtcOrder {
  readonly work: 'broadcast' | 'allReduce';
  readonly bytes: number;
}

const say = (report: RtcReport) => process.send?.(report);
const { address, stripes } = JSON.parse(process.argv[2] ?? '') as RtcTask; // written by webrtc.ts
const group = await join(address, { startWorldSize: 2, transports: ['webrtc'], stripes, timeout: 60_000 });
const tensors = new Map<number, Float32Array>();

process.on('message', async ({ work, bytes }: RtcOrder) => {
  const tensor = tensors.get(bytes) ?? sharedTensor('f32', bytes / 4).fill(1);
  tensors.set(bytes, tensor);
  await group.barrier();
  const startedAt = performance.now();
  if (work === 'broadcast') await group.broadcast(tensor, { root: 0 });
  else await group.allReduce(tensor, { op: 'avg' });
  say({ type: 'done', seconds: (performance.now() - startedAt) / 1_000 });
});
process.on('disconnect', () => process.exit(0));
say({ type: 'ready' });
