/**
 * Coordinators that share an etcd, as `skein coordinator` starts them, and peers in processes of their own that add up tensors as
 * fast as they can until they are told to stop. Used with `await using`.
 */
import { randomUUID } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { built } from '../harness/built.ts';
import { PeerProcess } from '../harness/cluster.ts';
import { Daemon } from '../harness/daemon.ts';

const MAIN = built('src/cli/main.ts');

const TOKEN = 'of the failover tests';
const ELEMENTS = 1_000;

/** One call, as a peer saw it. */
interface Call {
  readonly id: string;
  readonly epoch: number;
  readonly contributors: readonly string[];
  /** What the tensor held: first and last element. */
  readonly values: readonly [number, number];
  /** When it was made and when it was over: milliseconds since 1970. */
  readonly madeAt: number;
  readonly endedAt: number;
}

export interface History {
  readonly calls: readonly Call[];
  /** Why it stopped before it was told; null if it did not. */
  readonly failure: string | null;
  readonly lost: readonly string[];
}

export class CoordinatorDaemon {
  readonly daemon: Daemon;
  readonly address: string;

  static async start(store: string, leaseMs: number): Promise<CoordinatorDaemon> {
    const args = ['coordinator', '--port', '0', '--store', store, '--lease', `${leaseMs / 1_000}`];
    const command = [process.execPath, MAIN, ...args] as const;
    const daemon = new Daemon(command, { ...process.env, SKEIN_TOKEN: TOKEN, NO_COLOR: '1' }, 300_000);
    const [address] = await daemon.wrote(/tcp:\/\/127\.0\.0\.1:\d+/);
    return new CoordinatorDaemon(daemon, address);
  }

  private constructor(daemon: Daemon, address: string) {
    this.daemon = daemon;
    this.address = address;
  }

  /** Terms in which it led. */
  get terms(): readonly number[] {
    return [...this.daemon.output.matchAll(/leads, term (\d+)/g)].map((match) => Number(match[1]));
  }

  /** It leads now, as far as it has said. */
  get leads(): boolean {
    const { output } = this.daemon;
    return output.lastIndexOf('leads, term') > output.lastIndexOf('leads no longer');
  }

  /** Epochs whose views it announced. */
  get epochs(): readonly number[] {
    return [...this.daemon.output.matchAll(/boundary \d+: epoch (\d+),/g)].map((match) => Number(match[1]));
  }
}

export class Deployment {
  readonly #prefix = `test-${randomUUID()}`;
  readonly coordinators: CoordinatorDaemon[] = [];
  readonly peers: PeerProcess[] = [];
  readonly #histories: Promise<History>[] = [];

  /**
   * @param etcd URLs of etcd's members, for each coordinator
   * @param leaseMs of the leader
   */
  static async start(etcd: readonly (readonly string[])[], leaseMs: number): Promise<Deployment> {
    const deployment = new Deployment();
    try {
      for (const urls of etcd) await deployment.add(urls, leaseMs);
      await Promise.any(deployment.coordinators.map(({ daemon }) => daemon.wrote(/leads, term/)));
    } catch (error) {
      await deployment[Symbol.asyncDispose]();
      throw error;
    }
    return deployment;
  }

  /** One more coordinator. */
  async add(urls: readonly string[], leaseMs: number): Promise<void> {
    const store = `etcd:${urls.join(',')}?prefix=${this.#prefix}`;
    this.coordinators.push(await CoordinatorDaemon.start(store, leaseMs));
  }

  /** Resolves when one leads in a later term than this. */
  async ledAfter(term: number, withinMs: number): Promise<void> {
    const end = Date.now() + withinMs;
    while (!this.coordinators.some(({ terms, leads }) => leads && terms.at(-1)! > term)) {
      if (Date.now() > end) throw new Error(`nobody leads after term ${term}:\n${this.story}`);
      await delay(10);
    }
  }

  /** Resolves when each peer has made so many calls more. */
  async callsMade(count: number): Promise<void> {
    await Promise.all(
      this.peers.map((peer) =>
        peer.run(async ({ state }, count) => {
          const wanted = (state['made'] as number) + count;
          while ((state['made'] as number) < wanted && state['failed'] !== true)
            await new Promise((resolve) => setTimeout(resolve, 5));
        }, count),
      ),
    );
  }

  /** What the coordinators wrote. */
  get story(): string {
    return this.coordinators.map(({ address, daemon }) => `${address}:\n${daemon.output}`).join('\n');
  }

  /** Where they spoke with two voices: in one term, or of one view. */
  discords(): string[] {
    const twice = (numbers: readonly number[]) => numbers.filter((one, index) => numbers.indexOf(one) < index);
    const terms = twice(this.coordinators.flatMap((one) => one.terms));
    const epochs = twice(this.coordinators.flatMap((one) => one.epochs));
    return [
      ...terms.map((term) => `two led in term ${term}`),
      ...epochs.map((epoch) => `two announced the view of epoch ${epoch}`),
    ];
  }

  get leader(): CoordinatorDaemon {
    const leader = this.coordinators.find(({ leads }) => leads);
    if (leader === undefined) throw new Error('no coordinator leads');
    return leader;
  }

  /** So many peers join; each makes its calls until `stop`. Resolves when all have made some. */
  async train(count: number): Promise<void> {
    const addresses = this.coordinators.map(({ address }) => address);
    this.peers.push(...Array.from({ length: count }, () => new PeerProcess()));
    await Promise.all(
      this.peers.map((peer) =>
        peer.join(addresses.join(','), { token: TOKEN, startWorldSize: count, timeout: 30_000 }),
      ),
    );
    this.#histories.push(...this.peers.map((peer) => peer.run(trainUntilStopped, ELEMENTS)));
    for (const history of this.#histories) history.catch(() => {}); // `stop` tells, unless the test has failed before
    await Promise.all(this.peers.map((peer) => peer.told('trains')));
  }

  /** All peers stop after the same call. */
  async stop(): Promise<readonly History[]> {
    await this.peers[0]!.run(({ state }) => {
      state['stop'] = true;
    });
    return Promise.all(this.#histories);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.peers.map((peer) => peer.kill()));
    await Promise.all(this.coordinators.map(({ daemon }) => daemon.kill()));
  }
}

/** Runs in the peer's process. The tensor's second element says whether somebody wants to stop. */
async function trainUntilStopped(
  { state, tell }: Parameters<Parameters<PeerProcess['run']>[0]>[0],
  elements: number,
): Promise<History> {
  const group = state.group!;
  const calls: Call[] = [];
  const lost: string[] = [];
  group.on('peer-lost', ({ peerId }) => lost.push(peerId));
  let failure: string | null = null;
  for (let step = 1; failure === null; step++) {
    const tensor = new Float32Array(elements).fill(step);
    tensor[1] = state['stop'] === true ? 1 : 0;
    const madeAt = Date.now();
    try {
      if (step % 20 === 0) await group.admit({ timeout: 60_000 });
      const { id, epoch, contributors } = await group.allReduce(tensor, { timeout: 60_000 });
      const values = [tensor[0]!, tensor[elements - 1]!] as const;
      state['made'] = calls.length + 1;
      calls.push({ id, epoch, contributors, values, madeAt, endedAt: Date.now() });
    } catch (error) {
      failure = String(error);
      state['failed'] = true;
    }
    if (step === 10) tell('trains');
    if (tensor[1] > 0 && failure === null) break;
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  return { calls, failure, lost };
}

/** What must hold of what the peers saw, whoever led: every call of every peer, once, with everybody's part. */
export function judge(histories: readonly History[]): string[] {
  const faults: string[] = [];
  const [first, ...others] = histories;
  for (const [index, { failure, lost }] of histories.entries()) {
    if (failure !== null) faults.push(`peer ${index} failed: ${failure}`);
    if (lost.length > 0) faults.push(`peer ${index} lost ${lost.join(', ')}`);
  }
  const ids = first!.calls.map(({ id }) => id);
  if (new Set(ids).size < ids.length) faults.push('an id was given twice');
  for (const { calls } of others)
    if (calls.map(({ id }) => id).join() !== ids.join()) faults.push('the peers made different calls');
  for (const { calls } of histories) {
    for (const [index, { contributors, values, id }] of calls.entries()) {
      const right = histories.length * (index + 1);
      if (contributors.length !== histories.length) faults.push(`${id} had ${contributors.length} contributors`);
      if (values.some((value) => value !== right)) faults.push(`${id} gave ${values}, not ${right}`);
    }
  }
  return faults;
}

/** Milliseconds from a moment until all peers had made a call after it. */
export function recoveryOf(histories: readonly History[], since: number): number {
  const next = histories.map(({ calls }) => calls.find(({ endedAt, madeAt }) => endedAt > since && madeAt >= since));
  return Math.max(...next.map((call) => (call === undefined ? Number.POSITIVE_INFINITY : call.endedAt - since)));
}
