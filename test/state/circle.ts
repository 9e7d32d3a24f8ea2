/** State services of several peers, joined by links in virtual time: what one sends another gets later, unless it is lost. */

import type { EntryShape } from '../../src/state/layout.ts';
import { StateService } from '../../src/state/service.ts';
import { VirtualClock } from '../../src/transport/clock.ts';
import { emptyHeader, FRAME_ANSWER, FRAME_ASK, readHeader } from '../../src/wire/frame.ts';

const LATENCY_MS = 1;
/** 1 GB/s. */
const BYTES_PER_MS = 1_000_000;

export interface Peer {
  readonly id: string;
  readonly service: StateService;
  readonly memory: Uint8Array[];
  /** Bytes that it has sent, and what is on the way from it at most. */
  sent: number;
  onTheWay: number;
  mostOnTheWay: number;
  isDead: boolean;
  isResting: boolean;
  /** What it sends vanishes, and no link tells so. */
  isMute: boolean;
  /** What becomes of what it sends. */
  forge: (body: Uint8Array) => Uint8Array;
  /** What others have found wrong with it. */
  readonly faults: string[];
}

export class Circle {
  readonly clock: VirtualClock = new VirtualClock();
  readonly peers: Map<string, Peer> = new Map();

  async add(id: string): Promise<Peer> {
    const service = await StateService.open({
      now: () => this.clock.now(),
      schedule: (delayMs, task) => this.clock.schedule(delayMs, task),
      isUp: (to) => !peer.isDead && this.peers.get(to)?.isDead === false,
      sharesHost: () => true,
      send: (to, head, body, onFlushed) => this.#send(peer, to, head, body, onFlushed),
      isResting: () => peer.isResting,
      takeBuffer: (byteLength) => new Uint8Array(byteLength),
      giveBuffer: () => {},
    });
    const counts = { sent: 0, onTheWay: 0, mostOnTheWay: 0, isDead: false, isResting: false, isMute: false };
    const peer: Peer = { id, service, memory: [], ...counts, forge: (body) => body, faults: [] };
    this.peers.set(id, peer);
    return peer;
  }

  /** Gives a peer a state, whose every entry is filled by `fill(entry, index of 32 bits)`. */
  attach(
    peer: Peer,
    shapes: readonly EntryShape[],
    revision: number,
    fill: (entry: number, at: number) => number,
  ): void {
    peer.memory.splice(0);
    for (const [entry, { bytes }] of shapes.entries()) {
      const words = new Uint32Array(bytes / 4);
      for (let at = 0; at < words.length; at++) words[at] = fill(entry, at);
      peer.memory.push(new Uint8Array(words.buffer));
    }
    peer.service.attach({ tag: '', shapes, memory: peer.memory, revision });
  }

  #send(from: Peer, to: string, head: Uint8Array, body: Uint8Array | null, onFlushed: (() => void) | null): void {
    const bytes = body?.slice() ?? null;
    const length = body?.length ?? 0;
    from.sent += length;
    from.onTheWay += length;
    from.mostOnTheWay = Math.max(from.mostOnTheWay, from.onTheWay);
    this.clock.schedule(LATENCY_MS + from.onTheWay / BYTES_PER_MS, () => {
      from.onTheWay -= length;
      onFlushed?.();
      const target = this.peers.get(to);
      if (from.isDead || from.isMute || target === undefined || target.isDead) return;
      this.deliver(from, target, head, bytes === null ? null : from.forge(bytes));
    });
  }

  /** As a link hands on what has come. */
  deliver(from: Peer, to: Peer, head: Uint8Array, body: Uint8Array | null): void {
    const header = emptyHeader();
    const wrong = readHeader(new DataView(head.buffer, head.byteOffset), 0, header);
    if (wrong !== null) throw new Error(wrong);
    if (header.type === FRAME_ASK) {
      const fault = to.service.onAsk(from.id, header);
      if (fault !== null) from.faults.push(fault);
    } else if (header.type === FRAME_ANSWER) {
      const memory = to.service.openAnswer(from.id, header);
      if (typeof memory === 'string') from.faults.push(memory);
      else {
        if (memory !== null && body !== null) memory.set(body);
        to.service.endAnswer(from.id, header, memory);
      }
    }
  }

  kill(peer: Peer): void {
    peer.isDead = true;
    for (const other of this.peers.values()) other.service.onLinkLost(peer.id);
  }

  /** Lets time pass until a promise has settled. */
  async drive<T>(promise: Promise<T>): Promise<T> {
    let isOver = false;
    const over = () => {
      isOver = true;
    };
    promise.then(over, over);
    for (let turns = 0; !isOver; turns++) {
      await new Promise<void>((resolve) => void Promise.resolve().then(() => process.nextTick(resolve)));
      if (!isOver && !this.clock.step()) throw new Error('nothing is under way, and yet not everything has ended');
      if (turns > 1_000_000) throw new Error('no end');
    }
    return promise;
  }
}
