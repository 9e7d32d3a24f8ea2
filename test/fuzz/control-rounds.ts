/** Damaged control messages into the real reader, and what it lets through into the real machine of the coordinator. */
import { isDeepStrictEqual } from 'node:util';
import { CoordinatorMachine } from '../../src/membership/coordinator.ts';
import type { ControlSchema } from '../../src/wire/control-schema.ts';
import { COORDINATOR_MESSAGES, type CoordinatorMessage } from '../../src/wire/coordinator-messages.ts';
import { DIAL_MESSAGES, type DialMessage } from '../../src/wire/dial-messages.ts';
import { MAX_CONTROL_BYTES, MAX_HANDSHAKE_BYTES, MAX_TEXT_LENGTH } from '../../src/wire/limits.ts';
import { CONTROL_HEADER_BYTES, type Control, ControlReader, encodeControl } from '../../src/wire/messages.ts';
import { PEER_MESSAGES, type PeerMessage } from '../../src/wire/peer-messages.ts';
import type { Random } from '../sim/random.ts';
import { concat, pushInPieces } from '../wire/cut.ts';
import { COORDINATOR_EXAMPLES, DIAL_EXAMPLES, PEER_EXAMPLES } from '../wire/examples.ts';
import { cuts, damagedControl } from './bytes.ts';
import type { Corpus } from './corpus.ts';
import { twistedMessage } from './values.ts';

export interface ControlTally {
  messages: number;
  refused: number;
  /** Let through although something was done to them: they are valid, if not true. */
  taken: number;
}

type Message = PeerMessage | CoordinatorMessage | DialMessage;

/** Messages in a stream of one round, at most. */
const MOST_MESSAGES = 6;

function require(holds: boolean, promise: string): void {
  if (!holds) throw new Error(`broken: ${promise}`);
}

function hostile(message: Message, bytes: Uint8Array, random: Random): Uint8Array {
  const how = random.next();
  if (how < 0.1) return bytes;
  if (how < 0.15) return random.bytes(random.integer(1, 300));
  if (how < 0.5) return twistedMessage(message, random.integer(0, 2), random.integer(0, 3), random);
  return damagedControl(bytes, random);
}

/** Reads a damaged stream; returns what was let through. */
function readDamaged<M extends Message>(
  schema: ControlSchema<M>,
  sources: readonly { readonly message: M; readonly bytes: Uint8Array }[],
  random: Random,
  tally: ControlTally,
): readonly Control<M>[] {
  const count = random.integer(1, MOST_MESSAGES);
  tally.messages += count;
  const stream = concat(
    Array.from({ length: count }, () => {
      const { message, bytes } = random.pick(sources);
      return hostile(message, bytes, random);
    }),
  );
  const limit = random.pick([MAX_HANDSHAKE_BYTES, MAX_CONTROL_BYTES]);
  const reader = new ControlReader(schema, limit);
  const taken: Control<M>[] = [];
  const error = pushInPieces(stream, cuts(random), (piece) => {
    const wrong = reader.push(piece, (control) => taken.push(control) > 0);
    require(reader.rest.length <= limit + CONTROL_HEADER_BYTES, 'no more than the limit is kept');
    return wrong;
  });
  if (error !== null) {
    tally.refused += 1;
    require(error.startsWith('a control message ') && error.length <= MAX_TEXT_LENGTH, 'errors are short texts');
  }
  tally.taken += taken.length;
  for (const { message } of taken) checkTaken(schema, message);
  // What was wrong with one connection means nothing to the next one.
  const { message } = random.pick(sources);
  const good: M[] = [];
  const refused = new ControlReader(schema, MAX_CONTROL_BYTES).push(encodeControl(message, 1, 1), (control) => {
    good.push(control.message);
    return true;
  });
  require(refused === null && isDeepStrictEqual(good, [message]), 'a good message comes as it was sent');
  require(Object.keys(Object.prototype).length === 0, 'no object has a key that it was not given');
  return taken;
}

/** What was let through is a message that could be sent. */
function checkTaken<M extends Message>(schema: ControlSchema<M>, message: M): void {
  let again = 0;
  const error = new ControlReader(schema, MAX_CONTROL_BYTES).push(encodeControl(message, 1, 1), () => ++again > 0);
  require(error === null && again === 1, `what is taken is valid: ${error}`);
}

function examplesOf<M extends Message>(examples: readonly M[]): readonly { message: M; bytes: Uint8Array }[] {
  return examples.map((message) => ({ message, bytes: encodeControl(message, 1, 1) }));
}

/** Three members and a newcomer, and whatever messages were let through from any of them. */
function stepMachine(controls: readonly Control<PeerMessage>[], random: Random): void {
  const machine = new CoordinatorMachine({
    heartbeatMs: 250,
    bounds: { minimumMs: 3_000, maximumMs: 12_000 },
    random: (length) => random.bytes(length),
    iceServers: () => ({ servers: [], validMs: 1_000 }),
    stored: null,
    graceMs: 0,
    probes: true,
  });
  const ids: string[] = [];
  let now = 0;
  const step = (event: Parameters<CoordinatorMachine['step']>[0]) => {
    now += random.integer(0, 300);
    for (const effect of machine.step(event, now)) {
      if (effect.type === 'assign') ids.push(effect.peerId);
      if (effect.type === 'send') checkTaken(COORDINATOR_MESSAGES, effect.message);
    }
  };
  const { hostKey, site, addresses, cores } = PEER_EXAMPLES.prove;
  for (let connection = 0; connection < 4; connection++) {
    step({
      type: 'joined',
      connection,
      description: { hostKey, site, addresses, cores },
      startWorldSize: 3,
      name: site,
    });
    if (connection < 3) step({ type: 'message', peerId: ids[connection]!, message: { type: 'ready' } });
  }
  for (const { message } of controls) {
    step({ type: 'message', peerId: random.pick(ids), message });
    if (random.chance(0.2)) step({ type: 'tick' });
    if (random.chance(0.05)) step({ type: 'closed', peerId: random.pick(ids) });
  }
}

export interface ControlSources {
  readonly peers: readonly { readonly message: PeerMessage; readonly bytes: Uint8Array }[];
  readonly coordinator: readonly { readonly message: CoordinatorMessage; readonly bytes: Uint8Array }[];
  readonly handshakes: readonly { readonly message: DialMessage; readonly bytes: Uint8Array }[];
}

/** What was recorded, and one message of each kind, which the recording may lack. */
export function controlSources(corpus: Corpus): ControlSources {
  return {
    peers: [...corpus.toCoordinator, ...examplesOf<PeerMessage>(Object.values(PEER_EXAMPLES))],
    coordinator: [...corpus.fromCoordinator, ...examplesOf<CoordinatorMessage>(Object.values(COORDINATOR_EXAMPLES))],
    handshakes: [...corpus.handshakes, ...examplesOf<DialMessage>(Object.values(DIAL_EXAMPLES))],
  };
}

export function controlRound(sources: ControlSources, random: Random, tally: ControlTally): void {
  const which = random.next();
  if (which < 0.5) stepMachine(readDamaged(PEER_MESSAGES, sources.peers, random, tally), random);
  else if (which < 0.8) readDamaged(COORDINATOR_MESSAGES, sources.coordinator, random, tally);
  else readDamaged(DIAL_MESSAGES, sources.handshakes, random, tally);
}
