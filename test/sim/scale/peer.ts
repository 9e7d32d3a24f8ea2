/**
 * A peer of a simulation of scale: the real collectives, frames and kernels, and the answers to the coordinator that an engine
 * gives. What an engine does beside that for each of its links, from sockets to signs of life, is only a price here, so a
 * thousand of them fit into one process.
 */
import type { CallSpec, PeerId, Report } from '../../../src/collectives/call.ts';
import { Collectives } from '../../../src/collectives/collectives.ts';
import type { ViewOf } from '../../../src/collectives/context.ts';
import { Inbound, NO_SIGNS } from '../../../src/collectives/inbound.ts';
import type { LinkPort } from '../../../src/collectives/ports.ts';
import type { Workspace } from '../../../src/collectives/workspace.ts';
import { DIAL_CONCURRENCY } from '../../../src/engine/peers.ts';
import { warmMs } from '../../../src/engine/warming.ts';
import { every } from '../../../src/transport/clock.ts';
import type { CoordinatorMessage, PeerDescription } from '../../../src/wire/coordinator-messages.ts';
import { FrameReader } from '../../../src/wire/frame.ts';
import { LINK_HIGH_WATER_BYTES } from '../../../src/wire/limits.ts';
import type { PeerMessage } from '../../../src/wire/peer-messages.ts';
import { type Access, type Cores, type Prices, Thread } from './costs.ts';

/** What a peer needs of the world. */
export interface PeerWorld {
  readonly prices: Prices;
  /** What one direction of a link holds before the sender has to keep it. */
  readonly windowBytes: number;
  now(): number;
  schedule(delayMs: number, task: () => void): () => void;
  /** One way, between two peers. */
  delayMs(from: ScalePeer, to: ScalePeer): number;
  peer(peerId: PeerId): ScalePeer;
  toCoordinator(from: ScalePeer, message: PeerMessage): void;
  takeScratch(byteLength: number): Uint8Array;
  /** Bytes that leave a peer, as they arrive: what happens to them at its sender does not matter any more. */
  keep(bytes: Uint8Array): readonly Uint8Array[];
  onAdmitted(peer: ScalePeer): void;
  /** What can't happen has happened. */
  fail(reason: string): void;
}

/** Round trips until a data connection carries data: TCP, TLS 1.3, and the proof of the pair's key. */
const DIAL_ROUND_TRIPS = 3;

interface Queued {
  readonly pieces: readonly Uint8Array[];
  readonly bytes: number;
  readonly onFlushed: (() => void) | null;
}

/** The way from one peer to another. */
class ScaleLink implements LinkPort {
  /** The other peer has dialled it. */
  up = false;
  /** We have dialled the other direction. */
  receives = false;
  queuedBytes = 0;
  readonly #from: ScalePeer;
  readonly #to: ScalePeer;
  readonly #world: PeerWorld;
  readonly #queue: Queued[] = [];
  #onTheWay = 0;
  #reader: FrameReader | null = null;
  #inbound: Inbound | null = null;

  constructor(world: PeerWorld, from: ScalePeer, to: ScalePeer) {
    this.#world = world;
    this.#from = from;
    this.#to = to;
  }

  get writable(): boolean {
    return this.up && this.queuedBytes < LINK_HIGH_WATER_BYTES;
  }

  cork(): void {}

  uncork(): void {}

  send(head: Uint8Array, body: Uint8Array | null, onFlushed: (() => void) | null): void {
    const { prices, keep } = this.#world;
    const bytes = head.length + (body?.length ?? 0);
    const pieces = [...keep(head), ...(body === null ? [] : keep(body))];
    this.#from.engine.charge(prices.frameSeconds + bytes * prices.byteSeconds);
    this.queuedBytes += bytes;
    this.#queue.push({ pieces, bytes, onFlushed });
    this.#drain();
  }

  /** The other end is gone. */
  close(): void {
    this.up = false;
    this.receives = false;
    for (const one of this.#queue.splice(0)) this.#flushed(one);
    this.#inbound?.close();
  }

  #drain(): void {
    while (this.#queue.length > 0 && (this.#onTheWay === 0 || this.#onTheWay < this.#world.windowBytes)) {
      const one = this.#queue.shift()!;
      this.#onTheWay += one.bytes;
      this.#depart(one);
    }
  }

  #depart(one: Queued): void {
    const world = this.#world;
    const [from, to] = [this.#from, this.#to];
    const left = from.access.leave(world.now() + from.engine.delayMs, one.bytes);
    world.schedule(left - world.now(), () => {
      this.#flushed(one);
      world.schedule(world.delayMs(from, to), () => {
        const arrived = to.access.arrive(world.now(), one.bytes);
        world.schedule(arrived - world.now(), () => to.engine.run(() => this.#arrive(one)));
      });
    });
  }

  #flushed({ bytes, onFlushed }: Queued): void {
    this.queuedBytes -= bytes;
    this.#from.engine.run(() => {
      onFlushed?.();
      this.#from.pump();
    });
  }

  /** In the engine of the other peer. */
  #arrive({ pieces, bytes }: Queued): void {
    const { prices } = this.#world;
    const to = this.#to;
    const cold = to.engine.contended ? prices.coldByteSeconds : 0;
    to.engine.charge(prices.frameSeconds + bytes * (prices.byteSeconds + cold));
    this.#onTheWay -= bytes;
    if (this.#queue.length > 0) this.#drain();
    this.#inbound ??= to.inbound(this.#from.peerId);
    this.#reader ??= new FrameReader(this.#inbound, new Uint8Array(64));
    for (const piece of pieces) {
      const error = this.#reader.push(piece);
      if (error === null) continue;
      this.#world.fail(`${to.peerId} refuses what ${this.#from.peerId} sent: ${error}`);
      return;
    }
  }
}

export class ScalePeer {
  readonly index: number;
  readonly description: PeerDescription;
  /** The thread that the user's program runs in, and that of the engine. */
  readonly main: Thread;
  readonly engine: Thread;
  readonly access: Access;
  peerId: PeerId = '';
  view: ViewOf | null = null;
  boundary = 0;
  /** When it set out, was ready, and was a member (ms). */
  readonly times: { bootedAt: number; readyAt: number; admittedAt: number };
  readonly #world: PeerWorld;
  readonly #workspace: Workspace;
  readonly #links: Map<PeerId, ScaleLink> = new Map();
  readonly #dials: ScalePeer[] = [];
  #dialling = 0;
  /** They have dialled this peer before it was told of them. */
  readonly #early: Set<PeerId> = new Set();
  /** Lanes of known peers that are not up, both directions. */
  #missing = 0;
  #collectives!: Collectives; // set by its welcome, before which it is told nothing else
  #passing: (() => void) | null = null;
  #lossEpoch = 0;
  #stops: (() => void)[] = [];

  constructor(
    index: number,
    world: PeerWorld,
    place: {
      readonly cores: Cores;
      readonly access: Access;
      readonly site: string;
      readonly hostKey: string;
      readonly workspace: Workspace;
    },
  ) {
    this.index = index;
    this.#world = world;
    this.main = new Thread(place.cores, world.prices);
    this.engine = new Thread(place.cores, world.prices);
    this.access = place.access;
    this.#workspace = place.workspace;
    this.description = {
      hostKey: place.hostKey,
      site: place.site,
      addresses: [{ kind: 'tls', host: '192.0.2.1', port: 7400 }],
      cores: place.cores.count,
    };
    this.times = { bootedAt: world.now(), readyAt: Number.NaN, admittedAt: Number.NaN };
  }

  get dead(): boolean {
    return this.engine.dead;
  }

  get isMember(): boolean {
    return this.view !== null && !this.dead;
  }

  pump(): void {
    this.#collectives.pump();
  }

  inbound(from: PeerId): Inbound {
    return new Inbound(from, this.#collectives.delivery, { ...NO_SIGNS, now: () => this.#world.now() });
  }

  /** From the user's thread and back to it. */
  call(spec: CallSpec, onReport: (report: Report) => void): void {
    const { callSeconds } = this.#world.prices;
    const settle = (report: Report) =>
      this.main.run(() => {
        this.main.charge(callSeconds);
        this.#world.schedule(this.main.delayMs, () => {
          if (!this.dead) onReport(report);
        });
      });
    this.#cross(() =>
      this.#collectives.call(spec, {
        onProgress: () => {},
        onPart: () => {},
        onSettled: (outcome) => {
          this.engine.charge(callSeconds);
          if (outcome.ok) this.#world.schedule(this.engine.delayMs, () => settle(outcome.report));
          else this.#world.fail(`${this.peerId}: ${outcome.error.message}`);
        },
      }),
    );
  }

  /** Comes to the next boundary. */
  admit(onPassed: () => void): void {
    this.#cross(() => {
      this.#passing = () => this.#world.schedule(this.engine.delayMs, () => this.main.run(onPassed));
      this.#send({
        type: 'boundary',
        index: this.boundary + 1,
        passed: this.boundary,
        minWorldSize: 1,
        oldest: this.#collectives.oldestGeneration,
      });
    });
  }

  #cross(task: () => void): void {
    const { callSeconds } = this.#world.prices;
    this.main.run(() => {
      this.main.charge(callSeconds);
      this.#world.schedule(this.main.delayMs, () =>
        this.engine.run(() => {
          this.engine.charge(callSeconds);
          task();
        }),
      );
    });
  }

  /** As a process that is killed. */
  kill(): void {
    this.main.kill();
    this.engine.kill();
    for (const stop of this.#stops) stop();
  }

  /** Another peer's process is gone, and its sockets tell. */
  sawClose(peerId: PeerId): void {
    this.engine.run(() => {
      const link = this.#links.get(peerId);
      if (link === undefined) return;
      this.#missing += (link.up ? 1 : 0) + (link.receives ? 1 : 0);
      link.close();
      if (this.view?.members.some((member) => member.peerId === peerId) === true)
        this.#send({ type: 'link-closed', peerId });
    });
  }

  /** In the engine. */
  receive(message: CoordinatorMessage): void {
    this.engine.charge(this.#world.prices.controlSeconds);
    switch (message.type) {
      case 'welcome':
        this.#onWelcome(message);
        break;
      case 'introduce':
        this.#meet(message.peer.peerId);
        break;
      case 'dismiss':
        this.#leave(message.peerId);
        this.#collectives.forget(message.peerId);
        break;
      case 'admitted':
        this.boundary = message.index;
        this.#install(message.view);
        this.times.admittedAt = this.#world.now();
        this.#world.onAdmitted(this);
        break;
      case 'boundary': {
        this.boundary = message.index;
        if (message.view !== null) this.#install(message.view);
        const passing = this.#passing;
        this.#passing = null;
        passing?.();
        break;
      }
      case 'loss':
        this.#onLoss(message);
        break;
      case 'decide':
        if (message.epoch === this.#lossEpoch) this.#collectives.onDecide(message.committed, message.kept);
        break;
      case 'commit':
        this.#collectives.onCommit(message);
        break;
      case 'fail':
        this.#collectives.onFail(message);
        break;
      case 'evicted':
        this.#world.fail(`${this.peerId} was evicted: ${message.reason}`);
        break;
      default: // the rest is about what is not simulated here
    }
  }

  #send(message: PeerMessage): void {
    this.engine.charge(this.#world.prices.controlSeconds);
    this.#world.toCoordinator(this, message);
  }

  #onWelcome({ heartbeatMs, peers }: Extract<CoordinatorMessage, { type: 'welcome' }>): void {
    const world = this.#world;
    const { peerId } = this;
    this.#collectives = new Collectives({
      self: peerId,
      workspace: this.#workspace,
      now: () => world.now(),
      link: (other) => this.#links.get(other) ?? new ScaleLink(world, this, this),
      knows: (other) => this.#links.has(other),
      control: (message) => this.#send(message),
      takeScratch: (byteLength) => world.takeScratch(byteLength),
      giveScratch: () => {},
    });
    this.#stops.push(every(world, heartbeatMs, () => this.engine.run(() => this.#send({ type: 'beat' }))));
    for (const peer of peers) this.#meet(peer.peerId);
    this.#stops.push(world.schedule(warmMs(peers.length), () => this.engine.run(() => this.#ready())));
    this.#checkWarm();
  }

  #ready(): void {
    if (!Number.isNaN(this.times.readyAt)) return;
    this.times.readyAt = this.#world.now();
    this.#send({ type: 'ready' });
  }

  #checkWarm(): void {
    if (this.#missing === 0) this.#ready();
  }

  #install(view: ViewOf): void {
    this.view = { ...view, epoch: Math.max(view.epoch, this.view?.epoch ?? 0) };
    this.#collectives.onView(view);
  }

  #onLoss(message: Extract<CoordinatorMessage, { type: 'loss' }>): void {
    const lost = message.lost.map(({ peerId }) => peerId);
    this.#lossEpoch = message.epoch;
    if (this.view !== null)
      this.view = {
        ...this.view,
        epoch: message.epoch,
        members: this.view.members.filter(({ peerId }) => !lost.includes(peerId)),
      };
    for (const peerId of lost) this.#leave(peerId);
    const { epoch, broken, cuts, resumed } = message;
    const { held, returned, finished } = this.#collectives.onLoss(epoch, lost, broken, cuts, resumed);
    this.#send({ type: 'progress', epoch, held: [...held], returned: [...returned], finished: [...finished] });
  }

  // --- links -------------------------------------------------------------------------------------------------------

  #meet(peerId: PeerId): void {
    const other = this.#world.peer(peerId);
    this.#links.set(peerId, new ScaleLink(this.#world, this, other));
    this.#missing += 2;
    this.#dials.push(other);
    this.#dialNext();
    if (this.#early.delete(peerId)) this.#onDialled(other);
  }

  #leave(peerId: PeerId): void {
    const link = this.#links.get(peerId);
    if (link === undefined) return;
    this.#missing -= (link.up ? 0 : 1) + (link.receives ? 0 : 1);
    this.#links.delete(peerId);
    link.close();
    this.#checkWarm();
  }

  /** What this peer receives on, it dials. */
  #dialNext(): void {
    const world = this.#world;
    while (this.#dialling < DIAL_CONCURRENCY && this.#dials.length > 0) {
      const other = this.#dials.shift()!;
      this.#dialling += 1;
      this.engine.charge(world.prices.handshakeSeconds);
      const there = world.delayMs(this, other);
      const back = world.delayMs(other, this);
      world.schedule(DIAL_ROUND_TRIPS * (there + back) + this.engine.delayMs, () =>
        this.engine.run(() => {
          this.#dialling -= 1;
          const link = this.#links.get(other.peerId);
          if (link !== undefined && !link.receives && !other.dead) {
            link.receives = true;
            this.#missing -= 1;
            world.schedule(there, () => other.engine.run(() => other.#onDialled(this)));
            this.#checkWarm();
          }
          this.#dialNext();
        }),
      );
    }
  }

  #onDialled(by: ScalePeer): void {
    this.engine.charge(this.#world.prices.handshakeSeconds);
    const link = this.#links.get(by.peerId);
    if (link === undefined) this.#early.add(by.peerId);
    if (link === undefined || link.up) return;
    link.up = true;
    this.#missing -= 1;
    this.#collectives.onLinkUp(by.peerId);
    this.#checkWarm();
  }
}
