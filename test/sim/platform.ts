/** The world as a simulated process sees it: virtual time, the simulated network, and an arena shared by all. */
import { setMaxListeners } from 'node:events';
import PQueue from 'p-queue';
import { Workspace } from '../../src/collectives/workspace.ts';
import { ArenaPool, type EngineMemory } from '../../src/engine/memory.ts';
import type { Platform } from '../../src/engine/platform.ts';
import type { Kernels } from '../../src/kernels/kernels.ts';
import { loadKernels } from '../../src/kernels/load.ts';
import { Hasher } from '../../src/state/hash.ts';
import type { MemoryNetwork } from '../../src/transport/memory.ts';
import type { SimProcess } from './process.ts';
import type { Random } from './random.ts';

/** For every process that a simulation ever starts, and there are users who try to join again and again. Untouched pages cost nothing. */
const ARENA_BYTES = 1024 * 1024 * 1024;
const FIRST_FREE = 64 * 1024;
const READ_BUFFER_BYTES = 1_024;
const CARRY_BYTES = 64;
const POOLED = 8;

const loaded: Promise<Kernels> = loadKernels(ARENA_BYTES);

/** What engines and groups load when a state is first shared: virtual time would not wait for it. */
const forStates: Promise<unknown> = Promise.all([
  import('../../src/state/memory.ts'),
  import('../../src/state/sharing.ts'),
  import('../../src/state/service.ts'),
  Hasher.load(),
]);

/** Kernels whose arena is empty again: pages are touched once, however many runs there are. */
export async function freshKernels(): Promise<Kernels> {
  const kernels = await loaded;
  await forStates;
  let next = FIRST_FREE;
  return {
    ...kernels,
    reserve(byteLength) {
      const offset = next;
      next += Math.ceil(byteLength / 64) * 64;
      if (next > kernels.bytes.length) throw new RangeError('too many processes were started in one simulation');
      return offset;
    },
  };
}

export interface SimSurroundings {
  readonly network: MemoryNetwork;
  readonly kernels: Kernels;
  readonly random: Random;
  readonly segmentBytes: number;
}

export function simPlatform(process: SimProcess, around: SimSurroundings): Platform {
  const { network, kernels, random, segmentBytes } = around;
  const transport = network.transport(process);
  return {
    clock: process.clock,
    random: (length) => random.bytes(length),
    abortController() {
      const controller = new AbortController();
      setMaxListeners(0, controller.signal); // every dial under way listens
      return controller;
    },
    taskQueue: (concurrency) => new PQueue({ concurrency }),
    memory: (): Promise<EngineMemory> =>
      Promise.resolve({
        workspace: new Workspace(kernels, segmentBytes),
        readBuffers: new ArenaPool(kernels, READ_BUFFER_BYTES, POOLED),
        carries: new ArenaPool(kernels, CARRY_BYTES, POOLED),
      }),
    hostKey: () => Promise.resolve(process.name),
    cores: 1,
    async listen(_kinds, _coordinator, { onConnection }) {
      const listener = await transport.listen({ kind: 'memory', name: process.name }, onConnection);
      return { addresses: [listener.address], close: () => listener.close() };
    },
    dial: (address, options) => transport.dial(address, options),
    rtc: () => Promise.reject(new Error('there is no WebRTC in the simulation')),
    dialCoordinator: (address, _kinds, options) => transport.dial(address, options),
    listenCoordinator: async (address, { onConnection }) => [await transport.listen(address, onConnection)],
  };
}
