/** A run of a few members that all-reduce without pause, in network namespaces or not. */
import type { Namespaces } from '../../src/chaos/namespaces.ts';
import type { ChurnTask } from '../peers/churn-peer.ts';
import { type StartedCoordinator, startCoordinator } from './coordinator.ts';
import { Member, type Wrap } from './member.ts';

const TOKEN = 'of the benchmark';

/** Steps in peace before a fault. */
const SETTLING_STEPS = 6;

export type SwarmTask = Omit<ChurnTask, 'address' | 'startWorldSize' | 'token'>;

export interface Setting {
  readonly worldSize: number;
  /** The detector's bound. */
  readonly lostAfterMs: number;
  readonly namespaces: Namespaces | null;
  /** File of the coordinator's store. */
  readonly store: string | null;
}

/** What a fault cost those who were not lost by it, in seconds from the fault on. */
export interface Cost {
  /** Until the first of them is told that something is not as it was; NaN if nobody is. */
  readonly noticed: number;
  /** Until the last of them has its next result. */
  readonly recovered: number;
}

export class Swarm {
  readonly members: Member[] = [];
  readonly namespaces: Namespaces | null;
  coordinator!: StartedCoordinator; // set by `start`
  readonly #task: SwarmTask;
  readonly #setting: Setting;

  static async start(task: SwarmTask, setting: Setting): Promise<Swarm> {
    const swarm = new Swarm(task, setting);
    await swarm.listen(0);
    for (let index = 0; index < setting.worldSize; index++) swarm.members.push(swarm.#member(index, setting.worldSize));
    await swarm.settle();
    return swarm;
  }

  private constructor(task: SwarmTask, setting: Setting) {
    this.#task = task;
    this.#setting = setting;
    this.namespaces = setting.namespaces;
  }

  #wrap(where: number | 'coordinator'): Wrap | undefined {
    const { namespaces } = this;
    return namespaces === null ? undefined : (command) => namespaces.wrap(where, command);
  }

  async listen(port: number): Promise<void> {
    const { store, lostAfterMs } = this.#setting;
    const host = this.namespaces?.address('coordinator') ?? '127.0.0.1';
    const options = { host, port, token: TOKEN, lostAfterMs, ...(store === null ? {} : { store }) };
    this.coordinator = await startCoordinator(options, this.#wrap('coordinator'), this.namespaces?.environment);
  }

  #member(index: number, startWorldSize: number): Member {
    const task = { ...this.#task, token: TOKEN, address: this.coordinator.address, startWorldSize };
    return new Member(task, this.#wrap(index), this.namespaces?.environment);
  }

  settle(): Promise<unknown> {
    const { worldSize } = this.#setting;
    return Promise.all(this.members.map((member) => member.settled(worldSize, SETTLING_STEPS)));
  }

  /** Puts a fresh process where one was lost. */
  async replace(index: number): Promise<void> {
    await this.members[index]!.kill();
    this.namespaces?.heal(index);
    this.members[index] = this.#member(index, 1);
    await this.settle();
  }

  /**
   * Waits until all but the lost have their next result. What was done but for its commit when the fault came may still be
   * of all: the first result of just them counts.
   *
   * @param since seconds on the monotonic clock
   */
  async cost(since: number, lost: number | null): Promise<Cost> {
    const survivors = this.members.filter((_, index) => index !== lost);
    const steps = await Promise.all(survivors.map((member) => member.nextAfter(since, survivors.length)));
    const notices = survivors.flatMap(({ notices: all }) => all.filter(({ at }) => at > since).map(({ at }) => at));
    return {
      noticed: notices.length === 0 ? Number.NaN : Math.min(...notices) - since,
      recovered: Math.max(...steps.map((step) => step.end)) - since,
    };
  }

  async close(): Promise<void> {
    await Promise.all(this.members.map((member) => member.kill()));
    this.coordinator.child.kill('SIGKILL');
  }
}
