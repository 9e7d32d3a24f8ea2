/** Training that communicates seldom, and little: DiLoCo and its family. See README.md, "Few bytes". */
export { createDiloco, Diloco } from './diloco.ts';
export type { FragmentSync } from './fragment.ts';
export { createGossip, Gossip, type GossipOptions, type GossipReport } from './gossip.ts';
export type { FragmentPattern, Parameters } from './layout.ts';
export type { DilocoOptions, FragmentOptions, PaceOptions, WireOptions } from './options.ts';
export type { OuterOptions } from './outer.ts';
export type { DilocoState, StepReport, Totals } from './reports.ts';
export { lateRounds } from './schedule.ts';
