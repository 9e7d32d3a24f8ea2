/**
 * Groups over long ways, on a simulated network in virtual time: real coordinator, engines and links. What is on the way is bounded by
 * the connections alone, and calls get faster as their number grows.
 */
import { expect, test } from 'vitest';
import { SEGMENT_BYTES } from '../../src/collectives/workspace.ts';
import { CoordinatorServer } from '../../src/engine/coordinator-server.ts';
import { createInlineEngine } from '../../src/engine/inline.ts';
import { resolveSecurity } from '../../src/engine/resolve-security.ts';
import { Group } from '../../src/group.ts';
import { VirtualClock } from '../../src/transport/clock.ts';
import { MemoryNetwork } from '../../src/transport/memory.ts';
import type { Address } from '../../src/transport/transport.ts';
import { freshKernels, simPlatform } from '../sim/platform.ts';
import { SimProcess } from '../sim/process.ts';
import { Random } from '../sim/random.ts';

const COORDINATOR: Address = { kind: 'memory', name: 'coordinator' };
const MIB = 1024 * 1024;
const ROUND_TRIP_MS = 50;
/** What a connection keeps on the way. */
const WINDOW_BYTES = MIB;

class LongWays {
  readonly clock: VirtualClock = new VirtualClock();
  readonly #network: MemoryNetwork;
  groups: Group[] = [];

  static async open(members: number, stripes: number): Promise<LongWays> {
    const ways = new LongWays();
    const kernels = await freshKernels();
    const random = new Random(3);
    const platform = (name: string) =>
      simPlatform(new SimProcess(name, ways.clock), {
        network: ways.#network,
        kernels,
        random,
        segmentBytes: SEGMENT_BYTES,
      });
    await CoordinatorServer.listenAt(COORDINATOR, { probes: false }, platform('coordinator'), 0);
    const joining = Array.from({ length: members }, (_, index) => {
      const runtime = {
        coordinators: [COORDINATOR],
        run: 'long',
        name: '',
        token: '',
        security: resolveSecurity({}, ''),
        minWorldSize: 1,
        startWorldSize: members,
        site: '',
        transports: ['memory'] as const,
        stripes,
        timeoutMs: 60_000,
      };
      return Group.join(
        (onMessage) => createInlineEngine(onMessage, platform(`m${index}`)),
        { engine: 'inline', runtime },
        undefined,
      );
    });
    ways.groups = await ways.#drive(Promise.all(joining));
    return ways;
  }

  private constructor() {
    const weather = { latencyMs: ROUND_TRIP_MS / 2, windowBytes: WINDOW_BYTES };
    this.#network = new MemoryNetwork({ clock: this.clock, seed: 5, weather });
  }

  async #drive<T>(promise: Promise<T>): Promise<T> {
    let isOver = false;
    const over = () => {
      isOver = true;
    };
    promise.then(over, over);
    while (!isOver) {
      // What is due by `nextTick` in a microtask comes after all microtasks.
      await new Promise<void>((resolve) => void Promise.resolve().then(() => process.nextTick(resolve)));
      if (!isOver && !this.clock.step()) throw new Error('nothing is under way, and yet not everything has ended');
    }
    return promise;
  }

  /** @returns virtual milliseconds that it took */
  async allReduce(bytes: number, codec: 'f32' | 'int8'): Promise<number> {
    const startedAt = this.clock.now();
    const { length } = this.groups;
    await this.#drive(
      Promise.all(
        this.groups.map(async (group) => {
          const tensor = new Float32Array(bytes / 4).fill(3);
          await group.allReduce(tensor, { algorithm: 'ring', codec });
          expect(tensor[0]).toBeCloseTo(3 * length, codec === 'f32' ? 6 : 0);
          expect(tensor.at(-1)).toBe(tensor[0]);
        }),
      ),
    );
    return this.clock.now() - startedAt;
  }

  /** Of the links of each member, the one with most stripes has so many. */
  async stripes(): Promise<number[]> {
    const all = await this.#drive(Promise.all(this.groups.map((group) => group.status())));
    return all.map(({ links }) => Math.max(...links.map(({ stripes }) => stripes)));
  }
}

/** The least that a call takes whose every byte goes by so many stripes, each of which is full all the time (ms). */
function leastMs(bytes: number, stripes: number): number {
  return (bytes / (stripes * WINDOW_BYTES)) * ROUND_TRIP_MS;
}

/** To agree on the call, for the first and the last byte to arrive, and for the commit. */
const AROUND_MS = 6 * ROUND_TRIP_MS;

test.each([
  ['f32', 32 * MIB, 1],
  ['int8', 64 * MIB, 4],
] as const)('an all-reduce keeps as much on the way as its connections take: %s', async (codec, bytes, ratio) => {
  const ways = await LongWays.open(2, 16);
  const took = await ways.allReduce(bytes, codec);
  const sent = bytes / ratio; // 2 (N − 1) / N of it, and N = 2
  expect(took).toBeLessThan(1.25 * leastMs(sent, 16) + AROUND_MS);
});

test('a ring of three over long ways gets more stripes by being used, and faster by them', async () => {
  const ways = await LongWays.open(3, 2);
  const bytes = 24 * MIB;
  const sent = (4 / 3) * bytes;
  const first = await ways.allReduce(bytes, 'f32');
  await ways.allReduce(bytes, 'f32');
  const later = await ways.allReduce(bytes, 'f32');
  const stripes = Math.min(...(await ways.stripes()));
  expect(stripes).toBeGreaterThanOrEqual(8);
  expect(later).toBeLessThan(1.25 * leastMs(sent, stripes) + AROUND_MS);
  expect(later).toBeLessThan(first / 2);
});
