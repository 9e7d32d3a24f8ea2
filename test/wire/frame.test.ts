import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  emptyHeader,
  FRAME_DATA,
  FRAME_OPEN,
  type FrameHeader,
  FrameReader,
  type FrameSink,
  HEADER_BYTES,
  hashTag,
  readHeader,
  writeHeader,
} from '../../src/wire/frame.ts';
import { MAX_OPEN_BYTES, MAX_SEGMENT_BYTES } from '../../src/wire/limits.ts';
import { concat, pieceLengths, pushInPieces } from './cut.ts';

const U32_MAX = 0xffff_ffff;

/** Longest piece that may come out of the carry: one element's worth of alignment. */
const ALIGNMENT = 16;

interface Frame {
  readonly header: FrameHeader;
  readonly payload: Uint8Array;
}

interface Piece {
  readonly bytes: Uint8Array;
  readonly start: number;
  readonly end: number;
}

/** Writes down what it is given, and copies what is only lent. */
class Recorder implements FrameSink {
  readonly frames: Frame[] = [];
  readonly pieces: Piece[] = [];
  readonly calls: string[] = [];
  readonly #failing: string | null;
  #header: FrameHeader | null = null;
  #parts: Uint8Array[] = [];

  /** @param failing the method that finds something wrong */
  constructor(failing: keyof FrameSink | null = null) {
    this.#failing = failing;
  }

  onFrame(header: FrameHeader): string | null {
    expect(this.#header, 'frames do not overlap').toBeNull();
    this.#header = { ...header };
    return this.#note('onFrame');
  }

  onPayload(bytes: Uint8Array, start: number, end: number): string | null {
    expect(this.#header).not.toBeNull();
    expect(end).toBeGreaterThan(start);
    this.pieces.push({ bytes, start, end });
    this.#parts.push(bytes.slice(start, end));
    return this.#note('onPayload');
  }

  onFrameEnd(): string | null {
    const lengths = this.#parts.map((part) => part.length);
    expect(lengths.slice(0, -1).filter((length) => length % ALIGNMENT !== 0)).toEqual([]);
    this.frames.push({ header: this.#header!, payload: concat(this.#parts) });
    this.#header = null;
    this.#parts = [];
    return this.#note('onFrameEnd');
  }

  #note(method: keyof FrameSink): string | null {
    this.calls.push(method);
    return method === this.#failing ? 'enough' : null;
  }
}

function encode({ header, payload }: Frame): Uint8Array {
  const bytes = new Uint8Array(HEADER_BYTES + payload.length);
  writeHeader(new DataView(bytes.buffer), 0, header);
  bytes.set(payload, HEADER_BYTES);
  return bytes;
}

/** Bytes that show when they are swapped, doubled or dropped. */
function payloadOf(length: number, seed: number): Uint8Array {
  return Uint8Array.from({ length }, (_, index) => (index * 7 + (index >>> 8) * 13 + seed) & 0xff);
}

function dataFrame(length: number, seed = 0): Frame {
  return { header: { ...emptyHeader(), type: FRAME_DATA, segment: seed, length }, payload: payloadOf(length, seed) };
}

const u32 = fc.oneof(fc.integer({ min: 0, max: U32_MAX }), fc.constantFrom(0, 1, U32_MAX));
const tag = fc.oneof(fc.maxSafeNat(), fc.constantFrom(0, U32_MAX, U32_MAX + 1, Number.MAX_SAFE_INTEGER));

function headers(type: number, length: fc.Arbitrary<number>): fc.Arbitrary<FrameHeader> {
  return fc.record({
    type: fc.constant(type),
    epoch: u32,
    generation: u32,
    tag,
    sequence: u32,
    chunk: u32,
    segment: u32,
    length,
  });
}

/** Lengths about the alignment and the header's length matter most. */
const smallLength = fc.oneof(fc.integer({ min: 0, max: 4 * ALIGNMENT }), fc.integer({ min: 0, max: MAX_OPEN_BYTES }));
const frame: fc.Arbitrary<Frame> = fc
  .tuple(
    fc.oneof(
      headers(FRAME_OPEN, smallLength),
      headers(FRAME_DATA, fc.oneof({ weight: 4, arbitrary: smallLength }, fc.integer({ min: 0, max: 20_000 }))),
    ),
    fc.nat(255),
  )
  .map(([header, seed]) => ({ header, payload: payloadOf(header.length, seed) }));

describe('frame reader', () => {
  test('gives the same frames however the stream is split', () => {
    fc.assert(
      fc.property(fc.array(frame, { minLength: 1, maxLength: 6 }), pieceLengths, (frames, lengths) => {
        const recorder = new Recorder();
        const reader = new FrameReader(recorder, new Uint8Array(HEADER_BYTES));
        expect(pushInPieces(concat(frames.map(encode)), lengths, (piece) => reader.push(piece))).toBeNull();
        expect(recorder.frames).toEqual(frames);
      }),
    );
  });

  test('takes the largest segment', () => {
    const large = dataFrame(MAX_SEGMENT_BYTES);
    const recorder = new Recorder();
    const reader = new FrameReader(recorder, new Uint8Array(64));
    expect(pushInPieces(encode(large), [65_536 - 5], (piece) => reader.push(piece))).toBeNull();
    expect(recorder.frames.length).toBe(1);
    // Byte by byte `toEqual` would take a second.
    expect(Buffer.compare(recorder.frames[0]!.payload, large.payload)).toBe(0);
  });

  test('splits at every single place of a short stream', () => {
    const frames = [dataFrame(0, 1), dataFrame(1, 2), dataFrame(ALIGNMENT, 3), dataFrame(2 * ALIGNMENT + 3, 4)];
    const stream = concat(frames.map(encode));
    for (let cut = 1; cut < stream.length; cut++) {
      const recorder = new Recorder();
      const reader = new FrameReader(recorder, new Uint8Array(HEADER_BYTES));
      expect(pushInPieces(stream, [cut, stream.length], (piece) => reader.push(piece))).toBeNull();
      expect(recorder.frames).toEqual(frames);
    }
  });

  test('copies nothing but what was cut: payloads are windows on what was pushed', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 500 }), pieceLengths, (length, lengths) => {
        const recorder = new Recorder();
        const carry = new Uint8Array(64);
        const reader = new FrameReader(recorder, carry);
        const pushed = new Set<Uint8Array>();
        pushInPieces(encode(dataFrame(length)), lengths, (piece) => {
          pushed.add(piece);
          return reader.push(piece);
        });
        for (const { bytes, start, end } of recorder.pieces) {
          if (bytes === carry) expect({ start, fits: end <= ALIGNMENT }).toEqual({ start: 0, fits: true });
          else expect(pushed.has(bytes)).toBe(true);
        }
        // What is cut once is carried once: at most one element for each piece that came.
        const carried = recorder.pieces.filter((piece) => piece.bytes === carry).length;
        expect(carried).toBeLessThanOrEqual(pushed.size);
      }),
    );
  });

  test('an unbroken frame needs no carry', () => {
    const recorder = new Recorder();
    const carry = new Uint8Array(64);
    const stream = encode(dataFrame(1_000));
    expect(new FrameReader(recorder, carry).push(stream)).toBeNull();
    expect(recorder.pieces).toEqual([{ bytes: stream, start: HEADER_BYTES, end: HEADER_BYTES + 1_000 }]);
  });

  test('uses the carry it was given, wherever that lies in its memory', () => {
    const memory = new Uint8Array(200).fill(0xaa);
    const recorder = new Recorder();
    const reader = new FrameReader(recorder, memory.subarray(70, 70 + HEADER_BYTES));
    const frames = [dataFrame(50, 1), dataFrame(0, 2)];
    expect(pushInPieces(concat(frames.map(encode)), [1], (piece) => reader.push(piece))).toBeNull();
    expect(recorder.frames).toEqual(frames);
    expect(memory.filter((byte, at) => byte !== 0xaa && (at < 70 || at >= 70 + HEADER_BYTES))).toEqual(
      new Uint8Array(0),
    );
  });

  const broken: Record<string, (view: DataView) => void> = {
    'these bytes are not a Skein frame': (view) => view.setUint8(0, 0x5f),
    'frame type 0 is unknown': (view) => view.setUint8(1, 0),
    'frame type 12 is unknown': (view) => view.setUint8(1, 12),
    'frame type 255 is unknown': (view) => view.setUint8(1, 255),
    'the reserved field of a frame is not zero': (view) => view.setUint32(36, 1, true),
    [`a frame of ${MAX_SEGMENT_BYTES + 1} bytes is longer than the limit of ${MAX_SEGMENT_BYTES}`]: (view) =>
      view.setUint32(32, MAX_SEGMENT_BYTES + 1, true),
    [`a frame of ${U32_MAX} bytes is longer than the limit of ${MAX_SEGMENT_BYTES}`]: (view) =>
      view.setUint32(32, U32_MAX, true),
    [`a frame of ${MAX_OPEN_BYTES + 1} bytes is longer than the limit of ${MAX_OPEN_BYTES}`]: (view) => {
      view.setUint8(1, FRAME_OPEN);
      view.setUint32(32, MAX_OPEN_BYTES + 1, true);
    },
  };

  test.each(Object.entries(broken))('refuses before anything is delivered: %s', (message, breakHeader) => {
    const good = dataFrame(20, 1);
    const bad = encode(dataFrame(20, 2));
    breakHeader(new DataView(bad.buffer));
    for (const lengths of [[1], [7, 30], [1_000]]) {
      const recorder = new Recorder();
      const reader = new FrameReader(recorder, new Uint8Array(HEADER_BYTES));
      const stream = concat([encode(good), bad, encode(good)]);
      expect(pushInPieces(stream, lengths, (piece) => reader.push(piece))).toBe(message);
      expect(recorder.frames).toEqual([good]);
      expect(recorder.calls.at(-1)).toBe('onFrameEnd');
    }
  });

  test.each([2, 3])('refuses when byte %i, which must be zero, is not', (at) => {
    const bytes = encode(dataFrame(0));
    bytes[at] = 1;
    const recorder = new Recorder();
    const error = new FrameReader(recorder, new Uint8Array(HEADER_BYTES)).push(bytes);
    expect(error).toBe('these bytes are not a Skein frame');
    expect(recorder.calls).toEqual([]);
  });

  test.each([
    ['onFrame', ['onFrame']],
    ['onPayload', ['onFrame', 'onPayload']],
    ['onFrameEnd', ['onFrame', 'onPayload', 'onFrameEnd']],
  ] as const)('stops reading when the sink finds something wrong in %s', (failing, calls) => {
    const recorder = new Recorder(failing);
    const reader = new FrameReader(recorder, new Uint8Array(HEADER_BYTES));
    const error = reader.push(concat([encode(dataFrame(40, 1)), encode(dataFrame(40, 2))]));
    expect(error).toBe('enough');
    expect(recorder.calls).toEqual(calls);
  });

  test('hands on what a sink finds wrong with a carried piece and with an empty frame', () => {
    const inCarry = new Recorder('onPayload');
    const carrying = new FrameReader(inCarry, new Uint8Array(HEADER_BYTES));
    expect(pushInPieces(encode(dataFrame(40)), [1], (piece) => carrying.push(piece))).toBe('enough');
    expect(inCarry.calls).toEqual(['onFrame', 'onPayload']);
    const empty = new FrameReader(new Recorder('onFrameEnd'), new Uint8Array(HEADER_BYTES));
    expect(empty.push(encode(dataFrame(0)))).toBe('enough');
  });
});

describe('frame header', () => {
  test('comes back as it was written, up to the largest values', () => {
    const anyHeader = fc.oneof(
      headers(FRAME_OPEN, fc.oneof(fc.nat(MAX_OPEN_BYTES), fc.constant(MAX_OPEN_BYTES))),
      headers(FRAME_DATA, fc.oneof(fc.nat(MAX_SEGMENT_BYTES), fc.constant(MAX_SEGMENT_BYTES))),
    );
    fc.assert(
      fc.property(anyHeader, fc.nat(9), (header, at) => {
        const view = new DataView(new ArrayBuffer(HEADER_BYTES + 9));
        writeHeader(view, at, header);
        const into = emptyHeader();
        expect(readHeader(view, at, into)).toBeNull();
        expect(into).toEqual(header);
      }),
    );
  });

  test('all fields at their largest do not touch one another', () => {
    const header: FrameHeader = {
      type: FRAME_DATA,
      epoch: U32_MAX,
      generation: U32_MAX,
      tag: Number.MAX_SAFE_INTEGER,
      sequence: U32_MAX,
      chunk: U32_MAX,
      segment: U32_MAX,
      length: MAX_SEGMENT_BYTES,
    };
    const view = new DataView(new ArrayBuffer(HEADER_BYTES));
    writeHeader(view, 0, header);
    const into = emptyHeader();
    expect(readHeader(view, 0, into)).toBeNull();
    expect(into).toEqual(header);
  });

  test('is not read into a header when something is wrong with it', () => {
    const view = new DataView(new ArrayBuffer(HEADER_BYTES));
    writeHeader(view, 0, { ...emptyHeader(), type: FRAME_DATA, epoch: 7, length: MAX_SEGMENT_BYTES + 1 });
    const into = emptyHeader();
    expect(readHeader(view, 0, into)).not.toBeNull();
    expect(into).toEqual(emptyHeader());
  });
});

describe('tag hash', () => {
  test('is a safe integer that depends on nothing but the tag', () => {
    const anyTag = fc.array(fc.nat(0xffff), { maxLength: 200 }).map((units) => String.fromCharCode(...units));
    fc.assert(
      fc.property(anyTag, (name) => {
        const hash = hashTag(name);
        expect(Number.isSafeInteger(hash) && hash >= 0).toBe(true);
        expect(hashTag([...name].join(''))).toBe(hash); // a string made anew
      }),
    );
  });

  test('keeps its values: peers of different releases must agree', () => {
    expect(['', 'a', 'gradients', 'wörter', '🧶'].map(hashTag)).toMatchInlineSnapshot(`
      [
        3696011966594573,
        2236359024562765,
        3795863390225141,
        4312137816129887,
        193519279304543,
      ]
    `);
  });

  test('has no collision among tags that look alike', () => {
    const tags = new Set<string>();
    for (let layer = 0; layer < 200; layer++)
      for (let part = 0; part < 200; part++) tags.add(`model.layers.${layer}.part.${part}.weight`);
    for (let index = 0; index < 40_000; index++) tags.add(String(index));
    for (let index = 0; index < 2 ** 15; index++) tags.add(`x${String.fromCharCode(index, 2 ** 15 - index)}`);
    for (let bit = 0; bit < 16; bit++)
      for (let at = 0; at < 100; at++) tags.add('\0'.repeat(at) + String.fromCharCode(1 << bit) + '\0'.repeat(99 - at));
    for (let length = 0; length < 200; length++) tags.add('a'.repeat(length));
    expect(tags.size).toBeGreaterThan(100_000);
    expect(new Set([...tags].map(hashTag)).size).toBe(tags.size);
  });

  test('uses all of its 53 bits', () => {
    let ones = 0n;
    let zeros = 0n;
    for (let index = 0; index < 1_000; index++) {
      const hash = BigInt(hashTag(`tag ${index}`));
      ones |= hash;
      zeros |= ~hash;
    }
    const all = 2n ** 53n - 1n;
    expect({ ones, zeros: zeros & all }).toEqual({ ones: all, zeros: all });
  });
});
