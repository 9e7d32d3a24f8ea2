/** The time of a browser. What is due at once comes by a message port, as timers that set one another wait 4 ms there. */
import type { Clock } from '../transport/clock.ts';

const { port1, port2 } = new MessageChannel();
const due: (() => void)[] = [];
port2.onmessage = () => due.shift()?.();

export const browserClock: Clock = {
  now: () => performance.now(),
  schedule(delayMs, task) {
    if (delayMs > 0) {
      const handle = setTimeout(task, delayMs);
      return () => clearTimeout(handle);
    }
    let cancelled = false;
    due.push(() => {
      if (!cancelled) task();
    });
    port1.postMessage(null);
    return () => {
      cancelled = true;
    };
  },
};
