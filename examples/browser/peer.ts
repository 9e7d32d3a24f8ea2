/** A process that trains along with the tab. It is told what to do by its arguments, and tells its parent how it goes. */
import { createHash } from 'node:crypto';
import { join } from '../../src/index.ts';
import { loadDigits } from '../mnist/data.ts';
import { model, type Progress, trainDigits } from './training.ts';

export type PeerReport =
  | ({ readonly type: 'step' } & Progress)
  | { readonly type: 'result'; readonly hash: string; readonly accuracy: number; readonly paths: readonly string[] };

const [address = '', run = '', peers = '', steps = ''] = process.argv.slice(2);
const tell = (report: PeerReport) => void process.send?.(report);

const { training, test } = loadDigits();
const group = await join(address, {
  run,
  startWorldSize: Number(peers),
  transports: ['unix', 'tcp', 'webrtc'],
  timeout: 60_000,
});
const paths = group.members.map(({ path }) => path ?? 'itself');
const parameters = await trainDigits(group, training, Number(steps), (progress) => tell({ type: 'step', ...progress }));
const right = test.filter(({ image, label }) => model.classify(parameters, image, label).guess === label).length;
const hash = createHash('sha256').update(parameters).digest('hex');
tell({ type: 'result', hash, accuracy: right / test.length, paths });
await group.leave();
process.disconnect?.();
