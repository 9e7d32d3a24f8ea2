/** Control messages that are well-formed msgpack, or nearly, and wrong: other types, huge numbers, extensions, odd keys. */
import { Packr } from 'msgpackr';
import { CONTROL_HEADER_BYTES } from '../../src/wire/messages.ts';
import type { Random } from '../sim/random.ts';

/** Everything that the library can write, so that everything that it can read is tried. */
const PACKERS: readonly Packr[] = [
  new Packr({ useRecords: false }),
  new Packr({ useRecords: true }),
  new Packr({ useRecords: false, moreTypes: true, structuredClone: true }),
  new Packr({ useRecords: false, variableMapSize: true, useFloat32: 3, bundleStrings: true }),
];

function nested(depth: number, wrap: (inner: unknown) => unknown): unknown {
  let value: unknown = null;
  for (let level = 0; level < depth; level++) value = wrap(value);
  return value;
}

function cycle(): unknown {
  const loop: unknown[] = [];
  loop.push(loop, loop);
  return loop;
}

const ODD_KEYS: readonly string[] = ['__proto__', 'constructor', 'prototype', 'toString', 'length', '', 'type', '0'];

const STRANGE: readonly ((random: Random) => unknown)[] = [
  (random) => random.pick([NaN, Infinity, -Infinity, -0, -1, 0.5, 2 ** 31, 2 ** 32, 2 ** 53, 1e308]),
  (random) => random.pick([null, undefined, true, false]),
  (random) => random.pick([0n, -1n, 2n ** 63n, 2n ** 64n - 1n]),
  (random) => random.pick(ODD_KEYS),
  (random) => 'x'.repeat(random.pick([1, 256, 257, 2_000, 2_001, 70_000])),
  (random) => '\u0000\ud800語'.repeat(random.integer(1, 100)),
  (random) => random.bytes(random.pick([0, 1, 31, 32, 33, 300])),
  (random) => new Date(random.integer(0, 2 ** 40)),
  () => new Map<unknown, unknown>([[{ a: 1 }, new Set([1, 2])]]),
  () => new Error('an error'),
  () => /(a+)+$/u,
  () => new Float64Array([1, NaN]),
  (random) => new Array(random.pick([0, 3, 5_000])).fill(random.pick([null, 'x', 0])),
  (random) => nested(random.pick([3, 9, 200, 3_000]), (inner) => [inner]),
  (random) => nested(random.pick([3, 9, 200]), (inner) => ({ type: inner })),
  (random) => Object.fromEntries([[random.pick(ODD_KEYS), random.pick(ODD_KEYS)]]),
  () => JSON.parse('{"__proto__": {"polluted": true}}'),
  () => cycle(),
];

function isPlainObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && Object.getPrototypeOf(value) === Object.prototype;
}

/** The same with one place in it changed: a value replaced, a key added, removed or renamed, two values swapped. */
function twisted(value: unknown, random: Random): unknown {
  if (Array.isArray(value) && random.chance(0.7)) {
    if (value.length === 0) return [random.pick(STRANGE)(random)];
    const at = random.integer(0, value.length - 1);
    if (random.chance(0.3)) return [...value, ...value, value[at]];
    return value.map((one: unknown, index) => (index === at ? twisted(one, random) : one));
  }
  if (!isPlainObject(value) || Object.keys(value).length === 0) return random.pick(STRANGE)(random);
  const entries = Object.entries(value);
  const at = random.integer(0, entries.length - 1);
  const [key, old] = entries[at]!; // drawn from its length
  const how = random.next();
  if (how < 0.6) entries[at] = [key, twisted(old, random)];
  else if (how < 0.7) entries.splice(at, 1);
  else if (how < 0.8) entries.push([random.pick(ODD_KEYS), random.pick(STRANGE)(random)]);
  else if (how < 0.9) entries[at] = [random.pick(ODD_KEYS), old];
  else {
    const other = random.integer(0, entries.length - 1);
    entries[at] = [key, entries[other]![1]];
    entries[other] = [entries[other]![0], old];
  }
  // Not an object's own `__proto__`, but a map with such a key: that is what arrives.
  return random.chance(0.2) ? new Map(entries) : Object.fromEntries(entries);
}

/**
 * Few bytes that are many values, for who follows references: each level holds the one before it twice. With a byte too
 * many, the library would even write them out as text.
 */
function unfolding(levels: number): Uint8Array {
  const id = (level: number) => [0, 0, 0, level];
  const level = (number: number) =>
    number === 0
      ? [0xd6, 0x69, ...id(0), 0x90]
      : [0xd6, 0x69, ...id(number), 0x92, 0xd6, 0x70, ...id(number - 1), 0xd6, 0x70, ...id(number - 1)];
  return Uint8Array.from([0xdc, 0, levels, ...Array.from({ length: levels }, (_, number) => level(number)).flat(), 0]);
}

function twistedBody(message: object, random: Random): Uint8Array {
  let content: unknown = twisted(message, random);
  if (random.chance(0.2)) content = twisted(content, random);
  try {
    return Uint8Array.from(random.pick(PACKERS).pack(content));
  } catch {
    return Uint8Array.of(0xc1); // some values have no form in msgpack
  }
}

/** A message on the wire with something wrong in it. */
export function twistedMessage(message: object, term: number, epoch: number, random: Random): Uint8Array {
  const body = random.chance(0.01) ? unfolding(random.integer(30, 200)) : twistedBody(message, random);
  const bytes = new Uint8Array(CONTROL_HEADER_BYTES + body.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, body.length, true);
  view.setUint32(4, term, true);
  view.setUint32(8, epoch, true);
  bytes.set(body, CONTROL_HEADER_BYTES);
  return bytes;
}
