/** The coordinator of one measurement, in a process of its own, as users run it. */
import { Coordinator } from '../../src/index.ts';

const coordinator = await Coordinator.listen({ port: 0, lostAfterMs: 20_000 });
process.send?.(coordinator.address);
process.on('disconnect', () => process.exit(0));
