/** What the coordinator says to peers. */
import * as v from 'valibot';
import { byType, type ControlSchema } from './control-schema.ts';
import { MAX_ICE_SERVERS, MAX_REPORTED_FAILURES, MAX_WORLD_SIZE } from './limits.ts';
import { LONG_FROM_COORDINATOR } from './pages.ts';
import {
  allFinished,
  collectiveId,
  cuts,
  description,
  duration,
  exclusion,
  exclusions,
  failure,
  flightCalls,
  flightDump,
  heldResult,
  name,
  notes,
  secret,
  signal,
  text,
  u32,
  view,
} from './parts.ts';

/** What timers can count. */
const milliseconds = v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(2 ** 31 - 1));

/** `pair`: a number that both ends of one introduction have in common, and with them the key. */
const introduction = v.strictObject({ peerId: name, pair: u32, key: secret, ...description });
const lost = v.strictObject({ peerId: name, reason: text });

/** Collectives of a view that failed before a member came to it: along with the view, or it could make those calls first. */
const verdicts = v.pipe(v.array(v.strictObject({ ...failure, peerId: name })), v.maxLength(MAX_REPORTED_FAILURES));

/** STUN and TURN servers, and for how long their credentials are good. */
const ice = v.strictObject({
  servers: v.pipe(
    v.array(v.strictObject({ url: name, username: v.optional(name), credential: v.optional(name) })),
    v.maxLength(MAX_ICE_SERVERS),
  ),
  validMs: milliseconds,
});

const coordinatorMessage = v.variant('type', [
  v.strictObject({ type: v.literal('challenge'), version: u32, nonce: secret, proof: secret }),
  /** `isUnderWay`: a view has formed, and its members will wait for whoever comes in. */
  v.strictObject({
    type: v.literal('welcome'),
    peerId: name,
    isUnderWay: v.boolean(),
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

export type CoordinatorMessage = v.InferOutput<typeof coordinatorMessage>;
export type Introduction = v.InferOutput<typeof introduction>;
export type PeerDescription = Pick<Introduction, 'hostKey' | 'site' | 'addresses' | 'cores'>;
export type IceServers = v.InferOutput<typeof ice>;
export type NotedMessage = Omit<Extract<CoordinatorMessage, { type: 'noted' }>, 'type'>;

export const COORDINATOR_MESSAGES: ControlSchema<CoordinatorMessage> = byType(
  coordinatorMessage,
  LONG_FROM_COORDINATOR,
);
