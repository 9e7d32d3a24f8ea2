/** Attacks on a live coordinator and live peers: by strangers, by a peer that joined, by a member, on every port and both ways. */
import { parseTcpAddress, shortcutOf } from '../../src/transport/address.ts';
import type { Address, Connection } from '../../src/transport/transport.ts';
import type { Introduction } from '../../src/wire/coordinator-messages.ts';
import { HEADER_BYTES, hashTag } from '../../src/wire/frame.ts';
import { encodeControl } from '../../src/wire/messages.ts';
import type { PeerMessage } from '../../src/wire/peer-messages.ts';
import type { Random } from '../sim/random.ts';
import { damagedControl, damagedFrame } from './bytes.ts';
import { type Corpus, type Said, TOKEN } from './corpus.ts';
import { type Garrison, RUN } from './garrison.ts';
import { dial, HostilePeer, ignore, write } from './hostile.ts';
import { twistedMessage } from './values.ts';

/** So many calls, from the good peers' next one on, are lied about: what a member says of one that is not made yet holds after it has gone. */
export const CALLS_LIED_ABOUT = 3;

/** Messages or frames that one connection gets, unless it is closed before. */
const MOST_PER_CONNECTION = 24;

/** The term of every coordinator. */
const TERM = 1;

/** Where the good peers are: what is aimed there gets furthest. */
interface Aim {
  epoch: number;
  generation: number;
  /** Least sequence number of their calls by now. */
  sequence: number;
}

export interface AssaultTally {
  /** Damaged messages and frames that were sent. */
  messages: number;
  frames: number;
  connections: number;
  joined: number;
  /** As members: hostile peers that were admitted. */
  members: number;
}

function emptyTally(): AssaultTally {
  return { messages: 0, frames: 0, connections: 0, joined: 0, members: 0 };
}

type Sendable = Said<{ readonly type: string }>;

function hostileMessage({ bytes, message }: Sendable, epoch: number, random: Random): Uint8Array {
  const how = random.next();
  if (how < 0.08) return random.bytes(random.integer(1, 400));
  if (how < 0.5) return twistedMessage(message, TERM, epoch, random);
  return damagedControl(bytes, random);
}

function socketsOf({ addresses }: Introduction): (Address & { kind: 'tcp' | 'unix' })[] {
  return addresses.filter((address) => address.kind === 'tcp' || address.kind === 'unix');
}

export class Assault {
  readonly tally: AssaultTally = emptyTally();
  readonly #garrison: Garrison;
  readonly #corpus: Corpus;
  readonly #frames: readonly Uint8Array[];
  readonly #ports: readonly Address[];
  readonly #aim: Aim = { epoch: 1, generation: 1, sequence: 0 };
  #sessions = 1;

  constructor(garrison: Garrison, corpus: Corpus) {
    this.#garrison = garrison;
    this.#corpus = corpus;
    this.#frames = corpus.data.flatMap(({ frames }) => frames);
    const control = parseTcpAddress(garrison.address);
    const shortcut = shortcutOf(control);
    this.#ports = shortcut === null ? [control] : [control, shortcut];
  }

  /** Sent so far, of any kind. */
  get sent(): number {
    return this.tally.messages + this.tally.frames;
  }

  /** One wave: a few strangers, and a peer that joins, fires on all it can reach, and vanishes. */
  async wave(random: Random): Promise<void> {
    this.#aim.sequence = this.#garrison.sequence;
    const peer = await this.#join();
    try {
      for (let times = random.integer(1, 3); times > 0; times--) await this.#stranger(peer, random);
      await this.#fireFrames(peer, random);
      await this.#fireControl(peer, random);
    } finally {
      await peer.vanish();
    }
  }

  /**
   * A wave from inside: the peer becomes a member. To be called while the good peers let newcomers in.
   *
   * @param admitted makes the good peers pass a boundary, and does not wait until they have
   */
  async treason(random: Random, admitted: () => Promise<void>): Promise<void> {
    const peer = await this.#join();
    try {
      const heard = peer.hears('admitted');
      peer.say({ type: 'ready' });
      await admitted();
      const admission = await heard;
      // Numbers begin anew in the view that it made.
      if (admission.type === 'admitted') Object.assign(this.#aim, admission.view, { sequence: 0 });
      this.tally.members += 1;
      await this.#fireFrames(peer, random);
      await this.#fireControl(peer, random);
    } finally {
      await peer.vanish();
    }
  }

  async #join(): Promise<HostilePeer> {
    const peer = await HostilePeer.join(this.#garrison.address, RUN, TOKEN);
    this.tally.joined += 1;
    return peer;
  }

  /** Somebody who knows nothing, on any port. */
  async #stranger(scout: HostilePeer, random: Random): Promise<void> {
    const isControl = random.chance(0.5);
    const victims = this.#victims(scout);
    const address = isControl ? random.pick(this.#ports) : random.pick(victims.flatMap(socketsOf));
    const sources: readonly Sendable[] = isControl
      ? this.#corpus.toCoordinator
      : random.chance(0.8)
        ? this.#corpus.handshakes
        : this.#corpus.toCoordinator;
    const connection = await dial(address);
    ignore(connection);
    await this.#fire(connection, random, () => {
      this.tally.messages += 1;
      return hostileMessage(random.pick(sources), 0, random);
    });
    connection.destroy();
  }

  #victims(peer: HostilePeer) {
    return peer.welcome.peers.filter(({ peerId }) => this.#garrison.goodIds.includes(peerId));
  }

  /** Frames on connections of both lanes: those that this peer dialled, and those by which the others receive. */
  async #fireFrames(peer: HostilePeer, random: Random): Promise<void> {
    for (const victim of this.#victims(peer)) {
      const usable = socketsOf(victim);
      const session = this.#sessions++;
      const stripes = random.integer(1, 2);
      for (let stripe = 0; stripe < stripes; stripe++) {
        const connection = await peer.dialPeer(victim, random.pick(usable), session).catch(() => null);
        // The lane's other stripe may have been found out already, and the lane closed with it.
        if (connection !== null) await this.#fire(connection, random, () => this.#frame(random));
      }
    }
    for (const connection of peer.accepted.slice(0, 6)) await this.#fire(connection, random, () => this.#frame(random));
  }

  async #fireControl(peer: HostilePeer, random: Random): Promise<void> {
    // A true `leave` or `ready` among them would end the wave, or make a member of who should be none.
    const sources = this.#corpus.toCoordinator.filter(({ message }) => message.type !== 'leave');
    this.tally.connections -= 1; // it was counted when it joined
    await this.#fire(peer.control, random, () => {
      this.tally.messages += 1;
      const one = random.pick(sources);
      // Valid, but not true: what is refused at once goes no further.
      if (random.chance(0.5)) return this.#lie(one, peer, random);
      return hostileMessage(one, this.#aim.epoch, random);
    });
  }

  /** A valid message about things that are not so. */
  #lie({ message }: Said<PeerMessage>, peer: HostilePeer, random: Random): Uint8Array {
    const { tags, goodIds } = this.#garrison;
    const { epoch, generation, sequence } = this.#aim;
    const id = `${generation}:${random.pick(tags)}:${sequence + random.integer(0, CALLS_LIED_ABOUT - 1)}`;
    const lies: readonly PeerMessage[] = [
      message.type === 'ready' ? { type: 'beat' } : message,
      { type: 'done', id, generation, epoch: epoch + random.integer(0, 1), spare: random.integer(0, 2) },
      {
        type: 'waits',
        waits: [{ peerId: random.pick(goodIds), receiveMs: 900, sendMs: 0, calls: [{ id, epoch, spare: 1 }] }],
      },
      { type: 'withdraw', id, generation, reason: 'so' },
      { type: 'mismatch', id, generation, mine: 'a', theirs: 'b', with: random.pick(goodIds) },
      { type: 'link-closed', peerId: random.pick([...goodIds, peer.welcome.peerId]) },
      { type: 'progress', epoch: epoch + random.integer(0, 2), held: [{ id, epoch }], returned: [id], finished: [] },
      {
        type: 'boundary',
        index: random.integer(1, 70),
        passed: random.integer(0, 70),
        minWorldSize: random.integer(1, 1_024),
        oldest: 0,
      },
    ];
    return encodeControl(random.pick(lies), TERM, random.chance(0.9) ? epoch : random.pick([0, 0xffff_ffff]));
  }

  /** A recorded frame, aimed at what the good peers do now, and damaged or not. */
  #frame(random: Random): Uint8Array {
    this.tally.frames += 1;
    const aimed = random.pick(this.#frames).slice();
    const view = new DataView(aimed.buffer);
    const tag = hashTag(random.pick(this.#garrison.tags));
    if (aimed.length >= HEADER_BYTES && random.chance(0.8)) {
      view.setUint32(12, tag % 2 ** 32, true);
      view.setUint32(16, Math.floor(tag / 2 ** 32), true);
      view.setUint32(4, this.#aim.epoch, true);
      view.setUint32(8, this.#aim.generation, true);
      view.setUint32(20, this.#aim.sequence + random.integer(0, 4), true);
      if (random.chance(0.2)) view.setUint32(random.pick([4, 8]), random.integer(0, 5), true);
    }
    return random.chance(0.5) ? aimed : damagedFrame(aimed, random);
  }

  /** Until the other side has had enough. */
  async #fire(connection: Connection, random: Random, next: () => Uint8Array): Promise<void> {
    this.tally.connections += 1;
    const most = random.integer(1, MOST_PER_CONNECTION);
    for (let count = 0; count < most && !connection.closed; count++) await write(connection, next());
  }
}
