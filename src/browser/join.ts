/** Joining a run from a page. */
import { createInlineEngine } from '../engine/inline.ts';
import type { Engine, EngineMessage } from '../engine/protocol.ts';
import { ArgumentError } from '../errors.ts';
import { Group } from '../group.ts';
import { type JoinOptions, resolveJoin } from '../options.ts';
import { browserPlatform } from './platform.ts';

/**
 * Joins a run and waits for its view, as in Node. The engine is in the page's own thread, because no browser has WebRTC in
 * workers; other transports in `transports` are for peers elsewhere.
 *
 * @param address of the coordinator's HTTP port: `ws://host:port`, or `wss://host` behind a proxy that ends TLS
 * @example const group = await join('wss://runs.example', { run: 'tiny-lm', token });
 * @throws ArgumentError, ConnectError, UnauthorizedError, ProtocolError, QuorumError (nobody else came within `timeout`)
 */
export async function join(address: string, options: JoinOptions = {}): Promise<Group> {
  const { transports = ['webrtc'], engine = 'inline', signal } = options;
  if (!transports.includes('webrtc'))
    throw new ArgumentError("A browser reaches other peers by WebRTC only: name 'webrtc' in `transports`.");
  if (engine !== 'inline')
    throw new ArgumentError(
      "A browser has WebRTC in the page's own thread only: leave out `engine`, or give 'inline'.",
    );
  if (!/^wss?:/.test(address)) {
    const text = `A browser reaches a coordinator by WebSocket, not by ${JSON.stringify(address)}: give ws://host:port, its HTTP port.`;
    throw new ArgumentError(text);
  }
  const resolved = resolveJoin(address, { ...options, transports: ['webrtc'], engine }, {});
  signal?.throwIfAborted();
  return Group.join(createPageEngine, resolved, signal);
}

/** An engine that leaves the run when its page goes: the others then need not find out that it is gone. */
function createPageEngine(onMessage: (message: EngineMessage) => void): Engine {
  const engine = createInlineEngine(onMessage, browserPlatform);
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
