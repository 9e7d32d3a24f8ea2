/** Plans that were made lately: training loops make calls of the same shape again and again. */
import { makePlan } from './plan.ts';
import type { Algorithm, Plan, Rank, Sites, Task } from './program.ts';
import { type Expansion, planOf } from './program-code.ts';

/** Plans kept for calls of the same shape. */
const MAX_CACHED_PLANS = 64;

export class PlanCache {
  readonly #plans: Map<string, Plan> = new Map();

  /** A rank's plan, by one of the algorithms or by a user's program. */
  get(task: Task, algorithm: Algorithm | Expansion, sites: Sites, rank: Rank): Plan {
    const isOwn = typeof algorithm !== 'string';
    const label = isOwn ? algorithm.label : algorithm;
    const where = algorithm === 'hierarchical' ? sites.join() : '';
    const key = `${task.kind}/${label}/${task.worldSize}/${task.count}/${task.root}/${rank}/${where}`;
    let plan = this.#plans.get(key);
    if (plan === undefined) {
      plan = isOwn ? planOf(algorithm, rank, task.count) : makePlan({ ...task, algorithm, sites }, rank);
      if (this.#plans.size >= MAX_CACHED_PLANS) this.#plans.clear();
      this.#plans.set(key, plan);
    }
    return plan;
  }
}
