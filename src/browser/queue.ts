/** Tasks that take turns. A page has to load every byte of this, so it does without the library that other platforms use. */
import type { TaskQueue } from '../engine/platform.ts';

/** @param concurrency so many tasks run at once, the others wait, oldest first */
export function taskQueue(concurrency: number): TaskQueue {
  let running = 0;
  let waiting: (() => void)[] = [];
  return {
    async add(task) {
      if (running >= concurrency) await new Promise<void>((resolve) => waiting.push(resolve));
      else running += 1;
      try {
        await task();
      } finally {
        // Its place goes straight to the next, so that nobody comes between.
        const next = waiting.shift();
        if (next === undefined) running -= 1;
        else next();
      }
    },
    clear() {
      waiting = [];
    },
  };
}
