/**
 * The coordinator's machine on a stage: peers are called a, b, c… in the order in which they come, and what the machine
 * does is written as lines, so that a test reads as a transcript.
 */
import { CoordinatorMachine } from '../../src/membership/coordinator.ts';
import type { DetectorBounds } from '../../src/membership/detector.ts';
import type {
  CoordinatorEffect,
  CoordinatorEvent,
  CoordinatorSnapshot,
  StoredRun,
} from '../../src/membership/events.ts';
import type { CoordinatorMessage, PeerDescription } from '../../src/wire/coordinator-messages.ts';
import type { WireView } from '../../src/wire/parts.ts';
import type { Excludable, PeerMessage, RunReport } from '../../src/wire/peer-messages.ts';

export const HEARTBEAT_MS = 250;
export const BOUNDS: DetectorBounds = { minimumMs: 3_000, maximumMs: 12_000 };

/** Milliseconds between ticks, as the server has it. */
const TICK_MS = 25;

export function newMachine(stored: StoredRun | null = null, graceMs = 0): CoordinatorMachine {
  let count = 0;
  return new CoordinatorMachine({
    heartbeatMs: HEARTBEAT_MS,
    bounds: BOUNDS,
    random: (length) => new Uint8Array(length).fill(count++ & 0xff),
    iceServers: (peerId) => ({ servers: [{ url: 'stun:192.0.2.1:3478', username: peerId }], validMs: 1_000 }),
    stored,
    graceMs,
    probes: true,
  });
}

export function descriptionOf(site: string, hostKey = 'machine'): PeerDescription {
  return { hostKey, site, addresses: [{ kind: 'memory', name: site }], cores: 64 };
}

export class Stage {
  readonly machine: CoordinatorMachine;
  now = 0;
  /** What each was told at a boundary, by name and index. */
  readonly #views: Map<string, WireView | null> = new Map();
  readonly #ids: Map<string, string> = new Map();
  readonly #names: Map<string, string> = new Map();

  constructor(stored: StoredRun | null = null, graceMs = 0) {
    this.machine = newMachine(stored, graceMs);
  }

  /** A view of so many members, all of whom have come at once. `apart`: each on a host of its own. */
  static withMembers(count: number, apart = false): Stage {
    const stage = new Stage();
    const names = Array.from(
      { length: count },
      (_, index) => stage.join(count, '', apart ? `host ${index}` : undefined).name,
    );
    for (const name of names) stage.say(name, { type: 'ready' });
    return stage;
  }

  /** A new connection proves that it may join. `called`: what its process is called. */
  join(startWorldSize = 1, called = '', hostKey?: string): { readonly name: string; readonly lines: string[] } {
    const name = String.fromCharCode('a'.charCodeAt(0) + this.#ids.size);
    const lines = this.#step({
      type: 'joined',
      connection: this.#ids.size,
      description: descriptionOf(name, hostKey),
      startWorldSize,
      name: called,
    });
    return { name, lines };
  }

  /** A newcomer that is ready to be let in. */
  joinReady(called = ''): string {
    const { name } = this.join(1, called);
    this.say(name, { type: 'ready' });
    return name;
  }

  /** A peer comes back to this machine, perhaps from another one, under the name that it had there. */
  resume(name: string, report: Partial<RunReport> = {}): string[] {
    this.#ids.set(name, this.id(name));
    this.#names.set(this.id(name), name);
    const known = [...this.#ids.values()].filter((peerId) => peerId !== this.id(name));
    return this.#step({
      type: 'resumed',
      connection: 100 + this.#ids.size,
      description: descriptionOf(name),
      startWorldSize: 1,
      name: '',
      report: {
        peerId: this.id(name),
        term: 1,
        epoch: 1,
        state: 'member',
        boundary: 1,
        views: [],
        peers: known.map((peerId) => ({ peerId, pair: 0 })),
        failed: [],
        excluded: [],
        ...report,
      },
    });
  }

  say(name: string, message: PeerMessage): string[] {
    return this.#step({ type: 'message', peerId: this.id(name), message });
  }

  boundary(name: string, index: number, minWorldSize = 1, oldest = 1): string[] {
    return this.say(name, { type: 'boundary', index, passed: index - 1, minWorldSize, oldest });
  }

  /** Comes to a boundary; the view that is made there, null where none is. */
  viewAt(name: string, index: number): WireView | null {
    this.boundary(name, index);
    const view = this.#views.get(`${name} ${index}`);
    if (view === undefined) throw new Error(`${name} got no answer at boundary ${index}`);
    return view;
  }

  done(name: string, id: string, epoch: number, spare = 0): string[] {
    return this.say(name, { type: 'done', id, generation: Number(id.split(':')[0]), epoch, spare });
  }

  /** A member has waited for another in the last second, in collectives that could do without it. */
  waits(name: string, on: string, ...calls: Excludable[]): string[] {
    return this.say(name, { type: 'waits', waits: [{ peerId: this.id(on), receiveMs: 900, sendMs: 0, calls }] });
  }

  /** A member has measured its ways to others. */
  links(name: string, rates: Readonly<Record<string, number>>): string[] {
    const links = Object.entries(rates).map(([to, bytesPerSecond]) => ({
      peerId: this.id(to),
      bytesPerSecond,
      delayMs: 1,
    }));
    return this.say(name, { type: 'links', links });
  }

  progress(name: string, epoch: number, ...held: string[]): string[] {
    return this.say(name, {
      type: 'progress',
      epoch,
      held: held.map((id) => ({ id, epoch: 0 })),
      returned: [],
      finished: [],
    });
  }

  linkClosed(name: string, to: string): string[] {
    return this.say(name, { type: 'link-closed', peerId: this.id(to) });
  }

  closed(name: string): string[] {
    return this.#step({ type: 'closed', peerId: this.id(name) });
  }

  /** By an administrator. */
  dismissed(name: string): string[] {
    return this.#step({ type: 'dismissed', peerId: this.id(name) });
  }

  tick(): string[] {
    return this.#step({ type: 'tick' });
  }

  /** Time passes with a tick at each of its steps; the peers named give signs of life before each. */
  pass(ms: number, alive: string, everyMs: number = TICK_MS): string[] {
    const lines: string[] = [];
    for (const end = this.now + ms; this.now < end; ) {
      this.now = Math.min(end, this.now + everyMs);
      for (const name of alive) lines.push(...this.say(name, { type: 'beat' }).filter((line) => !isBeat(line)));
      lines.push(...this.tick());
    }
    return lines;
  }

  snapshot(): CoordinatorSnapshot & { readonly members: readonly string[] } {
    const named = (ids: readonly string[]) => ids.map((peerId) => this.#name(peerId));
    const snapshot = this.machine.snapshot();
    return {
      ...snapshot,
      members: named(snapshot.members),
      warming: named(snapshot.warming),
      ready: named(snapshot.ready),
      ring: named(snapshot.ring),
    };
  }

  id(name: string): string {
    return this.#ids.get(name) ?? name;
  }

  #step(event: CoordinatorEvent): string[] {
    const effects = this.machine.step(event, this.now);
    for (const effect of effects) {
      if (effect.type === 'assign' && !this.#names.has(effect.peerId)) this.#enter(effect.peerId);
      else if (effect.type === 'send' && effect.message.type === 'boundary')
        this.#views.set(`${this.#name(effect.peerId)} ${effect.message.index}`, effect.message.view);
    }
    return effects.flatMap((effect) => this.#write(effect));
  }

  #enter(peerId: string): void {
    const name = String.fromCharCode('a'.charCodeAt(0) + this.#ids.size);
    this.#ids.set(name, peerId);
    this.#names.set(peerId, name);
  }

  #name(peerId: string): string {
    return this.#names.get(peerId) ?? peerId;
  }

  #write(effect: CoordinatorEffect): string[] {
    switch (effect.type) {
      case 'send':
        return [`${this.#name(effect.peerId)} ← ${this.#text(effect.message)}`];
      case 'close':
        return [`${this.#name(effect.peerId)} closed`];
      case 'assign':
      case 'store':
      case 'note':
        return []; // for the server and the log
    }
  }

  #text(message: CoordinatorMessage): string {
    switch (message.type) {
      case 'resumed':
        return 'welcome back';
      case 'welcome':
        return `welcome, meet ${this.#list(message.peers.map((peer) => peer.peerId))}`;
      case 'introduce':
        return `meet ${this.#name(message.peer.peerId)}`;
      case 'dismiss':
        return `forget ${this.#name(message.peerId)}`;
      case 'admitted':
      case 'boundary': {
        const failed = message.failed.map(({ id }) => `, failed ${id}`).join('');
        const without = message.excluded.map(({ id, peers }) => `, ${id} without ${this.#list(peers)}`).join('');
        return `${message.type} ${message.index}: ${this.#view(message.view)}, joined ${this.#list(message.joined)}${failed}${without}`;
      }
      case 'loss': {
        const lost = message.lost.map((one) => `${this.#name(one.peerId)} (${one.reason})`);
        const link = message.broken === null ? [] : [`link ${message.broken.map((one) => this.#name(one)).join('–')}`];
        const back = message.resumed ? ['everything anew'] : [];
        return `loss @${message.epoch}: ${[...lost, ...link, ...back].join(', ')}`;
      }
      case 'decide':
        return `decide @${message.epoch}: ${message.committed.map(({ id }) => id).join(' ') || 'nothing'}`;
      case 'commit':
        return `commit ${message.id} @${message.epoch}`;
      case 'fail':
        return `fail ${message.id}: ${message.code} by ${this.#name(message.peerId)}`;
      case 'evicted':
        return `evicted: ${message.reason}`;
      case 'exclude':
        return `${message.id} without ${this.#list(message.peers)} @${message.epoch}`;
      case 'probe':
        return `probe ${this.#name(message.peerId)}`;
      case 'slow':
        return `${this.#name(message.peerId)} is slow`;
      case 'beat':
        return BEAT;
      case 'challenge':
      case 'refuse':
      case 'signal':
      case 'ice':
      case 'noted':
      case 'flights-asked':
      case 'flight-wanted':
      case 'flight-of':
      case 'watch':
        throw new Error(`that is the server's affair, but the machine sent ${message.type}`);
    }
  }

  #view(view: WireView | null): string {
    if (view === null) return 'unchanged';
    const listOf = (some: WireView['members']) => this.#list(some.map((member) => member.peerId));
    const { generation, epoch, members } = view;
    const ring = [...members].sort((left, right) => left.place - right.place);
    const order = ring.every((member, rank) => member === members[rank]) ? '' : `, ring ${listOf(ring)}`;
    return `generation ${generation} @${epoch} ${listOf(members)}${order}`;
  }

  #list(peerIds: readonly string[]): string {
    return peerIds.map((peerId) => this.#name(peerId)).join('') || 'nobody';
  }
}

const BEAT = 'beat';

function isBeat(line: string): boolean {
  return line.endsWith(`← ${BEAT}`);
}
