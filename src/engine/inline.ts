/** An engine in the training thread itself: no hop between threads, but a busy training thread delays heartbeats and data. */
import { ArgumentError } from '../errors.ts';
import type { Platform } from './platform.ts';
import type { Engine, EngineMessage } from './protocol.ts';
import { EngineServer } from './server.ts';

export function createInlineEngine(onMessage: (message: EngineMessage) => void, platform: Platform): Engine {
  const server = new EngineServer(platform, onMessage, onMessage);
  return {
    isThread: false,
    now: () => platform.clock.now(),
    post: (request) => server.handle(request),
    callSync: () => {
      throw new ArgumentError(
        "A blocking call needs an engine thread: join with `engine: 'worker'`, which is the default.",
      );
    },
    terminate: () => Promise.resolve(),
  };
}
