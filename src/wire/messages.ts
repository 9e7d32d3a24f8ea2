/**
 * Control messages, between a peer and the coordinator and in the handshake of data connections: msgpack maps, one
 * discriminated union, each validated on receipt. On the wire each is preceded by its length and by the two fences:
 *
 *      0             4           8            12
 *     ┌─────────────┬───────────┬────────────┬──────────────┐
 *     │ body length │ term      │ epoch      │ msgpack body │
 *     └─────────────┴───────────┴────────────┴──────────────┘
 *
 * The few that may be longer than a frame take several (`pages.ts`).
 */
import { Packr } from 'msgpackr';
import * as v from 'valibot';
import {
  LATENCY_BUCKETS,
  MAX_CANDIDATE_LENGTH,
  MAX_CLAIMS_LENGTH,
  MAX_CONTROL_BYTES,
  MAX_CORES,
  MAX_CUTS,
  MAX_FLIGHT_BYTES,
  MAX_FLIGHT_CALLS,
  MAX_ICE_SERVERS,
  MAX_KEPT_RANGES,
  MAX_NOTES_BYTES,
  MAX_OPEN_COLLECTIVES,
  MAX_REPORTED_FAILURES,
  MAX_REPORTED_VIEWS,
  MAX_SDP_LENGTH,
  MAX_TAG_LENGTH,
  MAX_TEXT_LENGTH,
  MAX_TOLD_FLOWS,
  MAX_TOLD_LINKS,
  MAX_TOLD_STRAGGLING,
  MAX_WORLD_SIZE,
} from './limits.ts';
import {
  LONG_FROM_COORDINATOR,
  LONG_FROM_PEERS,
  type LongMessage,
  PAGE_HEADER_BYTES,
  PageGatherer,
  type PageMark,
  pagesOf,
} from './pages.ts';
import { checkPlain } from './plain.ts';

export const CONTROL_HEADER_BYTES = 12;

const u32 = v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(0xffff_ffff));
const name = v.pipe(v.string(), v.minLength(1), v.maxLength(256));
const text = v.pipe(v.string(), v.maxLength(MAX_TEXT_LENGTH));
const secret = v.custom<Uint8Array>(
  (value) => value instanceof Uint8Array && value.length === 32,
  'a secret has 32 bytes',
);
/** `generation:tag:sequence`. */
const collectiveId = v.pipe(v.string(), v.minLength(3), v.maxLength(MAX_TAG_LENGTH + 32));
/** A result, and the epoch of the attempt that made it: results of different attempts are not the same. */
const heldResult = v.strictObject({ id: collectiveId, epoch: u32 });
const index = v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(Number.MAX_SAFE_INTEGER));
/** Of a tensor: what is finished of it, and by which attempts. */
const finished = v.strictObject({
  id: collectiveId,
  ranges: v.pipe(v.array(v.strictObject({ start: index, end: index, epoch: u32 })), v.maxLength(MAX_KEPT_RANGES)),
});
const allFinished = v.pipe(v.array(finished), v.maxLength(MAX_OPEN_COLLECTIVES));
/** What timers can count. */
const milliseconds = v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(2 ** 31 - 1));
const duration = v.pipe(v.number(), v.minValue(0), v.maxValue(2 ** 31 - 1));
const spare = v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(MAX_WORLD_SIZE));
const worldSize = v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(MAX_WORLD_SIZE));

const address = v.variant('kind', [
  v.strictObject({ kind: v.literal('tcp'), host: name, port: v.pipe(u32, v.maxValue(65_535)) }),
  v.strictObject({ kind: v.literal('tls'), host: name, port: v.pipe(u32, v.maxValue(65_535)) }),
  v.strictObject({ kind: v.literal('unix'), path: name }),
  /** Through signals that the coordinator passes on. */
  v.strictObject({ kind: v.literal('webrtc') }),
  v.strictObject({ kind: v.literal('memory'), name }),
]);

/** What a peer tells of itself. */
const description = {
  /** Which machine it is on: peers with the same key try a Unix-domain socket. */
  hostKey: name,
  site: v.pipe(v.string(), v.maxLength(256)),
  addresses: v.pipe(v.array(address), v.maxLength(16)),
  /** Processors of that machine. */
  cores: v.pipe(u32, v.minValue(1), v.maxValue(MAX_CORES)),
};

/** `pair`: a number that both ends of one introduction have in common, and with them the key. */
const introduction = v.strictObject({ peerId: name, pair: u32, key: secret, ...description });
/** `place`: on the ring. */
const member = v.strictObject({ peerId: name, site: v.pipe(v.string(), v.maxLength(256)), place: u32 });
const members = v.pipe(v.array(member), v.minLength(1), v.maxLength(MAX_WORLD_SIZE));
/** Pairs of members that can't reach one another. All attempts of an epoch go round the same ones. */
const cuts = v.pipe(v.array(v.strictTuple([name, name])), v.maxLength(MAX_CUTS));
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
const view = v.strictObject({ epoch: u32, generation: u32, boundary: u32, members, cuts, costs });
const lost = v.strictObject({ peerId: name, reason: text });
const failure = {
  id: collectiveId,
  code: v.picklist(['mismatch', 'withdrawn', 'lost']),
  message: text,
};

/** Collectives of a view that failed before a member came to it: along with the view, or it could make those calls first. */
const verdicts = v.pipe(v.array(v.strictObject({ ...failure, peerId: name })), v.maxLength(MAX_REPORTED_FAILURES));

/** Collectives that wait for a peer, and could do without so many members. */
const excludable = v.pipe(
  v.array(v.strictObject({ id: collectiveId, epoch: u32, spare })),
  v.maxLength(MAX_TOLD_STRAGGLING),
);

/** A collective that goes on without some members, and the epoch of the attempt that does. */
const exclusion = v.strictObject({
  id: collectiveId,
  epoch: u32,
  peers: v.pipe(v.array(name), v.minLength(1), v.maxLength(MAX_WORLD_SIZE)),
});
const exclusions = v.pipe(v.array(exclusion), v.maxLength(MAX_REPORTED_FAILURES));

const rate = v.pipe(v.number(), v.minValue(0), v.maxValue(Number.MAX_SAFE_INTEGER));

/** Calls of one kind that have ended on a peer, since it came: these numbers only grow. `buckets`: of what succeeded, by its seconds. */
const calls = v.strictObject({
  kind: v.picklist([
    'allReduce',
    'broadcast',
    'reduce',
    'reduceScatter',
    'allGather',
    'gather',
    'scatter',
    'allToAll',
    'barrier',
  ]),
  failed: index,
  retries: index,
  sentBytes: index,
  receivedBytes: index,
  seconds: rate,
  buckets: v.pipe(v.array(index), v.length(LATENCY_BUCKETS)),
});

/** What goes to another peer at the moment, and by which path; null: that is not known yet. */
const flow = v.strictObject({
  peerId: name,
  path: v.nullable(v.picklist(['tcp', 'tls', 'unix', 'webrtc', 'turn', 'memory', 'ws'])),
  bytesPerSecond: rate,
  queuedBytes: index,
});

const figures = v.strictObject({
  /** Of the kinds of which there is news. */
  calls: v.pipe(v.array(calls), v.maxLength(16)),
  /** The largest, of those that carry something. */
  flows: v.pipe(v.array(flow), v.maxLength(MAX_TOLD_FLOWS)),
  /** By all ways together, lately. */
  sentPerSecond: rate,
  receivedPerSecond: rate,
  queuedBytes: index,
  /** Calls that have not ended. */
  open: v.pipe(u32, v.maxValue(MAX_OPEN_COLLECTIVES)),
  /** Last boundary that it has passed. */
  boundary: u32,
  /** Of a sign of life to the coordinator and its answer; null: none was measured. */
  roundTripMs: v.nullable(duration),
});

/** What a peer tells of itself and of the run when it comes back to a coordinator, perhaps one that knows nothing. */
const runReport = v.strictObject({
  peerId: name,
  /** Highest that it has heard. */
  term: u32,
  epoch: u32,
  state: v.picklist(['warming', 'ready', 'member']),
  /** Last that it has passed. */
  boundary: u32,
  views: v.pipe(v.array(view), v.maxLength(MAX_REPORTED_VIEWS)),
  /** Peers that were introduced to it. */
  peers: v.pipe(v.array(v.strictObject({ peerId: name, pair: u32 })), v.maxLength(MAX_WORLD_SIZE)),
  /** Collectives that failed, or that it withdrew from. */
  failed: v.pipe(v.array(v.strictObject({ ...failure, generation: u32 })), v.maxLength(MAX_REPORTED_FAILURES)),
  /** Collectives that go on without some members. */
  excluded: exclusions,
});

/** The way from one peer to another: what it carries, and half of a round trip; null where that was not measured. */
const measuredLink = v.strictObject({
  peerId: name,
  bytesPerSecond: v.nullable(v.pipe(v.number(), v.minValue(1), v.maxValue(1e13))),
  delayMs: v.nullable(duration),
});

/** From one end of a WebRTC session to the other (see transport/webrtc.ts). */
const sdp = v.pipe(v.string(), v.maxLength(MAX_SDP_LENGTH));
const signal = v.variant('kind', [
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

/** STUN and TURN servers, and for how long their credentials are good. */
const ice = v.strictObject({
  servers: v.pipe(
    v.array(v.strictObject({ url: name, username: v.optional(name), credential: v.optional(name) })),
    v.maxLength(MAX_ICE_SERVERS),
  ),
  validMs: milliseconds,
});

/** Bytes that mean something to others only. */
function bytesUpTo(limit: number): v.GenericSchema<unknown, Uint8Array> {
  return v.custom<Uint8Array>((value) => value instanceof Uint8Array && value.length <= limit);
}
/** JSON, in which only the one who asked for it looks (`flight.ts`). */
const flightDump = /* @__PURE__ */ bytesUpTo(MAX_FLIGHT_BYTES);
/** Calls that have ended of which a flight record is to tell. */
const flightCalls = v.pipe(u32, v.maxValue(MAX_FLIGHT_CALLS));

const noteBytes = /* @__PURE__ */ v.nullable(/* @__PURE__ */ bytesUpTo(MAX_NOTES_BYTES));
/**
 * `vector`: what the sender has; a peer's asks for the rest, and for what comes later. `update`: what the receiver may lack.
 * `edition`: of the document; with `fresh` the update is all of a new one, which has what `vector` says of the edition before.
 */
const notes = { edition: u32, vector: noteBytes, update: noteBytes };

const peerMessage = v.variant('type', [
  /**
   * `claims`: of the pass that its bearer will prove to have; empty for the coordinator's token itself. `bound`: the proofs cover the
   * connection; a browser, and who comes through a proxy that ends TLS, can't know what to cover.
   */
  v.strictObject({
    type: v.literal('hello'),
    version: u32,
    run: name,
    claims: v.pipe(v.string(), v.maxLength(MAX_CLAIMS_LENGTH)),
    bound: v.optional(v.boolean(), false),
    nonce: secret,
  }),
  /** `resume`: a `resume` message follows. */
  v.strictObject({
    type: v.literal('prove'),
    proof: secret,
    startWorldSize: worldSize,
    /** What its process is called, the same after a restart; empty for one that has no name. */
    name: v.pipe(v.string(), v.maxLength(256)),
    resume: v.boolean(),
    ...description,
  }),
  v.strictObject({ type: v.literal('resume'), report: runReport }),
  v.strictObject({ type: v.literal('ready') }),
  v.strictObject({ type: v.literal('beat') }),
  /** `passed`: the last boundary whose answer has come. */
  v.strictObject({
    type: v.literal('boundary'),
    index: u32,
    passed: u32,
    minWorldSize: worldSize,
    oldest: u32,
  }),
  /** `spare`: so many members the collective could do without; 0 where it waits for all. */
  v.strictObject({ type: v.literal('done'), id: collectiveId, generation: u32, epoch: u32, spare }),
  v.strictObject({
    type: v.literal('progress'),
    epoch: u32,
    /** Results held in full; after `resumed` also those committed lately, as others may not have heard of that. */
    held: v.pipe(v.array(heldResult), v.maxLength(2 * MAX_OPEN_COLLECTIVES)),
    /** Eager calls that have returned there. */
    returned: v.pipe(v.array(collectiveId), v.maxLength(MAX_OPEN_COLLECTIVES)),
    /** Of calls that salvage what they can. */
    finished: allFinished,
  }),
  v.strictObject({
    type: v.literal('mismatch'),
    id: collectiveId,
    generation: u32,
    mine: text,
    theirs: text,
    with: name,
  }),
  v.strictObject({ type: v.literal('withdraw'), id: collectiveId, generation: u32, reason: text }),
  v.strictObject({ type: v.literal('link-closed'), peerId: name }),
  v.strictObject({ type: v.literal('signal'), to: name, signal }),
  /** Asks for servers whose credentials are good for longer. */
  v.strictObject({ type: v.literal('ice') }),
  /** Whether this peer can reach the other one: told when that has changed, and was so for a while. */
  v.strictObject({ type: v.literal('path'), peerId: name, open: v.boolean() }),
  /** How long this peer waited for others in the last second, if that is worth telling. */
  v.strictObject({
    type: v.literal('waits'),
    waits: v.pipe(
      v.array(v.strictObject({ peerId: name, receiveMs: duration, sendMs: duration, calls: excludable })),
      v.maxLength(MAX_WORLD_SIZE),
    ),
  }),
  /** What the ways from this peer to some others were measured to be worth lately. */
  v.strictObject({
    type: v.literal('links'),
    links: v.pipe(v.array(measuredLink), v.minLength(1), v.maxLength(MAX_TOLD_LINKS)),
  }),
  /** Asks for the flight records of all peers. */
  v.strictObject({ type: v.literal('ask-flights'), calls: flightCalls }),
  /** One's own, for the peer that asked for it. */
  v.strictObject({ type: v.literal('flight'), to: name, dump: flightDump }),
  /** What this peer has done, and what it is doing: to a coordinator that watches, about once a second while that changes. */
  v.strictObject({ type: v.literal('figures'), ...figures.entries }),
  v.strictObject({ type: v.literal('notes'), ...notes }),
  v.strictObject({ type: v.literal('leave') }),
]);

const coordinatorMessage = v.variant('type', [
  v.strictObject({ type: v.literal('challenge'), version: u32, nonce: secret, proof: secret }),
  v.strictObject({
    type: v.literal('welcome'),
    peerId: name,
    heartbeatMs: milliseconds,
    boundMs: milliseconds,
    ice,
    peers: v.pipe(v.array(introduction), v.maxLength(MAX_WORLD_SIZE)),
  }),
  /** The answer to `resume`. */
  v.strictObject({ type: v.literal('resumed'), heartbeatMs: milliseconds, boundMs: milliseconds }),
  /** `leader`: from one that stands by, where peers find the one that leads. */
  v.strictObject({ type: v.literal('refuse'), code: name, message: text, leader: v.exactOptional(name) }),
  v.strictObject({ type: v.literal('introduce'), peer: introduction }),
  v.strictObject({ type: v.literal('dismiss'), peerId: name }),
  v.strictObject({ type: v.literal('signal'), from: name, signal }),
  v.strictObject({ type: v.literal('ice'), ice }),
  v.strictObject({
    type: v.literal('admitted'),
    index: u32,
    view,
    joined: v.array(name),
    failed: verdicts,
    excluded: exclusions,
  }),
  v.strictObject({
    type: v.literal('boundary'),
    index: u32,
    view: v.nullable(view),
    joined: v.pipe(v.array(name), v.maxLength(MAX_WORLD_SIZE)),
    failed: verdicts,
    excluded: exclusions,
  }),
  v.strictObject({
    type: v.literal('loss'),
    epoch: u32,
    lost: v.pipe(v.array(lost), v.maxLength(MAX_WORLD_SIZE)),
    broken: v.nullable(v.strictTuple([name, name])),
    cuts,
    /** Somebody came back, or the coordinator did: everything open is decided anew. */
    resumed: v.boolean(),
  }),
  v.strictObject({ type: v.literal('decide'), epoch: u32, committed: v.array(heldResult), kept: allFinished }),
  v.strictObject({ type: v.literal('commit'), id: collectiveId, epoch: u32 }),
  v.strictObject({
    type: v.literal('fail'),
    ...failure,
    peerId: name,
  }),
  /** A collective is begun anew without these members, whom the others have waited for too long. */
  v.strictObject({ type: v.literal('exclude'), ...exclusion.entries }),
  /** Others wait for this member, and it waits for nobody. */
  v.strictObject({
    type: v.literal('slow'),
    peerId: name,
    waiting: v.pipe(v.array(name), v.maxLength(MAX_WORLD_SIZE)),
    blocked: v.pipe(v.array(name), v.maxLength(MAX_WORLD_SIZE)),
    waitedMs: duration,
  }),
  /** Asks for the way to another peer to be measured, as nothing goes there by which it could be. */
  v.strictObject({ type: v.literal('probe'), peerId: name }),
  /** The answer to `ask-flights`: whose records will come, and who has no connection to the coordinator. */
  v.strictObject({
    type: v.literal('flights-asked'),
    peers: v.pipe(v.array(name), v.maxLength(MAX_WORLD_SIZE)),
    absent: v.pipe(v.array(name), v.maxLength(MAX_WORLD_SIZE)),
  }),
  /** Somebody asks for this peer's flight record. */
  v.strictObject({ type: v.literal('flight-wanted'), by: name, calls: flightCalls }),
  v.strictObject({ type: v.literal('flight-of'), from: name, dump: flightDump }),
  /** It wants to be told `figures`, all of them once and then what changes. */
  v.strictObject({ type: v.literal('watch') }),
  v.strictObject({ type: v.literal('noted'), fresh: v.boolean(), ...notes }),
  v.strictObject({ type: v.literal('evicted'), reason: text }),
  v.strictObject({ type: v.literal('beat') }),
]);

/** The handshake of a data connection (see transport/handshake.ts). */
const dialMessage = v.variant('type', [
  v.strictObject({
    type: v.literal('dial'),
    version: u32,
    run: name,
    from: name,
    to: name,
    session: u32,
    /** As the dialler sees it: `inbound`, it reads; `outbound`, it writes; `successor`, it will read when it has said so. */
    lane: v.picklist(['inbound', 'outbound', 'successor', 'inbound-more', 'outbound-more']),
    nonce: secret,
  }),
  v.strictObject({ type: v.literal('dial-accept'), nonce: secret, proof: secret }),
  v.strictObject({ type: v.literal('dial-prove'), proof: secret }),
]);

export type PeerMessage = v.InferOutput<typeof peerMessage>;
export type CoordinatorMessage = v.InferOutput<typeof coordinatorMessage>;
export type DialMessage = v.InferOutput<typeof dialMessage>;
export type Introduction = v.InferOutput<typeof introduction>;
export type PeerDescription = Pick<Introduction, 'hostKey' | 'site' | 'addresses' | 'cores'>;
export type IceServers = v.InferOutput<typeof ice>;
export type HeldResult = v.InferOutput<typeof heldResult>;
export type FinishedRanges = v.InferOutput<typeof finished>;
export type Excludable = v.InferOutput<typeof excludable>[number];
export type Exclusion = v.InferOutput<typeof exclusion>;
export type RunReport = v.InferOutput<typeof runReport>;
export type MeasuredLink = v.InferOutput<typeof measuredLink>;
export type Figures = v.InferOutput<typeof figures>;
export type WireView = v.InferOutput<typeof view>;
export type NotesMessage = Omit<Extract<PeerMessage, { type: 'notes' }>, 'type'>;
export type NotedMessage = Omit<Extract<CoordinatorMessage, { type: 'noted' }>, 'type'>;

/** Both fences and the message they protect. */
export interface Control<M> {
  readonly term: number;
  readonly epoch: number;
  readonly message: M;
}

/** Bytes in a message are copied out: the memory that it was read from is used for the next read. */
const packr = new Packr({ useRecords: false, mapsAsObjects: true, copyBuffers: true });

/** By far the most frequent message. */
const BEAT: Uint8Array = Uint8Array.from(packr.pack({ type: 'beat' }));

/** The highest byte of a length is the kind of a page, 0 for a message of its own. */
const KIND_SHIFT = 24;
const LENGTH_MASK: number = 2 ** KIND_SHIFT - 1;

function setHeader(
  bytes: Uint8Array,
  at: number,
  length: number,
  { term, epoch }: Omit<Control<never>, 'message'>,
): void {
  const view = new DataView(bytes.buffer);
  view.setUint32(at, length, true);
  view.setUint32(at + 4, term, true);
  view.setUint32(at + 8, epoch, true);
}

/** One message as it is sent, in as many frames as it takes. */
export function encodeControl(
  message: PeerMessage | CoordinatorMessage | DialMessage,
  term: number,
  epoch: number,
): Uint8Array {
  const body = message.type === 'beat' ? BEAT : packr.pack(message);
  const fences = { term, epoch };
  if (body.length > MAX_CONTROL_BYTES) {
    const long = [...LONG_FROM_PEERS, ...LONG_FROM_COORDINATOR].find(({ type }) => type === message.type);
    // Of another kind no message is that long, and none would be taken.
    if (long !== undefined) return encodePages(body, long.kind, fences);
  }
  const bytes = new Uint8Array(CONTROL_HEADER_BYTES + body.length);
  setHeader(bytes, 0, body.length, fences);
  bytes.set(body, CONTROL_HEADER_BYTES);
  return bytes;
}

function encodePages(body: Uint8Array, kind: number, fences: Omit<Control<never>, 'message'>): Uint8Array {
  const pages = [...pagesOf(body)];
  const bytes = new Uint8Array(body.length + pages.length * (CONTROL_HEADER_BYTES + PAGE_HEADER_BYTES));
  const view = new DataView(bytes.buffer);
  let at = 0;
  for (const { part, left } of pages) {
    setHeader(bytes, at, (kind << KIND_SHIFT) | (PAGE_HEADER_BYTES + part.length), fences);
    view.setUint32(at + CONTROL_HEADER_BYTES, left, true);
    bytes.set(part, at + CONTROL_HEADER_BYTES + PAGE_HEADER_BYTES);
    at += CONTROL_HEADER_BYTES + PAGE_HEADER_BYTES + part.length;
  }
  return bytes;
}

/** `long`: what of it may take several frames. */
export interface ControlSchema<M> extends v.GenericSchema<unknown, M> {
  readonly long: readonly LongMessage[];
}

interface TypedOption<M> extends v.GenericSchema<unknown, M> {
  readonly entries: { readonly type: { readonly literal: string } };
}

/** A variant that goes straight to the option of a message's type: to try one after the other costs more than all the rest. */
function byType<M>(
  variant: v.GenericSchema<unknown, M> & { readonly options: readonly TypedOption<M>[] },
  long: readonly LongMessage[],
): ControlSchema<M> {
  const options = new Map<unknown, v.GenericSchema<unknown, M>>();
  for (const option of variant.options) options.set(option.entries.type.literal, option);
  const typeOf = (input: unknown) => (typeof input === 'object' && input !== null && 'type' in input ? input.type : '');
  return Object.assign(
    v.lazy((input) => options.get(typeOf(input)) ?? variant),
    { long },
  );
}

// Pure: the bundle for browsers leaves out the messages that nobody reads there.
export const PEER_MESSAGES: ControlSchema<PeerMessage> = /* @__PURE__ */ byType(peerMessage, LONG_FROM_PEERS);
export const COORDINATOR_MESSAGES: ControlSchema<CoordinatorMessage> = /* @__PURE__ */ byType(
  coordinatorMessage,
  LONG_FROM_COORDINATOR,
);
export const DIAL_MESSAGES: ControlSchema<DialMessage> = /* @__PURE__ */ byType(dialMessage, []);

/** Outcome of parsing: a value, or what is wrong. */
export type Parsed<M> = { readonly ok: true; readonly value: M } | { readonly ok: false; readonly error: string };

/** Unpacks and validates one msgpack body. */
export function parseBody<M>(schema: v.GenericSchema<unknown, M>, body: Uint8Array): Parsed<M> {
  const strange = checkPlain(body);
  if (strange !== null) return { ok: false, error: `a control message is not plain msgpack: ${strange}` };
  let unpacked: unknown;
  try {
    unpacked = packr.unpack(body);
  } catch (error) {
    return { ok: false, error: `a control message is not msgpack: ${String(error)}`.slice(0, MAX_TEXT_LENGTH) };
  }
  // Only the first issue is told, and a list of millions of them would cost gigabytes.
  const result = v.safeParse(schema, unpacked, { abortEarly: true });
  if (result.success) return { ok: true, value: result.output };
  const issue = result.issues[0];
  // It quotes what came, which may be as long as the message.
  const text = `a control message is not valid: ${v.getDotPath(issue) ?? 'message'}: ${issue.message}`;
  return { ok: false, error: text.slice(0, MAX_TEXT_LENGTH) };
}

/** Packs a plain value for the payload of an `open` frame. */
export function packBody(value: object): Uint8Array {
  return Uint8Array.from(packr.pack(value));
}

const NOTHING = new Uint8Array(0);

/**
 * Cuts a byte stream into control messages. No more than `limit` bytes of a frame are ever kept, and a length above
 * it is refused before anything is reserved. Pages are taken only where a frame may have its full size.
 */
export class ControlReader<M> {
  readonly #schema: ControlSchema<M>;
  readonly #pages: PageGatherer;
  #limit: number;
  #beat: Parsed<M> | null = null;
  /** What is kept stands at its start; the rest is room, so that a message in tiny pieces is not copied for each of them. */
  #memory: Uint8Array = NOTHING;
  #kept = 0;

  constructor(schema: ControlSchema<M>, limit: number) {
    this.#schema = schema;
    this.#pages = new PageGatherer(schema.long);
    this.#limit = limit;
  }

  /** Raises the limit once the other end has proved who it is. */
  setLimit(bytes: number): void {
    this.#limit = bytes;
  }

  /**
   * Takes the next bytes; calls `onMessage` for each complete message until it returns false.
   * Returns what is wrong, or null.
   */
  push(bytes: Uint8Array, onMessage: (control: Control<M>) => boolean): string | null {
    const data = this.#kept > 0 ? this.#append(bytes) : bytes;
    const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
    let at = 0;
    while (data.length - at >= CONTROL_HEADER_BYTES) {
      const word = view.getUint32(at, true);
      const [kind, length] = [word >>> KIND_SHIFT, word & LENGTH_MASK];
      const isWrong = kind !== 0 && this.#limit < MAX_CONTROL_BYTES;
      if (length > this.#limit || isWrong)
        return this.#refuse(`a control message of ${word} bytes is longer than the limit of ${this.#limit}`);
      const end = at + CONTROL_HEADER_BYTES + length;
      if (end > data.length) break;
      const [term, epoch] = [view.getUint32(at + 4, true), view.getUint32(at + 8, true)];
      const parsed = this.#take(data.subarray(at + CONTROL_HEADER_BYTES, end), { kind, term, epoch });
      if (parsed?.ok === false) return this.#refuse(parsed.error);
      at = end;
      if (parsed !== null && !onMessage({ term, epoch, message: parsed.value })) break;
    }
    // What was appended to is kept as it is, unless a message was taken from it.
    if (at > 0 || this.#kept === 0) {
      this.#memory = at < data.length ? data.slice(at) : NOTHING;
      this.#kept = this.#memory.length;
    }
    return null;
  }

  /** What a frame says; null when it is a page of a message that is not whole yet. */
  #take(body: Uint8Array, mark: PageMark): Parsed<M> | null {
    if (mark.kind === 0) {
      if (this.#pages.isWaiting) return { ok: false, error: 'a control message came between the pages of another' };
      return this.#parse(body);
    }
    const whole = this.#pages.push(mark, body);
    if (whole === null) return null;
    if (typeof whole === 'string') return { ok: false, error: whole };
    const parsed = parseBody(this.#schema, whole.body);
    // Its limit is that of its type, so it must be what its pages said it is.
    if (parsed.ok && (parsed.value as { readonly type?: unknown }).type !== whole.type)
      return { ok: false, error: `a control message came in pages of ${whole.type}, and is none` };
    return parsed;
  }

  /** Signs of life are all alike, and often all that comes: what was taken once need not be looked at again. */
  #parse(body: Uint8Array): Parsed<M> {
    const isBeat = body.length === BEAT.length && BEAT.every((byte, at) => body[at] === byte);
    if (isBeat && this.#beat !== null) return this.#beat;
    const parsed = parseBody(this.#schema, body);
    if (isBeat && parsed.ok) this.#beat = parsed;
    return parsed;
  }

  /** The stream is unusable: nothing of it is kept. */
  #refuse(error: string): string {
    this.#pages.forget();
    this.#memory = NOTHING;
    this.#kept = 0;
    return error;
  }

  /** What was kept with `bytes` after it. */
  #append(bytes: Uint8Array): Uint8Array {
    const length = this.#kept + bytes.length;
    if (length > this.#memory.length) {
      const grown = new Uint8Array(Math.max(length, 2 * this.#kept));
      grown.set(this.#memory.subarray(0, this.#kept), 0);
      this.#memory = grown;
    }
    this.#memory.set(bytes, this.#kept);
    this.#kept = length;
    return this.#memory.subarray(0, length);
  }

  /** Bytes received after the last message that `push` handed on. */
  get rest(): Uint8Array {
    return this.#memory.subarray(0, this.#kept);
  }
}
