/** The launch with real processes; how users see it is tested in test/cli/. */
import { PassThrough } from 'node:stream';
import { expect, test } from 'vitest';
import { runProcesses } from '../../src/launch/processes.ts';

test('a launch that was stopped before it began starts nothing, and ends as if by SIGTERM', {
  timeout: 10_000,
}, async () => {
  const started: number[] = [];
  const listeners = process.listenerCount('SIGTERM');
  const exitCode = await runProcesses({
    command: [process.execPath, '-e', 'setTimeout(() => {}, 60_000)'],
    policy: { processes: 2, maxRestarts: Number.POSITIVE_INFINITY, graceMs: 1_000 },
    environment: () => process.env,
    prefix: () => '',
    stdout: new PassThrough().resume(),
    stderr: new PassThrough().resume(),
    say: () => {},
    stop: AbortSignal.abort(),
    onStarted: (index) => void started.push(index),
  });
  expect(exitCode).toBe(143);
  expect(started).toEqual([]);
  expect(process.listenerCount('SIGTERM')).toBe(listeners);
});
