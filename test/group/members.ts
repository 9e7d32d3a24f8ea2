/** Several members of one run in this process, each with an engine of its own. */
import { Coordinator, type CoordinatorListenOptions, type Group, type JoinOptions, join } from 'skein';

export type EngineKind = 'inline' | 'worker';

export class Members {
  readonly coordinator: Coordinator;
  /** By rank. */
  readonly groups: Group[];

  static async form(
    count: number,
    options: JoinOptions,
    coordinatorOptions: CoordinatorListenOptions = {},
  ): Promise<Members> {
    const coordinator = await Coordinator.listen({ port: 0, ...coordinatorOptions });
    try {
      const settings = { startWorldSize: count, timeout: 20_000, ...options };
      const groups = await Promise.all(Array.from({ length: count }, () => join(coordinator.address, settings)));
      groups.sort((left, right) => left.rank - right.rank);
      return new Members(coordinator, groups);
    } catch (error) {
      await coordinator.close();
      throw error;
    }
  }

  private constructor(coordinator: Coordinator, groups: Group[]) {
    this.coordinator = coordinator;
    this.groups = groups;
  }

  /** Makes every member do the same at once; results by rank. */
  all<T>(action: (group: Group, rank: number) => Promise<T>): Promise<T[]> {
    return Promise.all(this.groups.map((group, rank) => action(group, rank)));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.groups.map((group) => group.leave()));
    await this.coordinator.close();
  }
}
