/** One peer, in a process of its own: does the tasks that it is sent one after the other. */
import { loadDigits } from '../mnist/data.ts';
import type { Answer, Task } from './task.ts';
import { train } from './train.ts';

const digits = loadDigits();
const answer = (message: Answer) => void process.send?.(message);

process.on('message', async (task: Task) => {
  answer(await train(task, digits, (round, worldSize) => answer({ type: 'round', round, worldSize })));
});
process.on('disconnect', () => process.exit(0));
