/** Processes that do what they are told, all at once, each behind a network device of its own where that is wanted. */
import { type ChildProcess, spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { Namespaces } from '../../src/chaos/namespaces.ts';
import { type StartedCoordinator, startCoordinator } from './coordinator.ts';
import { deadline } from './member.ts';

const TOKEN = 'of the benchmark';

/** What every member is told when it starts. */
export interface MemberTask {
  readonly address: string;
  readonly token: string;
  readonly worldSize: number;
}

export interface Place {
  readonly namespaced: boolean;
  /** What each may send and receive per second; null: no limit. Only in namespaces. */
  readonly megabits: number | null;
}

/** Members that answer each order with a report, and that send anything at all when they are ready for the first. */
export class OrderedSwarm<Order extends object, Answer> {
  readonly #namespaces: Namespaces | null;
  readonly #coordinator: StartedCoordinator;
  readonly #children: readonly ChildProcess[];
  readonly #clean: () => void;
  readonly #failure: Promise<never>;

  /**
   * @param script its name in bench/peers
   * @param task what its members are told besides `MemberTask`
   */
  static async start<Order extends object, Answer>(
    script: string,
    worldSize: number,
    task: object,
    { namespaced, megabits }: Place,
  ): Promise<OrderedSwarm<Order, Answer>> {
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
    const shared: MemberTask = { address: coordinator.address, token: TOKEN, worldSize };
    const peer = fileURLToPath(new URL(`../peers/${script}.js`, import.meta.url));
    const children = Array.from({ length: worldSize }, (_, index) => {
      const [program, ...args] = wrap(index)([process.execPath, peer, JSON.stringify({ ...task, ...shared })]);
      return spawn(program, args, {
        stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
        env: { ...process.env, ...environment },
      });
    });
    const swarm = new OrderedSwarm<Order, Answer>(namespaces, coordinator, children, clean);
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

  /** Gives an order to all, and waits for all of their answers. */
  async order(order: Order): Promise<readonly Answer[]> {
    const answers = this.#each('an order');
    for (const child of this.#children) child.send(order);
    return (await answers) as Answer[]; // what a member answers an order with
  }

  close(): void {
    for (const child of [...this.#children, this.#coordinator.child]) child.kill('SIGKILL');
    process.off('exit', this.#clean);
    this.#namespaces?.remove();
  }
}
