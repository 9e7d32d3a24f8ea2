/** Peers with notes and a coordinator's desk, between which a test moves every message by hand. */
import { NotesDesk } from '../../src/engine/notes-desk.ts';
import { Notes } from '../../src/notes/notes.ts';
import type { CoordinatorMessage, NotedMessage } from '../../src/wire/coordinator-messages.ts';
import type { NotesMessage } from '../../src/wire/peer-messages.ts';

export interface Peer {
  readonly id: string;
  readonly notes: Notes;
  /** On their way, each in order; and what was said while there was no connection, which may come with the next one. */
  readonly up: NotesMessage[];
  readonly down: NotedMessage[];
  readonly unsaid: NotesMessage[];
  readonly timers: Set<() => void>;
  connected: boolean;
}

export class Net {
  desk: NotesDesk;
  readonly peers: Peer[];
  readonly refused: string[] = [];
  /** Peers of the run that the coordinator knows; null: it is not sure. */
  known: readonly string[] | null;
  readonly #compactBytes: number | undefined;
  #now = 0;

  constructor(ids: readonly string[], compactBytes?: number) {
    this.#compactBytes = compactBytes;
    this.known = ids;
    this.desk = this.#makeDesk();
    this.peers = ids.map((id) => this.#makePeer(id));
  }

  #makeDesk(): NotesDesk {
    const around = {
      peers: () => this.known,
      send: (peerId: string, message: CoordinatorMessage) => {
        const peer = this.peers.find(({ id }) => id === peerId);
        if (message.type === 'noted' && peer?.connected === true) peer.down.push(message);
      },
      refuse: (peerId: string, reason: string) => void this.refused.push(`${peerId}: ${reason}`),
    };
    return new NotesDesk(around, this.#compactBytes);
  }

  #makePeer(id: string): Peer {
    const timers = new Set<() => void>();
    const notes: Notes = new Notes(id, {
      send: (message) => {
        if (message !== null) (peer.connected ? peer.up : peer.unsaid).push(message);
      },
      schedule: (_, task) => {
        timers.add(task);
        return () => void timers.delete(task);
      },
    });
    const peer: Peer = { id, notes, up: [], down: [], unsaid: [], timers, connected: false };
    return peer;
  }

  connect(peer: Peer, keepsUnsaid = false): void {
    if (peer.connected) return;
    peer.connected = true;
    if (keepsUnsaid) peer.up.push(...peer.unsaid);
    peer.unsaid.length = 0;
    peer.notes.onConnected();
  }

  disconnect(peer: Peer): void {
    peer.connected = false;
    peer.up.length = 0;
    peer.down.length = 0;
    this.desk.left(peer.id);
    peer.notes.onLost();
  }

  /** The coordinator dies, and another one takes its place, which knows nothing. */
  crash(): void {
    for (const peer of this.peers) this.disconnect(peer);
    this.desk = this.#makeDesk();
  }

  /** One message of a peer arrives, and one for it. */
  up(peer: Peer): void {
    this.#now += 100;
    const message = peer.up.shift();
    if (message !== undefined) this.desk.onMessage(peer.id, message, this.#now);
  }

  down(peer: Peer): void {
    const message = peer.down.shift();
    if (message !== undefined) peer.notes.onMessage(message);
  }

  tick(): void {
    this.#now += 25;
    this.desk.tick(this.#now);
  }

  /** A peer's timers are due. */
  due(peer: Peer): void {
    for (const task of peer.timers) {
      peer.timers.delete(task);
      task();
    }
  }

  /** Everybody is connected, and everything arrives. */
  async settle(): Promise<void> {
    for (const peer of this.peers) this.connect(peer);
    for (let quiet = 0; quiet < 3; quiet++) {
      for (const peer of this.peers) {
        this.due(peer);
        while (peer.up.length > 0) {
          this.up(peer);
          quiet = 0;
        }
      }
      for (let ticks = 0; ticks < 50; ticks++) this.tick();
      for (const peer of this.peers) {
        while (peer.down.length > 0) {
          this.down(peer);
          quiet = 0;
        }
      }
      await Promise.resolve();
    }
  }
}
