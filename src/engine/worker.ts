/** Entry of the engine thread. */
import { type MessagePort, parentPort, workerData } from 'node:worker_threads';
import { systemPlatform } from './platform.ts';
import type { EngineMessage, EngineRequest } from './protocol.ts';
import { EngineServer } from './server.ts';

const { syncPort } = workerData as { syncPort: MessagePort }; // set by createThreadEngine
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

port.on('message', (request: EngineRequest) => server.handle(request));
