/** The world as an engine in a browser sees it: it listens nowhere, reaches peers by WebRTC, and the coordinator by WebSocket. */
import { ARENA_BYTES, divideArena } from '../engine/memory.ts';
import type { Platform } from '../engine/platform.ts';
import { ConnectError } from '../errors.ts';
import { instantiateKernels } from '../kernels/instantiate.ts';
import type { Kernels } from '../kernels/kernels.ts';
import type { RtcDriver } from '../transport/rtc.ts';
import { dialWebSocket } from '../transport/websocket.ts';
import { browserClock } from './clock.ts';
import { taskQueue } from './queue.ts';

/** The kernels lie beside the bundle. */
async function loadKernels(): Promise<Kernels> {
  const url = new URL('./kernels.wasm', import.meta.url);
  const response = await fetch(url).catch((cause: unknown) => {
    throw new ConnectError(`The kernels can't be loaded from ${url}: ${cause}.`, { cause, phase: 'join' });
  });
  if (!response.ok) {
    const text = `The kernels can't be loaded from ${url}: status ${response.status}. Serve kernels.wasm beside the bundle.`;
    throw new ConnectError(text, { phase: 'join' });
  }
  return instantiateKernels(new Uint8Array(await response.arrayBuffer()), ARENA_BYTES);
}

const random = (length: number): Uint8Array => crypto.getRandomValues(new Uint8Array(length));

/** Nobody shares a Unix-domain socket with a page, so its key is its own. */
const hostKey = `browser ${[...random(12)].map((byte) => byte.toString(16).padStart(2, '0')).join('')}`;

/** @param loadRtc @throws ConnectError where there is no WebRTC */
export function browserPlatform(loadRtc: () => Promise<RtcDriver>): Platform {
  return {
    clock: browserClock,
    random,
    abortController: () => new AbortController(),
    taskQueue,
    memory: async () => divideArena(await loadKernels()),
    hostKey: async () => hostKey,
    cores: navigator.hardwareConcurrency,
    listen: async () => ({ addresses: [], close: async () => {} }),
    async dial({ kind }) {
      throw new ConnectError(`A browser can't dial by ${kind}.`, { phase: 'dial' });
    },
    rtc: loadRtc,
    async dialCoordinator(address, _kinds, options) {
      if (address.kind !== 'ws')
        throw new ConnectError(`A browser can't reach a coordinator by ${address.kind}.`, { phase: 'join' });
      return dialWebSocket((url) => new WebSocket(url), address.url, options, browserClock);
    },
    async listenCoordinator() {
      throw new ConnectError('A browser can be no coordinator.', { phase: 'listen' });
    },
  };
}
