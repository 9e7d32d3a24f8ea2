/** The engine of a page in its own thread: loaded only where none can be in a worker, which loads the same code by itself. */
import { createInlineEngine } from '../engine/inline.ts';
import type { Engine, EngineMessage } from '../engine/protocol.ts';
import { ConnectError } from '../errors.ts';
import { leavingWithPage } from './engine.ts';
import { PagePeering } from './peering.ts';
import { browserPlatform } from './platform.ts';
import { browserRtc } from './rtc.ts';

export function createPageEngine(onMessage: (message: EngineMessage) => void): Engine {
  const platform = browserPlatform(async () => {
    if (typeof RTCPeerConnection === 'undefined')
      throw new ConnectError('There is no WebRTC here: join from a page, not from a worker.', { phase: 'join' });
    return browserRtc((settings, events) => new PagePeering(settings, events));
  });
  return leavingWithPage(createInlineEngine(onMessage, platform));
}
