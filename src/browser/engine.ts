/** The engine of a page, in a worker. As one in the page's own thread (`page-engine.ts`), it leaves the run when the page goes, so that nobody has to find out. */
import type { Engine, EngineMessage } from '../engine/protocol.ts';
import { ArgumentError } from '../errors.ts';
import { servePeerings } from './peering-port.ts';
import type { WorkerPorts } from './worker.ts';

/** Whether data channels can be handed to workers. */
function canHandOver(): boolean {
  if (typeof RTCPeerConnection === 'undefined') return false;
  const connection = new RTCPeerConnection();
  const { port1 } = new MessageChannel();
  try {
    const channel = connection.createDataChannel('');
    port1.postMessage(channel, [channel as unknown as Transferable]);
    return true;
  } catch {
    return false;
  } finally {
    port1.close();
    connection.close();
  }
}

/** Why there can be no engine in a worker; null where there can. */
export function workerMissing(): string | null {
  if (!globalThis.crossOriginIsolated)
    return 'the page is not cross-origin isolated: serve it with COOP and COEP headers';
  return canHandOver() ? null : 'this browser does not let data channels go to workers';
}

export function createWorkerEngine(onMessage: (message: EngineMessage) => void): Engine {
  const worker = new Worker(new URL('./worker.js', import.meta.url), { type: 'module', name: 'skein-engine' });
  const engine = new MessageChannel();
  const peerings = new MessageChannel();
  const closePeerings = servePeerings(peerings.port1);
  const ports: WorkerPorts = { engine: engine.port2, peerings: peerings.port2 };
  worker.postMessage(ports, [engine.port2, peerings.port2]);
  worker.onerror = ({ message }) => {
    const text = `The engine's worker failed: ${message || 'its script could not be loaded'}.`;
    // Where it has joined already this is a defect, which the console shows.
    onMessage({ type: 'join-failed', error: { code: 'SKEIN_INTERNAL', message: text, context: {} } });
  };
  engine.port1.onmessage = ({ data }: MessageEvent<EngineMessage>) => onMessage(data);
  return leavingWithPage({
    isThread: true,
    now: () => performance.now(),
    post: (request) => engine.port1.postMessage(request),
    callSync: () => {
      throw new ArgumentError('A page must not block its thread: use the asynchronous call.');
    },
    async terminate() {
      worker.terminate();
      closePeerings();
      engine.port1.close();
    },
  });
}

export function leavingWithPage(engine: Engine): Engine {
  // Nobody waits for the reply.
  const leave = () => engine.post({ type: 'leave', request: 0 });
  addEventListener('pagehide', leave);
  return {
    ...engine,
    async terminate() {
      removeEventListener('pagehide', leave);
      await engine.terminate();
    },
  };
}
