/** Joining a run from Node. A browser has a `join` of its own (`browser/join.ts`); the group is the same. */
import { dumpingOnSignal } from './engine/flight-signal.ts';
import type { Engine, EngineMessage } from './engine/protocol.ts';
import { resolveSecurity } from './engine/resolve-security.ts';
import { createThreadEngine } from './engine/thread.ts';
import { Group, memoryOf } from './group.ts';
import { Observer } from './observe.ts';
import { type JoinOptions, type ResolvedJoin, resolveJoin } from './options.ts';
import { ThreadDisk } from './snapshot/disk.ts';

/**
 * Joins a run and waits for its view: at the start until `minWorldSize` peers are there, later until the members' next boundary.
 *
 * @param address the coordinator's, `tcp://host:port`, or `ws://host:port` where it listens on HTTP; of several that share a store
 *   all, in a list or with commas between; without it SKEIN_COORDINATOR
 * @example const group = await join('tcp://127.0.0.1:7400', { run: 'tiny-lm', minWorldSize: 2 });
 * @throws ArgumentError, ConnectError, UnauthorizedError, ProtocolError, QuorumError (nobody else came within `timeout`)
 */
export async function join(address?: string | readonly string[], options: JoinOptions = {}): Promise<Group> {
  const resolved = resolveJoin(address, options, process.env, resolveSecurity);
  options.signal?.throwIfAborted();
  const [makeEngine, { traceCall }] = await Promise.all([engineMaker(resolved), import('./trace.ts')]);
  const createEngine = resolved.runtime.flight === undefined ? makeEngine : dumpingOnSignal(makeEngine);
  options.signal?.throwIfAborted();
  const observer = resolved.observe === undefined ? null : new Observer(resolved.observe);
  const { resumeFrom } = options;
  const resumed =
    resumeFrom === undefined ? null : await (await import('./snapshot/resume.ts')).resume(resumeFrom, options.state);
  const memory = await memoryOf(options.state, resolved.engine);
  const folders = { disk: new ThreadDisk(resumed?.directory ?? null), resumed };
  return Group.join(createEngine, resolved, options.signal, memory, observer, folders, traceCall);
}

/** The engine's code is loaded where it runs: in its own thread, or here. */
async function engineMaker({
  engine,
  runtime,
}: ResolvedJoin): Promise<(onMessage: (message: EngineMessage) => void) => Engine> {
  const usesRtc = runtime.transports.includes('webrtc');
  if (engine === 'worker')
    return usesRtc ? (await import('./engine/rtc-engine.ts')).createRtcThreadEngine : createThreadEngine;
  const { createInlineEngine } = await import('./engine/inline.ts');
  const { systemPlatform } = await import('./engine/platform.ts');
  const createHere = (onMessage: (message: EngineMessage) => void) => createInlineEngine(onMessage, systemPlatform);
  if (!usesRtc) return createHere;
  const { createRtcInlineEngine } = await import('./engine/rtc-engine.ts');
  return (onMessage) => createRtcInlineEngine(createHere(onMessage));
}
