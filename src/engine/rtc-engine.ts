/**
 * Engines that use WebRTC. node-datachannel lives in one thread of a process: a second thread that loads it crashes the
 * process, and so does a thread that ends, or a process that exits, while it is held. So these engines share one worker, one
 * after another, which is parked in between; and before the process exits, the worker lets go, and is waited for.
 */
import { isMainThread } from 'node:worker_threads';
import { ArgumentError } from '../errors.ts';
import { releaseRtc } from './native-rtc.ts';
import type { Engine, EngineMessage } from './protocol.ts';
import { createThreadEngine, type EngineThread, startThread } from './thread.ts';
import type { ThreadRequest } from './worker.ts';

/** How long an exiting process waits for the worker to let go (ms): on a busy machine that takes seconds, and without it the process aborts. */
const RELEASE_MS = 10_000;

/** The worker, from its first engine on. */
let thread: EngineThread | null = null;
let isBusy = false;
/** Engines and others in this thread. */
let usersHere = 0;

/** @throws ArgumentError when WebRTC is in use already, elsewhere in this process */
export function createRtcThreadEngine(onMessage: (message: EngineMessage) => void): Engine {
  if (!isMainThread) {
    throw new ArgumentError(
      "WebRTC is for the main thread of a process: join there, or leave 'webrtc' out of `transports`.",
    );
  }
  if (isBusy || usersHere > 0) {
    throw new ArgumentError(
      "One group of a process can use WebRTC at a time: leave the other one first, or leave 'webrtc' out of `transports`.",
    );
  }
  thread ??= startLasting();
  thread.worker.ref();
  isBusy = true;
  return createThreadEngine(onMessage, thread, async ({ worker }) => {
    worker.postMessage({ type: 'release', released: null } satisfies ThreadRequest);
    worker.unref();
    isBusy = false;
  });
}

function startLasting(): EngineThread {
  const started = startThread();
  process.once('exit', () => {
    const released = new Int32Array(new SharedArrayBuffer(4));
    started.worker.postMessage({ type: 'release', released } satisfies ThreadRequest);
    Atomics.wait(released, 0, 0, RELEASE_MS);
  });
  return started;
}

/**
 * This thread uses WebRTC from now on, several times over if need be; returns what ends that.
 *
 * @throws ArgumentError when a worker of this process has used it
 */
export function useRtcHere(): () => Promise<void> {
  if (thread !== null) {
    throw new ArgumentError(
      "A process uses WebRTC in one thread only, and a group with `engine: 'worker'` has: join with the same engine again.",
    );
  }
  usersHere += 1;
  return async () => {
    usersHere -= 1;
    if (usersHere === 0) await releaseRtc();
  };
}

export function createRtcInlineEngine(engine: Engine): Engine {
  const release = useRtcHere();
  return {
    ...engine,
    async terminate() {
      await engine.terminate();
      await release();
    },
  };
}
