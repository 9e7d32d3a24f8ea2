/**
 * Peers and two coordinators that share a store, in virtual time: the real ones, on a simulated network. The one that leads is killed,
 * stopped and cut off from the store again and again, while the peers make their calls. None may fail, be lost or counted twice,
 * and all peers must see the same ones.
 */
import { CoordinatorServer } from '../../src/engine/coordinator-server.ts';
import { createInlineEngine } from '../../src/engine/inline.ts';
import { resolveSecurity } from '../../src/engine/resolve-security.ts';
import { ConnectError } from '../../src/errors.ts';
import { Group } from '../../src/group.ts';
import { MemoryStore } from '../../src/store/memory.ts';
import { VirtualClock } from '../../src/transport/clock.ts';
import { MemoryNetwork } from '../../src/transport/memory.ts';
import type { Address } from '../../src/transport/transport.ts';
import { FarStore } from '../store/far-store.ts';
import { freshKernels, simPlatform } from './platform.ts';
import { SimProcess } from './process.ts';
import { mix, Random } from './random.ts';

const TOKEN = 'of the simulation';
const SECURITY = resolveSecurity({}, TOKEN);
const NAMES = ['coordinator-0', 'coordinator-1'] as const;
const LEASE_MS = 1_000;
/** Of the store, after the storm. */
const CALM = { longestMs: 2, lost: 0 };
const ELEMENTS = 64;
const LONGEST_FAULT_MS = 5_050;
const STORM_MS = 12_000;
/** By then every call must be over (ms). */
const END_MS = STORM_MS + 20_000;

/** Until a peer knows what has become of its connections: a way there and back, at the longest latency. */
const TOLD_MS = 60;

export interface Outcome {
  readonly failure: string | null;
  readonly trace: readonly string[];
  readonly calls: number;
  readonly terms: number;
}

interface Coordinator {
  readonly name: string;
  process: SimProcess;
  store: FarStore;
  server: CoordinatorServer | null;
}

class Leaders {
  readonly #clock = new VirtualClock();
  readonly #store = new MemoryStore(this.#clock, true);
  readonly #random: Random;
  readonly #network: MemoryNetwork;
  readonly #kernels: Awaited<ReturnType<typeof freshKernels>>;
  readonly #coordinators: Coordinator[] = [];
  readonly #trace: string[] = [];
  /** By epoch: which coordinator announced its view. */
  readonly #announced: Map<string, string> = new Map();
  readonly #ids: string[] = [];
  #failure: string | null = null;
  #terms = 0;
  #lastTerm = 0;
  #finished = 0;
  /** When a coordinator came back while there was none, for the last time. */
  #desertedUntil = Number.NEGATIVE_INFINITY;
  #isCalm = false;
  /** All peers stop after this call. */
  #stopAt = Number.POSITIVE_INFINITY;

  constructor(seed: number, kernels: Awaited<ReturnType<typeof freshKernels>>) {
    this.#random = new Random(seed);
    this.#kernels = kernels;
    const weather = { latencyMs: this.#random.pick([0.5, 5, 30]), bytesPerMs: 10_000 };
    this.#network = new MemoryNetwork({ clock: this.#clock, seed: mix(seed, 2), weather });
  }

  async run(): Promise<Outcome> {
    for (const name of NAMES) this.#coordinators.push(this.#start(name));
    const peers = this.#random.integer(2, 4);
    for (let index = 0; index < peers; index++)
      void this.#train(index, peers).catch((error: unknown) => this.#fail(`peer ${index}: ${(error as Error).stack}`));
    const faults = this.#random.integer(1, 4);
    for (let index = 0; index < faults; index++)
      this.#clock.schedule(1_000 + this.#random.next() * (STORM_MS - 2_000), () => this.#inflict());
    this.#clock.schedule(STORM_MS, () => this.#calm());
    while (this.#finished < peers && this.#failure === null) {
      if (!this.#clock.step() || this.#clock.now() > END_MS)
        this.#fail(
          `not all calls are over: ${JSON.stringify(this.#coordinators.map(({ server }) => server?.status()))}`,
        );
      await new Promise((resolve) => setImmediate(resolve));
    }
    return { failure: this.#failure, trace: this.#trace, calls: this.#ids.length, terms: this.#terms };
  }

  get #isDeserted(): boolean {
    return this.#coordinators.every(({ process }) => process.dead);
  }

  #fail(text: string): void {
    this.#failure ??= text;
    this.#note(`FAILED ${text}`);
  }

  #note(text: string): void {
    this.#trace.push(`${this.#clock.now().toFixed(1).padStart(9)}  ${text}`);
  }

  #platform(process: SimProcess) {
    const around = { network: this.#network, kernels: this.#kernels, random: this.#random, segmentBytes: 1_024 };
    return simPlatform(process, around);
  }

  #start(name: string): Coordinator {
    const process = new SimProcess(name, this.#clock);
    const storm = { longestMs: this.#random.pick([2, 50, 400]), lost: this.#random.pick([0, 0.02]) };
    const weather = this.#isCalm ? CALM : storm;
    const store = new FarStore(this.#store, process, this.#clock, this.#random, weather);
    const coordinator: Coordinator = { name, process, store, server: null };
    const onNote = (line: string) => {
      this.#note(`${name}: ${line}`);
      this.#hear(name, line);
    };
    const options = { token: TOKEN, store, leaseMs: LEASE_MS, onNote, heartbeatMs: 100, lostAfterMs: 2_000 };
    const address: Address = { kind: 'memory', name };
    CoordinatorServer.listenAt(address, options, this.#platform(process), 0).then(
      (server) => {
        coordinator.server = server;
      },
      (error: unknown) => this.#fail(`${name}: ${error}`),
    );
    return coordinator;
  }

  /** Two must not speak of one thing. */
  #hear(name: string, line: string): void {
    const term = Number(/^leads, term (\d+)/.exec(line)?.[1] ?? 0);
    if (term > 0) {
      this.#terms += 1;
      if (term <= this.#lastTerm) this.#fail(`${name} leads in term ${term}, after ${this.#lastTerm}`);
      this.#lastTerm = term;
    }
    const epoch = /boundary \d+: (epoch \d+)/.exec(line)?.[1];
    if (epoch !== undefined && this.#announced.has(epoch)) this.#fail(`${epoch} was announced twice`);
    if (epoch !== undefined) this.#announced.set(epoch, name);
    if (/is gone/.test(line)) this.#fail(line);
  }

  #inflict(): void {
    const leader = this.#coordinators.find(({ process, server }) => !process.dead && server?.isLeading === true);
    const victim = leader ?? this.#random.pick(this.#coordinators);
    const kind = this.#random.pick(['kill', 'stop', 'stop', 'cut'] as const);
    const forMs = 50 + this.#random.next() ** 2 * (LONGEST_FAULT_MS - 50);
    const { process, store, name } = victim;
    if (process.dead) return;
    this.#note(`${kind} ${name} for ${forMs.toFixed(0)} ms`);
    if (kind === 'kill') {
      process.kill();
      this.#network.down(process, false);
      this.#clock.schedule(forMs, () => {
        if (this.#isDeserted) this.#desertedUntil = this.#clock.now();
        Object.assign(victim, this.#start(name));
      });
    } else if (kind === 'stop') {
      process.stop();
      this.#clock.schedule(forMs, () => process.goOn());
    } else {
      store.isCut = true;
      this.#clock.schedule(forMs, () => {
        store.isCut = false;
      });
    }
  }

  #calm(): void {
    for (const { process, store } of this.#coordinators) {
      process.goOn();
      store.isCut = false;
      store.weather = CALM;
    }
    this.#isCalm = true;
    this.#stopAt = this.#ids.length + 20;
  }

  async #train(index: number, peers: number): Promise<void> {
    const process = new SimProcess(`m${index}`, this.#clock);
    const addresses: readonly Address[] = NAMES.map((name) => ({ kind: 'memory', name }));
    const runtime = {
      coordinators: index % 2 === 0 ? addresses : [...addresses].reverse(),
      run: 'sim',
      name: '',
      token: TOKEN,
      security: SECURITY,
      minWorldSize: 1,
      startWorldSize: peers,
      site: '',
      transports: ['memory'] as const,
      stripes: 1,
      timeoutMs: END_MS,
    };
    // Not before somebody listens.
    await process.sleep(10);
    const join = () =>
      Group.join(
        (onMessage) => createInlineEngine(onMessage, this.#platform(process)),
        { engine: 'inline', runtime },
        undefined,
      );
    const group = await join().catch(async (error: unknown) => {
      // Who is not in yet is told when there is nobody at all, and may try again. By then one may just have come back.
      const isDeserted = this.#isDeserted || this.#clock.now() - this.#desertedUntil < TOLD_MS;
      if (!(error instanceof ConnectError) || !isDeserted) throw error;
      await process.sleep(LONGEST_FAULT_MS);
      return join();
    });
    for (let step = 0; step <= this.#stopAt; step++) {
      if (step % 7 === 3) await group.admit();
      const tensor = new Float32Array(ELEMENTS).fill(step + 1);
      const { id, contributors } = await group.allReduce(tensor);
      if (tensor.some((value) => value !== peers * (step + 1))) this.#fail(`${id} gave ${tensor[0]}`);
      if (contributors.length !== peers) this.#fail(`${id} had ${contributors.length} contributors`);
      this.#ids[step] ??= id;
      if (this.#ids[step] !== id) this.#fail(`call ${step} was ${id} and ${this.#ids[step]}`);
      await process.sleep(mix(step, 3) % 60);
    }
    this.#finished += 1;
  }
}

export async function runLeaders(seed: number): Promise<Outcome> {
  return new Leaders(seed, await freshKernels()).run();
}
