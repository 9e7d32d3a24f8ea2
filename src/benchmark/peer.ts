/** A process of `skein bench -n N`: joins as its environment says, and tells its parent each row (`Row`, or `Explained`), if it is rank 0. */
import { type JoinOptions, join } from '../index.ts';
import { explain } from './explain.ts';
import { measure } from './measure.ts';
import type { Plan } from './plan.ts';

export interface PeerOrder {
  readonly plan: Plan;
  readonly join: JoinOptions;
}

const order = JSON.parse(process.argv[2] ?? '') as PeerOrder; // written by cli/bench.ts
const group = await join(undefined, order.join);
const tell = (row: object) => {
  if (group.rank === 0) process.send?.(row);
};
await (order.plan.explains ? explain(group, order.plan, tell) : measure(group, order.plan, tell));
await group.leave();
process.disconnect?.();
