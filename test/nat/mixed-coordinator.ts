/** The coordinator of the mixed group, in a process of its own: also by HTTP, with the page, and patient. Writes where it listens. */
import { fileURLToPath } from 'node:url';
import { Coordinator, type CoordinatorListenOptions } from '../../src/index.ts';

const options = JSON.parse(process.argv[2] ?? '{}') as CoordinatorListenOptions; // by the test
const folder = fileURLToPath(new URL('../../browser/', import.meta.url));
const coordinator = await Coordinator.listen({ ...options, port: 0, http: { port: 0, folder } });
console.log(`${coordinator.address} ${coordinator.httpAddress}`);
