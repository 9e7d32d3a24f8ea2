/** The coordinator of one measurement, in a process of its own, as users run it. */
import { Coordinator, type CoordinatorListenOptions } from '../../src/index.ts';

/** What a benchmark is told when it listens. */
export interface Listening {
  readonly address: string;
  /** Seconds on the machine's monotonic clock. */
  readonly at: number;
}

const options = JSON.parse(process.argv[2] ?? '{}') as CoordinatorListenOptions; // written by a benchmark
const coordinator = await Coordinator.listen({ port: 0, ...options });
const listening: Listening = { address: coordinator.address, at: Number(process.hrtime.bigint()) / 1e9 };
process.send?.(listening);
process.on('disconnect', () => process.exit(0));
