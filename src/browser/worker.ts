/** Entry of the engine's worker. */
import type { EngineRequest } from '../engine/protocol.ts';
import { EngineServer } from '../engine/server.ts';
import { RemotePeerings } from './peering-port.ts';
import { browserPlatform } from './platform.ts';
import { browserRtc } from './rtc.ts';

/** The first message: where requests come and answers go, and where peerings are asked for. */
export interface WorkerPorts {
  readonly engine: MessagePort;
  readonly peerings: MessagePort;
}

addEventListener(
  'message',
  ({ data: { engine, peerings } }: MessageEvent<WorkerPorts>) => {
    const remote = new RemotePeerings(peerings);
    const platform = browserPlatform(async () => browserRtc((settings, events) => remote.open(settings, events)));
    const post = (message: unknown) => engine.postMessage(message);
    // A page's thread must not block, so no call of its is synchronous.
    const server = new EngineServer(platform, post, post);
    engine.onmessage = ({ data }: MessageEvent<EngineRequest>) => server.handle(data);
  },
  { once: true },
);
