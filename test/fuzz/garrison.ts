/** A live coordinator and a few good peers, each in a process of its own, that reduce and check every result while others attack. */
import type { Coordinator } from 'skein';
import { PeerProcess } from '../harness/cluster.ts';
import { openSockets, residentBytes, until } from './processes.ts';

export const RUN = 'besieged';

const GOOD_PEERS = 3;

/** A call may take this long: only a broken promise comes near it (ms). */
const CALL_MS = 30_000;

/** How long connections may take to go after those who had them are gone (ms). */
const SETTLE_MS = 20_000;

/** What may be resident at the end: a part more than after the warm-up, and a bit that buffers and the heap may have grown. */
const GROWTH = 1.5;
const SLACK_BYTES = 96 * 1024 * 1024;

interface Look {
  readonly name: string;
  readonly sockets: number;
  readonly residentBytes: number;
}

export interface BatchResult {
  readonly checked: number;
  readonly failed: number;
}

export class Garrison {
  readonly address: string;
  readonly coordinator: PeerProcess;
  readonly good: readonly PeerProcess[];
  readonly goodIds: readonly string[];
  #batches = 0;

  static async start(token: string, deadlineMs: number): Promise<Garrison> {
    const coordinator = new PeerProcess(deadlineMs);
    const good = Array.from({ length: GOOD_PEERS }, () => new PeerProcess(deadlineMs));
    try {
      const address = await coordinator.run(async ({ skein, state }, token) => {
        // Good peers are never lost for being slow: the machine has few cores.
        const listening = await skein.Coordinator.listen({ port: 0, token, lostAfterMs: 20_000 });
        state['coordinator'] = listening;
        return listening.address;
      }, token);
      const joined = await Promise.all(
        good.map((peer, index) =>
          peer.join(address, {
            run: RUN,
            token,
            startWorldSize: GOOD_PEERS,
            timeout: CALL_MS,
            // An error that nobody foresaw ends the process, wherever the engine is.
            engine: index === 0 ? 'inline' : 'worker',
            transports: index === 1 ? ['tcp', 'unix'] : ['unix', 'tcp'],
          }),
        ),
      );
      const byRank = joined.map((one, index) => ({ ...one, peer: good[index]! })).sort((a, b) => a.rank - b.rank);
      return new Garrison(
        address,
        coordinator,
        byRank.map(({ peer }) => peer),
        byRank.map(({ peerId }) => peerId),
      );
    } catch (error) {
      await Promise.all([coordinator, ...good].map((one) => one.kill()));
      throw error;
    }
  }

  private constructor(
    address: string,
    coordinator: PeerProcess,
    good: readonly PeerProcess[],
    goodIds: readonly string[],
  ) {
    this.address = address;
    this.coordinator = coordinator;
    this.good = good;
    this.goodIds = goodIds;
  }

  /** About where the good peers are: the sequence number of their calls. */
  get sequence(): number {
    return this.#batches;
  }

  /** What the good peers' calls are tagged with. */
  readonly tags: readonly string[] = ['good 0', 'good 1', 'good 2'];

  /**
   * Every good peer reduces a small, a middling and a large tensor at once, and checks each element.
   *
   * @param admits whether newcomers are let in first; then calls may fail as a member's ill will can make them, and only
   *   results to which nobody but good peers contributed can be checked
   */
  async batch(admits = false): Promise<BatchResult> {
    const turn = this.#batches++;
    const results = await Promise.all(
      this.good.map((peer) =>
        peer.run(
          async ({ state }, { turn, tags, goodIds, admits, timeout }) => {
            const group = state.group!; // joined at the start
            if (admits) await group.admit();
            const sizes = [10, 16_000, 120_000];
            const weight = group.rank + 1;
            let checked = 0;
            let failed = 0;
            const calls = sizes.map(async (count, index) => {
              const tensor = new Float32Array(count);
              for (let at = 0; at < count; at++) tensor[at] = weight * (((at + turn) % 7) + 1);
              let contributors: readonly string[];
              try {
                contributors = (await group.allReduce(tensor, { tag: tags[index]!, timeout })).contributors;
              } catch (error) {
                const { code } = error as { code?: string }; // whatever was thrown may have one
                const allowed = ['SKEIN_MISMATCH', 'SKEIN_WITHDRAWN', 'SKEIN_PEER_LOST'];
                if (!admits || !allowed.includes(code ?? '')) throw error;
                failed += 1;
                return;
              }
              if (contributors.some((peerId) => !goodIds.includes(peerId))) {
                if (!admits) throw new Error(`${contributors.join()} contributed where only ${goodIds.join()} may`);
                return;
              }
              const weights = contributors.reduce((sum, peerId) => sum + goodIds.indexOf(peerId) + 1, 0);
              for (let at = 0; at < count; at++) {
                const wanted = weights * (((at + turn) % 7) + 1);
                if (tensor[at] !== wanted)
                  throw new Error(`element ${at} of ${count} in turn ${turn} is ${tensor[at]}, not ${wanted}`);
              }
              checked += 1;
            });
            await Promise.all(calls);
            return { checked, failed };
          },
          { turn, tags: this.tags, goodIds: this.goodIds, admits, timeout: CALL_MS },
        ),
      ),
    );
    const sum = (key: keyof BatchResult) => results.reduce((total, one) => total + one[key], 0);
    return { checked: sum('checked'), failed: sum('failed') };
  }

  /** Members of the good peers' run, who would be at their next boundary, and how many runs there are. */
  status(): Promise<{ readonly members: readonly string[]; readonly ready: number; readonly runs: number }> {
    return this.coordinator.run(({ state }, run) => {
      const listening = state['coordinator'] as Coordinator; // put there at the start
      const all = listening.status();
      const { members, ready } = all[run]!; // the good peers are in it
      return { members, ready: ready.length, runs: Object.keys(all).length };
    }, RUN);
  }

  look(): readonly Look[] {
    return this.#processes().map(({ name, process }) => {
      const pid = process.child.pid ?? 0;
      if (!process.alive) throw new Error(`${name} did not survive`);
      return { name, sockets: openSockets(pid), residentBytes: residentBytes(pid) };
    });
  }

  #processes(): readonly { readonly name: string; readonly process: PeerProcess }[] {
    return [
      { name: 'the coordinator', process: this.coordinator },
      ...this.good.map((process, rank) => ({ name: `good peer ${rank}`, process })),
    ];
  }

  /** After everybody hostile has gone: all live, hold no connection and no memory that they did not hold before, and reduce. */
  async check(before: readonly Look[]): Promise<string> {
    const now = await until(
      () => this.look(),
      (looks) => looks.every((one, index) => one.sockets <= before[index]!.sockets),
      `connections beside ${JSON.stringify(before.map(({ sockets }) => sockets))}`,
      SETTLE_MS,
    );
    for (const [index, { name, residentBytes: bytes }] of now.entries()) {
      const most = GROWTH * before[index]!.residentBytes + SLACK_BYTES;
      if (bytes > most) throw new Error(`${name} grew from ${before[index]!.residentBytes} to ${bytes} bytes`);
    }
    const { checked } = await this.batch();
    if (checked !== this.tags.length * this.good.length) throw new Error('the good peers no longer reduce');
    const mib = (bytes: number) => Math.round(bytes / 2 ** 20);
    return now
      .map((one, index) => `${one.name} ${mib(before[index]!.residentBytes)} → ${mib(one.residentBytes)} MiB`)
      .join(', ');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#processes().map(({ process }) => process.kill()));
  }
}
