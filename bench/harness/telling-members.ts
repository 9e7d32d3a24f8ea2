/** Members of which each tells its figures once a second, as engines do: what there is to see on a dashboard. */
import PQueue from 'p-queue';
import { parseTcpAddress } from '../../src/transport/address.ts';
import { LATENCY_BUCKETS } from '../../src/wire/limits.ts';
import type { Figures } from '../../src/wire/peer-messages.ts';
import { ControlMember, Traffic } from './control-member.ts';

/** As many at once as one process can greet in time. */
const JOINS_AT_ONCE = 8;

const TELL_MS = 1_000;

/** What each tells, but for its flows and what grows with each turn. */
const FIGURES: Omit<Figures, 'calls' | 'flows' | 'boundary'> = {
  sentPerSecond: 125e6,
  receivedPerSecond: 120e6,
  queuedBytes: 65_536,
  open: 3,
  roundTripMs: 0.4,
};

const CALLS: Omit<Figures['calls'][number], 'retries'> = {
  kind: 'allReduce',
  failed: 1,
  sentBytes: 2 ** 30,
  receivedBytes: 2 ** 30,
  seconds: 12,
  buckets: Array.from({ length: LATENCY_BUCKETS }, (_, bucket) => (bucket === 3 ? 100 : 0)),
};

export class TellingMembers {
  readonly members: readonly ControlMember[];
  /** How often all have told. Each tells it as the number of its calls that were begun anew. */
  turn = 0;
  /** When they did last (ms since 1970), by turn. */
  readonly toldAt: Map<number, number> = new Map();
  readonly #timer: NodeJS.Timeout;

  /** @param address of a coordinator on loopback, without a token */
  static async join(address: string, size: number): Promise<TellingMembers> {
    const traffic = new Traffic();
    const members: ControlMember[] = [];
    const joining = new PQueue({ concurrency: JOINS_AT_ONCE });
    const join = () => ControlMember.join({ address: parseTcpAddress(address), startWorldSize: size, traffic });
    try {
      await joining.addAll(Array.from({ length: size }, () => async () => void members.push(await join())));
      await Promise.all(members.map((member) => member.admitted()));
    } catch (error) {
      for (const member of members) member.kill();
      throw error;
    }
    return new TellingMembers(members);
  }

  private constructor(members: readonly ControlMember[]) {
    this.members = members;
    this.#timer = setInterval(() => this.#tell(), TELL_MS);
    this.#tell();
  }

  #tell(): void {
    this.turn += 1;
    this.toldAt.set(this.turn, Date.now());
    const ring = this.members[0]!.view!.members.map(({ peerId }) => peerId); // all were admitted
    for (const [index, member] of this.members.entries()) {
      // Those next on the ring, and far away.
      const flows = [1, 7].map((step) => ({
        peerId: ring[(index + step) % ring.length]!,
        path: 'tcp' as const,
        bytesPerSecond: 1e6 * (this.turn + step),
        queuedBytes: 0,
      }));
      if (!member.gone)
        member.send({
          type: 'figures',
          ...FIGURES,
          calls: [{ ...CALLS, retries: this.turn }],
          flows,
          boundary: this.turn,
        });
    }
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
    for (const member of this.members) member.kill();
  }
}
