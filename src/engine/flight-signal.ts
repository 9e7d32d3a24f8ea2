/** SIGUSR2 makes a peer write its flight record. Signals come to the main thread, so one that is blocked answers when it goes on. */
import type { Engine, EngineMessage } from './protocol.ts';

type MakeEngine = (onMessage: (message: EngineMessage) => void) => Engine;

export function dumpingOnSignal(createEngine: MakeEngine): MakeEngine {
  return (onMessage) => {
    const engine = createEngine(onMessage);
    const onSignal = () => engine.post({ type: 'dump', reason: 'SIGUSR2' });
    process.on('SIGUSR2', onSignal);
    return {
      isThread: engine.isThread,
      now: () => engine.now(),
      post: (request) => engine.post(request),
      callSync: (request) => engine.callSync(request),
      async terminate() {
        process.off('SIGUSR2', onSignal);
        await engine.terminate();
      },
    };
  };
}
