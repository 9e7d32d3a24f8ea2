/**
 * A run at scale on a virtual clock: the real coordinator's machine, real collectives and real frames, and a price for everything
 * else (`costs.ts`). The same seed gives the same figures.
 */
import type { CallSpec, PeerId } from '../../../src/collectives/call.ts';
import { Workspace } from '../../../src/collectives/workspace.ts';
import type { Kernels } from '../../../src/kernels/kernels.ts';
import { CoordinatorMachine } from '../../../src/membership/coordinator.ts';
import type { CoordinatorEvent } from '../../../src/membership/events.ts';
import { every, VirtualClock } from '../../../src/transport/clock.ts';
import type { CoordinatorMessage } from '../../../src/wire/coordinator-messages.ts';
import { HEADER_BYTES } from '../../../src/wire/frame.ts';
import { MAX_WORLD_SIZE } from '../../../src/wire/limits.ts';
import { encodeControl } from '../../../src/wire/messages.ts';
import type { PeerMessage } from '../../../src/wire/peer-messages.ts';
import { freshKernels } from '../platform.ts';
import { Random } from '../random.ts';
import { Access, Cores, type Prices, Thread, type Topology } from './costs.ts';
import { type PeerWorld, ScalePeer } from './peer.ts';

export interface SwarmOptions {
  /** Where its peers are. Only those that are booted take part. */
  readonly topology: Topology;
  readonly prices: Prices;
  readonly seed: number;
  /**
   * `own`: results are checked. `shared`: all peers work in the same memory, so that tensors of any size fit a thousand times, and
   * results are worth nothing; what is sent, and when, is the same.
   */
  readonly memory: 'own' | 'shared';
  /** @default that of an engine */
  readonly segmentBytes?: number;
  /** Before a silent peer counts as lost (ms). */
  readonly lostAfterMs?: number;
}

/** What went to the coordinator and from it in some time. */
export interface ControlTraffic {
  readonly messages: number;
  readonly bytes: number;
  readonly virtualMs: number;
  /** Of the coordinator's processor (ms). */
  readonly busyMs: number;
}

export interface Timed {
  /** On the slowest rank, from when it has left a barrier (virtual ms). */
  readonly ms: number;
  readonly algorithm: string;
  readonly control: ControlTraffic;
}

export interface Recovery {
  /** From the kill until the first survivor's engine knows (virtual ms). */
  readonly decidedMs: number;
  /** From the kill until the last survivor has the result of what was under way. */
  readonly recoveredMs: number;
  /** It was begun anew; false where all survivors held the result already, with the part of the one that was killed. */
  readonly begunAnew: boolean;
  readonly control: ControlTraffic;
}

export interface Admission {
  /** From its start until it asks to be let in, and until it is in the view (virtual ms). */
  readonly readyMs: number;
  readonly admittedMs: number;
  readonly control: ControlTraffic;
}

const HEARTBEAT_MS = 250;
const TICK_MS = 25;
const LOST_AFTER_MS = 3_000;
const PATIENCE = 4;

/** What a Unix-domain socket holds, and a network whose windows grow as they should. */
const HOST_WINDOW_BYTES = 208 * 1024;

/** Of each machine that peers do not share. */
const OWN_CORES = 2;

/** Round trips until a newcomer is heard: TCP, TLS 1.3, and the coordinator's challenge; then one way. */
const GREETING_ROUND_TRIPS = 3;

/** A coordinator has a fast line (bytes per second). */
const COORDINATOR_RATE = 125e6;

/** Nothing that is waited for takes longer (virtual ms). */
const PATIENCE_MS = 600_000;

export class Swarm {
  readonly clock: VirtualClock = new VirtualClock();
  readonly peers: ScalePeer[] = [];
  readonly #options: SwarmOptions;
  readonly #kernels: Kernels;
  readonly #world: PeerWorld;
  readonly #machine: CoordinatorMachine;
  readonly #thread: Thread;
  readonly #access: Access;
  readonly #sharedCores: Cores | null;
  readonly #byId: Map<PeerId, ScalePeer> = new Map();
  #messages = 0;
  #bytes = 0;
  #failure: string | null = null;
  /** What a peer does that has just become a member. */
  #onAdmitted: (peer: ScalePeer) => void = () => {};
  #onDecided: () => void = () => {};
  events = 0;

  static async open(options: SwarmOptions): Promise<Swarm> {
    return new Swarm(options, await freshKernels());
  }

  private constructor(options: SwarmOptions, kernels: Kernels) {
    this.#options = options;
    this.#kernels = kernels;
    const { topology, prices, seed, lostAfterMs = LOST_AFTER_MS } = options;
    const { clock } = this;
    const random = new Random(seed);
    const bounds = { minimumMs: lostAfterMs, maximumMs: PATIENCE * lostAfterMs };
    this.#machine = new CoordinatorMachine({
      heartbeatMs: HEARTBEAT_MS,
      bounds,
      random: (length) => random.bytes(length),
      iceServers: () => ({ servers: [], validMs: 1 }),
      stored: null,
      graceMs: 0,
      probes: false,
    });
    this.#sharedCores = topology.sharedCores === null ? null : new Cores(clock, topology.sharedCores);
    const isOneHost = this.#sharedCores !== null;
    this.#thread = new Thread(this.#sharedCores ?? new Cores(clock, OWN_CORES), prices);
    const rate = isOneHost ? Number.POSITIVE_INFINITY : COORDINATOR_RATE;
    this.#access = new Access(rate, rate);
    this.#world = {
      prices,
      windowBytes: isOneHost ? HOST_WINDOW_BYTES : Number.POSITIVE_INFINITY,
      now: () => clock.now(),
      schedule: (delayMs, task) => clock.schedule(delayMs, task),
      delayMs: (from, to) => topology.delayMs(from.index, to.index),
      peer: (peerId) => this.#byId.get(peerId)!, // the coordinator tells of nobody else
      toCoordinator: (from, message) => this.#toCoordinator(from, message),
      takeScratch: (byteLength) => this.#takeScratch(byteLength),
      keep: options.memory === 'own' ? (bytes) => [bytes.slice()] : keepHeader,
      onAdmitted: (peer) => this.#onAdmitted(peer),
      fail: (reason) => {
        this.#failure ??= reason;
      },
    };
    every(clock, TICK_MS, () => this.#thread.run(() => this.#step({ type: 'tick' })));
  }

  // --- what is measured --------------------------------------------------------------------------------------------

  /** Boots so many peers, `apartMs` after one another; returns when all are in the view (virtual ms). */
  form(count: number, apartMs = 0): { readonly ms: number; readonly control: ControlTraffic } {
    const watch = this.#watch();
    const start = this.clock.now();
    let admitted = 0;
    this.#onAdmitted = () => {
      admitted += 1;
    };
    for (let index = 0; index < count; index++) this.clock.schedule(index * apartMs, () => this.#boot(count));
    this.#until(() => admitted === count, 'all are members');
    return { ms: this.clock.now() - start, control: watch() };
  }

  /** One all-reduce of all members, after a barrier. `inputs` and `outputs`: of each peer. */
  allReduce(bytes: number, tensors?: { inputs: readonly Uint8Array[]; outputs: readonly Uint8Array[] }): Timed {
    const members = this.peers.filter((peer) => peer.isMember);
    const [input, output] = tensors === undefined ? this.#tensors(bytes) : [null, null];
    const watch = this.#watch();
    let left = members.length;
    let slowest = 0;
    let algorithm = '';
    for (const [at, peer] of members.entries())
      peer.call(barrier(), () => {
        const start = this.clock.now();
        const [from, to] = [input ?? tensors!.inputs[at]!, output ?? tensors!.outputs[at]!]; // one or the other is given
        peer.call(sum(from, to), (report) => {
          slowest = Math.max(slowest, this.clock.now() - start);
          algorithm = report.algorithm;
          left -= 1;
        });
      });
    this.#until(() => left === 0, `an all-reduce of ${bytes} bytes`);
    return { ms: slowest, algorithm, control: watch() };
  }

  /** Members step, with a boundary and an all-reduce each, until so many steps are done by all (virtual ms for all of them). */
  steps(bytes: number, count: number): { readonly ms: number; readonly control: ControlTraffic } {
    const watch = this.#watch();
    const start = this.clock.now();
    const program = this.#program(bytes, count);
    this.#until(() => program.left === 0, `${count} steps`);
    return { ms: this.clock.now() - start, control: watch() };
  }

  /** While the members step, another peer comes; there must be room for one. */
  admit(bytes: number): Admission {
    const members = this.peers.filter((peer) => peer.isMember).length;
    if (members >= MAX_WORLD_SIZE) throw new Error(`a run of ${members} members takes nobody in`);
    const watch = this.#watch();
    const program = this.#program(bytes, Number.POSITIVE_INFINITY);
    const newcomer = this.#boot(1);
    this.#until(() => newcomer.isMember, 'a newcomer is a member');
    const { bootedAt, readyAt, admittedAt } = newcomer.times;
    const control = watch();
    program.stop();
    this.#until(() => program.left === 0, 'the last step');
    return { readyMs: readyAt - bootedAt, admittedMs: admittedAt - bootedAt, control };
  }

  /** In the middle of an all-reduce, `afterMs` after it began, one member is killed. */
  kill(bytes: number, afterMs: number): Recovery {
    const members = this.peers.filter((peer) => peer.isMember);
    const victim = members[members.length >> 1]!;
    const [input, output] = this.#tensors(bytes);
    const survivors = members.filter((peer) => peer !== victim);
    let left = survivors.length;
    let begunAnew = false;
    for (const peer of members)
      peer.call(sum(input, output), (report) => {
        begunAnew = !report.contributors.includes(victim.peerId);
        left -= 1;
      });
    const begun = this.clock.now();
    this.#until(() => this.clock.now() >= begun + afterMs, 'the middle of an all-reduce');
    const watch = this.#watch();
    const killedAt = this.clock.now();
    let decidedAt = Number.NaN;
    this.#onDecided = () => {
      if (Number.isNaN(decidedAt)) decidedAt = this.clock.now();
    };
    this.#kill(victim);
    this.#until(() => left === 0, 'the survivors have their result');
    this.#onDecided = () => {};
    const recoveredMs = this.clock.now() - killedAt;
    return { decidedMs: decidedAt - killedAt, recoveredMs, begunAnew, control: watch() };
  }

  // --- peers -------------------------------------------------------------------------------------------------------

  #boot(startWorldSize: number): ScalePeer {
    const { topology, segmentBytes, memory } = this.#options;
    const index = this.peers.length;
    const cores = this.#sharedCores ?? new Cores(this.clock, OWN_CORES);
    const isOneHost = this.#sharedCores !== null;
    const peer = new ScalePeer(index, this.#world, {
      cores,
      access: new Access(topology.upRates[index]!, topology.downRates[index]!),
      site: topology.sites[index]!,
      hostKey: isOneHost ? 'host' : `host ${index}`,
      workspace: new Workspace(memory === 'own' ? this.#kernels : overlapping(this.#kernels), segmentBytes),
    });
    this.peers.push(peer);
    const there = topology.delayMs(index, null);
    const back = topology.delayMs(null, index);
    const greetedMs = GREETING_ROUND_TRIPS * (there + back) + there;
    this.clock.schedule(greetedMs, () =>
      this.#thread.run(() => {
        this.#thread.charge(this.#options.prices.handshakeSeconds);
        const { description } = peer;
        this.#step({ type: 'joined', connection: index, description, startWorldSize, name: '' });
      }),
    );
    return peer;
  }

  #kill(victim: ScalePeer): void {
    const { topology } = this.#options;
    const { peerId, index } = victim;
    victim.kill();
    this.clock.schedule(topology.delayMs(index, null), () =>
      this.#thread.run(() => this.#step({ type: 'closed', peerId })),
    );
    for (const peer of this.peers)
      if (!peer.dead) this.clock.schedule(topology.delayMs(index, peer.index), () => peer.sawClose(peerId));
  }

  /** What all members do from now on, and who becomes one. */
  #program(bytes: number, count: number): { readonly left: number; stop(): void } {
    const [input, output] = this.#tensors(bytes);
    const last = { boundary: this.#highestBoundary + count };
    let left = 0;
    const reduce = (peer: ScalePeer) => peer.call(sum(input, output), () => step(peer));
    const step = (peer: ScalePeer) => {
      if (peer.boundary >= last.boundary) left -= 1;
      else peer.admit(() => reduce(peer));
    };
    for (const peer of this.peers) {
      if (!peer.isMember) continue;
      left += 1;
      step(peer);
    }
    this.#onAdmitted = (peer) => {
      left += 1;
      reduce(peer);
    };
    return {
      get left() {
        return left;
      },
      // Some may have asked for the next boundary already.
      stop: () => {
        last.boundary = this.#highestBoundary + 1;
      },
    };
  }

  get #highestBoundary(): number {
    return this.peers.reduce((most, { boundary }) => Math.max(most, boundary), 0);
  }

  #tensors(bytes: number): [Uint8Array, Uint8Array] {
    return [this.#takeScratch(bytes), this.#takeScratch(bytes)];
  }

  #takeScratch(byteLength: number): Uint8Array {
    return this.#options.memory === 'own' ? new Uint8Array(byteLength) : worthless(byteLength);
  }

  // --- the coordinator ---------------------------------------------------------------------------------------------

  #step(event: CoordinatorEvent): void {
    for (const effect of this.#machine.step(event, this.clock.now())) {
      if (effect.type === 'assign') {
        const peer = this.peers[effect.connection]!;
        peer.peerId = effect.peerId; // others may dial it before it knows itself
        this.#byId.set(effect.peerId, peer);
      } else if (effect.type === 'send') this.#fromCoordinator(effect.peerId, effect.message);
    }
  }

  #encoded: { readonly message: CoordinatorMessage; readonly bytes: number } | null = null;

  #fromCoordinator(peerId: PeerId, message: CoordinatorMessage): void {
    const peer = this.#byId.get(peerId)!; // assigned before
    const { controlSeconds } = this.#options.prices;
    this.#thread.charge(controlSeconds);
    if (this.#encoded?.message !== message)
      this.#encoded = { message, bytes: encodeControl(message, this.#machine.term, this.#machine.epoch).length };
    const { bytes } = this.#encoded;
    this.#count(bytes);
    if (message.type === 'decide') this.#onDecided();
    const { clock } = this;
    const left = this.#access.leave(clock.now() + this.#thread.delayMs, bytes);
    clock.schedule(left + this.#options.topology.delayMs(null, peer.index) - clock.now(), () => {
      const arrived = peer.access.arrive(clock.now(), bytes);
      clock.schedule(arrived - clock.now(), () => peer.engine.run(() => peer.receive(message)));
    });
  }

  #toCoordinator(peer: ScalePeer, message: PeerMessage): void {
    const { clock } = this;
    const bytes = encodeControl(message, 0, 0).length;
    this.#count(bytes);
    const left = peer.access.leave(clock.now() + peer.engine.delayMs, bytes);
    clock.schedule(left + this.#options.topology.delayMs(peer.index, null) - clock.now(), () => {
      const arrived = this.#access.arrive(clock.now(), bytes);
      clock.schedule(arrived - clock.now(), () =>
        this.#thread.run(() => {
          this.#thread.charge(this.#options.prices.controlSeconds);
          this.#step({ type: 'message', peerId: peer.peerId, message });
        }),
      );
    });
  }

  #count(bytes: number): void {
    this.#messages += 1;
    this.#bytes += bytes;
  }

  #watch(): () => ControlTraffic {
    const [messages, bytes, start, busy] = [this.#messages, this.#bytes, this.clock.now(), this.#thread.busyMs];
    return () => ({
      messages: this.#messages - messages,
      bytes: this.#bytes - bytes,
      virtualMs: this.clock.now() - start,
      busyMs: this.#thread.busyMs - busy,
    });
  }

  #until(holds: () => boolean, what: string): void {
    const end = this.clock.now() + PATIENCE_MS;
    while (!holds()) {
      if (!this.clock.step()) throw new Error(`${what}: nothing is under way any more`);
      if (this.#failure !== null) throw new Error(`${what}: ${this.#failure}`);
      if (this.clock.now() > end) throw new Error(`${what}: not within ${PATIENCE_MS / 1_000} s of virtual time`);
      this.events += 1;
    }
  }
}

/** Memory that everybody writes to: a first touch of pages costs more than all that is computed. */
let everybodys = new Uint8Array(0);

function worthless(byteLength: number): Uint8Array {
  if (everybodys.length < byteLength) everybodys = new Uint8Array(byteLength);
  return everybodys.subarray(0, byteLength);
}

/** The arena for each peer anew: they overwrite what others have there, and need not compute it. */
function overlapping(kernels: Kernels): Kernels {
  let next = 0;
  return {
    ...kernels,
    reduce: () => {},
    reserve(byteLength) {
      const offset = next;
      next += Math.ceil(byteLength / 64) * 64;
      return offset;
    },
  };
}

/** What must stay as it is when everything else is worth nothing: headers, and what is announced. */
const KEPT_BYTES = 4 * 1024;

function keepHeader(bytes: Uint8Array): readonly Uint8Array[] {
  if (bytes.length <= KEPT_BYTES) return [kept(bytes)];
  return [kept(bytes.subarray(0, HEADER_BYTES)), bytes.subarray(HEADER_BYTES)];
}

/** Copies of a few bytes share buffers: one for each would cost more than all else that is done for a frame. */
const SLAB_BYTES = 64 * 1024;
const slab = { bytes: new Uint8Array(SLAB_BYTES), used: 0 };

function kept(bytes: Uint8Array): Uint8Array {
  if (slab.used + bytes.length > SLAB_BYTES) {
    slab.bytes = new Uint8Array(SLAB_BYTES);
    slab.used = 0;
  }
  slab.bytes.set(bytes, slab.used);
  const copy = slab.bytes.subarray(slab.used, slab.used + bytes.length);
  slab.used += bytes.length;
  return copy;
}

const COMMON = {
  tag: '',
  trim: null,
  clipRadius: null,
  codec: 'f32',
  rounding: 'nearest',
  errorFeedback: false,
  measureError: false,
  algorithm: 'auto',
  root: null,
  laidOutFor: null,
  consistency: 'commit',
  recovery: 'restart',
  stragglers: 'wait',
  minWorldSize: 1,
  timeoutMs: 3_600_000,
  guard: null,
  stream: null,
  atomic: false,
} as const;

function sum(input: Uint8Array, output: Uint8Array): CallSpec {
  const count = input.length / Float32Array.BYTES_PER_ELEMENT;
  return { ...COMMON, kind: 'allReduce', dtype: 'f32', op: 'sum', count, input: [input], output: [output] };
}

const TOKEN = new Uint8Array(1);

function barrier(): CallSpec {
  return { ...COMMON, kind: 'barrier', dtype: 'u8', op: null, count: 1, input: [TOKEN], output: [TOKEN] };
}
