/** The group of mixed.test.ts: who holds which place, and what all have told. */
import type { GroupMember } from 'skein';
import type { Tab } from '../harness/chromium.ts';
import { PeerProcess } from '../harness/cluster.ts';
import { type Life, live, type Result } from './mixed-peer.ts';

export type Path = GroupMember['path'];

/** What all peers have told, and who waits for some of it. */
export class Chronicle {
  readonly results: Result[] = [];
  readonly ids: Set<string> = new Set();
  readonly #first: number[] = [];
  readonly #watchers: Set<{ check(): void; reject(error: Error): void }> = new Set();
  #failure: Error | null = null;

  add(result: Result): void {
    this.results.push(result);
    if (!this.ids.has(result.id)) this.#first.push(performance.now());
    this.ids.add(result.id);
    for (const { check } of [...this.#watchers]) check();
  }

  /** Whoever waits, and will wait, is told. */
  fail(error: Error): void {
    this.#failure ??= error;
    for (const { reject } of [...this.#watchers]) reject(error);
  }

  /** Resolves after the result with which this is so. */
  until(isSo: () => boolean): Promise<void> {
    return new Promise((resolve, reject) => {
      const watcher = {
        check: () => {
          if (!isSo()) return;
          this.#watchers.delete(watcher);
          resolve();
        },
        reject,
      };
      this.#watchers.add(watcher);
      if (this.#failure !== null) reject(this.#failure);
      else watcher.check();
    });
  }

  /** From each all-reduce to the next one (ms). */
  get gaps(): number[] {
    return this.#first.slice(1).map((time, index) => time - this.#first[index]!);
  }

  /** Of late (ms). */
  get typicalMs(): number {
    const latest = this.gaps.slice(-5).sort((left, right) => left - right);
    return latest[latest.length >> 1] ?? 0;
  }
}

/** A place in the group, and the process or the tab that holds it. */
export class Seat<N extends string> {
  readonly name: N;
  readonly #open: () => Promise<PeerProcess | Tab>;
  readonly #life: Life;
  readonly #chronicle: Chronicle;
  #peer: PeerProcess | Tab | null = null;
  #end: Promise<void> = Promise.resolve();
  /** Of the peer that holds it now. */
  peerId: string | null = null;
  made = 0;

  constructor(name: N, open: () => Promise<PeerProcess | Tab>, life: Life, chronicle: Chronicle) {
    this.name = name;
    this.#open = open;
    this.#life = life;
    this.#chronicle = chronicle;
  }

  /** A peer joins: the one who was here before, if it has left in good order. */
  async take(startWorldSize: number): Promise<void> {
    this.made = 0;
    this.peerId = null;
    this.#peer ??= await this.#open();
    const peer = this.#peer;
    peer.onTold = (text) => {
      const result = JSON.parse(text) as Result; // as `live` tells it
      this.made += 1;
      this.peerId = result.peerId;
      this.#chronicle.add(result);
    };
    const life = { ...this.#life, options: { ...this.#life.options, startWorldSize } };
    this.#end = peer.run(live, life).catch((error: Error) => {
      if (this.#peer === peer) this.#chronicle.fail(new Error(`${this.name}: ${error.message}`, { cause: error }));
    });
  }

  /** The peer leaves in good order. */
  async leave(): Promise<void> {
    await this.#peer?.run(({ state }) => {
      state['stop'] = true;
    });
    await this.#end;
  }

  /** The process is killed, or the tab closed. */
  async remove(): Promise<void> {
    const peer = this.#peer;
    this.#peer = null;
    await (peer instanceof PeerProcess ? peer.kill() : peer?.close());
  }

  /** How the others are reached, by their ids. */
  async paths(): Promise<ReadonlyMap<string, Path>> {
    const members = await this.#peer!.run(({ state }) =>
      state.group!.members.map(({ peerId, path }) => [peerId, path] as const),
    );
    return new Map(members);
  }
}
