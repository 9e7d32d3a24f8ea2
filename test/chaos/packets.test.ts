/** What the relay does to packets, without a network: times and chance come from the test. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { type Disturbance, DisturbedPath } from '../../src/chaos/packets.ts';

const [VICTIM, OTHER, THIRD] = [0x0a53000a, 0x0a53000b, 0x0a53000c];
const TCP = 6;
const HEADERS_BYTES = 40;

const CALM: Disturbance = { delayMs: 0, jitterMs: 0, overtakePercent: 0, corruptPercent: 0 };

/** The Internet checksum (RFC 1071) over what is given: 0 when the data holds its own checksum and is intact. */
function checksum(...parts: readonly Buffer[]): number {
  let sum = 0;
  for (const part of parts)
    for (let at = 0; at < part.length; at += 2)
      sum += at + 1 < part.length ? part.readUInt16BE(at) : part.readUInt8(at) << 8;
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}

/** What TCP's checksum covers besides the segment. */
function pseudoHeader(packet: Buffer): Buffer {
  const header = Buffer.alloc(12);
  packet.copy(header, 0, 12, 20);
  header[9] = TCP;
  header.writeUInt16BE(packet.length - 20, 10);
  return header;
}

function isIntact(packet: Buffer): boolean {
  const segment = packet.subarray(20);
  return checksum(packet.subarray(0, 20)) === 0 && checksum(pseudoHeader(packet), segment) === 0;
}

/** A TCP segment in an IPv4 packet, with right checksums. */
function packetOf(payload: Uint8Array, from = VICTIM, to = OTHER): Buffer {
  const packet = Buffer.alloc(HEADERS_BYTES + payload.length);
  packet[0] = 0x45;
  packet.writeUInt16BE(packet.length, 2);
  packet[8] = 64;
  packet[9] = TCP;
  packet.writeUInt32BE(from, 12);
  packet.writeUInt32BE(to, 16);
  packet[32] = 0x50;
  packet.set(payload, HEADERS_BYTES);
  packet.writeUInt16BE(checksum(packet.subarray(0, 20)), 10);
  packet.writeUInt16BE(checksum(pseudoHeader(packet), packet.subarray(20)), 36);
  return packet;
}

function numbered(number: number, from = VICTIM, to = OTHER): Buffer {
  const payload = Buffer.alloc(4);
  payload.writeUInt32BE(number);
  return packetOf(payload, from, to);
}

const numberOf = (packet: Buffer) => packet.readUInt32BE(HEADERS_BYTES);

describe('a disturbed path', () => {
  test('damages packets so that a checksum always shows it', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 1_460 }), fc.nat({ max: 2 ** 31 - 1 }), (payload, seed) => {
        const path = new DisturbedPath(seed);
        path.disturb(VICTIM, { ...CALM, corruptPercent: 100 });
        expect(isIntact(packetOf(payload))).toBe(true);
        path.arrive(packetOf(payload), 0);
        const [damaged] = path.departures(0);
        expect(isIntact(damaged!)).toBe(false);
        expect(damaged).toHaveLength(HEADERS_BYTES + payload.length);
        expect(damaged![0]).toBe(0x45);
      }),
      { numRuns: 2_000 },
    );
  });

  test('delays what its victim sends and receives, and keeps the order of each flow while the delay swings', () => {
    const path = new DisturbedPath(1);
    path.disturb(VICTIM, { ...CALM, delayMs: 30, jitterMs: 20 });
    for (let at = 0; at < 2_000; at++) path.arrive(numbered(at, ...(at % 2 === 0 ? [VICTIM] : [OTHER, VICTIM])), at);
    const delays: number[] = [];
    const seen: [number[], number[]] = [[], []];
    for (let now = path.nextAt; now !== null; now = path.nextAt)
      for (const packet of path.departures(now)) {
        const number = numberOf(packet);
        delays.push(now - number);
        seen[number % 2]!.push(number);
      }
    expect(delays).toHaveLength(2_000);
    expect(Math.min(...delays)).toBeCloseTo(10, 0);
    expect(Math.max(...delays)).toBeCloseTo(50, 0);
    for (const numbers of seen) expect(numbers).toEqual([...numbers].sort((left, right) => left - right));
  });

  test('lets some packets overtake the others', () => {
    const path = new DisturbedPath(2);
    path.disturb(VICTIM, { ...CALM, delayMs: 10, overtakePercent: 25 });
    for (let number = 0; number < 1_000; number++) path.arrive(numbered(number), 0);
    const first = path.departures(0);
    expect(first).toHaveLength(path.counts.overtook);
    expect(first.length).toBeGreaterThan(200);
    expect(first.length).toBeLessThan(300);
    expect(path.departures(9)).toHaveLength(0);
    expect(path.departures(10)).toHaveLength(1_000 - first.length);
  });

  test('leaves others alone, is calm again when told so, and adds up what happens at both ends', () => {
    const path = new DisturbedPath(3);
    path.disturb(VICTIM, { ...CALM, delayMs: 10 });
    path.disturb(THIRD, { ...CALM, delayMs: 5 });
    path.arrive(numbered(1, OTHER, OTHER + 9), 0);
    expect(path.departures(0)).toHaveLength(1);
    path.arrive(numbered(2, VICTIM, THIRD), 0);
    expect(path.nextAt).toBe(15);
    expect(path.departures(15)).toHaveLength(1);
    path.disturb(VICTIM, null);
    path.arrive(numbered(3, VICTIM, OTHER), 20);
    expect(path.departures(20)).toHaveLength(1);
  });

  test('keeps no more than a bounded number of packets, and drops what is not IPv4', () => {
    const path = new DisturbedPath(4);
    path.disturb(VICTIM, { ...CALM, delayMs: 1_000 });
    for (let number = 0; number < 20_000; number++) path.arrive(numbered(number), 0);
    expect(path.counts.passed + path.counts.dropped).toBe(20_000);
    expect(path.departures(1_000)).toHaveLength(10_000);
    path.arrive(Buffer.alloc(60, 0x60), 2_000);
    path.arrive(Buffer.from([0x45]), 2_000);
    expect(path.nextAt).toBeNull();
  });
});
