/** The browser's queue keeps the promises of the one that it stands for. */
import PQueue from 'p-queue';
import { describe, expect, test } from 'vitest';
import { taskQueue } from '../../src/browser/queue.ts';
import type { TaskQueue } from '../../src/engine/platform.ts';

const turn = () => new Promise<void>((resolve) => setImmediate(resolve));

const QUEUES: readonly (readonly [string, (concurrency: number) => TaskQueue])[] = [
  ['p-queue', (concurrency) => new PQueue({ concurrency })],
  ["the browser's", taskQueue],
];

describe.each(QUEUES)('%s', (_, make) => {
  test('runs so many at once, and the others in the order in which they came', async () => {
    const queue = make(2);
    const log: string[] = [];
    const ends: (() => void)[] = [];
    const tasks = [0, 1, 2, 3].map((index) =>
      queue.add(async () => {
        log.push(`begins ${index}`);
        await new Promise<void>((resolve) => ends.push(resolve));
        log.push(`ends ${index}`);
      }),
    );
    await turn();
    expect(log).toEqual(['begins 0', 'begins 1']);
    ends[1]!();
    await turn();
    expect(log).toEqual(['begins 0', 'begins 1', 'ends 1', 'begins 2']);
    for (let index = 0; index < 4; index++) {
      ends[index]?.();
      await turn();
    }
    await Promise.all(tasks);
    expect(log.filter((line) => line.startsWith('begins'))).toEqual([0, 1, 2, 3].map((index) => `begins ${index}`));
  });

  test('tells of a task that failed, and goes on with the next', async () => {
    const queue = make(1);
    const failed = queue.add(() => Promise.reject(new Error('in vain')));
    const next = queue.add(async () => {});
    await expect(failed).rejects.toThrow('in vain');
    await next;
  });

  test('begins none of those that wait when it is cleared, and takes others afterwards', async () => {
    const queue = make(1);
    const log: string[] = [];
    let end = () => {};
    const first = queue.add(() => new Promise<void>((resolve) => (end = resolve)));
    void queue.add(async () => void log.push('second'));
    await turn();
    queue.clear();
    end();
    await first;
    await queue.add(async () => void log.push('third'));
    expect(log).toEqual(['third']);
  });
});
