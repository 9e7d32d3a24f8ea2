/** One peer, in a process of its own. */
import { serve } from '../crew/crew.ts';
import { loadDigits } from '../mnist/data.ts';
import type { Result, Task } from './task.ts';
import { train } from './train.ts';

const digits = loadDigits();
serve<Task, Result>((task, onProgress) => train(task, digits, onProgress));
