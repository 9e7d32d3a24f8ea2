import fc from 'fast-check';
import { Packr } from 'msgpackr';
import { describe, expect, test } from 'vitest';
import { UNMEASURED } from '../../src/costs.ts';
import type { ControlSchema } from '../../src/wire/control-schema.ts';
import { COORDINATOR_MESSAGES, type CoordinatorMessage } from '../../src/wire/coordinator-messages.ts';
import { DIAL_MESSAGES, type DialMessage } from '../../src/wire/dial-messages.ts';
import {
  MAX_CONTROL_BYTES,
  MAX_CONTROL_VALUES,
  MAX_HANDSHAKE_BYTES,
  MAX_KEPT_RANGES,
  MAX_OPEN_COLLECTIVES,
  MAX_REPORTED_FAILURES,
  MAX_REPORTED_VIEWS,
  MAX_TAG_LENGTH,
  MAX_TEXT_LENGTH,
  MAX_TOLD_RANGES,
  MAX_WORLD_SIZE,
} from '../../src/wire/limits.ts';
import {
  CONTROL_HEADER_BYTES,
  type Control,
  ControlReader,
  encodeControl,
  packBody,
  parseBody,
} from '../../src/wire/messages.ts';
import * as inBrowsers from '../../src/wire/packer-browser.ts';
import { LONG_FROM_PEERS, PAGE_BYTES, PAGE_HEADER_BYTES, pagesOf } from '../../src/wire/pages.ts';
import { PEER_MESSAGES, type PeerMessage } from '../../src/wire/peer-messages.ts';
import { concat, pieceLengths, pushInPieces } from './cut.ts';
import { COORDINATOR_EXAMPLES, DIAL_EXAMPLES, PEER_EXAMPLES, secretOf } from './examples.ts';

const U32_MAX = 0xffff_ffff;

const peerExamples: readonly PeerMessage[] = Object.values(PEER_EXAMPLES);
const coordinatorExamples: readonly CoordinatorMessage[] = Object.values(COORDINATOR_EXAMPLES);
const dialExamples: readonly DialMessage[] = Object.values(DIAL_EXAMPLES);

interface Reading<M> {
  readonly controls: Control<M>[];
  readonly error: string | null;
  readonly reader: ControlReader<M>;
}

function readAll<M>(
  schema: ControlSchema<M>,
  stream: Uint8Array,
  lengths: readonly number[] = [stream.length],
  limit: number = MAX_CONTROL_BYTES,
): Reading<M> {
  const reader = new ControlReader(schema, limit);
  const controls: Control<M>[] = [];
  const error = pushInPieces(stream, lengths, (piece) =>
    reader.push(piece, (control) => {
      controls.push(control);
      return true;
    }),
  );
  return { controls, error, reader };
}

/** A message with any body, right or wrong; a long one in pages of what may be long. */
function framed(body: Uint8Array, announced: number = body.length): Uint8Array {
  if (body.length > MAX_CONTROL_BYTES && announced === body.length) return paged(body);
  const bytes = new Uint8Array(CONTROL_HEADER_BYTES + body.length);
  new DataView(bytes.buffer).setUint32(0, announced, true);
  bytes.set(body, CONTROL_HEADER_BYTES);
  return bytes;
}

function paged(body: Uint8Array): Uint8Array {
  const { kind } = LONG_FROM_PEERS.find(({ type }) => type === 'progress')!;
  const frames = [...pagesOf(body)].map(({ part, left }) => {
    const page = new Uint8Array(PAGE_HEADER_BYTES + part.length);
    new DataView(page.buffer).setUint32(0, left, true);
    page.set(part, PAGE_HEADER_BYTES);
    return framed(page, kind * 2 ** 24 + page.length);
  });
  return concat(frames);
}

/** What one push says of a message with this content. */
function errorOf(content: unknown, schema: ControlSchema<unknown> = PEER_MESSAGES): string | null {
  return readAll(schema, framed(new Packr({ useRecords: false }).pack(content))).error;
}

describe('control messages', () => {
  test.each(peerExamples)('a peer’s $type comes back as it was sent', (message) => {
    const { controls, error } = readAll(PEER_MESSAGES, encodeControl(message, 1, 2));
    expect({ controls, error }).toEqual({ controls: [{ term: 1, epoch: 2, message }], error: null });
  });

  test.each(coordinatorExamples)('a coordinator’s $type comes back as it was sent', (message) => {
    const { controls, error } = readAll(COORDINATOR_MESSAGES, encodeControl(message, U32_MAX, U32_MAX));
    expect({ controls, error }).toEqual({ controls: [{ term: U32_MAX, epoch: U32_MAX, message }], error: null });
  });

  test.each(dialExamples)('a dialler’s $type comes back as it was sent', (message) => {
    const { controls, error } = readAll(DIAL_MESSAGES, encodeControl(message, 0, 0), undefined, MAX_HANDSHAKE_BYTES);
    expect({ controls, error }).toEqual({ controls: [{ term: 0, epoch: 0, message }], error: null });
  });

  test.each([
    ...peerExamples.map((message) => ({ from: 'peer', schema: PEER_MESSAGES, message })),
    ...coordinatorExamples.map((message) => ({ from: 'coordinator', schema: COORDINATOR_MESSAGES, message })),
  ])('what browsers have reads and writes a $from’s $message.type', ({ schema, message }) => {
    const parsed = parseBody<unknown>(schema, inBrowsers.pack(inBrowsers.unpack(packBody(message)) as object));
    expect(parsed).toEqual({ ok: true, value: message });
  });

  test('are the same however the stream is split, and keep no window on what was pushed', () => {
    const sent = fc.array(
      fc.record({
        term: fc.integer({ min: 0, max: U32_MAX }),
        epoch: fc.integer({ min: 0, max: U32_MAX }),
        message: fc.constantFrom(...coordinatorExamples),
      }),
      { minLength: 1, maxLength: 8 },
    );
    fc.assert(
      fc.property(sent, pieceLengths, (controls, lengths) => {
        const stream = concat(controls.map(({ message, term, epoch }) => encodeControl(message, term, epoch)));
        const reading = readAll(COORDINATOR_MESSAGES, stream, lengths);
        expect({ controls: reading.controls, error: reading.error }).toEqual({ controls, error: null });
        expect(reading.reader.rest.length).toBe(0);
      }),
    );
  });

  test('are handed on until the receiver has enough; the rest stays', () => {
    const first = encodeControl(PEER_EXAMPLES.ready, 1, 1);
    const rest = concat([encodeControl(PEER_EXAMPLES.leave, 1, 1), Uint8Array.of(1, 2, 3)]);
    const reader = new ControlReader(PEER_MESSAGES, MAX_CONTROL_BYTES);
    const types: string[] = [];
    const error = reader.push(concat([first, rest]), ({ message }) => {
      types.push(message.type);
      return false;
    });
    expect({ error, types, rest: reader.rest }).toEqual({ error: null, types: ['ready'], rest });
  });
});

describe('limits of control messages', () => {
  test.each([MAX_HANDSHAKE_BYTES + 1, MAX_CONTROL_BYTES, U32_MAX])(
    'a message that announces %i bytes is refused by its length alone',
    (announced) => {
      const reader = new ControlReader(PEER_MESSAGES, MAX_HANDSHAKE_BYTES);
      const header = framed(new Uint8Array(0), announced);
      expect(reader.push(header, () => true)).toBe(
        `a control message of ${announced} bytes is longer than the limit of ${MAX_HANDSHAKE_BYTES}`,
      );
      expect(reader.rest.length).toBe(0);
    },
  );

  test('a message as long as the limit is taken, and one byte more is not', () => {
    const stream = encodeControl(PEER_EXAMPLES.done, 1, 1);
    const length = stream.length - CONTROL_HEADER_BYTES;
    expect(readAll(PEER_MESSAGES, stream, [5], length).controls.length).toBe(1);
    expect(readAll(PEER_MESSAGES, stream, [5], length - 1).error).toContain('longer than the limit');
  });

  test('the limit can be raised between two messages of one push', () => {
    const short = encodeControl(PEER_EXAMPLES.ready, 1, 1);
    const long = encodeControl(PEER_EXAMPLES.done, 1, 1);
    const reader = new ControlReader(PEER_MESSAGES, short.length);
    const types: string[] = [];
    const error = reader.push(concat([short, long]), ({ message }) => {
      types.push(message.type);
      reader.setLimit(MAX_CONTROL_BYTES);
      return true;
    });
    expect({ error, types }).toEqual({ error: null, types: ['ready', 'done'] });
  });

  test('what is kept of an unfinished message never exceeds the limit and a header', () => {
    const limit = 300;
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 1_000 }), fc.nat(400), pieceLengths, (body, announced, lengths) => {
        const { reader } = readAll(PEER_MESSAGES, framed(body, announced), lengths, limit);
        expect(reader.rest.length).toBeLessThanOrEqual(limit + CONTROL_HEADER_BYTES);
      }),
    );
  });

  test('nothing is kept of a stream that was refused, however much came along', () => {
    const reader = new ControlReader(PEER_MESSAGES, 300);
    expect(reader.push(framed(new Uint8Array(10), 100), () => true)).toBeNull();
    expect(reader.push(new Uint8Array(5_000), () => true)).toMatch(/^a control message is not/);
    expect(reader.rest.length).toBe(0);
  });

  test('msgpack that announces more elements than it has bytes costs nothing', () => {
    // array 32, map 32, str 32, bin 32 and ext 32, each of 2³²−1 elements; and arrays of 30 million in one another.
    for (const token of [0xdd, 0xdf, 0xdb, 0xc6, 0xc9]) {
      expect(readAll(PEER_MESSAGES, framed(Uint8Array.of(token, 255, 255, 255, 255))).error).not.toBeNull();
    }
    const nested = concat(Array.from({ length: 800 }, () => Uint8Array.of(0xdd, 0x01, 0xc9, 0xc3, 0x80)));
    const before = process.memoryUsage().rss;
    expect(readAll(PEER_MESSAGES, framed(nested)).error).not.toBeNull();
    expect(process.memoryUsage().rss - before).toBeLessThan(100 * 1024 * 1024);
  });

  test('a few bytes can’t unfold to gigabytes by referring to one another', () => {
    // Each level holds the one before it twice: written out as text, 40 of them would be a terabyte.
    const id = (level: number) => [0, 0, 0, level];
    const levels = Array.from({ length: 40 }, (_, level) =>
      level === 0
        ? [0xd6, 0x69, ...id(0), 0x90]
        : [0xd6, 0x69, ...id(level), 0x92, 0xd6, 0x70, ...id(level - 1), 0xd6, 0x70, ...id(level - 1)],
    );
    const body = Uint8Array.from([0xdc, 0, levels.length, ...levels.flat(), 0xc0]);
    expect(readAll(PEER_MESSAGES, framed(body)).error).toBe(
      'a control message is not plain msgpack: token 214 has no meaning here',
    );
  });

  test('one long string can’t be read again for every few bytes of the message', () => {
    const count = 20_000;
    const elements = Array.from({ length: count }, (_, index) => {
      const distance = (count - index) * 7 - 2; // from the extension's end to the string, and its own four bytes
      return [0xd6, 0x62, distance >>> 24, (distance >>> 16) & 255, (distance >>> 8) & 255, distance & 255, 0xc0];
    });
    const text = concat([Uint8Array.of(0xdb, 0, 0x30, 0, 0), new Uint8Array(0x30_0000).fill(97)]);
    const body = concat([Uint8Array.of(0xdd, 0, 0, 0x4e, 0x20), Uint8Array.from(elements.flat()), text]);
    expect(readAll(PEER_MESSAGES, framed(body)).error).toMatch(/^a control message is not plain msgpack/);
  });

  test.each([
    ['nil', 0xc0],
    ['an empty map', 0x80],
    ['an empty string', 0xa0],
  ])('a list with millions of values is refused before any of them is made: %s', (_, token) => {
    const count = 8 * 1024 * 1024;
    const start = [0x82, 0xa4, ...Buffer.from('type'), 0xa8, ...Buffer.from('progress'), 0xa4, ...Buffer.from('held')];
    const announced = new Uint8Array(4);
    new DataView(announced.buffer).setUint32(0, count);
    const body = concat([Uint8Array.from([...start, 0xdd]), announced, new Uint8Array(count).fill(token)]);
    const error = readAll(PEER_MESSAGES, framed(body)).error;
    expect(error).toBe(`a control message is not plain msgpack: it has more than ${MAX_CONTROL_VALUES} values`);
  });

  test('as many wrong values as a message may have are told of by the first of them, in a short text', () => {
    const held = new Array(MAX_CONTROL_VALUES - 64).fill(null);
    expect(errorOf({ ...PEER_EXAMPLES.progress, held })).toContain('held.0');
    const long = errorOf({ type: 'x'.repeat(1_000_000) });
    expect(long).toMatch(/^a control message is not valid/);
    expect(long!.length).toBeLessThanOrEqual(MAX_TEXT_LENGTH);
  });

  test('a message that comes in tiny pieces is not copied anew for each of them', () => {
    const long = encodeControl(
      { ...PEER_EXAMPLES.progress, held: new Array(4_000).fill({ id: 'x'.repeat(200), epoch: 1 }) },
      1,
      1,
    );
    const reader = new ControlReader(PEER_MESSAGES, MAX_CONTROL_BYTES);
    let messages = 0;
    let moved = 0;
    let kept = reader.rest.buffer;
    for (let at = 0; at < long.length; at += 16) {
      const error = reader.push(long.subarray(at, at + 16), () => {
        messages += 1;
        return true;
      });
      expect(error).toBeNull();
      if (reader.rest.buffer !== kept) moved += 1;
      kept = reader.rest.buffer;
    }
    expect(messages).toBe(1);
    expect(moved).toBeLessThan(2 * Math.log2(MAX_CONTROL_BYTES) * Math.ceil(long.length / PAGE_BYTES));
  });

  test('the largest messages of a run within its limits can be sent', () => {
    const longestId = (index: number) => `${U32_MAX}:${'語'.repeat(MAX_TAG_LENGTH)}:${U32_MAX - index}`;
    const ids = Array.from({ length: MAX_OPEN_COLLECTIVES }, (_, index) => longestId(index));
    const held = [...ids, ...ids].map((id) => ({ id, epoch: U32_MAX }));
    const peer = (index: number) => ({
      peerId: `p${index}-ffffffff`,
      pair: U32_MAX,
      key: secretOf(index),
      hostKey: 'a'.repeat(64),
      site: 'europe-west6-a',
      addresses: [
        { kind: 'tcp' as const, host: '2001:0db8:85a3:0000:0000:8a2e:0370:7334', port: 65_535 },
        { kind: 'unix' as const, path: '/'.repeat(107) },
      ],
      cores: 65_536,
    });
    const peers = Array.from({ length: MAX_WORLD_SIZE - 1 }, (_, index) => peer(index));
    const ranges = Array.from({ length: MAX_KEPT_RANGES }, () => ({ start: 2 ** 50, end: 2 ** 51, epoch: U32_MAX }));
    const finished = ids.slice(0, MAX_TOLD_RANGES / MAX_KEPT_RANGES).map((id) => ({ id, ranges }));
    const progress = encodeControl({ type: 'progress', epoch: 1, held, returned: ids, finished }, 1, 1);
    expect(readAll(PEER_MESSAGES, progress).error).toBeNull();
    const decide = encodeControl({ type: 'decide', epoch: 1, committed: held, kept: finished }, 1, 1);
    expect(readAll(COORDINATOR_MESSAGES, decide).error).toBeNull();
    const welcome = encodeControl({ ...COORDINATOR_EXAMPLES.welcome, peers }, 1, 1);
    expect(readAll(COORDINATOR_MESSAGES, welcome).error).toBeNull();
    const site = 'a'.repeat(256);
    const members = [...peers, peer(MAX_WORLD_SIZE)].map(({ peerId }, place) => ({ peerId, site, place }));
    const views = Array.from({ length: MAX_REPORTED_VIEWS }, (_, boundary) => ({
      epoch: U32_MAX,
      generation: U32_MAX,
      boundary,
      members,
      cuts: [],
      costs: UNMEASURED,
    }));
    const failed = ids.slice(0, MAX_REPORTED_FAILURES).map((id) => ({
      id,
      generation: U32_MAX,
      code: 'mismatch' as const,
      message: '語'.repeat(MAX_TEXT_LENGTH),
    }));
    const known = peers.map(({ peerId, pair }) => ({ peerId, pair }));
    const report = { ...PEER_EXAMPLES.resume.report, views, failed, peers: known };
    expect(readAll(PEER_MESSAGES, encodeControl({ type: 'resume', report }, 1, 1)).error).toBeNull();
  });
});

describe('wrong control messages', () => {
  test.each([
    ['nothing', new Uint8Array(0)],
    ['an unused token', Uint8Array.of(0xc1)],
    ['a map that ends early', Uint8Array.of(0x82, 0xa1)],
    ['bytes after the message', concat([packBody({ type: 'ready' }), Uint8Array.of(0)])],
    ['an unknown extension', Uint8Array.of(0xd4, 0x55, 0)],
    ['a map in a map in a map, 4000 deep', new Uint8Array(4_000).fill(0x91)],
  ])('%s is refused', (_, body) => {
    const { controls, error } = readAll(PEER_MESSAGES, framed(body));
    expect(error).toMatch(/^a control message is not /);
    expect(controls).toEqual([]);
  });

  test.each([
    ['no map', 7],
    ['null', null],
    ['an array', [{ type: 'ready' }]],
    ['no type', {}],
    ['an unknown type', { type: 'reboot' }],
    ['a type that objects inherit', { type: 'constructor' }],
    ['the coordinator’s type', COORDINATOR_EXAMPLES.commit],
    ['a type that is no string', { type: 3 }],
    ['an extra key', { type: 'ready', now: true }],
    ['a missing key', { type: 'link-closed' }],
    ['a string for a number', { ...PEER_EXAMPLES.done, epoch: '5' }],
    ['a number for a string', { ...PEER_EXAMPLES.done, id: 5 }],
    ['a fraction', { ...PEER_EXAMPLES.done, epoch: 1.5 }],
    ['a negative epoch', { ...PEER_EXAMPLES.done, epoch: -1 }],
    ['an epoch above 32 bits', { ...PEER_EXAMPLES.done, epoch: U32_MAX + 1 }],
    ['an epoch that is no number', { ...PEER_EXAMPLES.done, epoch: Number.NaN }],
    ['a big integer', { ...PEER_EXAMPLES.done, epoch: 1n }],
    ['a world of nobody', { ...PEER_EXAMPLES.boundary, minWorldSize: 0 }],
    ['a world that is too large', { ...PEER_EXAMPLES.boundary, minWorldSize: MAX_WORLD_SIZE + 1 }],
    ['a short secret', { ...PEER_EXAMPLES.hello, nonce: new Uint8Array(31) }],
    ['a secret that is text', { ...PEER_EXAMPLES.hello, nonce: 'x'.repeat(32) }],
    ['an empty name', { ...PEER_EXAMPLES.hello, run: '' }],
    ['a name that is too long', { ...PEER_EXAMPLES.hello, run: 'x'.repeat(257) }],
    ['an address of an unknown kind', { ...PEER_EXAMPLES.prove, addresses: [{ kind: 'http', host: 'x' }] }],
    ['a port above 16 bits', { ...PEER_EXAMPLES.prove, addresses: [{ kind: 'tcp', host: 'x', port: 65_536 }] }],
    ['an extra key in an address', { ...PEER_EXAMPLES.prove, addresses: [{ kind: 'unix', path: 'x', mode: 1 }] }],
    [
      'too many held collectives',
      { ...PEER_EXAMPLES.progress, held: new Array(2 * MAX_OPEN_COLLECTIVES + 1).fill({ id: '1:a:0', epoch: 1 }) },
    ],
    ['a held collective without a name', { ...PEER_EXAMPLES.progress, held: [''] }],
    ['a tag that is too long', { ...PEER_EXAMPLES.done, id: `1:${'x'.repeat(MAX_TAG_LENGTH + 32)}:0` }],
  ])('%s is refused', (_, content) => {
    expect(errorOf(content)).toMatch(/^a control message is not valid: /);
  });

  test.each([
    ['a peer’s message', PEER_EXAMPLES.leave],
    ['an unknown code', { ...COORDINATOR_EXAMPLES.fail, code: 'whatever' }],
    ['a broken link with three ends', { ...COORDINATOR_EXAMPLES.loss, broken: ['a', 'b', 'c'] }],
    ['a view without a generation', { ...COORDINATOR_EXAMPLES.boundary, view: { epoch: 1, members: [] } }],
    [
      'an extra key in a member',
      {
        ...COORDINATOR_EXAMPLES.boundary,
        view: { epoch: 1, generation: 1, members: [{ peerId: 'p0', site: '', place: 0, admin: true }] },
      },
    ],
    ['a view that is undefined', { type: 'boundary', index: 1, joined: [] }],
  ])('from a coordinator, %s is refused', (_, content) => {
    expect(errorOf(content, COORDINATOR_MESSAGES)).toMatch(/^a control message is not valid: /);
  });

  test('a key named __proto__ changes no object', () => {
    const body = concat([
      Uint8Array.of(0x82, 0xa4, ...Buffer.from('type'), 0xa5, ...Buffer.from('ready')),
      Uint8Array.of(0xa9, ...Buffer.from('__proto__'), 0x81, 0xa1, 0x61, 0x01),
    ]);
    expect(readAll(PEER_MESSAGES, framed(body)).error).toMatch(/^a control message is not valid: /);
    expect(Object.keys(Object.prototype)).toEqual([]);
  });

  test('what one message defines means nothing in the next', () => {
    // A record, as msgpackr has them: token 0x40 would stand for an object from then on.
    const record = Uint8Array.of(0xd4, 0x72, 0x40, 0x91, 0xa4, ...Buffer.from('type'), 0xa5, ...Buffer.from('ready'));
    parseBody(PEER_MESSAGES, record);
    const parsed = parseBody(PEER_MESSAGES, packBody({ ...PEER_EXAMPLES.boundary, index: 0x40 }));
    expect(parsed).toEqual({ ok: true, value: { ...PEER_EXAMPLES.boundary, index: 0x40 } });
  });

  test('good messages before a wrong one are handed on, those after it are not', () => {
    const good = encodeControl(PEER_EXAMPLES.ready, 1, 1);
    const stream = concat([good, framed(packBody({ type: 'reboot' })), good]);
    const { controls, error } = readAll(PEER_MESSAGES, stream);
    expect(controls.length).toBe(1);
    expect(error).not.toBeNull();
  });

  test('random bytes never throw', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 400 }), pieceLengths, (bytes, lengths) => {
        expect(readAll(PEER_MESSAGES, bytes, lengths).controls).toEqual([]);
      }),
    );
  });

  test('a random body never throws, and is refused', () => {
    const bodies = fc.oneof(
      fc.uint8Array({ maxLength: 300 }),
      fc.anything({ withBigInt: true, withDate: true, withMap: true, withSet: true, withTypedArray: true }).map(pack),
    );
    fc.assert(
      fc.property(bodies, (body) => {
        for (const schema of [PEER_MESSAGES, COORDINATOR_MESSAGES, DIAL_MESSAGES] as const) {
          expect(readAll<unknown>(schema, framed(body)).error).toMatch(/^a control message is not /);
        }
      }),
      { numRuns: 500 },
    );
  });

  test('a message with some bytes changed never throws, and is never anything but a valid message', () => {
    const changes = fc.array(fc.tuple(fc.nat(), fc.nat(255)), { minLength: 1, maxLength: 4 });
    fc.assert(
      fc.property(fc.constantFrom(...coordinatorExamples), changes, (message, places) => {
        const body = packBody(message);
        for (const [at, byte] of places) body[at % body.length] = byte;
        const parsed = parseBody(COORDINATOR_MESSAGES, body);
        // What was taken can be sent again: nothing that the schema does not know has come through.
        if (parsed.ok) expect(readAll(COORDINATOR_MESSAGES, encodeControl(parsed.value, 1, 1)).error).toBeNull();
        else expect(parsed.error).toMatch(/^a control message is not /);
      }),
      { numRuns: 500 },
    );
  });
});

function pack(value: unknown): Uint8Array {
  try {
    return Uint8Array.from(new Packr({ useRecords: false }).pack(value));
  } catch {
    return new Uint8Array(0); // some values have no form in msgpack; no message is refused as well
  }
}
