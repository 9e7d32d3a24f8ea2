/** What peers say to the coordinator. Only coordinators read it, so browsers carry its types and nothing else. */
import * as v from 'valibot';
import { byType, type ControlSchema } from './control-schema.ts';
import {
  LATENCY_BUCKETS,
  MAX_CLAIMS_LENGTH,
  MAX_OPEN_COLLECTIVES,
  MAX_REPORTED_FAILURES,
  MAX_REPORTED_VIEWS,
  MAX_TOLD_FLOWS,
  MAX_TOLD_LINKS,
  MAX_TOLD_STRAGGLING,
  MAX_WORLD_SIZE,
} from './limits.ts';
import { LONG_FROM_PEERS } from './pages.ts';
import {
  allFinished,
  collectiveId,
  description,
  duration,
  exclusions,
  failure,
  flightCalls,
  flightDump,
  heldResult,
  index,
  name,
  notes,
  secret,
  signal,
  text,
  u32,
  view,
} from './parts.ts';

const spare = v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(MAX_WORLD_SIZE));
const worldSize = v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(MAX_WORLD_SIZE));

/** Collectives that wait for a peer, and could do without so many members. */
const excludable = v.pipe(
  v.array(v.strictObject({ id: collectiveId, epoch: u32, spare })),
  v.maxLength(MAX_TOLD_STRAGGLING),
);

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

export type PeerMessage = v.InferOutput<typeof peerMessage>;
export type Excludable = v.InferOutput<typeof excludable>[number];
export type RunReport = v.InferOutput<typeof runReport>;
export type MeasuredLink = v.InferOutput<typeof measuredLink>;
export type Figures = v.InferOutput<typeof figures>;
export type NotesMessage = Omit<Extract<PeerMessage, { type: 'notes' }>, 'type'>;

export const PEER_MESSAGES: ControlSchema<PeerMessage> = byType(peerMessage, LONG_FROM_PEERS);
