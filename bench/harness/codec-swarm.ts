/** Processes that all-reduce on demand, each behind a network device of its own where namespaces can be made. */
import { type ChildProcess, spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { Namespaces } from '../../src/chaos/namespaces.ts';
import type { CodecOrder, CodecReport, CodecTask } from '../peers/codec-peer.ts';
import { type StartedCoordinator, startCoordinator } from './coordinator.ts';
import { deadline } from './member.ts';

const PEER = fileURLToPath(new URL('../peers/codec-peer.js', import.meta.url));
const TOKEN = 'of the benchmark';

export class CodecSwarm {
  readonly #namespaces: Namespaces | null;
  readonly #coordinator: StartedCoordinator;
  readonly #children: readonly ChildProcess[];
  readonly #clean: () => void;
  readonly #failure: Promise<never>;

  /** @param megabits what each may send and receive per second; null: no limit */
  static async start(
    worldSize: number,
    count: number,
    namespaced: boolean,
    megabits: number | null,
  ): Promise<CodecSwarm> {
    const namespaces = namespaced ? new Namespaces(worldSize) : null;
    const clean = () => namespaces?.remove();
    process.once('exit', clean);
    const environment = namespaces?.environment ?? {};
    const wrap = (where: number | 'coordinator') => (command: readonly [string, ...string[]]) =>
      namespaces?.wrap(where, command) ?? ([...command] as [string, ...string[]]);
    if (megabits !== null) for (let index = 0; index < worldSize; index++) namespaces?.shape(index, megabits);
    const host = namespaces?.address('coordinator') ?? '127.0.0.1';
    const coordinator = await startCoordinator(
      { host, port: 0, token: TOKEN },
      wrap('coordinator'),
      namespaces?.environment,
    );
    const task: CodecTask = { address: coordinator.address, token: TOKEN, worldSize, count };
    const children = Array.from({ length: worldSize }, (_, index) => {
      const [program, ...args] = wrap(index)([process.execPath, PEER, JSON.stringify(task)]);
      return spawn(program, args, {
        stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
        env: { ...process.env, ...environment },
      });
    });
    const swarm = new CodecSwarm(namespaces, coordinator, children, clean);
    await swarm.#each('members join');
    return swarm;
  }

  private constructor(
    namespaces: Namespaces | null,
    coordinator: StartedCoordinator,
    children: readonly ChildProcess[],
    clean: () => void,
  ) {
    this.#namespaces = namespaces;
    this.#coordinator = coordinator;
    this.#children = children;
    this.#clean = clean;
    this.#failure = new Promise((_, reject) => {
      for (const child of children) {
        child.once('exit', (code) => reject(new Error(`a member ended with exit code ${code}`)));
      }
    });
    this.#failure.catch(() => {}); // nobody may be waiting: they end when the swarm is closed
  }

  /** The next message of each. */
  #each(what: string): Promise<unknown[]> {
    const messages = this.#children.map((child) => new Promise<unknown>((resolve) => child.once('message', resolve)));
    return deadline(what, Promise.race([Promise.all(messages), this.#failure]));
  }

  /** One all-reduce of all. */
  async allReduce(order: CodecOrder): Promise<readonly CodecReport[]> {
    const answers = this.#each('an all-reduce');
    for (const child of this.#children) child.send(order);
    return (await answers) as CodecReport[]; // what a member answers an order with
  }

  close(): void {
    for (const child of [...this.#children, this.#coordinator.child]) child.kill('SIGKILL');
    process.off('exit', this.#clean);
    this.#namespaces?.remove();
  }
}
