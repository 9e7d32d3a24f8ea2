/** Control messages that are longer than a frame. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { COORDINATOR_MESSAGES, type CoordinatorMessage } from '../../src/wire/coordinator-messages.ts';
import { MAX_CONTROL_BYTES, MAX_HANDSHAKE_BYTES, MAX_WORLD_SIZE } from '../../src/wire/limits.ts';
import { CONTROL_HEADER_BYTES, type Control, ControlReader, encodeControl } from '../../src/wire/messages.ts';
import {
  LONG_FROM_COORDINATOR,
  LONG_FROM_PEERS,
  PAGE_BYTES,
  PAGE_HEADER_BYTES,
  PageGatherer,
  pagesOf,
} from '../../src/wire/pages.ts';
import { PEER_MESSAGES } from '../../src/wire/peer-messages.ts';
import { concat, pieceLengths, pushInPieces } from './cut.ts';
import { COORDINATOR_EXAMPLES, PEER_EXAMPLES } from './examples.ts';

type Decide = Extract<CoordinatorMessage, { type: 'decide' }>;

/** Of about so many bytes. */
function decide(bytes: number): Decide {
  const committed = Array.from({ length: Math.ceil(bytes / 215) }, (_, index) => ({
    id: `1:${'x'.repeat(190)}:${index}`,
    epoch: index,
  }));
  return { type: 'decide', epoch: 1, committed, kept: [] };
}

/** The frames that a stream consists of, if it is whole. */
function framesOf(stream: Uint8Array): Uint8Array[] {
  const frames: Uint8Array[] = [];
  for (let at = 0; at < stream.length; ) {
    const length = new DataView(stream.buffer, stream.byteOffset + at).getUint32(0, true) & 0xff_ffff;
    frames.push(stream.slice(at, at + CONTROL_HEADER_BYTES + length));
    at += CONTROL_HEADER_BYTES + length;
  }
  return frames;
}

function read(stream: Uint8Array, lengths: readonly number[] = [stream.length], limit: number = MAX_CONTROL_BYTES) {
  const reader = new ControlReader(COORDINATOR_MESSAGES, limit);
  const controls: Control<CoordinatorMessage>[] = [];
  const error = pushInPieces(stream, lengths, (piece) => reader.push(piece, (control) => controls.push(control) > 0));
  return { controls, error };
}

const LONG: Decide = decide(4 * MAX_CONTROL_BYTES);
const PAGES: readonly Uint8Array[] = framesOf(encodeControl(LONG, 3, 9));

/** One of the pages, with other words in its headers. */
function changed(page: Uint8Array, offset: number, value: number): Uint8Array {
  const bytes = page.slice();
  new DataView(bytes.buffer).setUint32(offset, value, true);
  return bytes;
}

describe('a message longer than a frame', () => {
  test('comes back as it was sent, between others, however the stream is split, in frames of bounded size', () => {
    const sizes = fc.array(fc.integer({ min: 1, max: 8 * MAX_CONTROL_BYTES }), { minLength: 1, maxLength: 3 });
    fc.assert(
      fc.property(sizes, fc.nat(0xffff_ffff), pieceLengths, (bytes, epoch, lengths) => {
        const messages = bytes.flatMap((size) => [decide(size), COORDINATOR_EXAMPLES.commit]);
        const stream = concat(messages.map((message) => encodeControl(message, 1, epoch)));
        for (const frame of framesOf(stream))
          expect(frame.length).toBeLessThanOrEqual(CONTROL_HEADER_BYTES + MAX_CONTROL_BYTES);
        // One byte at a time, a megabyte takes too long.
        const coarse = lengths.map((length) => length * 997);
        expect(read(stream, coarse)).toEqual({
          controls: messages.map((message) => ({ term: 1, epoch, message })),
          error: null,
        });
      }),
      { numRuns: 30 },
    );
  });

  test('is not acted on before its last page is there, and leaves nothing behind when the stream ends', () => {
    expect(PAGES.length).toBeGreaterThan(3);
    for (let count = 1; count < PAGES.length; count++)
      expect(read(concat(PAGES.slice(0, count)))).toEqual({ controls: [], error: null });
    expect(read(concat(PAGES)).controls).toHaveLength(1);
  });

  test('is refused when its pages are not those of one message, in their order', () => {
    const other = framesOf(encodeControl(LONG, 3, 10));
    const [first, second, third, ...rest] = PAGES as [Uint8Array, Uint8Array, Uint8Array, ...Uint8Array[]];
    const wrong: Record<string, readonly Uint8Array[]> = {
      'one is missing': [first, third, ...rest],
      'one came twice': [first, second, second, third, ...rest],
      'two changed places': [first, third, second, ...rest],
      'another epoch': [first, other[1]!],
      'another term': [first, changed(second, 4, 4)],
      'another kind': [first, changed(second, 0, (66 << 24) | (PAGE_BYTES + PAGE_HEADER_BYTES))],
      'more is to come than was': [first, changed(second, CONTROL_HEADER_BYTES, 0xffff_ffff)],
    };
    for (const [name, pages] of Object.entries(wrong))
      expect(read(concat(pages)), name).toEqual({
        controls: [],
        error: 'a control message has pages that do not go together',
      });
    const between = concat([first, encodeControl(COORDINATOR_EXAMPLES.commit, 3, 9), second, third, ...rest]);
    expect(read(between)).toEqual({ controls: [], error: 'a control message came between the pages of another' });
  });

  test('is refused by its first page when the whole is too long, or so short that it needs none', () => {
    const [first] = PAGES;
    const { limit } = LONG_FROM_COORDINATOR.find(({ type }) => type === 'decide')!;
    const long = read(changed(first!, CONTROL_HEADER_BYTES, limit - PAGE_BYTES + 1));
    expect(long.error).toBe(`a control message decide of ${limit + 1} bytes is longer than the limit of ${limit}`);
    expect(read(changed(first!, CONTROL_HEADER_BYTES, limit - PAGE_BYTES)).error).toBeNull();
    expect(read(changed(first!, CONTROL_HEADER_BYTES, 0)).error).toMatch(/came in pages$/);
  });

  test('is refused when it is of a kind that may not be long, or that the other end does not send', () => {
    const boundary = { ...PEER_EXAMPLES.mismatch, mine: 'x'.repeat(MAX_CONTROL_BYTES) };
    const reader = new ControlReader(PEER_MESSAGES, MAX_CONTROL_BYTES);
    expect(reader.push(encodeControl(boundary, 1, 1), () => true)).toMatch(/longer than the limit of 65536$/);
    const foreign = new ControlReader(PEER_MESSAGES, MAX_CONTROL_BYTES).push(PAGES[0]!, () => true);
    expect(foreign).toBe('a control message has pages of kind 69, which is none');
    // What says that it is one kind, and is another.
    const { kind } = LONG_FROM_COORDINATOR.find(({ type }) => type === 'boundary')!;
    const disguised = PAGES.map((page) => changed(page, 0, kind * 2 ** 24 + (page.length - CONTROL_HEADER_BYTES)));
    expect(read(concat(disguised)).error).toBe('a control message came in pages of boundary, and is none');
  });

  test('is not taken from who has not shown who it is', () => {
    expect(read(PAGES[0]!, undefined, MAX_HANDSHAKE_BYTES).error).toMatch(/longer than the limit of 4096$/);
  });

  test('whatever comes, no more is kept of it than its kind allows, and nothing after an error', () => {
    const allowed = [...LONG_FROM_PEERS.map((long) => ({ ...long, limit: 3 * PAGE_BYTES }))];
    const mark = fc.record({
      kind: fc.integer({ min: 1, max: 4 }),
      term: fc.constant(1),
      epoch: fc.integer({ min: 1, max: 2 }),
    });
    const page = fc.tuple(
      fc.oneof({ weight: 4, arbitrary: fc.constant(PAGE_BYTES) }, fc.nat(PAGE_BYTES)),
      fc.oneof({ weight: 4, arbitrary: fc.nat(4).map((count) => count * PAGE_BYTES) }, fc.nat(0xffff_ffff)),
    );
    fc.assert(
      fc.property(fc.array(fc.tuple(mark, page), { maxLength: 20 }), (pages) => {
        const gatherer = new PageGatherer(allowed);
        for (const [about, [length, left]] of pages) {
          const bytes = new Uint8Array(PAGE_HEADER_BYTES + length);
          new DataView(bytes.buffer).setUint32(0, left, true);
          const result = gatherer.push(about, bytes);
          expect(gatherer.keptBytes).toBeLessThanOrEqual(3 * PAGE_BYTES);
          if (result !== null) expect([gatherer.keptBytes, gatherer.isWaiting]).toEqual([0, false]);
        }
      }),
    );
  });

  test('every byte of it counts: a damaged stream gives the message as it was, or an error, or nothing', () => {
    const stream = concat(PAGES);
    fc.assert(
      fc.property(
        fc.nat(PAGES.length - 1),
        fc.nat(CONTROL_HEADER_BYTES + PAGE_HEADER_BYTES - 1),
        fc.integer({ min: 1, max: 255 }),
        (which, offset, difference) => {
          const at = PAGES.slice(0, which).reduce((bytes, { length }) => bytes + length, 0) + offset;
          const bytes = stream.slice();
          bytes[at]! ^= difference;
          const { controls, error } = read(bytes);
          expect(controls).toEqual([]);
          if (error === null) expect(offset).toBeLessThan(4); // it waits for more
        },
      ),
    );
  });
});

test('parts and what is left add up to the whole', () => {
  fc.assert(
    fc.property(fc.integer({ min: MAX_CONTROL_BYTES + 1, max: 5 * MAX_CONTROL_BYTES }), (bytes) => {
      const pages = [...pagesOf(new Uint8Array(bytes))];
      let left = bytes;
      for (const [index, page] of pages.entries()) {
        left -= page.part.length;
        expect(page.left).toBe(left);
        expect(page.part.length === PAGE_BYTES || index === pages.length - 1).toBe(true);
      }
      expect(left).toBe(0);
    }),
  );
});

test('a welcome to the largest run, with the longest description of every peer, is within its limit', () => {
  // A description comes in a message of the handshake.
  const address = { kind: 'tcp' as const, host: 'h'.repeat(200), port: 65_535 };
  const one = { peerId: 'p1023-ffffffff', pair: 0xffff_ffff, key: new Uint8Array(32), hostKey: 'k'.repeat(256) };
  const peers = new Array(MAX_WORLD_SIZE).fill({
    ...one,
    site: 's'.repeat(256),
    addresses: new Array(14).fill(address),
    cores: 65_536,
  });
  const { length } = encodeControl({ ...COORDINATOR_EXAMPLES.welcome, peers }, 1, 1);
  expect(length).toBeGreaterThan(MAX_WORLD_SIZE * 3_500);
  expect(length).toBeLessThan(LONG_FROM_COORDINATOR.find(({ type }) => type === 'welcome')!.limit);
});
