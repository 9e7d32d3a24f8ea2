/**
 * What a bad path does to IPv4 packets: it delays, overtakes and damages them. A state machine that takes packets and times
 * and gives packets back; chance comes from a seed. The relay's process (`relay-main.ts`) carries it out.
 */
import { Draw } from './draw.ts';

/** What happens to every packet from and to one address. */
export interface Disturbance {
  readonly delayMs: number;
  /** The delay swings by so much either way, once a second, as behind a queue that fills and empties. */
  readonly jitterMs: number;
  /** So many of a hundred packets leave at once, and overtake those that wait. */
  readonly overtakePercent: number;
  readonly corruptPercent: number;
}

export interface PacketCounts {
  passed: number;
  overtook: number;
  corrupted: number;
  /** Beyond what waits at most. */
  dropped: number;
}

/** Packets that wait at most, all together: 100 ms of 1 Gbit/s. A real path drops what comes then, and so do we. */
const MOST_WAITING = 10_000;

const SWING_MS = 1_000;

const IPV4 = 4;
const SHORTEST_HEADER_BYTES = 20;
const SOURCE_AT = 12;
const DESTINATION_AT = 16;

interface Waiting {
  readonly packet: Buffer;
  readonly at: number;
}

export class DisturbedPath {
  readonly counts: PacketCounts = { passed: 0, overtook: 0, corrupted: 0, dropped: 0 };
  readonly #draw: Draw;
  readonly #disturbed: Map<number, Disturbance> = new Map();
  /** In the order in which they leave. */
  readonly #waiting: Waiting[] = [];
  /** When the last packet of a flow leaves that keeps its order; by source and destination. */
  readonly #lastAt: Map<string, number> = new Map();

  constructor(seed: number) {
    this.#draw = new Draw(seed);
  }

  /** @param address as a 32-bit number, in network order */
  disturb(address: number, how: Disturbance | null): void {
    if (how === null) this.#disturbed.delete(address);
    else this.#disturbed.set(address, how);
  }

  /** When `departures` has something to give; null when nothing waits. */
  get nextAt(): number | null {
    return this.#waiting[0]?.at ?? null;
  }

  /** Takes a packet, which it may change and keep. What is not IPv4 gets lost. */
  arrive(packet: Buffer, now: number): void {
    if (packet.length < SHORTEST_HEADER_BYTES || packet[0]! >> 4 !== IPV4) return;
    if (this.#waiting.length >= MOST_WAITING) {
      this.counts.dropped++;
      return;
    }
    this.counts.passed++;
    const ends = [packet.readUInt32BE(SOURCE_AT), packet.readUInt32BE(DESTINATION_AT)] as const;
    let delayMs = 0;
    let overtakes = false;
    for (const end of ends) {
      const how = this.#disturbed.get(end);
      if (how === undefined) continue;
      delayMs += how.delayMs + how.jitterMs * Math.sin((now / SWING_MS) * 2 * Math.PI);
      overtakes ||= this.#draw.next() * 100 < how.overtakePercent;
      if (this.#draw.next() * 100 < how.corruptPercent) this.#corrupt(packet);
    }
    if (overtakes) {
      this.counts.overtook++;
      this.#wait({ packet, at: now });
      return;
    }
    const flow = ends.join();
    const at = Math.max(now + delayMs, this.#lastAt.get(flow) ?? 0);
    this.#lastAt.set(flow, at);
    this.#wait({ packet, at });
  }

  /** The packets that leave by now, in order. */
  departures(now: number): readonly Buffer[] {
    let count = 0;
    while (count < this.#waiting.length && this.#waiting[count]!.at <= now) count++;
    return this.#waiting.splice(0, count).map(({ packet }) => packet);
  }

  #wait(one: Waiting): void {
    // Nearly all belong at the end.
    let place = this.#waiting.length;
    while (place > 0 && this.#waiting[place - 1]!.at > one.at) place--;
    this.#waiting.splice(place, 0, one);
  }

  /**
   * Flips bits within one aligned 16-bit word. The checksums of IP and TCP are sums of such words modulo 65,535, so a change of
   * one word always shows, unless 0x0000 becomes 0xffff or the reverse, for which all sixteen would have to flip. Damage
   * of several words would pass one time in 65,536, and be a wrong number that no library could notice. The first word is spared:
   * a TUN device takes nothing that is not of some version of IP.
   */
  #corrupt(packet: Buffer): void {
    const at = 2 * (1 + this.#draw.below((packet.length >> 1) - 1));
    const flipped = 1 + this.#draw.below(0xfffe);
    packet.writeUInt16BE(packet.readUInt16BE(at) ^ flipped, at);
    this.counts.corrupted++;
  }
}
