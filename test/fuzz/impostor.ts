/** A coordinator that knows the token and means ill: lets a peer in as it should, and then says whatever it likes. */
import { UNMEASURED } from '../../src/costs.ts';
import { ControlConnection } from '../../src/engine/control-connection.ts';
import { systemPlatform } from '../../src/engine/platform.ts';
import { formatTcpAddress } from '../../src/transport/address.ts';
import { NONCE_BYTES, prove } from '../../src/transport/secure.ts';
import { tcpTransport } from '../../src/transport/tcp.ts';
import type { Connection } from '../../src/transport/transport.ts';
import type { CoordinatorMessage } from '../../src/wire/coordinator-messages.ts';
import { PROTOCOL_VERSION } from '../../src/wire/limits.ts';
import { encodeControl } from '../../src/wire/messages.ts';
import type { WireView } from '../../src/wire/parts.ts';
import { PEER_MESSAGES, type PeerMessage } from '../../src/wire/peer-messages.ts';
import type { PeerProcess } from '../harness/cluster.ts';
import type { Random } from '../sim/random.ts';
import { damagedControl } from './bytes.ts';
import { type Corpus, TOKEN } from './corpus.ts';
import { ignore, write } from './hostile.ts';
import { twistedMessage } from './values.ts';

/** Each call of the victim ends within this, and with it the session (ms). */
const CALL_MS = 2_000;

const MOST_MESSAGES = 30;
const VICTIM = 'p0-victim';
const NOBODY = 'p1-nobody';
const NO_RUN = 'nowhere';

/** Names of the recorded run become those of this one. */
function renamed(value: unknown, corpus: Corpus): unknown {
  if (typeof value === 'string') {
    const rank = corpus.view.members.findIndex(({ peerId }) => peerId === value);
    return rank < 0 ? value : ([VICTIM, NOBODY][rank] ?? value);
  }
  if (Array.isArray(value)) return value.map((one: unknown) => renamed(one, corpus));
  if (value instanceof Uint8Array || typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, renamed(one, corpus)]));
}

function view(random: Random, epoch: number): WireView {
  const ids = random.chance(0.6)
    ? [VICTIM]
    : random.pick([[VICTIM, NOBODY], [NOBODY], [], [VICTIM, VICTIM], [NOBODY, VICTIM]]);
  return {
    epoch,
    generation: random.chance(0.8) ? epoch : random.integer(0, 5),
    boundary: random.integer(0, 3),
    members: ids.map((peerId) => ({ peerId, site: '', place: 0 })),
    cuts: random.chance(0.7) ? [] : [[VICTIM, random.pick([VICTIM, NOBODY])]],
    costs: UNMEASURED,
  };
}

/** Valid messages that no honest coordinator would send in this order. */
function lie(random: Random): CoordinatorMessage {
  const id = `${random.integer(0, 3)}:${random.pick(['', 'a'])}:${random.pick(['0', '1', '', '-1', '1e3', 'NaN'])}`;
  const epoch = random.integer(0, 5);
  const lies: readonly CoordinatorMessage[] = [
    { type: 'admitted', index: random.integer(0, 3), view: view(random, epoch), joined: [], failed: [], excluded: [] },
    {
      type: 'boundary',
      index: random.integer(0, 9),
      view: random.chance(0.3) ? null : view(random, epoch),
      joined: [],
      failed: random.chance(0.5) ? [] : [{ id, code: 'lost', message: 'so', peerId: NOBODY }],
      excluded: random.chance(0.5) ? [] : [{ id, epoch, peers: [random.pick([VICTIM, NOBODY])] }],
    },
    { type: 'exclude', id, epoch, peers: [random.pick([VICTIM, NOBODY])] },
    {
      type: 'loss',
      epoch,
      lost: [{ peerId: random.pick([VICTIM, NOBODY]), reason: 'so' }],
      broken: null,
      cuts: [],
      resumed: false,
    },
    { type: 'exclude', id, epoch, peers: [random.pick([VICTIM, NOBODY])] },
    {
      type: 'loss',
      epoch,
      lost: [],
      broken: [VICTIM, random.pick([VICTIM, NOBODY])],
      cuts: [[NOBODY, VICTIM]],
      resumed: random.chance(0.5),
    },
    { type: 'decide', epoch, committed: [{ id, epoch }], kept: [{ id, ranges: [{ start: 0, end: 10, epoch }] }] },
    { type: 'commit', id, epoch },
    { type: 'fail', id, code: random.pick(['mismatch', 'withdrawn', 'lost']), message: 'so', peerId: NOBODY },
    { type: 'dismiss', peerId: random.pick([VICTIM, NOBODY]) },
    {
      type: 'introduce',
      peer: {
        peerId: random.pick([VICTIM, NOBODY]),
        pair: random.integer(0, 3),
        key: random.bytes(32),
        hostKey: 'here',
        site: '',
        cores: 1,
        addresses: [
          {
            kind: 'tcp',
            host: random.pick(['127.0.0.1', '\0', '::1%x', 'a b', '127.0.0.1\0x']),
            port: random.pick([0, 1]),
          },
          { kind: 'unix', path: random.pick(['/', '\0', 'x'.repeat(200), '/tmp/\0/x']) },
        ],
      },
    },
    { type: 'challenge', version: PROTOCOL_VERSION, nonce: random.bytes(32), proof: random.bytes(32) },
  ];
  return random.pick(lies);
}

export interface ImpostorTally {
  sessions: number;
  messages: number;
}

function hostile(corpus: Corpus, random: Random): Uint8Array {
  if (random.chance(0.6)) return encodeControl(lie(random), 1, random.pick([0, 1, 1, 5]));
  const { message } = random.pick(corpus.fromCoordinator);
  const here = renamed(message, corpus) as CoordinatorMessage; // strings were replaced by strings
  if (random.chance(0.3)) return encodeControl(here, 1, 1);
  if (random.chance(0.5)) return twistedMessage(here, 1, 1, random);
  return damagedControl(encodeControl(here, 1, 1), random);
}

/** Greets a peer as a coordinator does; `onProved` says what comes next, and nothing more is read. */
export function greetAsCoordinator(connection: Connection, token: string, onProved: () => void): void {
  const own = systemPlatform.random(NONCE_BYTES);
  const control = new ControlConnection<PeerMessage, CoordinatorMessage>(connection, PEER_MESSAGES, {
    onMessage: ({ message }) => {
      if (message.type === 'hello') {
        const parts = { subject: message.run, binding: connection.binding, own, theirs: message.nonce };
        const proof = prove(token, 'coordinator', parts);
        control.send({ type: 'challenge', version: PROTOCOL_VERSION, nonce: own, proof }, 1, 0);
      } else if (message.type === 'prove') {
        ignore(connection);
        onProved();
      }
    },
    onClosed: () => {},
  });
}

/** Plays the coordinator on one connection. */
function serve(connection: Connection, corpus: Corpus, random: Random, tally: ImpostorTally): void {
  const attack = async () => {
    const welcome: CoordinatorMessage = {
      type: 'welcome',
      peerId: VICTIM,
      isUnderWay: random.chance(0.5),
      heartbeatMs: 50,
      boundMs: 5_000,
      ice: { servers: [], validMs: 1_000 },
      peers: [],
    };
    if (random.chance(0.15)) await write(connection, twistedMessage(welcome, 1, 0, random));
    else await write(connection, encodeControl(welcome, 1, 0));
    const members = [{ peerId: VICTIM, site: '', place: 0 }];
    if (random.chance(0.5)) members.push({ peerId: NOBODY, site: '', place: 1 });
    const admitted: CoordinatorMessage = {
      type: 'admitted',
      index: 1,
      view: { epoch: 1, generation: 1, boundary: 1, members, cuts: [], costs: UNMEASURED },
      joined: [],
      failed: [],
      excluded: [],
    };
    if (random.chance(0.85)) await write(connection, encodeControl(admitted, 1, 1));
    for (let count = random.integer(1, MOST_MESSAGES); count > 0 && !connection.closed; count--) {
      tally.messages += 1;
      await write(connection, hostile(corpus, random));
      // Now and then the victim gets to make a call before the next one.
      if (random.chance(0.3)) await new Promise((resolve) => setImmediate(resolve));
    }
    connection.end();
  };
  greetAsCoordinator(connection, TOKEN, () => void attack());
}

/** One session: the victim joins, calls, and leaves, and each of these ends in one way or another. */
export async function deceive(
  victim: PeerProcess,
  corpus: Corpus,
  random: Random,
  tally: ImpostorTally,
): Promise<void> {
  const opened: Connection[] = [];
  const listener = await tcpTransport.listen({ kind: 'tcp', host: '127.0.0.1', port: 0 }, (connection) => {
    opened.push(connection);
    serve(connection, corpus, random, tally);
  });
  tally.sessions += 1;
  // In a thread, what the engine did not foresee ends the process at once; without one there are more sessions in the time.
  const engine = random.chance(0.4) ? ('worker' as const) : ('inline' as const);
  try {
    await victim.run(
      async ({ skein }, { address, run, token, timeout, engine }) => {
        const options = { run, token, timeout, engine };
        const group = await skein.join(address, options).catch(() => null);
        if (group === null) return;
        const sum = (tag: string, count: number) => group.allReduce(new Float32Array(count), { tag, timeout: 300 });
        await Promise.allSettled([
          sum('', 10),
          sum('a', 100_000),
          group.barrier({ timeout: 300 }),
          group.admit({ timeout: 300 }),
        ]);
        await Promise.allSettled([sum('', 10), group.admit({ timeout: 300 })]);
        await group.leave();
      },
      { address: formatTcpAddress(listener.address), run: NO_RUN, token: TOKEN, timeout: CALL_MS, engine },
    );
  } finally {
    for (const connection of opened) connection.destroy();
    await listener.close();
  }
}
