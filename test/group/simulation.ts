/** Groups on a simulated network, in virtual time: real coordinator, engines and links. */
import { expect } from 'vitest';
import type { Report } from '../../src/collectives/call.ts';
import type { Algorithm } from '../../src/collectives/program.ts';
import { CoordinatorServer } from '../../src/engine/coordinator-server.ts';
import { createInlineEngine } from '../../src/engine/inline.ts';
import { resolveSecurity } from '../../src/engine/resolve-security.ts';
import { Group } from '../../src/group.ts';
import { VirtualClock } from '../../src/transport/clock.ts';
import { MemoryNetwork, type Weather } from '../../src/transport/memory.ts';
import type { Address } from '../../src/transport/transport.ts';
import { freshKernels, simPlatform } from '../sim/platform.ts';
import { SimProcess } from '../sim/process.ts';
import { Random } from '../sim/random.ts';

const SEED = 7;
const COORDINATOR: Address = { kind: 'memory', name: 'coordinator' };
const SECURITY = resolveSecurity({}, '');
const ELEMENTS = 60_000;

/** Bytes per millisecond. */
const FAST = 20_000;
export const SLOW = 500;

/** Segments, and with them probes, are smaller than those of a real engine; so are the pieces in which they come. */
const SEGMENT_BYTES = 16 * 1024;
const PIECE_BYTES = 2 * 1024;

/** Steps after which a better order must have come. */
const MAX_STEPS = 60;

export interface Step {
  readonly reports: readonly Report[];
  /** Virtual milliseconds. */
  readonly tookMs: number;
}

export class Simulation {
  readonly clock: VirtualClock = new VirtualClock();
  readonly network: MemoryNetwork;
  readonly #kernels: Awaited<ReturnType<typeof freshKernels>>;
  readonly #random: Random = new Random(SEED);
  readonly #processes: Map<string, SimProcess> = new Map();
  groups: Group[] = [];
  coordinator: SimProcess;

  static async start(sites: readonly string[], probes = true): Promise<Simulation> {
    const simulation = new Simulation(await freshKernels());
    await simulation.listen(probes);
    simulation.groups = await simulation.drive(
      Promise.all(sites.map((site, index) => simulation.#join(index, site, sites.length))),
    );
    simulation.groups.sort((left, right) => left.rank - right.rank);
    return simulation;
  }

  private constructor(kernels: Awaited<ReturnType<typeof freshKernels>>) {
    this.#kernels = kernels;
    const weather = { latencyMs: 1, bytesPerMs: FAST, maxPieceBytes: PIECE_BYTES };
    this.network = new MemoryNetwork({ clock: this.clock, seed: SEED, weather });
    this.coordinator = new SimProcess('coordinator', this.clock);
  }

  #platform(process: SimProcess) {
    return simPlatform(process, {
      network: this.network,
      kernels: this.#kernels,
      random: this.#random,
      segmentBytes: SEGMENT_BYTES,
    });
  }

  async listen(probes: boolean): Promise<void> {
    await CoordinatorServer.listenAt(COORDINATOR, { probes }, this.#platform(this.coordinator), 0);
  }

  async #join(index: number, site: string, startWorldSize: number): Promise<Group> {
    const process = new SimProcess(`m${index}`, this.clock);
    const runtime = {
      coordinators: [COORDINATOR],
      run: 'ring',
      name: '',
      token: '',
      security: SECURITY,
      minWorldSize: 1,
      startWorldSize,
      site,
      transports: ['memory'] as const,
      stripes: 2,
      timeoutMs: 60_000,
    };
    const group = await Group.join(
      (onMessage) => createInlineEngine(onMessage, this.#platform(process)),
      { engine: 'inline', runtime },
      undefined,
    );
    this.#processes.set(group.peerId, process);
    return group;
  }

  /** Lets time pass until a promise has settled. */
  async drive<T>(promise: Promise<T>): Promise<T> {
    let isOver = false;
    const over = () => {
      isOver = true;
    };
    promise.then(over, over);
    for (let turns = 0; !isOver; turns++) {
      // What is due by `nextTick` in a microtask comes after all microtasks.
      await new Promise<void>((resolve) => void Promise.resolve().then(() => process.nextTick(resolve)));
      if (!isOver && !this.clock.step()) throw new Error('nothing is under way, and yet not everything has ended');
      if (turns > 3_000_000) throw new Error('no end');
    }
    return promise;
  }

  /** The process of a rank. */
  processOf(rank: number): SimProcess {
    return this.#processes.get(this.groups[rank]!.peerId)!;
  }

  /** What the ways between ranks are like. */
  shape(rule: (from: number, to: number) => Partial<Weather> | null): void {
    const rankOf = (name: string) => this.groups.findIndex((_, rank) => this.processOf(rank).name === name);
    this.network.shape((from, to) => {
      const [one, other] = [rankOf(from), rankOf(to)];
      return one < 0 || other < 0 ? null : rule(one, other);
    });
  }

  /** Ways from some ranks to others are slow. */
  slow(...hops: readonly (readonly [number, number])[]): void {
    const names = hops.map(([from, to]) => `${this.processOf(from).name} ${this.processOf(to).name}`);
    this.network.shape((from, to) => (names.includes(`${from} ${to}`) ? { bytesPerMs: SLOW } : null));
  }

  /**
   * A boundary, a sum whose every element is checked, and a pause. `during`: what happens while the sum is under way. What a
   * process that dies has called never settles.
   */
  async step(
    during: () => void = () => {},
    algorithm: Algorithm | 'auto' = 'ring',
    elements = ELEMENTS,
  ): Promise<Step> {
    const startedAt = this.clock.now();
    const tensors = this.groups.map((_, rank) =>
      Float32Array.from({ length: elements }, (_, at) => (at % 97) + 10 ** rank),
    );
    this.clock.schedule(10, during);
    const calls = this.groups.map(async (group, rank) => {
      if (this.processOf(rank).dead) return null;
      await group.admit();
      return group.allReduce(tensors[rank]!, { algorithm, timeout: 60_000 });
    });
    const results = await this.drive(Promise.all(calls.map((call, rank) => Promise.race([call, this.#death(rank)]))));
    const tookMs = this.clock.now() - startedAt;
    for (const [rank, report] of results.entries()) {
      if (report === null) continue;
      const took = this.groups.map(({ peerId }) => report.contributors.includes(peerId));
      const [base, count] = [
        took.reduce((sum, is, other) => sum + (is ? 10 ** other : 0), 0),
        took.filter(Boolean).length,
      ];
      const wrong = tensors[rank]!.findIndex((value, at) => value !== base + count * (at % 97));
      expect({ rank, wrong }).toEqual({ rank, wrong: -1 });
    }
    await this.sleep(200);
    return { reports: results.flatMap((report) => report ?? []), tookMs };
  }

  sleep(ms: number): Promise<void> {
    return this.drive(new Promise<void>((resolve) => void this.clock.schedule(ms, resolve)));
  }

  async #death(rank: number): Promise<null> {
    while (!this.processOf(rank).dead) await new Promise<void>((resolve) => void this.clock.schedule(50, resolve));
    return null;
  }

  /** A process dies, as by SIGKILL. */
  kill(rank: number): void {
    const process = this.processOf(rank);
    process.kill();
    this.network.down(process, false);
  }

  /** The coordinator dies, and another one takes its place. */
  async restartCoordinator(): Promise<void> {
    this.coordinator.kill();
    this.network.down(this.coordinator, false);
    this.coordinator = new SimProcess('coordinator', this.clock);
    await this.drive(this.listen(true));
  }

  /** Steps until the ring has none of these hops. */
  async leave(...hops: readonly (readonly [number, number])[]): Promise<void> {
    for (let steps = 0; ; steps++) {
      const ring = await this.ring();
      if (!hops.some(([from, to]) => hasHop(ring, from, to))) return;
      expect(steps, `the ring is still ${ring.join(' ')}`).toBeLessThan(MAX_STEPS);
      await this.step();
    }
  }

  /** Each member's ring, by ranks; they must be the same. */
  async ring(): Promise<readonly number[]> {
    const alive = this.groups.filter((_, rank) => !this.processOf(rank).dead);
    const rings = await this.drive(Promise.all(alive.map(async (group) => (await group.status()).ring)));
    for (const ring of rings) expect(ring).toEqual(rings[0]);
    return rings[0]!.map((peerId) => this.groups.findIndex((group) => group.peerId === peerId));
  }
}

function hasHop(ring: readonly number[], from: number, to: number): boolean {
  return ring[(ring.indexOf(from) + 1) % ring.length] === to;
}
