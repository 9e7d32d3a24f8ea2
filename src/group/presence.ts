/**
 * What this peer knows of the others, as the engine's events tell: the view, how each member is reached, and who is slow. Tells listeners
 * and the observer, in the order in which things happen: the view has changed before they hear of it.
 */
import type { PeerId } from '../collectives/call.ts';
import type { Rank } from '../collectives/program.ts';
import type { PathKind } from '../engine/path-race.ts';
import type { RuntimeEvent } from '../engine/runtime-data.ts';
import type { Observer } from '../observe.ts';

/** A member of the view, as this peer sees it. */
export interface GroupMember {
  readonly peerId: PeerId;
  readonly rank: Rank;
  readonly site: string;
  /**
   * How this peer reaches it: `unix`, `tcp`, `tls` (TCP, encrypted), `webrtc`, or `turn` for WebRTC through a relay server. Null for this peer itself, and
   * for one that was not reached yet: what is for it goes through other members. `status()` tells why better ways failed.
   */
  readonly path: PathKind | null;
}

/** What `group.on` tells of, by name. */
export interface GroupEvents {
  view: { readonly epoch: number; readonly members: readonly GroupMember[] };
  'peer-lost': { readonly peerId: PeerId; readonly reason: string; readonly epoch: number };
  /**
   * The others wait for this member, and it waits for nobody. `waiting`: to receive from it; `blocked`: what they send it does
   * not leave, so that the way between them may be the cause.
   */
  'slow-peer': {
    readonly peerId: PeerId;
    readonly waiting: readonly PeerId[];
    readonly blocked: readonly PeerId[];
    /** The longest wait of the last second, in milliseconds. */
    readonly waitedMs: number;
    readonly epoch: number;
  };
  'coordinator-lost': { readonly reason: string };
  'coordinator-back': Record<string, never>;
  /** Somebody was turned away at this peer's port for TLS: it may be a stranger. Not told more than about once a second. */
  refused: { readonly reason: string };
}

export type Listener<E extends keyof GroupEvents> = (event: GroupEvents[E]) => void;

/** Of the engine's events, those that are about the others. */
type PresenceEvent = Exclude<RuntimeEvent, { type: 'notes' }>;

export class Presence {
  readonly #observer: Observer | null;
  readonly #listeners: { [E in keyof GroupEvents]: Set<Listener<E>> } = {
    view: new Set(),
    'peer-lost': new Set(),
    'slow-peer': new Set(),
    'coordinator-lost': new Set(),
    'coordinator-back': new Set(),
    refused: new Set(),
  };
  #members: readonly GroupMember[] = [];
  /** How the peers known are reached, by id. */
  readonly #paths: Map<PeerId, PathKind> = new Map();
  #epoch = 0;

  constructor(observer: Observer | null) {
    this.#observer = observer;
  }

  get epoch(): number {
    return this.#epoch;
  }

  /** By rank. */
  get members(): readonly GroupMember[] {
    return this.#members;
  }

  on<E extends keyof GroupEvents>(event: E, listener: Listener<E>): void {
    this.#listeners[event].add(listener);
  }

  off<E extends keyof GroupEvents>(event: E, listener: Listener<E>): void {
    this.#listeners[event].delete(listener);
  }

  onEvent(event: PresenceEvent): void {
    switch (event.type) {
      case 'view':
        this.#epoch = event.view.epoch;
        this.#members = event.view.members.map(({ peerId, site }, rank) => ({
          peerId,
          rank,
          site,
          path: this.#paths.get(peerId) ?? null,
        }));
        this.#observer?.note({
          type: 'view',
          epoch: this.#epoch,
          members: this.#members.map(({ peerId, rank }) => ({ peerId, rank })),
        });
        this.#emit('view', { epoch: this.#epoch, members: this.#members });
        break;
      case 'peer-lost':
        this.#paths.delete(event.peerId);
        this.#observer?.note({ type: 'peer-lost', peer: event.peerId, reason: event.reason, epoch: event.epoch });
        this.#emit('peer-lost', { peerId: event.peerId, reason: event.reason, epoch: event.epoch });
        break;
      case 'slow-peer': {
        const detail = { ...event.slow, epoch: event.epoch };
        this.#observer?.note({ type: 'slow-peer', peer: detail.peerId, waitedMs: detail.waitedMs });
        this.#emit('slow-peer', detail);
        break;
      }
      case 'path':
        if (event.path === null) this.#paths.delete(event.peerId);
        else this.#paths.set(event.peerId, event.path);
        this.#members = this.#members.map((one) => (one.peerId === event.peerId ? { ...one, path: event.path } : one));
        break;
      case 'coordinator-lost':
        this.#observer?.note({ type: 'coordinator-lost' });
        this.#emit('coordinator-lost', { reason: event.reason });
        break;
      case 'coordinator-back':
        this.#observer?.note({ type: 'coordinator-back' });
        this.#emit('coordinator-back', {});
        break;
      case 'refused':
        this.#emit('refused', { reason: event.reason });
        break;
      case 'evicted':
        this.#observer?.note({ type: 'evicted', reason: event.reason });
        break; // told by the EvictedError of every open and later call
      default:
        event satisfies never;
    }
  }

  #emit<E extends keyof GroupEvents>(event: E, detail: GroupEvents[E]): void {
    for (const listener of this.#listeners[event]) listener(detail);
  }
}
