/** Entry of the engine thread. */
import { type MessagePort, parentPort, workerData } from 'node:worker_threads';
import { releaseRtc } from './native-rtc.ts';
import { systemPlatform } from './platform.ts';
import type { EngineMessage, EngineRequest } from './protocol.ts';
import { EngineServer } from './server.ts';

export type ThreadRequest =
  | EngineRequest
  /** The engine has ended, or the process is about to: lets go of what is native, and says so if it is waited for. */
  | { readonly type: 'release'; readonly released: Int32Array | null };

const { syncPort } = workerData as { syncPort: MessagePort }; // set by startThread
const port = parentPort!; // this file only runs as a worker

const server = new EngineServer(
  systemPlatform,
  (message: EngineMessage) => port.postMessage(message),
  (message, wake) => {
    syncPort.postMessage(message);
    Atomics.store(wake, 0, 1);
    Atomics.notify(wake, 0);
  },
);

async function release(released: Int32Array | null): Promise<void> {
  await releaseRtc();
  if (released === null) return;
  Atomics.store(released, 0, 1);
  Atomics.notify(released, 0);
  // Until the process is gone: an engine that went on would dial anew, as its links are lost, and what is held then aborts it.
  Atomics.wait(released, 0, 1);
}

port.on('message', (request: ThreadRequest) => {
  if (request.type === 'release') void release(request.released);
  else server.handle(request);
});
