/**
 * A flight record: what a peer tells of its last collectives, and of its ways to the others. It crosses files and the coordinator as
 * JSON, in which nobody but the reader at the end looks; that one believes nothing of it before it has passed this schema.
 */
import * as v from 'valibot';
import { MAX_FLIGHT_CALLS, MAX_OPEN_COLLECTIVES, MAX_TAG_LENGTH, MAX_TEXT_LENGTH, MAX_WORLD_SIZE } from './limits.ts';

const name = v.pipe(v.string(), v.maxLength(256));
const text = v.pipe(v.string(), v.maxLength(MAX_TEXT_LENGTH));
const tag = v.pipe(v.string(), v.maxLength(MAX_TAG_LENGTH));
const count = v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(Number.MAX_SAFE_INTEGER));
const duration = v.pipe(v.number(), v.minValue(0));
/** Milliseconds since 1970, by the peer's own clock, with fractions; null: it has not happened. */
const time = v.nullable(v.pipe(v.number(), v.minValue(0)));

/** Somebody with whom this peer exchanges data in a call, in the attempt that it made last. */
const neighbour = v.strictObject({
  peerId: name,
  /** Its announcement of the same call was taken. */
  calledAt: time,
  /** This peer's announcement of the call was given to the link. */
  announcedAt: time,
  firstSentAt: time,
  lastSentAt: time,
  /** Data with its headers, as it was given to the link. */
  bytesSent: count,
  firstReceivedAt: time,
  lastReceivedAt: time,
  bytesReceived: count,
});

const call = v.strictObject({
  /** `generation:tag:sequence`; empty for one that was refused before it had a number. */
  id: v.pipe(v.string(), v.maxLength(MAX_TAG_LENGTH + 32)),
  kind: name,
  tag,
  sequence: count,
  generation: count,
  /** Of its last attempt. */
  epoch: count,
  dtype: name,
  count,
  op: v.nullable(name),
  codec: name,
  root: v.nullable(name),
  /** What it travelled by; null: it was not begun. */
  algorithm: v.nullable(name),
  /** All that members must have in common, in words: equal where they made the same call. Empty until it was begun. */
  description: text,
  /** As `OperationState`, but for `ended`: `committed` or `failed`. */
  state: v.picklist(['waiting', 'running', 'held', 'frozen', 'failing', 'committed', 'failed']),
  /** In words; null for what has ended. */
  waitsFor: v.nullable(text),
  /** Of whom the call or data is missing; this peer itself, where a part of its own tensor is not ready. Empty for what has ended. */
  awaits: v.pipe(v.array(name), v.maxLength(MAX_WORLD_SIZE)),
  worldSize: count,
  retries: count,
  calledAt: v.pipe(v.number(), v.minValue(0)),
  /** Its last attempt began. */
  begunAt: time,
  /** This rank held the whole result. */
  doneAt: time,
  endedAt: time,
  error: v.nullable(v.strictObject({ code: name, message: text })),
  /** Of a call that has ended the 16 that came or went last. */
  neighbours: v.pipe(v.array(neighbour), v.maxLength(MAX_WORLD_SIZE)),
});

const link = v.strictObject({
  peerId: name,
  /** How it is reached; null: it is not. */
  path: v.nullable(text),
  /** It can be sent to, and received from. */
  up: v.boolean(),
  receives: v.boolean(),
  queuedBytes: count,
  /** For so long nothing has come although it should have (ms): peers in a call show one another signs of life. */
  silentMs: duration,
  /** For so long one of its lanes has been down (ms). */
  downMs: duration,
  /** This peer has told the coordinator that it can't reach it. */
  cut: v.boolean(),
});

const dump = v.strictObject({
  version: v.literal(1),
  run: name,
  peerId: name,
  /** Why it was written: what failed, or who asked. */
  reason: text,
  takenAt: v.pipe(v.number(), v.minValue(0)),
  epoch: count,
  generation: count,
  /** Last that it has passed. */
  boundary: count,
  /** Of the view, by rank. */
  members: v.pipe(v.array(name), v.maxLength(MAX_WORLD_SIZE)),
  coordinator: v.strictObject({ connected: v.boolean(), silentMs: duration }),
  /** A member that is silent for so long is lost (ms). */
  boundMs: duration,
  links: v.pipe(v.array(link), v.maxLength(MAX_WORLD_SIZE)),
  /** The number that the next call under each tag will have, in the present generation; of the first 1,000 tags. */
  next: v.pipe(v.array(v.strictObject({ tag, sequence: count })), v.maxLength(MAX_FLIGHT_CALLS)),
  /** Those that have ended, oldest first, and then those that are open. */
  calls: v.pipe(v.array(call), v.maxLength(MAX_FLIGHT_CALLS + MAX_OPEN_COLLECTIVES)),
});

/** What went between a peer and one neighbour in one collective. */
export type FlightNeighbour = v.InferOutput<typeof neighbour>;
/** One collective, as a peer has seen it. */
export type FlightCall = v.InferOutput<typeof call>;
/** The way to another peer, at the moment of the record. */
export type FlightLink = v.InferOutput<typeof link>;
/** The flight record of one peer (`group.flight()`): its last collectives, all that are open, and its links. */
export type FlightDump = v.InferOutput<typeof dump>;

/** Reads a dump. Returns it, or what is wrong with it. */
export function parseFlight(json: string): FlightDump | string {
  let value: unknown;
  try {
    value = JSON.parse(json);
  } catch (error) {
    return `it is not JSON: ${error}`.slice(0, MAX_TEXT_LENGTH);
  }
  const result = v.safeParse(dump, value, { abortEarly: true });
  if (result.success) return result.output;
  const [issue] = result.issues;
  return `it is no flight record: ${v.getDotPath(issue) ?? 'it'}: ${issue.message}`.slice(0, MAX_TEXT_LENGTH);
}
