/** An engine in a worker thread: a busy training thread delays neither heartbeats nor segments. */
import { MessageChannel, type MessagePort, receiveMessageOnPort, Worker } from 'node:worker_threads';
import { SkeinError } from '../errors.ts';
import type { Engine, EngineMessage, PlainOutcome } from './protocol.ts';

/**
 * What the engine allocates is small and dies at once. In a young generation of this size it stays in the cache, where the
 * default of three times 16 MiB would push the segments out of it.
 */
const YOUNG_MIB = 4;

/** A worker that can serve one engine after another. */
export interface EngineThread {
  readonly worker: Worker;
  /** Where the result of a blocking call comes. */
  readonly syncPort: MessagePort;
}

export function startThread(): EngineThread {
  const { port1: syncPort, port2: workerSyncPort } = new MessageChannel();
  const worker = new Worker(new URL('./worker.js', import.meta.url), {
    name: 'skein-engine',
    resourceLimits: { maxYoungGenerationSizeMb: YOUNG_MIB },
    workerData: { syncPort: workerSyncPort },
    transferList: [workerSyncPort],
  });
  worker.on('error', (error) => {
    // Every fault that can be foreseen is a message; this one is a defect, and the process must not go on as if all were well.
    throw new SkeinError('SKEIN_INTERNAL', `The engine thread failed: ${error.stack ?? error.message}`, {
      cause: error,
    });
  });
  return { worker, syncPort };
}

async function endThread({ worker, syncPort }: EngineThread): Promise<void> {
  syncPort.close();
  await worker.terminate();
}

/** @param release what becomes of the thread when the engine has ended */
export function createThreadEngine(
  onMessage: (message: EngineMessage) => void,
  thread: EngineThread = startThread(),
  release: (thread: EngineThread) => Promise<void> = endThread,
): Engine {
  const { worker, syncPort } = thread;
  worker.on('message', onMessage);
  return {
    isThread: true,
    now: () => performance.now(),
    post: (request) => worker.postMessage(request),
    callSync(request): PlainOutcome {
      worker.postMessage(request);
      Atomics.wait(request.wake!, 0, 0); // the caller made it for this call
      const received = receiveMessageOnPort(syncPort) as { message: EngineMessage } | undefined; // posted before the wake-up
      if (received?.message.type !== 'settled')
        throw new SkeinError('SKEIN_INTERNAL', 'The engine woke its caller without a result.');
      return received.message.outcome;
    },
    async terminate(): Promise<void> {
      worker.off('message', onMessage);
      await release(thread);
    },
  };
}
