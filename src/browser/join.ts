/** Joining a run from a page. */
import type { Security } from '../engine/security.ts';
import { ArgumentError } from '../errors.ts';
import { Group, memoryOf } from '../group.ts';
import { type JoinOptions, resolveJoin } from '../options.ts';
import { createWorkerEngine, workerMissing } from './engine.ts';

/** WebRTC encrypts by itself, and a WebSocket where its address says so. */
const SECURITY: Security = { encryption: 'off-loopback', certificates: null };

/**
 * Joins a run and waits for its view, as in Node. The engine is in a worker, so that the page may be busy, where the page is
 * cross-origin isolated and the browser lets data channels go to workers (Chromium does); elsewhere it is in the page's own
 * thread. `engine` asks for one of the two. Other transports than `webrtc` in `transports` are for peers elsewhere.
 *
 * @param address of the coordinator's HTTP port: `ws://host:port`, or `wss://host` behind a proxy that ends TLS
 * @example const group = await join('wss://runs.example', { run: 'tiny-lm', token });
 * @throws ArgumentError, ConnectError, UnauthorizedError, ProtocolError, QuorumError (nobody else came within `timeout`)
 */
export async function join(address: string, options: JoinOptions = {}): Promise<Group> {
  const { transports = ['webrtc'], signal } = options;
  const { encryption, cert, key, ca } = options;
  if (encryption !== undefined || cert !== undefined || key !== undefined || ca !== undefined) {
    throw new ArgumentError(
      'In a browser WebRTC encrypts by itself, and the way to the coordinator is encrypted by an address with wss://: leave out `encryption`, `cert`, `key` and `ca`.',
    );
  }
  if (options.resumeFrom !== undefined)
    throw new ArgumentError('There are no folders in a browser: leave out `resumeFrom`.');
  const missing = workerMissing();
  const engine = options.engine ?? (missing === null ? 'worker' : 'inline');
  if (!transports.includes('webrtc'))
    throw new ArgumentError("A browser reaches other peers by WebRTC only: name 'webrtc' in `transports`.");
  if (!/^wss?:/.test(address)) {
    const text = `A browser reaches a coordinator by WebSocket, not by ${JSON.stringify(address)}: give ws://host:port, its HTTP port.`;
    throw new ArgumentError(text);
  }
  if (engine === 'worker' && missing !== null)
    throw new ArgumentError(`There can be no engine in a worker: ${missing}, or join with \`engine: 'inline'\`.`);
  const resolved = resolveJoin(address, { ...options, transports: ['webrtc'], engine }, {}, () => SECURITY);
  signal?.throwIfAborted();
  const memory = await memoryOf(options.state, resolved.engine);
  const createEngine =
    resolved.engine === 'worker' ? createWorkerEngine : (await import('./page-engine.ts')).createPageEngine;
  return Group.join(createEngine, resolved, signal, memory);
}
