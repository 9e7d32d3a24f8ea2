/** A process that trains along with the tab. It is told what to do by its arguments, and tells its parent how it goes. */
import { createHash } from 'node:crypto';
import { join } from '../../src/index.ts';
import { loadDigits } from '../mnist/data.ts';
import { model, type Progress, trainDigits } from './training.ts';

export type PeerReport =
  | ({ readonly type: 'step'; readonly paths: readonly (string | null)[] } & Progress)
  | { readonly type: 'result'; readonly hash: string; readonly accuracy: number };

const [address = '', run = '', peers = '', steps = ''] = process.argv.slice(2);
const tell = (report: PeerReport) => void process.send?.(report);

const { training, test } = loadDigits();
const group = await join(address, {
  run,
  startWorldSize: Number(peers),
  transports: ['unix', 'tcp', 'webrtc'],
  timeout: 60_000,
});
/** How the members are reached now; null: not yet, as one that comes last may take part before all have dialled it, or not any more. */
const paths = () => group.members.map(({ peerId, path }) => (peerId === group.peerId ? 'itself' : path));
const parameters = await trainDigits(group, training, Number(steps), (progress) =>
  tell({ type: 'step', paths: paths(), ...progress }),
);
const right = test.filter(({ image, label }) => model.classify(parameters, image, label).guess === label).length;
const hash = createHash('sha256').update(parameters).digest('hex');
tell({ type: 'result', hash, accuracy: right / test.length });
await group.leave();
process.disconnect?.();
