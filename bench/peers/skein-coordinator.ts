/** The coordinator of one measurement, in a process of its own, as users run it. */
import { Coordinator, type CoordinatorListenOptions } from '../../src/index.ts';

/** What a benchmark is told when it listens. */
export interface Listening {
  readonly address: string;
  /** null: it does not listen by HTTP. */
  readonly httpAddress: string | null;
  /** Seconds on the machine's monotonic clock. */
  readonly at: number;
}

/** What it answers to any message: what it has used so far. */
export interface Usage {
  readonly cpuSeconds: number;
  readonly rssBytes: number;
}

const options = JSON.parse(process.argv[2] ?? '{}') as CoordinatorListenOptions; // written by a benchmark
const coordinator = await Coordinator.listen({ port: 0, ...options });
const { address, httpAddress } = coordinator;
const listening: Listening = { address, httpAddress, at: Number(process.hrtime.bigint()) / 1e9 };
process.send?.(listening);
process.on('message', () => {
  const { user, system } = process.cpuUsage();
  const usage: Usage = { cpuSeconds: (user + system) / 1e6, rssBytes: process.memoryUsage.rss() };
  process.send?.(usage);
});
process.on('disconnect', () => process.exit(0));
