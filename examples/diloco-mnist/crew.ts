/** The peers' processes: none outlives the crew, and each has a deadline. */
import { type ChildProcess, fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { Coordinator } from '../../src/index.ts';
import { type Answer, type Method, PEERS, type Result, type Task } from './task.ts';

// From source or from what was built from it; peers run what was built.
const PEER = fileURLToPath(new URL('../../dist/examples/diloco-mnist/peer.js', import.meta.url)).replace(
  '/dist/dist/',
  '/dist/',
);

/** No task takes longer (ms). */
const DEADLINE_MS = 120_000;

/** Rounds after which a peer is killed, and its successor started. */
const KILLS = [3, 7];

class Peer {
  readonly child: ChildProcess = fork(PEER, { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });

  /** @throws Error when the process ends before it has answered */
  run(task: Task, onRound: (round: number, worldSize: number) => void = () => {}): Promise<Result> {
    const deadline = setTimeout(() => this.child.kill('SIGKILL'), DEADLINE_MS);
    return new Promise<Result>((resolve, reject) => {
      const onMessage = (answer: Answer) => {
        if (answer.type === 'round') onRound(answer.round, answer.worldSize);
        else resolve(answer);
      };
      this.child.on('message', onMessage);
      this.child.once('exit', (code, signal) => reject(new Error(`a peer ended (${signal ?? code})`)));
      this.child.send(task);
    }).finally(() => {
      clearTimeout(deadline);
      this.child.removeAllListeners();
    });
  }

  async end(): Promise<void> {
    if (this.child.exitCode !== null || this.child.signalCode !== null) return;
    const gone = new Promise<void>((resolve) => void this.child.once('exit', () => resolve()));
    this.child.kill('SIGKILL');
    await gone;
  }
}

export class Crew {
  readonly #coordinator: Coordinator;
  readonly #peers: Peer[] = Array.from({ length: PEERS }, () => new Peer());

  static async start(): Promise<Crew> {
    return new Crew(await Coordinator.listen({ port: 0 }));
  }

  private constructor(coordinator: Coordinator) {
    this.#coordinator = coordinator;
  }

  #task(name: string, method: Method, shard: number, peers: number): Task {
    return { name, method, shard, peers, coordinator: this.#coordinator.address };
  }

  /** All peers do the same; results by shard. */
  run(name: string, method: Method): Promise<Result[]> {
    return Promise.all(this.#peers.map((peer, shard) => peer.run(this.#task(name, method, shard, PEERS))));
  }

  /** As `run`, while two peers are killed, each followed by a newcomer that learns from the same images. */
  async runUnderChurn(name: string, method: Method): Promise<{ results: Result[]; worldSizes: number[] }> {
    const worldSizes: number[] = [];
    const results: Promise<Result>[] = [];
    const pending = [...KILLS];
    const start = (shard: number, peers: number) => {
      const peer = this.#peers[shard]!;
      results[shard] = peer.run(this.#task(name, method, shard, peers), (round, worldSize) => {
        if (shard !== 0) return;
        worldSizes.push(worldSize);
        if (round !== pending[0]) return;
        const victim = pending.length;
        pending.shift();
        results[victim]?.catch(() => {}); // it is about to die
        void this.#peers[victim]!.end();
        this.#peers[victim] = new Peer();
        start(victim, 1);
      });
    };
    for (let shard = 0; shard < PEERS; shard++) start(shard, PEERS);
    // The first peer outlives all disturbances; the others' latest results are those of whoever ended in their place.
    await results[0];
    return { results: await Promise.all(results), worldSizes };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#peers.map((peer) => peer.end()));
    await this.#coordinator.close();
  }
}
