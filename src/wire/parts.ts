/** What control messages of both directions are made of. */
import * as v from 'valibot';
import {
  MAX_CANDIDATE_LENGTH,
  MAX_CORES,
  MAX_CUTS,
  MAX_FLIGHT_BYTES,
  MAX_FLIGHT_CALLS,
  MAX_KEPT_RANGES,
  MAX_NOTES_BYTES,
  MAX_OPEN_COLLECTIVES,
  MAX_REPORTED_FAILURES,
  MAX_SDP_LENGTH,
  MAX_TAG_LENGTH,
  MAX_TEXT_LENGTH,
  MAX_WORLD_SIZE,
} from './limits.ts';

export const u32 = v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(0xffff_ffff));
export const name = v.pipe(v.string(), v.minLength(1), v.maxLength(256));
export const text = v.pipe(v.string(), v.maxLength(MAX_TEXT_LENGTH));
/** Bytes of a message are copied out: the memory that it was read from is used for the next read. */
const copied = v.transform((bytes: Uint8Array): Uint8Array => new Uint8Array(bytes));
export const secret = v.pipe(
  v.custom<Uint8Array>((value) => value instanceof Uint8Array && value.length === 32, 'a secret has 32 bytes'),
  copied,
);
/** `generation:tag:sequence`. */
export const collectiveId = v.pipe(v.string(), v.minLength(3), v.maxLength(MAX_TAG_LENGTH + 32));
/** A result, and the epoch of the attempt that made it: results of different attempts are not the same. */
export const heldResult = v.strictObject({ id: collectiveId, epoch: u32 });
export const index = v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(Number.MAX_SAFE_INTEGER));
/** Of a tensor: what is finished of it, and by which attempts. */
const finished = v.strictObject({
  id: collectiveId,
  ranges: v.pipe(v.array(v.strictObject({ start: index, end: index, epoch: u32 })), v.maxLength(MAX_KEPT_RANGES)),
});
export const allFinished = v.pipe(v.array(finished), v.maxLength(MAX_OPEN_COLLECTIVES));
export const duration = v.pipe(v.number(), v.minValue(0), v.maxValue(2 ** 31 - 1));

const address = v.variant('kind', [
  v.strictObject({ kind: v.literal('tcp'), host: name, port: v.pipe(u32, v.maxValue(65_535)) }),
  v.strictObject({ kind: v.literal('tls'), host: name, port: v.pipe(u32, v.maxValue(65_535)) }),
  v.strictObject({ kind: v.literal('unix'), path: name }),
  /** Through signals that the coordinator passes on. */
  v.strictObject({ kind: v.literal('webrtc') }),
  v.strictObject({ kind: v.literal('memory'), name }),
]);

/** What a peer tells of itself. */
export const description = {
  /** Which machine it is on: peers with the same key try a Unix-domain socket. */
  hostKey: name,
  site: v.pipe(v.string(), v.maxLength(256)),
  addresses: v.pipe(v.array(address), v.maxLength(16)),
  /** Processors of that machine. */
  cores: v.pipe(u32, v.minValue(1), v.maxValue(MAX_CORES)),
};
/** `place`: on the ring. */
const member = v.strictObject({ peerId: name, site: v.pipe(v.string(), v.maxLength(256)), place: u32 });
const members = v.pipe(v.array(member), v.minLength(1), v.maxLength(MAX_WORLD_SIZE));
/** Pairs of members that can't reach one another. All attempts of an epoch go round the same ones. */
export const cuts = v.pipe(v.array(v.strictTuple([name, name])), v.maxLength(MAX_CUTS));
/** What ways and processors cost (see costs.ts): figures by which all members choose alike, so no two of them may get others. */
const seconds = v.pipe(v.number(), v.minValue(0), v.maxValue(3_600));
const way = v.strictObject({ hopSeconds: seconds, byteSeconds: seconds });
const costs = v.strictObject({
  near: way,
  far: way,
  ring: v.nullable(way),
  sharing: v.pipe(v.number(), v.minValue(0), v.maxValue(MAX_WORLD_SIZE)),
});
/** `boundary`: where the generation was made. */
export const view = v.strictObject({ epoch: u32, generation: u32, boundary: u32, members, cuts, costs });
export const failure = {
  id: collectiveId,
  code: v.picklist(['mismatch', 'withdrawn', 'lost']),
  message: text,
};

/** A collective that goes on without some members, and the epoch of the attempt that does. */
export const exclusion = v.strictObject({
  id: collectiveId,
  epoch: u32,
  peers: v.pipe(v.array(name), v.minLength(1), v.maxLength(MAX_WORLD_SIZE)),
});
export const exclusions = v.pipe(v.array(exclusion), v.maxLength(MAX_REPORTED_FAILURES));

/** From one end of a WebRTC session to the other (see transport/webrtc.ts). */
const sdp = v.pipe(v.string(), v.maxLength(MAX_SDP_LENGTH));
export const signal = v.variant('kind', [
  v.strictObject({ kind: v.literal('offer'), session: u32, relay: v.boolean(), sdp }),
  v.strictObject({ kind: v.literal('answer'), session: u32, sdp }),
  v.strictObject({
    kind: v.literal('candidate'),
    session: u32,
    fromDialler: v.boolean(),
    candidate: v.pipe(v.string(), v.maxLength(MAX_CANDIDATE_LENGTH)),
    mid: v.pipe(v.string(), v.maxLength(256)),
  }),
  v.strictObject({ kind: v.literal('end'), session: u32, fromDialler: v.boolean(), reason: text }),
]);

/** Bytes that mean something to others only. */
function bytesUpTo(limit: number): v.GenericSchema<unknown, Uint8Array> {
  return v.pipe(
    v.custom<Uint8Array>((value) => value instanceof Uint8Array && value.length <= limit),
    copied,
  );
}
/** JSON, in which only the one who asked for it looks (`flight.ts`). */
export const flightDump = /* @__PURE__ */ bytesUpTo(MAX_FLIGHT_BYTES);
/** Calls that have ended of which a flight record is to tell. */
export const flightCalls = v.pipe(u32, v.maxValue(MAX_FLIGHT_CALLS));

const noteBytes = /* @__PURE__ */ v.nullable(/* @__PURE__ */ bytesUpTo(MAX_NOTES_BYTES));
/**
 * `vector`: what the sender has; a peer's asks for the rest, and for what comes later. `update`: what the receiver may lack.
 * `edition`: of the document; with `fresh` the update is all of a new one, which has what `vector` says of the edition before.
 */
export const notes = { edition: u32, vector: noteBytes, update: noteBytes };

export type HeldResult = v.InferOutput<typeof heldResult>;
export type FinishedRanges = v.InferOutput<typeof finished>;
export type Exclusion = v.InferOutput<typeof exclusion>;
export type WireView = v.InferOutput<typeof view>;
