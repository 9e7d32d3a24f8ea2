/**
 * The coordinator of a launch, in a thread of its own: when the terminal that shows the processes' output stands still, the
 * launcher's main thread stands still with it, and heartbeats must be heard all the same.
 */
import { parentPort, workerData } from 'node:worker_threads';
import { Coordinator } from '../index.ts';

const { token } = workerData as { token: string }; // set by coordinator.ts, beside this file
const coordinator = await Coordinator.listen({ host: '127.0.0.1', port: 0, token });
parentPort?.postMessage(coordinator.address);
