/**
 * Many peers in processes of their own. Every process has a deadline and none outlives its cluster; a test sends functions
 * to the peers and gets their results. Used with `await using`.
 */
import { type ChildProcess, type ForkOptions, fork } from 'node:child_process';
import { once } from 'node:events';
import { Coordinator, type CoordinatorListenOptions, type JoinOptions } from 'skein';
import { built } from './built.ts';
import type { PeerReport, PeerScope, PlainFailure } from './peer-process.ts';

/** No peer process lives longer than this (ms), unless its test says so. */
const PROCESS_DEADLINE_MS = 90_000;

const SCRIPT = built('test/harness/peer-process.ts');

/** Thrown by `run` with what the function threw in the peer's process. */
export class RemoteError extends Error {
  readonly code: string | undefined;
  readonly peer: string | undefined;

  constructor(failure: PlainFailure) {
    super(failure.message);
    this.name = failure.name;
    this.code = failure.code;
    this.peer = failure.peer;
  }
}

/** Somewhere else to run a process than where the test runs, as a host of the internet of tests. */
export interface Place {
  /** The command that runs `command` there. */
  wrap(command: readonly [string, ...string[]]): [string, ...string[]];
  readonly environment: NodeJS.ProcessEnv;
}

interface Waiting {
  resolve(value: unknown): void;
  reject(error: Error): void;
}

export class PeerProcess {
  readonly child: ChildProcess;
  readonly #waiting: Map<number, Waiting> = new Map();
  readonly #told: string[] = [];
  readonly #listeners: Map<string, () => void> = new Map();
  /** Hears all that the peer tells. */
  onTold: (text: string) => void = () => {};
  #next = 0;

  constructor(deadlineMs: number = PROCESS_DEADLINE_MS, place?: Place) {
    const options: ForkOptions = { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] };
    if (place === undefined) this.child = fork(SCRIPT, options);
    else {
      const [execPath, ...execArgv] = place.wrap([process.execPath]);
      this.child = fork(SCRIPT, { ...options, execPath, execArgv, env: place.environment });
    }
    const deadline = setTimeout(() => this.child.kill('SIGKILL'), deadlineMs);
    this.child.on('message', (report: PeerReport) => this.#onReport(report));
    this.child.on('exit', (code, signal) => {
      clearTimeout(deadline);
      for (const waiting of this.#waiting.values())
        waiting.reject(new Error(`the peer process ended (${signal ?? code})`));
      this.#waiting.clear();
    });
  }

  #onReport(report: PeerReport): void {
    if (report.type === 'told') {
      this.#told.push(report.text);
      this.#listeners.get(report.text)?.();
      this.onTold(report.text);
      return;
    }
    const waiting = this.#waiting.get(report.run);
    this.#waiting.delete(report.run);
    if (report.type === 'returned') waiting?.resolve(report.value);
    else waiting?.reject(new RemoteError(report.error));
  }

  /** Runs a function in the peer's process; only its text and the argument cross. */
  run<T, A = undefined>(body: (scope: PeerScope, argument: A) => T | Promise<T>, argument?: A): Promise<T> {
    const run = this.#next++;
    return new Promise<T>((resolve, reject) => {
      // The value is what `body` returned, as far as it survives being sent between processes.
      this.#waiting.set(run, { resolve: (value) => resolve(value as T), reject });
      this.child.send({ run, source: body.toString(), argument });
    });
  }

  /** Resolves when the peer tells this text. */
  told(text: string): Promise<void> {
    if (this.#told.includes(text)) return Promise.resolve();
    return new Promise((resolve) => this.#listeners.set(text, resolve));
  }

  join(
    address: string,
    options: JoinOptions,
  ): Promise<{ peerId: string; rank: number; worldSize: number; epoch: number }> {
    return this.run(
      async ({ skein, state }, { address, options }) => {
        const group = await skein.join(address, options);
        state.group = group;
        return { peerId: group.peerId, rank: group.rank, worldSize: group.worldSize, epoch: group.epoch };
      },
      { address, options },
    );
  }

  async kill(signal: NodeJS.Signals = 'SIGKILL'): Promise<void> {
    if (this.child.exitCode !== null || this.child.signalCode !== null) return;
    const gone = once(this.child, 'exit');
    this.child.kill(signal);
    await gone;
  }

  get alive(): boolean {
    return this.child.exitCode === null && this.child.signalCode === null;
  }
}

export class Cluster {
  readonly coordinator: Coordinator;
  readonly peers: PeerProcess[] = [];

  static async start(options: CoordinatorListenOptions = {}): Promise<Cluster> {
    return new Cluster(await Coordinator.listen({ port: 0, ...options }));
  }

  private constructor(coordinator: Coordinator) {
    this.coordinator = coordinator;
  }

  spawn(): PeerProcess {
    const peer = new PeerProcess();
    this.peers.push(peer);
    return peer;
  }

  /** Starts so many peers, which form the first view together. */
  async form(count: number, options: JoinOptions = {}): Promise<PeerProcess[]> {
    const started = Array.from({ length: count }, () => this.spawn());
    const joined = await Promise.all(
      started.map((peer) =>
        peer.join(this.coordinator.address, { timeout: 30_000, startWorldSize: count, ...options }),
      ),
    );
    const byRank: PeerProcess[] = [];
    for (const [index, { rank }] of joined.entries()) byRank[rank] = started[index]!;
    return byRank;
  }

  /** One more peer, admitted at the members' next boundary. */
  async add(
    options: JoinOptions = {},
  ): Promise<{ peer: PeerProcess; joined: Promise<{ peerId: string; worldSize: number }> }> {
    const peer = this.spawn();
    return { peer, joined: peer.join(this.coordinator.address, { timeout: 30_000, ...options }) };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.peers.map((peer) => peer.kill()));
    await this.coordinator.close();
  }
}
