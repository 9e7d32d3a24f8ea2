/** One peer, in a process of its own. */
import { serve } from '../crew/crew.ts';
import { PEERS, type Result, type Task } from './task.ts';
import { loadBook } from './text.ts';
import { train } from './train.ts';

const book = loadBook(PEERS);
serve<Task, Result>((task) => train(task, book));
